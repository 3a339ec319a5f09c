"""The report: the shape that contracts.md promises, one golden drain, and the sentences that must not be untrue."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from pocket import Pocket, rules

from sidecar.evidence import Node
from sidecar.lease import Lease, Outcome, Release, State, Trigger, Why
from sidecar.plan import fit
from sidecar.registration import OPENAPI, Instance, Record, Service
from sidecar.removal import Removal
from sidecar.report import Ending, Phase, phases, report, shrunk
from sidecar.settle import Call, Caller, Clause, Rule, Settle, Verdict, Waited


CALLER = Caller("10.0.0.1", 1, 0.5, 2.0)
KEYS = [
    *("schema", "id", "final", "trigger", "state", "outcome", "proved_gone", "started_at", "released_at", "ended_at"),
    *("plan", "phases", "instances", "callers", "traffic_source", "notes", "omitted"),
]
INSTANCE_KEYS = [
    *("service", "group", "namespace", "cluster", "ip", "port", "road", "undoable", "residue", "remaining", "nodes"),
]


def wall(moment: float) -> str:
    """The loop's 1010th second was noon."""
    return f"12:00:{moment - 1010:06.3f}"


def told(lease: Lease, *, now: float = 1100.0, settle: Settle | None = None) -> dict[str, object]:
    """The report as a program reads it."""
    seen = settle if settle is not None else Settle(0.0)
    answer = json.loads(json.dumps(report(lease, seen, Release.HOOK, now, wall)))
    assert isinstance(answer, dict)
    return answer


def story(*, until: float = 60.0) -> Pocket:
    """A plain drain: hook, proof, cap, exit, cleanup."""
    w = Pocket(rules(grace=30, cache=0))
    w.sleep(10)
    w.trigger()
    w.sleep_until(State.RELEASED, within=30)
    w.sleep(1)
    w.exit()
    w.unregister()
    w.sleep(until)
    return w


def lease(*removals: Removal, **changes: Any) -> Lease:
    """A drain in progress."""
    plain = Lease("id", Trigger.HOOK, 1010.0, fit(30, None, 35), removals, None, hook_at=1010.0)
    return replace(plain, **changes)


def removal(port: int = 8080, nodes: Iterable[Node] = (Node("a"),), **changes: Any) -> Removal:
    """One instance as it stands in the middle of a drain."""
    instance = Instance(Service("shop"), "10.0.0.7", port)
    known = Removal(instance, tuple(nodes), record=Record(instance), seen=True)
    return replace(known, **changes)


def phase(told_: dict[str, object], name: str) -> dict[str, object]:
    """One phase of a report."""
    rows = told_["phases"]
    assert isinstance(rows, list)
    [row] = [p for p in rows if p["phase"] == name]
    assert isinstance(row, dict)
    return row


def rows(told_: dict[str, object], name: str) -> list[dict[str, object]]:
    """One of the lists of a report."""
    found = told_[name]
    assert isinstance(found, list)
    return found


def notes(told_: dict[str, object]) -> list[str]:
    """The notes of a report."""
    found = told_["notes"]
    assert isinstance(found, list)
    return found


# --- the golden drain


