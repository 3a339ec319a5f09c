"""One instance on its way out: tables for every event, and a machine that answers its wishes in any order."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.evidence import View
from sidecar.registration import OPENAPI, Instance, Publisher, Record, Road, Service
from sidecar.removal import (
    PUSH,
    TOO_LATE,
    Absent,
    Acknowledged,
    Disable,
    Effect,
    Enable,
    Failed,
    Fate,
    Found,
    Goal,
    Look,
    Offline,
    Online,
    Read,
    Removal,
    Sweep,
    Write,
)


SHOP = Instance(Service("shop"), "10.0.0.7", 8080)
ON = Record(SHOP, weight=2.5)
OFF = Record(SHOP, weight=2.5, enabled=False)
OURS = Record(SHOP, weight=2.5, enabled=False, mark="2025-06-01T12:00:00Z/pod-0")
MARK = "2025-06-01T12:30:00Z/pod-1"
ACTUATOR = Road("actuator", undoable=True, inside=True)
T = TypeVar("T", bound=Effect)


@dataclass
class Walk:
    """A removal and the moment it is at. Only what is wanted at that moment can be answered, as in the runner."""

    removal: Removal
    now: float = 0.0
    may_write: bool = True

    def wanted(self, kind: type[T], node: str = "") -> list[T]:
        """What is wanted now of one kind."""
        effects = self.removal.wanted(self.now, may_write=self.may_write)
        return [e for e in effects if isinstance(e, kind) and node in {"", getattr(e, "node", "")}]

    def one(self, kind: type[T], node: str = "") -> T:
        """The one effect of this kind that is wanted now."""
        [effect] = self.wanted(kind, node)
        return effect

    def to(self, now: float) -> "Walk":
        """Let time pass."""
        self.now = now
        self.removal = self.removal.tick(now)
        return self

    def read(self, record: Record | None, *nodes: str) -> "Walk":
        """Nodes answer their read; none named: all that are asked."""
        for effect in [e for e in self.wanted(Read) if not nodes or e.node in nodes]:
            self.removal = self.removal.step(Found(effect, record), self.now)
        return self

    def unread(self, *nodes: str, refused: bool = False) -> "Walk":
        """Reads of these nodes fail."""
        for node in nodes:
            self.removal = self.removal.step(Failed(self.one(Read, node), "timeout", refused=refused), self.now)
        return self

    def look(self, record: Record | None) -> "Walk":
        """The unfiltered look is answered."""
        self.removal = self.removal.step(Found(self.one(Look), record), self.now)
        return self

    def unlook(self) -> "Walk":
        """No node answered the look."""
        self.removal = self.removal.step(Failed(self.one(Look), "no answer"), self.now)
        return self

    def write(self) -> Any:
        """The one write that is wanted now."""
        effects = self.removal.wanted(self.now, may_write=self.may_write)
        [effect] = [e for e in effects if isinstance(e, Write)]
        return effect

    def ack(self) -> "Walk":
        """The write is acknowledged."""
        self.removal = self.removal.step(Acknowledged(self.write()), self.now)
        return self

    def absent(self) -> "Walk":
        """The write is answered with Nacos' own 'no such instance'."""
        effect = self.write()
        assert isinstance(effect, Disable | Enable | Sweep)
        self.removal = self.removal.step(Absent(effect), self.now)
        return self

    def fail(self, *, again: bool = True) -> "Walk":
        """The write comes to nothing."""
        self.removal = self.removal.step(Failed(self.write(), "code 500", again=again), self.now)
        return self

    def clean_rounds(self, first: float, last: float, *nodes: str) -> "Walk":
        """Every quarter of a second these nodes do not list it."""
        for quarter in range(int(first * 4), int(last * 4) + 1):
            self.to(quarter / 4).read(None, *nodes)
        return self


def walk(
    record: Record | None = ON,
    *,
    age: float = 0.0,
    nodes: Iterable[tuple[str, bool]] = (("a", True), ("b", True)),
    roads: tuple[Road, ...] = (OPENAPI,),
    one_address: bool = False,
    publisher: Publisher = Publisher.GRPC,
) -> Walk:
    """A trigger at 0 with a snapshot of this age."""
    at = None if record is None else -age
    more: dict[str, Any] = {"roads": roads, "one_address": one_address, "publisher": publisher}
    return Walk(Removal.begin(SHOP, nodes, 0.0, record=record, record_at=at, mark=MARK, **more))


def gone() -> Walk:
    """Acknowledged at 0, proved at 0.25 on both nodes."""
    w = walk().ack().clean_rounds(0, 0.25)
    assert w.removal.proved
    return w


# --- the first write


def test_a_fresh_snapshot_lets_the_write_leave_at_the_trigger_with_its_weight_and_our_mark() -> None:
    assert walk(age=1).write() == Disable(SHOP, "a", 2.5, MARK, 0)


def test_an_older_snapshot_is_read_afresh_first() -> None:
    w = walk(age=1.1)
    assert not w.wanted(Disable)
    assert w.one(Look).timeout == 0.5
    assert w.to(0.02).look(replace(ON, weight=7.0)).write() == Disable(SHOP, "a", 7.0, MARK, 0)


