"""The quiet rule: when have the consumers that cached the old list really stopped calling?

Laws of this file
- No clock and no I/O. What the kernel showed comes in as observations; a verdict comes out.
- Unknown is not quiet. A rhythm that is not known, a reading that may have missed a call, a peer that stands for many:
  each of them means the cap.
- A request during SETTLE never ends it earlier: the rhythms are frozen at the trigger.

The rule (design section 5): leave when `floor` has passed since SETTLE's clock started, nothing is in flight, and
every peer seen in the look-back has been silent for longer than max(quiet, factor x its longest gap); at the latest
at the cap.
Why per peer: behind a 35 s cache a plain 3 s quiet window let the app go too early 3 times in 3 at 0.5 requests/s
(rollout-baseline.md section 2).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


# Addresses that stand for many callers: loopback, and the source address of Istio's inbound proxy.
CROWDS = frozenset({"127.0.0.1", "::1", "127.0.0.6"})
KNOWN_RHYTHM = 3  # requests in the look-back that make a rhythm; one or two could be anything


class Clause(StrEnum):
    """What ended, or is holding, SETTLE."""

    FLOOR = "floor"  # nobody is known to call, and the floor has passed
    QUIET = "quiet"  # everybody has been silent for longer than their rhythm
    WAITING = "waiting"  # somebody may still call
    IN_FLIGHT = "in_flight"
    RHYTHM = "rhythm_unknown"  # a peer whose rhythm is not known: wait for the cap
    YOUNG = "young"  # this sidecar has watched for less than the look-back
    BLIND = "blind"  # no traffic source, or a reading that may have missed a call
    CAP = "cap"


@dataclass(frozen=True, slots=True)
class Rule:
    """The numbers of the rule, in seconds."""

    floor: float = 3.0  # push slack: a pushed list is used at once, within 0.15 s of the clean list
    quiet: float = 3.0
    factor: float = 3.0
    look_back: float = 300.0
    memory: float = 3600.0  # an address is remembered so long
    most_peers: int = 10_000


@dataclass(frozen=True, slots=True)
class Call:
    """What one sample showed of one peer: its newest request, and whether one is being answered."""

    peer: str
    last: float | None  # loop time of the newest request, None when the connections only sat there
    connections: int = 1
    in_flight: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """What is remembered of one peer."""

    recent: tuple[float, ...] = ()  # the newest requests, at most KNOWN_RHYTHM
    longest_gap: float = 0.0
    connections: int = 0
    in_flight: bool = False
    owed: float | None = None  # the silence that it owes, fixed at the trigger; None: its rhythm is not known

    @property
    def last(self) -> float:
        """When it last sent a request."""
        return self.recent[-1]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether SETTLE may end, why, and who is holding it."""

    done: bool
    clause: Clause
    callers: tuple[str, ...] = ()
    barred: Clause | None = None  # at the cap: what made it the only honest end


@dataclass(frozen=True, slots=True)
class Settle:
    """All that was seen of the callers of one app."""

    since: float  # when watching began
    rule: Rule = Rule()
    source: str = "blind"
    singles: frozenset[str] = frozenset()  # declared by the user to be one caller, whatever their address
    crowds: frozenset[str] = CROWDS
    peers: Mapping[str, Peer] = field(default_factory=dict)
    unknown_at: float | None = None  # the last moment at which a call may have been missed
    evicted: bool = False
    frozen_at: float | None = None

    def observe(self, calls: Iterable[Call], now: float, *, complete: bool = True) -> "Settle":
        """Take one sample in. An incomplete one may have missed a call of anybody."""
        peers = {a: replace(p, connections=0, in_flight=False) for a, p in self.peers.items()}
        for call in calls:
            peer = self._met(peers.get(call.peer, Peer()), call)
            if peer.recent:
                peers[call.peer] = peer
        kept = {a: p for a, p in peers.items() if now - p.last <= self.rule.memory or p.in_flight}
        evicted = self.evicted or len(kept) > self.rule.most_peers
        if len(kept) > self.rule.most_peers:
            newest = sorted(kept, key=lambda a: kept[a].last, reverse=True)[: self.rule.most_peers]
            kept = {a: kept[a] for a in newest}
        return replace(self, peers=kept, evicted=evicted, unknown_at=self.unknown_at if complete else now)

    def _met(self, peer: Peer, call: Call) -> Peer:
        here = replace(peer, connections=call.connections, in_flight=call.in_flight)
        if call.last is None and call.in_flight and not peer.recent:
            return replace(here, recent=(self.since,))  # under way since before we watched
        if call.last is None or (peer.recent and call.last <= peer.last):
            return here
        gap = call.last - (peer.last if peer.recent else self.since)
        recent = (*peer.recent, call.last)[-KNOWN_RHYTHM:]
        longest = peer.longest_gap if self.frozen_at is not None else max(peer.longest_gap, gap)
        return replace(here, recent=recent, longest_gap=longest)

    def freeze(self, now: float) -> "Settle":
        """The trigger: from here on rhythms are fixed, and the silence that lasts counts as a gap too."""
        return replace(self, peers={a: self._frozen(p, now) for a, p in self.peers.items()}, frozen_at=now)

    def _frozen(self, peer: Peer, now: float) -> Peer:
        gap = max(peer.longest_gap, now - peer.last)
        known = len(peer.recent) == KNOWN_RHYTHM and peer.recent[0] >= now - self.rule.look_back
        owed = max(self.rule.quiet, self.rule.factor * gap) if known else None
        return replace(peer, longest_gap=gap, owed=owed)

    def thaw(self) -> "Settle":
        """The lease has ended: learn again."""
        return replace(self, frozen_at=None)

    def verdict(self, started: float, cap: float, now: float) -> Verdict:
        """Judge. `started` is SETTLE's clock, `cap` the moment at which it ends whatever is seen."""
        callers = self._holding(now)
        clause = self._bar(now)
        if now >= cap:
            return Verdict(done=True, clause=Clause.CAP, callers=callers, barred=clause)
        if clause is not None:
            return Verdict(done=False, clause=clause, callers=callers)
        if callers or now < started + self.rule.floor:
            return Verdict(done=False, clause=Clause.WAITING, callers=callers)
        return Verdict(done=True, clause=Clause.QUIET if self.peers else Clause.FLOOR)

    def _bar(self, now: float) -> Clause | None:
        """What makes waiting for the cap the only honest answer."""
        at = now if self.frozen_at is None else self.frozen_at
        if self.source == "blind" or (self.unknown_at is not None and self.unknown_at >= at - self.rule.look_back):
            return Clause.BLIND
        if at - self.since < self.rule.look_back:
            return Clause.YOUNG
        if any(peer.in_flight for peer in self.peers.values()):
            return Clause.IN_FLIGHT
        if self.evicted or any(self._uncertain(a, p) for a, p in self.peers.items()):
            return Clause.RHYTHM
        return None

    def _uncertain(self, address: str, peer: Peer) -> bool:
        crowd = address in self.crowds and address not in self.singles
        return crowd or peer.owed is None

    def _holding(self, now: float) -> tuple[str, ...]:
        """The peers that were active within the silence that they owe, newest first."""
        holding = [a for a, p in self.peers.items() if p.in_flight or now - p.last <= (p.owed or self.rule.quiet)]
        return tuple(sorted(holding, key=lambda a: self.peers[a].last, reverse=True))
