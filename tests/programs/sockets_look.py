"""A sidecar's look at the traffic, under whatever it is started with and whatever it denies itself.

python sockets_look.py raise-lo COMMAND...        bring loopback up, as root, and become that command
python sockets_look.py look [--seccomp PROFILE]   find out what works, watch some traffic of our own, say it as JSON
"""

import argparse
import asyncio
import ctypes
import errno
import fcntl
import json
import os
import platform
import socket
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from sidecar.adapters.sockets import Sockets
from sidecar.ports import Unavailable
from sidecar.traffic import Reading


SIOCSIFFLAGS, IFF_UP = 0x8914, 1
AF_NETLINK, AF_ALG, AF_VSOCK, SOL_NETLINK = 16, 38, 40, 270
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # the latter with an errno
CALLS = {
    "x86_64": {"socket": 41, "setsockopt": 54, "mount": 165, "unshare": 272, "keyctl": 250, "bpf": 321},
    "aarch64": {"socket": 198, "setsockopt": 208, "mount": 40, "unshare": 97, "keyctl": 219, "bpf": 280},
}

Denial = tuple[str, int, int, int]  # system call, which of its arguments, its value, errno


def every(call: str) -> Denial:
    """A denial of a call whatever its arguments."""
    return call, -1, 0, errno.EPERM


PROFILES: dict[str, tuple[Denial, ...]] = {
    # What containers are denied by default and what comes near: other families, and calls that need a capability.
    "runtime-default": (
        ("socket", 0, AF_ALG, errno.EAFNOSUPPORT),
        ("socket", 0, AF_VSOCK, errno.EPERM),
        *map(every, ("mount", "unshare", "keyctl", "bpf")),
    ),
    "no-netlink": (("socket", 0, AF_NETLINK, errno.EPERM),),
    "no-such-family": (("socket", 0, AF_NETLINK, errno.EAFNOSUPPORT),),
    "no-groups": (("setsockopt", 1, SOL_NETLINK, errno.EPERM),),
}


def confine(denials: tuple[Denial, ...]) -> None:
    """Have the kernel refuse these to this process from here on, by a real seccomp filter."""
    number = CALLS[platform.machine()]
    program = []
    for call, argument, value, error in denials:
        program += [(0x20, 0, 0, 0), (0x15, 0, 1 if argument < 0 else 3, number[call])]  # the call's number: this one?
        if argument >= 0:
            program += [(0x20, 0, 0, 16 + 8 * argument), (0x15, 0, 1, value)]  # the argument's lower half: this one?
        program += [(0x06, 0, 0, REFUSE | error)]
    program += [(0x06, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


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


def main() -> None:
    """Do what is told."""
    if sys.argv[1] == "raise-lo":
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        os.execvp(sys.argv[2], sys.argv[2:])
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["look"])
    parser.add_argument("--seccomp", choices=sorted(PROFILES))
    options = parser.parse_args()
    if options.seccomp:
        confine(PROFILES[options.seccomp])
    sys.stdout.write(json.dumps(asdict(asyncio.run(look()))) + "\n")


main()
