"""A pod's network and the world outside, as two network namespaces that a veth pair joins.

On one loopback interface each connection is in the table twice, from either end, and everything else on the machine is
in it too. A pod has neither.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.running import process, until


TOOLS = ("ip", "nsenter", "unshare")
POD, OUTSIDE = "10.99.0.1", "10.99.0.2"
CALLERS = "10.98.0.0/16"


@dataclass(frozen=True)
class Place:
    """Where programs run: put `inside` or `outside` before their arguments."""

    inside: tuple[str, ...]
    outside: tuple[str, ...]
    pod: str
    nacos: str
    callers: str
    """The first two numbers of their addresses."""
    note: str = ""


LOOPBACK = Place(
    (),
    (),
    "127.0.0.42",
    "127.0.0.43",
    "127.98",
    "on loopback, for want of root, ip, nsenter or unshare: rows are doubled",
)


def alone() -> tuple[str, ...]:
    """What to put before a program's arguments to give it a loopback of its own; nothing where there is no right to."""
    return ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh") if _may() else ()


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """Two namespaces, gone afterwards; loopback where there is no right to, or no tool."""
    if not _may():
        yield LOOPBACK
        return
    async with AsyncExitStack() as stack:
        pod, outside = [await stack.enter_async_context(process("unshare", "--net", "sleep", "infinity")) for _ in "ab"]
        for each in (pod, outside):
            await until(lambda pid=each.pid: _left(pid))  # type: ignore[misc]
        inside, beyond = (("nsenter", f"--net=/proc/{each.pid}/ns/net", "--") for each in (pod, outside))
        await _ip(inside, f"link add pod0 type veth peer name world0 netns {outside.pid}")
        await _ip(inside, "link set lo up", f"address add {POD}/24 dev pod0", "link set pod0 up")
        # any address of the callers' is local there, so each of them can have one of its own
        await _ip(beyond, "link set lo up", f"address add {OUTSIDE}/24 dev world0", "link set world0 up")
        await _ip(beyond, f"route add local {CALLERS} dev lo")
        await _ip(inside, f"route add {CALLERS} via {OUTSIDE}")
        yield Place(inside, beyond, POD, OUTSIDE, CALLERS.rsplit(".", 2)[0])


def _may() -> bool:
    return os.geteuid() == 0 and all(map(shutil.which, TOOLS))


async def _left(pid: int) -> bool:
    """Whether it has a network of its own by now."""
    here, there = (os.stat(f"/proc/{each}/ns/net") for each in ("self", pid))  # noqa: PTH116  no file
    return not os.path.samestat(here, there)


async def _ip(there: tuple[str, ...], *commands: str) -> None:
    child = await asyncio.create_subprocess_exec(*there, "ip", "-batch", "-", stdin=asyncio.subprocess.PIPE)
    await child.communicate("\n".join(commands).encode())
    if child.returncode:
        raise RuntimeError(f"ip could not do all of: {', '.join(commands)}")