def test_without_an_answer_to_the_look_the_write_goes_out_with_the_old_snapshot() -> None:
    w = walk(age=30).to(0.5).unlook()
    assert w.write() == Disable(SHOP, "a", 2.5, MARK, 0)
    assert w.removal.error == "no answer"


def test_nothing_known_and_no_answer_means_no_write_until_somebody_lists_it() -> None:
    w = walk(None).to(0.5).unlook()
    assert not w.wanted(Disable)
    assert not w.removal.dealt, "unknown is not absent"
    assert w.read(ON, "b").write() == Disable(SHOP, "a", 2.5, MARK, 0)


def test_a_later_look_that_fails_does_not_start_over() -> None:
    w = walk().ack().to(10).unlook()
    assert w.removal.acked_at == 0
    assert w.removal.look_at == 20


def test_an_instance_that_no_node_has_is_dealt_with_once_a_node_has_said_so() -> None:
    w = walk(None).look(None)
    assert not w.wanted(Disable)
    assert not w.removal.dealt
    assert w.read(None, "a").removal.dealt


@pytest.mark.parametrize("age", [0.0, 30.0])
def test_an_instance_that_an_operator_disabled_is_never_written_to(age: float) -> None:
    w = walk(OFF, age=age)
    if age:
        w.look(OFF)
    w.clean_rounds(0, 0.25).to(10)
    w.look(OFF).read(None)
    assert w.removal.spared
    assert w.removal.dealt
    assert w.removal.proved
    assert not w.removal.residue
    assert not any(isinstance(e, Disable) for t in range(100) for e in w.removal.wanted(t, may_write=True))


def test_an_instance_that_an_operator_enables_again_is_taken_out() -> None:
    """A list may lag behind the operator who disabled it, so only the record tells."""
    w = walk(OFF).clean_rounds(0, 0.25).to(3).read(ON, "b")
    assert not w.wanted(Disable)
    assert not w.look(OFF).wanted(Disable)
    w.to(3.25).read(ON, "b").look(ON)
    assert isinstance(w.write(), Disable)


def test_a_record_with_our_mark_counts_as_seen_and_its_mark_is_renewed() -> None:
    w = walk(OURS)
    assert w.removal.seen
    assert w.removal.residue
    assert isinstance(w.write(), Disable)


def test_no_write_is_wanted_once_the_drained_life_has_exited() -> None:
    w = walk()
    w.may_write = False
    assert not w.wanted(Disable)
    assert w.wanted(Read)


# --- evidence


def test_an_acknowledgement_is_no_proof() -> None:
    w = walk().ack()
    assert w.removal.dealt
    assert not w.removal.proved
    assert w.removal.clean_at is None
    assert [w.removal.view(n) for n in w.removal.nodes] == [View.UNKNOWN, View.UNKNOWN]


def test_two_clean_rounds_a_quarter_of_a_second_apart_on_every_node_are_the_proof() -> None:
    w = walk().ack().to(0.6).read(None, "a")
    assert not w.removal.clean_at
    w.read(None, "b")
    assert w.removal.clean_at == 0.6
    assert not w.removal.proved
    w.to(0.7)
    assert not [e for e in w.wanted(Read, "a") if e.attempt != 1], "one reading at a time"
    w.read(None, "a", "b")
    assert w.removal.proved_at == 0.7
    assert {w.removal.view(n) for n in w.removal.nodes} == {View.GONE}


def test_a_reading_is_due_a_quarter_of_a_second_after_the_one_before_and_every_two_seconds_once_proved() -> None:
    w = walk().ack().read(None)
    assert [n.due for n in w.removal.nodes] == [0.25, 0.25]
    w.to(0.25).read(None)
    assert [n.due for n in w.removal.nodes] == [2.25, 2.25]
    w.to(2.25).read(None)
    assert [n.due for n in w.removal.nodes] == [4.25, 4.25]


def test_an_answer_that_took_longer_than_the_period_is_followed_at_once() -> None:
    assert walk().to(1.7).read(None, "a").removal.nodes[0].due == 1.7


def test_a_node_that_failed_in_this_run_owes_one_more_clean_reading() -> None:
    w = walk().ack().read(None, "a").unread("b")
    w.clean_rounds(0.25, 0.5)
    assert not w.removal.proved
    w.clean_rounds(0.75, 0.75)
    assert w.removal.proved_at == 0.75


def test_unknown_is_not_clean_and_a_failure_breaks_the_row() -> None:
    w = walk().ack().clean_rounds(0, 5, "a")
    w.unread("b")
    assert not w.removal.proved
    assert w.removal.clean_at is None
    assert w.removal.view(w.removal.nodes[1]) is View.UNKNOWN
    assert w.removal.nodes[1].error == "timeout"


def test_behind_one_address_four_fresh_connections_are_owed() -> None:
    w = walk(nodes=[("vip", True)], one_address=True).ack()
    assert w.one(Read).fresh
    w.clean_rounds(0, 0.5)
    assert not w.removal.proved
    w.clean_rounds(0.75, 0.75)
    assert w.removal.proved


