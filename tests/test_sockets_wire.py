"""The kernel's wire format: what is read from it, and that nothing else passes for an answer."""

import errno
import socket
import struct
from ipaddress import ip_address

import pytest

from sidecar.adapters.sockets import netlink
from sidecar.adapters.sockets.netlink import (
    CLOSE,
    CLOSE_WAIT,
    CONNECTED,
    ESTABLISHED,
    FIN_WAIT2,
    LISTEN,
    QUESTION,
    SOCK_DIAG_BY_FAMILY,
    TCPDIAG_GETSOCK,
    Rows,
    events,
)
from sidecar.ports import Unavailable
from sidecar.traffic import Listener, Socket


TOS, SHUTDOWN, INFO = 5, 8, 2
DONE, ERROR, NOOP, OVERRUN = 3, 2, 1, 4
NOW = 1000.0


def attribute(kind: int, payload: bytes, size: int | None = None) -> bytes:
    head = struct.pack("=HH", 4 + len(payload) if size is None else size, kind)
    return head + payload + bytes(-len(payload) % 4)


def tcp_info(
    *,
    sent_ago: int = 0,
    heard_ago: int = 0,
    acked: int = 0,
    received: int = 0,
    segments_in: int = 9,
    segments: int = 0,
    answers: int = 0,
) -> bytes:
    """As Linux 6.18 gives it, 280 bytes."""
    info = bytearray(280)
    for offset, value in ((44, sent_ago), (52, heard_ago), (140, segments_in), (152, segments), (156, answers)):
        struct.pack_into("=I", info, offset, value)
    struct.pack_into("=QQ", info, 120, acked, received)
    return bytes(info)


def message(kind: int, payload: bytes, *, flags: int = 2, sequence: int = QUESTION, length: int | None = None) -> bytes:
    size = 16 + len(payload) if length is None else length
    return struct.pack("=IHHII", size, kind, flags, sequence, 4711) + payload


def packed(address: str) -> bytes:
    return ip_address(address).packed.ljust(16, b"\0")


def row(
    state: int = ESTABLISHED,
    *,
    family: int = socket.AF_INET,
    host: str = "10.0.0.1",
    port: int = 8080,
    peer: str = "10.0.0.2",
    peer_port: int = 40000,
    unread: int = 0,
    unsent: int = 0,
    attributes: bytes | None = None,
    kind: int = TCPDIAG_GETSOCK,
    **header: int,
) -> bytes:
    ends = struct.pack(">HH", port, peer_port) + packed(host) + packed(peer)
    fixed = struct.pack("=BBBB", family, state, 0, 0) + ends + struct.pack("=IQ", 0, 77)
    fixed += struct.pack("=IIIII", 0, unread, unsent, 10001, 555)
    told = attribute(SHUTDOWN, b"\0") + attribute(TOS, b"\0") + attribute(INFO, tcp_info())
    return message(kind, fixed + (told if attributes is None else attributes), **header)


def counters(**counted: int) -> bytes:
    return attribute(INFO, tcp_info(**counted))


END = message(DONE, struct.pack("=i", 0))


def answer() -> Rows:
    return Rows(TCPDIAG_GETSOCK, QUESTION, CONNECTED | {LISTEN})


