"""Drains of apps that can take themselves out, on a virtual clock: which road is taken, when, and what it leaves."""

import asyncio
from dataclasses import replace

import pytest
from sim import SHOP, Node, SimApp, SimDoor, SimNacos, hook, ready, rules, world

from sidecar.drain import Refusal, Rules
from sidecar.lease import Port, Release, State, Trigger
from sidecar.registration import Identity, Instance, Publisher, Road, Service


pytestmark = pytest.mark.looptime

DOOR = Road("nacos-deregister", undoable=True, inside=True)
ONE_WAY = replace(DOOR, undoable=False)
DUBBO = Road("dubbo", undoable=True, inside=True)
# One look (0.01), the app is asked, it leaves at 0.02; the list is clean 0.5 s later, and read so at 0.76 and 1.01.
CLEAN = 0.76


def inside(*roads: Road, grace: float = 120.0, cache: float = 0.0, release: Release = Release.HOOK) -> Rules:
    """A pod whose app can be asked, of consumers that follow pushes."""
    return replace(rules(grace, cache=cache, release=release), roads=roads or (DOOR,))


def writes(nacos: SimNacos) -> list[tuple[float, str]]:
    """What was written to Nacos by us."""
    return [(at, what) for at, what in nacos.trace if what.split()[0] in {"disable", "enable", "sweep"}]


# -- out -------------------------------------------------------------------------------------------------------------


async def test_an_app_that_removes_itself_leaves_nothing_behind() -> None:
    nacos = SimNacos(a=Node(), b=Node(lag=0.5))
    door = SimDoor(nacos)
    async with world(inside(), nacos, door=door) as w:
        await hook(w)
        await w.at(8)
        w.app.exit()
        await w.at(10)
        told = w.report()
        assert door.calls[:2] == [(0.0, "health"), (0.01, "offline nacos-deregister")]
        assert not writes(nacos)
        assert told["outcome"] == "drained"
        assert "acknowledged by the road nacos-deregister" in str(told["phases"])
        assert [(row["road"], row["residue"], row["undoable"]) for row in told["instances"]] == [  # type: ignore[attr-defined]
            ("nacos-deregister", "none", True)
        ]
        assert w.phases()["CLEANUP"] == "met"


async def test_one_call_takes_out_all_that_the_app_has_registered() -> None:
    nacos = SimNacos()
    other = Instance(Service("orders"), SHOP.ip, SHOP.port)
    nacos.register(other)
    door = SimDoor(nacos, SHOP, other)
    many = replace(inside(), services=(SHOP.service, other.service))
    async with world(many, nacos, door=door, warm=2.0) as w:
        await hook(w)
        assert sorted(what for _, what in door.calls) == ["health", "offline nacos-deregister"]
        assert w.report()["proved_gone"] is True


async def test_a_closed_door_costs_nothing() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos, manner="refuses")
    async with world(inside(), nacos, door=door) as w:
        assert await hook(w) == CLEAN + 5
        assert writes(nacos)[0] == (0.02, "disable a")
        assert "nacos-deregister: the endpoint answers 404: expose it" in w.report()["notes"]  # type: ignore[operator]
        assert "by the road openapi" in str(w.report()["phases"])


async def test_a_door_without_effect_is_given_three_seconds() -> None:
    nacos = SimNacos()
    async with world(inside(), nacos, door=SimDoor(nacos, manner="ignores")) as w:
        await hook(w)
        [(at, what), *more] = writes(nacos)
        assert (at, what, more) == (3.26, "disable a", [])  # a reading that began 3 s after the acknowledgement
        assert w.report()["outcome"] == "drained"


async def test_a_door_that_hangs_is_given_three_seconds() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.hangs = "offline"
    async with world(inside(), nacos, door=door) as w:
        await hook(w)
        assert writes(nacos) == [(3.01, "disable a")]
        assert "nacos-deregister: no answer within 3 s" in w.report()["notes"]  # type: ignore[operator]


async def test_what_the_app_only_disables_is_claimed_and_swept() -> None:
    nacos = SimNacos()
    async with world(inside(), nacos, door=SimDoor(nacos, manner="disables")) as w:
        answered = asyncio.create_task(hook(w))
        await w.at(1.0)
        assert writes(nacos) == [(0.77, "disable a")]  # after the first clean round, and one look
        assert nacos.records[SHOP].mark.endswith("Z/pod-1")
        assert await answered == CLEAN + 5
        w.app.exit()
        nacos.deregister()
        await w.at(9)
        assert not nacos.left
        assert w.phases()["CLEANUP"] == "met"