def test_what_was_never_seen_is_never_proved() -> None:
    w = walk(None).look(None).clean_rounds(0, 10)
    assert not w.removal.proved
    assert w.removal.clean_at is None
    assert {w.removal.view(n) for n in w.removal.nodes} == {View.NEVER_SEEN}


def test_a_record_that_only_the_unfiltered_look_shows_makes_clean_readings_count() -> None:
    """A drain of a record that an earlier sidecar of this pod left: the consumers' view never had it."""
    w = walk(None).clean_rounds(0, 0.25)
    assert not w.removal.proved
    w.look(OURS)
    assert w.removal.proved_at == 0.25


def test_a_node_that_is_only_discovered_bars_nothing_until_it_has_answered() -> None:
    w = walk(nodes=[("a", True), ("found", False)]).ack().read(None, "a").unread("found")
    assert w.clean_rounds(0.25, 0.25, "a").removal.proved
    w.to(2.25).read(ON, "found")
    assert not w.removal.proved
    assert all(n.required for n in w.removal.nodes)


def test_without_a_required_node_nothing_is_proved() -> None:
    w = walk(nodes=[("found", False)]).ack().unread("found")
    assert not w.removal.proved


def test_a_node_that_refuses_and_is_called_down_is_left_out_until_it_answers() -> None:
    w = walk().ack().unread("b", refused=True).read(None, "a")
    w.removal = w.removal.lose("b")
    assert w.removal.view(w.removal.nodes[1]) is View.DOWN
    assert w.clean_rounds(0.25, 0.25, "a").removal.proved
    w.to(2.25).read(ON, "b")
    assert not w.removal.proved
    assert w.removal.view(w.removal.nodes[1]) is View.LISTED


def test_a_node_that_was_down_and_hangs_now_counts_again() -> None:
    w = walk().ack().unread("b", refused=True)
    w.removal = w.removal.lose("b")
    w.to(0.25).unread("b")
    assert w.removal.view(w.removal.nodes[1]) is View.UNKNOWN
    w.clean_rounds(0.5, 2, "a")
    assert not w.removal.proved


def test_a_node_that_only_hangs_is_not_left_out_whatever_another_says_of_it() -> None:
    w = walk().ack().unread("b")
    assert not w.removal.lose("b").nodes[1].down


def test_when_every_node_is_down_nothing_is_proved() -> None:
    w = walk(nodes=[("a", True)]).unread("a", refused=True)
    w.removal = w.removal.lose("a")
    assert not w.removal.proved
    assert w.write().node == "a", "but the write is tried on"


# --- writes that fail


def test_a_write_that_fails_goes_to_the_next_node_for_the_time_of_an_election_and_on_after_it() -> None:
    w = walk()
    tries: list[tuple[float, str]] = []
    while w.now < 30:
        tries.append((w.now, w.write().node))
        w.fail()
        assert not w.wanted(Disable)
        assert w.removal.write_at is not None
        w.to(w.removal.write_at)
    assert tries[:6] == [(0, "a"), (0.25, "b"), (0.75, "a"), (1.75, "b"), (3.75, "a"), (5.75, "b")]
    assert max(b - a for (a, _), (b, _) in pairwise(tries)) == 2
    assert not w.removal.dealt
    assert w.ack().removal.failures == 0


def test_an_outage_of_hours_does_not_break_the_arithmetic() -> None:
    w = walk()
    for _ in range(2000):
        w.fail().to(w.removal.write_at or w.now)
    assert w.removal.failures == 2000


def test_a_node_whose_reading_failed_is_not_chosen_for_the_write() -> None:
    w = walk(age=9).unread("a").look(ON)
    assert w.write().node == "b"


def test_a_refusal_is_tried_again_only_after_five_seconds() -> None:
    w = walk().fail(again=False)
    assert w.removal.rejected
    assert w.removal.write_at == 5
    assert not w.to(5).ack().removal.rejected


def test_absent_is_an_answer_and_a_node_that_still_lists_it_calls_for_the_write_again() -> None:
    w = walk().absent()
    assert w.removal.acked_at is None
    assert not w.removal.dealt, "no node has said so yet"
    w.read(ON, "a")
    assert isinstance(w.write(), Disable)
    assert w.absent().to(0.25).read(None).removal.dealt


# --- the ladder of roads


def ladder(*, undoable: bool = False, **more: Any) -> Walk:
    """An app that can be asked itself, and Nacos after it."""
    return walk(roads=(Road("actuator", undoable=undoable, inside=True), OPENAPI), **more)


def removed(w: Walk) -> Walk:
    """The app has left: acknowledged, clean at 0.25 s, and the unfiltered record is absent."""
    return w.ack().to(0.25).read(None).look(None)


def test_the_app_is_asked_first_and_once_for_all_its_instances() -> None:
    assert ladder().write() == Offline("actuator", 0), (
        "no instance in it: the same wish of another one is the same call"
    )
    assert ladder().write().timeout == 3


