"""Our starter, as the actuator adapter meets it: who the app is, a way out that leads back, and apps that have none.

The scripted app answers as `examples/spring-boot-starter` does, whose own tests are in `tests/java`.
"""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from contract.actuators import ScriptedApp, scripted_app
from contract.test_actuator import (
    DEREGISTER,
    GENERATIONS,
    JSON,
    PASSWORD,
    REGISTRY,
    UP,
    USER,
    actuator,
    leaves_and_comes_back,
    of,
)
from rig.openapi import Observer
from rig.servers import NacosServer

from sidecar.adapters.actuator import Deregister
from sidecar.adapters.actuator.discovery import registration
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Identity, Instance, Publisher, Road, Service


pytestmark = pytest.mark.asyncio(loop_scope="module")

REGISTRATION = f"{DEREGISTER}/registration"
DISCOVERY = "nacosdiscovery"
ANY = frozenset[int]()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_app() -> AsyncIterator[ScriptedApp]:
    """One with the starter, for all tests."""
    async with scripted_app(username=USER, password=PASSWORD, generation="2025.1", starter=True) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def app(the_app: ScriptedApp) -> ScriptedApp:
    """The same, as if it had just started."""
    await the_app.clear()
    await the_app.register()
    return the_app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_old_app() -> AsyncIterator[ScriptedApp]:
    """One with an endpoint that its own people wrote."""
    async with scripted_app(username=USER, password=PASSWORD) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def old_app(the_old_app: ScriptedApp) -> ScriptedApp:
    """The same, whole."""
    await the_old_app.clear()
    return the_old_app


async def paths(app: ScriptedApp) -> list[str]:
    """What it was asked, in order."""
    return [request.path.removeprefix("/actuator/") for request in await app.requests()]


# -- who the app says it is


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_the_starter_tells_all_in_one_request(generation: str) -> None:
    """Without a password, and besides what nacosdiscovery has: what holds the registration, and that it leads back."""
    async with (
        scripted_app(generation=generation, starter=True, stop_wait=0.25, endpoints=f"health,{DEREGISTER}") as app,
        actuator(app.url) as asked,
    ):
        told = await asked.identity(frozenset({1}))
        assert told is not None
        assert told == Identity(
            of(app),
            registers=True,
            servers=("http://127.0.0.1:8848/nacos",),
            stop_wait=None if generation in {"2021", "2023.0.1"} else 0.25,
            source=f"the app's actuator, GET /actuator/{REGISTRATION} at 127.0.0.1:{app.management_port}",
            starter=True,
            roads=(Road(DEREGISTER, undoable=True, inside=True), Road(REGISTRY, undoable=True, inside=True)),
            publisher=Publisher.GRPC,
            client=told.client,
        )
        assert told.client[:2] in {"2.", "3."}
        assert await paths(app) == [REGISTRATION]
        assert asked.credentials() is None


async def test_the_starter_tells_that_the_app_is_starting_or_does_not_register() -> None:
    async with scripted_app(starter=True, unregistered=True) as app, actuator(app.url) as asked:
        early = await asked.identity(ANY)
        assert early is not None
        assert (early.instance, early.registers, early.starter) == (None, True, True)
        with pytest.raises(Rejected, match="409: the app has registered nothing: it is still starting"):
            await asked.offline(DEREGISTER)
    async with scripted_app(starter=True, register_disabled=True) as app, actuator(app.url) as asked:
        never = await asked.identity(ANY)
        assert never is not None
        assert (never.instance, never.registers) == (None, False)


async def test_without_a_url_the_starter_alone_is_enough() -> None:
    async with scripted_app(starter=True, endpoints=f"health,{DEREGISTER}") as app, actuator(None) as asked:
        ports = frozenset({app.port, app.management_port})
        told = await asked.identity(ports)
        assert told is not None
        assert (told.instance, told.starter) == (of(app), True)
        await asked.offline(DEREGISTER)
        await asked.online(DEREGISTER)
        async with scripted_app(starter=True) as other:
            ports |= {other.port, other.management_port}
            async with actuator(None) as anew:
                with pytest.raises(Rejected, match="several apps show their actuator here"):
                    await anew.identity(ports)


