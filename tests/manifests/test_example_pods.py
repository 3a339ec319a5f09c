"""The manifests of examples/kubernetes, played: no request fails, and each form stops in the order that it promises."""

import json

import pytest
from manifests.ground import APP
from manifests.plays import Played
from stage import Stage


RUNS = [0, *(pytest.param(run, marks=pytest.mark.soak) for run in range(1, 11))]  # one in CI, ten in `make soak`
pytestmark = [
    pytest.mark.docker,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(240, func_only=True),  # a play takes up to a minute and a half, and waits for its turn
    pytest.mark.parametrize("run", RUNS),
]

SIDECAR = "nacos-drain"
REQUESTS = 300
# Of the 107 s. Usually 5 to 10, as silent consumers are believed after 4 s. One in some twenty took SETTLE's cap of
# 40 s: likely a probe came too late, on a busy machine, to be taken for one.
RELEASED_WITHIN = 50.0
SOON = 1.0  # seconds between an end and what follows it; docker tells of it after 0.3 s
BACK_WITHIN = 15.0  # seconds from the app's end to its being listed again: a JVM and a Nacos client start in them

Stages = Stage[tuple[str, int], Played]


def assert_drained(played: Played, container: str = SIDECAR) -> None:
    """No request has failed, all was proved, and everybody has ended by himself, in time."""
    told, timeline = played.told("drain.finished"), played.timeline
    story = str(timeline)  # of anything but a str pytest shows 240 characters
    assert played.load.failures == [], story
    assert played.load.requests > REQUESTS
    assert (told["outcome"], told["proved_gone"], told["traffic_source"]) == ("drained", True, "netlink"), story
    for each in (APP, container):
        timeline.assert_never(each, "sigkill")
    assert timeline.event(APP, "exit", -1).detail == "143"
    assert timeline.at(APP, "exit", -1) < RELEASED_WITHIN, story
    assert timeline.at("pod", "gone") < RELEASED_WITHIN + 10, story
    if container == SIDECAR:  # a wrapper leaves the message to its app
        assert json.loads(played.last_words[SIDECAR])["outcome"] == "drained"


def assert_the_sidecar_ended_after_the_app(played: Played) -> None:
    played.timeline.assert_order((APP, "exit"), (SIDECAR, "exit"), ("pod", "gone"))
    assert played.timeline.event(SIDECAR, "exit").detail == "0"
    assert not [line for line in played.timeline.lines if (line.container, line.stream) == (SIDECAR, "stderr")]


@pytest.mark.parametrize("form", ["native"])
async def test_a_native_sidecar_outlives_the_app_and_is_told_then(stage: Stages, form: str, run: int) -> None:
    played = await stage.result((form, run))
    assert_drained(played)
    assert_the_sidecar_ended_after_the_app(played)
    t = played.timeline
    t.assert_order(
        (SIDECAR, "startup-passed"),
        (APP, "started"),
        (APP, "hook-start"),
        (APP, "hook-end"),
        (APP, "sigterm"),
        (APP, "exit"),
        (SIDECAR, "sigterm"),
    )
    assert t.event(APP, "hook-end").detail == "200"
    assert played.told("drain.finished")["trigger"] == "hook"


@pytest.mark.parametrize("form", ["ordinary, signalled first", "ordinary, asked first"])
async def test_an_ordinary_sidecar_is_told_at_once_and_outlives_the_app(stage: Stages, form: str, run: int) -> None:
    """In either order: measured on real kubelets, both come. Where SIGTERM is first it is one of 1.25: //drain."""
    played = await stage.result((form, run))
    assert_drained(played)
    assert_the_sidecar_ended_after_the_app(played)
    t = played.timeline
    pair = [(SIDECAR, "sigterm"), (APP, "hook-start")]
    t.assert_order(*(pair if form == "ordinary, signalled first" else reversed(pair)))
    assert t.at(SIDECAR, "sigterm") < SOON
    t.assert_order((SIDECAR, "sigterm"), (APP, "hook-end"), (APP, "sigterm"), (APP, "exit"))
    assert t.event(APP, "hook-end").detail == "200"
    assert "no preStop hook reached this sidecar" not in played.told("drain.finished")["notes"]


@pytest.mark.parametrize("form", ["wrapper"])
async def test_a_wrapper_hears_of_it_first_and_exits_as_its_app_does(stage: Stages, form: str, run: int) -> None:
    played = await stage.result((form, run))
    assert_drained(played, APP)
    t = played.timeline
    t.assert_order((APP, "sigterm"), (APP, "exit"), ("pod", "gone"))
    t.assert_never(APP, "hook-start")
    (exited,) = [line.seconds for line in t.lines if '"run.exited"' in line.text]
    (released,) = [line.seconds for line in t.lines if '"drain.released"' in line.text]
    assert t.at(APP, "sigterm") < released <= exited
    assert exited - t.at(APP, "sigterm") > SOON  # the app has heard of it later, when its callers had stopped
    assert played.told("drain.finished")["trigger"] == "sigterm"


@pytest.mark.parametrize("form", ["signal"])
async def test_a_sidecar_that_signals_ends_an_app_that_the_kubelets_sigterm_does_not_reach(
    stage: Stages, form: str, run: int
) -> None:
    played = await stage.result((form, run))
    assert_drained(played)
    assert_the_sidecar_ended_after_the_app(played)
    t = played.timeline
    phases = {phase["phase"]: phase for phase in played.told("drain.finished")["phases"]}
    assert phases["RELEASE"]["detail"] == "SIGTERM sent to the app", str(t)
    assert phases["AWAIT_EXIT"]["detail"] == "the app has exited"
    (released,) = [line.seconds for line in t.lines if '"drain.released"' in line.text]
    assert t.at(APP, "hook-end") - released < SOON
    t.assert_order((APP, "hook-end"), (APP, "sigterm"), (APP, "exit"), (SIDECAR, "sigterm"))


@pytest.mark.parametrize("form", ["liveness"])
async def test_an_app_that_is_restarted_by_its_liveness_probe_comes_back(stage: Stages, form: str, run: int) -> None:
    played = await stage.result((form, run))
    assert_drained(played)  # by the drain of its end, which came after another one
    assert_the_sidecar_ended_after_the_app(played)
    first = played.restart
    assert first is not None
    first.assert_order(
        (APP, "unhealthy"), (APP, "hook-start"), (APP, "hook-end"), (APP, "sigterm"), (APP, "exit"), (APP, "started")
    )
    assert first.at(APP, "exit") < RELEASED_WITHIN, str(first)
    assert first.at(SIDECAR, "sigterm") > first.at(APP, "started", -1), "it is told nothing of a restart"
    assert len(first.all(SIDECAR, "started")) == 1
    assert played.told("drain.restored")["result"] == "online"
    assert played.back < BACK_WITHIN, str(first)
    assert played.residue is not None
    assert played.residue.enabled
    assert not played.residue.metadata.get("nacos-drain"), played.residue  # our mark, of which nothing is left
    assert len(played.timeline.all(APP, "hook-end")) == 2


@pytest.mark.parametrize("form", ["bare"])
async def test_the_same_pod_without_us_fails_requests(stage: Stages, form: str, run: int) -> None:
    """The canary of the tests above: these consumers do notice."""
    played = await stage.result((form, run))
    assert played.load.failures
    assert played.timeline.event(APP, "exit").detail == "143"