def connections(*pieces: bytes) -> list[Socket]:
    rows = answer()
    assert [rows.take(piece, NOW) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return rows.sockets


def test_a_connection_and_its_counters() -> None:
    told = counters(sent_ago=250, heard_ago=1500, acked=2**40, received=2**41, segments=7, answers=5)
    [seen] = connections(row(unread=3, unsent=5, attributes=told), END)
    assert seen == Socket(
        id=77,
        host="10.0.0.1",
        port=8080,
        peer="10.0.0.2",
        peer_port=40000,
        received=2**41,
        sent=2**40 + 5,
        segments=7,
        unread=3,
        unsent=5,
        heard=NOW - 1.5,
        spoke=NOW - 0.25,
        answers=5,
        half=False,
    )


@pytest.mark.parametrize(
    ("family", "host", "shown"),
    [
        (socket.AF_INET, "192.0.2.7", "192.0.2.7"),
        (socket.AF_INET6, "fd00::7", "fd00::7"),
        (socket.AF_INET6, "::ffff:192.0.2.7", "192.0.2.7"),
        (socket.AF_INET6, "::", "::"),
    ],
)
def test_addresses_of_both_families_and_ipv4_within_ipv6(family: int, host: str, shown: str) -> None:
    rows = answer()
    rows.take(row(LISTEN, family=family, host=host, peer_port=0, attributes=b"") + row(family=family, peer=host), NOW)
    assert rows.listeners == [Listener(shown, 8080, 555)]
    assert [x.peer for x in rows.sockets] == [shown]


@pytest.mark.parametrize("state", sorted(CONNECTED))
def test_whoever_has_ended_a_direction_is_half_closed(state: int) -> None:
    [seen] = connections(row(state), END)
    assert seen.half == (state != ESTABLISHED)


def test_what_is_left_of_a_closed_connection_while_it_waits_for_the_peer_is_none() -> None:
    assert connections(row(FIN_WAIT2, attributes=b""), row(), END) != []
    assert connections(row(FIN_WAIT2, attributes=b""), END) == []


def test_rows_may_be_built_differently_even_at_the_same_length() -> None:
    """The place of the counters is remembered from row to row, and must not be believed."""
    one, other = attribute(TOS, b"\0"), counters(received=5)
    assert [x.received for x in connections(row(attributes=one + other) + row(attributes=other + one), END)] == [5, 5]
    longer = attribute(INFO, tcp_info(received=6) + bytes(8))
    assert [x.received for x in connections(row(attributes=other) + row(attributes=one + longer), END)] == [5, 6]
    disguised = attribute(SHUTDOWN, bytes(4) + counters(received=666)[:-4])
    assert len(disguised) == len(one + other) - 4  # so that the last bytes of the row make the lengths equal
    with pytest.raises(Unavailable):
        connections(row(attributes=one + other), row(attributes=disguised + bytes(4)), END)


def test_counters_that_have_grown_with_the_kernel_are_read_and_those_of_linux_4_6_too() -> None:
    for size in (160, 280, 400):
        told = attribute(INFO, tcp_info(received=9)[:size].ljust(size, b"\xff"))
        assert [x.received for x in connections(row(attributes=told), END)] == [9]


MALFORMED = {
    "a header cut short": row()[:12],
    "a row cut short": message(TCPDIAG_GETSOCK, bytes(40)),
    "a row cut short before another": message(TCPDIAG_GETSOCK, bytes(40)) + row(),
    "a length of nothing": row(length=0),
    "a length within the header": row(length=15),
    "a length within the fixed part": row(length=80),
    "a length beyond the piece": row(length=4000),
    "an attribute of no length": row(attributes=attribute(TOS, b"\0", size=0)),
    "an attribute shorter than its header": row(attributes=attribute(TOS, b"\0", size=3)),
    "an attribute beyond its row": row(attributes=attribute(TOS, b"\0", size=400)) + row(),
    "counters beyond their row": row(attributes=counters()[:-8]) + row(),
    "half an attribute": row(attributes=b"\x05\0"),
    "counters as before Linux 4.6": row(attributes=attribute(INFO, tcp_info()[:152])),
    "counters one byte short": row(attributes=attribute(INFO, tcp_info()[:159])),
    "no counters": row(attributes=attribute(TOS, b"\0")),
    "no counters where the peer has ended": row(CLOSE_WAIT, attributes=b""),
    "a state that was not asked for": row(2),
    "a closed socket": row(CLOSE),
    "no such state": row(99),
    "another address family": row(family=socket.AF_UNIX),
    "the answer to another question": row(sequence=QUESTION + 1),
    "the end of another answer": message(DONE, bytes(4), sequence=QUESTION + 1),
    "a change during the listing": row(flags=0x12),
    "a change told at the end": message(DONE, bytes(4), flags=0x12),
    "an end without a code": message(DONE, b""),
    "an end with a code of no meaning": message(DONE, struct.pack("=i", 1)),
    "an error that is none": message(ERROR, struct.pack("=i", 0) + bytes(16)),
    "nothing": message(NOOP, bytes(4)),
    "nothing, at length": message(NOOP, bytes(200)),
    "an overrun": message(OVERRUN, bytes(200)),
    "an event": row(kind=SOCK_DIAG_BY_FAMILY),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_understood_is_an_error_and_never_a_zero(what: str) -> None:
    with pytest.raises(Unavailable, match="netlink: "):
        answer().take(row() + MALFORMED[what], NOW)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOENT, errno.ENOMEM])