def test_the_whole_report_of_a_plain_drain() -> None:
    w = story()
    assert told(w.lease, now=w.now) == {
        "schema": 1,
        "id": "d1",
        "final": True,
        "trigger": "hook",
        "state": "ended",
        "outcome": "drained",
        "proved_gone": True,
        "started_at": "12:00:00.000",
        "released_at": "12:00:05.250",
        "ended_at": "12:00:06.250",
        "plan": fit(30, None, 0).as_json(),
        "phases": [
            {"phase": "DEREGISTER", "outcome": "met", "seconds": 0, "detail": "acknowledged by the road openapi"},
            {"phase": "VERIFY", "outcome": "met", "seconds": 0.5, "detail": "gone on 2 nodes"},
            {
                "phase": "SETTLE",
                "outcome": "expired",
                "seconds": 5.0,
                "detail": "waited for the cap: callers cannot be observed (blind)",
            },
            {"phase": "RELEASE", "outcome": "met", "seconds": 0.0, "detail": "hook answered: settled"},
            {"phase": "AWAIT_EXIT", "outcome": "met", "seconds": 1.0, "detail": "the app has exited"},
            {"phase": "CLEANUP", "outcome": "met", "seconds": 0.0, "detail": "cleaned"},
        ],
        "instances": [
            {
                "service": "shop",
                "group": "DEFAULT_GROUP",
                "namespace": "public",
                "cluster": "DEFAULT",
                "ip": "10.0.0.7",
                "port": 8080,
                "road": "openapi",
                "undoable": True,
                "residue": "cleaned",
                "remaining": 0,
                "nodes": [
                    {"node": "a", "view": "gone", "at": "12:00:04.500"},
                    {"node": "b", "view": "gone", "at": "12:00:04.500"},
                ],
            }
        ],
        "callers": [],
        "traffic_source": "blind",
        "notes": [],
        "omitted": {},
    }


def test_the_keys_are_those_of_the_contract_at_every_moment() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.trigger()
    for _ in range(20):
        now = told(w.lease, now=w.now)
        assert list(now) == KEYS
        assert [list(row) for row in rows(now, "instances")] == [INSTANCE_KEYS]
        w.sleep(0.5)


def test_the_state_goes_from_draining_over_released_to_ended() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.trigger()
    assert (told(w.lease)["state"], told(w.lease)["final"], told(w.lease)["released_at"]) == ("draining", False, None)
    w.sleep_until(State.RELEASED, within=30)
    assert (told(w.lease)["state"], told(w.lease)["final"], told(w.lease)["ended_at"]) == ("released", False, None)
    w.sleep(60)
    assert (told(w.lease)["state"], told(w.lease)["final"]) == ("ended", True)
    assert phase(told(w.lease), "AWAIT_EXIT")["detail"] == "the app was not seen to exit"


# --- what it must not say


def test_an_instance_that_was_never_seen_is_not_called_gone() -> None:
    absent = removal(nodes=[Node("a", present=False, at=1011.0, streak=9)], record=None, seen=False, decided=True)
    answer = told(lease(absent, dealt_at=1010.1), now=1015.0)
    assert (answer["outcome"], answer["proved_gone"]) == ("nothing_registered", False)
    assert rows(rows(answer, "instances")[0], "nodes")[0]["view"] == "never_seen"
    assert phase(answer, "DEREGISTER")["detail"] == "no node has the instance: nothing was written"
    assert phase(answer, "VERIFY")["detail"] == "nothing is registered"


def test_what_stands_between_us_and_the_proof_is_named() -> None:
    nodes = [
        Node("lists", present=True, at=1012.0),
        Node("hangs", error="hangs: no answer within 2 s", failed=True),
        Node("gone", present=False, at=1012.0, streak=4),
        Node("out", refused=True, down=True),
        Node("found", required=False),
    ]
    answer = told(lease(removal(nodes=nodes, acked_at=1010.0), dealt_at=1010.0), now=1020.0)
    assert (answer["outcome"], answer["proved_gone"]) == ("unproven", False)
    assert phase(answer, "VERIFY")["outcome"] == "expired"
    assert phase(answer, "VERIFY")["detail"] == "down out; still listed by lists; no answer from hangs"
    assert rows(answer, "instances")[0]["remaining"] == 1
    assert [n["node"] for n in rows(rows(answer, "instances")[0], "nodes")][-1] == "gone", "worst first"
    assert "hangs: no answer within 2 s" in notes(answer)
    assert "out is down by the word of another node: left out" in notes(answer)


def test_clean_but_not_often_enough_is_no_proof() -> None:
    once = removal(nodes=[Node("a", present=False, streak=1)], acked_at=1010.0)
    answer = told(lease(once, dealt_at=1010.0), now=1020.0)
    assert phase(answer, "VERIFY")["detail"] == "not clean often enough yet"


