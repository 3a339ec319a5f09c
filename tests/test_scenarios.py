"""Whole drains on a virtual clock: each asserts the second, and what the report says."""

import asyncio
from dataclasses import replace

import pytest
from sim import SHOP, Node, SimApp, SimNacos, World, hook, ready, rules, world

from sidecar.drain import Drain, Refusal
from sidecar.lease import Release, Residue, State, Trigger
from sidecar.registration import Instance, Service


pytestmark = pytest.mark.looptime


async def ended(w: World) -> float:
    await w.runner.ended()
    return w.now()


# The write leaves after one look (0.01) and is answered at 0.02; the list is clean 0.5 s later; reads start every
# quarter of a second and take 0.01: the first clean one is at 0.76, the second at 1.01.
CLEAN, PROVED = 0.76, 1.01


async def test_a_drain_waits_for_the_cap_where_nobody_can_be_watched() -> None:
    async with world() as w:
        assert await hook(w) == CLEAN + 40
        assert w.phases() == {"DEREGISTER": "met", "VERIFY": "met", "SETTLE": "expired", "RELEASE": "met"}
        assert w.report()["outcome"] == "drained"
        assert w.report()["proved_gone"] is True
        assert w.report()["final"] is False


async def test_the_first_request_leaves_at_the_trigger() -> None:
    async with world() as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(0.3)
        assert w.nacos.trace[0][0] == 0
        assert (0.01, "disable a") in w.nacos.trace


async def test_a_fresh_snapshot_saves_the_look() -> None:
    async with world(warm=0.5) as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(0.1)
        assert (0.0, "disable a") in w.nacos.trace


async def test_push_consumers_let_the_app_go_after_five_seconds() -> None:
    async with world(rules(cache=0)) as w:
        assert await hook(w) == CLEAN + 5


async def test_the_deadline_cuts_settle_short() -> None:
    async with world(rules(grace=30)) as w:
        assert await hook(w) == 17
        assert w.phases()["SETTLE"] == "expired"


async def test_a_grace_period_that_is_too_short_still_sends_the_write() -> None:
    async with world(rules(grace=10)) as w:
        assert await hook(w) == 0
        await w.at(0.1)
        assert (0.01, "disable a") in w.nacos.trace
        assert "too short" in str(w.report()["notes"])


async def test_the_weight_and_the_mark_go_with_the_write() -> None:
    async with world() as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(1)
        record = w.nacos.records[SHOP]
        assert record.weight == 3.0
        assert record.mark.endswith("Z/pod-1")


# -- Nacos in trouble ------------------------------------------------------------------------------------------------


async def test_a_node_that_hangs_is_unknown_and_never_gone() -> None:
    nacos = SimNacos(a=Node(), b=Node())
    async with world(rules(grace=120), nacos) as w:
        w.nacos.named["b"].fault = "hang"
        answered = await hook(w)
        assert answered == round(0.02 + 2.5 + 40, 2)  # 2.5 s after the acknowledged write, then the cap
        assert w.report()["outcome"] == "unproven"
        assert "no answer from b" in str(w.report()["phases"])


async def test_a_mark_that_somebody_has_enabled_in_the_console_is_emptied() -> None:
    nacos = SimNacos()
    nacos.register()
    nacos.records[SHOP] = replace(nacos.records[SHOP], mark="2026-01-31T12:00:00Z/pod-0")
    async with world(None, nacos, registered=False) as w:
        assert w.runner.drain.state is State.ARMED
        assert not nacos.records[SHOP].mark
        assert nacos.records[SHOP].enabled


@pytest.mark.parametrize("dies", [0.3, 0.55, 0.6, 0.9, 1.4])
@pytest.mark.parametrize("lag", [0.0, 0.25, 0.5])
async def test_every_turn_of_the_story_is_told_even_where_results_come_by_the_dozen(dies: float, lag: float) -> None:
    nacos = SimNacos(a=Node(lag=lag), b=Node(), c=Node())
    async with world(rules(cache=0), nacos) as w:
        told: list[str] = []

        def hear(before: Drain, after: Drain, *_: object) -> None:
            was, now = before.lease, after.lease
            names = ("released_at", "exited_at", "final_at")
            told.extend(n for n in names if getattr(now, n, None) is not None and getattr(was, n, None) is None)

        w.runner.observers.append(hear)
        answered = asyncio.create_task(hook(w))
        await w.at(dies)
        w.app.exit()
        nacos.deregister()
        await answered
        await w.at(12)
        assert sorted(told) == ["exited_at", "final_at", "released_at"]


