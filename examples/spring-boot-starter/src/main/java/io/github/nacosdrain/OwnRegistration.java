package io.github.nacosdrain;

import com.alibaba.cloud.nacos.NacosDiscoveryProperties;
import com.alibaba.cloud.nacos.NacosServiceManager;
import com.alibaba.cloud.nacos.registry.NacosRegistration;
import com.alibaba.nacos.api.exception.NacosException;
import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.pojo.Instance;
import com.alibaba.nacos.common.utils.VersionUtils;
import java.util.LinkedHashMap;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.BeanWrapper;
import org.springframework.beans.PropertyAccessorFactory;

/**
 * The app's own instance in Nacos: out of it, and back in, over the connection that registered it.
 *
 * <p>Spring Cloud Alibaba's {@code setStatus} does not do: up to 2023.0 it leaves a record at Nacos which disables this
 * address for the app's next start too, and which Nacos 3 refuses to take. Its {@code deregister} does not either: it
 * swallows what went wrong, and means an ephemeral instance always.
 */
class OwnRegistration {

    /** What the app is meant to be. Nacos' list is what it is: a request may still be on its way there. */
    enum State {
        /** Not registered yet. */
        STARTING,
        UP,
        /** Taken out by {@link #remove}. */
        DOWN,
        /** Configured not to register. */
        DISABLED
    }

    private static final Logger LOG = LoggerFactory.getLogger(OwnRegistration.class);

    private final NacosRegistration registration;
    private final NacosServiceManager nacos;
    private volatile boolean registered;
    private volatile boolean out;

    OwnRegistration(NacosRegistration registration, NacosServiceManager nacos) {
        this.registration = registration;
        this.nacos = nacos;
    }

    State state() {
        if (!properties().isRegisterEnabled()) {
            return State.DISABLED;
        }
        return !registered ? State.STARTING : out ? State.DOWN : State.UP;
    }

    /** Asked again, it asks Nacos again: somebody else may have registered this address meanwhile. */
    synchronized void remove() throws NacosException {
        out = true; // from now on: when this fails, Nacos' client tries again as soon as it is connected
        naming().deregisterInstance(registration.getServiceId(), properties().getGroup(), instance());
    }

    synchronized void register() throws NacosException {
        out = false;
        naming().registerInstance(registration.getServiceId(), properties().getGroup(), instance());
    }

    /**
     * Spring Cloud Alibaba has registered: at the start, and again when a refresh has changed its properties. What was
     * taken out stays out, as a drain may be waiting for the last callers.
     */
    synchronized void wasRegistered() {
        registered = true;
        if (out) {
            try {
                remove();
            } catch (NacosException | RuntimeException failure) {
                LOG.warn("a refresh registered this app again after it was taken out: {}", reason(failure));
            }
        }
    }

    /** What went wrong, unless it repeats what the app logs in to Nacos with. */
    String reason(Exception failure) {
        String said = failure.toString();
        NacosDiscoveryProperties properties = properties();
        for (String secret : new String[] {properties.getPassword(), properties.getSecretKey(), "accessToken"}) {
            if (secret != null && !secret.isEmpty() && said.contains(secret)) {
                return failure.getClass().getSimpleName() + " (not shown, as it repeats a secret)";
            }
        }
        return said;
    }

    /** Nothing in it is a secret, which cannot be said of the endpoint {@code nacosdiscovery}. */
    Map<String, Object> told() {
        NacosDiscoveryProperties properties = properties();
        Map<String, Object> told = new LinkedHashMap<>();
        told.put("service", registration.getServiceId());
        told.put("group", properties.getGroup());
        told.put("namespace", orElse(properties.getNamespace(), ""));
        told.put("cluster", orElse(properties.getClusterName(), "DEFAULT"));
        told.put("ip", registration.getHost());
        told.put("port", registration.getPort());
        told.put("ephemeral", properties.isEphemeral());
        told.put("registerEnabled", properties.isRegisterEnabled());
        told.put("state", state());
        told.put("serverAddr", orElse(properties.getServerAddr(), ""));
        String contextPath = properties.getNacosProperties().getProperty("contextPath");
        if (contextPath != null) {
            told.put("contextPath", contextPath);
        }
        BeanWrapper newer = PropertyAccessorFactory.forBeanPropertyAccess(properties);
        if (newer.isReadableProperty("gracefulShutdownWaitTime")) { // since 2023.0.3
            told.put("gracefulShutdownWaitTime", newer.getPropertyValue("gracefulShutdownWaitTime"));
        }
        told.put("nacosClient", VersionUtils.version);
        return told;
    }

    /** As {@code NacosServiceRegistry} makes it, in all generations. */
    private Instance instance() {
        NacosDiscoveryProperties properties = properties();
        Instance instance = new Instance();
        instance.setIp(registration.getHost());
        instance.setPort(registration.getPort());
        instance.setWeight(properties.getWeight());
        instance.setClusterName(properties.getClusterName());
        instance.setEnabled(properties.isInstanceEnabled());
        instance.setMetadata(registration.getMetadata());
        instance.setEphemeral(properties.isEphemeral());
        return instance;
    }

    /** Asked for each time: a refresh closes the client and makes another. */
    private NamingService naming() {
        return nacos.getNamingService();
    }

    private NacosDiscoveryProperties properties() {
        return registration.getNacosDiscoveryProperties();
    }

    private static String orElse(String value, String missing) {
        return value == null || value.isEmpty() ? missing : value;
    }
}
