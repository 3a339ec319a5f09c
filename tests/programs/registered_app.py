"""An app as a sidecar sees one: it listens, hangs on Nacos by a connection that dies with it, and stops on SIGTERM.

Sockets and threads only: it starts in a tenth of the time that an HTTP library takes to import, and tests start dozens.

    python -I -S registered_app.py --listen IP:PORT --nacos HOST:PORT [--service NAME]
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
import urllib.parse


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def accept(listener: socket.socket) -> None:
    """Take every connection, and let it go."""
    while True:
        connection, _ = listener.accept()
        connection.close()


def ask(nacos: str, method: str, path: str, query: dict[str, str], *headers: str) -> socket.socket:
    """Send one request to the double's private paths; the connection stays open."""
    host, _, port = nacos.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    lines = (f"{method} {path}?{urllib.parse.urlencode(query)} HTTP/1.1", f"Host: {nacos}", *headers, "", "")
    connection.sendall("\r\n".join(lines).encode())
    status = connection.recv(4096).split(b"\r\n")[0]
    if status.split()[1] not in (b"200", b"101"):
        raise SystemExit(f"the double answers {status!r}")
    return connection


def register(nacos: str, service: str, ip: str, port: str) -> socket.socket:
    """Do what a client does over gRPC: connect, and publish over that connection."""
    me = f"{ip}:{port}-{os.getpid()}"
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: bm90IHNlY3JldCBhdCBhbA=="
    held = ask(nacos, "GET", "/double/grpc/connection", {"id": me}, *upgrade, key)
    query = {"serviceName": service, "ip": ip, "port": port, "connection": me}
    ask(nacos, "POST", "/double/grpc/instance", query).close()
    return held


def main() -> None:
    """Run until SIGTERM, as told on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True, metavar="IP:PORT")
    parser.add_argument("--nacos", metavar="HOST:PORT", help="the double; without it nothing is registered")
    parser.add_argument("--service", default="shop")
    parser.add_argument("--on-term", choices=["exit", "stay"], default="exit")
    parser.add_argument("--stop-takes", type=float, default=0.05)
    parser.add_argument("--ignore-int", action="store_true")
    parser.add_argument("--backlog", type=int, default=64)
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if options.ignore_int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    ip, _, port = options.listen.rpartition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ip, int(port)))
    listener.listen(options.backlog)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    held = register(options.nacos, options.service, ip, port) if options.nacos else None
    say("registered" if held else "listening")
    while True:
        signal.sigwait({signal.SIGTERM})
        say("SIGTERM")
        if options.on_term == "exit":
            time.sleep(options.stop_takes)
            os._exit(143)  # what a JVM exits with


main()