async def test_what_leaves_by_itself_after_an_unproved_release_is_no_merit_of_the_drain() -> None:
    nacos = SimNacos(a=Node(fault="reject", on="write"))
    async with world(rules(grace=20), nacos) as w:
        await hook(w)
        told = w.phases()
        w.app.exit()
        nacos.deregister()
        await w.at(w.now() + 3)
        assert w.report()["final"] is True
        assert w.report()["proved_gone"] is True, "it is gone by now"
        assert w.report()["outcome"] == "unproven"
        assert {name: w.phases()[name] for name in told} == told, "what was told is not taken back"


async def test_nacos_that_is_down_releases_within_the_budget() -> None:
    nacos = SimNacos(a=Node(), b=Node())
    async with world(rules(grace=60), nacos) as w:
        for node in nacos.named.values():
            node.fault = "refuse"
        assert await hook(w) == 47
        assert w.report()["outcome"] == "unproven"
        assert w.report()["proved_gone"] is False
        assert w.phases()["DEREGISTER"] == "expired"


async def test_a_refused_node_that_another_calls_down_is_left_out() -> None:
    nacos = SimNacos(a=Node(), b=Node(), c=Node())
    async with world(None, nacos) as w:
        nacos.named["b"].fault = "refuse"
        nacos.downs = frozenset({"b"})
        assert await hook(w) == CLEAN + 40
        assert w.report()["outcome"] == "drained"
        assert "b is down" in str(w.report()["notes"])


async def test_a_leader_election_delays_the_write_and_not_the_release() -> None:
    async with world() as w:
        w.nacos.named["a"].fault, w.nacos.named["a"].on = "unavailable", "write"
        asyncio.get_running_loop().call_later(13, setattr, w.nacos.named["a"], "fault", "")
        answered = await hook(w)
        assert w.report()["outcome"] == "drained"
        assert 53 < answered < 57  # the cap counts from the clean list


async def test_a_refusal_is_told_and_the_app_goes_anyway() -> None:
    async with world(rules(grace=60)) as w:
        w.nacos.named["a"].fault, w.nacos.named["a"].on = "reject", "write"
        assert await hook(w) == 47  # listed all the time: SETTLE runs to its cap, within the budget
        assert w.phases()["DEREGISTER"] == "failed"
        assert w.report()["outcome"] == "unproven"
        assert "403" in str(w.report()["notes"])


async def test_a_slow_node_is_waited_for_by_the_proof() -> None:
    nacos = SimNacos(a=Node(), b=Node(lag=3.0))
    async with world(None, nacos) as w:
        assert await hook(w) == 3.76 + 40  # b is clean at 3.52; the next read of it starts at 3.75


async def test_listed_again_in_the_same_life_is_taken_out_again() -> None:
    async with world() as w:
        loop = asyncio.get_running_loop()
        loop.call_later(10, w.nacos.set_enabled, True)
        answered = await hook(w)
        assert [t for t, what in w.nacos.trace if what == "disable a"] == [0.01, 11.01]
        assert answered > 11 + 40
        assert "listed again 1 time" in str(w.report()["notes"])
        assert w.report()["proved_gone"] is True


# -- whose record is it ----------------------------------------------------------------------------------------------


async def test_an_instance_disabled_by_an_operator_is_not_touched() -> None:
    async with world(registered=False, warm=0) as w:
        w.nacos.register()
        w.nacos.set_enabled(False)
        await w.at(50)
        w.mark_zero()
        answered = await hook(w)
        assert not [what for _, what in w.nacos.trace if what.startswith("disable")]
        assert w.phases()["DEREGISTER"] == "skipped"
        assert w.report()["outcome"] == "drained"
        assert answered < 41
        w.app.exit()
        w.nacos.deregister()
        await w.at(answered + 5)
        assert w.nacos.left[SHOP].enabled is False  # nothing of an operator's is cleaned up


async def test_an_instance_that_was_never_seen_is_not_called_gone() -> None:
    async with world(registered=False) as w:
        answered = await hook(w)
        assert answered == 25 + 40  # VERIFY's limit, then the cap: somebody may call it under another name
        assert w.report()["outcome"] == "never_seen"
        assert w.report()["proved_gone"] is False
        assert "namespace" in str(w.report()["phases"])


