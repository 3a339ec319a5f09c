"""A Dubbo provider as far as Nacos and QoS know one: each interface on each port, the application, and the QoS port.

Statuses, headers and bodies are those measured on the real 2.7.23, 3.1.11 and 3.3.5 (sidecar/adapters/dubbo.py says
what of that surprised). Sockets and threads only, as in registered_app.py: it starts in no time.

    python -I -S scripted_qos.py --nacos HOST:PORT --application NAME [--interface NAME…] [--port PORT…]
        [--release 3.3.5] [--foreign [--level NONE]] [--lost]

It prints its QoS port. On stdin `publish` stands for the second after which Dubbo publishes by itself.
"""

import argparse
import socket
import sys
import threading
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus


REFUSED = {"2.7": "Foreign Ip Not Permitted.", "3": "Foreign Ip Not Permitted, Consider Config It In Whitelist."}


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Nacos:
    """One connection to the double, by its private paths: it holds what is registered over it."""

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        self._name = name
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: bm90IHNlY3JldCBhdCBhbA=="
        self._held = self._ask("GET", "/double/grpc/connection", {"id": name}, *upgrade, key)

    def register(self, service: str, port: int) -> None:
        """Register an instance; one of the same service would replace it."""
        query = {"serviceName": service, "ip": "10.9.0.1", "port": str(port), "connection": self._name}
        self._ask("POST", "/double/grpc/instance", query).close()

    def deregister(self, service: str) -> None:
        """Take it back."""
        self._ask("DELETE", "/double/grpc/instance", {"serviceName": service, "connection": self._name}).close()

    def _ask(self, method: str, path: str, query: dict[str, str], *headers: str) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
        lines = (f"{method} {path}?{urllib.parse.urlencode(query)} HTTP/1.1", f"Host: {self._address}", *headers)
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        status = connection.recv(4096).split(b"\r\n")[0]
        if status.split()[1] not in {b"200", b"101"}:
            raise SystemExit(f"the double answers {status!r}")
        return connection


class Provider:
    """What Dubbo has in Nacos, and what it believes to have there."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.interfaces: list[str] = options.interface
        self.ports: list[int] = options.port
        self.lost: bool = options.lost
        self.registered = False
        self.believed = False
        self._application = None if options.release.startswith("2.7") else options.application
        # A connection holds one instance per service; Dubbo has a second one, or registers in a batch.
        self._connections = [Nacos(options.nacos, f"{options.application}-{port}") for port in self.ports]
        self._published = False
        if self.interfaces:
            self.online()
            self.publish()

    def offline(self) -> bool:
        """Deregister the interfaces. Whether it worked; without Nacos half of them stay, and are thought gone later."""
        if self.believed and self.lost:
            self.believed = False
            self._each(lambda nacos, service, _: nacos.deregister(service), self.interfaces[:1])
            return False
        if self.believed:
            self._each(lambda nacos, service, _: nacos.deregister(service))
            self.believed = self.registered = False
        return True

    def online(self) -> None:
        """Register the interfaces."""
        self._each(lambda nacos, service, port: nacos.register(service, port))
        self.believed = self.registered = True

    def publish(self) -> None:
        """Bring the application's instance in line."""
        if self._application is None or self._published is self.registered:
            return
        self._published = self.registered
        if self.registered:
            self._connections[0].register(self._application, self.ports[0])
        else:
            self._connections[0].deregister(self._application)

    def _each(self, do: Callable[[Nacos, str, int], None], interfaces: list[str] | None = None) -> None:
        for interface in self.interfaces if interfaces is None else interfaces:
            for nacos, port in zip(self._connections, self.ports, strict=True):
                do(nacos, f"providers:{interface}:1.0.0:", port)