async def test_the_login_is_borrowed_from_nacosdiscovery_where_that_is_wished(app: ScriptedApp) -> None:
    async with actuator(app.url) as asked:
        await asked.identity(ANY)
        assert asked.credentials() is None
    assert await paths(app) == [REGISTRATION]
    async with actuator(app.url, borrows=True) as asked:
        told = await asked.identity(ANY)
        assert told is not None
        assert (told.starter, asked.credentials()) == (True, (USER, PASSWORD))
        for withheld in ("401", "404"):
            await app.fault(DISCOVERY, withheld)
            assert await asked.identity(ANY) == told
            assert asked.credentials() is None
        await app.fault(DISCOVERY, "500")  # perhaps a moment's: the core asks again
        with pytest.raises(Unavailable, match=f"{DISCOVERY} at .* 500"):
            await asked.identity(ANY)


# -- apps without it

OTHERS = ("", "401", "403", "302", "405", "500", "503", "200", "html")  # "": as it is, 404


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("configured", [True, False])
async def test_an_app_without_the_starter_is_who_it_was_for_one_request_more(
    old_app: ScriptedApp, what: str, configured: bool
) -> None:
    """Whatever its endpoint, its security, or its own page for unknown paths makes of the question."""
    if what:
        await old_app.fault(REGISTRATION, what)
    async with actuator(old_app.url if configured else None) as asked:
        told = await asked.identity(frozenset({old_app.port, old_app.management_port}))
        assert told == Identity(
            of(old_app),
            servers=("http://127.0.0.1:8848/nacos",),
            source=f"the app's actuator, GET /actuator/{DISCOVERY} at 127.0.0.1:{old_app.management_port}",
        )
        assert asked.credentials() == (USER, PASSWORD)
        assert [road.undoable for road in asked.roads] == [False, True]
        with pytest.raises(Rejected, match="set NACOS_DRAIN_DEREGISTER_UNDO"):
            await asked.online(DEREGISTER)
    assert sorted(await paths(old_app)) == [REGISTRATION, DISCOVERY]


@pytest.mark.parametrize("what", ["hang", "reset"])
@pytest.mark.parametrize("configured", [True, False])
async def test_a_question_without_an_answer_is_not_waited_for(
    old_app: ScriptedApp, what: str, configured: bool
) -> None:
    await old_app.fault(REGISTRATION, what)
    async with actuator(old_app.url if configured else None) as asked:
        told = await asked.identity(frozenset({old_app.port, old_app.management_port}))
        assert told is not None
        assert (told.instance, told.starter) == (of(old_app), False)


async def test_an_app_that_is_slow_to_begin_with_is_no_app_without_it(app: ScriptedApp) -> None:
    """The first request of a JVM's life takes its time, whichever it is."""
    for endpoint in (REGISTRATION, DISCOVERY):
        await app.fault(endpoint, "0.7s")
    async with actuator(app.url) as asked:
        told = await asked.identity(ANY)
        assert told is not None
        assert told.starter


async def test_where_neither_is_exposed_nothing_is_told(old_app: ScriptedApp) -> None:
    await old_app.fault(DISCOVERY, "404")
    async with actuator(old_app.url) as asked:
        assert await asked.identity(ANY) is None


async def test_a_folk_endpoint_is_asked_nothing_that_it_could_take_for_an_order(old_app: ScriptedApp) -> None:
    async with actuator(old_app.url) as asked:
        await asked.identity(ANY)
        await asked.exposed()
    assert {request.method for request in await old_app.requests() if request.path.endswith(DEREGISTER)} == {"OPTIONS"}


# -- the road


async def test_the_starter_leads_back_without_a_setting(app: ScriptedApp) -> None:
    async with actuator(app.url) as asked:
        before = asked.roads
        await asked.identity(ANY)
        assert [before[0].undoable, asked.roads[0].undoable] == [False, True], "before nobody had answered"
        for call in (asked.offline, asked.offline, asked.online, asked.online):
            await call(DEREGISTER)
    down, _, up, _ = (request for request in await app.requests() if request.method == "POST")
    assert (down.body, "content-type" in down.headers) == ("", False)
    assert (up.body, up.headers["content-type"]) == (UP, JSON)


async def test_an_undo_that_is_set_wins(app: ScriptedApp) -> None:
    own = '{"status": "UP", "by": "ourselves"}'
    async with actuator(app.url, deregister=Deregister(undo=lambda: own)) as asked:
        await asked.identity(ANY)
        await asked.online(DEREGISTER)
    assert (await app.requests())[-1].body == own