async def test_without_a_leader_the_app_itself_is_the_only_road() -> None:
    nacos = SimNacos(a=Node(fault="unavailable", on="write"), b=Node(fault="unavailable", on="write"))
    async with world(inside(), nacos, door=SimDoor(nacos)) as w:
        assert await hook(w) == CLEAN + 5
        assert w.report()["outcome"] == "drained"
        assert not writes(nacos)


@pytest.mark.parametrize(
    ("holder", "seconds"), [(Publisher.BEAT, 7.0), (Publisher.UNKNOWN, 7.0), (Publisher.GRPC, 5.0)]
)
async def test_what_a_beat_could_bring_back_is_watched_before_the_release(holder: Publisher, seconds: float) -> None:
    nacos = SimNacos()
    nacos.holder = holder
    async with world(inside(), nacos, door=SimDoor(nacos)) as w:
        assert await hook(w) == round(CLEAN + seconds, 2)


@pytest.mark.parametrize(
    ("listed", "told", "seconds"),
    [
        (Publisher.UNKNOWN, Publisher.GRPC, 5.0),  # no right to read the list, or a server without one
        (Publisher.UNKNOWN, Publisher.PERSISTENT, 5.0),
        (Publisher.UNKNOWN, Publisher.BEAT, 7.0),
        (Publisher.UNKNOWN, Publisher.UNKNOWN, 7.0),
        (Publisher.BEAT, Publisher.GRPC, 7.0),  # Nacos' word is the better one
    ],
)
async def test_where_nacos_does_not_tell_who_holds_it_the_app_may(
    listed: Publisher, told: Publisher, seconds: float
) -> None:
    nacos = SimNacos()
    nacos.holder = listed
    door = SimDoor(nacos)
    door.says = Identity(SHOP, starter=True, publisher=told)
    async with world(replace(inside(), actuator=True), nacos, door=door) as w:
        assert await hook(w) == round(CLEAN + seconds, 2)


async def test_what_the_app_tells_is_about_that_instance_alone() -> None:
    nacos = SimNacos()
    nacos.holder = Publisher.UNKNOWN
    door = SimDoor(nacos)
    door.says = Identity(SHOP._replace(port=9090), publisher=Publisher.GRPC)
    async with world(replace(inside(), actuator=True), nacos, door=door) as w:
        assert w.runner.drain.publisher(SHOP) is Publisher.UNKNOWN


async def test_a_beat_that_brings_it_back_is_answered_by_a_write_that_beats_cannot_undo() -> None:
    nacos = SimNacos()
    nacos.holder = Publisher.BEAT
    async with world(inside(), nacos, door=SimDoor(nacos)) as w:
        answered = asyncio.create_task(hook(w))
        await w.at(4)
        nacos.register()
        await answered
        assert [what for _, what in writes(nacos)] == ["disable a"]
        assert w.report()["outcome"] == "drained"
        assert "listed again 1 time(s)" in str(w.report()["notes"])


async def test_an_app_that_is_hung_is_not_waited_for() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    async with world(inside(cache=35), nacos, door=door) as w:
        door.hangs, w.app.hangs = "*", True
        assert await hook(w) < 3
        assert writes(nacos)[0] == (1.01, "disable a")  # a second after it was asked
        assert w.phases()["SETTLE"] == "skipped"


async def test_an_app_that_calls_itself_ill_is_left_at_once() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.health = False
    async with world(replace(inside(cache=35), actuator=True), nacos, door=door) as w:
        assert await hook(w) < 2
        assert "offline nacos-deregister" not in [what for _, what in door.calls]
        assert "says that it is down" in str(w.report()["phases"])


async def test_an_app_that_refuses_traffic_because_it_was_asked_to_leave_is_not_ill() -> None:
    """A readiness that turns 503 is part of many a deregistering endpoint: it must not cost the whole SETTLE."""
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.health = False
    door.slow_health = 0.7
    async with world(replace(inside(), actuator=True), nacos, door=door) as w:
        await hook(w)
        assert (0.5, "offline nacos-deregister") in door.calls, "health had its chance"
        assert w.phases()["SETTLE"] == "expired"


