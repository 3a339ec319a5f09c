"""Probe or call? The kubelet's probes come from the node's or the gateway's address, and so may calls (NodePort, SNAT).

Laws of this file
- No clock and no I/O. The short connections of one such peer come in, a judgement comes out.
- Never take a call for a probe. The other way round costs time only: a call from there makes SETTLE wait for its cap.

What a probe looks like (kubelet, pkg/kubelet/prober/worker.go): a new connection each time, always the same request, on
a ticker of whole seconds that does not drift. Each such train has exactly one connection per beat, so a call between
its beats is found, and so is one right on a beat, as then the beat has one too many. Liveness and readiness often ask
the same: trains of 4 s and of 6 s add up to five trains of 12 s, one for each place that a beat has in the 12 s.
What remains: a call passes for the one beat that would have followed a train's last, if it comes within 0.25 s of it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from math import inf
from typing import NamedTuple


# Bytes. A plain GET has some hundred; over TLS it comes with a hello that has 1.2 KiB of key alone where the kubelet
# knows ML-KEM, and the answer with a chain of certificates.
REQUEST, ANSWER = 4096, 16384
# Seconds: so close together lie one train's beats, its periods taken off. The kubelet runs up to 0.1 s late, our stamps
# are up to 0.1 s late, and the kernel counts in 10 ms. No share of the period, as nothing drifts.
TOLERANCE = 0.25
REPORTED = 3.0  # a short connection is seen to have ended so long after its request at the latest
# What makes a train. Three calls in a row look like one now and then, five do not (tests/test_probes.py counts); at 1 s
# and 2 s, where an even chance puts a call on a beat, it takes more of them.
BEATS, LASTED = 5, 15.0
LONGEST = 60  # seconds: no period is longer, nor what two of them have in common
# Of one kind of request: periods of 1 s and 15 s, or 3 s and 10 s. Two probes ask the same, each once a second at most.
MOST_TRAINS, PER_SECOND = 16, 2
# A startup probe ends with its first success, and that starts a readiness probe at once, out of its beat. So two may
# come up to LONGEST before the first train. Were they calls, they were the first things that we saw of this kind.
STARTUP = 2
NEWEST, KINDS = 128, 16  # connections remembered per kind of request, and such kinds: four probes on each of four ports
MEMORY = 600.0  # seconds that should be remembered: five beats of the slowest train, and a drain on top


class Judgement(StrEnum):
    """What the remembered connections are."""

    NOTHING = "nothing"  # there are none
    PROBES = "probes"  # all of them are
    PENDING = "pending"  # some may be; their next beat will tell, LONGEST + TOLERANCE + REPORTED from now at the latest
    CALLS = "calls"


class _History(NamedTuple):
    """The connections that brought one kind of request."""

    times: tuple[float, ...] = ()  # of the requests, in order
    whole: bool = True  # none was forgotten


@dataclass(frozen=True, slots=True)
class Probes:
    """One peer's short connections. Times are the loop's, in seconds."""

    histories: Mapping[tuple[int, int], _History] = field(default_factory=dict)  # by port and bytes of the request
    called: float = -inf  # the newest that no probe can have made

    def seen(self, port: int, received: int, sent: int, *, at: float) -> "Probes":
        """Take one in that has ended: the bytes of the request and of the answer, and when the request came."""
        # The end of a direction counts as a byte, and may come too late to be counted.
        alike = ((port, received), (port, received - 1), (port, received + 1))
        kind = next((each for each in alike if each in self.histories), alike[0])
        times, whole = before = self.histories.get(kind, _History())
        crowd = len(times) == NEWEST and at - times[0] < NEWEST / PER_SECOND - 1
        crowd = crowd or (not times and len(self.histories) == KINDS)
        if received > REQUEST or sent > ANSWER or crowd:
            return replace(self, called=max(self.called, at))
        if len(times) == NEWEST:
            times, whole = _without(before, 1)
        return replace(self, histories={**self.histories, kind: _History(tuple(sorted((*times, at))), whole)})

    def forget(self, before: float) -> "Probes":
        """Drop what is older."""
        later = {kind: _without(each, bisect_left(each.times, before)) for kind, each in self.histories.items()}
        left = {kind: each for kind, each in later.items() if each.times}
        return Probes(left, self.called if self.called >= before else -inf)

    def verdict(self, now: float) -> Judgement:
        """Judge all of it together."""
        judged = {_judged(each, now) for each in self.histories.values()}
        if self.called > -inf or Judgement.CALLS in judged:
            return Judgement.CALLS
        if Judgement.PENDING in judged:
            return Judgement.PENDING
        return Judgement.PROBES if judged else Judgement.NOTHING

    def calls(self, now: float) -> tuple[float, ...]:
        """When they came, in order; nothing unless the verdict is CALLS.

        Where some are, everything counts that is not of a kind that is probes altogether.
        """
        if self.verdict(now) is not Judgement.CALLS:
            return ()
        kinds = [each.times for each in self.histories.values() if _judged(each, now) is not Judgement.PROBES]
        return tuple(sorted([at for times in kinds for at in times] + [self.called] * (self.called > -inf)))


def _without(history: _History, oldest: int) -> _History:
    """Forget the oldest, and with them the rest of a beat that two trains share: half of it has no place."""
    if not oldest:
        return history
    edge = history.times[oldest - 1] + 2 * TOLERANCE
    return _History(history.times[bisect_right(history.times, edge) :], whole=False)


def _judged(history: _History, now: float) -> Judgement:
    proven, possible = _until(history)
    return Judgement.PROBES if proven else Judgement.PENDING if now <= possible else Judgement.CALLS


@lru_cache(maxsize=256)
def _until(history: _History) -> tuple[bool, float]:
    """Whether this is proven to be probes, and until when it may turn out to be if nothing more comes."""
    times, whole = history
    possible = -inf
    for skipped in range(min(STARTUP + 1, len(times)) if whole else 1):
        if times[skipped] > times[0] + LONGEST:
            break
        for period in range(1, LONGEST + 1):
            possible = max(possible, _explained(times[skipped:], period))
            if possible == inf:
                return True, inf
    return False, possible


class _Train:
    """Connections with one period between each and the next."""

    __slots__ = ("beats", "first", "high", "last", "low")

    def __init__(self, at: float) -> None:
        self.first = self.last = at
        self.beats = 1
        self.low = self.high = 0.0  # how far the beats are before and behind where the first one would have them

    def took(self, at: float, period: int) -> bool:
        """Whether this is its next beat."""
        off = at - self.first - self.beats * period
        low, high = min(self.low, off), max(self.high, off)
        if high - low > TOLERANCE:
            return False
        self.last, self.low, self.high, self.beats = at, low, high, self.beats + 1
        return True


def _explained(times: tuple[float, ...], period: int) -> float:
    """Until when all of this can be trains of this period, without end where that is proven.

    All of them have to run side by side for as long as makes a train. So none may begin after one has ended: a ticker
    neither pauses nor drifts. That one ends is no harm: liveness probes do at the pod's deletion.
    """
    most = min(MOST_TRAINS, PER_SECOND * period)
    if len(times) > most and times[most] < times[0] + period - TOLERANCE:
        return -inf  # so many within one period: no two of one train
    together = max((BEATS - 1) * period, LASTED) - TOLERANCE
    patience = period + TOLERANCE + REPORTED
    begun = times[0]
    trains = [_Train(begun)]  # in the order of their newest beats
    for at in times[1:]:
        due = trains if at >= trains[0].last + period - TOLERANCE else ()
        train = next((each for each in due if each.took(at, period)), None)
        if train:
            trains.remove(train)
        else:
            begun = at
        trains.append(train or _Train(at))
        overdue = trains[0].last + patience < at
        if len(trains) > most or (overdue and trains[0].last < begun + together):
            return -inf
    return min((each.last + patience for each in trains if each.last < begun + together), default=inf)
