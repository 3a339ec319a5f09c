"""What one look at the kernel's TCP sockets showed: the words that the traffic source and the core share.

Plain values without behaviour, in the kernel's own terms. Everything is of the pod's whole network namespace; which of
it concerns the app is decided in wire.py.
"""

from typing import NamedTuple


# How traffic is seen, the best first: with counters; that connections are there, and no more; not at all.
SOURCES = NETLINK, PROCFS, BLIND = "netlink", "procfs", "blind"


class Listener(NamedTuple):
    """One listening socket."""

    host: str  # `0.0.0.0` and `::` are every address; `::` takes IPv4 as well
    port: int
    inode: int


class Socket(NamedTuple):
    """One TCP connection, seen from this side. Times are the loop's."""

    id: int  # the kernel's cookie, never used twice; where there is none, a number made of the two ends
    host: str  # this end; IPv4 in IPv6 is folded
    port: int
    peer: str  # the other end, likewise
    peer_port: int
    received: int = 0  # bytes of data in all its life
    sent: int = 0  # bytes that were written to it in all its life, acknowledged or not
    segments: int = 0  # that carried data to us: at least one per request
    unread: int = 0  # bytes that wait for whoever reads here
    unsent: int = 0  # bytes written here and not acknowledged by the peer
    heard: float | None = None  # when data last came in, or the moment it was opened; None: not told by this source
    spoke: float | None = None  # when data last went out, likewise
    half: bool = False  # one of the two sides has ended its direction
    answers: int = 0  # segments that carried data to the peer


class Reading(NamedTuple):
    """Everything at one moment."""

    at: float  # loop time just before the kernel was asked: what came later may be missing
    open: tuple[Socket, ...] = ()
    closed: tuple[Socket, ...] = ()  # gone since the reading before, with their last counters
    listeners: tuple[Listener, ...] = ()
    opens: tuple[int, int] | None = None  # connections accepted here ever, before and after the rest was read
    ours: frozenset[int] = frozenset()  # local ports of the connections that we opened ourselves
    trouble: str = ""  # why something may be missing, for people; empty: nothing is
