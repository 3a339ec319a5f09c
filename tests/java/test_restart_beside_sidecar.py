"""A container that is restarted in its pod: a real app on its old address, and the sidecar that has just taken it out.

However it was taken out, the app has to be listed as soon as it is ready: a disabled record waits for it on the
OpenAPI's road, and nothing at all on the starter's.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubelet import Container, HttpGet, Pod
from rig.openapi import Observer
from rig.records import Instance
from rig.servers import NacosServer
from rig.spring import GENERATIONS, MANAGEMENT_PORT, Command, provider


pytestmark = pytest.mark.timeout(150, func_only=True)

DRAIN_PORT = 9180
QUICK = "--spring.cloud.nacos.discovery.graceful-shutdown-wait-time=0"  # 10 s of its own in the newer generations
LISTED = 3.0  # seconds after it is ready

# Each generation with one server in CI, with both in `make soak`.
IN_CI = {("2021.0", "nacos2"), ("2025.1", "nacos3")}
PAIRS = [
    pytest.param(
        generation,
        server,
        marks=[pytest.mark.java] if (generation, server) in IN_CI else [pytest.mark.java, pytest.mark.soak],
    )
    for server in ("nacos2", "nacos3")
    for generation in GENERATIONS
]


@dataclass(frozen=True)
class Case:
    """One app, and how it is taken out."""

    road: str
    instance: Instance
    nacos: NacosServer
    app: Command

    @property
    def settings(self) -> Mapping[str, str]:
        """What the sidecar is told: where the starter is, or else everything."""
        told = {
            "LISTEN": f"{self.instance.ip}:{DRAIN_PORT}",
            "NACOS_IP": self.instance.ip,  # all pods have the machine's network
            "GRACE_PERIOD": "60",
            "CONSUMER_CACHE": "0",
            "LOG_FORMAT": "json",
        }
        if self.road == "nacos-deregister":
            told["ACTUATOR_URL"] = f"http://{self.instance.ip}:{MANAGEMENT_PORT}/actuator"
        else:
            told |= {
                "NACOS_SERVER_ADDR": self.nacos.address,
                "NACOS_SERVICE": self.instance.service,
                "NACOS_PORT": str(self.instance.port),
                "NACOS_USERNAME": self.nacos.username or "",
                "NACOS_PASSWORD": self.nacos.password or "",
            }
        return {"KUBERNETES_SERVICE_HOST": "test", **{f"NACOS_DRAIN_{name}": value for name, value in told.items()}}

    def pod(self) -> Pod:
        """The app and a native sidecar."""
        sidecar = Container(
            "sidecar",
            (sys.executable, "-m", "sidecar", "serve"),
            self.settings,
            native_sidecar=True,
            startup_probe=HttpGet("/livez", DRAIN_PORT),
        )
        app = Container(
            "app",
            self.app.argv,
            self.app.env,
            pre_stop=HttpGet("/drain", DRAIN_PORT),
            startup_probe=HttpGet("/actuator/health", MANAGEMENT_PORT),
        )
        return Pod(sidecar, app, ip=self.instance.ip, termination_grace_period_seconds=60)


def free_port() -> int:
    """Free at every address: a sidecar tells its app by the port alone, and here all pods share one network."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


async def is_restarted(case: Case) -> dict[str, Any]:
    """Let its liveness probe fail, and see it listed on its old address in time; return the sidecar's report."""
    instance = case.instance
    async with case.pod() as made, Observer(case.nacos) as observer:
        await made.timeline.printed("sidecar", "registry.ready", within=30)
        await observer.until(instance, listed=True)
        record = await observer.record(instance)
        restarting = asyncio.create_task(made.liveness_restart("app"))
        await observer.until(instance, listed=False, within=30)
        await restarting
        await observer.until(instance, listed=True, within=LISTED)
        await made.timeline.printed("sidecar", "drain.finished", within=30)
        again = await observer.record(instance)
        assert again == record, f"{again}\n{made.timeline}"
        lines = [json.loads(line) for line in made.timeline.text("sidecar", "stdout").splitlines()]
        told: dict[str, Any] = next(line for line in lines if line["event"] == "drain.finished")
        return told


@pytest.mark.parametrize(("generation", "real_nacos"), PAIRS, indirect=True)
async def test_a_restarted_app_is_listed_as_soon_as_it_is_ready(
    generation: str, real_nacos: NacosServer, service: str, address: str, tmp_path: Path
) -> None:
    """Both roads at once, as most of the time is the apps' start."""

    def case(road: str, ip: str) -> Case:
        instance = Instance(service, free_port(), ip)
        starter = road == "nacos-deregister"
        home = tmp_path / road
        home.mkdir()
        # fmt: off
        app = provider(
            generation, real_nacos, ip=ip, port=instance.port, service=service, home=home, starter=starter,
            options=[QUICK],
        )
        # fmt: on
        return Case(road, instance, real_nacos, app)

    neighbour = address.rpartition(".")[0] + ".255"
    cases = [case("nacos-deregister", address), case("openapi", neighbour)]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(is_restarted(each)) for each in cases]
    for each, task in zip(cases, running, strict=True):
        told = task.result()
        assert {row["road"] for row in told["instances"]} == {each.road}, told
