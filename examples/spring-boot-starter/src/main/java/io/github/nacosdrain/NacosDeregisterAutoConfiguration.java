package io.github.nacosdrain;

import com.alibaba.cloud.nacos.NacosServiceManager;
import com.alibaba.cloud.nacos.registry.NacosRegistration;
import org.springframework.boot.actuate.autoconfigure.endpoint.condition.ConditionalOnAvailableEndpoint;
import org.springframework.boot.actuate.endpoint.web.annotation.WebEndpoint;
import org.springframework.boot.autoconfigure.AutoConfigureAfter;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnClass;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/**
 * Gives an app the endpoint if it has an actuator, registers in Nacos, and exposes {@code nacos-deregister}. Any other
 * app gets nothing, so that the jar may lie in everybody's common package.
 *
 * <p>{@code @AutoConfiguration} is newer than the oldest Boot this is for, hence the older pair of annotations.
 */
@Configuration(proxyBeanMethods = false)
@ConditionalOnClass({WebEndpoint.class, ConditionalOnAvailableEndpoint.class, NacosRegistration.class})
@AutoConfigureAfter(
        name = {
            "com.alibaba.cloud.nacos.NacosServiceAutoConfiguration",
            "com.alibaba.cloud.nacos.registry.NacosServiceRegistryAutoConfiguration"
        })
public class NacosDeregisterAutoConfiguration {

    @Bean
    @ConditionalOnBean({NacosRegistration.class, NacosServiceManager.class})
    @ConditionalOnAvailableEndpoint(endpoint = NacosDeregisterEndpoint.class)
    public NacosDeregisterEndpoint nacosDeregisterEndpoint(NacosRegistration registration, NacosServiceManager nacos) {
        return new NacosDeregisterEndpoint(new OwnRegistration(registration, nacos));
    }
}
