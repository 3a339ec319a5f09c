"""From what the kernel shows to who is calling: the connections of the app, told apart into calls and noise.

Laws of this file
- No clock and no I/O: a reading comes in, what it means for the quiet rule comes out.
- What cannot be explained is not nothing. An accepted connection that nobody saw, or one that went without its last
  words, makes the reading unknown: callers with a connection per request live between two samples (k8s-termination.md
  section 9: 0 of 10 samples saw one at 20 requests/s).
- The kernel shows bytes, not requests. Where they can be read with a caller or without, the caller is taken.

What does not count (design section 5): our own connections, exchanges of a few bytes on a kept connection, probes of
the node, networks that the user named. A connection that never carried a byte is no caller; a TLS handshake looks like
one request, as nobody without the keys can tell the two apart.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from math import inf
from typing import NamedTuple

from .probes import MEMORY, Judgement, Probes
from .settle import Call
from .traffic import Listener, Reading, Socket


Network = IPv4Network | IPv6Network
_Ends = tuple[str, int, str, int]  # this one and the other

# Bytes of one exchange, each way. HTTP/2's PING and its answer are 17, Dubbo's heartbeat is; inside TLS each is up to
# 29 longer, but both alike. The shortest calls are longer: a bare HTTP/1.1 answer has 40.
TINY, TINY_ALIKE = 32, 64
# An HTTP/2 client may end an exchange with a frame of its own (WINDOW_UPDATE) a moment after the answer, which looks as
# if a client that never pauses had sent its next request. For so long it is taken for one.
PATIENCE = 10.0
ANY_IPV4 = "0.0.0.0"  # noqa: S104  compared, not bound
MISSED = 4  # readings in a row that cannot explain an accepted connection: then nobody saw it
LAST_WORDS = 60  # readings for which they are waited for
MOST_DEPARTED = 20_000
SHORT = 2  # readings that may show a connection that a probe made


@dataclass(frozen=True, slots=True)
class Watched:
    """What the settings say of the app's callers."""

    own: frozenset[int] = frozenset()  # our own listening ports
    ignored: tuple[Network, ...] = ()
    nodes: frozenset[str] = frozenset()  # the default gateways and the node: probes come from there, and others


class Seen(NamedTuple):
    """What one reading means."""

    calls: tuple[Call, ...]
    doubt: bool  # something was accepted, or is gone, of which only the next reading will tell more
    missed: str  # why a call may have been missed, for people; empty: none was


class _Connection(NamedTuple):
    """What is remembered of a connection of the app."""

    peer: str
    received: int = 0  # up to here its bytes are judged
    sent: int = 0
    segments: int = 0
    answers: int = 0
    asked: float | None = None  # its newest request
    active: float | None = None  # the newest byte of a request or an answer
    awaited: float = -inf  # until when an answer is believed to be under way; infinite where that is certain
    looks: int = 0  # readings that showed it
    busy: bool = False  # something is in flight at the newest reading
    gone: int = 0  # readings since it was shown last, while its last words have not come
    shown: Socket | None = None  # by the newest reading


class _Accepts(NamedTuple):
    """Whether every connection that the namespace accepted was seen, by the kernel's own count (PassiveOpens)."""

    explained: int | None = None  # up to here, in the kernel's numbering; None: nothing was counted yet
    short: tuple[int, ...] = ()  # how many the newest readings did not explain

    def take(self, opens: tuple[int, int] | None, fresh: int) -> tuple["_Accepts", int, bool]:
        """Take in the counts and how many new ones were seen; returns how many were missed, and if some still may be.

        What is short of the count may be a connection that tells of its end a moment later; never in so many in a row.
        """
        if opens is None:
            return _Accepts(), 0, False
        before, after = opens
        if self.explained is None:
            return _Accepts(after), 0, False
        explained = min(self.explained + fresh, after)  # what was opened after the first count is in the next one
        short = (*self.short, max(0, before - explained))[-MISSED:]
        missed = min(short) if len(short) == MISSED else 0
        left = tuple(each - missed for each in short)
        return _Accepts(explained + missed, left), missed, left[-1] > 0


