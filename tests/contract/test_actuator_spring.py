"""The actuator adapter against real Spring Cloud Alibaba apps: what the scripted ones play has to be true.

Two apps for each generation and server, one with our starter and one without; each is started once for all there is to
see, and both at the same time. Needs a JDK 17 and Maven, which builds `examples/spring-cloud`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from contract.test_actuator import (
    DEREGISTER,
    EFFECTS,
    REGISTRY,
    actuator,
    answers,
    back_after_a_removal,
    leaves_and_comes_back,
    of,
    out_and_back,
)
from rig.openapi import Observer
from rig.servers import NacosServer
from rig.spring import SpringApp, spring_app

from sidecar.adapters.actuator import Deregister, SpringActuator
from sidecar.adapters.nacos import Nacos
from sidecar.http import Http
from sidecar.ports import Rejected
from sidecar.registration import Identity, Publisher


CLIENTS = {"2021.0": "2.2.0", "2023.0.1": "2.4.2", "2023.0.3": "2.4.3", "2025.0": "3.0.3", "2025.1": "3.1.1"}
TOLD_WAIT, HEEDED_WAIT = {"2023.0.3", "2025.0", "2025.1"}, {"2023.0.3", "2025.1"}
USER, PASSWORD = "nacos", "nacos"  # where Nacos asks nobody, any will do
WAIT = 2.0
OPTIONS = (
    "--management.endpoints.web.exposure.include=health,nacosdiscovery,nacos-deregister,serviceregistry,shutdown",
    f"--spring.cloud.nacos.discovery.graceful-shutdown-wait-time={WAIT * 1000:.0f}",
)
ANY = frozenset[int]()
EACH = [
    pytest.param(generation, marks=[pytest.mark.soak] if generation in {"2023.0.1", "2023.0.3", "2025.0"} else [])
    for generation in CLIENTS
]

_addresses = itertools.count(1)


@pytest.mark.java
@pytest.mark.timeout(150, func_only=True)
@pytest.mark.parametrize("generation", EACH)
async def test_real_apps_are_as_the_scripted_ones_play_them(real_nacos: NacosServer, generation: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(with_the_starter(generation, real_nacos))
        group.create_task(without_it(generation, real_nacos))


def options_of(generation: str, server: NacosServer) -> dict[str, object]:
    """What each app gets of its own."""
    shutdown = "access=unrestricted" if generation.startswith("2025") else "enabled=true"  # both at once end Boot 3.5
    options = (*OPTIONS, f"--management.endpoint.shutdown.{shutdown}")
    login = {"NACOS_USERNAME": server.username or USER, "NACOS_PASSWORD": server.password or PASSWORD}
    address = f"127.0.13.{next(_addresses)}"
    return {"ip": address, "service": f"spring-{uuid4().hex[:8]}", "options": options, "env": login}


@asynccontextmanager
async def opened(
    generation: str, server: NacosServer, *, starter: bool
) -> AsyncIterator[tuple[SpringApp, SpringActuator, Observer, Identity]]:
    """One that has registered, and what it says of itself."""
    async with (
        spring_app(generation, server, starter=starter, **options_of(generation, server)) as app,  # type: ignore[arg-type]  # a dict
        actuator(app.url) as asked,
        Observer(server) as eye,
    ):
        await eye.until(app.instance, listed=True)
        told = await asked.identity(ANY)
        assert told is not None
        assert (told.instance, told.servers, told.starter) == (of(app), (server.base,), starter)
        assert told.stop_wait == (WAIT if generation in TOLD_WAIT else None)
        yield app, asked, eye, told


async def with_the_starter(generation: str, server: NacosServer) -> None:
    """It tells who it is, leaves and comes back as often as one likes, and stops as its generation does."""
    async with opened(generation, server, starter=True) as (app, asked, eye, told):
        assert (told.client, told.publisher) == (CLIENTS[generation], Publisher.GRPC)
        assert asked.roads[0].undoable
        assert await held(server, app) is Publisher.GRPC, "Nacos says the same"
        await leaves_and_comes_back(asked, app, eye)
        await back_after_a_removal(asked, app, eye, spring_can=generation.startswith("2025"))
        await out_and_back(asked, REGISTRY, app, eye, effect(generation, server))
        await borrowed(app, server)
        await asked.offline(DEREGISTER)
        app.terminate()
        await stopped(app, waits=generation in HEEDED_WAIT)
        assert await app.exited() == 143
        await eye.until(app.instance, listed=False)
        assert await eye.record(app.instance) is None


async def without_it(generation: str, server: NacosServer) -> None:
    """It is known by nacosdiscovery, its endpoints do what they do, and it says what it does not understand."""
    async with opened(generation, server, starter=False) as (app, asked, eye, _):
        assert asked.credentials() == (server.username or USER, server.password or PASSWORD)
        assert await asked.healthy() is True
        assert list((await asked.exposed()).values()) == [
            "exposed",
            "exposed",
            "not exposed (404)",
            "exposed",
            "exposed",
        ]
        with pytest.raises(Rejected, match=r"404: .*management.endpoints.web.exposure.include"):
            await asked.offline(DEREGISTER)
        await refuses_what_is_not_json(app)
        assert await eye.is_listed(app.instance)
        await out_and_back(asked, REGISTRY, app, eye, effect(generation, server))
        await asked.shutdown()
        await stopped(app, waits=generation in TOLD_WAIT)
        assert await app.exited() == 0
        await eye.until(app.instance, listed=False)


def effect(generation: str, server: NacosServer) -> str:
    """What Spring's own DOWN is."""
    return EFFECTS["2021" if generation == "2021.0" else generation][server.major - 2]


async def held(server: NacosServer, app: SpringApp) -> Publisher:
    """Who holds it by Nacos' list."""
    login = (server.username, server.password) if server.username and server.password else None
    registry = Nacos(Http(), [server.base], credentials=(lambda: login) if login else None)
    try:
        return await registry.publisher(registry.nodes()[0][0], of(app))
    finally:
        await registry.close()


async def borrowed(app: SpringApp, server: NacosServer) -> None:
    """The login is had from the other endpoint, where it is wanted."""
    async with actuator(app.url, borrows=True) as asked:
        told = await asked.identity(ANY)
        assert told is not None
        assert told.starter
        assert asked.credentials() == (server.username or USER, server.password or PASSWORD)


async def refuses_what_is_not_json(app: SpringApp) -> None:
    """With a 415, whether or not the status is in the query."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for made in (
        Deregister("/serviceregistry?status=DOWN"),
        Deregister("/serviceregistry", body=lambda: "status=DOWN", headers=lambda: form),
        Deregister("/serviceregistry?status=DOWN", headers=lambda: {"Content-Type": "text/plain"}, body=lambda: "x"),
    ):
        async with actuator(app.url, deregister=made) as asked:
            with pytest.raises(Rejected, match="415"):
                await asked.offline(DEREGISTER)


async def stopped(app: SpringApp, *, waits: bool) -> None:
    """The port is served on for its built-in wait, or not at all."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while await answers(app.instance.ip, app.port) and loop.time() < start + 2 * WAIT:  # noqa: ASYNC110  another process'
        await asyncio.sleep(0.02)
    assert (loop.time() - start >= WAIT) is waits
