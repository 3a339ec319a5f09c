"""One budget, divided: the worked examples of contracts.md, and what holds for every grace period."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.lease import Lease, Trigger
from sidecar.plan import MARGIN, PROOF_LEAST, PROOF_MOST, SHORTEST_BUDGET, fit


def quarters(least: float, most: float) -> st.SearchStrategy[float]:
    """Seconds as people write them: a settings file knows no 1e-17."""
    return st.integers(int(least * 4), int(most * 4)).map(lambda n: n / 4)


graces = quarters(0, 3600)
stops = st.none() | quarters(0, 600)
caches = quarters(0, 300)


@pytest.mark.parametrize(
    ("grace", "stop", "cache", "budget", "proof", "settle", "cap", "fits", "covers"),
    [
        # Kubernetes' default, assumed stop: fits, shrunk
        (30, None, 35, 17, 4, 13, 40, True, False),
        # the same fleet following pushes: proof gets what SETTLE does not need
        (30, None, 0, 17, 12, 5, 5, True, False),
        # docker's default: an assumed stop gives way
        (10, None, 35, 4, 4, 0, 40, False, False),
        (10, None, 0, 4, 4, 0, 5, False, False),
        (15, None, 35, 9, 4, 5, 40, False, False),
        # a declared stop does not give way
        (10, 10, 35, -3, 0, 0, 40, False, False),
        (15, 10, 35, 2, 2, 0, 40, False, False),
        (18, 10, 35, 5, 4, 1, 40, False, False),
        # the edge of fitting
        (20, None, 35, 7, 4, 3, 40, True, False),
        (19.75, None, 35, 13.75, 4, 9.75, 40, False, False),
        # what covers Spring's cache, and what the documentation's examples use
        (53, None, 35, 40, 4, 36, 40, True, True),
        (52, None, 35, 39, 4, 35, 40, True, False),
        (55, None, 35, 42, 4, 38, 40, True, True),
        (55, None, 0, 42, 25, 5, 5, True, False),
        (120, None, 35, 107, 25, 40, 40, True, True),
        (120, None, 0, 107, 25, 5, 5, True, False),
        (120, 60, 35, 57, 17, 40, 40, True, True),
    ],
)
def test_worked_examples(
    grace: float,
    stop: float | None,
    cache: float,
    budget: float,
    proof: float,
    settle: float,
    cap: float,
    fits: bool,
    covers: bool,
) -> None:
    plan = fit(grace, stop, cache)
    assert (plan.budget, plan.proof, plan.settle, plan.cap) == (budget, proof, settle, cap)
    assert (plan.fits, plan.covers_spring_cache) == (fits, covers)


def test_the_json_of_kubernetes_default_says_what_it_does_not_cover() -> None:
    assert fit(30, None, 35).as_json() == {
        "grace_period": 30,
        "app_stop": 10,
        "margin": 3,
        "consumer_cache": 35,
        "budget": 17,
        "proof": 4,
        "settle": 13,
        "cap": 40,
        "fits": True,
        "covers_35s_cache": False,
        "grace_needed": 53,
    }


def test_the_grace_that_is_needed_counts_the_stop_that_was_assumed_and_not_the_hurried_one() -> None:
    assert fit(15, None, 35).app_stop == 3
    assert fit(15, None, 35).grace_needed == 53


def test_the_grace_that_is_needed_is_whole_seconds_because_kubernetes_takes_no_others() -> None:
    assert fit(30, 2.5, 35).grace_needed == 46


@given(graces, stops, caches)
def test_proof_and_settle_never_reach_past_the_moment_at_which_the_app_needs_its_stop(
    grace: float, stop: float | None, cache: float
) -> None:
    plan = fit(grace, stop, cache)
    assert plan.budget == grace - plan.app_stop - MARGIN
    assert plan.proof + plan.settle <= max(0.0, plan.budget)
    assert plan.proof >= 0
    assert 0 <= plan.settle <= plan.cap == cache + 5
    lease = Lease("id", Trigger.HOOK, 100.0, plan, (), None)
    assert lease.deadline == 100.0 + max(0.0, plan.budget)


@given(graces, stops, caches)
def test_it_fits_exactly_when_seven_seconds_are_left(grace: float, stop: float | None, cache: float) -> None:
    plan = fit(grace, stop, cache)
    wanted = 10.0 if stop is None else stop
    assert plan.fits == (grace - wanted - MARGIN >= SHORTEST_BUDGET)
    assert fit(grace + plan.shortfall, stop, cache).fits
    if plan.fits:
        assert plan.app_stop == wanted
        assert PROOF_LEAST <= plan.proof <= PROOF_MOST
        assert plan.settle >= min(plan.cap, SHORTEST_BUDGET - PROOF_LEAST)
    else:
        assert plan.app_stop == (3.0 if stop is None else stop)
        assert plan.proof <= PROOF_LEAST


@given(graces, stops, caches)
def test_what_settle_does_not_need_goes_to_the_proof_but_never_the_other_way_round(
    grace: float, stop: float | None, cache: float
) -> None:
    plan = fit(grace, stop, cache)
    if plan.fits and plan.proof > PROOF_LEAST:
        assert plan.settle == plan.cap


@given(graces, stops, caches)
def test_the_grace_that_is_said_to_be_needed_covers_and_a_second_less_does_not(
    grace: float, stop: float | None, cache: float
) -> None:
    plan = fit(grace, stop, cache)
    if plan.grace_needed is None:
        assert not fit(inf, stop, cache).covers_spring_cache
    else:
        assert fit(plan.grace_needed, stop, cache).covers_spring_cache
        assert not fit(plan.grace_needed - 1, stop, cache).covers_spring_cache


@given(graces, stops, caches, quarters(0, 100))
def test_a_longer_grace_never_gives_settle_less_once_it_fits(
    grace: float, stop: float | None, cache: float, more: float
) -> None:
    plan = fit(grace, stop, cache)
    if plan.fits:
        assert fit(grace + more, stop, cache).settle >= plan.settle
