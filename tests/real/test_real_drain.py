"""Whole drains on real servers: a real sidecar process, a kubelet, a gRPC registration, and a consumer's pushes.

The app's registration is held by the SDK in a process of its own, as the app's container only listens; a test closes
the connection when the container has exited, which is what the end of a real app does.
"""

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from kubelet import Container, HttpGet, Pod
from rig.clients import GrpcApp, Subscriber
from rig.openapi import Observer
from rig.records import Instance
from rig.servers import NacosServer


pytestmark = [pytest.mark.real, pytest.mark.timeout(90, func_only=True)]

_numbers = itertools.count(1)
LISTENER = (
    "import socket,time; s=socket.create_server(('{ip}', {port})); print('listening', flush=True); time.sleep(600)"
)


def pod(server: NacosServer, instance: Instance, drain_port: int, *, app_port: int | None = None) -> Pod:
    """An app container that listens, and a native sidecar."""
    app_port = app_port or instance.port
    env = {
        "NACOS_SERVER_ADDR": server.address,
        "NACOS_SERVICE": instance.service,
        "NACOS_IP": instance.ip,
        "NACOS_PORT": str(instance.port),
        "NACOS_USERNAME": server.username or "",
        "NACOS_PASSWORD": server.password or "",
        "LISTEN": f"{instance.ip}:{drain_port}",
        "GRACE_PERIOD": "40",
        "APP_STOP": "2",
        "CONSUMER_CACHE": "0",
        "APP_PORTS": str(app_port),
    }
    app = Container(
        "app",
        [sys.executable, "-S", "-c", LISTENER.format(ip=instance.ip, port=app_port)],
        pre_stop=HttpGet("/drain", drain_port),
    )
    sidecar = Container(
        "sidecar",
        [sys.executable, "-m", "sidecar", "serve"],
        env={"KUBERNETES_SERVICE_HOST": "test", **{f"NACOS_DRAIN_{name}": value for name, value in env.items()}},
        native_sidecar=True,
        startup_probe=HttpGet("/livez", drain_port),
    )
    return Pod(sidecar, app, ip=instance.ip, termination_grace_period_seconds=40)


def fresh() -> tuple[Instance, int]:
    """A service, an address and ports that no other test of this run has."""
    instance = Instance(f"drain-{uuid4().hex[:8]}", free_port(), ip=f"127.0.9.{next(_numbers)}", weight=3.0)
    return instance, free_port()


def free_port() -> int:
    """Free at every address: a sidecar tells its app by the port alone, and here all pods share one network."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def consumer(server: NacosServer, instance: Instance) -> AsyncIterator[Subscriber]:
    async with Subscriber(server) as subscriber:
        await subscriber.subscribe(instance.service)
        yield subscriber


async def ready(made: Pod) -> None:
    """The app listens, and the sidecar has seen it in Nacos."""
    await made.timeline.printed("app", "listening", within=30)
    await made.timeline.printed("sidecar", "registry.ready", within=30)


def finished(stopped: Pod, nth: int = -1) -> dict[str, Any]:
    """The one line that says it all."""
    lines = [json.loads(line) for line in stopped.timeline.text("sidecar", "stdout").splitlines()]
    found = [line for line in lines if line["event"] == "drain.finished"]
    assert found, str(stopped.timeline)
    told: dict[str, Any] = found[nth]
    return told


async def test_a_pod_is_drained_and_leaves_no_trace(real_nacos: NacosServer) -> None:
    """Out, proved, pushed, released, exited, swept: the next app on this address is born enabled, with its weight."""
    instance, port = fresh()
    async with consumer(real_nacos, instance) as subscriber, GrpcApp(real_nacos) as app, Observer(real_nacos) as eye:
        await app.register(instance)
        await eye.until(instance, listed=True)
        async with pod(real_nacos, instance, port) as made:
            await ready(made)
            stopping = asyncio.create_task(made.terminate())
            await made.timeline.printed("sidecar", '"phase": "VERIFY"', within=30)
            assert await eye.is_listed(instance) is False
            assert any(not push.hosts for push in subscriber.pushes)  # consumers were told
            await made.timeline.seen("app", "exit", within=30)
            await app.close()
            await stopping
            told = finished(made)
        assert told["outcome"] == "drained"
        assert told["proved_gone"] is True
        assert told["final"] is True
        assert {p["phase"]: p["outcome"] for p in told["phases"]} == {
            "DEREGISTER": "met",
            "VERIFY": "met",
            "SETTLE": "expired",
            "RELEASE": "met",
            "AWAIT_EXIT": "met",
            "CLEANUP": "met",
        }
        async with GrpcApp(real_nacos) as successor:
            await successor.register(instance)
            await eye.until(instance, listed=True)
            record = await eye.record(instance)
            assert record is not None
            assert record.weight == instance.weight


async def test_a_liveness_restart_is_listed_again(real_nacos: NacosServer) -> None:
    """The pod lives on: the app is back on its address, born disabled, and the sidecar brings it back."""
    instance, port = fresh()
    async with Observer(real_nacos) as eye, GrpcApp(real_nacos) as app, GrpcApp(real_nacos) as reborn:
        await app.register(instance)
        await eye.until(instance, listed=True)
        async with pod(real_nacos, instance, port) as made:
            await ready(made)
            restarting = asyncio.create_task(made.liveness_restart("app"))
            await made.timeline.seen("app", "exit", within=30)
            await app.kill()  # no time for the sweep: the record is still there when the next life registers
            await reborn.register(instance)
            await restarting
            await eye.until(instance, listed=True, within=20)
            record = await eye.record(instance)
            assert record is not None
            assert not record.metadata.get("nacos-drain")
            assert record.weight == instance.weight
            await made.timeline.printed("sidecar", "drain.restored", within=20)