async def test_nothing_registered_and_no_app_releases_at_once() -> None:
    app = SimApp()
    app.exit()
    async with world(registered=False, app=app) as w:
        assert await hook(w) == 0.01  # Nacos' answer is waited for: unknown is not nothing
        assert w.report()["outcome"] == "nothing_registered"


async def test_nothing_is_called_unregistered_while_nacos_does_not_answer() -> None:
    app = SimApp()
    app.exit()
    async with world(registered=False, app=app) as w:
        w.nacos.named["a"].fault = "hang"
        assert await hook(w) == 0.5
        assert w.report()["outcome"] == "never_seen"


async def test_an_operator_who_disables_it_at_the_last_moment_is_not_overruled() -> None:
    """The lists still show it for half a second; only the record tells."""
    async with world(rules(grace=60)) as w:
        w.nacos.set_enabled(False)
        await hook(w)
        await w.at(70)
        assert not [what for _, what in w.nacos.trace if what.startswith(("disable", "enable"))]
        assert w.nacos.records[SHOP].enabled is False


async def test_an_instance_that_becomes_unhealthy_in_mid_drain_still_gets_its_time() -> None:
    async with world() as w:
        loop = asyncio.get_running_loop()
        loop.call_later(5, lambda: w.nacos.records.update({SHOP: replace(w.nacos.records[SHOP], healthy=False)}))
        assert await hook(w) == CLEAN + 40


async def test_a_stray_drain_does_not_shorten_the_real_stop() -> None:
    """The pod's own hook comes 100 s later and has its whole grace period, whatever was asked before."""
    async with world(rules(grace=120)) as w:
        await hook(w)
        await w.at(100)
        assert await hook(w) == 100
        await w.at(180)
        assert w.nacos.records[SHOP].enabled is False
        assert w.runner.drain.state is State.RELEASED


async def test_a_stop_that_joins_a_manual_drain_signals_the_app() -> None:
    async with world(rules(cache=0, release=Release.SIGNAL)) as w:
        w.app.on_signal = lambda: None
        w.runner.trigger(Trigger.MANUAL)
        await w.at(3)
        await hook(w)
        await asyncio.sleep(0.1)
        assert [s for _, s in w.app.signals] == ["TERM"]
        assert w.runner.resume() == Refusal("the app was told to stop")


async def test_a_registered_port_on_which_nobody_listens_is_said_and_not_taken_for_an_exit() -> None:
    """Registered under a mapped port: the app is there all right, only not where it says."""
    app = SimApp()
    app.close()
    async with world(rules(cache=0), app=app) as w:
        assert await hook(w) == CLEAN + 5
        assert w.report()["outcome"] == "drained"
        assert "NACOS_DRAIN_APP_PORTS" in str(w.report()["notes"])


async def test_the_write_goes_to_a_node_that_answers() -> None:
    nacos = SimNacos(a=Node(), b=Node())
    async with world(None, nacos) as w:
        nacos.named["a"].fault = "hang"
        w.runner.trigger(Trigger.HOOK)
        await w.at(0.1)
        assert [what for _, what in w.nacos.trace if what.startswith("disable")] == ["disable b"]


async def test_an_operator_s_instance_and_a_wrong_name_are_asked_for_sparingly() -> None:
    async with world(registered=False, warm=0) as w:
        w.nacos.register()
        w.nacos.set_enabled(False)
        await w.at(100)
        w.mark_zero()
        await w.at(600)
        assert len(w.nacos.trace) <= 22  # two reads a minute
    async with world(registered=False, warm=1000) as w:
        w.mark_zero()
        await w.at(600)
        assert len(w.nacos.trace) <= 22


async def test_an_app_that_registers_in_mid_drain_is_taken_out() -> None:
    async with world(registered=False) as w:
        asyncio.get_running_loop().call_later(3, w.nacos.register)
        await hook(w)
        assert w.report()["outcome"] == "drained"
        assert w.nacos.records[SHOP].enabled is False


# -- the app ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visible", [True, False])
async def test_an_app_that_dies_ends_every_wait_but_not_the_proof(visible: bool) -> None:
    async with world(app=SimApp(visible=visible)) as w:
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, w.app.exit)
        loop.call_later(0.3, w.nacos.deregister)
        answered = await hook(w)
        assert answered == (0.3 if visible else 0.5)
        assert w.report()["proved_gone"] is False
        await w.at(10)
        assert w.report()["proved_gone"] is True
        assert w.report()["final"] is True


