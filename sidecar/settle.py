"""The quiet rule: when have the consumers that cached the old list really stopped calling?

Laws of this file
- No clock and no I/O. What the kernel showed comes in as observations; a verdict comes out.
- Unknown is not quiet. A rhythm that is not known, a reading that may have missed a call, a peer that stands for many:
  each of them means the cap. Silence counts as far as it was seen, not as far as the clock has run since.
- A request during SETTLE never ends it earlier: the rhythms are frozen at the trigger.

The rule (design section 5): leave when `floor` has passed since SETTLE's clock started, nothing is in flight, and
every peer seen in the look-back has been silent for longer than max(quiet, factor x its longest gap); at the latest
at the cap.
Why per peer: behind a 35 s cache a plain 3 s quiet window let the app go too early 3 times in 3 at 0.5 requests/s
(rollout-baseline.md section 2). bench/simulation.py drives this file; its table is what the defaults rest on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from .traffic import BLIND


# Addresses that stand for many callers: loopback, and the source address of Istio's inbound proxy.
CROWDS = frozenset({"127.0.0.1", "::1", "127.0.0.6"})
KNOWN_RHYTHM = 3  # requests in the look-back that make a rhythm; one or two could be anything
# Look-backs in which nobody came before it is believed that nobody calls. In one of them every fifth of those who call
# once in 200 s is not seen: 1.7 % of such drains were too early (bench/results/settle.md).
NOBODY = 12
# Seconds for which the node is remembered to have called: its kubelet's restart, or a slow probe, looks like that too.
NODE_MEMORY = 600.0
FRESH = 3.0  # seconds: a sample's period and its timeout. What is older is no evidence that somebody is calling


class Clause(StrEnum):
    """What ended, or is holding, SETTLE."""

    FLOOR = "floor"  # nobody is known to call, and the floor has passed
    QUIET = "quiet"  # everybody has been silent for longer than their rhythm
    WAITING = "waiting"  # somebody may still call
    IN_FLIGHT = "in_flight"
    RHYTHM = "rhythm_unknown"  # a peer whose rhythm is not known: wait for the cap
    YOUNG = "young"  # this sidecar has watched for less than the look-back
    DOUBT = "doubt"  # something was seen of which only the next samples will tell more
    BLIND = "blind"  # no traffic source, or a reading that may have missed a call
    CAP = "cap"


class Rhythm(StrEnum):
    """What is known of a peer's requests."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    MANY = "many"  # one address that stands for many callers


@dataclass(frozen=True, slots=True)
class Rule:
    """The numbers of the rule, in seconds."""

    floor: float = 3.0  # push slack: a pushed list is used at once, within 0.15 s of the clean list
    quiet: float = 3.0
    factor: float = 3.0
    look_back: float = 300.0
    memory: float = 3600.0  # an address is remembered so long
    most_peers: int = 10_000


class Call(NamedTuple):
    """What one sample showed of one peer."""

    peer: str
    asked: float | None  # loop time of its newest request; None: there was none since the sample before
    connections: int = 1
    in_flight: bool = False
    requests: int = 1  # that came since the sample before: at most so many
    active: float | None = None  # when the newest byte of a request or an answer went; None: as asked


class Peer(NamedTuple):
    """What is remembered of one peer."""

    recent: tuple[float, ...] = ()  # the newest requests, at most KNOWN_RHYTHM, and one per sample
    active: float = 0.0  # the newest byte of a request or an answer
    met: float = 0.0  # its first request
    waited: float = 0.0  # the silence before that, as far as we had watched
    gaps: tuple[float, float] = (0.0, 0.0)  # the longest of this half of the memory, and of the half before
    half: int = 0  # which one that is
    connections: int = 0
    in_flight: bool = False
    owed: float | None = None  # the silence that it owes, fixed at the trigger; None: its rhythm is not known


class Caller(NamedTuple):
    """A peer as the report shows it."""

    peer: str
    connections: int
    silent: float  # seconds since it was last active, as far as that was seen
    rhythm: float | None  # its longest gap, seconds; None: not known

    def as_json(self) -> dict[str, object]:
        """As it stands in the report and on `/status`."""
        return {
            "peer": self.peer,
            "connections": self.connections,
            "last_seen_s": round(self.silent, 3),
            "rhythm_s": None if self.rhythm is None else round(self.rhythm, 3),
        }


