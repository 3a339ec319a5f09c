"""An app with us as its init, on a virtual clock: what it is told after a drain, and what happens when it just ends."""

from dataclasses import replace

import pytest
from sim import SHOP, Node, SimApp, SimNacos, World, hook, rules, world

from sidecar.drain import Rules
from sidecar.lease import Release, State, Trigger
from sidecar.registration import Publisher


pytestmark = pytest.mark.looptime
CLEAN = 0.76  # see test_scenarios.py
GIVEN_UP = 5.0  # seconds after the app's end, whatever Nacos does


def init(**changes: object) -> Rules:
    """The rules of a pod whose app we have started."""
    return replace(rules(cache=0, **changes), init=True)  # type: ignore[arg-type]  # a test names settings by keyword


async def exit_by_itself(w: World) -> float:
    """The command has ended, and nobody asked for it; the second at which we do."""
    w.app.exit()
    w.runner.trigger(Trigger.EXIT)
    await w.runner.ended()
    return w.now()


def held_by(publisher: Publisher, *nodes: str) -> SimNacos:
    """A Nacos that says so of the instance."""
    nacos = SimNacos(**{name: Node() for name in nodes or ("a",)})
    nacos.holder = publisher
    return nacos


def signals(w: World) -> list[tuple[float, str]]:
    """What the app was sent, and when."""
    return [(round(at - w.zero, 3), what) for at, what in w.app.signals]


def written(w: World) -> list[str]:
    """What was written to Nacos."""
    return [what for _, what in w.nacos.trace if what.split()[0] not in {"read", "look"}]


# -- told to stop ----------------------------------------------------------------------------------------------------


async def test_a_hook_that_was_answered_stays_so_until_the_signal_after_it_is_passed_on() -> None:
    async with world(init()) as w:
        await hook(w)
        assert w.phases()["RELEASE"] == "met"
        w.runner.trigger(Trigger.SIGTERM)
        assert w.phases()["RELEASE"] == "met", "in the moment before it is passed on"
        await w.runner.ended()
        assert signals(w) == [(CLEAN + 5, "TERM")]


async def test_a_signal_is_passed_on_when_the_callers_have_stopped() -> None:
    async with world(init()) as w:
        w.runner.trigger(Trigger.SIGTERM)
        await w.runner.ended()
        assert signals(w) == [(CLEAN + 5, "TERM")]
        assert w.report()["outcome"] == "drained"
        assert w.phases()["RELEASE"] == "met"
        assert "no preStop hook reached this sidecar" not in str(w.report()["notes"])


@pytest.mark.parametrize("release", list(Release))
async def test_whatever_the_release_is_set_to_a_signal_is_passed_on(release: Release) -> None:
    async with world(init(release=release)) as w:
        w.runner.trigger(Trigger.SIGINT)
        await w.at(CLEAN + 5.1)
        assert signals(w) == [(CLEAN + 5, "TERM")]


async def test_after_a_hook_the_signal_goes_straight_through() -> None:
    async with world(init()) as w:
        assert await hook(w) == CLEAN + 5
        assert signals(w) == []
        w.runner.trigger(Trigger.SIGTERM)
        await w.at(CLEAN + 5.1)
        assert signals(w) == [(CLEAN + 5, "TERM")]


async def test_a_person_in_a_hurry_ends_the_waits() -> None:
    async with world(init()) as w:
        w.runner.trigger(Trigger.SIGTERM)
        await w.at(2)
        w.runner.release()
        await w.at(2.1)
        assert signals(w) == [(2, "TERM")]


# -- a command that looks after its app ------------------------------------------------------------------------------


async def test_a_supervisor_that_starts_the_app_again_hears_of_its_end_all_the_same() -> None:
    async with world(init()) as w:
        w.runner.trigger(Trigger.SIGTERM)
        await w.at(2)
        w.app.restart()
        await w.at(CLEAN + 5.1)
        assert signals(w) == [(CLEAN + 5, "TERM")]
        await w.at(20)
        assert "AWAIT_EXIT" not in w.phases()  # whatever the look of another life may say
        w.runner.trigger(Trigger.EXIT, code=7)
        await w.runner.ended()
        assert "the app has exited with code 7" in str(w.report()["phases"])


