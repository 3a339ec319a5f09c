"""The drain as a machine: whatever the app, Nacos and people do, in any order and at any moment.

Whole drains with their exact seconds are in test_scenarios.py; here are the laws that no order of events may break.
"""

import json
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pocket import SHOP, Pocket, rules

from sidecar.drain import Refusal
from sidecar.lease import App, Life, Outcome, Port, Release, Residue, State, Trigger, Why
from sidecar.registration import Publisher, Record, Road
from sidecar.removal import Delete, Disable, Enable, Look, Offline, Online, Sweep, Write
from sidecar.report import Phase, phases, report
from sidecar.settle import Clause, Rule
from sidecar.wishes import Asked, AwaitExit, Roster, Shutdown, Signal, Survey, Surveyed, Tick


ORDER = list(Phase)
SECONDS = st.sampled_from([0.05, 0.25, 0.6, 1.0, 2.0, 3.0, 7.0, 20.0])


def marked(record: Record | None) -> bool:
    """Whether our `enabled=false` stands in this record."""
    return record is not None and bool(record.mark) and not record.enabled


def drained(grace: float = 30.0, cache: float = 0.0, *, visible: bool = True, **changes: object) -> Pocket:
    """A pod whose drain has begun: 10 s after its start, at 1010."""
    w = Pocket(rules(grace, cache, **changes), visible=visible)
    w.sleep(10)
    w.trigger()
    return w


def released(grace: float = 30.0, cache: float = 0.0, *, visible: bool = True, **changes: object) -> Pocket:
    """A pod whose drain has let the app go; the app still runs."""
    w = drained(grace, cache, visible=visible, **changes)
    w.sleep_until(State.RELEASED, within=grace)
    return w


T = 1010.0  # the trigger
CLEAN = T + 0.25  # Nacos answers at once: the first read still lists us, the second does not
GONE = CLEAN + 0.25


# --- the plain story


def test_a_drain_of_an_app_that_nobody_can_watch_waits_for_the_cap_after_the_first_clean_round() -> None:
    w = released()
    assert w.lease.dealt_at == T
    assert w.lease.proved_at == GONE
    assert w.lease.released_at == CLEAN + 5
    assert (w.lease.why, w.lease.outcome) == (Why.SETTLED, Outcome.DRAINED)


def test_the_deadline_comes_before_the_cap() -> None:
    w = released(cache=35.0)
    assert (w.lease.released_at, w.lease.why) == (T + 17, Why.DEADLINE)


@pytest.mark.parametrize("visible", [True, False])
def test_the_app_exits_after_the_release_and_what_it_left_is_swept(*, visible: bool) -> None:
    w = released(visible=visible)
    w.exit()
    w.unregister()
    w.sleep(6)
    assert w.lease.exited_at == (CLEAN + 5 if visible else CLEAN + 5.25 + 2), "or 2 s after its listener was closed"
    assert w.lease.final_at is not None
    assert [what for _, what in w.wrote] == ["disable", "sweep"]
    assert w.stands() is State.RELEASED, "the container may start again"


@pytest.mark.parametrize("visible", [True, False])
def test_a_new_life_is_put_online_and_the_pod_is_armed_again(*, visible: bool) -> None:
    w = released(visible=visible)
    w.exit()
    w.unregister()
    w.sleep(1)
    w.start()
    w.sleep(1)
    w.register()
    assert visible or marked(w.record), "born disabled"
    w.sleep_until(State.ARMED, within=5)
    assert w.record == Record(SHOP)
    assert w.lease.final_at is not None


def test_a_new_life_stays_as_it_is_by_clear_residue_never() -> None:
    w = released(residue=Residue.NEVER)
    w.exit()
    w.start()
    w.sleep(20)
    assert w.stands() is State.ARMED
    assert marked(w.record)


# --- an app that dies, hangs or is ill


def test_an_app_that_dies_in_mid_drain_ends_the_waits_but_not_the_proof() -> None:
    w = drained()
    w.faults = {"a": "hang", "b": "hang"}
    w.sleep(1)
    w.exit()
    w.sleep(0.25)
    assert (w.lease.why, w.lease.proved) == (Why.VANISHED, False)
    w.faults.clear()
    w.unregister()
    w.sleep(5)
    assert w.lease.proved


