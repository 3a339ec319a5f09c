package shop;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** Takes orders, each as slowly as it is asked to. */
@SpringBootApplication
@RestController
public class Provider {

    public static void main(String[] args) {
        SpringApplication.run(Provider.class, args);
    }

    /** A POST, as no client repeats one by itself when a kept connection turns out to be cut. */
    @PostMapping("/orders")
    public String order(@RequestParam(name = "millis", defaultValue = "0") long millis) throws InterruptedException {
        Thread.sleep(millis);
        return "ordered";
    }
}