# -- which road for whom ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("road", "trigger", "asked"),
    [
        (ONE_WAY, Trigger.HOOK, True),
        (ONE_WAY, Trigger.MANUAL, False),
        (ONE_WAY, Trigger.SIGTERM, False),  # perhaps only the sidecar is being stopped
        (DOOR, Trigger.MANUAL, True),
    ],
)
async def test_only_a_stop_of_the_app_may_use_what_only_a_restart_undoes(
    road: Road, trigger: Trigger, asked: bool
) -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    async with world(inside(road), nacos, door=door) as w:
        await w.runner.released(w.runner.trigger(trigger))
        assert ("offline nacos-deregister" in [what for _, what in door.calls]) is asked
        assert w.report()["proved_gone"] is True


async def test_a_road_that_leads_back_by_the_apps_own_word_is_open_to_everybody() -> None:
    """Our starter needs no setting for its way back."""
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.says = Identity(SHOP, starter=True, roads=(DOOR,))
    async with world(replace(inside(ONE_WAY), actuator=True), nacos, door=door) as w:
        w.runner.trigger(Trigger.MANUAL)
        await w.at(3)
        assert not nacos.listed()
        assert not writes(nacos)
        assert w.runner.resume() is None
        await w.at(5)
        assert nacos.listed()
        assert door.calls[-1] == (3.01, "online nacos-deregister")


async def test_dubbo_is_asked_for_what_dubbo_has_registered() -> None:
    nacos = SimNacos()
    greeter = Instance(Service("providers:demo.Greeter::"), SHOP.ip, 20880)
    nacos.register(greeter)
    door = SimDoor(nacos, SHOP, greeter)
    both = replace(inside(DOOR, DUBBO), services=(SHOP.service, greeter.service), ports=frozenset({8080, 20880}))
    async with world(both, nacos, door=door) as w:
        await hook(w)
        roads = {row["port"]: row["road"] for row in w.report()["instances"]}  # type: ignore[attr-defined]
        assert roads == {8080: "nacos-deregister", 20880: "dubbo"}


# -- back ------------------------------------------------------------------------------------------------------------


async def test_resume_asks_the_app_to_register_again() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    async with world(inside(), nacos, door=door) as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(3)
        assert w.runner.resume() is None
        await w.at(5)
        assert w.runner.drain.state is State.ARMED
        assert nacos.listed()
        assert door.calls[-1] == (3.01, "online nacos-deregister")


async def test_resume_is_impossible_where_only_a_restart_brings_it_back() -> None:
    nacos = SimNacos()
    async with world(inside(ONE_WAY), nacos, door=SimDoor(nacos)) as w:
        w.runner.trigger(Trigger.HOOK)
        await w.at(3)
        assert w.runner.resume() == Refusal("only a restart of the app registers it again", for_good=True)


@pytest.mark.parametrize(("road", "listed"), [(DOOR, True), (ONE_WAY, False)])
async def test_a_lease_expires_whether_or_not_the_app_can_be_brought_back(road: Road, listed: bool) -> None:
    nacos = SimNacos()
    async with world(inside(road, grace=30), nacos, door=SimDoor(nacos)) as w:
        await hook(w)
        await w.at(36.5)
        assert w.report()["outcome"] == "lease_expired"
        assert nacos.listed() is listed
        await w.at(130)
        assert w.runner.drain.state is State.ARMED


async def test_a_new_life_after_a_true_removal_registers_by_itself() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    async with world(inside(), nacos, door=door) as w:
        await hook(w)
        w.app.exit()
        w.app.restart()
        nacos.register()
        await w.at(w.now() + 2)
        assert w.runner.drain.state is State.ARMED
        assert nacos.listed()
        assert not writes(nacos)
        assert "online nacos-deregister" not in [what for _, what in door.calls]


# -- who it is -------------------------------------------------------------------------------------------------------


def unnamed(**changes: object) -> Rules:
    """No setting says what the app is registered as."""
    return replace(inside(), services=(), ports=frozenset(), actuator=True, app_stop_assumed=True, **changes)  # type: ignore[arg-type]


