"""A container's program for the kubelet emulator's own tests: an app or a hook's server, or both.

Threads and no asyncio, because that starts in a third of the time, and there are many of it.
"""

import argparse
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Hook(socketserver.StreamRequestHandler):
    """Answers /up at once and everything else after a while, with a status nobody should mind."""

    seconds = 0.0

    def handle(self) -> None:
        """Answer one connection's requests."""
        while request := self.rfile.readline().decode():
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            target = request.split()[1]
            status = "200 OK" if target == "/up" else "500 Whatever"
            if target != "/up":
                say(f"GET {target} from {self.client_address[0]}")
                time.sleep(self.seconds)
            self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode())


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection, and none of them in the way of the end."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Run until SIGTERM, as told on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", help="IP:PORT of the hook's server")
    parser.add_argument("--answer-after", type=float, default=0.0)
    parser.add_argument("--on-term", choices=["exit", "stay"], default="exit")
    parser.add_argument("--stray", action="store_true", help="start a child that outlives us")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if options.listen:
        ip, port = options.listen.rsplit(":", 1)
        Hook.seconds = options.answer_after
        threading.Thread(target=Server((ip, int(port)), Hook).serve_forever, daemon=True).start()
    if options.stray:
        stray = subprocess.Popen(["sleep", "600"], start_new_session=True)
        say(f"stray {stray.pid}")
    sys.stderr.write("no newline at the end")
    sys.stderr.flush()
    say("running")
    while True:
        signal.sigwait({signal.SIGTERM})
        say("SIGTERM")
        if options.on_term == "exit":
            os._exit(3)


main()
