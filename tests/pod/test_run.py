"""Pods without a sidecar: their app has `nacos-drain run` as its init."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from kubelet import Container, HttpGet, Pod
from pod.scene import CAP, LONG, NODE, PROGRAM, SLACK, Scene, assert_about, opening, settings
from pod.together import side_by_side


pytestmark = pytest.mark.long

ALIVE = 0.3  # seconds of an app that ends at once when it is told to
DOCKER = 10  # seconds between docker's SIGTERM and its SIGKILL
DOCKER_BUDGET = 4  # of which the drain has these
KILLED_BEFORE_END = 1.5


@asynccontextmanager
async def wrapped(
    *options: str,
    app: tuple[str, ...] = (),
    grace: int = LONG,
    hook: bool = False,
    kubernetes: bool = True,
    restart: bool = False,
    prepare: Callable[[Scene], object] = lambda _: None,
    **env: str,
) -> AsyncIterator[Scene]:
    """A pod whose app is registered, and known to its init; `options` are of `run`, `app` of the app."""
    async with opening(voice=("app", "stderr")) as made:
        nacos = made.double.address
        run = (sys.executable, "-m", "sidecar", "run", *options, "--")
        program = (sys.executable, "-I", "-S", str(PROGRAM), "--listen", f"{made.ip}:{made.app_port}", "--nacos", nacos)
        given = {"NACOS_SERVER_ADDR": nacos, "GRACE_PERIOD": str(grace), **env}
        environ = settings(made, given, kubernetes=kubernetes)
        made.pod = Pod(
            Container("app", (*run, *program, *app), environ, pre_stop=HttpGet("/drain", made.port) if hook else None),
            ip=made.ip,
            node_ip=NODE,
            termination_grace_period_seconds=grace,
            restart_policy="Always" if restart else "Never",
        )
        prepare(made)
        async with made.pod:
            await made.pod.timeline.printed("app", "registered")
            yield made


def heard(s: Scene) -> float:
    """When the app was told to stop, in seconds from T0."""
    return next(line.seconds for line in s.pod.timeline.lines if line.text == "SIGTERM")


def ended(s: Scene, code: int) -> None:
    """Assert that the container ended with this exit code, and was not killed."""
    s.pod.timeline.assert_never("app", "sigkill")
    assert s.pod.timeline.event("app", "exit").detail == str(code)


def command(s: Scene) -> psutil.Process:
    """The process whose init is there."""
    (child,) = psutil.Process(s.pod.pid("app")).children()
    return child


# -- told to stop ----------------------------------------------------------------------------------------------------


@side_by_side
async def test_an_app_hears_of_its_end_when_it_is_out_and_its_callers_have_had_their_time() -> None:
    async with wrapped() as s:
        await s.said("registry.ready")
        await s.pod.terminate()
        assert_about(heard(s), CAP)
        ended(s, 143)
        assert (s.told("drain.started")["trigger"], s.told("drain.finished")["outcome"]) == ("sigterm", "drained")
        assert s.told("drain.finished")["proved_gone"] is True
        assert s.told("run.exited")["code"] == 143
        assert s.pod.timeline.text("app", "stdout") == "registered\nSIGTERM"  # nothing of ours
        assert not s.disabled
        assert s.mark == ""


@side_by_side
async def test_after_a_hook_the_signal_goes_straight_through() -> None:
    async with wrapped("--remap", "143:0", hook=True) as s:
        await s.said("registry.ready")
        await s.pod.terminate()
        timeline = s.pod.timeline
        timeline.assert_order(("app", "hook-start"), ("app", "hook-end"), ("app", "sigterm"), ("app", "exit"))
        assert_about(timeline.at("app", "hook-end"), CAP)
        assert heard(s) - timeline.at("app", "sigterm") < SLACK
        ended(s, 0)
        assert s.told("drain.started")["trigger"] == "hook"


@side_by_side
async def test_a_second_signal_is_heard_at_once() -> None:
    async with wrapped() as s:
        await s.said("registry.ready")
        stop = asyncio.create_task(s.pod.terminate())
        await s.until("unlisted")
        os.kill(s.pod.pid("app"), signal.SIGTERM)
        told = await s.pod.timeline.printed("app", "SIGTERM")
        assert told.seconds < CAP
        await stop
        ended(s, 143)
        (settled,) = [p for p in s.told("drain.finished")["phases"] if p["phase"] == "SETTLE"]
        assert (settled["outcome"], settled["detail"]) == ("skipped", "release asked for")


@side_by_side
async def test_within_docker_s_ten_seconds_the_app_still_has_its_own() -> None:
    async with wrapped(grace=DOCKER, kubernetes=False, GRACE_PERIOD="", APP_STOP="", CONSUMER_CACHE="35") as s:
        await s.said("registry.ready")
        await s.pod.terminate()
        assert_about(heard(s), DOCKER_BUDGET)
        ended(s, 143)
        assert s.told("drain.finished")["proved_gone"] is True


@side_by_side
async def test_an_app_that_stays_is_killed_before_the_runtime_would() -> None:
    async with wrapped(app=("--on-term", "stay"), grace=DOCKER, APP_STOP="1") as s:
        await s.said("registry.ready")
        await s.pod.terminate()
        ended(s, 137)
        assert_about(s.pod.timeline.at("app", "exit"), DOCKER - KILLED_BEFORE_END)
        assert "lived 8.5 s after SIGTERM" in s.told("run.killed")["detail"]


@side_by_side
async def test_without_nacos_the_app_hears_in_time() -> None:
    async with wrapped(grace=DOCKER, APP_STOP="1") as s:
        await s.said("registry.ready")
        s.double.faults.set("hang")
        await s.pod.terminate()
        assert_about(heard(s), DOCKER - 1 - 3)
        ended(s, 143)
        assert s.told("drain.finished")["outcome"] == "unproven"


@side_by_side
async def test_what_a_hook_has_spent_is_no_more_there_for_the_app() -> None:
    async with wrapped(hook=True, app=("--on-term", "stay"), grace=DOCKER, APP_STOP="1") as s:
        await s.said("registry.ready")
        await s.pod.terminate()  # the hook has 5 s of them
        ended(s, 137)
        assert_about(s.pod.timeline.at("app", "exit"), DOCKER - KILLED_BEFORE_END)


@side_by_side
async def test_an_app_that_ignores_the_first_signal_hears_the_second() -> None:
    async with wrapped(app=("--ignore-int",)) as s:
        await s.said("registry.ready")
        s.pod.timeline.begin()
        os.kill(s.pod.pid("app"), signal.SIGINT)
        await s.until("unlisted")
        os.kill(s.pod.pid("app"), signal.SIGTERM)
        await s.pod.timeline.seen("app", "exit")
        assert heard(s) < CAP
        ended(s, 143)
        assert s.told("drain.finished")["trigger"] == "sigint"
        (told,) = [x for x in s.log if x["event"] == "drain.phase_finished" and x["phase"] == "RELEASE"]
        assert told["detail"] == "what we were told was passed on to the app"


@side_by_side
async def test_among_others_on_the_machine_only_what_it_has_started_is_its_app() -> None:
    """The other pods of this run listen here too, and one port of theirs is as good as another."""
    async with wrapped(NACOS_PORT="") as s:
        await s.said("registry.ready")
        assert (await s.status())["app"]["ports"] == [s.app_port]
        await s.pod.terminate()
        assert s.told("drain.finished")["outcome"] == "drained"


# -- ended by itself -------------------------------------------------------------------------------------------------


@side_by_side
async def test_an_app_that_dies_is_never_disabled_and_its_restart_is_online() -> None:
    async with wrapped(restart=True) as s:
        await s.said("registry.ready")
        command(s).kill()
        await s.pod.timeline.seen("app", "exit")
        assert s.pod.timeline.event("app", "exit").detail == "137"
        told = s.told("drain.finished")
        assert (told["trigger"], told["outcome"], told["proved_gone"]) == ("exit", "drained", True)
        assert {request.method for request in s.double.log}.isdisjoint({"PUT", "PATCH"})
        await s.pod.timeline.printed("app", "registered", nth=1)
        await s.until("listed")


@side_by_side
async def test_after_a_liveness_restart_the_next_life_is_online() -> None:
    async with wrapped(restart=True, grace=DOCKER, APP_STOP="1") as s:
        await s.said("registry.ready")
        await s.pod.liveness_restart("app")
        assert s.told("drain.finished")["outcome"] == "drained"
        await s.pod.timeline.printed("app", "registered", nth=1)
        await s.until("listed")
        await s.until("enabled")


@side_by_side
async def test_an_app_that_ends_before_it_was_seen_keeps_nobody_waiting() -> None:
    async with wrapped() as s:
        os.kill(command(s).pid, signal.SIGTERM)
        ended_at = (await s.pod.timeline.seen("app", "exit")).seconds
        told = next(line.seconds for line in s.pod.timeline.lines if line.text == "SIGTERM")
        assert ended_at - told < ALIVE + SLACK
        assert s.pod.timeline.event("app", "exit").detail == "143"


# -- what is wrong ---------------------------------------------------------------------------------------------------


@side_by_side
async def test_wrong_settings_end_the_command() -> None:
    async with wrapped(CONSUMER_CACHE="soon") as s:
        await s.pod.timeline.seen("app", "exit")
        ended(s, 2)
        assert "NACOS_DRAIN_CONSUMER_CACHE" in s.pod.timeline.text("app", "stderr")
        assert "SIGTERM" in s.pod.timeline.text("app", "stdout")


@side_by_side
async def test_a_port_that_is_taken_costs_the_http_surface_and_not_the_drain() -> None:
    with socket.socket() as taken:

        def take(made: Scene) -> None:
            taken.bind((made.ip, made.port))
            taken.listen()

        async with wrapped(prepare=take) as s:
            await s.pod.timeline.printed("app", "cannot listen there")
            await s.pod.timeline.printed("app", '"registry.ready"')
            await s.pod.terminate()
            assert_about(heard(s), CAP)
            ended(s, 143)


@side_by_side
async def test_no_server_means_no_port() -> None:
    async with wrapped("--no-server") as s:
        await s.said("registry.ready")
        listening = {x.laddr.port for x in psutil.Process(s.pod.pid("app")).net_connections() if x.status == "LISTEN"}
        assert not listening
        await s.pod.terminate()
        ended(s, 143)
        assert s.told("drain.finished")["outcome"] == "drained"


@side_by_side
async def test_a_drain_that_cannot_even_be_loaded_leaves_an_init() -> None:
    broken = Path(__file__).parents[1] / "programs" / "broken"

    def shadow(made: Scene) -> None:
        container = made.pod.containers["app"]
        container.spec = replace(container.spec, env={**container.spec.env, "PYTHONPATH": str(broken)})

    async with wrapped(app=("--stop-takes", str(DOCKER)), prepare=shadow) as s:
        await s.pod.timeline.printed("app", "there is no drain any more (ImportError")
        await s.pod.terminate()
        assert heard(s) < SLACK
        ended(s, 143)  # and not killed by limits that nobody has told