async def test_a_closed_port_ends_the_waits_and_the_write_still_goes_out() -> None:
    async with world(app=SimApp(visible=False)) as w:
        w.app.close()
        assert await hook(w) == 0
        await w.at(1)
        assert (0.01, "disable a") in w.nacos.trace


async def test_a_hung_app_is_left_without_settle() -> None:
    async with world() as w:
        w.app.hangs = True
        assert await hook(w) == PROVED
        assert w.phases()["SETTLE"] == "skipped"
        assert w.report()["outcome"] == "drained"


async def test_an_app_that_nacos_lists_as_unhealthy_is_left_without_settle() -> None:
    async with world(registered=False, warm=0) as w:
        w.nacos.register(healthy=False)
        await w.at(50)
        w.mark_zero()
        assert await hook(w) == PROVED


# -- the lease -------------------------------------------------------------------------------------------------------


async def test_a_second_hook_joins_and_both_are_answered() -> None:
    async with world() as w:
        first = asyncio.ensure_future(hook(w))
        await w.at(20)
        assert await hook(w) == await first == CLEAN + 40
        assert len([x for x in w.nacos.trace if x[1] == "disable a"]) == 1


async def test_a_client_that_hangs_up_cancels_nothing() -> None:
    async with world() as w:
        first = asyncio.ensure_future(hook(w))
        await w.at(5)
        first.cancel()
        assert await hook(w) == CLEAN + 40


async def test_release_ends_all_waits() -> None:
    async with world() as w:
        asyncio.get_running_loop().call_later(7, w.runner.release)
        assert await hook(w) == 7
        assert w.phases()["SETTLE"] == "skipped"


async def test_resume_brings_the_instance_back_and_rearms() -> None:
    async with world() as w:
        waiting = asyncio.ensure_future(hook(w))
        await w.at(5)
        assert w.runner.resume() is None
        assert await waiting == 5
        await w.at(7)
        assert w.report()["outcome"] == "aborted"
        assert w.nacos.records[SHOP] == w.nacos.named["a"].shows[SHOP]
        assert w.nacos.records[SHOP].mark == ""
        assert w.nacos.records[SHOP].weight == 3.0
        assert w.runner.drain.state is State.ARMED
        assert await hook(w) == 7 + CLEAN + 40  # ready for the next one


async def test_resume_in_the_middle_of_the_write_still_brings_the_instance_back() -> None:
    """A write that was cut off may land all the same; the mark must not stay on a live app."""
    async with world() as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(0.015)
        assert w.runner.resume() is None
        w.nacos.records[SHOP] = replace(w.nacos.records[SHOP], enabled=False, mark="late/pod-1")
        await w.at(10)
        assert w.nacos.records[SHOP].enabled is True
        assert w.nacos.records[SHOP].mark == ""
        assert w.runner.drain.state is State.ARMED


async def test_a_false_alarm_gives_the_instance_back_when_the_lease_expires() -> None:
    async with world(rules(grace=60)) as w:
        await hook(w)
        await w.at(64.9)
        assert w.nacos.records[SHOP].enabled is False
        await w.at(66)
        assert w.nacos.records[SHOP].enabled is True
        assert w.report()["outcome"] == "lease_expired"
        assert w.runner.drain.state is State.ARMED


@pytest.mark.parametrize("visible", [True, False])
async def test_a_liveness_restart_is_born_disabled_and_brought_back(visible: bool) -> None:
    """The pod lives on, the app is back on the same address a second after its exit, and we get no signal."""
    async with world(app=SimApp(visible=visible)) as w:
        answered = await hook(w)
        w.app.exit()
        w.nacos.deregister()
        await w.at(answered + 1)
        w.app.restart()
        w.nacos.register()
        await w.at(answered + 5)
        assert w.nacos.records[SHOP].enabled is True
        assert w.nacos.records[SHOP].mark == ""
        assert w.runner.drain.state is State.ARMED
        assert w.report()["final"] is True
        w.mark_zero()
        assert await hook(w) == CLEAN + 40


async def test_a_gone_instance_is_swept_once_its_absence_was_read() -> None:
    async with world() as w:
        answered = await hook(w)
        w.app.exit()
        w.nacos.deregister()
        await w.at(answered + 3)
        assert [what for _, what in w.nacos.trace if what.startswith("sweep")] == ["sweep a"]
        assert w.phases()["CLEANUP"] == "met"
        assert SHOP not in w.nacos.left


