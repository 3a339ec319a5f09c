"""Nacos, the gateways and the replicas of one service, which is all there is on stage."""

import asyncio
import itertools
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from kubelet import Pod
from rig import spring
from rig.openapi import Observer
from rig.records import Instance
from rig.servers import NacosServer

from bench.running import process

from .cells import Cell
from .load import Consumer, Load, session, warm
from .ways import GRACE_PERIOD, NODE, Site, Way


REPLICAS = 2
FIRST_PORT = 20_000
UP = 90.0  # seconds; gateways have taken 50 on a busy machine
GATEWAY_GENERATION = "2023.0.1"
FOLK = Path(__file__).parent / "java"


@dataclass
class Stage:
    """One Nacos server and the gateways that follow it, under one service."""

    nacos: NacosServer
    observer: Observer
    http: aiohttp.ClientSession
    generation: str
    service: str
    home: Path
    folk: Path
    serving: list[str] = field(default_factory=list)  # the addresses of the replicas that nobody has told to stop
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def path(self) -> str:
        """What the gateways route to the service."""
        return f"/{self.service}/orders"

    def load(self) -> Load:
        """Load that has not begun."""
        return Load(self.http, self.path)

    @asynccontextmanager
    async def replica(self, way: Way, cell: Cell) -> AsyncIterator["Replica"]:
        """A pod that is ready and listed; what is left of it ends with the block."""
        number = next(self._numbers)
        ip = f"127.0.{2 + number // 200}.{10 + number % 200}"  # Nacos remembers an address for a minute
        home = self.home / f"pod-{number}"
        home.mkdir()
        look_back = "" if cell.look_back is None else f"{cell.look_back:g}s"
        port = FIRST_PORT + number
        site = Site(self.nacos, self.generation, self.service, ip, port, home, self.folk, look_back)
        containers = await asyncio.to_thread(way.containers, site)
        pod = Pod(
            *containers, ip=ip, node_ip=NODE, termination_grace_period_seconds=GRACE_PERIOD, restart_policy="Never"
        )
        async with pod:
            instance = Instance(self.service, port, ip)
            await self.observer.until(instance, listed=True, within=UP)
            self.serving.append(instance.address)
            yield Replica(pod, instance)

    async def warm(self, cell: Cell) -> None:
        """Wait until the service is reached through each gateway of the cell."""
        async with asyncio.TaskGroup() as group:
            for consumer in cell.consumers:
                group.create_task(warm(consumer, self.http, self.path, UP))


@dataclass(frozen=True)
class Replica:
    """A pod of the service."""

    pod: Pod
    instance: Instance


@asynccontextmanager
async def stage(
    version: str, generation: str, gateways: Iterable[Consumer], service: str = "shop"
) -> AsyncIterator[Stage]:
    """Start a server and some gateways; everything ends with the block."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-rollout-")))
        nacos = stack.enter_context(NacosServer(version))
        folk = await asyncio.to_thread(compiled, generation)
        for each in gateways:
            command = spring.gateway(
                GATEWAY_GENERATION, nacos, ip=each.ip, service=service, home=home, options=each.options
            )
            await stack.enter_async_context(process(*command.argv, env=dict(command.env)))
        observer = await stack.enter_async_context(Observer(nacos))
        http = await stack.enter_async_context(session())
        yield Stage(nacos, observer, http, generation, service, home, folk)


def compiled(generation: str) -> Path:
    """The classes of the folk endpoint, for the class path of one generation."""
    built = spring.build(generation)
    out = built / "folk"
    libraries = os.pathsep.join(map(str, (built / "provider" / "lib").glob("*.jar")))
    sources = map(str, FOLK.rglob("*.java"))
    subprocess.run(  # noqa: S603  our own sources
        ["javac", "-nowarn", "--release", "8", "-cp", libraries, "-d", out, *sources],  # noqa: S607  whichever JDK is installed
        check=True,
    )
    return out
