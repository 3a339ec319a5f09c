"""One look at the traffic after the other, by the best means that works here."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sidecar.ports import Unavailable
from sidecar.traffic import BLIND, NETLINK, PROCFS, Listener, Reading, Socket

from . import procfs
from .events import BUFFER, Events
from .netlink import CONNECTED, LISTEN, ask
from .proofs import listening, why_unseen, why_untold


MOST = 1.4  # seconds for finding out what works
LISTENING = frozenset({LISTEN})
FEW = 200  # connections that are looked at faster than a thread is told to: within 1.5 ms


class Sockets:
    """A Traffic source for the network namespace that we are in."""

    def __init__(
        self, ours: Callable[[], frozenset[int]] = frozenset, *, proc: str = "/proc", buffer: int = BUFFER
    ) -> None:
        """`ours` tells the local ports of connections that we opened; `buffer` is the room for events, in bytes."""
        self.source = BLIND
        self.reason = "nothing was tried yet"
        self._ours = ours
        self._accepts = procfs.Accepted(proc)
        self._buffer = buffer
        self._events: Events | None = None
        self._before: dict[int, Socket] = {}
        # A thread of our own: the loop's are also those for DNS, and an outage of that would make us blind.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sockets")

    async def detect(self) -> None:
        """Find out what works here: once, before anything else. Never raises, and takes 1.4 s at most."""
        try:
            async with asyncio.timeout(MOST):
                self.source, self.reason = await self._find()
        except TimeoutError:
            self.reason = f"the kernel did not show a socket of ours within {MOST} s"
            self.close()

    async def read(self) -> Reading:
        """Look once, at everything. Raises Unavailable when that fails, and always where we are blind.

        Safe to give up: what the kernel told until then is in the next reading.
        """
        if self.source == BLIND:
            raise Unavailable(f"the traffic cannot be watched: {self.reason}")
        loop = asyncio.get_running_loop()
        if self.source == NETLINK and len(self._before) < FEW:
            reading, told = self._look(loop.time)
        else:
            reading, told = await loop.run_in_executor(self._thread, self._look, loop.time)
        closed, lost = self._gone(reading, told)
        trouble = "; ".join(filter(None, (reading.trouble, lost)))
        return reading._replace(closed=tuple(closed), ours=self._ours(), trouble=trouble)

    async def listeners(self) -> tuple[Listener, ...]:
        """The listening sockets alone, with their inodes. Raises Unavailable, and always without netlink."""
        if self.source != NETLINK:
            raise Unavailable(f"listening sockets cannot be listed by netlink: {self.reason}")
        loop = asyncio.get_running_loop()
        return tuple(await loop.run_in_executor(self._thread, _listeners, loop.time))

    def close(self) -> None:
        """Be told of nothing any more. Idempotent."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._accepts.close()
        if self._events is not None:
            self._events.close()

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look(self, clock: Callable[[], float]) -> tuple[Reading, int]:
        """What is there, and how many events were kept when that had been read. Runs in a thread."""
        at = clock()
        before, trouble = self._accepted()
        found = ask(CONNECTED | LISTENING, clock, known=self._before) if self.source == NETLINK else procfs.table()
        told = self._events.gather() if self._events else 0
        after, _ = self._accepted()
        opens = None if before is None or after is None else (before, after)
        return Reading(at, tuple(found.sockets), (), tuple(found.listeners), opens, trouble=trouble), told

    def _gone(self, reading: Reading, told: int) -> tuple[list[Socket], str]:
        """The connections that are gone since the reading before, and what was lost of them."""
        before, self._before = self._before, {x.id: x for x in reading.open}
        if self.source == NETLINK:
            return self._events.take(told) if self._events else ([], "")
        return [x for x in before.values() if x.id not in self._before], ""

    def _accepted(self) -> tuple[int | None, str]:
        try:
            return self._accepts.count(), ""
        except Unavailable as error:
            return None, f"accepted connections are not counted: {error}"

    # -- finding out what works ------------------------------------------------------------------------------------

    async def _find(self) -> tuple[str, str]:
        """The source, and what it lacks."""
        clock = asyncio.get_running_loop().time
        try:
            ours = listening()
        except OSError as error:
            return BLIND, f"a listening socket on loopback, to look for it, is not to be had: {error.strerror}"
        with ours:
            source, lack = NETLINK, await asyncio.to_thread(why_unseen, ours, lambda: _listeners(clock), inode=True)
            if not lack:
                lack = await self._why_untold(ours, clock)
            elif hidden := await asyncio.to_thread(why_unseen, ours, lambda: procfs.table().listeners, inode=False):
                return BLIND, f"{lack}; {hidden}"
            else:
                source = PROCFS
        return source, "; ".join(filter(None, (lack, self._accepted()[1])))

    async def _why_untold(self, ours: socket.socket, clock: Callable[[], float]) -> str:
        """Have events from now on. Empty when they come."""
        try:
            self._events = Events(clock, buffer=self._buffer)
            untold = await asyncio.to_thread(why_untold, ours, self._events, clock)
            self._events.watch()
        except Unavailable as error:
            untold = str(error)
        return untold and f"connections shorter than a sample are not seen, they only count as accepted: {untold}"


def _listeners(clock: Callable[[], float]) -> list[Listener]:
    return ask(LISTENING, clock, counters=False).listeners
