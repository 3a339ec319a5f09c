"""Pods that are stopped, in every order in which a kubelet stops one."""

import asyncio
import os
import signal
import socket
from contextlib import suppress

import psutil
from pod.scene import APP_STOP, BUDGET, CAP, LONG, SHORT, Scene, assert_about, scene
from pod.together import side_by_side


PHASES = ["DEREGISTER", "VERIFY", "SETTLE", "RELEASE", "AWAIT_EXIT", "CLEANUP"]


def assert_left_clean(s: Scene) -> None:
    """The app is gone, proved so, and the next one on this address is not born disabled."""
    assert not s.listed
    assert not s.disabled
    assert s.mark == ""
    assert s.told("drain.finished")["outcome"] == "drained"
    assert s.told("drain.finished")["proved_gone"] is True
    assert s.pod.timeline.event("sidecar", "exit").detail == "0"


@side_by_side
async def test_an_ordinary_sidecar_is_signalled_first_and_drains_to_the_end() -> None:
    async with scene(grace=LONG) as s:
        await s.pod.terminate(order="signal_first")
        s.pod.timeline.assert_order(
            ("sidecar", "sigterm"),
            ("app", "hook-start"),
            ("app", "hook-end"),
            ("app", "sigterm"),
            ("app", "exit"),
            ("sidecar", "exit"),
        )
        s.pod.timeline.assert_never("sidecar", "sigkill")
        assert s.told("drain.started")["trigger"] == "sigterm"
        assert_about(s.pod.timeline.at("app", "hook-end"), CAP)
        assert_about(s.pod.timeline.at("sidecar", "exit"), s.pod.timeline.at("app", "exit"))
        assert_left_clean(s)


@side_by_side
async def test_the_log_tells_a_drain_in_order_and_the_release_before_the_hook_is_answered() -> None:
    async with scene(grace=LONG) as s:
        await s.pod.terminate(order="hook_first")
        assert s.events == [
            "drain.started",
            *["drain.phase_finished"] * 4,
            "drain.released",
            *["drain.phase_finished"] * 2,
            "drain.finished",
        ]
        assert [line["phase"] for line in s.log if line["event"] == "drain.phase_finished"] == PHASES
        released = s.told("drain.released")
        assert released["trigger"] in {"hook", "sigterm"}  # 10 ms apart, which a busy machine does not tell
        assert (released["final"], released["state"]) == (False, "released")
        assert [p["phase"] for p in released["phases"]] == PHASES[:4]
        assert released["phases"][2]["detail"].startswith("waited for the cap: ")
        finished = s.told("drain.finished")
        assert (finished["id"], finished["final"], finished["state"]) == (released["id"], True, "ended")
        assert [(p["phase"], p["outcome"]) for p in finished["phases"]] == [
            (phase, "expired" if phase == "SETTLE" else "met") for phase in PHASES
        ]
        assert await s.said("drain.released") <= s.pod.timeline.at("app", "hook-end")
        assert await s.said("drain.finished") >= s.pod.timeline.at("app", "exit")
        assert_left_clean(s)


@side_by_side
async def test_a_native_sidecar_is_signalled_after_the_app_and_goes_at_once() -> None:
    async with scene(native=True) as s:
        await s.pod.terminate()
        s.pod.timeline.assert_order(
            ("app", "hook-end"), ("app", "sigterm"), ("app", "exit"), ("sidecar", "sigterm"), ("sidecar", "exit")
        )
        s.pod.timeline.assert_never("sidecar", "sigkill")
        assert s.told("drain.started")["trigger"] == "hook"
        assert_left_clean(s)


@side_by_side
async def test_a_hook_that_is_delivered_twice_joins_the_drain() -> None:
    """By an old kubelet, which asks for `//drain`, dies in the middle and begins again."""
    async with scene(native=True, old_kubelet=True) as s:
        stopping = asyncio.create_task(s.pod.terminate())
        await s.said("drain.started")
        await s.pod.restart_kubelet()
        await stopping
        s.pod.timeline.assert_order(
            ("app", "hook-start"), ("app", "hook-cut"), ("app", "hook-start"), ("app", "hook-end"), ("app", "sigterm")
        )
        assert s.events.count("drain.started") == 1
        assert_left_clean(s)


