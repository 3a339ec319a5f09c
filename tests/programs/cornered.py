"""Our calls where something runs short. It takes a network namespace of its own, which it changes.

unshare --net python raise_lo.py python cornered.py ports|ipv6
"""

import asyncio
import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from sidecar.adapters.process import PodProcess
from sidecar.http import Http
from sidecar.ours import Ours
from sidecar.traffic import Listener


SYSCTL = Path("/proc/sys/net")
APP, OTHER, FULL = ("127.0.0.1", 80), ("127.0.0.2", 80), ("127.0.0.1", 81)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be an app with one answer."""
    if await reader.read(1024):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    writer.close()


async def without_ports() -> dict[str, object]:
    """Call the app when connections to elsewhere use every ephemeral port."""
    (SYSCTL / "ipv4/ip_local_port_range").write_text("40000 40001")
    ours, callers = Ours(), []

    async def listeners() -> tuple[Listener, ...]:
        return (Listener(*APP, 1),)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername")[1])
        await answer(reader, writer)

    app, http = await asyncio.start_server(serve, *APP), Http(ours)
    with ExitStack() as stack:
        stack.enter_context(socket.create_server(OTHER))
        taken = [stack.enter_context(socket.create_connection(OTHER)).getsockname()[1] for _ in range(2)]
        said = await http.request("GET", "http://127.0.0.1/")
        hung = await PodProcess(ours=ours, listeners=listeners).hung(frozenset({APP[1]}))
    await http.close()
    app.close()
    shared = set(callers) <= set(taken)
    return {"taken": sorted(taken), "said": said.text, "shared": shared, "hung": hung, "ours": sorted(ours.ports())}


async def without_ipv6() -> dict[str, object]:
    """Knock at listeners of `::` where loopback has no IPv6."""
    (SYSCTL / "ipv6/conf/all/disable_ipv6").write_text("1")

    async def listeners() -> tuple[Listener, ...]:
        return (Listener("::", APP[1], 1), Listener("::", FULL[1], 2))

    observer = PodProcess(listeners=listeners)
    with socket.create_server(APP), socket.create_server(FULL, backlog=0), socket.create_connection(FULL):
        return {"open": await observer.hung(frozenset({APP[1]})), "full": await observer.hung(frozenset({FULL[1]}))}


def main() -> None:
    """Call, and tell."""
    told = asyncio.run({"ports": without_ports, "ipv6": without_ipv6}[sys.argv[1]]())
    sys.stdout.write(json.dumps(told))


main()
