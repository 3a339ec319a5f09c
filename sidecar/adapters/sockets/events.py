"""Being told of every TCP socket that is gone, with its last counters.

A caller that opens a connection per request is in hardly any sample: 0 of 10 saw one of 20 requests/s. The kernel
tells whoever has joined its groups for destroyed sockets, and asks no capability for that. A worker of its own does it:
7 µs after the fact, but tens of milliseconds where the CPUs are busy. So a reading may lack a connection and only the
next one tell of its end (after 400 calls at full speed 570 of 800 events came later than the reading that followed).

It does not wait for us: what does not fit into the receive buffer is lost, and ENOBUFS says so. Where a node keeps the
kernel's default of 208 KiB that buffer holds 332 events, and a pool of 2,000 connections that ended at once lost 1,265
of them. So there are several sockets, each of which takes the cookies of its own remainder by a filter: none was lost.
"""

import asyncio
import errno
import select
import socket
import struct
import sys
from array import array
from collections import deque
from collections.abc import Callable

from sidecar.ports import Unavailable
from sidecar.traffic import Socket

from .netlink import AF_NETLINK, NETLINK_SOCK_DIAG, events, refusal


SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
GROUPS = (1, 3)  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
SO_ATTACH_FILTER = 26
LANES = 8  # a power of two
COOKIE = 60 if sys.byteorder == "little" else 63  # where the lowest byte of the cookie is in an event
BUFFER = 1 << 20  # bytes wished for per lane; the kernel gives net.core.rmem_max at most
MOST = 20_000  # events kept between two readings; about 10 MB
EVENT = 2048  # bytes for one event, which has 380 on 6.18 and grows with the kernel
PAUSE = 0.1  # seconds in which events gather: 1,000 a second must not wake us 1,000 times


class Events:
    """The sockets that are gone."""

    def __init__(self, clock: Callable[[], float], *, buffer: int = BUFFER) -> None:
        """Join, with this many bytes of room per socket. Raises Unavailable where the kernel does not let us."""
        self._clock = clock
        self._kept: deque[tuple[float, bytes]] = deque()  # no bytes: some were lost
        self._watching: asyncio.AbstractEventLoop | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._ready = select.epoll()
        self._lanes: dict[int, socket.socket] = {}
        try:
            for lane in range(LANES):
                self._join(lane, buffer)
        except OSError as error:
            self.close()
            raise Unavailable(f"the kernel does not tell: {refusal(error)}") from error

    def _join(self, lane: int, buffer: int) -> None:
        link = socket.socket(AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        self._lanes[link.fileno()] = link
        link.settimeout(0)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        _accept_only(link, lane)
        link.bind((0, 0))  # a socket without a port of its own is told nothing
        for group in GROUPS:
            link.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._ready.register(link, select.EPOLLIN)

    def watch(self) -> None:
        """Take events out of the kernel as they come, on the running loop."""
        self._watching = asyncio.get_running_loop()
        self._listen()

    def wait(self, seconds: float) -> bool:
        """Whether an event is there within this time. Blocks."""
        return bool(self._ready.poll(seconds))

    def gather(self) -> int:
        """Take what the kernel has; how many are kept by now. May be called in another thread."""
        for lane, _ in self._ready.poll(0):
            self._empty(self._lanes[lane])
        return len(self._kept)

    def take(self, count: int) -> tuple[list[Socket], str]:
        """The connections in the oldest events, and what was lost among them, if anything.

        Raises Unavailable for an event that is not understood.
        """
        rows, trouble = events(), ""
        for _ in range(count):
            received, event = self._kept.popleft()
            if not event:
                trouble = "closed connections were missed: more at once than the kernel keeps for us"
            else:
                rows.take(event, received)
        return rows.sockets, trouble

    def close(self) -> None:
        """Leave. Idempotent."""
        if self._resting is not None:
            self._resting.cancel()
        if self._watching is not None and not self._ready.closed:
            self._watching.remove_reader(self._ready)
        for link in self._lanes.values():
            link.close()
        self._ready.close()

    def _listen(self) -> None:
        assert self._watching is not None  # noqa: S101  set by watch
        self._watching.add_reader(self._ready, self._readable)

    def _readable(self) -> None:
        assert self._watching is not None  # noqa: S101  set by watch
        self.gather()
        self._watching.remove_reader(self._ready)
        self._resting = self._watching.call_later(PAUSE, self._listen)

    def _empty(self, link: socket.socket) -> None:
        """Take what this lane has. What is too much stays in the kernel, which loses some in the end and says so."""
        while len(self._kept) < MOST:
            try:
                self._kept.append((self._clock(), link.recv(EVENT)))
            except BlockingIOError:
                return
            except OSError as error:  # ENOBUFS, once per loss; those that had room come after it
                self._kept.append((self._clock(), b""))
                if error.errno != errno.ENOBUFS:
                    return


def _accept_only(link: socket.socket, lane: int) -> None:
    """Take only the events whose cookie has this remainder. The kernel gives cookies out one after the other."""
    program = struct.pack(
        "=" + "HBBI" * 5,
        *(0x30, 0, 0, COOKIE),  # load that byte
        *(0x54, 0, 0, LANES - 1),  # and
        *(0x15, 0, 1, lane),  # equal?
        *(0x06, 0, 0, 0xFFFFFFFF),  # the whole event
        *(0x06, 0, 0, 0),  # nothing
    )
    memory = array("B", program)  # the kernel wants to be told where it is
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 5, memory.buffer_info()[0]))