@side_by_side
async def test_without_any_hook_the_signal_alone_drains() -> None:
    async with scene(hook=None) as s:
        await s.pod.terminate()
        s.pod.timeline.assert_never("sidecar", "sigkill")
        finished = s.told("drain.finished")
        assert finished["trigger"] == "sigterm"
        assert "no preStop hook reached this sidecar" in finished["notes"]
        assert next(p for p in finished["phases"] if p["phase"] == "SETTLE")["detail"] == "the app is gone"
        assert (finished["outcome"], finished["proved_gone"]) == ("drained", True)
        assert s.mark or not s.disabled  # the app may be faster than the answer to our write: then it is marked as ours


@side_by_side
async def test_a_hook_that_comes_long_after_the_signal_joins() -> None:
    async with scene(restart=False) as s:
        os.kill(s.pod.pid("sidecar"), signal.SIGTERM)
        await s.said("drain.released")
        code, report = await s.hook()
        assert code == 200
        assert (report["trigger"], report["state"]) == ("sigterm", "released")
        os.kill(s.pod.pid("app"), signal.SIGTERM)
        await s.pod.timeline.seen("sidecar", "exit")
        assert "no preStop hook reached this sidecar" not in s.told("drain.finished")["notes"]
        assert_left_clean(s)


@side_by_side
async def test_a_sidecar_that_is_stopped_alone_under_kubernetes_gives_the_instance_back() -> None:
    async with scene(restart=False) as s:
        s.pod.timeline.begin()
        os.kill(s.pod.pid("sidecar"), signal.SIGTERM)
        await s.said("drain.released")
        assert s.disabled
        gone = await s.pod.timeline.seen("sidecar", "exit")
        assert gone.detail == "0"
        assert_about(gone.seconds, SHORT - 3)
        assert s.told("drain.restored")["reason"] == "sidecar_stopped"
        assert s.mark == ""
        await s.until("listed")


@side_by_side
async def test_elsewhere_our_exit_is_the_release_and_the_mark_is_left_to_expire() -> None:
    """Compose stops the sidecar first, and the app when that has exited."""
    async with scene(kubernetes=False, restart=False) as s:
        s.pod.timeline.begin()
        os.kill(s.pod.pid("sidecar"), signal.SIGTERM)
        gone = await s.pod.timeline.seen("sidecar", "exit")
        assert gone.detail == "0"
        assert_about(gone.seconds, BUDGET)
        assert s.told("drain.finished")["outcome"] == "drained"
        assert s.disabled
        assert s.mark != ""


@side_by_side
async def test_a_second_ctrl_c_is_a_person_in_a_hurry() -> None:
    async with scene(kubernetes=False, restart=False, grace=LONG) as s:
        os.kill(s.pod.pid("sidecar"), signal.SIGINT)
        await s.said("drain.phase_finished", nth=1)
        s.pod.timeline.begin()
        os.kill(s.pod.pid("sidecar"), signal.SIGINT)
        gone = await s.pod.timeline.seen("sidecar", "exit")
        assert gone.detail == "0"
        assert_about(gone.seconds, 0)
        finished = s.told("drain.finished")
        assert (finished["trigger"], finished["outcome"]) == ("sigint", "drained")
        assert finished["phases"][2]["detail"] == "release asked for"


@side_by_side
async def test_an_app_that_dies_in_mid_drain_is_released_at_once_and_still_proved_gone() -> None:
    async with scene(native=True, grace=LONG) as s:
        stopping = asyncio.create_task(s.pod.terminate())
        await s.said("drain.phase_finished", nth=1)  # VERIFY
        os.kill(s.pod.pid("app"), signal.SIGKILL)
        died = s.pod.timeline.now
        await stopping
        assert_about(s.pod.timeline.at("app", "hook-end"), died)
        finished = s.told("drain.finished")
        assert finished["phases"][2] | {"seconds": 0} == {
            "phase": "SETTLE",
            "outcome": "skipped",
            "seconds": 0,
            "detail": "the app is gone",
        }
        assert_left_clean(s)