def test_a_road_that_is_refused_is_left_at_once_and_what_it_said_is_kept() -> None:
    w = ladder().fail(again=False)
    assert w.write() == Disable(SHOP, "b", 2.5, MARK, 1)
    assert w.removal.given_up == ("actuator: code 500",)
    assert w.removal.asked is None
    assert w.ack().removal.taken == OPENAPI


def test_the_last_road_is_tried_on() -> None:
    w = ladder().fail(again=False).fail(again=False)
    assert w.removal.road == 1
    assert isinstance(w.to(5).write(), Disable)


def test_a_failure_that_may_be_none_gives_the_app_a_second_before_nacos_is_told() -> None:
    """An edit within 0.46 s after an instance left would leave a record that never expires."""
    w = ladder().to(0.2).fail()
    assert not w.wanted(Disable)
    assert isinstance(w.to(1.0).write(), Disable)
    assert w.removal.asked is not None, "it may have been at it"


def test_nobody_listening_there_is_a_verdict() -> None:
    w = ladder()
    w.removal = w.removal.step(Failed(w.one(Offline), "refused", refused=True), 0.1)
    w.to(0.1)
    assert isinstance(w.write(), Disable)


def test_an_app_that_never_answers_but_leaves_is_believed_by_the_lists() -> None:
    """A deregistering endpoint that sleeps before it answers is found in the field."""
    w = ladder().clean_rounds(0.5, 2.75).to(3.0).fail()
    assert (w.removal.taken, w.removal.acked_at) == (w.removal.roads[0], 3.0)
    assert not w.wanted(Disable)
    assert w.look(None).removal.fate is Fate.REMOVED


def test_a_road_whose_acknowledgement_changed_nothing_is_left_after_three_seconds() -> None:
    """`DELETE` of a gRPC instance is a 200 that changes nothing."""
    w = ladder().ack().read(ON)
    w.to(2.9).read(ON)
    assert not w.wanted(Disable), "a removal is in flight between nodes"
    w.to(3).read(ON, "a")
    assert not w.wanted(Disable), "this reading was due before"
    w.to(3.25).read(ON, "a")
    assert isinstance(w.write(), Disable)
    assert w.removal.given_up == ("actuator: acknowledged, but listed 3 s later",)


@pytest.mark.parametrize("known", [ON, replace(ON, healthy=False)])
def test_a_broken_app_is_not_asked(known: Record) -> None:
    w = ladder(record=known)
    if known.healthy:
        w.removal = w.removal.skip_inside(1.0, "hung")
        w.to(1.0)
    assert isinstance(w.write(), Disable)
    assert w.removal.skip_inside(2.0, "hung") == w.removal


def test_an_app_that_turns_out_broken_while_it_is_asked_may_still_leave() -> None:
    w = ladder().to(0.2)
    w.removal = w.removal.skip_inside(0.2, "hung")
    assert not w.wanted(Offline)
    assert not w.wanted(Disable), "an edit right after it left would never expire"
    assert isinstance(w.to(1.0).write(), Disable)
    assert w.removal.given_up == ("actuator: hung",)
    assert w.removal.touched(1.0)


def test_what_the_app_took_out_and_a_beat_brought_back_is_taken_out_by_nacos() -> None:
    w = removed(ladder()).to(0.5).read(None).to(2.5).read(ON, "a")
    assert isinstance(w.write(), Disable)
    assert w.removal.given_up == ("actuator: listed again",)


def test_once_the_lists_are_clean_the_record_tells_what_the_app_has_done() -> None:
    w = ladder().ack().to(0.25).read(None, "a")
    assert not w.wanted(Look)
    w.read(None, "b")
    assert w.wanted(Look)
    w.unlook()
    assert w.removal.look_at == 2.25, "soon again: until it is read we do not know"
    assert w.to(2.25).look(None).removal.fate is Fate.REMOVED
    assert (w.removal.residue, w.removal.left_behind(9), w.removal.touched(9)) == (False, False, True)


def test_an_old_mark_of_ours_is_no_residue_once_the_app_has_removed_itself() -> None:
    w = ladder(record=OURS).ack().to(0.25).read(None).look(None)
    assert w.removal.fate is Fate.REMOVED
    assert (w.removal.residue, w.removal.undoable) == (False, False)


def test_a_record_that_a_node_behind_still_shows_enabled_tells_nothing() -> None:
    w = ladder().ack().to(0.25).read(None).look(ON)
    assert w.removal.fate is None
    assert w.to(0.5).look(None).removal.fate is Fate.REMOVED


def test_a_record_that_the_app_has_disabled_is_claimed_with_our_mark() -> None:
    w = ladder().ack().to(0.25).read(None).look(OFF)
    assert w.removal.fate is Fate.DISABLED
    assert not w.removal.residue, "not ours yet"
    assert isinstance(w.write(), Disable)
    w.fail(again=False)
    assert isinstance(w.to(5.25).write(), Disable), "claimed by Nacos' road, not asked of the app again"
    w.ack()
    assert (w.removal.residue, w.removal.taken, w.removal.undoable) == (True, w.removal.roads[0], True)


def test_a_record_that_is_gone_when_it_is_claimed_needs_no_claim() -> None:
    w = ladder().ack().to(0.25).read(None).look(OFF).absent()
    assert not w.wanted(Disable)
    assert not w.removal.residue


