"""The traffic of the simulation: who calls this pod, how often, and until when.

A cell is a named world: a shape of traffic, the peers with their rates at this pod, and how its consumers learn that
the pod has left. Everything is drawn from one generator, seeded with the cell's name and the drain's number, so that
any drain can be played again alone.

What a sample shows of a peer is its newest request, and how many came since the sample before. For a busy Poisson peer
these two are drawn at once, which is exact; of a busy schedule only the requests next to a sample get their moments.
All other requests are drawn one by one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from math import cos, exp, lgamma, log, pi
from random import Random
from typing import NamedTuple

from sidecar.plan import SPRING_CACHE


PUSHED = (-0.46, 0.15)  # when consumers without a cache stop, after the list is clean: rollout-baseline.md section 2

JITTER = 0.02  # how far off its schedule a periodic request may be, of the period
DAY = 1200.0  # of the diurnal shape, compressed: the rate changes within the look-back, as it does not in 24 hours
SWING = 0.9  # at night the rate is a tenth of the mean, by day nearly twice
BURST = (2, 10)  # requests
SPACING = (0.01, 0.05)  # seconds between them
BUSY = 0.25  # bursts take at most this share of the time: above 8 requests/s the spacing shrinks
LONG, LONG_SHARE = 10.0, 0.1  # every tenth pause between bursts is ten times as long
DENSE = 5.0  # requests/s from which not every request is drawn by itself
BUSY_PEER = 10.0  # requests/s from which speed is promised


class Shape(StrEnum):
    """How requests follow one another."""

    POISSON = "poisson"
    PERIODIC = "periodic"
    BURSTY = "bursty"
    DIURNAL = "diurnal"


class Sight(NamedTuple):
    """What one sample shows of one peer."""

    sample: int
    newest: float
    requests: int  # since the sample before


@dataclass(frozen=True, slots=True)
class Cell:
    """One world."""

    shape: Shape
    rates: tuple[float, ...]  # of each peer: requests/s at this pod
    cached: bool  # consumers with the 35 s cache; else they follow pushes

    @property
    def name(self) -> str:
        """As tables, seeds and the command line have it."""
        rates = "+".join(f"{rate:g}" for rate in dict.fromkeys(self.rates))
        return f"{self.shape}-{rates}rps-{len(self.rates)}p-{'cached' if self.cached else 'push'}"

    @property
    def busy(self) -> bool:
        """Whether every peer is, at any time of the day."""
        return min(self.rates) * (1 - SWING if self.shape is Shape.DIURNAL else 1) >= BUSY_PEER

    def stops(self, rng: Random, clean: float) -> list[float]:
        """When each peer drops us from its list. No push refreshes a cache, so uniformly within its time."""
        low, high = (0.0, SPRING_CACHE) if self.cached else PUSHED
        return [clean + rng.uniform(low, high) for _ in self.rates]

    def sights(self, rng: Random, samples: Sequence[float], stops: Sequence[float]) -> Iterator[list[Sight]]:
        """What the samples show of each peer. The first one is the start of watching and shows nothing."""
        draw = SHAPES[self.shape]
        dawn = rng.random() * DAY  # one for all peers
        for rate, stop in zip(self.rates, stops, strict=True):
            yield draw(rng, rate, dawn, samples, stop)


def seen(moments: Sequence[float], samples: Sequence[float]) -> list[Sight]:
    """Requests, one by one and in order, as the samples show them."""
    sights: list[Sight] = []
    done = 0
    while done < len(moments):
        sample = bisect_left(samples, moments[done])
        upto = bisect_right(moments, samples[sample], done)
        sights.append(Sight(sample, moments[upto - 1], upto - done))
        done = upto
    return sights


def poisson(rng: Random, rate: float, _dawn: float, samples: Sequence[float], stop: float) -> list[Sight]:
    """Requests that know nothing of one another."""
    if rate >= DENSE:
        return list(_counted(rng, lambda _: rate, samples, stop))
    return seen(list(_at_random(rng, rate, samples[0], stop)), samples)


def diurnal(rng: Random, rate: float, dawn: float, samples: Sequence[float], stop: float) -> list[Sight]:
    """The same, with a rate that swings with the day."""

    def now(at: float) -> float:
        return rate * (1 + SWING * cos(2 * pi * (at - dawn) / DAY))

    if rate >= DENSE:  # the rate is taken to be constant from one sample to the next
        return list(_counted(rng, now, samples, stop))
    most = rate * (1 + SWING)
    return seen([at for at in _at_random(rng, most, samples[0], stop) if rng.random() * most < now(at)], samples)


def _at_random(rng: Random, rate: float, start: float, stop: float) -> Iterator[float]:
    at = start + rng.expovariate(rate)
    while at <= stop:
        yield at
        at += rng.expovariate(rate)


def _counted(rng: Random, rate: Callable[[float], float], samples: Sequence[float], stop: float) -> Iterator[Sight]:
    """The number between two samples, and the newest of so many moments that are uniform there."""
    for sample, (since, until) in enumerate(pairwise(samples), 1):
        if since >= stop:
            return
        seconds = min(until, stop) - since
        count = poisson_count(rng, rate(since) * seconds)
        if count:
            yield Sight(sample, since + seconds * float(rng.random() ** (1 / count)), count)


def poisson_count(rng: Random, mean: float) -> int:
    """Draw from a Poisson distribution: the whole part of its mean from a table, the rest by Knuth's product."""
    whole = int(mean)
    count = bisect_right(_cumulative(whole), rng.random()) if whole else 0
    floor, product = exp(whole - mean), rng.random()
    while product > floor:
        count += 1
        product *= rng.random()
    return count