def test_a_hung_app_is_left_as_soon_as_it_is_proved_gone() -> None:
    w = Pocket(rules(cache=35.0))
    w.sleep(10)
    w.hung = True
    w.trigger()
    w.sleep(1)
    assert (w.lease.released_at, w.lease.why) == (GONE, Why.HUNG)


def test_an_app_that_nacos_lists_as_unhealthy_is_left_as_soon_as_it_is_proved_gone() -> None:
    w = Pocket(rules(cache=35.0))
    w.record = Record(SHOP, healthy=False)
    w.sleep(10)
    w.trigger()
    w.sleep(1)
    assert (w.lease.released_at, w.lease.why) == (GONE, Why.UNHEALTHY)


def test_a_process_that_cannot_be_watched_is_watched_by_its_listener() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.trigger()
    w.settle_down()
    [watch] = [e for e in w.running if isinstance(e, AwaitExit)]
    w.fail(watch, "not allowed")
    assert not [e for e in w.running if isinstance(e, AwaitExit)], "asked again at once, it would never sleep"
    w.sleep_until(State.RELEASED, within=30)
    w.exit()
    w.sleep(3)
    assert w.lease.exited_at == CLEAN + 7.25


def test_a_listener_that_cannot_be_seen_is_not_a_closed_one() -> None:
    w = drained()
    w.unseeable = True
    w.sleep_until(State.RELEASED, within=30)
    assert w.lease.why is Why.SETTLED
    assert w.lease.exited_at is None


def test_an_app_that_is_still_starting_at_the_trigger_is_the_life_that_is_drained() -> None:
    w = Pocket(rules())
    w.exit()
    w.unregister()
    w.sleep(10)
    w.trigger()
    w.start()
    w.sleep(0.25)
    assert w.lease.life == w.life or w.lease.released_at is not None


def test_an_app_that_comes_back_before_its_exit_was_noticed_is_a_new_life() -> None:
    w = released(visible=False)
    w.exit()
    w.start()
    w.sleep(0.25)
    assert w.lease.exited_at is not None
    w.sleep_until(State.ARMED, within=10)
    assert not marked(w.record)


# --- people


def test_release_ends_all_waits() -> None:
    w = drained(cache=35.0)
    w.sleep(1)
    w.ask(resume=False)
    assert (w.lease.released_at, w.lease.why) == (T + 1, Why.ASKED)
    w.ask(resume=False)
    assert w.lease.released_at == T + 1


@pytest.mark.parametrize("after", [1.0, 8.0])
def test_resume_gives_the_lease_back(after: float) -> None:
    w = drained()
    w.sleep(after)
    assert w.drain.refuses_resume is None
    w.ask(resume=True)
    assert (w.lease.outcome, w.lease.final_at) == (Outcome.ABORTED, T + after)
    w.sleep_until(State.ARMED, within=5)
    assert w.record == Record(SHOP)
    w.ask(resume=True)
    assert w.stands() is State.ARMED
    assert w.drain.refuses_resume is None


def test_resume_is_refused_where_it_would_be_wrong_or_in_vain() -> None:
    w = drained()
    one_way = replace(w.lease.removals[0], roads=(Road("actuator", undoable=False),))
    only_restart = replace(w.drain, lease=replace(w.lease, removals=(one_way,)))
    assert only_restart.refuses_resume == Refusal("only a restart of the app registers it again", for_good=True)
    assert only_restart.step(Asked(resume=True), w.now).state is State.DRAINING
    w.exit()
    w.sleep(1)
    assert w.drain.refuses_resume == Refusal("the drained app has exited; its next life is put online by itself")
    w.trigger(Trigger.SIGTERM)
    assert w.drain.refuses_resume == Refusal("this sidecar was told to stop")


def test_a_second_trigger_joins_the_drain_under_way() -> None:
    w = drained()
    w.sleep(1)
    w.trigger()
    w.trigger(Trigger.SIGTERM)
    w.trigger(Trigger.SIGINT)
    assert (w.lease.id, w.lease.hook_at, w.lease.sigterm_at) == ("d1", T + 1, T + 1)
    assert w.drain.stop
    assert (w.lease.deadline, w.lease.grace_end) == (T + w.lease.plan.budget, T + 1 + w.lease.plan.grace_period)


