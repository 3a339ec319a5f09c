package shop;

import java.net.InetSocketAddress;
import java.net.URI;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.cloud.gateway.config.HttpClientCustomizer;
import org.springframework.cloud.gateway.filter.GatewayFilterChain;
import org.springframework.cloud.gateway.filter.GlobalFilter;
import org.springframework.cloud.gateway.filter.ReactiveLoadBalancerClientFilter;
import org.springframework.cloud.gateway.route.RouteLocator;
import org.springframework.cloud.gateway.route.builder.RouteLocatorBuilder;
import org.springframework.cloud.gateway.support.ServerWebExchangeUtils;
import org.springframework.context.annotation.Bean;
import org.springframework.core.Ordered;
import org.springframework.web.server.ServerWebExchange;
import reactor.core.publisher.Mono;

/** Sends /shop/** to the instances of {@code shop} that its load balancer knows, without a retry. */
@SpringBootApplication
public class Gateway {

    public static void main(String[] args) {
        SpringApplication.run(Gateway.class, args);
    }

    @Bean
    RouteLocator routes(RouteLocatorBuilder routes, @Value("${gateway.service:shop}") String service) {
        return routes.routes()
                .route(route -> route.path("/" + service + "/**").filters(filters -> filters.stripPrefix(1)).uri("lb://" + service))
                .build();
    }

    /** On one machine all programs have one address; with one of its own a caller can be told from the others. */
    @Bean
    @ConditionalOnProperty("gateway.bind")
    HttpClientCustomizer bind(@Value("${gateway.bind:}") String address) {
        return client -> client.bindAddress(() -> new InetSocketAddress(address, 0));
    }

    @Bean
    GlobalFilter tellsTheInstance() {
        return new TellsTheInstance();
    }

    /** Says in a header which instance was chosen: who gets an error from the gateway could not know it otherwise. */
    static class TellsTheInstance implements GlobalFilter, Ordered {

        @Override
        public int getOrder() {
            return ReactiveLoadBalancerClientFilter.LOAD_BALANCER_CLIENT_FILTER_ORDER + 1;
        }

        @Override
        public Mono<Void> filter(ServerWebExchange exchange, GatewayFilterChain chain) {
            URI chosen = exchange.getAttribute(ServerWebExchangeUtils.GATEWAY_REQUEST_URL_ATTR);
            if (chosen != null) {
                exchange.getResponse().getHeaders().set("X-Instance", chosen.getAuthority());
            }
            return chain.filter(exchange);
        }
    }
}