class _Total:
    """What a reading adds up to for one peer."""

    __slots__ = ("active", "asked", "busy", "connections", "requests")

    def __init__(self) -> None:
        self.asked: float | None = None
        self.active: float | None = None
        self.requests = self.connections = 0
        self.busy = False

    def add(self, before: _Connection | None, after: _Connection, *, open_: bool) -> None:
        """Count what is new of a connection."""
        if open_:
            self.connections += 1
            self.busy = self.busy or after.busy
        if after is before:
            return
        if after.asked is not None and (before is None or after.asked != before.asked):
            self.heard(after.asked)
            self.requests += max(1, after.segments - (0 if before is None else before.segments))
        if after.active is not None and (before is None or after.active != before.active):
            self.active = after.active if self.active is None else max(self.active, after.active)

    def heard(self, at: float) -> None:
        """Count a request."""
        self.asked = at if self.asked is None else max(self.asked, at)

    def call(self, peer: str) -> Call:
        """As the quiet rule takes it."""
        return Call(peer, self.asked, self.connections, self.busy, max(1, self.requests), self.active)


@dataclass(frozen=True, slots=True)
class Wire:
    """The app's connections, and what it takes to know that none was missed."""

    watched: Watched = Watched()
    connections: Mapping[int, _Connection] = field(default_factory=dict)
    doors: Mapping[int, frozenset[str]] = field(default_factory=dict)  # where anybody ever listened: port, addresses
    inbound: frozenset[int] = frozenset()  # ids of all accepted connections of the newest reading, whoever's they are
    departed: frozenset[int] = frozenset()  # of those before, the ids that are gone without last words so far
    accepts: _Accepts = _Accepts()  # noqa: RUF009  a tuple, so sharing it is harmless
    ours: frozenset[int] = frozenset()  # ids of our own: told at first sight, as their ports are used again later
    probes: Mapping[str, Probes] = field(default_factory=dict)
    halves: frozenset[_Ends] = frozenset()  # connections to nobody's door whose other end had not ended by this reading

    def anew(self) -> "Wire":
        """Forget what the nodes asked: it was at other doors, as a management port's while the app's were not known."""
        return replace(self, probes={})

    def take(self, reading: Reading, ports: frozenset[int]) -> tuple["Wire", Seen]:
        """Take a reading in. `ports` are the app's; none: whatever is listened on but ours."""
        doors = _opened(self.doors, reading.listeners)
        inbound = frozenset([s.id for s in reading.open if s.port in doors])
        ended = {s.id for s in reading.closed if s.port in doors}  # some while the others were listed: open as well
        known = self.inbound | self.departed
        to_themselves, halves = _to_themselves(reading.closed, doors, self.halves)
        fresh = len((inbound | ended) - known) + to_themselves
        departed = known - inbound - ended
        accepts, unseen, doubt = self.accepts.take(reading.opens, fresh)
        taking = _Taking(self, reading, doors, (ports or frozenset(doors)) - self.watched.own)
        for s in reading.open:
            if s.port in taking.mine and s.id not in ended:
                taking.open(s)
        for s in reading.closed:
            if s.port in taking.mine:
                taking.closed(s)
        taking.vanished(inbound | ended)
        taking.judge_probes()
        missed = reading.trouble or (f"connections accepted but not seen (on any port): {unseen}" if unseen else "")
        if not missed and (ports - doors.keys() or not taking.mine):
            where = ", ".join(map(str, sorted(ports - doors.keys()))) or "any port"
            missed = f"nobody has ever listened on {where} here: is NACOS_DRAIN_APP_PORTS right?"
        wire = Wire(
            self.watched,
            taking.connections,
            doors,
            inbound,
            departed if len(departed) <= MOST_DEPARTED else frozenset(),
            accepts,
            self.ours & inbound | taking.ours,
            taking.probes,
            halves,
        )
        calls = tuple([total.call(peer) for peer, total in taking.totals.items()])
        return wire, Seen(calls, doubt or taking.doubt, missed)


