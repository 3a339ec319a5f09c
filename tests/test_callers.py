"""Whole drains on a virtual clock beside callers that can be seen: when they are believed to have stopped."""

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from sim import Caller, SimTraffic, World, hook, rules, world

from sidecar.lease import Trigger
from sidecar.settle import Rule
from sidecar.wire import Watched


pytestmark = pytest.mark.looptime

CLEAN = 0.76  # as in test_scenarios
SOON = Rule(look_back=20.0)  # a world is 100 s old when its drain begins
EMPTY = Rule(look_back=5.0)  # and knows by then that nobody calls
GATEWAY, BATCH = "10.0.1.1", "10.0.1.2"


def settle(w: World) -> tuple[Any, Any]:
    """How SETTLE ended, and why."""
    rows = w.report()["phases"]
    assert isinstance(rows, list)
    return next((row["outcome"], row["detail"]) for row in rows if row["phase"] == "SETTLE")


async def test_nobody_ever_called_so_the_floor_is_enough() -> None:
    async with world(rules(quiet=EMPTY), traffic=SimTraffic()) as w:
        assert await hook(w) == CLEAN + 3
        assert settle(w) == ("met", "floor: nobody is known to call")
        assert w.report()["traffic_source"] == "netlink"


async def test_a_busy_caller_that_follows_the_push_costs_the_floor_and_a_sample() -> None:
    caller = Caller(GATEWAY, 0.05)
    async with world(rules(quiet=SOON), traffic=SimTraffic(caller)) as w:
        caller.end = asyncio.get_running_loop().time() + CLEAN
        assert CLEAN + 3 <= await hook(w) <= CLEAN + 3.5
        assert "no call after the list was clean, and 10.0.1.1 has been silent for the 3.0 s" in settle(w)[1]


async def test_a_caller_with_a_cache_is_waited_for() -> None:
    caller = Caller(GATEWAY, 0.05)
    async with world(rules(quiet=SOON), traffic=SimTraffic(caller)) as w:
        caller.end = asyncio.get_running_loop().time() + 20
        assert 23 < await hook(w) <= 23.5
        assert (
            "the last call came 19.2 s after the list was clean, and 10.0.1.1 has been silent for the 3.0 s"
            in settle(w)[1]
        )


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "a connection per request"])
async def test_a_slow_caller_is_waited_for_three_of_its_gaps(kept: bool) -> None:
    caller = Caller(GATEWAY, 4.0, kept=kept)
    async with world(rules(quiet=SOON), traffic=SimTraffic(caller)) as w:
        now = asyncio.get_running_loop().time()
        caller.end = now + 10
        last = caller.sent_at(caller.requests(now + 10) - 1) - now
        assert last + 12 < await hook(w) <= last + 12.6


async def test_of_two_callers_the_slower_one_decides() -> None:
    busy, rare = Caller(GATEWAY, 0.1), Caller(BATCH, 5.0)
    async with world(rules(quiet=SOON), traffic=SimTraffic(busy, rare)) as w:
        now = asyncio.get_running_loop().time()
        busy.end = rare.end = now
        last = rare.sent_at(rare.requests(now) - 1) - now
        assert last + 15 < await hook(w) <= last + 15.6


async def test_a_caller_that_goes_on_is_named_at_the_cap() -> None:
    async with world(rules(quiet=SOON), traffic=SimTraffic(Caller(GATEWAY, 0.5))) as w:
        assert await hook(w) == CLEAN + 40
        assert settle(w) == ("expired", "waited for the cap: calling: 10.0.1.1")
        assert w.report()["outcome"] == "capped"
        rows: Any = w.report()["callers"]
        (row,) = rows
        assert (row["peer"], row["connections"]) == (GATEWAY, 1)


async def test_a_request_that_is_being_answered_holds() -> None:
    caller = Caller(GATEWAY, 2.0, lasts=30.0)
    async with world(rules(quiet=SOON), traffic=SimTraffic(caller)) as w:
        caller.end = asyncio.get_running_loop().time() + 1
        answer = caller.sent_at(caller.requests(caller.end) - 1) + 30 - w.zero
        assert answer + 6 < await hook(w) <= answer + 6.6


async def test_a_sidecar_that_has_not_watched_for_long_enough_waits_for_the_cap() -> None:
    async with world(traffic=SimTraffic()) as w:
        assert await hook(w) == CLEAN + 40
        assert "has not watched for long enough" in settle(w)[1]
        assert w.report()["outcome"] == "drained"