@pytest.mark.parametrize(
    ("changes", "ending", "detail"),
    [
        ({"spared": True}, Ending.SKIPPED, "disabled by somebody else already"),
        ({"acked_at": 1010.0, "taken": OPENAPI}, Ending.MET, "acknowledged by the road openapi"),
    ],
)
def test_a_deregistration_that_is_dealt_with(changes: dict[str, Any], ending: Ending, detail: str) -> None:
    [first, *_] = phases(lease(removal(**changes), dealt_at=1010.5), Release.HOOK, 1010.5)
    assert (first.phase, first.outcome, first.detail, first.seconds) == (Phase.DEREGISTER, ending, detail, 0.5)


@pytest.mark.parametrize(
    ("changes", "ending", "detail"),
    [
        ({}, Ending.EXPIRED, "no answer to the write yet; it is tried on"),
        ({"error": "a: code 500"}, Ending.EXPIRED, "a: code 500"),
        ({"error": "a: not allowed", "rejected": True}, Ending.FAILED, "a: not allowed"),
    ],
)
def test_a_deregistration_without_an_answer(changes: dict[str, Any], ending: Ending, detail: str) -> None:
    begun = lease(removal(**changes))
    assert phases(begun, Release.HOOK, 1013.9) == (), "not over yet"
    first = phases(begun, Release.HOOK, 1014.0)[0]
    assert (first.outcome, first.detail, first.seconds) == (ending, detail, 4.0)


# --- SETTLE


def let_go(why: Why, verdict: Verdict | None = None) -> Lease:
    """A drain that has let the app go at 1020, SETTLE's clock at 1011."""
    gone = removal(nodes=[Node("a", present=False, streak=2)], acked_at=1010.0, clean_at=1011.0, proved_at=1011.2)
    return lease(
        gone,
        dealt_at=1010.0,
        proved_at=1011.2,
        released_at=1020.0,
        proved_at_release=True,
        settled_from=1011.0,
        why=why,
        verdict=verdict,
    )


@pytest.mark.parametrize(
    ("why", "verdict", "ending", "detail"),
    [
        (
            Why.SETTLED,
            Verdict(True, Clause.QUIET, last=Waited("10.0.0.1", 1014.25, 5.5)),
            "met",
            (
                "quiet: the last call came 3.2 s after the list was clean, "
                "and 10.0.0.1 has been silent for the 5.5 s that it owed"
            ),
        ),
        (
            Why.SETTLED,
            Verdict(True, Clause.QUIET, last=Waited("10.0.0.1", 1010.0, 7.25)),
            "met",
            "quiet: no call after the list was clean, and 10.0.0.1 has been silent for the 7.2 s that it owed",
        ),
        (Why.SETTLED, Verdict(True, Clause.FLOOR), "met", "floor: nobody is known to call"),
        (
            Why.SETTLED,
            Verdict(True, Clause.CAP, barred=Clause.BLIND),
            "expired",
            "waited for the cap: callers cannot be observed (blind)",
        ),
        (
            Why.SETTLED,
            Verdict(True, Clause.CAP, barred=Clause.RHYTHM),
            "expired",
            "waited for the cap: a caller whose rhythm is not known",
        ),
        (
            Why.DEADLINE,
            Verdict(True, Clause.CAP, (CALLER, CALLER._replace(peer="10.0.0.2")), Clause.YOUNG),
            "expired",
            (
                "the hook's deadline came first: calling: 10.0.0.1, 10.0.0.2; this sidecar has not watched for long "
                "enough to know its callers"
            ),
        ),
        (
            Why.SETTLED,
            Verdict(
                True,
                Clause.CAP,
                barred=Clause.BLIND,
                why="connections accepted but not seen (on any port): 3",
            ),
            "expired",
            "waited for the cap: connections accepted but not seen (on any port): 3",
        ),
        (Why.DEADLINE, Verdict(True, Clause.CAP), "expired", "the hook's deadline came first"),
        (Why.DEADLINE, None, "expired", "the hook's deadline came first"),
        (Why.VANISHED, Verdict(True, Clause.CAP), "skipped", "the app is gone"),
        (Why.HUNG, None, "skipped", "the app is hung"),
        (Why.UNHEALTHY, None, "skipped", "Nacos lists the app as unhealthy"),
        (Why.ASKED, None, "skipped", "release asked for"),
    ],
)
def test_how_settle_ended(why: Why, verdict: Verdict | None, ending: str, detail: str) -> None:
    settle = phase(told(let_go(why, verdict)), "SETTLE")
    assert (settle["outcome"], settle["detail"], settle["seconds"]) == (ending, detail, 9.0)


