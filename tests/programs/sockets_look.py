"""A sidecar's look at the traffic: find out what works here, watch some traffic of our own, say it as JSON.

python sockets_look.py
"""

import asyncio
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from sidecar.adapters.sockets import Sockets
from sidecar.ports import Unavailable
from sidecar.traffic import Reading


AF_NETLINK, AF_VSOCK = 16, 40


@dataclass
class Told:
    """What was seen, and under which rights."""

    uid: int = field(default_factory=os.getuid)
    status: dict[str, str] = field(default_factory=dict)
    denied: dict[str, str] = field(default_factory=dict)
    source: str = ""
    reason: str = ""
    took: float = 0.0
    accepted: int | None = None
    closed: int = 0
    listening: bool = False
    listener_inode: bool = False
    open: dict[str, object] = field(default_factory=dict)
    trouble: str = ""
    error: str = ""


def refusal(family: int, kind: int) -> str:
    """What the kernel says to a socket of this family."""
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def status() -> dict[str, str]:
    """Our rights, in the kernel's words."""
    with open("/proc/self/status", encoding="ascii") as lines:  # noqa: PTH123
        rows = (line.split(":", 1) for line in lines)
        return {k: v.strip() for k, v in rows if k.startswith(("Cap", "NoNewPrivs", "Seccomp"))}


async def traffic(source: Sockets, told: Told) -> None:
    """50 requests with a connection each; one connection that is kept, and closed in the end."""
    before = await source.read()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x" * 10)
                with server.accept()[0] as accepted:
                    accepted.recv(10)
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            client.sendall(b"x" * 100)
            during = await source.read()
            [kept] = [x for x in during.open if (x.port, x.peer_port) == (port, client.getsockname()[1])]
            told.open = kept._asdict()
            told.listening = port in {x.port for x in during.listeners}
            inodes = {x.inode for x in during.listeners if x.port == port}
            told.listener_inode = inodes == {os.fstat(server.fileno()).st_ino}
    if before.opens is not None and during.opens is not None:
        told.accepted = during.opens[1] - before.opens[0]
    complete, late = source.source == "netlink" and not source.reason, time.monotonic() + 3
    readings = [during, await source.read()]
    while complete and told_closed(readings, port) < 51 and time.monotonic() < late:
        readings.append(await source.read())
    told.closed = told_closed(readings, port)
    told.trouble = "; ".join(reading.trouble for reading in readings if reading.trouble)


def told_closed(readings: Iterable[Reading], port: int) -> int:
    """How many connections of this port they show as gone."""
    return sum(x.port == port for reading in readings for x in reading.closed)


async def look() -> Told:
    """Find out what works, and use it."""
    told = Told(status=status())
    told.denied = {
        "netlink": refusal(AF_NETLINK, socket.SOCK_RAW),
        "vsock": refusal(AF_VSOCK, socket.SOCK_STREAM),
    }
    source = Sockets()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await source.detect()
    told.took, told.source, told.reason = loop.time() - started, source.source, source.reason
    try:
        await traffic(source, told)
    except (Unavailable, OSError) as error:
        told.error = str(error)
    finally:
        source.close()
    return told


sys.stdout.write(json.dumps(asdict(asyncio.run(look()))) + "\n")