@lru_cache(maxsize=1024)
def _cumulative(mean: int) -> list[float]:
    """The probabilities of at most 0, 1, 2, … up to where nothing is left to a float."""
    total, table = 0.0, []
    for k in range(mean + 12 * int(mean**0.5) + 20):
        total += exp(k * log(mean) - mean - lgamma(k + 1))
        table.append(total)
    return table


def periodic(rng: Random, rate: float, _dawn: float, samples: Sequence[float], stop: float) -> list[Sight]:
    """A schedule, each request a little off it."""
    period = 1 / rate
    first = samples[0] + rng.random() * period

    def moment(k: int) -> float:
        return first + (k + JITTER * (2 * rng.random() - 1)) * period

    if rate >= DENSE:
        return list(_scheduled(moment, first, period, samples, stop))
    moments = [moment(k) for k in range(int((stop - first) / period) + 2)]
    return seen([at for at in moments if samples[0] < at <= stop], samples)


def _scheduled(
    moment: Callable[[int], float], first: float, period: float, samples: Sequence[float], stop: float
) -> Iterator[Sight]:
    """Which requests of a schedule came since the sample before, without drawing those that surely did."""
    k, at = 0, max(samples[0], moment(0))  # the next request
    for sample, until in enumerate(samples):
        end = min(until, stop)
        if sample == 0 or at > end:
            continue
        begun, newest = k, at
        near = int((end - first) / period)  # the last one that is due
        if near > k:
            k, at = near, moment(near)
            if near - 1 > begun:
                newest = moment(near - 1)
        while at <= end:
            newest = at
            k, at = k + 1, moment(k + 1)
        yield Sight(sample, newest, k - begun)


def bursty(rng: Random, rate: float, _dawn: float, samples: Sequence[float], stop: float) -> list[Sight]:
    """A few requests close together, then a pause, now and then a long one."""
    size = sum(BURST) / 2
    spacing = sum(SPACING) / 2
    near = min(1.0, BUSY / (rate * spacing))
    burst = (size - 1) * spacing * near
    short = (size / rate - burst) / (1 + LONG_SHARE * (LONG - 1))  # so that the mean is the cell's
    low, high = SPACING[0] * near, SPACING[1] * near
    # Watching begins in a pause, and in a long one as often as those take the time.
    long = rng.random() < LONG_SHARE * LONG / (1 + LONG_SHARE * (LONG - 1))
    moments: list[float] = []
    at = samples[0]
    while True:
        at += rng.expovariate(1 / (short * LONG if long else short))
        if at > stop:
            return seen(moments[: bisect_right(moments, stop)], samples)
        step, count = rng.uniform(low, high), rng.randint(*BURST)
        moments += [at + k * step for k in range(count)]
        at = moments[-1]
        long = rng.random() < LONG_SHARE


Draw = Callable[[Random, float, float, Sequence[float], float], list[Sight]]
SHAPES: dict[Shape, Draw] = {
    Shape.POISSON: poisson,
    Shape.PERIODIC: periodic,
    Shape.BURSTY: bursty,
    Shape.DIURNAL: diurnal,
}

CELLS = tuple(
    cell
    for shape in Shape
    for cell in (
        Cell(shape, (0.005,), cached=True),
        Cell(shape, (0.005,) * 50, cached=True),
        Cell(shape, (0.02,), cached=True),
        Cell(shape, (0.02,) * 50, cached=False),
        Cell(shape, (0.05,) * 5, cached=True),
        Cell(shape, (0.2,), cached=True),
        Cell(shape, (0.2,) * 20, cached=True),
        Cell(shape, (0.5,), cached=False),
        Cell(shape, (0.5,) * 5, cached=True),
        Cell(shape, (2.0,), cached=True),
        Cell(shape, (10.0,), cached=True),
        Cell(shape, (10.0,) * 20, cached=False),
        Cell(shape, (50.0,), cached=False),
        Cell(shape, (200.0,), cached=True),
        Cell(shape, (50.0, 0.02), cached=True),
        Cell(shape, (50.0, 0.2), cached=True),
    )
)
