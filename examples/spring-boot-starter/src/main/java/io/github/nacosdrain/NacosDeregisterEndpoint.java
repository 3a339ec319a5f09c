package io.github.nacosdrain;

import com.alibaba.cloud.nacos.registry.NacosAutoServiceRegistration;
import com.alibaba.nacos.api.exception.NacosException;
import java.util.Collections;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.boot.actuate.endpoint.annotation.ReadOperation;
import org.springframework.boot.actuate.endpoint.annotation.Selector;
import org.springframework.boot.actuate.endpoint.annotation.WriteOperation;
import org.springframework.boot.actuate.endpoint.web.WebEndpointResponse;
import org.springframework.boot.actuate.endpoint.web.annotation.WebEndpoint;
import org.springframework.cloud.client.discovery.event.InstanceRegisteredEvent;
import org.springframework.context.event.EventListener;

/**
 * {@code /actuator/nacos-deregister}: POST takes the app out of Nacos, POST {@code {"status":"UP"}} puts it back, GET
 * tells the registration.
 *
 * <p>The POST is two operations. Boot sends JSON to the one with a parameter, which Boot insists on, and a POST without
 * a content type to the other. With one optional parameter instead, a JSON body that misspells {@code status} would
 * remove the app; and how a parameter is made optional changed with Boot 4.
 */
@WebEndpoint(id = "nacos-deregister")
public class NacosDeregisterEndpoint {

    private static final Logger LOG = LoggerFactory.getLogger(NacosDeregisterEndpoint.class);
    private static final int CONFLICT = 409;

    private final OwnRegistration own;

    NacosDeregisterEndpoint(OwnRegistration own) {
        this.own = own;
    }

    @ReadOperation
    public Map<String, Object> registration() {
        return own.told();
    }

    /** The same under a name of its own: elsewhere, an endpoint called nacos-deregister may act on a plain GET. */
    @ReadOperation
    public WebEndpointResponse<Map<String, Object>> registration(@Selector String part) {
        if (!"registration".equals(part)) {
            return new WebEndpointResponse<>(WebEndpointResponse.STATUS_NOT_FOUND);
        }
        return new WebEndpointResponse<>(own.told());
    }

    @WriteOperation
    public WebEndpointResponse<Map<String, Object>> remove() {
        return act("remove", own::remove);
    }

    @WriteOperation
    public WebEndpointResponse<Map<String, Object>> setStatus(String status) {
        switch (status) {
            case "DOWN":
                return remove();
            case "UP":
                return act("register", own::register);
            default:
                return refuse(WebEndpointResponse.STATUS_BAD_REQUEST, "status is neither DOWN nor UP");
        }
    }

    /** An app may have several registries, each of which says so when it has registered. */
    @EventListener
    public void onRegistered(InstanceRegisteredEvent<?> event) {
        if (event.getSource() instanceof NacosAutoServiceRegistration) {
            own.wasRegistered();
        }
    }

    private WebEndpointResponse<Map<String, Object>> act(String what, Step step) {
        switch (own.state()) {
            case DISABLED:
                return refuse(CONFLICT, "spring.cloud.nacos.discovery.register-enabled is false");
            case STARTING:
                return refuse(CONFLICT, "the app has not registered yet");
            default:
        }
        try {
            step.take();
        } catch (NacosException | RuntimeException failure) {
            String reason = "could not " + what + " the app at Nacos: " + own.reason(failure);
            LOG.warn(reason);
            return refuse(WebEndpointResponse.STATUS_INTERNAL_SERVER_ERROR, reason);
        }
        return new WebEndpointResponse<>(own.told());
    }

    private static WebEndpointResponse<Map<String, Object>> refuse(int status, String reason) {
        return new WebEndpointResponse<>(Collections.singletonMap("reason", reason), status);
    }

    private interface Step {
        void take() throws NacosException;
    }
}
