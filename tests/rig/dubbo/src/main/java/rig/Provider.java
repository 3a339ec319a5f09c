package rig;

import java.util.List;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/**
 * Two interfaces, each on two ports, in Nacos the way Dubbo does it by default: every interface is a service, and the
 * application is one more.
 *
 * <p>Arguments: the application's name, Nacos' HOST:PORT, the interfaces' version, the port of the protocol dubbo, that
 * of tri. Everything else, QoS above all, is set by -Ddubbo.… properties.
 */
public class Provider {

  public static void main(String[] args) throws InterruptedException {
    RegistryConfig nacos = new RegistryConfig("nacos://" + args[1]);
    nacos.setUseAsConfigCenter(false); // the rig's servers have naming only
    nacos.setUseAsMetadataCenter(false);
    List<ProtocolConfig> ports = List.of(protocol("dubbo", args[3]), protocol("tri", args[4]));
    DubboBootstrap.getInstance()
        .application(new ApplicationConfig(args[0]))
        .registry(nacos)
        .protocols(ports)
        .service(service(Orders.class, what -> what, args[2], ports))
        .service(service(Payments.class, what -> what, args[2], ports))
        .start();
    System.out.println("started");
    Thread.currentThread().join();
  }

  private static ProtocolConfig protocol(String name, String port) {
    return new ProtocolConfig(name, Integer.parseInt(port));
  }

  private static <T> ServiceConfig<T> service(Class<T> type, T made, String version, List<ProtocolConfig> ports) {
    ServiceConfig<T> service = new ServiceConfig<>();
    service.setInterface(type);
    service.setRef(made);
    service.setVersion(version);
    service.setProtocols(ports);
    return service;
  }
}