class _Taking:
    """A reading that is being taken in: what it adds up to so far."""

    def __init__(self, wire: Wire, reading: Reading, doors: Mapping[int, frozenset[str]], mine: frozenset[int]) -> None:
        self.mine = mine
        self.connections: dict[int, _Connection] = {}
        self.probes = dict(wire.probes)
        self.ours: set[int] = set()
        self.totals: defaultdict[str, _Total] = defaultdict(_Total)
        self.doubt = False
        self._wire = wire
        self._reading = reading
        self._doors = doors
        self._first = wire.accepts.explained is None and not wire.doors
        self._nodes = wire.watched.nodes

    def open(self, s: Socket) -> None:
        """Take in a connection to one of the app's ports."""
        before = self._wire.connections.get(s.id)
        if before is None and not self._counts(s):
            return
        still = before is not None and before.shown is s and not before.busy and before.looks > SHORT
        after = before if still and before is not None else _judged(before, s, self._reading.at, first=self._first)
        self.connections[s.id] = after
        told = before
        if s.peer in self._nodes:
            if self._brief(after):  # a probe, or a call: its end will tell
                self.doubt = self.doubt or after.asked is not None
                return
            if before is not None and self._brief(before):
                told = None  # kept for longer than a probe is: all of it is news
        self.totals[s.peer].add(told, after, open_=True)

    def closed(self, s: Socket) -> None:
        """Take in the last words of a connection to one of the app's ports."""
        before = self._wire.connections.get(s.id)
        if before is None and not self._counts(s):
            return
        after = _judged(before, s, self._reading.at, first=False)
        if s.peer not in self._nodes or (before is not None and not self._brief(before)):
            self.totals[s.peer].add(before, after, open_=False)
        elif after.asked is not None:
            self.probes[s.peer] = self.probes.get(s.peer, Probes()).seen(s.port, s.received, s.sent, at=after.asked)

    def vanished(self, told: frozenset[int]) -> None:
        """Keep those that are gone without last words, and take it that they had something to say.

        The words come a moment later; or much later, where the peer has reset a connection that the app still holds.
        """
        for id_, before in self._wire.connections.items():
            if id_ in told or before.gone == LAST_WORDS:  # else it is not the app's any more: its ports have changed
                continue
            self.connections[id_] = before._replace(gone=before.gone + 1, busy=False, shown=None)
            if not before.gone:
                self.doubt = True
            elif before.gone == 1 and before.active is not None and not self._brief(before):
                self.totals[before.peer].active = self._reading.at

    def judge_probes(self) -> None:
        """What the nodes sent over short connections: calls, or nothing."""
        at = self._reading.at
        for peer, before in self.probes.items():
            self.probes[peer] = probes = before.forget(at - MEMORY)
            judgement = probes.verdict(at)
            self.doubt = self.doubt or judgement is Judgement.PENDING
            if judgement is Judgement.CALLS:
                self.totals[peer].heard(probes.calls(at)[-1])

    def _brief(self, connection: _Connection) -> bool:
        """Whether it may be a probe's, by its length."""
        return connection.looks <= SHORT and connection.peer in self._nodes

    def _counts(self, s: Socket) -> bool:
        """Whether it is the app's, and the other end neither we, which is kept in mind, nor somebody to be ignored."""
        hosts = self._doors.get(s.port, frozenset())
        if not (s.host in hosts or "::" in hosts or (ANY_IPV4 in hosts and ":" not in s.host)):
            return False
        if s.id in self._wire.ours or (s.id not in self._wire.inbound and _from(self._reading.ours, s)):
            self.ours.add(s.id)
            return False
        return not (self._wire.watched.ignored and _ignored(s.peer, self._wire.watched.ignored))


