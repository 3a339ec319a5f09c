import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** An app as small as one can be: it answers on port 8080, and SIGTERM ends it at once, as it ends any JVM. */
public class Shop {
    public static void main(String[] arguments) throws Exception {
        byte[] answer = "in stock\n".getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 128);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, answer.length);
            try (var body = exchange.getResponseBody()) {
                body.write(answer);
            }
        });
        server.start();
        System.out.println("listening");
    }
}