def test_a_record_that_the_app_left_disabled_is_swept_even_where_it_could_not_be_claimed() -> None:
    w = ladder().ack().to(0.25).read(None).look(OFF).fail(again=False)
    w.removal = w.removal.clean_up(2.0)
    w.to(2.0).look(None)
    assert isinstance(w.write(), Sweep)


def test_a_true_removal_leaves_nothing_to_clean_and_an_unread_one_says_so() -> None:
    assert removed(ladder()).removal.clean_up(2.0).ending == "nothing to clean"
    assert "was not read" in (ladder().ack().removal.clean_up(2.0).ending or "")


@pytest.mark.parametrize(
    ("publisher", "until"),
    [
        (Publisher.BEAT, 7.25),
        (Publisher.UNKNOWN, 7.25),
        (Publisher.GRPC, None),
        (Publisher.BATCH, None),
        (Publisher.PERSISTENT, None),
    ],
)
def test_only_what_a_beat_could_bring_back_is_watched_for_a_while(publisher: Publisher, until: float | None) -> None:
    assert removed(ladder(publisher=publisher)).removal.stable_at == until


def test_rare_beats_are_awaited_and_our_own_write_survives_them() -> None:
    slow = replace(ON, beat=30.0)
    assert removed(ladder(publisher=Publisher.BEAT, record=slow)).removal.stable_at == 32.25
    claimed = ladder(publisher=Publisher.BEAT).ack().to(0.25).read(None).look(OFF).ack()
    assert claimed.removal.stable_at is None
    assert walk().ack().clean_rounds(0, 0.25).removal.stable_at is None


def test_without_a_server_only_the_app_can_be_asked() -> None:
    w = ladder(nodes=[])
    assert w.write() == Offline("actuator", 0)
    w.fail(again=False)
    assert not w.wanted(Disable)


def test_a_subscription_is_read_but_never_written_to() -> None:
    w = walk(nodes=[("a", True), (PUSH, True)])
    assert {w.fail().to(w.removal.write_at or 0).write().node for _ in range(3)} == {"a"}
    w = walk(nodes=[("a", True), (PUSH, True)]).ack().clean_rounds(0, 1, "a")
    assert not w.removal.proved, "one more required reader"
    assert w.clean_rounds(1, 1.5, PUSH).removal.proved


# --- BACK through the app


def given_back(w: Walk, *, same_life: bool = True) -> Walk:
    """The lease is given back 4 s after the trigger."""
    w.removal = w.removal.bring_back(4.0, same_life=same_life)
    return w.to(4.0)


def test_what_the_app_took_out_the_app_brings_back() -> None:
    w = given_back(removed(ladder(undoable=True))).look(None)
    assert w.write() == Online("actuator", 1)
    w.ack().to(4.7).look(None)
    assert not w.wanted(Online), "on its way"
    assert w.to(5.2).look(ON).removal.ending == "online"


def test_an_app_that_does_not_come_back_is_asked_again() -> None:
    w = given_back(removed(ladder(undoable=True))).look(None).ack()
    while w.now < 6.9:
        w.to(w.removal.look_at or w.now).look(None)
    assert isinstance(w.write(), Online)
    w.fail()
    assert isinstance(w.to(w.removal.look_at or w.now).look(None).write(), Online)


@pytest.mark.parametrize(("undoable", "same_life"), [(False, True), (True, False)])
def test_a_new_life_registers_by_itself_and_an_unknown_way_back_is_not_tried(undoable: bool, same_life: bool) -> None:
    w = given_back(removed(ladder(undoable=undoable)), same_life=same_life).look(None)
    assert not w.wanted(Online)
    assert w.to(4.5).look(ON).removal.ending == "online"


def test_what_was_claimed_is_enabled_by_us_not_by_the_app() -> None:
    w = given_back(ladder(undoable=True).ack().to(0.25).read(None).look(OFF).ack()).look(OURS)
    assert isinstance(w.write(), Enable)


def test_an_app_that_was_asked_a_moment_ago_may_still_leave() -> None:
    w = ladder(undoable=True).to(0.1)
    w.removal = w.removal.bring_back(0.1)
    assert not w.look(ON).removal.ending
    assert isinstance(w.to(0.6).look(None).write(), Online)


def test_a_mark_on_a_record_that_somebody_enabled_is_emptied() -> None:
    w = given_back(gone()).look(replace(OURS, enabled=True))
    assert isinstance(w.write(), Enable)
    assert w.ack().to(5.2).look(ON).removal.ending == "online"


# --- listed again


def test_listed_again_after_it_was_out_is_written_at_once_and_read_at_the_short_period_again() -> None:
    w = gone().to(2.25).read(ON, "a")
    assert isinstance(w.write(), Disable)
    assert (w.removal.returns, w.removal.proved, w.removal.clean_at) == (1, False, None)
    assert {n.due for n in w.removal.nodes} == {2.25, 2.5}


