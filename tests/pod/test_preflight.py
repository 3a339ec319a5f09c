"""The checks that `serve` makes by itself, and what it tells of who the app is: in real processes."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pod.scene import PUSH, Scene, assert_about, command, scene
from pod.together import side_by_side


pytestmark = pytest.mark.long


@dataclass
class Actuator:
    """The actuator of a pod's app, on a port of this process."""

    url: str = ""
    scene: Scene | None = None
    status: int = 200
    stop_wait: int = 0
    hangs: str = ""  # an endpoint that says nothing
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, made: Scene) -> None:
        """Belong to this pod."""
        self.scene = made

    async def answer(self, request: web.Request) -> web.Response:
        assert self.scene is not None
        if request.match_info["name"] == self.hangs:
            self.asked.set()
            await asyncio.Event().wait()
        if request.match_info["name"] != "nacosdiscovery":
            raise web.HTTPNotFound
        told = {
            "service": "shop",
            "group": "DEFAULT_GROUP",
            "namespace": "",
            "clusterName": "",
            "ip": self.scene.ip,
            "port": self.scene.app_port,
            "serverAddr": self.scene.double.address,
            "gracefulShutdownWaitTime": self.stop_wait,
            "password": "canary-of-the-app",
        }
        return web.json_response({"NacosDiscoveryProperties": told}, status=self.status)

    @property
    def env(self) -> dict[str, str]:
        """What the sidecar is told: nothing but where to ask."""
        names = ("NACOS_SERVICE", "NACOS_SERVER_ADDR", "NACOS_IP", "NACOS_PORT", "APP_STOP")
        return {**dict.fromkeys(names, ""), "ACTUATOR_URL": self.url}