async def test_an_endpoint_elsewhere_is_not_the_starter(app: ScriptedApp, old_app: ScriptedApp) -> None:
    """It is, by whatever spelling, where the same address is named."""
    elsewhere = [
        Deregister(f"{old_app.url}/{DEREGISTER}"),
        Deregister("/serviceregistry?status=DOWN"),
        Deregister(method="GET"),
    ]
    for made, undoable in [
        *((each, False) for each in elsewhere),
        (Deregister(f"{app.url}/{DEREGISTER}"), True),
        (Deregister(f"/{DEREGISTER}", body=lambda: '{"status": "DOWN"}'), True),
    ]:
        async with actuator(app.url, deregister=made) as asked:
            told = await asked.identity(ANY)
            assert told is not None
            assert told.starter
            assert told.roads[0].undoable is undoable, made


async def test_the_next_life_of_the_app_may_be_without_it(app: ScriptedApp) -> None:
    async with actuator(app.url) as asked:
        await asked.identity(ANY)
        await app.fault(REGISTRATION, "404")
        told = await asked.identity(ANY)
        assert told is not None
        assert not told.starter
        assert not asked.roads[0].undoable
        await app.fault(DISCOVERY, "404")
        assert await asked.identity(ANY) is None


async def test_what_the_starter_could_not_do_is_told(app: ScriptedApp) -> None:
    async with actuator(app.url) as asked:
        await asked.identity(ANY)
        await app.fault(DEREGISTER, "500")
        with pytest.raises(Unavailable, match="500: the app did not get it done at Nacos: its log says why"):
            await asked.offline(DEREGISTER)


# -- its answer, read

TOLD: dict[str, object] = {
    "service": "shop",
    "group": "G",
    "namespace": "dev",
    "cluster": "C",
    "ip": "10.0.0.1",
    "port": 8080,
    "ephemeral": True,
    "registerEnabled": True,
    "state": "UP",
    "serverAddr": "nacos",
    "nacosClient": "2.4.2",
}


def read(**changes: object) -> Identity:
    return registration(json.dumps(TOLD | changes).encode(), "")


async def test_the_words_of_the_starter_are_those_of_nacos() -> None:
    told = read(contextPath="/registry", gracefulShutdownWaitTime=10000)
    assert told.instance == Instance(Service("shop", "G", "dev", "C"), "10.0.0.1", 8080)
    assert (told.servers, told.stop_wait) == (("http://nacos:8848/registry",), 10.0)
    assert read(state="DOWN").instance == told.instance
    assert read(state="STARTING", port=-1).instance is None
    assert read(group=None, namespace="public", cluster="").instance == Instance(Service("shop"), "10.0.0.1", 8080)


@pytest.mark.parametrize(
    ("client", "ephemeral", "holder"),
    [
        ("2.4.2", True, Publisher.GRPC),
        ("3.1.1-SNAPSHOT", True, Publisher.GRPC),
        ("1.4.2", True, Publisher.BEAT),
        ("3.1.1", False, Publisher.PERSISTENT),
        ("1.4.2", False, Publisher.PERSISTENT),
        ("2.4.2", None, Publisher.UNKNOWN),
        ("", True, Publisher.UNKNOWN),
        (None, True, Publisher.UNKNOWN),
        ("${project.version}", True, Publisher.UNKNOWN),
    ],
)
async def test_who_holds_it_follows_from_the_client(client: str | None, ephemeral: bool | None, holder: str) -> None:
    told = read(nacosClient=client, ephemeral=ephemeral)
    assert told.publisher is holder
    assert told.client in {client, ""}


ODD: list[object] = [
    b"",
    b"<html>",
    [],
    "UP",
    {"status": "UP"},
    {"NacosDiscoveryProperties": TOLD},
    *(TOLD | {"state": state} for state in (None, "up", 1)),
    *(TOLD | {name: 1} for name in ("service", "ip", "cluster", "serverAddr", "nacosClient")),
    TOLD | {"port": "8080"},
    TOLD | {"service": ""},
]


@pytest.mark.parametrize("body", ODD)
async def test_what_is_not_the_starters_answer_is_none(body: object) -> None:
    with pytest.raises(Unavailable):
        registration(body if isinstance(body, bytes) else json.dumps(body).encode(), "")


# -- what it does to a registration


@pytest.mark.real
@pytest.mark.parametrize("generation", GENERATIONS)
async def test_the_starter_removes_and_brings_back(real_nacos: NacosServer, generation: str) -> None:
    """In every generation, on every server, for any number of times."""
    async with (
        scripted_app(nacos=real_nacos, generation=generation, starter=True) as app,
        actuator(app.url) as asked,
        Observer(real_nacos) as eye,
    ):
        await eye.until(app.instance, listed=True)
        told = await asked.identity(ANY)
        assert told is not None
        assert (told.instance, told.servers) == (of(app), (real_nacos.base,))
        await leaves_and_comes_back(asked, app, eye)
