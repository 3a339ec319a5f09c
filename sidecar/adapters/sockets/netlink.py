"""Asking the kernel for its TCP sockets: NETLINK_SOCK_DIAG, the protocol of `ss`.

Written out rather than taken from pyroute2: that costs 14 MB of memory, more than the whole sidecar may, and this is a
page. Whatever is not as include/uapi/linux/{netlink,sock_diag,inet_diag,tcp}.h say is an error and never a zero: a
caller that is not seen lets the app go too early.

The question is the old TCPDIAG_GETSOCK, which `ss` fell back to before Linux 3.3, and not SOCK_DIAG_BY_FAMILY: it alone
covers IPv4 and IPv6 in one walk through the node's table of connections, which is most of what a sample costs: 0.6
instead of 1.1 ms on 262,144 buckets, and 1.1 ms more for every 10,000 connections of other pods on the node.

What the kernel counts (measured on 6.18): the end of a direction is one byte of it, so a peer that has sent 100 bytes
and its FIN shows as 101 bytes received, and a FIN that nobody has read yet as one unread byte; for the side that
connected, the SYN is a byte sent as well.
"""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from errno import EACCES, EAFNOSUPPORT, ENOENT, EPERM, EPROTONOSUPPORT
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, ntohs

from sidecar.ports import Unavailable
from sidecar.traffic import Listener, Socket


AF_NETLINK, NETLINK_SOCK_DIAG = 16, 4
TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY = 18, 20
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x001, 0x010, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_INFO = 2  # the attribute with the counters, a tcp_info
ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 1, 4, 5, 7, 8, 9, 10, 11
CONNECTED = frozenset({ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING})

HEADER = struct.Struct("=IHHI4x")  # nlmsghdr: length, type, flags, sequence
REQUEST = struct.Struct("=IHHI4xBxxB48xI4x")  # with inet_diag_req: family, extensions, any socket, states
# With inet_diag_msg: family, state, port, peer's port, address, peer's address, cookie, unread, unsent, inode.
ROW = struct.Struct("=IHHI4xBB2xHH16s16s4xQ4xII4xI")
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length with these four bytes, type
# tcp_info: last_data_sent, last_data_recv, bytes_acked, bytes_received, segs_in, data_segs_in and _out (4.6)
INFO = struct.Struct("=44xI4xI64xQQ4xI8xII")
ERROR = struct.Struct("=i")  # what an NLMSG_ERROR begins with, and an NLMSG_DONE: minus an errno, or 0
MAPPED = bytes(10) + b"\xff\xff"  # what an IPv4 address inside IPv6 begins with

NOTHING_KNOWN: Mapping[int, Socket] = {}
NO_QUESTION, QUESTION = 0, 1  # sequence numbers: of an event, and of what is an answer to ours
REFUSED = 1  # segments that a connect has had which came to nothing; an accepted connection has had SYN and ACK
PIECE = 65536  # bytes; the kernel's pieces have 32 KiB at most
PATIENCE = struct.pack("@ll", 0, 300_000)  # for one piece; the kernel takes 2 ms for 2,000 connections
CHANGED = "netlink: the sockets changed while the kernel listed them, so some may be missing"
DENIED = "a seccomp profile or SELinux denies it; the profile RuntimeDefault allows AF_NETLINK"
WHAT_IT_MEANS = {
    EPERM: DENIED,
    EACCES: DENIED,
    EAFNOSUPPORT: "a seccomp profile denies it, or this kernel has none",
    EPROTONOSUPPORT: "this kernel has none; gVisor, for one",
    ENOENT: "the node has not loaded its modules inet_diag and tcp_diag",
}


