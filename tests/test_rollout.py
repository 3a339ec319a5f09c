"""The rollout benchmark's judgement: what counts as a failure, as a fair repetition, and as our bar."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubelet import Timeline

from bench.rollout.__main__ import SERVERS
from bench.rollout.cells import CELLS, STANDARD
from bench.rollout.load import Request
from bench.rollout.outcome import faults, hook_limit, outcome
from bench.rollout.page import NAMED, PARTS, filled, forgotten, page
from bench.rollout.results import Key, Results
from bench.rollout.roll import Roll, Termination
from bench.rollout.ways import WAYS


OLD, NEW = "127.0.2.11:20001", "127.0.2.12:20002"
BEGAN = 1000.0
DRAINED = {
    "outcome": "drained",
    "proved_gone": True,
    "notes": [],
    "phases": [],
    "callers": [{"peer": "127.0.1.31", "rhythm_s": 0.5}],
}
FOLDER = Path(__file__).parents[1] / "bench/results"


def request(sent: float, *, to: str = NEW, failure: str = "", late: float = 0.0, took: float = 0.004) -> Request:
    """One request, by its seconds from the termination."""
    at = BEGAN + sent
    return Request("no cache", at - late, at, at + took, to, slow=False, failure=failure)


def roll(requests: Sequence[Request], *, way: str = "starter", cell: str = "push", hook: float = 4.0) -> Roll:
    """A replacement whose hook took some seconds."""
    timeline = Timeline()
    timeline.begin()
    timeline.record("app", "hook-start")
    timeline._events[-1] = timeline._events[-1]._replace(seconds=timeline._t0)
    for seconds, name, detail in ((hook, "hook-end", "200"), (hook, "sigterm", ""), (hook + 0.4, "exit", "143")):
        timeline.record("app", name, detail)
        timeline._events[-1] = timeline._events[-1]._replace(seconds=timeline._t0 + seconds)
    end = Termination(OLD, BEGAN, BEGAN + 0.7, timeline, dict(DRAINED) if WAYS[way].ours else None, hook)
    return Roll(WAYS[way], CELLS[cell], end, list(requests), BEGAN + 30.0, 1.0)


GOOD = [request(n / 10) for n in range(-50, 80)]
SPOILT = [request(n / 10, late=0.3) for n in range(40)]


async def test_failures_count_from_half_a_second_before_the_termination() -> None:
    told = outcome(roll([*GOOD, request(-0.4, failure="status 500"), request(3.0, failure="status 500")]))
    assert (told["failed"], told["kinds"], told["invalid"]) == (2, {"status 500": 2}, "")
    assert faults(told) == [f"2 of {told['requests']} requests failed"]


async def test_a_good_repetition_has_no_fault_and_is_told_to_the_second() -> None:
    told = outcome(roll([*GOOD, request(0.6, to=OLD)]))
    assert faults(told) == []
    assert (round(told["hook"], 3), round(told["sigterm"], 3), told["exit_code"]) == (4.0, 4.0, "143")
    assert round(told["clean"], 3) == 0.7
    assert round(told["consumers"]["no cache"]["last_call"], 3) == 0.6
    assert sum(told["timeline"]["old"]) == 1


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ([request(n / 10, late=0.3) for n in range(40)], "the load was late"),
        ([request(n / 10, took=0.2) for n in range(200)], "overloaded"),
    ],
)
async def test_an_overloaded_repetition_is_invalid(spoilt: list[Request], why: str) -> None:
    assert why in outcome(roll([*GOOD, *spoilt]))["invalid"]


@pytest.mark.parametrize("failure", ["status 500", "no answer in time"])
async def test_no_failure_makes_a_repetition_invalid(failure: str) -> None:
    told = outcome(roll([*GOOD, request(-2.0, failure=failure), request(2.0, failure=failure)]))
    assert (told["failed"], told["failed_before"], told["invalid"]) == (1, 1, "")
    assert faults(told)[1] == "1 requests failed before the termination"


async def test_the_last_call_is_the_last_that_was_sent_whichever_was_answered_first() -> None:
    told = outcome(roll([*GOOD, request(2.0, to=OLD), request(1.8, to=OLD, took=0.3)]))
    assert round(told["consumers"]["no cache"]["last_call"], 3) == 2.0


async def test_slow_requests_are_no_sign_of_an_overloaded_machine() -> None:
    slow = [replace(request(n / 10, took=0.304), slow=True) for n in range(200)]
    assert outcome(roll([*GOOD, *slow]))["invalid"] == ""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hook": 8.1}, "the hook took 8.1 s, at most 8.0 s"),
        ({"hook": None}, "the hook took for ever, at most 8.0 s"),
        ({"killed": True}, "killed"),
        ({"drain": {**DRAINED, "proved_gone": False}}, "not proved gone"),
        ({"drain": None}, "not proved gone"),
    ],
)
async def test_our_own_ways_have_a_bar(change: dict[str, Any], fault: str) -> None:
    assert fault in faults(outcome(roll(GOOD)) | change)


async def test_where_sigterm_alone_fails_nothing_the_load_shows_nothing() -> None:
    harmless = "nothing failed: this load would not show an error"
    assert faults(outcome(roll(GOOD, way="sigterm"))) == [harmless]
    assert faults(outcome(roll([*GOOD, request(0.2, failure="status 500")], way="sigterm"))) == []
    assert faults(outcome(roll(GOOD, way="folk"))) == []


async def test_with_cached_consumers_the_hook_may_take_until_their_last_call_and_what_their_rhythm_wants() -> None:
    told = outcome(roll(GOOD, cell="cached"))
    assert hook_limit(told | {"consumers": {"cached": {"last_call": 20.0}}}) == 20.0 + 3.0 + 2.0
    slow = {**DRAINED, "callers": [{"rhythm_s": 2.0}, {"rhythm_s": None}]}
    assert hook_limit(told | {"consumers": {"cached": {"last_call": 20.0}}, "drain": slow}) == 20.0 + 6.0 + 2.0
    assert hook_limit(told | {"consumers": {"cached": {"last_call": 39.0}}, "drain": slow}) == 45.0
    assert hook_limit(told | {"cell": "slow"}) == 45.0


async def test_what_was_played_is_not_played_again_and_invalid_ones_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    key = Key("2.2.4", "2023.0.1", "starter", "push")
    results = Results(file)
    results.add(key, outcome(roll(GOOD)))
    results.add(key, outcome(roll(SPOILT)))
    again = Results(file)
    assert len(list(again)) == 2
    assert len(again.valid(key)) == 1
    assert again.valid(key._replace(way="openapi")) == []


async def test_the_page_shows_every_valid_repetition_and_tells_how_many_were_thrown_away(tmp_path: Path) -> None:
    results = Results(tmp_path / "lines.jsonl")
    key = Key("2.2.4", "2023.0.1", "starter", "push")
    for requests in (GOOD, [*GOOD, request(1.0, failure="status 500")], SPOILT):
        results.add(key, outcome(roll(requests)))
    told = page(results)
    assert "| 0 / 1 | 4.0 / 4.0 |" in told
    assert "overloaded: 1." in told


def test_the_published_pages_are_what_the_published_lines_say() -> None:
    results = Results(FOLDER / "rollout.jsonl")
    assert (FOLDER / "rollout.md").read_text() == page(results)
    for path, parts in PARTS.items():
        assert path.read_text() == filled(path.read_text(), parts, results)
        assert all(f"<!-- {name}:end -->" in path.read_text() for name in parts)


def published() -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (FOLDER / "rollout.jsonl").read_text().splitlines()]
    return [line for line in lines if not line["invalid"]]


def test_no_published_repetition_misses_the_bar() -> None:
    assert [(line["nacos"], line["way"], line["cell"], found) for line in published() if (found := faults(line))] == []


@pytest.mark.parametrize("nacos", SERVERS)
@pytest.mark.parametrize("cell", STANDARD)
def test_every_way_was_played_in_every_cell_and_ours_three_times(nacos: str, cell: str) -> None:
    played = Counter(line["way"] for line in published() if (line["nacos"], line["cell"]) == (nacos, cell))
    assert not {name for name, way in WAYS.items() if played[name] < (3 if way.ours else 1)}


def test_the_rest_of_what_the_pages_tell_was_played() -> None:
    assert any(line["cell"] == "defaults" and line["look_back"] is None for line in published())
    assert any((line["nacos"], line["way"]) == ("3.1.0", "folk") and line["failed"] for line in published())
    assert forgotten(Results(FOLDER / "rollout.jsonl")).count("\n") == 1 + len(NAMED)