def test_every_bar_has_its_sentence() -> None:
    for clause in (Clause.YOUNG, Clause.IN_FLIGHT, Clause.DOUBT):
        detail = phase(told(let_go(Why.SETTLED, Verdict(True, Clause.CAP, barred=clause))), "SETTLE")["detail"]
        assert clause.value not in str(detail)


def test_capped_is_said_only_when_somebody_was_calling() -> None:
    calling = Verdict(True, Clause.CAP, (CALLER,))
    assert told(let_go(Why.SETTLED, calling))["outcome"] == "capped"
    assert told(let_go(Why.DEADLINE, calling))["outcome"] == "capped"
    assert told(let_go(Why.ASKED, calling))["outcome"] == "drained"
    assert told(let_go(Why.SETTLED, Verdict(True, Clause.CAP, barred=Clause.BLIND)))["outcome"] == "drained"


def test_the_callers_are_told_with_their_rhythm_where_it_is_known() -> None:
    settle = Settle(1000.0, Rule(look_back=3.0), "netlink")
    for moment in (1001.0, 1002.0, 1003.0):
        settle = settle.observe([Call("10.0.0.1", moment, connections=3)], moment)
    settle = settle.freeze(1003.5).observe([Call("10.0.0.2", 1019.0), Call("10.0.0.1", 1019.5, connections=3)], 1020.0)
    shown = [
        {"peer": "10.0.0.1", "connections": 3, "last_seen_s": 0.5, "rhythm_s": 1.0},
        {"peer": "10.0.0.2", "connections": 1, "last_seen_s": 1.0, "rhythm_s": None},
    ]
    at_the_cap = let_go(Why.SETTLED, settle.verdict(1004.0, 1020.0, 1020.0))
    assert rows(told(at_the_cap, now=1090.0), "callers") == shown, "as it was when the app was let go"
    under_way = replace(let_go(Why.SETTLED), verdict=None, released_at=None)
    assert rows(told(under_way, now=1020.0, settle=settle), "callers") == shown


# --- RELEASE and what follows


@pytest.mark.parametrize(
    ("changes", "ending", "detail"),
    [
        ({"signalled_at": 1020.25}, Ending.MET, "SIGTERM sent to the app"),
        ({"signal_error": "not allowed"}, Ending.FAILED, "not allowed"),
        ({"exited_at": 1020.0}, Ending.SKIPPED, "no signal was needed"),
        ({"final_at": 1040.0}, Ending.SKIPPED, "no signal was needed"),
    ],
)
def test_how_the_release_by_signal_ended(changes: dict[str, Any], ending: Ending, detail: str) -> None:
    done = replace(let_go(Why.SETTLED), **changes)
    row = phases(done, Release.SIGNAL, 1050.0)[3]
    assert (row.phase, row.outcome, row.detail) == (Phase.RELEASE, ending, detail)


def test_a_signal_that_is_not_sent_yet_is_not_told() -> None:
    assert [p.phase for p in phases(let_go(Why.SETTLED), Release.SIGNAL, 1020.0)][-1] is Phase.SETTLE


def test_a_cleanup_that_was_not_finished_says_that_the_rest_expires() -> None:
    done = replace(let_go(Why.SETTLED), exited_at=1021.0, final_at=1040.0)
    row = phases(done, Release.HOOK, 1050.0)[-1]
    assert (row.phase, row.outcome, row.seconds) == (Phase.CLEANUP, Ending.EXPIRED, 19.0)
    assert [p.phase for p in phases(replace(done, final_at=None), Release.HOOK, 1050.0)][-1] is Phase.AWAIT_EXIT