def test_a_false_alarm_expires_five_seconds_after_the_grace_period() -> None:
    w = released()
    w.sleep(T + 34.9 - w.now)
    assert w.stands() is State.RELEASED
    w.sleep(0.1)
    assert w.lease.outcome is Outcome.LEASE_EXPIRED
    w.sleep_until(State.ARMED, within=5)
    assert w.record == Record(SHOP)


def test_a_hook_that_joins_a_drain_by_hand_starts_the_grace_period() -> None:
    """Else the lease could expire, and the instance be put online, while the kubelet is stopping the app."""
    w = Pocket(rules())
    w.sleep(10)
    w.trigger(Trigger.MANUAL)
    w.sleep(20)
    assert w.lease.hook_at is None
    w.trigger(Trigger.HOOK)
    assert w.lease.grace_end == T + 20 + 30
    assert w.lease.deadline == T + 17, "but what was promised stays"
    w.sleep(20)
    assert w.stands() is State.RELEASED


# --- told to stop


def test_told_to_stop_under_kubernetes_without_a_hook_it_undoes_the_drain_before_the_end() -> None:
    w = Pocket(rules(kubernetes=True))
    w.sleep(10)
    w.trigger(Trigger.SIGTERM)
    w.sleep(26.9)
    assert marked(w.record)
    w.sleep_until(State.ENDED, within=3)
    assert w.record == Record(SHOP)


def test_told_twice_while_it_undoes_the_drain_it_goes_on_undoing_it() -> None:
    w = Pocket(rules(kubernetes=True))
    w.sleep(10)
    w.trigger(Trigger.SIGTERM)
    w.sleep(26.9)
    w.sleep(0.1, cooperative=False)
    w.trigger(Trigger.SIGINT)
    w.sleep_until(State.ENDED, within=3)
    assert w.record == Record(SHOP)


def test_where_the_kernel_shows_nothing_nobody_is_said_to_listen_elsewhere() -> None:
    w = Pocket(rules())
    w.unseeable = True
    w.drain = replace(w.drain, peeks=0, looked=False, last_life=None)
    w.sleep(60)
    assert w.drain.peeks > 1
    assert not w.drain.looks_elsewhere
    w.unseeable, w.port, w.life = False, Port.CLOSED, None
    w.sleep(60)
    assert w.drain.looks_elsewhere, "it was looked, and Nacos lists it all the same"


def test_told_to_stop_elsewhere_its_exit_is_the_release() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.trigger(Trigger.SIGTERM)
    w.sleep_until(State.ENDED, within=6)
    assert (w.now, w.lease.outcome) == (CLEAN + 5, Outcome.DRAINED)
    assert marked(w.record), "the mark tells the next one whose it is"
    before = w.drain
    w.trigger()
    assert w.stands() is State.ENDED
    assert w.drain.lease == before.lease


def test_told_to_stop_after_the_hook_it_ends_when_the_app_has_exited() -> None:
    w = released()
    w.trigger(Trigger.SIGTERM)
    w.sleep(2)
    assert w.stands() is State.RELEASED
    w.exit()
    w.unregister()
    w.sleep_until(State.ENDED, within=3)
    assert w.lease.cleaned_at is not None


def test_told_to_stop_long_after_the_app_has_gone_it_ends_at_once() -> None:
    w = released()
    w.exit()
    w.sleep(60)
    w.trigger(Trigger.SIGTERM)
    w.sleep(0)
    assert w.stands() is State.ENDED
    assert w.lease.id == "d1"


def test_a_hook_after_everything_is_over_starts_a_drain_of_its_own() -> None:
    w = released()
    w.exit()
    w.sleep(60)
    w.trigger()
    assert (w.lease.id, w.drain.state) == ("d2", State.DRAINING)


# --- signals


def test_the_app_is_signalled_once_and_killed_when_its_time_is_over() -> None:
    w = Pocket(rules(release=Release.SIGNAL, kill=True))
    w.obeys = False
    w.sleep(10)
    w.trigger()
    w.sleep(15.2)
    assert w.lease.signalled_at == CLEAN + 5
    assert w.life is not None
    w.sleep(0.25)
    assert (w.lease.killed_at, w.lease.exited_at) == (CLEAN + 15, CLEAN + 15)