async def test_clear_residue_never_leaves_a_new_life_as_it_was_born() -> None:
    async with world(rules(residue=Residue.NEVER)) as w:
        answered = await hook(w)
        w.app.exit()
        w.nacos.deregister()
        await w.at(answered + 1)
        w.app.restart()
        w.nacos.register()
        await w.at(answered + 60)
        assert w.nacos.records[SHOP].enabled is False


async def test_a_new_sidecar_restores_what_an_old_one_marked() -> None:
    nacos = SimNacos()
    async with world(None, nacos) as w:
        await hook(w)
    async with world(None, nacos, SimApp(), registered=False, warm=0) as w:
        await w.at(2.9)
        assert nacos.records[SHOP].enabled is False  # a drain may still be asked for
        await w.at(5)
        assert nacos.records[SHOP].enabled is True
        assert nacos.records[SHOP].mark == ""


async def test_a_new_sidecar_that_is_asked_within_three_seconds_drains_on() -> None:
    nacos = SimNacos()
    async with world(None, nacos) as w:
        await hook(w)
    async with world(None, nacos, SimApp(), registered=False, warm=1) as w:
        answered = await hook(w)
        assert w.report()["outcome"] == "drained"  # the marked record counts as seen
        assert answered < 41
        assert nacos.records[SHOP].enabled is False


# -- our own SIGTERM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["signal first", "hook first"])
async def test_signal_and_hook_in_either_order_are_one_drain(order: str) -> None:
    async with world() as w:
        if order == "signal first":
            w.runner.trigger(Trigger.SIGTERM)
            await w.at(0.02)
        waiting = asyncio.ensure_future(hook(w))
        await asyncio.sleep(0.02)
        if order == "hook first":
            w.runner.trigger(Trigger.SIGTERM)
        answered = await waiting
        assert abs(answered - CLEAN - 40) < 0.03
        w.app.exit()
        w.nacos.deregister()
        assert await ended(w) - answered < 1
        assert w.phases()["CLEANUP"] == "met"


async def test_sigterm_after_the_app_ends_the_sidecar_at_once() -> None:
    """A native sidecar: the hook, the app's exit, then our SIGTERM."""
    async with world() as w:
        answered = await hook(w)
        w.app.exit()
        w.nacos.deregister()
        await w.at(answered + 5)
        w.runner.trigger(Trigger.SIGTERM)
        assert await ended(w) == answered + 5


async def test_sigterm_alone_under_kubernetes_undoes_it_when_the_app_lives_on() -> None:
    async with world(rules(grace=60)) as w:
        w.runner.trigger(Trigger.SIGTERM)
        assert 57 < await ended(w) < 59
        assert w.nacos.records[SHOP].enabled is True
        assert w.nacos.records[SHOP].mark == ""
        assert "no preStop hook" in str(w.report()["notes"])


async def test_sigterm_alone_under_kubernetes_watches_the_app_exit() -> None:
    async with world(rules(grace=60)) as w:
        w.runner.trigger(Trigger.SIGTERM)
        await w.at(2)
        w.app.exit()
        w.nacos.deregister()
        assert await ended(w) < 3.5
        assert w.report()["proved_gone"] is True


async def test_sigterm_outside_kubernetes_makes_our_exit_the_release() -> None:
    async with world(rules(grace=60, kubernetes=False)) as w:
        w.runner.trigger(Trigger.SIGTERM)
        assert await ended(w) == CLEAN + 40
        assert w.nacos.records[SHOP].enabled is False  # the app is stopped next; the mark expires with it
        assert w.report()["final"] is True


async def test_resume_is_refused_after_our_sigterm() -> None:
    async with world() as w:
        w.runner.trigger(Trigger.SIGTERM)
        assert w.runner.resume() == Refusal("this sidecar was told to stop")


async def test_the_sidecar_ends_before_the_grace_period_does() -> None:
    async with world(rules(grace=60)) as w:
        waiting = asyncio.ensure_future(hook(w))
        w.runner.trigger(Trigger.SIGTERM)
        await waiting
        assert await ended(w) == 59  # the app ignores its SIGTERM: we say so while we still can
        assert w.phases()["AWAIT_EXIT"] == "expired"


# -- release by signal -----------------------------------------------------------------------------------------------


async def test_release_by_signal_reaches_the_app() -> None:
    async with world(rules(cache=0, release=Release.SIGNAL)) as w:
        answered = await hook(w)
        await asyncio.sleep(0.1)
        assert [s for _, s in w.app.signals] == ["TERM"]
        assert w.report()["state"] in {"released", "ended"}
        assert answered == CLEAN + 5