def test_a_return_is_counted_once_however_many_nodes_show_it_and_costs_one_write() -> None:
    w = gone().to(2.25).read(ON, "a", "b").ack().to(2.6).read(ON)
    assert w.removal.returns == 1
    assert not w.wanted(Disable)


def test_our_own_write_is_repeated_when_one_node_forgets() -> None:
    """The other node never answered, so it was never out everywhere; that is no reason to distrust the road."""
    w = walk().ack().read(None, "a")
    w.to(3.5).read(None, "a").to(3.75).read(ON, "a")
    assert isinstance(w.write(), Disable)


def test_nodes_behind_one_address_that_are_not_equally_fast_cause_no_writes() -> None:
    w = walk(nodes=[("vip", True)], one_address=True).ack()
    for quarter, record in enumerate([ON, None, ON, None, None, ON, None, None, None, None]):
        w.to(quarter / 4).read(record)
        assert not w.wanted(Disable)
    assert w.removal.proved
    assert w.removal.returns == 0


def test_a_write_under_way_is_not_doubled_by_a_reading() -> None:
    w = walk()
    before = w.write()
    assert w.read(ON).write() == before


# --- CLEAN: the app has exited


def test_the_record_is_swept_only_after_every_node_that_answers_shows_none() -> None:
    w = gone()
    w.removal = w.removal.clean_up(1.0)
    w.to(1.0).look(OURS)
    assert not w.wanted(Sweep)
    w.to(1.25).look(None)
    assert w.write() == Sweep(SHOP, "b", 2.5, 1)
    assert w.ack().removal.ending == "cleaned"
    assert not list(w.removal.wanted(99, may_write=False))


@pytest.mark.parametrize(("at", "swept"), [(45.0, True), (45.1, False)])
def test_it_is_swept_at_most_45_seconds_after_it_was_last_seen(*, at: float, swept: bool) -> None:
    w = walk().ack()
    w.removal = w.removal.clean_up(at)
    w.to(at).look(None)
    assert bool(w.wanted(Sweep)) is swept
    assert w.removal.ending == (None if swept else TOO_LATE)


def test_a_sweep_that_fails_looks_again_first() -> None:
    w = gone()
    w.removal = w.removal.clean_up(1.0)
    w.to(1.0).look(None).fail()
    assert not w.wanted(Sweep)
    assert w.removal.look_at == 1.25
    assert w.to(1.25).look(None).absent().removal.ending == "nothing was left"


def test_when_nobody_answers_the_look_it_is_given_up_once_a_write_would_be_unsafe() -> None:
    w = gone()
    w.removal = w.removal.clean_up(1.0)
    while w.removal.ending is None:
        assert w.removal.look_at is not None
        w.to(w.removal.look_at).unlook()
    assert w.removal.ending == TOO_LATE
    assert 45 < w.now <= 45.5


@pytest.mark.parametrize(
    ("record", "sweep", "ending"),
    [
        (replace(ON, ephemeral=False), True, "a persistent instance stays disabled, marked as ours"),
        (ON, False, "left as it is, by CLEAR_RESIDUE=never"),
    ],
)
def test_what_is_left_alone(record: Record, *, sweep: bool, ending: str) -> None:
    w = walk(record).ack()
    w.removal = w.removal.clean_up(1.0, sweep=sweep)
    assert w.removal.ending == ending
    assert not w.to(1).wanted(Look)


def test_an_instance_that_turns_out_to_be_persistent_is_not_swept() -> None:
    w = gone()
    w.removal = w.removal.clean_up(1.0)
    assert w.to(1).look(replace(OURS, ephemeral=False)).removal.ending is not None


def test_a_record_that_was_enabled_before_the_app_went_leaves_nothing_to_sweep() -> None:
    w = walk(OURS)
    w.removal = w.removal.clean_up(-1.0)  # before its write was due
    assert w.read(ON, "a").look(None).removal.ending == "nothing to clean"


def test_nothing_written_is_nothing_to_clean() -> None:
    w = walk()
    w.removal = w.removal.clean_up(-1.0)  # before its write was due
    assert w.removal.ending == "nothing to clean"


def test_a_write_that_was_cut_off_by_the_exit_is_cleaned_up_after() -> None:
    """A disabling write that meets a leaving app stays for ever: nothing marks it to expire (measured)."""
    w = walk()
    w.removal = w.removal.clean_up(1.0)
    assert w.removal.ending is None
    assert w.to(1).wanted(Read), "but the proof is still sought"
    assert isinstance(w.look(None).write(), Sweep)


def test_a_listing_after_the_exit_is_a_new_life_and_not_written_to() -> None:
    w = walk().ack()
    w.removal = w.removal.clean_up(0.1)
    w.to(4).read(ON)
    assert not w.wanted(Disable)
    assert not w.wanted(Sweep)


# --- BACK: the lease is given back


def back(record: Record = ON, *, acked: bool = True, adopt: bool = False) -> Walk:
    """A lease that is given back at 1."""
    w = walk(record)
    if acked:
        w.ack()
    w.removal = w.removal.bring_back(1.0, adopt=adopt)
    return w.to(1.0)