def test_a_signal_that_is_not_allowed_is_told_and_not_repeated() -> None:
    w = drained(release=Release.SIGNAL, kill=True)
    w.sleep(CLEAN + 4.9 - T)
    w.sleep(0.2, cooperative=False)
    [term] = [e for e in w.running if isinstance(e, Signal)]
    w.fail(term, "not allowed to signal process 101", again=False)
    assert w.lease.signal_error == "not allowed to signal process 101"
    assert not [e for e in w.running if isinstance(e, Signal)]
    w.sleep(9.7)
    w.sleep(0.2, cooperative=False)
    [kill] = [e for e in w.running if isinstance(e, Signal)]
    w.fail(kill, "not allowed either", again=False)
    assert w.lease.killed_at is not None
    assert not [e for e in w.running if isinstance(e, Signal)]


def test_a_person_who_drains_by_hand_stops_nothing() -> None:
    w = Pocket(rules(release=Release.SIGNAL, kill=True))
    w.sleep(10)
    w.trigger(Trigger.MANUAL)
    w.sleep(25)
    assert w.stands() is State.RELEASED
    assert (w.lease.signalled_at, w.lease.killed_at) == (None, None)


# --- Nacos


def test_a_proof_is_taken_back_when_a_node_lists_us_again() -> None:
    w = released()
    w.record = Record(SHOP)  # an operator, or a reconnect
    w.sleep(4)
    assert [what for _, what in w.wrote] == ["disable", "disable"]
    assert w.lease.proved
    w.lagging = {"b": Record(SHOP)}
    w.sleep(3)
    assert (w.lease.proved, w.lease.proved_at, w.lease.outcome) == (False, None, Outcome.UNPROVEN)
    assert w.lease.proved_at_release


def test_a_write_that_was_cut_off_by_resume_and_lands_late_is_undone() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.trigger()
    [look] = [e for e in w.running if isinstance(e, Look)]
    w.answer(look)
    [write] = [e for e in w.running if isinstance(e, Disable)]
    w.ask(resume=True)
    w.sleep(1)
    w.written(write)
    assert marked(w.record)
    w.sleep(5)
    assert w.record == Record(SHOP)


def test_a_node_that_refuses_and_is_called_down_is_left_out() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.faults, w.downs = {"b": "refuse"}, frozenset({"b"})
    w.trigger()
    w.sleep(1)
    assert w.lease.proved
    assert w.lease.removals[0].nodes[1].down


def test_the_member_list_is_asked_every_two_seconds_also_when_nobody_answers() -> None:
    w = Pocket(rules())
    w.sleep(10)
    w.faults = {"b": "refuse"}
    w.trigger()
    w.settle_down()
    assert not [e for e in w.running if isinstance(e, Roster)], "it has answered"
    w.sleep(2, cooperative=False)
    [roster] = [e for e in w.running if isinstance(e, Roster)]
    w.fail(roster)
    assert w.drain.roster_at == w.now + 2


def test_a_key_that_was_never_seen_is_waited_for_until_the_cap_and_never_called_gone() -> None:
    w = Pocket(rules())
    w.unregister()
    w.left = None
    w.sleep(10)
    w.drain = replace(w.drain, known={})
    w.trigger()
    w.sleep_until(State.RELEASED, within=30)
    assert w.lease.released_at == T + 12 + 5
    assert (w.lease.outcome, w.lease.proved) == (Outcome.NEVER_SEEN, False)


# --- armed


@pytest.mark.parametrize(
    ("residue", "record", "online"),
    [
        (Residue.OURS, Record(SHOP, enabled=False, mark="mark/0"), True),
        (Residue.OURS, Record(SHOP, enabled=False), False),
        (Residue.BORN, Record(SHOP, enabled=False), True),
        (Residue.NEVER, Record(SHOP, enabled=False, mark="mark/0"), False),
    ],
)
def test_a_record_that_an_earlier_sidecar_left_is_enabled_when_the_app_listens(
    *, residue: Residue, record: Record, online: bool
) -> None:
    w = Pocket(rules(residue=residue))
    w.record = record
    w.sleep(2.9)
    assert not w.record.enabled, "somebody may ask for the drain again"
    w.sleep(5)
    assert w.record.enabled is online


