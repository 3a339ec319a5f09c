"""The quiet rule against callers whose last request is known: how often it lets the app go too early, and how soon.

`sidecar/settle.py` itself is driven, at the period of the shipped runner, through thousands of drains per cell (see
cells.py). Beside it, on the same traffic: fixed sleeps, and a plain quiet window. A request that arrives after the
release makes that drain a too-early one. Only the standard library is used, so that CI runs the same code.

    python -m bench.simulation                       # all cells and the study of the defaults; writes bench/results
    python -m bench.simulation --only bursty -n 200  # some cells, printed
    python -m bench.simulation --replay poisson-2rps-1p-cached 17
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import exp, inf, lgamma, log
from random import Random
from statistics import median, quantiles
from typing import Any, NamedTuple

from sidecar.drain import SAMPLE_DRAINING as DRAINING
from sidecar.drain import SAMPLE_PERIOD as PERIOD
from sidecar.plan import SETTLE_SLACK, SPRING_CACHE
from sidecar.settle import Call, Clause, Rule, Settle

from .cells import CELLS, Cell, Shape
from .tables import OURS, RESULTS, page


DRAINS = 10_000
FIRST = 5
CHUNK = 250  # that a process plays at once

# The world around a drain whose trigger is at 0, in seconds.
CLEAN = (0.56, 0.93)  # when Nacos' list is without us: rollout-baseline.md section 2
CAP = SPRING_CACHE + SETTLE_SLACK  # that of CONSUMER_CACHE's default, for push consumers too
LATE = 0.003  # by which a real timer wakes up later, each time
DEFAULT = Rule()

SLEEPS = (5.0, 10.0, 20.0, 40.0)  # the hook that everybody copies: deregister, then sleep
WINDOW = 3.0  # of the plain quiet window: leave when nobody at all has called for so long
PLAIN = "3 s quiet"
METHODS = (OURS, *(f"sleep {seconds:g}" for seconds in SLEEPS), PLAIN)

# What has to hold.
MOST_EARLY = {Shape.POISSON: 0.0015, Shape.PERIODIC: 0.0015, Shape.BURSTY: 0.012, Shape.DIURNAL: 0.012}
PUSH_WITHIN = 4.5  # seconds of SETTLE, median, where every peer is busy
CACHED_WITHIN = 5.0  # seconds after the last call, likewise


class Outcome(NamedTuple):
    """One drain, in seconds after its trigger."""

    clean: float
    released: float
    clause: Clause
    plain: float  # when a plain quiet window would have released it
    last: float  # the last request of all


def drain(cell: Cell, number: int, rule: Rule = DEFAULT, *, age: float | None = None, skipping: bool = True) -> Outcome:
    """Play one drain of a sidecar of this age, in seconds; by default as young as it may be: the look-back.

    A younger one always waits for the cap. `skipping`: leave out samples that show nothing and teach nothing.
    """
    rng = Random(f"{cell.name} {number}")  # noqa: S311  a simulation, no secret
    clean = rng.uniform(*CLEAN)
    stops = cell.stops(rng, clean)
    since = -(rule.look_back if age is None else age)
    samples, trigger = _samples(rng, since, clean, rule.floor)
    shown: defaultdict[int, list[Call]] = defaultdict(list)
    for n, sights in enumerate(cell.sights(rng, samples, stops)):
        for sample, newest, requests in sights:
            shown[sample].append(Call(f"10.0.0.{n}", newest, requests=requests))
    latest = {sample: max(call.asked for call in calls if call.asked is not None) for sample, calls in shown.items()}

    settle = Settle(since=since, rule=rule, source="netlink")
    for sample in _worth_a_look(shown, trigger) if skipping else range(1, trigger):
        settle = settle.observe(shown.get(sample, ()), samples[sample])
    settle = settle.freeze(0.0)

    newest = max((at for sample, at in latest.items() if sample < trigger), default=-inf)
    released, plain, clause = inf, inf, Clause.WAITING
    for sample in range(trigger, len(samples)):
        at = samples[sample]
        newest = latest.get(sample, newest)
        if plain == inf and at >= clean + rule.floor and at - newest > WINDOW:
            plain = at
        if released == inf:
            settle = settle.observe(shown.get(sample, ()), at)
            verdict = settle.verdict(clean, clean + CAP, at)
            if verdict.done:
                released, clause = at, verdict.clause
        elif plain < inf:
            break
    return Outcome(clean, released, clause, plain, max(latest.values(), default=-inf))


def _samples(rng: Random, since: float, clean: float, floor: float) -> tuple[list[float], int]:
    """The start of watching, then every sample; and which of them is the first after the trigger.

    As in drain.py: each is so long after the one before, the first after the trigger comes half a second after it at
    the latest, and one falls on the floor. The last one is the cap.
    """
    first = since + rng.random() * PERIOD
    samples = [since, *(first + k * (PERIOD + LATE) for k in range(int(-first / (PERIOD + LATE)) + 1))]
    trigger = len(samples)
    at = min(samples[-1] + PERIOD, DRAINING) + LATE
    while at < clean + CAP:
        samples.append(at)
        after = at + DRAINING + LATE
        at = clean + floor if at < clean + floor < after else after
    return [*samples, clean + CAP], trigger


def _worth_a_look(shown: Iterable[int], trigger: int) -> Iterator[int]:
    """The samples before the trigger that show a call, and the one before each, which shows how long nobody did."""
    done = 0
    for sample in sorted(shown):
        if sample >= trigger:
            return
        if done < sample - 1:
            yield sample - 1
        yield sample
        done = sample


# -- many drains -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One way to wait, over all drains of a cell."""

    early: int  # drains that were released before the last call
    upper: float  # 95 % upper bound of their share
    median: float  # seconds from the clean list to the release
    p95: float