@asynccontextmanager
async def actuator(**options: Any) -> AsyncIterator[Actuator]:
    made = Actuator(**options)
    app = web.Application()
    app.router.add_route("*", "/actuator/{name}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/actuator"
        yield made
    finally:
        await runner.cleanup()


def rows(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The checks on /status by their names."""
    return {row["check"]: row for row in status["preflight"]}


@side_by_side
async def test_a_sidecar_that_is_well_says_so_once() -> None:
    """With a warning or without: here SETTLE is cut."""
    async with scene({"TOKEN": "right", "GRACE_PERIOD": "30", "CONSUMER_CACHE": "35"}) as s:
        await s.said("preflight.ok")
        checks = rows(await s.status())
        assert {row["verdict"] for row in checks.values()} == {"ok", "warning", "unknown"}
        assert checks["permission"]["verdict"] == "unknown"  # asked at a moment of its own
        assert "process" in checks["app"]["detail"]
        assert checks["nodes"]["at"].endswith("Z")
        metrics = await s.metrics()
        assert 'nacos_drain_preflight{check="instance"} 1.0' in metrics
        assert 'nacos_drain_preflight{check="permission"} NaN' in metrics
        told = s.told("preflight.ok")
        assert (told["ok"], told["warning"], told["unknown"]) == (len(checks) - 2, 1, 1)
        assert s.told("preflight.warning")["name"] == "plan"
        assert "raise terminationGracePeriodSeconds" in s.told("preflight.warning")["next_step"]
        assert not [line for line in s.log if line["event"] == "preflight.failing"]
        (known,) = (await s.status())["known"]
        assert known["publisher"] == "unknown"  # the double's own name of a connection


@side_by_side
async def test_what_is_wrong_is_told_with_the_next_step_and_keeps_no_drain() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and says nothing
        second = f"127.0.0.1:{silent.getsockname()[1]}"

        def two_nodes(made: Scene) -> None:
            env = made.pod.containers["sidecar"].spec.env
            assert isinstance(env, dict)
            env["NACOS_DRAIN_NACOS_SERVER_ADDR"] += f",{second}"

        async with scene({"TOKEN": ""}, prepare=two_nodes) as s:
            await s.pod.timeline.printed("sidecar", '"name": "nodes"')
            (told,) = [line for line in s.log if line["event"] == "preflight.failing" and line["name"] == "nodes"]
            assert told["level"] == "error"
            assert f"{second}: no answer within 2 s" in told["detail"]
            assert "NACOS_DRAIN_NACOS_SERVER_ADDR" in told["next_step"]
            assert 'nacos_drain_preflight{check="nodes"} 0.0' in await s.metrics()
            code, out, _ = await command("status", env={"NACOS_DRAIN_LISTEN": f"{s.ip}:{s.port}"})
            assert code == 0
            assert f"preflight      nodes FAILING: {second}: no answer within 2 s" in out
            assert "-> a drain proves nothing there" in out
            status, report = await s.hook()
            assert (status, report["outcome"]) == (200, "unproven")
            assert "preflight.ok" not in [line["event"] for line in s.log]


@side_by_side
async def test_a_check_under_way_does_not_delay_a_drain() -> None:
    """It waits 3 s for an endpoint that says nothing; the trigger ends that, and the drain does not notice."""
    async with actuator(hangs="shutdown") as app, scene({"ACTUATOR_URL": app.url}, prepare=app.of, ready=False) as s:
        await s.said("registry.ready")
        await app.asked.wait()
        s.pod.timeline.begin()
        hook = asyncio.create_task(s.hook())
        done = await s.pod.timeline.printed("sidecar", '"phase": "VERIFY"')
        assert_about(done.seconds, PUSH)
        assert not rows(await s.status())  # ended, and not made again
        code, report = await hook
        assert (code, report["outcome"]) == (200, "drained")
        assert not [line for line in s.log if line["event"].startswith("preflight.")]


@side_by_side
async def test_who_the_app_says_it_is_is_told_once() -> None:
    async with actuator(stop_wait=2_000) as app, scene(app.env, prepare=app.of, grace=40) as s:
        await s.said("preflight.ok")
        told = s.told("registry.identified")
        assert {k: told[k] for k in ("service", "group", "namespace", "ip", "port", "registers")} == {
            "service": "shop",
            "group": "DEFAULT_GROUP",
            "namespace": "public",
            "ip": s.ip,
            "port": s.app_port,
            "registers": True,
        }
        assert "actuator" in told["source"]
        events = [line["event"] for line in s.log]
        assert events.count("registry.identified") == 1
        assert "registry.unidentified" not in events
        status = await s.status()
        identity = {"source": told["source"], "registers": True, "stop_wait": 2.0, "nacos_client": None}
        assert status["identity"] == identity
        assert status["unidentified"] is None
        assert status["roads"] == ["nacos-deregister", "serviceregistry", "openapi"]
        assert rows(status)["identity"]["verdict"] == "ok"
        assert "canary" not in json.dumps(s.log) + json.dumps(status)


@side_by_side
async def test_a_built_in_wait_is_told_as_a_plan() -> None:
    async with actuator(stop_wait=15_000) as app, scene(app.env, prepare=app.of, grace=40) as s:
        await s.said("preflight.ok")
        plans = [line for line in s.log if line["event"].startswith("plan")]
        assert [line["app_stop"] for line in plans] == [10.0, 15.0]
        assert (await s.status())["plan"]["app_stop"] == 15.0


@side_by_side
async def test_an_app_that_does_not_say_who_it_is_is_told_once() -> None:
    async with actuator(status=404) as app, scene(app.env, prepare=app.of, ready=False) as s:
        await s.said("registry.unidentified")
        told = s.told("registry.unidentified")
        assert "shows neither our starter's nacos-deregister nor nacosdiscovery" in told["error"]
        assert "set NACOS_DRAIN_NACOS_SERVER_ADDR and NACOS_DRAIN_NACOS_SERVICE" in told["next_step"]
        await s.said("preflight.failing", within=25)
        assert [line["event"] for line in s.log].count("registry.unidentified") == 1
        status = await s.status()
        assert "shows neither our starter's nacos-deregister nor nacosdiscovery" in status["unidentified"]
        assert status["identity"] is None
        assert rows(status)["identity"]["verdict"] == "failing"
        assert rows(status)["instance"]["verdict"] == rows(status)["permission"]["verdict"] == "unknown"