async def test_an_app_that_says_who_it_is_needs_no_settings() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.says = Identity(None)
    async with world(unnamed(), nacos, door=door, warm=5) as w:
        assert await ready(w, 0) is False, "it has not registered yet"
        door.says = Identity(SHOP, servers=("http://nacos:8848/nacos",), stop_wait=15.0)
        assert await ready(w, 2)
        assert nacos.aimed == ("http://nacos:8848/nacos",)
        assert w.runner.drain.rules.plan.app_stop == 15
        door.calls.clear()
        await w.at(100)
        assert [what for _, what in door.calls].count("identity") == 0, "asked again only for another life"
        w.mark_zero()
        assert await hook(w) == CLEAN + 5
        assert w.report()["outcome"] == "drained"


async def test_a_drain_that_begins_before_the_app_has_told_takes_it_out_when_it_has() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    async with world(unnamed(), nacos, door=door, warm=5) as w:
        answered = asyncio.create_task(hook(w))
        await w.at(2)
        door.says = Identity(SHOP)
        await answered
        assert w.report()["outcome"] == "drained"
        assert w.now() < 10


async def test_an_app_that_is_starting_again_is_still_who_it_was() -> None:
    """After a container restart nacosdiscovery says port -1 for a while; a hook may come just then."""
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.says = Identity(SHOP)
    async with world(unnamed(), nacos, door=door) as w:
        door.says = Identity(None)
        w.app.exit()
        nacos.deregister()
        w.app.restart()
        await w.at(20)
        assert w.runner.drain.services == (SHOP.service,)
        answered = asyncio.create_task(hook(w))
        await w.at(21)
        nacos.register()
        await answered
        assert not nacos.listed()
        assert w.report()["proved_gone"] is True


async def test_a_set_app_stop_is_not_overruled_by_the_app() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.says = Identity(SHOP, stop_wait=15.0)
    async with world(replace(unnamed(), app_stop_assumed=False), nacos, door=door) as w:
        assert w.runner.drain.rules.plan.app_stop == 10


async def test_an_app_that_does_not_register_is_let_go_at_once() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.says = Identity(None, registers=False)
    async with world(unnamed(), nacos, door=door, registered=False) as w:
        assert w.runner.drain.ready
        assert await hook(w) == 0
        assert w.report()["outcome"] == "nothing_registered"
        assert "told not to register" in str(w.report()["phases"])


async def test_an_app_that_does_not_tell_is_asked_on_and_never_ready() -> None:
    nacos = SimNacos()
    async with world(unnamed(), nacos, door=SimDoor(nacos), warm=20) as w:
        assert not w.runner.drain.ready
        assert "nacosdiscovery" in w.runner.drain.unidentified
        assert await hook(w) > 0
        assert w.report()["outcome"] == "never_seen"


async def test_the_name_of_the_service_may_be_set_and_the_port_be_told() -> None:
    """Another instance of the service listens behind the same address: it is not ours."""
    nacos = SimNacos()
    neighbour = SHOP._replace(port=9090)
    nacos.register(neighbour)
    door = SimDoor(nacos)
    door.says = Identity(SHOP)
    async with world(replace(unnamed(), services=(SHOP.service,)), nacos, door=door) as w:
        await hook(w)
        assert list(nacos.records) == [neighbour]


# -- release ---------------------------------------------------------------------------------------------------------


async def test_the_app_is_stopped_by_its_own_endpoint() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    async with world(inside(release=Release.ACTUATOR), nacos, door=door) as w:
        answered = await hook(w)
        await w.at(answered + 0.5)
        assert door.calls[-1] == (answered, "shutdown")
        assert w.phases()["RELEASE"] == "met"
        assert w.phases()["AWAIT_EXIT"] == "met"


async def test_an_endpoint_that_is_closed_is_told_with_the_next_step() -> None:
    nacos = SimNacos()
    door = SimDoor(nacos)
    door.stops = False
    async with world(inside(release=Release.ACTUATOR), nacos, SimApp(), door=door) as w:
        await w.at(await hook(w) + 0.5)
        assert w.phases()["RELEASE"] == "failed"
        assert "the app was not told to stop: the shutdown endpoint answers 404" in str(w.report()["notes"])
        assert w.runner.drain.app.port is Port.OPEN