def test_our_disabled_record_is_enabled_and_looked_at_again() -> None:
    w = back()
    assert not w.wanted(Read), "the consumers' view is of no interest any more"
    w.look(OURS)
    assert isinstance(w.write(), Enable)
    assert set(w.removal.wake()) == {1.0, 76.0}
    w.to(1.1).ack()
    assert not w.to(1.7).wanted(Look)
    assert w.to(1.8).look(ON).removal.ending == "online"
    assert not list(w.removal.wanted(99, may_write=True))


def test_a_disabling_write_that_was_cut_off_may_still_land_and_is_looked_for_until_it_cannot() -> None:
    w = back(acked=False).look(ON)
    assert w.wanted(Look) == []
    assert isinstance(w.to(1.5).look(OURS).write(), Enable)
    w.ack().to(2.2).look(ON)
    while w.removal.ending is None:
        w.to(min(t for t in w.removal.wake() if t > w.now)).look(ON)
    assert (w.now, w.removal.ending) == (6.2, "online")


def test_what_is_enabled_is_back_once_our_own_write_must_have_shown() -> None:
    w = back().look(ON)
    while w.removal.ending is None:
        w.to(min(t for t in w.removal.wake() if t > w.now)).look(ON)
    assert (w.now, w.removal.ending) == (2.5, "online")


def test_a_node_that_still_shows_what_was_before_our_write_is_not_believed() -> None:
    w = back().look(ON)
    assert w.removal.ending is None
    assert isinstance(w.to(1.5).look(OURS).write(), Enable)


def test_without_a_mark_in_the_record_our_own_acknowledgement_makes_it_ours() -> None:
    """On 1.x a metadata write would replace everything: no mark there, memory is enough."""
    assert isinstance(back().look(OFF).write(), Enable)


def test_an_operators_record_is_left_alone_unless_it_is_to_be_adopted() -> None:
    assert back(OFF, acked=False).look(OFF).removal.ending == "disabled by somebody else, left alone"
    assert isinstance(back(OFF, acked=False, adopt=True).look(OFF).write(), Enable)


def test_a_new_life_that_has_not_registered_yet_is_waited_for_up_to_75_seconds() -> None:
    w = back()
    while w.removal.ending is None:
        moments = [t for t in w.removal.wake() if t > w.now]
        w.to(min(moments))
        if w.wanted(Look):
            w.look(None)
    assert w.now == 76
    assert "75 s" in w.removal.ending


@pytest.mark.parametrize("answer", ["fail", "refuse", "absent"])
def test_an_enable_that_comes_to_nothing_looks_again_first(answer: str) -> None:
    w = back().look(OURS)
    if answer == "absent":
        w.absent()
    else:
        w.fail(again=answer == "fail")
    assert not w.wanted(Enable)
    assert w.removal.look_at == {"fail": 1.25, "refuse": 6.0, "absent": 1.7}[answer]


def test_a_look_that_fails_is_repeated() -> None:
    w = back().unlook()
    assert w.removal.look_at == 1.5


def test_the_key_reads_like_a_url() -> None:
    assert str(SHOP) == "public/DEFAULT_GROUP/shop/DEFAULT 10.0.0.7:8080"
    assert Instance(Service("shop", namespace="prod"), "fd00::7", 80).address == "[fd00::7]:80"


# --- any world, any order


records = st.sampled_from([None, None, ON, OFF, OURS])


