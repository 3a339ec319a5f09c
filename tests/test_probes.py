"""Probes told from calls: what a kubelet does, at every moment of it, and what somebody who calls does."""

from collections.abc import Iterable, Iterator
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.probes import ANSWER, KINDS, LONGEST, MEMORY, NEWEST, REPORTED, REQUEST, TOLERANCE, Judgement, Probes


CALLS, NOTHING, PENDING, PROBES = Judgement.CALLS, Judgement.NOTHING, Judgement.PENDING, Judgement.PROBES
PORT, ASKED, ANSWERED = 8080, 137, 480
PATIENCE = LONGEST + TOLERANCE + REPORTED  # the longest wait for a next beat


def beats(period: float, first: float = 0.0, *, until: float = 300.0, seed: int = 0) -> list[float]:
    """A kubelet's ticks, each up to 0.1 s late, and stamped up to 0.1 s after that."""
    late = Random(f"{period} {first} {seed}")
    return [first + n * period + late.uniform(0, 0.2) for n in range(int((until - first) // period) + 1)]


def remembered(*trains: Iterable[float]) -> Probes:
    """All these connections, each with the same request."""
    known = Probes()
    for at in sorted(at for train in trains for at in train):
        known = known.seen(PORT, ASKED, ANSWERED, at=at)
    return known


def life(*trains: Iterable[float], until: float, step: float = 0.5) -> Iterator[tuple[float, Probes]]:
    """What is remembered at each look, when a connection is reported at the last one that is in time."""
    known, due = Probes(), sorted(at for train in trains for at in train)
    for look in range(int(until / step) + 1):
        now = look * step
        while due and due[0] + REPORTED < now + step:
            known = known.seen(PORT, ASKED, ANSWERED, at=due.pop(0))
        known = known.forget(now - MEMORY)
        yield now, known


# --- what a kubelet does


@pytest.mark.parametrize("period", [1, 2, 3, 5, 7, 10, 15, 30, 60])
def test_a_train_is_pending_until_it_is_proven_and_probes_ever_after(period: int) -> None:
    """Through the look at which the oldest beats are forgotten, and with every report as late as can be."""
    seen = [(now, known.verdict(now)) for now, known in life(beats(period, until=1000), until=1000, step=1)]
    proven = next(now for now, judged in seen if judged is PROBES)
    assert 0 <= proven - REPORTED - max(15, 4 * period) <= 2, "five beats, and 15 s of them"
    assert {judged for now, judged in seen if now < proven} == {NOTHING, PENDING}
    assert {judged for now, judged in seen if now >= proven} == {PROBES}


@pytest.mark.parametrize("offset", [0.0, 0.13, 0.5, 3.7])
@pytest.mark.parametrize("periods", [(10, 10), (5, 10), (10, 20), (10, 15), (3, 10), (4, 6), (1, 10), (20, 30), (1, 1)])
def test_liveness_and_readiness_may_ask_the_same(periods: tuple[int, int], offset: float) -> None:
    """Their periods taken together are one, with more than one beat in it."""
    trains = [beats(period, offset * n, until=600, seed=n) for n, period in enumerate(periods)]
    judged = [known.verdict(now) for now, known in life(*trains, until=600, step=1)]
    assert CALLS not in judged
    assert judged[-1] is PROBES


@pytest.mark.parametrize(
    "trains",
    [
        pytest.param([[3.0], beats(10, 8)], id="a startup probe's only shot"),
        pytest.param([[3.0, 3.4], beats(10, 8)], id="and the readiness probe that its success starts"),
        pytest.param([[3.0], beats(10, 8), beats(10, 8, seed=1)], id="before two trains"),
        pytest.param([[1.0], beats(60, 50, until=600)], id="long before the first beat"),
        pytest.param([beats(10), beats(10, 45.2)], id="liveness with an initial delay"),
        pytest.param([beats(10), beats(5, until=200)], id="liveness that ends with the pod's deletion"),
        pytest.param([beats(10, until=200)], id="the same, and nothing else asks over HTTP"),
    ],
)
def test_trains_begin_and_end_as_a_pod_does(trains: list[list[float]]) -> None:
    until = max(at for train in trains for at in train) + REPORTED
    judged = [known.verdict(now) for now, known in life(*trains, until=until + 100)]
    assert CALLS not in judged
    assert judged[-1] is PROBES


def test_each_probe_has_its_own_request_and_what_is_answered_may_vary() -> None:
    known = Probes()
    for n in range(20):
        for port, received, sent, at in [
            (8080, 137, 480 + n, 10.0 * n),
            (8080, 138, 90, 10.0 * n),
            (9090, 137, 90, 15.0 * n + 3.3),
            (8443, 2210, 5100, 5.0 * n + 1.1),  # TLS
        ]:
            known = known.seen(port, received, sent, at=at)
    assert known.verdict(300) is PROBES
    assert known.calls(300) == ()


def test_nobody_called_until_somebody_does_and_again_when_it_is_forgotten() -> None:
    assert Probes().verdict(0) is NOTHING
    assert Probes().calls(0) == ()
    known = Probes().seen(PORT, ASKED, ANSWERED, at=5).seen(PORT, REQUEST + 1, ANSWERED, at=6)
    assert known.forget(5) == known
    assert known.forget(5.5).calls(7) == (6,)
    assert known.forget(6.5) == Probes()


def test_what_is_reported_late_finds_its_place() -> None:
    known = Probes()
    for at in (0, 10, 30, 20, 50, 40):
        known = known.seen(PORT, ASKED, ANSWERED, at=at)
    assert known == remembered([0, 10, 20, 30, 40, 50])
    assert known.verdict(51) is PROBES


# --- what calls do


@pytest.mark.parametrize(
    ("times", "until"),
    [
        pytest.param([7.0], 7 + PATIENCE, id="once: a train of 60 s"),
        pytest.param([7.0, 19.0], 19 + PATIENCE, id="twice: the first may have been a startup probe"),
        pytest.param([7.0, 19.0, 40.5], 40.5 + PATIENCE, id="three times: the first two may have been"),
        pytest.param([7.0, 19.0, 40.5, 71.0], 71 - 30.5 + PATIENCE, id="four times: two of them are no trains"),
    ],
)
def test_a_few_calls_are_pending_until_a_next_beat_is_overdue(times: list[float], until: float) -> None:
    known = remembered(times)
    assert known.verdict(until - 0.01) is PENDING
    assert known.calls(until - 0.01) == ()
    assert known.verdict(until + 0.01) is CALLS
    assert known.calls(until + 0.01) == tuple(times)


@pytest.mark.parametrize(
    ("received", "sent"),
    [pytest.param(REQUEST + 1, ANSWERED, id="its request"), pytest.param(ASKED, ANSWER + 1, id="its answer")],
)
def test_what_is_large_is_a_call_at_once(received: int, sent: int) -> None:
    known = remembered(beats(10)).seen(PORT, received, sent, at=301)
    assert known.verdict(301) is CALLS
    assert known.calls(301) == (301,), "the probes beside it are none"
    assert known.seen(PORT, received, sent, at=299).calls(301) == (301,)


def test_the_end_of_a_direction_may_be_counted_or_not() -> None:
    """A client that closes 40 ms late is gone before its FIN is one of the bytes."""
    known = Probes()
    for number, at in enumerate(beats(10)):
        known = known.seen(PORT, ASKED + (number % 3 == 0), ANSWERED, at=at)
    assert known.verdict(301) is PROBES


def test_so_many_kinds_of_requests_are_no_probes() -> None:
    known = Probes()
    for kind in range(KINDS):
        for at in beats(10):
            known = known.seen(PORT, ASKED + 2 * kind, ANSWERED, at=at)
    assert known.verdict(301) is PROBES
    assert known.seen(PORT, ASKED + 2 * KINDS, ANSWERED, at=301).calls(301) == (301,)
    assert len(known.histories) == KINDS


@pytest.mark.parametrize(
    "times",
    [
        pytest.param([at for n, at in enumerate(beats(10)) if n != 15], id="a beat that is missing"),
        pytest.param([at + 0.5 * (n == 15) for n, at in enumerate(beats(10))], id="a beat that is late"),
        pytest.param([10.012 * n for n in range(40)], id="a pause of 10 s between one answer and the next request"),
        pytest.param([9.988 * n for n in range(40)], id="a little less than 10 s"),
        pytest.param([0.1 * n for n in range(400)], id="ten times a second"),
        pytest.param([0.4 * n for n in range(400)], id="more often than two probes can"),
        pytest.param([0.85 * n for n in range(400)], id="twenty times in 17 s"),
        pytest.param([10 + 0.0004 * n for n in range(1000)], id="a burst"),
        pytest.param([10 * n + 0.4 * (n * 0.618 % 1) for n in range(60)], id="beats that scatter"),
        pytest.param([2.0, *beats(10, 65)], id="too long before the first beat"),
        pytest.param([73.0 * n for n in range(8)], id="more seldom than any probe"),
        pytest.param([*beats(10), *beats(10, seed=1), *beats(10, until=30, seed=2)], id="a train that ended at once"),
        pytest.param([3.0, 3.4, 5.0, *beats(10, 8)], id="more than a startup brings"),
    ],
)
def test_what_is_not_strictly_periodic_is_calls(times: list[float]) -> None:
    known = remembered(times)
    assert known.verdict(max(times) + PATIENCE + 0.01) is CALLS
    assert known.calls(inf)[-1] == max(times)


def test_a_call_is_none_of_the_startup_when_older_ones_were_forgotten() -> None:
    known = remembered(beats(10, 8, until=700), [104.0])
    assert known.forget(100).verdict(701) is CALLS
    assert known.forget(105).verdict(701) is PROBES


def test_memory_has_a_bound_and_what_falls_out_of_it_is_no_startup() -> None:
    known = remembered([0.2 * n for n in range(10 * NEWEST)])
    assert [len(each.times) <= NEWEST for each in known.histories.values()] == [True]
    assert known.calls(256)[-1] == 0.2 * (10 * NEWEST - 1)
    for n in range(3 * NEWEST):
        known = known.seen(PORT, ASKED, ANSWERED, at=300 + n / 1000)
        assert known.verdict(300 + n / 1000) is CALLS, "forgetting does not make it a few"
    newest = beats(1, until=NEWEST + 300)
    assert remembered(newest).verdict(newest[-1]) is PROBES
    assert remembered(newest, [newest[6 - NEWEST] + 0.5]).verdict(newest[-1]) is CALLS


def test_where_there_are_calls_what_is_pending_is_taken_for_one_too() -> None:
    known = remembered(beats(10, until=300)).seen(PORT, 900, 90, at=299)
    assert known.verdict(301) is PENDING
    assert known.seen(PORT, REQUEST + 1, 90, at=280).calls(301) == (280, 299)


# --- a call among probes


def among(trains: list[list[float]], calls: list[float]) -> list[Judgement]:
    """The verdicts from the first of the calls on, a look a second."""
    until = max(calls) + PATIENCE + 2
    return [known.verdict(now) for now, known in life(*trains, calls, until=until, step=1) if now >= min(calls) + 2]


TRAINS = st.sampled_from([(10,), (5,), (1,), (10, 10), (5, 10), (10, 15), (30,), (2, 3)]).map(
    lambda periods: [beats(period, until=400, seed=n) for n, period in enumerate(periods)]
)


@settings(max_examples=15, deadline=None)
@given(TRAINS, st.floats(130, 190))
def test_one_real_call_of_a_probes_size_is_found_wherever_it_falls(trains: list[list[float]], at: float) -> None:
    """Right on a beat too: then the beat has one too many, and until that one comes the call passes for it."""
    judged = among(trains, [at])
    assert PROBES not in judged[2:], "from the report of that beat on it bars the end"
    assert set(judged[judged.index(CALLS) :]) == {CALLS}


@settings(max_examples=15, deadline=None)
@given(TRAINS, st.floats(130, 190), st.sampled_from([1, 5, 10, 30]), st.integers(2, 4))
def test_a_few_real_calls_exactly_a_period_apart_are_found(
    trains: list[list[float]], first: float, period: int, count: int
) -> None:
    assert among(trains, [first + n * period for n in range(count)])[-1] is CALLS


def test_a_call_cannot_take_a_trains_place() -> None:
    """It may be nearer to the next beat than the beat before that one. Then two trains would follow one another."""
    for at in beats(5, 150.1, until=250):
        for before in (0.03, 0.15, 0.24, -0.03, -0.15, -0.24):
            known = remembered(beats(5, until=400), [at - before])
            assert known.verdict(400) is CALLS, (at, before)


# --- chance


@pytest.mark.parametrize(
    ("rate", "seeds"),
    [(0.02, range(4)), (0.05, (13, 196, 257, 388)), (0.2, (37, 234, 247)), (1.0, (3, 12, 21)), (5.0, range(4))],
)
def test_calls_by_chance_are_not_taken_for_probes(rate: float, seeds: Iterable[int]) -> None:
    """Poisson calls of one size, per second: what came nearest to trains in 400 runs of each rate.

    If three beats made a train, each run that is named by its number would pass for probes for a while. With five none
    of 20,000 did (0.05 to 1 a second): less than 0.015 % at 95 %.
    """
    for seed in seeds:
        chance, known, now = Random(seed), Probes(), 0.0
        judged = PENDING
        while judged is PENDING:
            now += chance.expovariate(rate)
            known = known.seen(PORT, ASKED, ANSWERED, at=now)
            judged = known.verdict(now)
        assert judged is CALLS, (seed, now)


# --- any history


HISTORIES = st.lists(
    st.tuples(st.sampled_from([8080, 9090]), st.sampled_from([137, 138, 9999]), st.integers(0, 400)), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.floats(0, 500))
def test_properties(history: list[tuple[int, int, int]], now: float) -> None:
    known = Probes()
    for port, received, tenths in history:
        known = known.seen(port, received, ANSWERED, at=tenths / 4)
    newest = max((tenths / 4 for _, _, tenths in history), default=0.0)
    judged = known.verdict(now)
    assert (judged is NOTHING) == (not history)
    assert known.verdict(newest + PATIENCE + 0.01) is not PENDING, "it has an end"
    calls = known.calls(now)
    assert bool(calls) == (judged is CALLS)
    assert list(calls) == sorted(calls)
    assert set(calls) <= {tenths / 4 for _, _, tenths in history}
    assert known.forget(0) == known
    assert known.forget(newest + 1).verdict(now) is NOTHING
