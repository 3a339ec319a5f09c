"""Those who call a pod: consumers of every manner, and what only looks like one."""

import asyncio
import random
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from itertools import count, cycle
from math import inf

from pod.scene import Scene


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, PING = 1, 4, 6  # types of HTTP/2's frames
ACK, END = 1, 5  # their flags: an answer to SETTINGS; the end of the stream's headers, and of the stream
DUBBO_REQUEST, DUBBO_HEARTBEAT = b"\xda\xbb\xc2\x00", b"\xda\xbb\xe2\x00"
ARGUMENTS = b"what a call of Dubbo or of gRPC says, packed in a way that nobody here unpacks"

Connection = tuple[StreamReader, StreamWriter]


@asynccontextmanager
async def calling(*manners: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let them call until the end of the context. One that fails to is a fault of the test."""
    tasks = [asyncio.create_task(manner) for manner in manners]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Caller:
    """Somebody with an address of its own. Every request waits for its answer."""

    def __init__(self, scene: Scene, peer: str, tls: ssl.SSLContext | None = None) -> None:
        self.stopped = asyncio.Event()  # no calls any more
        self.answers = 0
        self.answered = 0.0  # loop time of the newest
        self.paused = 0.0  # the longest time from one to the next, seconds: a busy machine may have stretched it
        self.waiting = False  # for one of HTTP/1.1
        self.pings = 0  # that were answered, or heartbeats
        self._news = asyncio.Event()
        self._scene = scene
        self._peer = peer
        self._tls = tls

    async def until_answered(self, answers: int) -> None:
        """Wait until there were so many."""
        while self.answers < answers:
            self._news.clear()
            await self._news.wait()

    # -- consumers -------------------------------------------------------------------------------------------------

    async def kept(self, period: float, *, connections: int = 1, last: str = "") -> None:
        """Call over connections that are kept, in turn; when told to stop, make one `last` call and stay connected."""
        async with self._connected(connections) as pool:
            turns = cycle(pool)
            while await self._goes_on(period):
                await self._ask(*next(turns))
            if last:
                await self._ask(*next(turns), last)
            await asyncio.Event().wait()

    async def anew(self, shortest: float, longest: float = 0.0) -> None:
        """Call over a new connection each time, after a pause between these, or always of the first length."""
        while await self._goes_on(random.uniform(shortest, max(shortest, longest))):
            await self.once()

    async def once(self, path: str = "/") -> None:
        """Make one call over a connection of its own."""
        async with self._connected() as ((reader, writer),):
            await self._ask(reader, writer, path, "Connection: close")

    async def idle(self, connections: int) -> None:
        """Have connections, as a pool that is filled in advance, and say nothing. The kernel keeps them alive."""
        async with self._connected(connections) as pool:
            for _, writer in pool:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            await asyncio.Event().wait()

    async def stream(self, every: float) -> None:
        """Subscribe to what the app sends from time to time."""
        async with self._connected() as ((reader, writer),):
            writer.write(get(f"/stream?every={every}"))
            while await reader.read(4096):
                self._is_answered()

    async def grpc(self, period: float, *, ping: float) -> None:
        """Call over one connection of HTTP/2, and go on pinging when the calls have stopped."""
        async with self._connected() as ((reader, writer),), asyncio.TaskGroup() as group:
            answers: asyncio.Queue[None] = asyncio.Queue()
            writer.write(PREFACE + frame(SETTINGS, 0, 0))
            group.create_task(self._read_frames(reader, writer, answers))
            group.create_task(self._ping(writer, ping))
            for stream in count(1, 2):
                if not await self._goes_on(period):
                    break
                writer.write(frame(HEADERS, END, stream, ARGUMENTS))
                await answers.get()
                self._is_answered()

    async def dubbo(self, period: float, *, heartbeat: float) -> None:
        """Call over one connection of Dubbo, and go on with its heartbeats when the calls have stopped."""
        async with self._connected() as ((reader, writer),), asyncio.TaskGroup() as group:
            one_at_a_time = asyncio.Lock()
            group.create_task(self._beat(reader, writer, one_at_a_time, heartbeat))
            while await self._goes_on(period):
                async with one_at_a_time:
                    await dubbo(reader, writer, DUBBO_REQUEST, ARGUMENTS)
                self._is_answered()

    # -- the node --------------------------------------------------------------------------------------------------

    async def http_probe(self, period: float, path: str) -> None:
        """Be a kubelet with an httpGet probe: a new connection on every beat of a clock that does not drift."""
        headers = (f"Host: {self._scene.ip}:{self._scene.app_port}", "User-Agent: kube-probe/1.32", "Accept: */*")
        async for _ in beats(period):
            async with self._connected() as ((reader, writer),):
                writer.write("\r\n".join((f"GET {path} HTTP/1.1", *headers, "Connection: close", "", "")).encode())
                await reader.read()
                self._is_answered()

    async def tcp_probe(self, period: float) -> None:
        """Be a kubelet with a tcpSocket probe."""
        async for _ in beats(period):
            async with self._connected():
                pass

    # -- how -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _connected(self, connections: int = 1) -> AsyncIterator[list[Connection]]:
        """Connections to the app, which are closed at the end."""
        pool = [await self._connect() for _ in range(connections)]
        try:
            yield pool
        finally:
            for _, writer in pool:
                writer.close()
            for _, writer in pool:
                with suppress(ConnectionError, ssl.SSLError):
                    await writer.wait_closed()

    async def _connect(self) -> Connection:
        address = self._scene.ip, self._scene.app_port
        name = "shop" if self._tls else None
        return await asyncio.open_connection(*address, local_addr=(self._peer, 0), ssl=self._tls, server_hostname=name)

    async def _ask(self, reader: StreamReader, writer: StreamWriter, path: str = "/", *headers: str) -> None:
        self.waiting = True
        writer.write(get(path, *headers))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
        self.waiting = False
        self._is_answered()

    async def _goes_on(self, pause: float) -> bool:
        """Wait for the next call's turn; whether there is one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if pause == inf else pause):
                await self.stopped.wait()
        return not self.stopped.is_set()

    def _is_answered(self) -> None:
        now = asyncio.get_running_loop().time()
        self.paused = max(self.paused, now - self.answered) if self.answered else 0.0
        self.answered = now
        self.answers += 1
        self._news.set()

    async def _read_frames(self, reader: StreamReader, writer: StreamWriter, answers: "asyncio.Queue[None]") -> None:
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == HEADERS:
                answers.put_nowait(None)
            elif head[3] == PING:
                self.pings += 1
            elif not head[4] & ACK:
                writer.write(frame(SETTINGS, ACK, 0))

    async def _ping(self, writer: StreamWriter, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            writer.write(frame(PING, 0, 0, b"\0\0pinged"))

    async def _beat(
        self, reader: StreamReader, writer: StreamWriter, one_at_a_time: asyncio.Lock, every: float
    ) -> None:
        while True:
            await asyncio.sleep(every)
            async with one_at_a_time:
                await dubbo(reader, writer, DUBBO_HEARTBEAT, b"N")
            self.pings += 1


def get(path: str, *headers: str) -> bytes:
    """A request of HTTP/1.1."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: shop", "User-Agent: consumer/1.0", *headers, "", "")).encode()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def dubbo(reader: StreamReader, writer: StreamWriter, kind: bytes, body: bytes) -> None:
    """Send a request of Dubbo, or a heartbeat, and wait for its answer."""
    writer.write(kind + bytes(8) + len(body).to_bytes(4, "big") + body)
    head = await reader.readexactly(16)
    await reader.readexactly(int.from_bytes(head[12:], "big"))


async def beats(period: float) -> AsyncIterator[None]:
    """The beats of a clock."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in count(1):
        yield
        await asyncio.sleep(began + number * period - loop.time())