class RemovalMachine(RuleBasedStateMachine):
    """Performs what is wanted like the runner: a result counts only while its effect is still wanted."""

    removal: Removal
    now: float = 0.0
    may_write: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[str, tuple[float, bool]] = {}  # the newest answered reading per node: when, and whether clean
        self.ever_seen = False
        self.last_seen: float | None = None

    @initialize(
        record=st.sampled_from([None, ON, OFF, OURS]),
        age=st.sampled_from([0.0, 4.0, 20.0]),
        nodes=st.sampled_from([[("a", True)], [("a", True), ("b", True), ("c", False)]]),
        one_address=st.booleans(),
        roads=st.sampled_from([(OPENAPI,), (ACTUATOR, OPENAPI)]),
        publisher=st.sampled_from(Publisher),
    )
    def trigger(
        self,
        *,
        record: Record | None,
        age: float,
        nodes: list[tuple[str, bool]],
        one_address: bool,
        roads: tuple[Road, ...],
        publisher: Publisher,
    ) -> None:
        one = one_address and len(nodes) == 1
        self.now = 1000.0
        self.last_seen = None if record is None else self.now - age
        self.removal = Removal.begin(
            SHOP,
            nodes,
            self.now,
            record=record,
            record_at=self.last_seen,
            mark=MARK,
            roads=roads,
            publisher=publisher,
            one_address=one,
        )
        self.ever_seen = record is not None

    def wanted(self) -> list[Effect]:
        return list(self.removal.wanted(self.now, may_write=self.may_write))

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.25, 0.5, 2.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.removal = self.removal.tick(self.now)

    @rule()
    def sleep_until_woken(self) -> None:
        moments = [t for t in self.removal.wake() if t > self.now]
        if moments:
            self.now = min(moments)
            self.removal = self.removal.tick(self.now)

    @precondition(lambda self: self.wanted())
    @rule(data=st.data(), answer=records, verdict=st.sampled_from(["yes", "yes", "absent", "fail", "refuse"]))
    def the_world_answers(self, data: st.DataObject, answer: Record | None, verdict: str) -> None:
        effect = data.draw(st.sampled_from(self.wanted()))
        failed = Failed(effect, verdict, again=verdict == "fail", refused=verdict == "refuse")
        if verdict in {"fail", "refuse"}:
            self.removal = self.removal.step(failed, self.now)
            return
        match effect:
            case Read():
                shown = None if answer is not None and not answer.enabled else answer  # consumers see no disabled one
                self.latest[effect.node] = (self.now, shown is None)
                self._saw(shown)
                self.removal = self.removal.step(Found(effect, shown), self.now)
            case Look():
                self._saw(answer)
                self.removal = self.removal.step(Found(effect, answer), self.now)
            case Disable() | Enable() | Sweep() if verdict == "absent":
                self.removal = self.removal.step(Absent(effect), self.now)
            case _:
                self.removal = self.removal.step(Acknowledged(effect), self.now)

    def _saw(self, record: Record | None) -> None:
        if record is not None:
            self.ever_seen, self.last_seen = True, self.now

    @rule(node=st.sampled_from(["a", "b", "c"]))
    def another_node_calls_it_down(self, node: str) -> None:
        self.removal = self.removal.lose(node)

    @precondition(lambda self: self.removal.goal is Goal.OUT)
    @rule(sweep=st.booleans())
    def the_app_exits(self, *, sweep: bool) -> None:
        self.may_write = False
        self.removal = self.removal.clean_up(self.now, sweep=sweep)

    @precondition(lambda self: self.removal.goal is not Goal.BACK)
    @rule(adopt=st.booleans())
    def the_lease_is_given_back(self, *, adopt: bool) -> None:
        self.may_write = True
        self.removal = self.removal.bring_back(self.now, adopt=adopt)

    @invariant()
    def gone_is_said_only_by_readings_of_a_key_that_was_seen(self) -> None:
        r = self.removal
        if r.proved:
            owing = [n for n in r.nodes if n.required and not n.down]
            answered = [n for n in owing if n.name in self.latest]
            assert self.ever_seen
            assert all(self.latest[n.name][1] for n in answered)
            assert r.clean_at is not None
            assert r.proved_at is not None
            assert r.clean_at <= r.proved_at <= self.now
        for node in r.nodes:
            if r.view(node) is View.GONE:
                assert self.ever_seen
                assert self.latest[node.name][1]

    @invariant()
    def at_most_one_write_is_wanted_and_none_that_is_not_allowed(self) -> None:
        effects = self.wanted()
        writes = [e for e in effects if isinstance(e, Disable | Enable | Sweep)]
        assert len(writes) <= 1
        assert len({e.node for e in effects if isinstance(e, Read)}) == sum(isinstance(e, Read) for e in effects)
        names = {n.name for n in self.removal.nodes}
        for write in writes:
            assert write.node in names
            match write:
                case Disable():
                    assert self.may_write
                    assert write.mark == MARK
                    assert not self.removal.spared
                    assert self.removal.goal is Goal.OUT
                case Enable():
                    assert self.removal.goal is Goal.BACK
                    assert self.removal.record is not None
                    assert not self.removal.record.enabled
                case Sweep():
                    assert self.removal.goal is Goal.CLEAN
                    newborn = self.removal.record is not None and self.removal.record.enabled
                    assert (
                        self.removal.touched(self.now) or newborn
                    )  # it was read between the look and the write: harmless

    @invariant()
    def what_will_be_wanted_is_announced(self) -> None:
        """A runner that sleeps until the next announced moment misses no wish."""
        if not hasattr(self, "removal"):
            return
        now = set(self.wanted())
        announced = min((t for t in self.removal.wake() if t > self.now), default=self.now + 1000)
        just_before = self.now + (announced - self.now) * 0.999
        assert just_before == announced or set(self.removal.wanted(just_before, may_write=self.may_write)) == now

    @invariant()
    def it_waits_for_nothing_forever(self) -> None:
        """Something is under way, or will be, until there is nothing left to do."""
        ahead = [t for t in self.removal.wake() if t > self.now]
        assert self.wanted() or ahead or self.removal.ending is not None

    @invariant()
    def a_tick_at_the_same_moment_changes_nothing(self) -> None:
        once = self.removal.tick(self.now)
        assert once == once.tick(self.now)

    @invariant()
    def what_is_back_or_clean_ends_once(self) -> None:
        if self.removal.goal is Goal.OUT:
            assert self.removal.ending is None
        else:
            assert self.removal.ending is None or not [e for e in self.wanted() if not isinstance(e, Read)]


RemovalMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestRemoval = RemovalMachine.TestCase


def test_a_sweep_is_wanted_only_while_the_expiry_mark_stands() -> None:
    """The look decides; the write that follows it at once has 15 s left."""
    w = walk().ack()
    w.removal = w.removal.clean_up(40.0)
    w.to(44.9).look(None)
    assert isinstance(w.write(), Sweep)
