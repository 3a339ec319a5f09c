package rig;

import com.alibaba.nacos.consistency.cp.RequestProcessor4CP;
import com.alibaba.nacos.core.code.ControllerMethodsCache;
import com.alibaba.nacos.core.distributed.ProtocolManager;
import java.util.Collection;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.actuate.autoconfigure.security.servlet.ManagementWebSecurityAutoConfiguration;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.security.servlet.SecurityAutoConfiguration;
import org.springframework.boot.web.servlet.ServletComponentScan;
import org.springframework.context.ApplicationContext;
import org.springframework.scheduling.annotation.EnableScheduling;

/** Nacos 2.2.4's naming half: the published jar leaves out the console, which starts it in an official build. */
@EnableScheduling
@ServletComponentScan("com.alibaba.nacos")
@SpringBootApplication(
    scanBasePackages = "com.alibaba.nacos",
    exclude = {SecurityAutoConfiguration.class, ManagementWebSecurityAutoConfiguration.class})
public class Nacos2 {

  public static void main(String[] args) throws ReflectiveOperationException {
    ApplicationContext context = SpringApplication.run(Nacos2.class, args);

    // The console does this too; without it every naming call answers 501.
    ControllerMethodsCache methods = context.getBean(ControllerMethodsCache.class);
    methods.initClassMethod("com.alibaba.nacos.core.controller");
    methods.initClassMethod("com.alibaba.nacos.naming.controllers");

    createRaftGroups(context);
  }

  /**
   * In this build JRaftProtocol.addRequestProcessors is a bare return, so nobody creates the Raft groups and every
   * metadata or persistent write answers 500. What the method should have called is not public.
   */
  private static void createRaftGroups(ApplicationContext context) throws ReflectiveOperationException {
    Object protocol = context.getBean(ProtocolManager.class).getCpProtocol();
    var field = protocol.getClass().getDeclaredField("raftServer");
    field.setAccessible(true);
    Object server = field.get(protocol);
    var create = server.getClass().getDeclaredMethod("createMultiRaftGroup", Collection.class);
    create.setAccessible(true);
    create.invoke(server, context.getBeansOfType(RequestProcessor4CP.class).values());
  }
}