@pytest.mark.parametrize("kind", [DONE, ERROR])
def test_a_refusal_is_the_kernels_own(kind: int, code: int) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011  the number is compared
        answer().take(message(kind, struct.pack("=i", -code) + bytes(100)), NOW)
    assert refused.value.errno == code


def test_a_piece_that_ends_anywhere_but_between_two_messages_is_an_error() -> None:
    first, whole = row(), row() + row(attributes=counters(received=5)) + END
    borders = {0, len(first), len(first) + len(row(attributes=counters()))}
    for cut in range(len(whole)):
        if cut in borders:
            assert not answer().take(whole[:cut], NOW)  # and the answer goes on
        else:
            with pytest.raises(Unavailable):
                answer().take(whole[:cut], NOW)
    assert answer().take(whole, NOW)


def test_a_piece_that_did_not_fit_is_an_error() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        far.send(bytes(netlink.PIECE))
        assert netlink._received(near) == bytes(netlink.PIECE)
        far.send(bytes(netlink.PIECE + 1))
        with pytest.raises(Unavailable, match="a piece of more than 65536 bytes"):
            netlink._received(near)


# -- events ----------------------------------------------------------------------------------------------------------


def event(
    attributes: bytes, *, state: int = CLOSE, peer_port: int = 40000, unsent: int = 0, sequence: int = 0
) -> bytes:
    return row(
        state,
        peer_port=peer_port,
        unsent=unsent,
        attributes=attributes,
        kind=SOCK_DIAG_BY_FAMILY,
        flags=0,
        sequence=sequence,
    )


def told(*messages: bytes) -> list[Socket]:
    rows = events()
    assert not any(rows.take(m, NOW) for m in messages)
    return rows.sockets


def test_a_destroyed_connection_and_its_last_counters() -> None:
    protocol = attribute(10, b"\x06")
    [seen] = told(event(protocol + counters(heard_ago=40, acked=51, received=101, segments=1)))
    assert (seen.id, seen.received, seen.sent, seen.segments, seen.half) == (77, 101, 51, 1, True)
    assert seen.heard == NOW - 0.04


@pytest.mark.parametrize(
    ("counted", "unsent"),
    [
        ({"received": 1, "segments_in": 1}, 0),  # a request in the SYN (TCP fast open), whose answer never came through
        ({"segments_in": 2}, 1),  # accepted, closed here, and reset
        ({"acked": 1, "segments_in": 1}, 0),  # connected by us
    ],
)
def test_a_connection_that_came_to_little_is_one(counted: dict[str, int], unsent: int) -> None:
    assert len(told(event(counters(**counted), unsent=unsent))) == 1


@pytest.mark.parametrize(
    "never",
    [
        event(counters(segments_in=0), peer_port=0),  # a listener, or one that was only bound
        event(counters(received=5), peer_port=0),  # nobody's any more
        event(counters(segments_in=0), unsent=1),  # its SYN was not answered
        event(counters(segments_in=1), unsent=1),  # it was refused
    ],
)
def test_a_socket_that_never_was_a_connection_is_none(never: bytes) -> None:
    assert told(never) == []


@pytest.mark.parametrize(
    "malformed",
    [
        event(b""),
        event(counters()[:-8]),
        event(attribute(INFO, bytes(100))),
        event(counters(), state=ESTABLISHED),
        event(counters(), sequence=1),
        event(counters())[:-4],
        event(counters())[:60],
        row(CLOSE, sequence=0),
        message(DONE, bytes(100), sequence=0),
        message(ERROR, struct.pack("=i", -errno.EPERM) + bytes(100), sequence=0),
        b"\0",
    ],
)
def test_an_event_that_is_not_understood_is_an_error(malformed: bytes) -> None:
    with pytest.raises(Unavailable):
        events().take(malformed, NOW)