def ask(
    states: frozenset[int],
    clock: Callable[[], float],
    *,
    counters: bool = True,
    known: Mapping[int, Socket] = NOTHING_KNOWN,
) -> "Rows":
    """Every socket in these states, of both families. Raises Unavailable without a whole answer.

    Connections on which nothing has moved are those of `known`, the same objects: most are idle most of the time, and
    who compares them with the look before is done at once.
    """
    mask, extensions = sum(1 << state for state in states), counters << (INET_DIAG_INFO - 1)
    head = (REQUEST.size, TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP, QUESTION)
    rows = Rows(TCPDIAG_GETSOCK, QUESTION, states, known)
    try:
        # A socket for each question, which costs 6 µs: nothing is left over of an answer that was given up.
        with socket.socket(AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
            asked = clock()
            link.send(REQUEST.pack(*head, AF_INET, extensions, mask))
            while not rows.take(_received(link), asked):
                pass
    except BlockingIOError as error:
        raise Unavailable("netlink: the kernel did not answer in time") from error
    except OSError as error:
        raise Unavailable(f"netlink: {refusal(error)}") from error
    return rows


def events() -> "Rows":
    """For events of destroyed sockets, each of which is a piece; only those of connections become rows."""
    return Rows(SOCK_DIAG_BY_FAMILY, NO_QUESTION, frozenset({CLOSE}))


def refusal(error: OSError) -> str:
    """A refusal of the kernel and what it means here, for people."""
    meaning = WHAT_IT_MEANS.get(error.errno or 0)
    return f"{error.strerror} ({meaning})" if meaning else str(error.strerror)


def _received(link: socket.socket) -> bytes:
    piece, _, flags, _ = link.recvmsg(PIECE)
    if flags & socket.MSG_TRUNC:
        raise _strange(f"a piece of more than {PIECE} bytes")
    return piece


class Rows:
    """What the kernel has told of its sockets so far: messages of this type, sequence and these states."""

    def __init__(
        self, kind: int, sequence: int, states: frozenset[int], known: Mapping[int, Socket] = NOTHING_KNOWN
    ) -> None:
        self.sockets: list[Socket] = []
        self.listeners: list[Listener] = []
        self._kind, self._sequence, self._states, self._known = kind, sequence, states, known
        self._alike = (0, b"")  # the row before: its length, and what stood between its fixed part and its counters

    def take(self, piece: bytes, told: float) -> bool:
        """Take in one piece, as of this moment; whether it ends an answer. Raises Unavailable for the unexpected.

        2 µs for a connection, which a function for each step would double.
        """
        at = 0
        while at < len(piece):
            left = len(piece) - at
            if left < ROW.size or (row := ROW.unpack_from(piece, at))[1] != self._kind:
                return _ended(piece, at, self._sequence)
            length, _, flags, number, family, state, port, peer_port, host, peer, cookie, unread, unsent, inode = row
            end = at + length
            if not ROW.size <= length <= left or number != self._sequence or state not in self._states:
                raise _strange(f"a row of {length} in {left} bytes, in answer to {number}, in state {state}")
            if flags & NLM_F_DUMP_INTR:
                raise Unavailable(CHANGED)
            if state == LISTEN:
                self.listeners.append(Listener(_text(family, host), ntohs(port), inode))
            elif (info := self._info(piece, at, end)) is not None:
                since_sent, since_received, acked, received, segments_in, segments, answers = INFO.unpack_from(
                    piece, info
                )
                before, moved = self._known.get(cookie), (received, acked + unsent, segments, unread, unsent)
                if before is not None and before[5:10] == moved and before.half is (state != ESTABLISHED):
                    self.sockets.append(before)
                elif state != CLOSE or (peer_port and (acked or received or segments_in > REFUSED)):
                    self.sockets.append(
                        Socket(
                            cookie,
                            _text(family, host),
                            ntohs(port),
                            _text(family, peer),
                            ntohs(peer_port),
                            *moved,
                            told - since_received / 1000,
                            told - since_sent / 1000,
                            state != ESTABLISHED,
                            answers,
                        )
                    )
            elif state != FIN_WAIT2:  # closed here and waiting for the peer: the kernel has thrown the counters away
                raise _strange(f"a connection in state {state} without its counters")
            at += (length + 3) & ~3
        return False

    def _info(self, piece: bytes, at: int, end: int) -> int | None:
        """Where the counters begin: where the row before had them, if all that stands before them is the same."""
        length, before = self._alike
        known = at + ROW.size + len(before)
        if length == end - at and piece[at + ROW.size : known] == before:
            return known
        info = _counters(piece, at + ROW.size, end)
        if info is not None:
            self._alike = (end - at, piece[at + ROW.size : info])
        return info


def _counters(piece: bytes, at: int, end: int) -> int | None:
    """Where the counters begin in these attributes; None where they are not among them."""
    while at < end:
        size, kind = ATTRIBUTE.unpack_from(piece, at) if end - at >= ATTRIBUTE.size else (0, 0)
        if not ATTRIBUTE.size <= size <= end - at:
            raise _strange(f"an attribute of {size} bytes, of which {end - at} are there")
        if kind == INET_DIAG_INFO and size < ATTRIBUTE.size + INFO.size:
            raise _strange(f"counters of {size - ATTRIBUTE.size} bytes; {INFO.size} are needed, as since Linux 4.6")
        if kind == INET_DIAG_INFO:
            return at + ATTRIBUTE.size
        at += (size + 3) & ~3
    return None


@lru_cache(maxsize=4096)
def _text(family: int, packed: bytes) -> str:
    if family == AF_INET6 and not packed.startswith(MAPPED):
        return inet_ntop(AF_INET6, packed)
    if family not in {AF_INET, AF_INET6}:
        raise _strange(f"a socket of address family {family}")
    return inet_ntop(AF_INET, packed[:4] if family == AF_INET else packed[12:])


def _ended(piece: bytes, at: int, sequence: int) -> bool:
    """Return True for a good end of an answer. Raises OSError for a refusal of the kernel."""
    left = len(piece) - at
    if left < HEADER.size + ERROR.size:
        raise _strange(f"a message of {left} bytes")
    length, kind, flags, number = HEADER.unpack_from(piece, at)
    (code,) = ERROR.unpack_from(piece, at + HEADER.size)
    end = kind in {NLMSG_DONE, NLMSG_ERROR} and number == sequence != NO_QUESTION
    if not end or not HEADER.size + ERROR.size <= length <= left:
        raise _strange(f"a message of type {kind}, {length} in {left} bytes, in answer to {number}")
    if flags & NLM_F_DUMP_INTR:
        raise Unavailable(CHANGED)
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    if code or kind == NLMSG_ERROR:
        raise _strange(f"an end of type {kind} with code {code}")
    return True


def _strange(what: str) -> Unavailable:
    return Unavailable(f"netlink: the kernel's answer is not understood: {what}")