def _judged(before: _Connection | None, s: Socket, at: float, *, first: bool) -> _Connection:
    """What is known of a connection by this reading of it."""
    if s.heard is None or s.spoke is None:  # this source tells no times: that it is there is all that is known
        looks = 1 if before is None else before.looks + 1
        return _Connection(s.peer, asked=at, active=at, looks=looks)  # `shown` would pass it by from then on
    if before is None:
        before = _old(s) if first else _Connection(s.peer)
    came, went = s.received - before.received, s.sent - before.sent
    received, sent, segments, answers, asked, active, awaited = before[1:8]
    if went > 0:
        awaited = -inf
    if came <= 0 and went <= 0:
        pass
    elif _tiny(came, went):
        if came <= 0 or went > 0:
            received, sent, segments, answers = s.received, s.sent, s.segments, s.answers
        else:  # half of an exchange: the answer will show what it was, if one comes
            awaited = max(awaited, s.heard + PATIENCE)
    else:
        # The kernel's clock has 1 to 10 ms: what came and went in one of its ticks is told apart by the count alone.
        ahead = s.heard > s.spoke or (s.heard == s.spoke and s.segments - segments > s.answers - answers)
        received, sent, segments, answers = s.received, s.sent, s.segments, s.answers
        if came > 0:
            asked = s.heard
            awaited = inf if went <= 0 else s.heard + PATIENCE if ahead else -inf
        active = max(s.heard if came > 0 else s.spoke, s.spoke if went > 0 else s.heard, active or -inf)
    if s.half and asked is not None:  # who has ended his direction may be gone, and some apps never close theirs
        awaited = min(awaited, asked + PATIENCE)
    end = 1 if s.half else 0  # the end of a direction counts as a byte that waits
    waits = (s.unread > end or s.unsent > end) and not (s.half and max(s.heard, s.spoke) < at - PATIENCE)
    busy = waits or awaited > at
    looks = before.looks + 1
    return _Connection(s.peer, received, sent, segments, answers, asked, active, awaited, looks, busy, shown=s)


def _old(s: Socket) -> _Connection:
    """A connection that was there before us. What its newest bytes were, nobody knows: they count as a request."""
    assert s.heard is not None  # noqa: S101  asked by the caller
    assert s.spoke is not None  # noqa: S101  likewise
    if _tiny(s.received, s.sent):  # as a knock, or a probe, that nobody has accepted: its end counts as a byte
        return _Connection(s.peer, s.received, s.sent, s.segments, s.answers)
    unanswered = s.heard > s.spoke or not s.sent
    awaited = (s.heard + PATIENCE if s.sent else inf) if s.received and unanswered else -inf
    asked = s.heard if s.received else None
    newest = max(s.heard, s.spoke)
    return _Connection(s.peer, s.received, s.sent, s.segments, s.answers, asked, newest, awaited)


def _from(ours: frozenset[int], s: Socket) -> bool:
    """Whether we opened it: a port of ours, on an address of this namespace."""
    return s.peer_port in ours and (s.peer == s.host or _local(s.peer))


def _tiny(came: int, went: int) -> bool:
    """Whether so little is a heartbeat, a PING, or the like."""
    return max(came, went) <= TINY or came == went <= TINY_ALIKE


def _opened(doors: Mapping[int, frozenset[str]], listeners: Iterable[Listener]) -> Mapping[int, frozenset[str]]:
    """The doors, with those that are new."""
    new = [each for each in listeners if each.host not in doors.get(each.port, ())]
    more = dict(doors)
    for each in new:
        more[each.port] = more.get(each.port, frozenset()) | {each.host}
    return more if new else doors


def _to_themselves(
    closed: Iterable[Socket], doors: Mapping[int, frozenset[str]], halves: frozenset[_Ends]
) -> tuple[int, frozenset[_Ends]]:
    """Connections of which both ends were here, accepted by a listener that was gone before we saw it; and the halves.

    `nacos-drain doctor` opens one to try the traffic source, and must not make a sidecar beside it lose its count. A
    reading may fall between its two ends.
    """
    new = {(s.host, s.port, s.peer, s.peer_port) for s in closed if s.port not in doors and s.peer_port not in doors}
    ends = new | halves
    whole = {(host, port, *other) for host, port, *other in ends if (*other, host, port) in ends}
    return len(whole) // 2, frozenset(new - whole)


@lru_cache(maxsize=4096)
def _local(address: str) -> bool:
    return ip_address(address).is_loopback


@lru_cache(maxsize=4096)
def _ignored(address: str, networks: tuple[Network, ...]) -> bool:
    there = ip_address(address)
    return any(there in network for network in networks)
