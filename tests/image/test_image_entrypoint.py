"""The image's tree as the entrypoint of a Java app: `docker stop` under load, with a real Nacos."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp
import pytest
from rig.clients import GrpcApp, Subscriber
from rig.containers import Container, Network, container, reachable
from rig.records import Instance
from rig.servers import NacosServer


pytestmark = [pytest.mark.docker, pytest.mark.timeout(120, func_only=True)]

PORT = 8080
SIGTERM_CODE = 143  # what a JVM exits with by itself; 137 is docker's SIGKILL
DOCKER_STOPS_IN = 10.0
EVERY = 0.02  # seconds from one request to the next
LATE = 1.0  # seconds that a consumer uses a list for when there is a newer one


@dataclass
class Load:
    """A consumer of Nacos' pushes, a little behind them, that opens a connection for each request."""

    subscriber: Subscriber
    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    over: bool = False

    @property
    def addresses(self) -> list[str]:
        """Whom it would call now."""
        return self.subscriber.addresses(LATE)

    async def until(self, addresses: int) -> None:
        """Wait until it has been told so many, and each of them has answered."""
        async with asyncio.timeout(20):
            while not (len(self.addresses) == addresses and {*self.addresses} <= {*self.answers}):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def run(self) -> None:
        """Call until it is over, and have each call end: nobody answers for an address that is gone."""
        timeout = aiohttp.ClientTimeout(total=5)
        connections = aiohttp.TCPConnector(force_close=True)  # a kept one would be repeated by aiohttp in silence
        async with aiohttp.ClientSession(timeout=timeout, connector=connections) as http, asyncio.TaskGroup() as calls:
            while not self.over:
                await asyncio.sleep(EVERY)
                if addresses := self.addresses:
                    calls.create_task(self._call(http, random.choice(addresses)))

    async def _call(self, http: aiohttp.ClientSession, address: str) -> None:
        try:
            async with http.get(f"http://{address}/") as answer:
                body = await answer.text()
                assert (answer.status, body) == (200, "in stock\n")
        except (aiohttp.ClientError, TimeoutError, AssertionError) as error:
            self.failures.append(f"{address}: {error!r}")
        else:
            self.answers[address] = self.answers.get(address, 0) + 1


@dataclass
class Replica:
    """One container of the app, and its registration, which ends with it."""

    container: Container
    registration: GrpcApp
    ip: str
    alone: bool

    async def stop(self, grace: int | None = None) -> tuple[int, float]:
        """Stop it; its exit code and the seconds that took."""
        stopping = asyncio.create_task(self.container.stop(grace))
        if self.alone:
            await self.container.wait()
        else:
            await self.container.told("run.exited", within=60)
        await self.registration.close()  # the end of the JVM would end it
        return await stopping


@asynccontextmanager
async def replica(
    image: str, bridge: Network, nacos: NacosServer, address: str, service: str, *, alone: bool, **settings: str
) -> AsyncIterator[Replica]:
    """Start one; `alone`: the app itself is PID 1, without nacos-drain."""
    env = {
        "NACOS_SERVER_ADDR": address,
        "NACOS_SERVICE": service,
        "NACOS_PORT": str(PORT),
        "CONSUMER_CACHE": "0",  # these consumers follow the pushes
        **settings,
    }
    options = ["--network", bridge.name, *(("--entrypoint", "java") if alone else ())]
    command = ("-cp", "/app", "Shop") if alone else ()
    given = {f"NACOS_DRAIN_{name}": value for name, value in env.items()}
    async with container(image, *command, options=options, env=given) as made, GrpcApp(nacos) as registration:
        await made.until("listening")
        ip = await made.ip()
        await registration.register(Instance(service, PORT, ip=ip))
        if not alone:
            await made.told("registry.ready", within=40)
        yield Replica(made, registration, ip, alone)


@asynccontextmanager
async def rollout(
    image: str, bridge: Network, nacos: NacosServer, *, alone: bool = False, **settings: str
) -> AsyncIterator[tuple[Replica, Load]]:
    """Two replicas under load; the one that is to be stopped, and the load, which goes on for a second after it."""
    service = f"shop-{uuid4().hex[:8]}"
    async with (
        reachable(nacos.address, bridge.gateway) as address,
        Subscriber(nacos) as subscriber,
        replica(image, bridge, nacos, address, service, alone=True) as stays,
        replica(image, bridge, nacos, address, service, alone=alone, **settings) as goes,
    ):
        await subscriber.subscribe(service)
        load = Load(subscriber)
        running = asyncio.create_task(load.run())
        try:
            await load.until(addresses=2)
            yield goes, load
            before = load.answers[f"{stays.ip}:{PORT}"]
            async with asyncio.timeout(20):
                while load.answers[f"{stays.ip}:{PORT}"] < before + 1 / EVERY:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            load.over = True
            await running


async def test_a_stop_with_time_fails_no_request(java_image: str, bridge: Network, nacos2: NacosServer) -> None:
    async with rollout(java_image, bridge, nacos2, GRACE_PERIOD="60") as (goes, load):
        code, seconds = await goes.stop(60)
        finished = await goes.container.told("drain.finished")
    assert load.failures == []
    assert code == SIGTERM_CODE
    assert seconds < 45, await goes.container.everything()
    assert (finished["trigger"], finished["outcome"], finished["proved_gone"]) == ("sigterm", "drained", True)
    assert finished["traffic_source"] == "netlink"


async def test_without_us_the_same_stop_fails_requests(java_image: str, bridge: Network, nacos2: NacosServer) -> None:
    """The canary of the test above."""
    async with rollout(java_image, bridge, nacos2, alone=True) as (goes, load):
        code, _ = await goes.stop(60)
    assert code == SIGTERM_CODE
    assert load.failures


async def test_within_docker_s_own_ten_seconds_the_app_gets_its_sigterm(
    java_image: str, bridge: Network, nacos2: NacosServer
) -> None:
    """Nobody has set a grace period: docker's is assumed, and the app keeps 3 s of it."""
    async with rollout(java_image, bridge, nacos2) as (goes, load):
        code, seconds = await goes.stop()
        finished = await goes.container.told("drain.finished")
    assert code == SIGTERM_CODE
    assert seconds < DOCKER_STOPS_IN
    assert finished["proved_gone"], finished
    assert load.failures == []  # these consumers follow the pushes, so even 4 s are enough
