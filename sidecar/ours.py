"""The TCP connections that we open ourselves, by local port: what must not be taken for a caller.

Our calls of the app's actuator and of its QoS port, and our knocks, come from the pod's own addresses, which stand for
many; counted as calls they would make every drain wait for its cap.

A port is enough to tell them by. The core looks up only connections whose other end has one of this namespace's own
addresses, and a port that is bound before it connects is that socket's alone in the whole namespace, for both families
and all destinations: Linux lends it to no other until the socket is gone, FIN_WAIT2 and TIME_WAIT included (measured on
6.18). IP_BIND_ADDRESS_NO_PORT would give that up, and would choose the port in connect(): too late to be known before
the first packet.

What it costs is one of some 28,000 ephemeral ports for each of our few connections, where otherwise several may share
one. bind() searches first the half of the range that connect() leaves for last, so the app's own hardly notice.
"""

import asyncio
import contextlib
import itertools
import weakref
from dataclasses import dataclass
from socket import SOCK_STREAM, socket


# Where `nacos-drain doctor` opens its own: a sidecar beside it must not take the rehearsal for a call from 127.0.0.1,
# which would make the next release wait for its cap. Below what the kernel gives out by itself (32768-60999), so nobody
# has such a port who did not ask for it.
VISITORS = range(19_082, 19_182)
MOST = 512  # closed ones that are remembered; the open ones are as many as their users allow
LINGER = 60.0  # seconds: Linux' FIN_WAIT2 and TIME_WAIT, and far more than two readings are apart


@dataclass(slots=True)
class _Opened:
    """One connection: its socket while somebody holds it, and when it was first found closed."""

    socket: weakref.ref[socket]
    closed: float | None = None

    def is_open(self) -> bool:
        """Whether the socket still has a file descriptor: whoever uses it closes it, and nobody tells us."""
        held = self.socket()
        return held is not None and held.fileno() != -1


class Ours:
    """Makes the sockets that we connect, and remembers their ports."""

    def __init__(self, *, visiting: bool = False) -> None:
        """`visiting`: another process watches the callers here, and has to know ours by their ports alone."""
        self._opened: dict[int, _Opened] = {}  # by port, the newest last
        self._next = itertools.cycle(VISITORS) if visiting else None

    def socket_factory(self, addr_info: tuple[int, int, int, str, object]) -> socket:
        """As aiohttp's TCPConnector wants it: a socket for one result of getaddrinfo(). Raises OSError."""
        family, kind, protocol, _, _ = addr_info
        return self.new(family, kind, protocol)

    def new(self, family: int, kind: int = SOCK_STREAM, protocol: int = 0) -> socket:
        """Make a non-blocking socket to connect, whose port is known before the first packet. Raises OSError.

        When all ports of the range are in use bind() finds none, while connect() still shares one with a connection to
        elsewhere. The call matters more than to know it: it is made, and counts as a caller's.
        """
        made = socket(family, kind, protocol)
        made.setblocking(False)  # noqa: FBT003  the standard library's signature
        with contextlib.suppress(OSError):
            self._bind(made)
            self._remember(made)
        return made

    def _bind(self, made: socket) -> None:
        """Choose the port and no address: the way to the destination decides on that, as without bind()."""
        for port in itertools.islice(self._next or (), len(VISITORS)):
            with contextlib.suppress(OSError):
                made.bind(("", port))
                return
        made.bind(("", 0))

    def ports(self) -> frozenset[int]:
        """The local ports of our connections: those that are open, or have been found closed less than a minute ago.

        Ask after the kernel has been read, so that what was opened meanwhile is in it. What closed longer ago is
        forgotten: the port may be another process's by now, whose calls must not pass for ours.
        """
        now = asyncio.get_running_loop().time()
        for port, opened in tuple(self._opened.items()):
            if opened.is_open():
                continue
            if opened.closed is None:
                opened.closed = now
            elif now - opened.closed >= LINGER:
                del self._opened[port]
        return frozenset(self._opened)

    def _remember(self, made: socket) -> None:
        port = made.getsockname()[1]
        self._opened.pop(port, None)
        self._opened[port] = _Opened(weakref.ref(made))
        closed = [port for port, opened in self._opened.items() if not opened.is_open()]
        for oldest in closed[:-MOST]:
            del self._opened[oldest]
