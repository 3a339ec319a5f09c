"""Somebody who listens: the app in the tests of what the kernel shows of it.

python -I -S listener.py HOST PORT [--children N] [--run COMMAND…]
"""

import argparse
import os
import signal
import socket
import subprocess
import sys


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


started: list[subprocess.Popen[bytes]] = []


def on_term(*_: object) -> None:
    """Tell, and exit; as process 1 not before the others, whom that would kill in the middle of a word."""
    say("SIGTERM")
    for process in started:
        process.wait()
    sys.exit(0)


def main() -> None:
    """Listen until SIGTERM; children keep the socket, as those of a prefork server do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--run", nargs=argparse.REMAINDER, help="beside it, in the same namespaces")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, on_term)
    listener = socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in options.host:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((options.host, options.port))
    listener.listen()
    for _ in range(options.children):
        child = os.fork()
        if not child:
            break
        say(f"child {child}")
    else:
        say("listening")
    if options.run:
        started.append(subprocess.Popen(options.run))
    while True:
        signal.pause()


main()