class Waited(NamedTuple):
    """A peer whose silence was waited for."""

    peer: str
    active: float  # when it was active last
    owed: float  # the silence that it owed, seconds


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether SETTLE may end, why, and who is holding it."""

    done: bool
    clause: Clause
    callers: tuple[Caller, ...] = ()
    barred: Clause | None = None  # at the cap: what made it the only honest end
    why: str = ""  # more about that, for people
    last: Waited | None = None  # who was waited for last


@dataclass(frozen=True, slots=True)
class Settle:
    """All that was seen of the callers of one app."""

    since: float  # when watching began
    rule: Rule = Rule()
    source: str = BLIND
    singles: frozenset[str] = frozenset()  # declared by the user to be one caller, whatever their address
    nodes: frozenset[str] = frozenset()  # they stand for many as well, and probes come from there
    peers: Mapping[str, Peer] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()  # the peers of `peers` that had a connection in the newest sample
    seen_at: float | None = None  # the newest sample
    oldest: float = 0.0  # nobody in `peers` was active before
    doubt: bool = False  # the newest sample is not explained yet
    unknown_at: float | None = None  # the last moment at which a call may have been missed
    unknown_why: str = ""
    evicted_at: float | None = None
    frozen_at: float | None = None
    thawed_at: float | None = None

    def observe(self, calls: Iterable[Call], at: float, *, doubt: bool = False) -> "Settle":
        """Take one sample in: everything that was to be seen at this moment. `doubt`: the next one may show more."""
        peers, connected, oldest, evicted_at = dict(self.peers), set(), min(self.oldest, at), self.evicted_at
        for call in calls:
            before = peers.get(call.peer)
            if before is not None and call[1:4] == (None, before.connections, before.in_flight) and call.active is None:
                connected.add(call.peer)  # nothing new: the short way, for idle connections
                continue
            peer = self._met(before, call)
            if peer is not None:
                connected.add(call.peer)
                if peer is not before:
                    peers[call.peer] = peer
                    oldest = min(oldest, peer.active)
        for address in self.connected - connected:
            peer = peers[address]
            peers[address] = peer._replace(connections=0, in_flight=False)
        if at - oldest > self.rule.memory or len(peers) > self.rule.most_peers:
            peers = {a: p for a, p in peers.items() if at - p.active <= self.rule.memory or p.in_flight}
            if len(peers) > self.rule.most_peers:
                evicted_at = at
                peers = {a: peers[a] for a in _newest(peers, peers)[: self.rule.most_peers]}
            oldest = min((p.active for p in peers.values()), default=at)
        for address in (self.nodes & peers.keys()) - connected:
            if at - peers[address].active > NODE_MEMORY:
                del peers[address]
        return replace(
            self,
            peers=peers,
            connected=frozenset(connected & peers.keys()),
            seen_at=at,
            oldest=oldest,
            doubt=doubt,
            evicted_at=evicted_at,
        )

    def anew(self, now: float) -> "Settle":
        """Forget everybody: from now on it is others who are watched."""
        return replace(self, since=now, peers={}, connected=frozenset(), evicted_at=None)

    def lost(self, at: float, why: str) -> "Settle":
        """A call of anybody may have been missed."""
        return replace(self, unknown_at=at, unknown_why=why)

    @property
    def missed(self) -> str:
        """Why the newest sample may have missed a call, for people; empty: it has not."""
        newest = self.unknown_at is not None and (self.seen_at is None or self.unknown_at >= self.seen_at)
        return self.unknown_why if newest else ""

    def incomplete(self, at: float) -> bool:
        """Whether a call may have been missed within the look-back before this moment."""
        return self.unknown_at is not None and self.unknown_at >= at - self.rule.look_back

    def _met(self, peer: Peer | None, call: Call) -> Peer | None:
        """What is remembered of this peer now; None: it has never called."""
        asked = call.asked
        active = call.active if call.active is not None else asked
        if peer is None:
            if active is None and not call.in_flight:
                return None
            # what is under way without a request that we saw has been so since before we watched
            peer = Peer(active=self.since)
        recent, met, waited, gap = peer.recent, peer.met, peer.waited, 0.0
        if asked is not None and not recent:
            recent, met, waited = (asked,), asked, self._gap(self.since, asked, call.requests)
        elif asked is not None and asked > recent[-1]:
            gap = self._gap(recent[-1], asked, call.requests)
            recent = (*recent, asked)[-KNOWN_RHYTHM:]
        elif active is not None and active > peer.active:  # an answer, or something pushed
            gap = active - peer.active
        elif (call.connections, call.in_flight) == (peer.connections, peer.in_flight):
            return peer
        newest = peer.active if active is None else max(peer.active, active)
        gaps, half = peer.gaps, peer.half
        # The silence of a drain is our doing, and no rhythm of theirs.
        theirs = self.thawed_at is None or peer.active >= self.thawed_at
        if gap and theirs and self.frozen_at is None:
            now = int(2 * newest // self.rule.memory)
            gaps = self._gaps(peer, now)
            gaps, half = (max(gaps[0], gap), gaps[1]), now
        return Peer(recent, newest, met, waited, gaps, half, call.connections, call.in_flight, peer.owed)

    @staticmethod
    def _gaps(peer: Peer, half: int) -> tuple[float, float]:
        """Its longest gaps as this half of the memory sees them."""
        older = half - peer.half
        return peer.gaps if older <= 0 else (0.0, peer.gaps[0]) if older == 1 else (0.0, 0.0)

    def longest_gap(self, peer: Peer, now: float) -> float:
        """The longest silence of a peer between its requests, in seconds, as far as it is remembered.

        The silence before its first request is one too: who is first seen after 10 min may call every 10 min. But not
        once it has been watched for a look-back: a caller that was itself replaced since our birth, or one that was
        silent overnight, would be waited for until the cap for ever.
        """
        waited = peer.waited if now - peer.met <= self.rule.look_back else 0.0
        return max(waited, *self._gaps(peer, int(2 * now // self.rule.memory)))

    def _gap(self, before: float, asked: float, requests: int) -> float:
        """The silence before what a sample shows.

        That it lasted until the sample before is certain. When several requests came since then, only the newest one's
        time is known: the first of them is taken to have come after its share of the time. Else a caller of 10
        requests/s would pass for one with gaps of 1.6 s, and be waited for half as long again.
        """
        seen = before if self.seen_at is None else max(before, self.seen_at)
        return max(0.0, seen - before) + max(0.0, asked - seen) / max(1, requests)

    def freeze(self, now: float) -> "Settle":
        """The trigger: from here on rhythms are fixed, and the silence that lasts counts as a gap too."""
        return replace(self, peers={a: self._frozen(p, now) for a, p in self.peers.items()}, frozen_at=now)

    def _frozen(self, peer: Peer, now: float) -> Peer:
        known = len(peer.recent) == KNOWN_RHYTHM and peer.recent[0] >= now - self.rule.look_back
        if not known:
            return peer._replace(owed=None)
        gap = max(self.longest_gap(peer, now), now - peer.recent[-1])
        return peer._replace(owed=max(self.rule.quiet, self.rule.factor * gap))

    def thaw(self, now: float) -> "Settle":
        """The lease has ended: learn again."""
        return replace(self, frozen_at=None, thawed_at=now)

    # -- the verdict -----------------------------------------------------------------------------------------------

    def verdict(self, started: float, cap: float, now: float) -> Verdict:
        """Judge. `started` is SETTLE's clock, `cap` the moment at which it ends whatever is seen."""
        callers = self._holding(now if now >= cap else self.seen_at)
        clause = self._bar(now)
        why = self._why(clause)
        if now >= cap:
            return Verdict(done=True, clause=Clause.CAP, callers=self._rows(callers), barred=clause, why=why)
        if clause is not None:
            return Verdict(done=False, clause=clause, callers=self._rows(callers), why=why)
        if callers or self.seen_at is None or self.seen_at < started + self.rule.floor:
            return Verdict(done=False, clause=Clause.WAITING, callers=self._rows(callers))
        return Verdict(done=True, clause=Clause.QUIET if self.peers else Clause.FLOOR, last=self._waited())

    def _waited(self) -> Waited | None:
        """Who was waited for last; all rhythms are known."""
        waited = (Waited(a, p.active, p.owed or self.rule.quiet) for a, p in self.peers.items())
        return max(waited, key=lambda each: each.active + each.owed, default=None)

    def _why(self, clause: Clause | None) -> str:
        """More about what bars the end, for people: who it is, where that is somebody."""
        if clause is Clause.BLIND:
            return self.unknown_why
        if clause is not Clause.RHYTHM:
            return ""
        said = {
            Rhythm.MANY: "many callers may be behind {} (see SINGLE_PEERS and IGNORE_NETWORKS)",
            Rhythm.UNKNOWN: "the rhythm of {} is not known",
        }
        newest = _newest(self.peers, self.peers)
        kinds = {kind: [a for a in newest if self.rhythm(a) is kind] for kind in said}
        return "; ".join(said[kind].format(", ".join(those[:3])) for kind, those in kinds.items() if those)

    def _bar(self, now: float) -> Clause | None:
        """What makes waiting for the cap the only honest answer."""
        at = now if self.frozen_at is None else self.frozen_at
        if self.source == BLIND or self.incomplete(at):
            return Clause.BLIND
        age = at - self.since
        if age < self.rule.look_back or (not self.peers and age < NOBODY * self.rule.look_back):
            return Clause.YOUNG
        if any(self.peers[address].in_flight for address in self.connected):
            return Clause.IN_FLIGHT
        if self.doubt:
            return Clause.DOUBT
        forgotten = self.evicted_at is not None and self.evicted_at >= at - self.rule.memory
        if forgotten or any(self.rhythm(a) is not Rhythm.KNOWN for a in self.peers):
            return Clause.RHYTHM
        return None

    def rhythm(self, address: str) -> Rhythm:
        """What is known of this peer; before a trigger: what would be, were it now."""
        if (address in CROWDS or address in self.nodes) and address not in self.singles:
            return Rhythm.MANY
        peer = self.peers[address]
        if self.frozen_at is None and self.seen_at is not None:
            peer = self._frozen(peer, self.seen_at)
        return Rhythm.UNKNOWN if peer.owed is None else Rhythm.KNOWN

    @property
    def callers(self) -> tuple[Caller, ...]:
        """Who may still be calling, by what was seen so far."""
        return self._rows(self._holding(self.seen_at))

    def newest(self, most: int) -> tuple[Caller, ...]:
        """So many of all that are remembered: those that were active last."""
        return self._rows(_newest(self.peers, self.peers)[:most])

    def rhythms(self) -> dict[str, int]:
        """How many peers there are of each kind."""
        found = Counter(map(self.rhythm, self.peers))
        return {rhythm.value: found[rhythm] for rhythm in Rhythm}

    def _holding(self, at: float | None) -> list[str]:
        """The peers that were active within the silence that they owe before this moment, newest first."""
        if at is None or self.seen_at is None:
            return []
        quiet, fresh = self.rule.quiet, at - self.seen_at <= FRESH
        holding = [a for a, p in self.peers.items() if (p.in_flight and fresh) or at - p.active <= (p.owed or quiet)]
        return _newest(self.peers, holding)

    def _rows(self, addresses: Iterable[str]) -> tuple[Caller, ...]:
        return tuple(map(self._row, addresses))

    def _row(self, address: str) -> Caller:
        seen = self.seen_at if self.seen_at is not None else self.since
        peer = self.peers[address]
        known = self.rhythm(address) is Rhythm.KNOWN
        gap = self.longest_gap(peer, seen if self.frozen_at is None else self.frozen_at) if known else None
        return Caller(address, peer.connections, max(0.0, seen - peer.active), gap)


def _newest(peers: Mapping[str, Peer], addresses: Iterable[str]) -> list[str]:
    """These, in the order in which they were active last, the newest first."""
    return sorted(addresses, key=lambda address: peers[address].active, reverse=True)
