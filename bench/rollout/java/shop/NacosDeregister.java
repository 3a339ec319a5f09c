package shop;

import com.alibaba.cloud.nacos.registry.NacosRegistration;
import com.alibaba.cloud.nacos.registry.NacosServiceRegistry;

import org.springframework.boot.actuate.endpoint.annotation.Endpoint;
import org.springframework.boot.actuate.endpoint.annotation.WriteOperation;
import org.springframework.stereotype.Component;

/** The endpoint that many teams have written, and that the folk hook asks: the rival's, not ours. */
@Component
@Endpoint(id = "nacos-deregister")
class NacosDeregister {

    private final NacosServiceRegistry registry;
    private final NacosRegistration registration;

    NacosDeregister(NacosServiceRegistry registry, NacosRegistration registration) {
        this.registry = registry;
        this.registration = registration;
    }

    @WriteOperation
    String deregister() {
        registry.setStatus(registration, "DOWN");
        return "deregistered";
    }
}
