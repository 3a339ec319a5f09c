"""An app that answers whoever calls, and speaks what consumers of Nacos speak: HTTP/1.1, gRPC's HTTP/2, and Dubbo.

One port for all of them: the first bytes of a connection tell. Only as much of each as the kernel could notice, which
counts bytes and when they came.

    python -I -S serving_app.py --listen IP:PORT [--tls PEM]
"""

import argparse
import asyncio
import os
import signal
import socket
import ssl
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit


BODY = b'{"id": 4711, "name": "a thing that somebody wanted to know of"}\n'
HEALTH = "/actuator/health"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, PING = 1, 4, 6  # types of HTTP/2's frames
ACK, END = 1, 5  # their flags: an answer to SETTINGS or PING; the end of the stream's headers, and of the stream
DUBBO = b"\xda\xbb"
REQUEST, TWO_WAY, EVENT, HESSIAN, OK = 0x80, 0x40, 0x20, 2, 20


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def http(first: bytes, reader: StreamReader, writer: StreamWriter) -> None:
    """Answer requests of HTTP/1.1: after so many `seconds`, or, for /stream, without an end.

    Of an actuator there is the health alone, as where nothing else is exposed.
    """
    while True:
        head = first + await reader.readuntil(b"\r\n\r\n")
        first = b""
        url = urlsplit(head.split()[1].decode())
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/stream":
            await stream(writer, float(asked["every"]))
        await asyncio.sleep(float(asked.get("seconds", "0")))
        kept = b"connection: close" not in head.lower()
        connection = b"" if kept else b"connection: close\r\n"
        status = b"404 Not Found" if url.path.startswith("/actuator/") and url.path != HEALTH else b"200 OK"
        body = b'{"status": "UP"}' if url.path == HEALTH else BODY
        kind = b"content-type: application/json\r\n"
        writer.write(b"HTTP/1.1 %s\r\n%s%scontent-length: %d\r\n\r\n" % (status, kind, connection, len(body)) + body)
        await writer.drain()
        if not kept:
            return


async def stream(writer: StreamWriter, every: float) -> None:
    """Send server-sent events until the caller has had enough."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    while True:
        writer.write(b"data: " + BODY + b"\n")
        await writer.drain()
        await asyncio.sleep(every)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


async def http2(first: bytes, reader: StreamReader, writer: StreamWriter) -> None:
    """Answer every request of HTTP/2, and its settings and pings."""
    await reader.readexactly(len(PREFACE) - len(first))
    writer.write(frame(SETTINGS, 0, 0))
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags, stream_id = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind in {SETTINGS, PING} and not flags & ACK:
            writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == HEADERS:
            writer.write(frame(HEADERS, END, stream_id, BODY))
        await writer.drain()


async def dubbo(first: bytes, reader: StreamReader, writer: StreamWriter) -> None:
    """Answer every request of Dubbo, and its heartbeats."""
    while True:
        head = first + await reader.readexactly(16 - len(first))
        first = b""
        await reader.readexactly(int.from_bytes(head[12:], "big"))
        event = head[2] & EVENT
        body = b"N" if event else BODY
        if head[2] & REQUEST:
            writer.write(DUBBO + bytes([HESSIAN | event, OK]) + head[4:12] + len(body).to_bytes(4, "big") + body)
            await writer.drain()


async def serve(reader: StreamReader, writer: StreamWriter) -> None:
    """Find out what is spoken, and answer until the caller leaves."""
    with suppress(IncompleteReadError, ConnectionError, ssl.SSLError):
        first = await reader.readexactly(2)
        speak = dubbo if first == DUBBO else http2 if first == PREFACE[:2] else http
        await speak(first, reader, writer)
    writer.close()


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True, metavar="IP:PORT")
    parser.add_argument("--tls", metavar="PEM", help="a key and its certificates")
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    tls = None
    if options.tls:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls)
    if host == "::":  # as a JVM listens: IPv4 comes in as well
        listener = socket.create_server((host, int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server((host, int(port)))
    await asyncio.start_server(serve, sock=listener, ssl=tls, backlog=256)
    say("listening")
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    await asked_to_stop.wait()
    say("SIGTERM")
    os._exit(143)  # what a JVM exits with


asyncio.run(main())