class Qos:
    """The commands, by the names and with the answers of a release."""

    def __init__(self, provider: Provider, options: argparse.Namespace) -> None:
        self._provider = provider
        self._application = options.application
        self._release: str = options.release
        self._foreign: bool = options.foreign
        # Permission levels are there since 3.2 (default: nothing but probes for strangers); NONE is the old way.
        self._levels = self._release >= "3.2" and options.level != "NONE"
        self._lock = threading.Lock()

    def serve(self, connection: socket.socket) -> None:
        """Answer one request, and close."""
        with connection, self._lock:
            request = connection.recv(4096).decode()
            if not request:
                return
            command = request.split()[1].lstrip("/")
            if self._foreign and not self._levels:
                self._answer(command)  # it is refused, and carried out
                words = REFUSED["2.7" if self._release.startswith("2.7") else "3"]
                connection.sendall(f"\r\n{words}\r\n".encode())
                return
            status, body = self._answer(command)
            reason = HTTPStatus(status).phrase
            head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(f"{head}{body}".encode())

    def _answer(self, command: str) -> tuple[int, str]:
        if self._foreign and self._levels and command != "live":
            return 403, ""
        provider = self._provider
        match command:
            case "offline" | "online" if not provider.interfaces:
                return 200, "service not found"
            case "offline":
                return (200, "OK") if provider.offline() else (500, self._failure())
            case "online":
                provider.online()
                return 200, "OK"
            case "ls":
                return 200, self._list()
            case "live" if self._release.startswith("3"):
                return 200, "true"
            case "publishMetadata" if self._release.startswith("2.7"):
                return 200, "publish metadata succeeded."
            case "publishMetadata" if self._release >= "3.3":
                return 200, self._publish()
            case "publish-metadata" if self._release < "3.3":
                return 200, self._publish()
            case _:
                return 404, ""

    def _publish(self) -> str:
        self._provider.publish()
        return f"publish metadata succeeded. App:{self._application}\n"

    def _list(self) -> str:
        state = "Y" if self._provider.believed else "N"
        rows = [("Provider Service Name", "PUB"), *((f"{name}:1.0.0", state) for name in self._provider.interfaces)]
        width = max(len(name) for name, _ in rows)
        line = f"+{'-' * width}+---+\n"
        table = line + "".join(f"|{name:^{width}}|{told:^3}|\n{line}" for name, told in rows)
        none = "+---------------------+---+\n"
        return f"As Provider side:\n{table}As Consumer side:\n{none}|Consumer Service Name|NUM|\n{none}"

    def _failure(self) -> str:
        url = f"dubbo://10.9.0.1:20880/{self._provider.interfaces[0]}"
        registry = "nacos://127.0.0.1:8848/org.apache.dubbo.registry.RegistryService?password=sekret&username=shop"
        return (
            "java.util.concurrent.ExecutionException: java.lang.IllegalStateException: "
            f"Failed to unregister {url} to registry 127.0.0.1:8848, cause: Failed to unregister {url} "
            f"to nacos {registry}, cause: Client not connected, current status:UNHEALTHY"
        )


def accept(listener: socket.socket, qos: Qos) -> None:
    """Serve each connection in a thread of its own."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=qos.serve, args=(connection,), daemon=True).start()


def main() -> None:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nacos", required=True, metavar="HOST:PORT", help="the double")
    parser.add_argument("--application", required=True)
    parser.add_argument("--interface", action="append", default=[])
    parser.add_argument("--port", action="append", type=int, default=[])
    parser.add_argument("--release", default="3.3.5")
    parser.add_argument("--foreign", action="store_true", help="take every caller for one from elsewhere")
    parser.add_argument("--level", choices=["PUBLIC", "NONE"], default="PUBLIC")
    parser.add_argument("--lost", action="store_true", help="Nacos is out of its reach when it is told to leave")
    options = parser.parse_args()
    provider = Provider(options)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, args=(listener, Qos(provider, options)), daemon=True).start()
    say(f"ready {listener.getsockname()[1]}")
    for line in sys.stdin:
        if line.strip() == "publish":
            provider.publish()
            say("published")


main()