async def test_an_app_that_ignores_its_signal_is_killed_when_so_configured() -> None:
    async with world(rules(cache=0, release=Release.SIGNAL, kill=True)) as w:
        w.app.on_signal = lambda: None
        answered = await hook(w)
        await w.at(answered + 11)
        assert [(round(t - w.zero - answered, 1), s) for t, s in w.app.signals] == [(0, "TERM"), (10, "KILL")]


async def test_a_manual_drain_signals_nobody() -> None:
    async with world(rules(cache=0, release=Release.SIGNAL)) as w:
        await w.runner.released(w.runner.trigger(Trigger.MANUAL))
        await asyncio.sleep(1)
        assert w.app.signals == []


# -- readiness -------------------------------------------------------------------------------------------------------


async def test_readiness_latches_with_the_first_sight() -> None:
    async with world(registered=False, warm=0) as w:
        assert await ready(w, 5) is False
        w.nacos.register()
        assert await ready(w, 7) is True
        w.nacos.named["a"].fault = "refuse"
        assert await ready(w, 200) is True


async def test_readiness_does_not_wait_for_nacos_beside_an_app_that_was_there_first() -> None:
    async with world(None, SimNacos(a=Node(fault="refuse")), SimApp(visible=False), registered=False, warm=0) as w:
        assert await ready(w, 59) is False
        assert await ready(w, 76) is True


async def test_an_idle_sidecar_asks_nacos_twice_a_minute() -> None:
    async with world() as w:
        w.mark_zero()
        await w.at(600)
        assert len(w.nacos.trace) <= 20


async def test_a_hook_before_the_app_listens_does_not_take_the_next_life_for_it() -> None:
    """Its port was closed, so it was told to stop at once; what opens a second later is a new life."""
    async with world(app=SimApp(visible=False)) as w:
        w.app.close()
        assert await hook(w) == 0
        await w.at(1)
        w.app.restart()
        await w.at(10)
        assert w.nacos.records[SHOP].enabled is True
        assert w.runner.drain.state is State.ARMED


async def test_thirty_services_are_ready_as_soon_as_each_was_asked_once() -> None:
    services = tuple(Service(f"s{n}") for n in range(30))
    nacos = SimNacos()
    for service in services:
        nacos.register(Instance(service, SHOP.ip, SHOP.port))
    async with world(replace(rules(), services=services), nacos, registered=False, warm=0) as w:
        assert await ready(w, 2.0) is True


async def test_of_several_listeners_none_is_guessed_and_the_next_step_is_said() -> None:
    """A neighbour behind the same address may be the one that Nacos shows first."""
    app = SimApp()
    app.ports = frozenset({8080, 9090})
    async with world(replace(rules(cache=0), ports=frozenset()), app=app) as w:
        assert w.runner.drain.ambiguous == (SHOP,)
        assert await hook(w) == 25 + 5  # VERIFY's limit, then the cap
        assert w.report()["outcome"] == "never_seen"
        assert w.phases()["DEREGISTER"] == "failed"
        assert "NACOS_DRAIN_NACOS_PORT" in str(w.report()["phases"])
        assert w.nacos.records[SHOP].enabled is True


async def test_a_person_who_stops_the_sidecar_stops_not_the_app() -> None:
    """Ctrl-C at a terminal: what was taken is given back before we go."""
    async with world(rules(grace=60, kubernetes=False)) as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(3)
        w.runner.leave()
        assert await ended(w) < 5
        assert w.nacos.records[SHOP].enabled is True
        assert w.nacos.records[SHOP].mark == ""
        assert w.report()["outcome"] == "aborted"


async def test_a_person_who_stops_an_idle_sidecar_or_insists_does_not_wait() -> None:
    async with world() as w:
        w.runner.leave()
        assert await ended(w) == 0
    async with world() as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(3)
        w.nacos.named["a"].fault = "hang"
        w.runner.leave()
        w.runner.leave()
        assert await ended(w) == 3


async def test_a_drain_that_was_given_back_does_not_go_on_expiring() -> None:
    """What its report said at its end is what it says a minute later."""
    async with world(rules(grace=60)) as w:
        w.nacos.named["a"].fault, w.nacos.named["a"].on = "unavailable", "write"
        w.runner.trigger(Trigger.HOOK)
        await w.at(1)
        assert w.runner.resume() is None
        before = w.report()["phases"]
        await w.at(60)
        assert w.report()["phases"] == before