@dataclass(frozen=True)
class Result:
    """All drains of one cell."""

    cell: str
    rates: tuple[float, ...]
    drains: int
    methods: dict[str, Method]
    after_last: float | None  # median seconds from the last call to the release by nacos-drain; None: nobody called
    clauses: dict[str, int]
    first: tuple[float, ...]  # what SETTLE took in the first few drains: by them a test knows the rule again


def tally(cell: Cell, outcomes: Sequence[Outcome]) -> Result:
    """Count, and take medians."""

    def method(release: Callable[[Outcome], float]) -> Method:
        early = sum(each.last > release(each) for each in outcomes)
        waits = [release(each) - each.clean for each in outcomes]
        p95 = quantiles(waits, n=20)[-1]
        return Method(early, upper(early, len(outcomes)), round(median(waits), 3), round(p95, 3))

    def slept(seconds: float) -> Callable[[Outcome], float]:
        return lambda _: seconds

    late = [each.released - each.last for each in outcomes if each.last > -inf]
    ways = (lambda each: each.released, *map(slept, SLEEPS), lambda each: each.plain)
    return Result(
        cell=cell.name,
        rates=tuple(dict.fromkeys(cell.rates)),
        drains=len(outcomes),
        methods={name: method(release) for name, release in zip(METHODS, ways, strict=True)},
        after_last=round(median(late), 3) if late else None,
        clauses=dict(Counter(each.clause.value for each in outcomes).most_common()),
        first=tuple(round(each.released - each.clean, 3) for each in outcomes[:FIRST]),
    )


def upper(events: int, trials: int) -> float:
    """The one-sided 95 % upper bound of a share (Clopper and Pearson; with no event, the rule of three)."""
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    while high - low > 1e-7:  # noqa: PLR2004  far below what is printed
        share = (low + high) / 2
        ways = (lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1) for k in range(events + 1))
        at_most = sum(exp(w + k * log(share) + (trials - k) * log(1 - share)) for k, w in enumerate(ways))
        low, high = (share, high) if at_most > 0.05 else (low, share)  # noqa: PLR2004  95 %
    return high


def shortfalls(cell: Cell, result: Result) -> list[str]:
    """What does not hold of what has to."""
    ours = result.methods[OURS]
    wrong = []
    if ours.upper > MOST_EARLY[cell.shape]:
        wrong.append(
            f"{cell.name}: {ours.early} of {result.drains} too early, which may be {ours.upper:.2%}; "
            f"at most {MOST_EARLY[cell.shape]:.2%} are allowed"
        )
    if cell.busy and cell.shape is not Shape.BURSTY:  # the long pauses of those are real ones
        if not cell.cached and ours.median > PUSH_WITHIN:
            wrong.append(f"{cell.name}: a median SETTLE of {ours.median:.1f} s; {PUSH_WITHIN:g} s are allowed")
        if cell.cached and (result.after_last is None or result.after_last > CACHED_WITHIN):
            wrong.append(f"{cell.name}: {result.after_last} s after the last call; {CACHED_WITHIN:g} s are allowed")
    return wrong


class Job(NamedTuple):
    """Some drains of a cell."""

    cell: Cell
    rule: Rule
    age: float | None
    numbers: range

    def play(self) -> list[Outcome]:
        """Play them."""
        return [drain(self.cell, number, self.rule, age=self.age) for number in self.numbers]


def simulate(
    cells: Sequence[Cell], drains: int, *, rule: Rule = DEFAULT, age: float | None = None, processes: int = 1
) -> Iterator[Result]:
    """Play every cell; one result after the other, in order. The result does not depend on `processes`."""
    parts = [range(n, min(n + CHUNK, drains)) for n in range(0, drains, CHUNK)]
    jobs = [Job(cell, rule, age, part) for cell in cells for part in parts]
    with multiprocessing.get_context("spawn").Pool(processes, os.nice, (10,)) as pool:
        played = pool.imap(Job.play, jobs)
        for cell in cells:
            yield tally(cell, [outcome for part in islice(played, len(parts)) for outcome in part])


# -- what is published -------------------------------------------------------------------------------------------------

