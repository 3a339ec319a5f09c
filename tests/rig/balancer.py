"""One address before several servers, as a VIP or a Kubernetes Service: each new connection goes to the next of them.

It moves bytes, so HTTP and gRPC are the same to it. Like kube-proxy without health checks, it passes on to the next
server only if one refuses; a server that takes connections and hangs gets its share.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from rig.servers import LOOPBACK, free_port
from rig.wire import close


# What a Nacos client derives from the one address it is given: HTTP, and gRPC a thousand above.
OFFSETS = (0, 1000)


class Balancer:
    """Listens at `port` plus each offset, and connects to the upstreams' ports plus the same offset."""

    def __init__(self, upstreams: Sequence[str], *, offsets: Sequence[int] = OFFSETS) -> None:
        self.port = free_port()
        self.connections: Counter[str] = Counter()  # how many each upstream host:port got since the start
        self._upstreams = [(host, int(port)) for host, _, port in (each.rpartition(":") for each in upstreams)]
        self._offsets = offsets
        self._stack = AsyncExitStack()
        self._open: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """The host:port a client library is given."""
        return f"{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        for offset in self._offsets:
            await self._listen(offset)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _listen(self, offset: int) -> None:
        turns = itertools.count()  # its own, or HTTP and gRPC in turn would each see half of the servers

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # A task of our own: asyncio 3.11 complains of a handler that is cancelled at the end.
            task = asyncio.create_task(self._carry(reader, writer, next(turns), offset))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

        server = await asyncio.start_server(connected, LOOPBACK, self.port + offset)
        self._stack.push_async_callback(close, server)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: int, offset: int) -> None:
        try:
            upstream = await self._connect(turn, offset)
            if upstream is None:
                return
            answers, requests = upstream
            try:
                await asyncio.gather(_pump(reader, requests), _pump(answers, writer))
            finally:
                requests.close()
        finally:
            writer.close()

    async def _connect(self, turn: int, offset: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for step in range(len(self._upstreams)):
            host, port = self._upstreams[(turn + step) % len(self._upstreams)]
            with contextlib.suppress(OSError):
                connection = await asyncio.open_connection(host, port + offset)
                self.connections[f"{host}:{port + offset}"] += 1
                return connection
        return None


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until the source ends; then the sink is told, and may still answer."""
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except ConnectionError:
        sink.close()  # one side broke off: so does the other