def test_behind_one_address_the_proof_says_how_little_it_covers() -> None:
    gone = removal(nodes=[Node("vip", present=False, streak=4)], acked_at=1010.0, proved_at=1011.0, one_address=True)
    answer = told(lease(gone, dealt_at=1010.0, proved_at=1011.0))
    assert phase(answer, "VERIFY")["detail"] == "gone on >= 1 node of ?"
    assert "one Nacos address and no member list: the proof covers >= 1 node of ?" in notes(answer)


# --- notes and limits


def test_what_a_person_should_know_besides_is_noted() -> None:
    odd = removal(spared=True, returns=2, error="a: code 500")
    tight = lease(odd, plan=fit(12, None, 35), sigterm_at=1010.0, hook_at=None, signal_error="not allowed")
    said = " | ".join(notes(told(tight)))
    for part in (
        "8 s too short for a drain; raise terminationGracePeriodSeconds and NACOS_DRAIN_GRACE_PERIOD",
        "disabled by somebody else before the drain; nothing was written",
        "shop 10.0.0.7:8080: listed again 2 time(s) after it was gone",
        "a: code 500",
        "no preStop hook reached this sidecar",
        "the app was not told to stop: not allowed",
    ):
        assert part in said


def test_a_residue_is_told_until_it_is_cleaned() -> None:
    assert rows(told(lease(removal(marked_at=1010.0))), "instances")[0]["residue"] == "enabled=false, marked as ours"
    assert rows(told(lease(removal())), "instances")[0]["residue"] == "none"


def test_each_list_holds_ten_the_worst_first_and_says_how_many_are_missing() -> None:
    nodes = [Node(f"n{n:02}", present=False, streak=2) for n in range(11)] + [Node("bad", error="bad: no answer")]
    proved = [removal(port, nodes, proved_at=1011.0, error=f"e{port}") for port in range(8000, 8012)]
    peers = tuple(CALLER._replace(peer=f"10.0.1.{n}") for n in range(13))
    many = replace(let_go(Why.SETTLED, Verdict(True, Clause.CAP, peers)), removals=(*proved, removal(9000)))
    answer = told(many)
    assert [len(rows(answer, name)) for name in ("instances", "callers", "notes")] == [10, 10, 10]
    assert rows(answer, "instances")[0]["port"] == 9000, "the one that is not proved"
    assert answer["omitted"] == {"instances": 3, "callers": 3, "notes": 3}
    second = rows(answer, "instances")[1]
    assert (len(rows(second, "nodes")), second["omitted"]) == (10, 2)
    assert rows(second, "nodes")[0]["node"] == "bad"


def test_a_report_that_is_too_long_loses_its_mildest_rows_and_counts_them() -> None:
    nodes = [Node(f"nacos-{n}.nacos-headless.middleware.svc.cluster.local:8848", present=False) for n in range(10)]
    answer = told(lease(*(removal(port, nodes) for port in range(8000, 8010))))
    assert len(json.dumps(answer)) > 10_000
    small = shrunk(answer, 10_000)
    assert len(json.dumps(small)) <= 10_000
    left = len(rows(small, "instances"))
    assert small["omitted"] == {"instances": 10 - left}
    assert rows(small, "instances") == rows(answer, "instances")[:left]
    assert shrunk(answer, 1)["instances"] == [], "what cannot be made to fit is at least as short as it can be"


def test_an_aborted_and_an_expired_drain_say_so_whatever_was_proved() -> None:
    for outcome in (Outcome.ABORTED, Outcome.LEASE_EXPIRED):
        answer = told(replace(let_go(Why.SETTLED), forced=outcome, final_at=1030.0))
        assert (answer["outcome"], answer["proved_gone"]) == (outcome.value, True)