async def fill_the_queue(app: int, ip: str, port: int) -> list[socket.socket]:
    """Connect until a stopped app is in the way."""
    while psutil.Process(app).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110  SIGSTOP takes its time
        await asyncio.sleep(0.01)
    filling: list[socket.socket] = []
    with suppress(TimeoutError):
        while True:
            filling.append(socket.socket())
            filling[-1].setblocking(False)
            async with asyncio.timeout(0.3):
                await asyncio.get_running_loop().sock_connect(filling[-1], (ip, port))
    return filling


@side_by_side
async def test_an_app_that_hangs_gets_no_settle() -> None:
    """Stopped, with a full queue of connections: the kernel accepts no more in its name."""
    async with scene(native=True, grace=LONG, app=("--backlog", "1")) as s:
        app = s.pod.pid("app")
        os.kill(app, signal.SIGSTOP)
        filling = await fill_the_queue(app, s.ip, s.app_port)
        stopping = asyncio.create_task(s.pod.terminate())
        answered = await s.pod.timeline.seen("app", "hook-end")
        for each in filling:
            each.close()
        os.kill(app, signal.SIGKILL)
        await stopping
        assert_about(answered.seconds, 1)  # the knock's second
        settle = s.told("drain.released")["phases"][2]
        assert (settle["outcome"], settle["detail"]) == ("skipped", "the app is hung")
        assert_left_clean(s)


@side_by_side
async def test_a_grace_period_that_is_too_short_sends_the_write_and_says_so() -> None:
    async with scene(grace=4, native=True) as s:
        misfit = s.told("plan.misfit")
        assert misfit["level"] == "error"
        assert misfit["fits"] is False
        await s.pod.terminate()
        assert_about(s.pod.timeline.at("app", "hook-end"), 0)
        released = s.told("drain.released")
        assert (released["outcome"], released["proved_gone"]) == ("unproven", False)
        assert released["level"] == "warning"
        assert "too short" in " ".join(released["notes"])
        assert_left_clean(s)  # the removal goes on after the release, and is proved in time


@side_by_side
async def test_the_sidecar_signals_the_app_when_told_to() -> None:
    env = {"RELEASE": "signal", "TOKEN": "right"}
    async with scene(env, restart=False) as s:
        code, report = await s.ask("POST", "/drain", "right")
        assert (code, report["outcome"]) == (200, "drained")
        exited = await s.pod.timeline.seen("app", "exit")
        assert exited.detail == "143"
        await s.said("drain.finished")
        assert s.told("drain.finished")["phases"][3] | {"seconds": 0} == {
            "phase": "RELEASE",
            "outcome": "met",
            "seconds": 0,
            "detail": "SIGTERM sent to the app",
        }


@side_by_side
async def test_an_app_that_ignores_the_signal_is_killed_when_told_to() -> None:
    """And nobody but loopback may ask a sidecar that signals, where no token is set."""
    env = {"RELEASE": "signal", "APP_KILL": "true"}
    async with scene(env, restart=False, app=("--on-term", "stay")) as s:
        code, _ = await s.hook()
        assert code == 401
        assert s.events == []
        code, _ = await s.ask("POST", "/drain")
        released = s.pod.timeline.now
        assert code == 200
        exited = await s.pod.timeline.seen("app", "exit")
        assert exited.detail == "137"
        assert "SIGTERM" in s.pod.timeline.text("app")
        assert_about(exited.seconds, released + APP_STOP)


@side_by_side
async def test_a_manual_drain_signals_nobody_and_loopback_needs_no_token_when_told_so() -> None:
    env = {"RELEASE": "signal", "TOKEN": "right", "LOOPBACK_OPEN": "true"}
    async with scene(env, grace=3, restart=False) as s:
        code, _ = await s.hook()
        assert code == 401
        code, report = await s.ask("POST", "/drain?manual=1")
        assert (code, report["trigger"]) == (200, "manual")
        await s.until_state("armed")
        assert "SIGTERM" not in s.pod.timeline.text("app")