def test_what_an_operator_disables_in_this_life_is_not_a_newborns_residue() -> None:
    w = Pocket(rules(residue=Residue.BORN))
    w.sleep(10)
    w.record = Record(SHOP, enabled=False)
    w.sleep(120)
    assert not w.record.enabled


def test_a_restore_that_finds_nothing_for_75_seconds_leaves_the_duty_to_the_survey() -> None:
    w = released()
    w.exit()
    w.unregister()
    w.start()
    w.sleep(10)
    assert w.stands() is State.RESTORING
    w.sleep(70)
    assert w.stands() is State.ARMED
    w.record = Record(SHOP, enabled=False, mark="mark/1")
    w.sleep(75)
    assert w.record == Record(SHOP)


def test_a_neighbour_behind_the_same_address_is_never_guessed_at() -> None:
    w = Pocket(replace(rules(), ports=frozenset()))
    two = (Record(SHOP), Record(SHOP._replace(port=9090)))
    drain = replace(w.drain, app=App(Port.OPEN, w.life, frozenset({8080, 9090})))
    assert drain.claim(two) == ()
    assert drain.claim(two[:1]) == (), "the other may only not be registered yet"
    alone = replace(drain, app=App(Port.OPEN, w.life, frozenset({8080})))
    assert alone.claim(two) == two[:1]
    asked = Survey(SHOP.service, 0)
    assert drain.step(Surveyed(asked, two, nodes=w.names), w.now).ambiguous == (SHOP, two[1].instance)


def test_every_service_is_asked_once_before_the_first_pause() -> None:
    other = SHOP._replace(service=SHOP.service._replace(name="other"))
    w = Pocket(replace(rules(), services=(SHOP.service, other.service)))
    w.settle_down()
    assert w.drain.surveys == 2
    assert w.drain.survey_at == w.now + 1


def test_a_run_of_the_app_is_its_process_or_a_socket_that_it_shares() -> None:
    run = Life(frozenset({1, 2}), 7, 70.0)
    assert run.same(Life(frozenset({9}), 7, 70.0))
    assert run.same(Life(frozenset({2})))
    assert not run.same(Life(frozenset({9}), 7, 71.0)), "a pid may be used again"
    assert not run.same(Life(frozenset({9})))
    assert not run.same(None)


def test_readiness_latches_when_the_instance_is_first_seen() -> None:
    w = Pocket(rules())
    w.unregister()
    w.sleep(1)
    assert w.drain.survey_at <= w.now + 1, "eager"
    w.register()
    w.sleep(1)
    assert w.drain.ready
    w.unregister()
    w.sleep(100)
    assert w.drain.ready
    assert w.drain.survey_at > w.now


# --- any order


