"""One server's address, with a wire to it that a test can cut or stall while the server goes on for everybody else."""

import asyncio
from types import TracebackType
from typing import Self

from rig.servers import LOOPBACK


# accept(), the task that makes its transport, connection_made().
STEPS_TO_A_HANDLER = 3


async def close(server: asyncio.Server) -> None:
    """Stop listening. Who was accepted has met the handler when this returns.

    Server.close() alone loses a connection whose transport is not made yet: CPython 3.11 then fails to make it, and
    nobody closes the socket, which is a ResourceWarning in whatever test comes later.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(STEPS_TO_A_HANDLER):
        await asyncio.sleep(0)
    server.close()


class Wire:
    """Passes bytes on to one server, from a port `at` an address; several may stand before the same one."""

    def __init__(self, address: str, at: str = LOOPBACK) -> None:
        host, _, port = address.rpartition(":")
        self._at = at
        self._target = (host, int(port))
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.Task[None]] = set()
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """The host:port a client is given."""
        return f"{self._at}:{self._port}"

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """From now on nobody listens here: connections are refused, and those that were open are gone."""
        if self._server is not None:
            await close(self._server)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def stall(self) -> None:
        """From now on connections are accepted and nothing comes through."""
        self._flows.clear()

    async def mend(self) -> None:
        """Carry bytes, at the same address as before."""
        self._flows.set()
        if self._server is None or not self._server.is_serving():
            self._server = await asyncio.start_server(self._connected, self._at, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))  # asyncio 3.11 complains of a cancelled handler
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: writer.close())  # one that is cut before its first step closes nothing itself

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(*self._target)
        except OSError:
            return  # refused here as well, as nearly as a listener can
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, requests))
                group.create_task(self._pump(answers, writer))
        except* ConnectionError:
            pass  # one side broke off: so does the other
        finally:
            requests.close()
            writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            await self._flows.wait()
            sink.write(data)
            await sink.drain()
        sink.write_eof()