@pytest.mark.parametrize(
    ("ago", "took", "told"),
    [
        (5, 40, ("expired", "waited for the cap: connections accepted but not seen (on any port): 3")),
        (25, 3, ("met", "floor: nobody is known to call")),
    ],
)
async def test_an_accepted_connection_that_nobody_saw_means_the_cap_for_a_look_back(
    ago: int, took: int, told: tuple[str, str]
) -> None:
    traffic = SimTraffic()
    async with world(rules(quiet=EMPTY), traffic=traffic) as w:
        traffic.hidden = 3
        await asyncio.sleep(ago)
        w.mark_zero()
        assert await hook(w) == CLEAN + took
        assert settle(w) == told


async def test_a_reading_that_fails_in_the_middle_of_settle_means_the_cap() -> None:
    traffic = SimTraffic()
    async with world(rules(quiet=SOON), traffic=traffic) as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(2)
        traffic.fails = True
        await w.at(2.6)
        traffic.fails = False
        assert await hook(w) == CLEAN + 40
        assert settle(w) == ("expired", "waited for the cap: the kernel does not answer")


async def test_a_sample_a_second_while_idle_and_two_in_a_drain() -> None:
    traffic = SimTraffic(Caller(GATEWAY, 0.5))
    async with world(rules(quiet=SOON), traffic=traffic) as w:
        idle = [b - a for a, b in pairwise(traffic.read_at)]
        assert {round(gap, 3) for gap in idle} == {1.0}
        traffic.read_at.clear()
        await hook(w)
        gaps = [round(b - a, 3) for a, b in pairwise(traffic.read_at)]
        assert max(gaps) == 0.5


async def test_who_is_ignored_does_not_hold() -> None:
    watched = Watched(ignored=(ip_network("10.0.1.0/24"),))
    async with world(rules(quiet=EMPTY, watched=watched), traffic=SimTraffic(Caller(GATEWAY, 0.5))) as w:
        assert await hook(w) == CLEAN + 3


async def test_a_second_drain_after_a_resume_has_learned_on() -> None:
    caller = Caller(GATEWAY, 0.05)
    async with world(rules(quiet=SOON), traffic=SimTraffic(caller)) as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(2)
        assert w.runner.resume() is None
        await w.at(30)
        caller.end = asyncio.get_running_loop().time() + CLEAN
        w.mark_zero()
        assert await hook(w) <= CLEAN + 3.5


async def test_the_trigger_brings_the_next_sample_forward() -> None:
    traffic = SimTraffic(Caller(GATEWAY, 0.5))
    async with world(rules(quiet=SOON), traffic=traffic) as w:
        await asyncio.sleep(traffic.read_at[-1] + 1.2 - asyncio.get_running_loop().time())
        before = traffic.read_at[-1]
        w.runner.trigger(Trigger.HOOK)
        await asyncio.sleep(2)
        assert next(at for at in traffic.read_at if at > before) - before == pytest.approx(0.7)


async def test_callers_of_other_ports_are_forgotten_when_the_app_has_told_its_own() -> None:
    """Until then every port is watched, and whoever scrapes another one would hold the drain for an hour."""
    async with world(rules(quiet=SOON), traffic=SimTraffic(Caller("127.0.0.1", 1.0, end=50))) as w:
        assert w.runner.drain.settle.peers
        w.runner.drain = replace(w.runner.drain, sampled_ports=frozenset())
        await asyncio.sleep(2)
        assert not w.runner.drain.settle.peers
        assert w.runner.drain.settle.since > 90


async def test_what_the_node_asked_at_other_ports_is_forgotten_too() -> None:
    """A startup probe of the management port, say, that ends with its first success: that looks like calls."""
    startup = Caller("10.0.0.1", 7.3, end=50, kept=False)
    node = Watched(nodes=frozenset({"10.0.0.1"}))
    async with world(rules(quiet=EMPTY, watched=node), traffic=SimTraffic(startup)) as w:
        w.runner.drain = replace(w.runner.drain, sampled_ports=frozenset())
        await asyncio.sleep(100)
        w.mark_zero()
        took = await hook(w)
        assert settle(w) == ("met", "floor: nobody is known to call")
        assert took == CLEAN + 3