async def test_what_a_supervisor_starts_again_after_a_person_s_drain_is_online() -> None:
    async with world(init()) as w:
        w.runner.trigger(Trigger.MANUAL)
        await w.at(8)
        w.nacos.deregister()
        w.app.restart()
        await w.at(9)
        w.nacos.register()
        await w.at(20)
        assert w.nacos.listed()
        assert w.runner.drain.state is State.ARMED


# -- ended by itself -------------------------------------------------------------------------------------------------


async def test_what_a_connection_held_is_seen_to_go_and_nothing_is_written() -> None:
    async with world(init()) as w:
        w.nacos.deregister()
        assert await exit_by_itself(w) < 1.5
        assert written(w) == []
        assert (w.report()["trigger"], w.report()["outcome"], w.report()["proved_gone"]) == ("exit", "drained", True)
        assert w.report()["final"] is True
        assert w.phases() == {
            "DEREGISTER": "skipped",
            "VERIFY": "met",
            "SETTLE": "skipped",
            "RELEASE": "met",
            "AWAIT_EXIT": "met",
            "CLEANUP": "met",
        }


async def test_a_look_that_is_older_than_the_end_is_no_new_life() -> None:
    app = SimApp()
    app.close()  # it was not listening when it was looked at
    async with world(init(), app=app, warm=10) as w:
        app.open = True
        w.nacos.deregister()
        w.runner.trigger(Trigger.EXIT)
        await w.runner.ended()
        assert w.report()["outcome"] == "drained"
        assert w.phases()["CLEANUP"] == "met"


async def test_what_beats_kept_alive_is_deleted_and_never_disabled() -> None:
    async with world(init(), held_by(Publisher.BEAT)) as w:
        assert await exit_by_itself(w) < 1.5
        assert written(w) == ["delete a"]
        assert w.report()["outcome"] == "drained"
        assert not w.nacos.listed()
        assert not w.nacos.left


async def test_a_persistent_instance_is_left_to_whoever_has_made_it() -> None:
    async with world(init(), held_by(Publisher.PERSISTENT)) as w:
        assert await exit_by_itself(w) == GIVEN_UP
        assert written(w) == []
        assert (w.report()["outcome"], w.report()["proved_gone"]) == ("unproven", False)


async def test_a_delete_that_fails_is_tried_on_another_node() -> None:
    async with world(init(), held_by(Publisher.BEAT, "a", "b")) as w:
        w.nacos.named["a"].fault, w.nacos.named["a"].on = "fail", "write"
        assert await exit_by_itself(w) < GIVEN_UP
        assert written(w) == ["delete a", "delete b"]
        assert w.report()["outcome"] == "drained"


async def test_no_nacos_keeps_the_exit_code_for_long() -> None:
    async with world(init(), held_by(Publisher.BEAT)) as w:
        w.nacos.named["a"].fault = "hang"
        assert await exit_by_itself(w) == GIVEN_UP
        assert w.report()["outcome"] == "unproven"


async def test_what_was_never_seen_keeps_nobody_waiting() -> None:
    async with world(init(), registered=False) as w:
        assert await exit_by_itself(w) == 0
        assert w.runner.report() is None


async def test_one_that_ends_while_its_drain_is_undone_is_not_left_disabled() -> None:
    async with world(init()) as w:
        w.runner.trigger(Trigger.MANUAL)
        await w.at(3)
        w.nacos.named["a"].fault, w.nacos.named["a"].on = "fail", "write"
        assert w.runner.resume() is None
        await w.at(3.2)
        w.nacos.named["a"].fault = ""
        w.nacos.deregister()
        await exit_by_itself(w)
        assert not w.nacos.left


async def test_an_app_that_ends_in_its_drain_is_not_departed_a_second_time() -> None:
    async with world(init()) as w:
        w.runner.trigger(Trigger.SIGTERM)
        await w.at(0.1)
        w.nacos.deregister()
        await exit_by_itself(w)
        assert (w.report()["trigger"], w.report()["outcome"]) == ("sigterm", "drained")
        assert w.runner.drain.state is State.ENDED
        assert SHOP not in w.nacos.records