# Where the defaults come from: each number by itself, on cells that tell them apart.
VARIANTS = {
    "as shipped": DEFAULT,
    "factor 1": replace(DEFAULT, factor=1.0),
    "factor 2": replace(DEFAULT, factor=2.0),
    "factor 4": replace(DEFAULT, factor=4.0),
    "quiet 1 s": replace(DEFAULT, quiet=1.0),
    "quiet 2 s": replace(DEFAULT, quiet=2.0),
    "quiet 5 s": replace(DEFAULT, quiet=5.0),
    "look-back 60 s": replace(DEFAULT, look_back=60.0),
}
TELLING = (
    "poisson-0.2rps-1p-cached",
    "poisson-2rps-1p-cached",
    "poisson-10rps-1p-cached",
    "poisson-50+0.02rps-2p-cached",
    "bursty-10rps-1p-cached",
    "diurnal-2rps-1p-cached",
)
STUDY_DRAINS = 2_000
AGES = (300.0, 900.0, 1800.0, 3600.0)
AGED_DRAINS = 500  # an hour of samples takes twelve times as long
LONELY = tuple(f"{shape}-{rate:g}rps-1p-cached" for rate in (0.005, 0.02) for shape in Shape)
LONELY_DRAINS = 10_000


def unseen(cell: Cell, age: float, drains: int) -> int:
    """Drains that would be too early if a sidecar of this age, having seen nobody, believed that nobody calls."""
    early = 0
    for number in range(drains):
        rng = Random(f"{cell.name} {number}")  # noqa: S311  a simulation, no secret
        clean = rng.uniform(*CLEAN)
        samples, _ = _samples(rng, -age, clean, DEFAULT.floor)
        sights = next(cell.sights(rng, samples, cell.stops(rng, clean)))
        early += bool(sights) and samples[sights[0].sample] > clean + DEFAULT.floor
    return early


def play_all(drains: int, processes: int) -> dict[str, Any]:
    """Play everything that is published."""
    named = {cell.name: cell for cell in CELLS}
    results, wrong = [], []
    for cell, result in zip(CELLS, simulate(CELLS, drains, processes=processes), strict=True):
        say(line(result))
        results.append(result)
        wrong += shortfalls(cell, result)
    telling = [named[name] for name in TELLING]
    few, fewer, lonely = (min(drains, number) for number in (STUDY_DRAINS, AGED_DRAINS, LONELY_DRAINS))
    study = {name: list(simulate(telling, few, rule=each, processes=processes)) for name, each in VARIANTS.items()}
    ages = {f"{age:g}": list(simulate(telling, fewer, age=age, processes=processes)) for age in AGES}
    unmet = {name: {f"{age:g}": unseen(named[name], age, lonely) for age in AGES} for name in LONELY}
    return {
        "rule": asdict(DEFAULT),
        "cells": [asdict(result) for result in results],
        "wrong": wrong,
        "study": {name: [asdict(result) for result in row] for name, row in study.items()},
        "ages": {age: [asdict(result) for result in row] for age, row in ages.items()},
        "unseen": {"drains": lonely, "early": unmet},
    }


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def line(result: Result) -> str:
    """As it stands on a terminal."""
    ours = result.methods[OURS]
    rivals = ", ".join(f"{name} {result.methods[name].early}" for name in METHODS[1:])
    return (
        f"{result.cell:<32} too early {ours.early} of {result.drains} (at most {ours.upper:.2%}), "
        f"SETTLE {ours.median:.1f} s (p95 {ours.p95:.1f}), {result.after_last} s after the last call; {rivals}"
    )


def main() -> int:
    """Play what was asked for. 1: something that has to hold does not."""
    asked = argparse.ArgumentParser(prog="python -m bench.simulation", description="Drive the quiet rule.")
    asked.add_argument("-n", "--drains", type=int, default=DRAINS, help="of each cell")
    asked.add_argument("-p", "--processes", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--only", metavar="TEXT", help="only cells with this in their name, printed and not written")
    asked.add_argument("--replay", nargs=2, metavar=("CELL", "NUMBER"), help="one drain again")
    options = asked.parse_args()
    if options.drains < 2:  # noqa: PLR2004  one has no percentile
        asked.error(f"--drains {options.drains}: at least 2")
    name = options.replay[0] if options.replay else options.only or ""
    cells = [cell for cell in CELLS if (cell.name == name if options.replay else name in cell.name)]
    if not cells:
        asked.error(f"no cell is named {name!r}; they are: {', '.join(cell.name for cell in CELLS)}")
    if options.replay:
        say(repr(drain(cells[0], int(options.replay[1]))))
        return 0
    if options.only:
        for result in simulate(cells, options.drains, processes=options.processes):
            say(line(result))
        return 0
    found = play_all(options.drains, options.processes)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "settle.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "settle.md").write_text(page(found))
    say("\n".join(found["wrong"]) or "all that has to hold holds")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