class DrainMachine(RuleBasedStateMachine):
    """A pod's life. Rules are what may happen; invariants are what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.world: Pocket | None = None
        self.before: tuple[str, list[Phase], int] = ("", [], 0)  # lease, phases, returns
        self.operator = False  # has an operator disabled the record?

    @property
    def w(self) -> Pocket:
        """The world, once it is made."""
        assert self.world is not None
        return self.world

    @initialize(
        grace=st.sampled_from([6.0, 10.0, 20.0, 30.0]),
        cache=st.sampled_from([0.0, 0.0, 35.0]),
        visible=st.booleans(),
        nodes=st.sampled_from([("a",), ("a", "b")]),
        release=st.sampled_from(Release),
        residue=st.sampled_from([Residue.OURS, Residue.OURS, Residue.BORN, Residue.NEVER]),
        kubernetes=st.booleans(),
        kill=st.booleans(),
        warm=st.booleans(),
        manners=st.sampled_from(["", "removes", "disables", "ignores", "refuses"]),
        undoable=st.booleans(),
        publisher=st.sampled_from(Publisher),
        watches=st.booleans(),
        init=st.booleans(),
    )
    def a_pod_starts(  # every setting that matters here
        self,
        *,
        grace: float,
        cache: float,
        visible: bool,
        nodes: tuple[str, ...],
        release: Release,
        residue: Residue,
        kubernetes: bool,
        kill: bool,
        warm: bool,
        manners: str,
        undoable: bool,
        publisher: Publisher,
        watches: bool,
        init: bool,
    ) -> None:
        made = rules(grace, cache, release=release, residue=residue, kubernetes=kubernetes, kill=kill, init=init)
        made = replace(made, quiet=Rule(look_back=5.0))
        if manners:
            made = replace(made, roads=(Road("actuator", undoable=undoable, inside=True),))
        self.world = Pocket(made, nodes=nodes, visible=visible, watches=watches)
        self.w.manners, self.w.publisher = manners, publisher
        if warm:
            self.w.sleep(10)

    # -- the sidecar's day ---------------------------------------------------------------------------------------------

    @rule(seconds=SECONDS, cooperative=st.booleans())
    def time_passes(self, *, seconds: float, cooperative: bool) -> None:
        self.w.sleep(seconds, cooperative=cooperative)

    @rule(trigger=st.sampled_from([each for each in Trigger if each is not Trigger.EXIT]))
    def somebody_asks_for_a_drain(self, trigger: Trigger) -> None:
        self.w.trigger(trigger)

    @rule(resume=st.booleans())
    def somebody_asks_for_resume_or_release(self, *, resume: bool) -> None:
        self.w.ask(resume=resume)

    @precondition(lambda self: self.world and self.world.running)
    @rule(data=st.data())
    def one_effect_is_answered(self, data: st.DataObject) -> None:
        self.w.answer(data.draw(st.sampled_from(sorted(self.w.running, key=repr))))

    @precondition(lambda self: self.world and self.world.running)
    @rule(data=st.data(), again=st.booleans(), refused=st.booleans(), applied=st.booleans())
    def one_effect_fails(self, data: st.DataObject, *, again: bool, refused: bool, applied: bool) -> None:
        """Also a write whose answer is lost on its way back."""
        effect = data.draw(st.sampled_from(sorted(self.w.running, key=repr)))
        if applied and isinstance(effect, Disable | Enable):
            self.w.written(effect)
        self.w.fail(effect, again=again, refused=refused)

    # -- Nacos ---------------------------------------------------------------------------------------------------------

    @rule(node=st.sampled_from(["a", "b"]), fault=st.sampled_from(["", "hang", "fail", "refuse", "reject"]))
    def a_node_changes(self, *, node: str, fault: str) -> None:
        self.w.faults[node] = fault

    @rule(node=st.sampled_from(["a", "b"]), lags=st.booleans())
    def a_node_lags(self, *, node: str, lags: bool) -> None:
        if lags:
            self.w.lagging[node] = self.w.record
        else:
            self.w.lagging.pop(node, None)

    @rule(down=st.sampled_from([frozenset[str](), frozenset({"a"}), frozenset({"b"})]))
    def the_member_list_changes(self, down: frozenset[str]) -> None:
        self.w.downs = down

    @precondition(lambda self: self.world and self.world.record is not None)
    @rule(enabled=st.booleans())
    def an_operator_clicks(self, *, enabled: bool) -> None:
        record = self.w.record
        assert record is not None
        if enabled != record.enabled:
            self.operator = not enabled
            self.w.record = Record(SHOP, enabled=enabled)

    # -- the app -------------------------------------------------------------------------------------------------------

    @rule(at_once=st.booleans())
    def the_app_exits(self, *, at_once: bool) -> None:
        self.w.exit()
        if at_once:
            self.w.unregister()

    @precondition(lambda self: self.world and self.world.drain.rules.init)
    @rule(at_once=st.booleans())
    def the_command_ends(self, *, at_once: bool) -> None:
        self.the_app_exits(at_once=at_once)
        self.w.trigger(Trigger.EXIT)
        assert self.w.drain.stop

    @precondition(lambda self: self.world and self.world.life is None)
    @rule(registers=st.booleans())
    def the_app_starts_again(self, *, registers: bool) -> None:
        self.w.start()
        if registers:
            self.w.register()

    @rule()
    def the_app_registers(self) -> None:
        if self.w.life is not None:
            self.w.register()

    @precondition(lambda self: self.world and self.world.life is None)
    @rule()
    def nacos_forgets_the_app(self) -> None:
        self.w.unregister()

    @precondition(lambda self: self.world and self.world.life is not None)
    @rule(hung=st.booleans(), port=st.sampled_from([Port.OPEN, Port.OPEN, Port.CLOSED]))
    def the_app_changes(self, *, hung: bool, port: Port) -> None:
        self.w.hung, self.w.port = hung, port

    @rule(peer=st.sampled_from(["10.0.1.1", "10.0.1.2", "127.0.0.1"]), answered=st.booleans())
    def somebody_calls(self, *, peer: str, answered: bool) -> None:
        self.w.call(peer, answered=answered)

    @rule(unseeable=st.booleans(), obeys=st.booleans())
    def the_container_changes(self, *, unseeable: bool, obeys: bool) -> None:
        self.w.unseeable, self.w.obeys = unseeable, obeys

    # -- the laws ------------------------------------------------------------------------------------------------------

    @invariant()
    def the_release_is_never_later_than_the_deadline(self) -> None:
        if self.world is None or self.w.drain.lease is None:
            return
        lease = self.w.lease
        if lease.released_at is not None:
            assert lease.started <= lease.released_at <= lease.deadline
            assert lease.why is not None
        elif self.w.drain.state is State.DRAINING:
            assert self.w.now < lease.deadline
        assert (self.w.drain.state is State.RELEASED) <= (lease.released_at is not None)

    @invariant()
    def nobody_who_was_seen_calling_a_moment_ago_is_left_alone(self) -> None:
        if self.world is None or self.w.drain.lease is None or self.w.drain.state is not State.RELEASED:
            return
        lease, settle = self.w.lease, self.w.drain.settle
        if lease.why is Why.SETTLED and lease.verdict is not None and lease.verdict.clause is not Clause.CAP:
            assert settle.source == "netlink"
            assert lease.released_at is not None
            assert lease.settled_from is not None
            assert lease.released_at >= lease.settled_from + settle.rule.floor
            known = lease.released_at - 2.5  # the oldest sample that a verdict may rest on: its period and its timeout
            for times in self.w.asked.values():
                assert not any(lease.released_at - settle.rule.quiet < at <= known for at in times)

    @invariant()
    def gone_is_said_only_when_every_node_that_counts_showed_it(self) -> None:
        if self.world is None or self.w.drain.lease is None or self.w.drain.state is State.RESTORING:
            return
        if self.w.drain.state is State.ARMED:  # the idle survey does not prove
            return
        lease = self.w.lease
        if lease.proved:
            for r in lease.removals:
                owing = [n.name for n in r.nodes if n.required and not n.down]
                assert owing
                assert not any(self.w.last_read[name] for name in owing)

    @invariant()
    def phases_come_in_order_and_none_is_taken_back(self) -> None:
        if self.world is None or self.w.drain.lease is None:
            return
        lease = self.w.lease
        seen = [p.phase for p in phases(lease, self.w.drain.rules.release, self.w.now)]
        assert seen == ORDER[: len(seen)]
        returns = sum(r.returns for r in lease.removals)
        before_id, before, before_returns = self.before
        if lease.id == before_id and returns == before_returns:
            assert len(seen) >= len(before)
        self.before = (lease.id, seen, returns)

    @invariant()
    def writes_are_for_the_life_that_is_drained(self) -> None:
        if self.world is None:
            return
        drain = self.w.drain
        writes = [e for e in drain.wanted(self.w.now) if isinstance(e, Write)]
        assert len(writes) <= 1
        for write in writes:
            match write:
                case Disable():
                    assert drain.state in {State.DRAINING, State.RELEASED}
                    assert self.w.lease.exited_at is None
                    assert write.mark.startswith("mark/")
                case Sweep() | Delete():
                    assert self.w.lease.exited_at is not None
                case Enable():
                    assert drain.state is State.RESTORING
                case Offline():
                    assert drain.state in {State.DRAINING, State.RELEASED}
                    assert self.w.lease.exited_at is None
                case Online():
                    assert drain.state is State.RESTORING
                    assert drain.restore_reason not in {"new_life", "startup"}

    @invariant()
    def a_person_who_drains_by_hand_stops_nothing(self) -> None:
        if self.world is None or self.w.drain.lease is None:
            return
        signals = any(isinstance(e, Signal | Shutdown) for e in self.w.drain.wanted(self.w.now))
        assert not (signals and not self.w.lease.stopping)
        assert not (signals and self.w.lease.release(self.w.drain.rules.release) is Release.HOOK)

    @invariant()
    def only_a_sidecar_that_was_told_to_stop_ends(self) -> None:
        if self.world is not None and self.w.drain.state is State.ENDED:
            assert self.w.drain.stop
            seen_nothing = self.w.drain.rules.init and self.w.drain.lease is None
            assert seen_nothing or self.w.lease.final_at is not None
            assert not self.w.drain.wanted(self.w.now)

    @invariant()
    def a_second_look_at_the_same_moment_changes_nothing(self) -> None:
        if self.world is not None:
            assert self.w.drain.step(Tick(), self.w.now) == self.w.drain

    @invariant()
    def it_is_never_left_without_something_to_wait_for(self) -> None:
        if self.world is None or self.w.drain.state is State.ENDED:
            return
        wake = self.w.drain.wake(self.w.now)
        assert wake is not None or self.w.running
        if wake is not None:
            assert wake > self.w.now
            # nothing becomes due before it was announced
            between = (self.w.now + wake) / 2
            assert between == wake or set(self.w.drain.wanted(between)) == set(self.w.drain.wanted(self.w.now))

    @invariant()
    def the_report_can_always_be_told(self) -> None:
        if self.world is None or self.w.drain.lease is None:
            return
        told = report(self.w.lease, self.w.drain.settle, self.w.drain.rules.release, self.w.now, str)
        assert json.loads(json.dumps(told)) == told
        lease = self.w.lease
        assert told["proved_gone"] is lease.proved
        assert (told["outcome"] in {"drained", "capped"}) <= lease.proved
        assert (told["outcome"] == "lease_expired") == (lease.forced is Outcome.LEASE_EXPIRED)
        for shown, r in zip(told["instances"], sorted(lease.counted, key=lambda r: r.proved), strict=True):  # type: ignore[call-overload]  # it is a list
            assert r.seen or not any(n["view"] == "gone" for n in shown["nodes"])

    # -- the end of every story ----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """The world becomes quiet and answers. Told to stop, it ends; else it comes back, and the mark is gone."""
        if self.world is None:
            return
        w = self.w
        quiet_from = w.now
        w.faults.clear()
        w.lagging.clear()
        w.unseeable, w.hung, w.downs = False, False, frozenset()
        w.port = Port.OPEN if w.life is not None else Port.CLOSED
        w.comes_back = True
        if not w.obeys and w.drain.lease is not None and w.drain.lease.signalled_at is not None:
            w.exit()  # whoever ignores SIGTERM is killed by what runs the container
        w.obeys = True
        w.settle_down()
        w.register()
        if w.drain.stop:
            w.sleep_until(State.ENDED, within=w.drain.rules.plan.grace_period + 80)
            self._check_the_undone(w, quiet_from)
            return
        w.sleep_until(State.ARMED, within=w.drain.rules.plan.grace_period + 90)
        w.sleep(61)  # two idle surveys
        w.sleep_until(State.ARMED, within=80)
        if w.drain.rules.residue is not Residue.NEVER:
            assert not marked(w.record), "our mark is left for good on an app that serves"
        if not self.operator and w.drain.rules.residue is not Residue.NEVER:
            assert w.record is not None
            assert w.record.enabled

    def _check_the_undone(self, w: Pocket, quiet_from: float) -> None:
        """Under Kubernetes, without a hook, an app that nobody stops is put online again before we go."""
        if w.drain.lease is None:  # an init that has seen nothing
            return
        alone = w.lease.hook_at is None and w.lease.release(w.drain.rules.release) is Release.HOOK
        in_time = w.lease.started < w.lease.grace_end - 3.5 and quiet_from < w.lease.grace_end - 3.5
        if w.drain.rules.kubernetes and alone and in_time and w.lease.exited_at is None:
            assert not marked(w.record)


DrainMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestDrain = DrainMachine.TestCase
