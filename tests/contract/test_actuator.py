"""The actuator adapter against apps in processes of their own: what it sends, what it understands, what it says.

The unmarked tests talk to a scripted app that registers nowhere. The `real` ones prove with independent reads what each
road does to a registration, by generation of Spring Cloud Alibaba and of Nacos; they know the app as a `Provider`.
"""

import asyncio
import contextlib
import json
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from shutil import which
from typing import Any

import pytest
import pytest_asyncio
from contract.actuators import Provider, ScriptedApp, scripted_app
from needs import lacking
from rig.openapi import Observer
from rig.servers import NacosServer

from sidecar.adapters.actuator import Deregister, SpringActuator
from sidecar.adapters.actuator.discovery import discovery
from sidecar.http import Http
from sidecar.ports import Actuator, Rejected, Unavailable
from sidecar.registration import Identity, Instance, Road, Service


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one scripted app serves them all

USER, PASSWORD = "shop", "-s3cret/ö" + secrets.token_hex(2)
GENERATIONS = ("2021", "2023.0.1", "2023.0.3", "2025.0", "2025.1")
ALL = "health,nacosdiscovery,nacos-deregister,serviceregistry,shutdown"
JSON = "application/json"
DEREGISTER, REGISTRY = "nacos-deregister", "serviceregistry"
UP, DOWN = '{"status": "UP"}', '{"status": "DOWN"}'
CALLS: dict[str, Callable[[Actuator], Awaitable[object]]] = {
    "nacosdiscovery": lambda app: app.identity(frozenset()),
    DEREGISTER: lambda app: app.offline(DEREGISTER),
    REGISTRY: lambda app: app.offline(REGISTRY),
    "shutdown": lambda app: app.shutdown(),
    "health": lambda app: app.healthy(),
}
ACTING = ("nacosdiscovery", DEREGISTER, REGISTRY, "shutdown")  # what a refusal stops; health only has nothing to say


@asynccontextmanager
async def actuator(url: str | None, *, ca_file: str | None = None, **options: Any) -> AsyncIterator[SpringActuator]:
    """The adapter under test."""
    made = SpringActuator(Http(ca_file=ca_file, ca_setting="NACOS_DRAIN_ACTUATOR_CA_FILE"), url, **options)
    try:
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_app() -> AsyncIterator[ScriptedApp]:
    """One that stays for all tests, with the generation that most people run."""
    async with scripted_app(username=USER, password=PASSWORD) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def app(the_app: ScriptedApp) -> ScriptedApp:
    """The same, as if it had just started."""
    await the_app.clear()
    await the_app.register()
    return the_app


@pytest_asyncio.fixture(loop_scope="module")
async def asked(app: ScriptedApp) -> AsyncIterator[SpringActuator]:
    """The adapter, before that app."""
    async with actuator(app.url) as made:
        yield made


async def online(app: ScriptedApp) -> bool:
    """What the app believes."""
    http = Http()
    try:
        return (await http.request("GET", f"{app.url}/serviceregistry")).text == "UP"
    finally:
        await http.close()


# -- the roads


async def test_the_roads_and_whether_they_lead_back() -> None:
    async with actuator("http://127.0.0.1:1") as plain:
        assert plain.roads == (
            Road(DEREGISTER, undoable=False, inside=True),
            Road(REGISTRY, undoable=True, inside=True),
        )
        assert "Endpoint" not in repr(plain.roads)
    async with actuator("http://127.0.0.1:1", deregister=Deregister(undo=lambda: UP)) as undoable:
        assert [road.undoable for road in undoable.roads] == [True, True]


async def test_serviceregistry_is_told_in_json(app: ScriptedApp, asked: SpringActuator) -> None:
    await asked.offline(REGISTRY)
    assert not await online(app)
    await asked.online(REGISTRY)
    assert await online(app)
    down, up = (request for request in await app.requests() if request.method == "POST")
    assert (down.path, down.headers["content-type"], down.body) == ("/actuator/serviceregistry", JSON, DOWN)
    assert up.body == UP


async def test_the_folk_endpoint_gets_a_post_without_a_content_type(app: ScriptedApp, asked: SpringActuator) -> None:
    """Spring answers 415 to the byte stream that aiohttp would call it."""
    await asked.offline(DEREGISTER)
    (request,) = await app.requests()
    assert (request.method, request.path, request.body) == ("POST", "/actuator/nacos-deregister", "")
    assert "content-type" not in request.headers
    assert not await online(app)


BODIES: list[tuple[str | None, dict[str, str], str | None]] = [
    (None, {}, None),
    (None, {"Content-Type": JSON}, JSON),
    (UP, {}, JSON),
    ("[]", {}, JSON),
    (UP, {"content-type": "application/x-own+json"}, "application/x-own+json"),
    ("status=DOWN", {}, None),
    ("status=DOWN", {"Content-Type": "application/x-www-form-urlencoded"}, "application/x-www-form-urlencoded"),
    ("aus für heute", {"X-Token": "abc"}, None),
    ("", {}, None),
]


@pytest.mark.parametrize(("body", "headers", "expected"), BODIES)
async def test_a_body_goes_as_what_it_is(
    app: ScriptedApp, body: str | None, headers: dict[str, str], expected: str | None
) -> None:
    await app.fault(DEREGISTER, "200")
    made = Deregister(method="PUT", body=None if body is None else lambda: str(body), headers=lambda: headers)
    async with actuator(app.url, deregister=made) as asked:
        await asked.offline(DEREGISTER)
    (request,) = await app.requests()
    assert (request.method, request.body) == ("PUT", body or "")
    assert request.headers.get("content-type") == expected
    assert request.headers.get("x-token") == headers.get("X-Token")


async def test_the_folk_endpoint_leads_back_where_its_undo_is_known(app: ScriptedApp, asked: SpringActuator) -> None:
    with pytest.raises(Rejected, match="nacos-deregister has no way back: set NACOS_DRAIN_DEREGISTER_UNDO"):
        await asked.online(DEREGISTER)
    async with actuator(app.url, deregister=Deregister(undo=lambda: UP)) as undoable:
        await undoable.offline(DEREGISTER)
        assert not await online(app)
        await undoable.online(DEREGISTER)
        assert await online(app)


async def test_what_may_be_a_secret_is_read_anew_at_each_call(app: ScriptedApp) -> None:
    """A mounted secret is rotated under us."""
    tokens = iter(["old", "new"])
    made = Deregister(headers=lambda: {"X-Token": next(tokens)})
    async with actuator(app.url, deregister=made) as asked:
        await asked.offline(DEREGISTER)
        await asked.offline(DEREGISTER)
    assert [request.headers["x-token"] for request in await app.requests()] == ["old", "new"]


async def test_a_path_is_below_the_actuator(app: ScriptedApp) -> None:
    """Even Spring's own endpoint, as people call it with curl."""
    made = Deregister("/serviceregistry?status=DOWN", headers=lambda: {"Content-Type": JSON})
    async with actuator(app.url, deregister=made) as asked:
        await asked.offline(DEREGISTER)
    assert (await app.requests())[0].path == "/actuator/serviceregistry?status=DOWN"
    assert not await online(app)


async def test_the_actuators_login_is_not_for_an_endpoint_elsewhere(app: ScriptedApp) -> None:
    """Which needs no actuator either."""
    async with scripted_app() as other:
        made = Deregister(f"{app.url}/nacos-deregister?token={PASSWORD}")
        for url in (None, other.url):
            await app.clear()
            async with actuator(url, login=lambda: (USER, PASSWORD), deregister=made) as asked:
                await asked.offline(DEREGISTER)
                assert "authorization" not in (await app.requests())[0].headers
                for status, step in {401: "NACOS_DRAIN_DEREGISTER_HEADERS", 404: "NACOS_DRAIN_DEREGISTER_URL"}.items():
                    await app.fault(DEREGISTER, str(status))
                    with pytest.raises(Rejected, match=rf"/actuator/nacos-deregister at .* {status}: .*{step}") as told:
                        await asked.offline(DEREGISTER)
                    assert PASSWORD not in str(told.value)


async def test_the_old_name_of_serviceregistry_is_found_and_remembered() -> None:
    async with scripted_app(endpoints="health,service-registry") as app, actuator(app.url) as asked:
        new, old = "/actuator/serviceregistry", "/actuator/service-registry"
        await asked.offline(REGISTRY)
        assert [request.path for request in await app.requests()] == [new, old]
        await asked.online(REGISTRY)
        assert [request.path for request in (await app.requests())[2:]] == [old]
        await app.fault("service-registry", "404")
        await app.fault("serviceregistry", "200")  # the app was replaced by a newer one
        await asked.offline(REGISTRY)
        await asked.offline(REGISTRY)
        assert [request.path for request in (await app.requests())[3:]] == [old, new, new]


async def test_an_unknown_road_is_a_mistake_of_ours(asked: SpringActuator) -> None:
    with pytest.raises(ValueError, match="openapi"):
        await asked.offline("openapi")


# -- refusals

PORT_HINT = "management port or base path may be another one, which goes into NACOS_DRAIN_ACTUATOR_URL"
STEPS: list[tuple[int, str, str]] = [
    (401, "*", "it asks for a login: set NACOS_DRAIN_ACTUATOR_USERNAME and NACOS_DRAIN_ACTUATOR_PASSWORD"),
    (403, "*", "not allowed: let the app's security rules permit it"),
    (302, "*", "a redirect, to https or to a login page: set NACOS_DRAIN_ACTUATOR_URL"),
    (404, DEREGISTER, "management.endpoints.web.exposure.include, or name the app's own one in NACOS_DRAIN_DEREGISTER"),
    (404, DEREGISTER, PORT_HINT),
    (404, REGISTRY, "neither serviceregistry nor its old name service-registry is exposed here"),
    (404, REGISTRY, PORT_HINT),
    (404, "shutdown", r"management.endpoint.shutdown.enabled=true .*shutdown.access=unrestricted"),
    (405, "shutdown", r"management.endpoint.shutdown.enabled=true .*shutdown.access=unrestricted"),
    (405, DEREGISTER, "it wants another method: set NACOS_DRAIN_DEREGISTER_METHOD"),
    (405, REGISTRY, "no answer of Spring's actuator: check NACOS_DRAIN_ACTUATOR_URL"),
    (415, DEREGISTER, "set NACOS_DRAIN_DEREGISTER_BODY, or a Content-Type in NACOS_DRAIN_DEREGISTER_HEADERS"),
    (400, DEREGISTER, "set NACOS_DRAIN_DEREGISTER_BODY, or a Content-Type in NACOS_DRAIN_DEREGISTER_HEADERS"),
    (415, REGISTRY, "it takes no JSON, which Spring's own endpoint does"),
    (400, "nacosdiscovery", "a port that wants TLS says so as well: is it https in NACOS_DRAIN_ACTUATOR_URL"),
    (410, DEREGISTER, "cannot do it on Nacos 3.* OpenAPI does it instead"),
    (410, REGISTRY, "cannot do it on Nacos 3.* OpenAPI does it instead"),
    (500, DEREGISTER, "cannot do it on Nacos 3.* OpenAPI does it instead"),
    (500, REGISTRY, "cannot do it on Nacos 3.* nacos-drain's starter"),
    (500, "nacosdiscovery", "the app's log says why"),
    (500, "shutdown", "the app's log says why"),
    (502, "*", "the app, or a proxy before it, is not ready"),
    (503, "*", "the app, or a proxy before it, is not ready"),
    (504, "*", "the app, or a proxy before it, is not ready"),
    (429, "*", "check|log"),
    (599, "*", "check|log"),
]
ROWS = [(status, name, step) for status, names, step in STEPS for name in (ACTING if names == "*" else [names])]


@pytest.mark.parametrize(("status", "name", "step"), ROWS)
async def test_each_refusal_names_the_next_step_and_nothing_of_the_body(
    app: ScriptedApp, asked: SpringActuator, status: int, name: str, step: str
) -> None:
    await app.fault(name, str(status))
    lasting = 300 <= status < 500 and status != 429
    with pytest.raises(Rejected if lasting else Unavailable, match=step) as told:
        await CALLS[name](asked)
    method = "GET" if name == "nacosdiscovery" else "POST"
    assert str(told.value).startswith(
        f"{method} /actuator/{name} at 127.0.0.1:{app.management_port} answers {status}: "
    )
    assert PASSWORD not in str(told.value)
    assert USER not in str(told.value)


@pytest.mark.parametrize("name", CALLS)
async def test_an_endpoint_that_hangs_costs_the_callers_time_and_no_more(
    app: ScriptedApp, asked: SpringActuator, name: str
) -> None:
    await app.fault(name, "hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await CALLS[name](asked)
    await app.fault(name, "200" if name != "nacosdiscovery" else "404")
    await CALLS[name](asked)


@pytest.mark.parametrize("name", CALLS)
async def test_no_answer_is_no_verdict(app: ScriptedApp, asked: SpringActuator, name: str) -> None:
    await app.fault(name, "reset")
    with pytest.raises(Unavailable, match=rf"/actuator/{name} at .*: the connection broke") as broken:
        await CALLS[name](asked)
    assert not broken.value.refused
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    async with actuator(f"http://127.0.0.1:{port}/actuator") as nobody:
        with pytest.raises(Unavailable, match=r"cannot connect.*another one\? Check NACOS_DRAIN_ACTUATOR_URL") as gone:
            await CALLS[name](nobody)
        assert gone.value.refused


async def test_the_apps_own_port_is_not_its_management_port(app: ScriptedApp) -> None:
    """The mistake that is made most often."""
    async with actuator(f"http://127.0.0.1:{app.port}/actuator") as wrong:
        assert await wrong.identity(frozenset()) is None
        assert await wrong.healthy() is None
        for name in (DEREGISTER, REGISTRY):
            with pytest.raises(Rejected, match=PORT_HINT):
                await wrong.offline(name)


# -- who the app says it is


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_every_generation_tells_how_it_is_registered(generation: str) -> None:
    """Its cluster is empty where it means DEFAULT, its built-in wait a number of milliseconds or not there."""
    async with scripted_app(generation=generation, stop_wait=0.25) as app, actuator(f"{app.url}/") as asked:
        assert await asked.identity(frozenset({1})) == Identity(
            of(app),
            registers=True,
            servers=("http://127.0.0.1:8848/nacos",),
            stop_wait=None if generation in {"2021", "2023.0.1"} else 0.25,
            source=f"the app's actuator, GET /actuator/nacosdiscovery at 127.0.0.1:{app.management_port}",
        )
        assert asked.credentials() is None


def of(app: Provider) -> Instance:
    """What it registered, as the product names it."""
    instance = app.instance
    namespace = "" if instance.namespace == "public" else instance.namespace
    return Instance(Service(instance.service, instance.group, namespace, instance.cluster), instance.ip, instance.port)


async def test_an_app_tells_before_it_has_registered_and_after() -> None:
    async with scripted_app(unregistered=True) as app, actuator(app.url) as asked:
        early = await asked.identity(frozenset())
        assert early is not None
        assert (early.instance, early.registers) == (None, True)
        await app.register()
        late = await asked.identity(frozenset())
        assert late is not None
        assert late.instance == of(app)


async def test_an_app_that_does_not_register_says_so() -> None:
    async with scripted_app(register_disabled=True) as app, actuator(app.url) as asked:
        told = await asked.identity(frozenset())
        assert told is not None
        assert (told.instance, told.registers) == (None, False)


async def test_the_apps_password_is_had_by_one_method_alone(app: ScriptedApp, asked: SpringActuator) -> None:
    assert asked.credentials() is None
    identity = await asked.identity(frozenset())
    assert asked.credentials() == (USER, PASSWORD)
    told = discovery(json.dumps({"NacosDiscoveryProperties": TOLD | {"username": USER}}).encode(), "")
    assert told.credentials == (USER, PASSWORD)
    assert PASSWORD not in f"{identity!r}{identity}{asked!r}{asked}{told!r}{told}"


async def test_what_is_not_nacosdiscovery_is_no_identity(app: ScriptedApp, asked: SpringActuator) -> None:
    await app.fault("nacosdiscovery", "html")
    with pytest.raises(Unavailable, match="answers with a web page: is it the actuator") as told:
        await asked.identity(frozenset())
    assert PASSWORD not in str(told.value)
    await app.fault("nacosdiscovery", "200")
    with pytest.raises(Unavailable, match="answers with JSON that has no NacosDiscoveryProperties") as told:
        await asked.identity(frozenset())
    assert PASSWORD not in str(told.value)
    assert asked.credentials() is None


TOLD: dict[str, object] = {
    "service": "shop",
    "group": "G",
    "namespace": "dev",
    "clusterName": "C",
    "ip": "10.0.0.1",
    "port": 8080,
    "password": PASSWORD,
}
ODD_PROPERTIES: list[tuple[dict[str, object], str]] = [
    ({"port": None}, "a port that is none"),
    ({"port": "8080"}, "a port that is none"),
    ({"port": True}, "a port that is none"),
    ({"port": 65536}, "a port that is none"),
    ({"service": ""}, "names no service"),
    ({"service": None}, "names no service"),
    ({"service": ["shop"]}, "a service that is no text"),
    ({"ip": ""}, "names no ip"),
    ({"ip": 1}, "a ip that is no text"),
    ({"group": 1}, "a group that is no text"),
    ({"clusterName": {}}, "a clusterName that is no text"),
    ({"serverAddr": ["a"]}, "a serverAddr that is no text"),
    ({"password": 12345678}, "a password that is no text"),
]
ODD: list[tuple[object, str]] = [
    (b"", "no JSON"),
    (b"\xff\xfe", "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b"  <!DOCTYPE html>", "a web page"),
    ([], "no NacosDiscoveryProperties"),
    ({"NacosDiscoveryProperties": None}, "no NacosDiscoveryProperties"),
    ({"NacosDiscoveryProperties": [TOLD]}, "no NacosDiscoveryProperties"),
    (TOLD, "no NacosDiscoveryProperties"),
    *(({"NacosDiscoveryProperties": TOLD | change}, words) for change, words in ODD_PROPERTIES),
]


@pytest.mark.parametrize(("body", "words"), ODD)
async def test_half_an_identity_is_none(body: object, words: str) -> None:
    with pytest.raises(Unavailable, match=words) as told:
        discovery(body if isinstance(body, bytes) else json.dumps(body).encode(), "")
    assert PASSWORD not in str(told.value)
    assert "12345678" not in str(told.value)


def read(**properties: object) -> Identity:
    return discovery(json.dumps({"NacosDiscoveryProperties": TOLD | properties}).encode(), "").identity


async def test_a_service_is_all_four_of_its_parts() -> None:
    assert read().instance == Instance(Service("shop", "G", "dev", "C"), "10.0.0.1", 8080)
    defaults = read(group=None, namespace="public", clusterName="").instance
    assert defaults == Instance(Service("shop"), "10.0.0.1", 8080)
    assert read(namespace=None).instance == read(namespace="").instance


@pytest.mark.parametrize(
    ("address", "path", "servers"),
    [
        (None, None, []),
        ("", "", []),
        ("nacos", None, ["http://nacos:8848/nacos"]),
        ("nacos:80", "", ["http://nacos:80/nacos"]),
        (" A:1 , b:2;a:1 ", None, ["http://a:1/nacos", "http://b:2/nacos"]),
        ("https://nacos.shop.svc:443", None, ["https://nacos.shop.svc:443/nacos"]),
        ("http://nacos/registry/", None, ["http://nacos:8848/registry"]),
        ("nacos", "/registry", ["http://nacos:8848/registry"]),
        ("nacos", "registry/", ["http://nacos:8848/registry"]),
        ("nacos", "/", ["http://nacos:8848/nacos"]),
        ("[FE80:0::1]:8848,[::1]", None, ["http://[fe80::1]:8848/nacos", "http://[::1]:8848/nacos"]),
        ("user:pass@nacos,n:0,n:65536,[::g],ftp://n,n?x=1,ok", None, ["http://ok:8848/nacos"]),
    ],
)
async def test_servers_are_completed_as_settings_are(address: str | None, path: str | None, servers: list[str]) -> None:
    assert read(serverAddr=address, nacosProperties={"contextPath": path}).servers == tuple(servers)


WAITS: list[tuple[object, float | None]] = [
    (10000, 10.0),
    (0, 0.0),
    (2500.0, 2.5),
    ("10000", 10.0),
    ("10s", 10.0),
    ("500ms", 0.5),
    ("1.5m", 90.0),
    ("2h", 7200.0),
    ("PT10S", 10.0),
    ("PT1M30.5S", 90.5),
    ("pt2h", 7200.0),
]
NO_WAITS: list[object] = [None, True, -1, float("inf"), float("nan"), "", "PT", "soon", "-1s", [10], {}]


@pytest.mark.parametrize(("value", "seconds"), [*WAITS, *((odd, None) for odd in NO_WAITS)])
async def test_the_built_in_wait_is_milliseconds_unless_it_says_otherwise(value: object, seconds: float | None) -> None:
    assert read(gracefulShutdownWaitTime=value).stop_wait == seconds


# -- looking for it


async def test_without_a_url_it_is_looked_for_where_the_app_listens(app: ScriptedApp) -> None:
    """Also beside a port that says nothing at all; then it is known."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        ports = frozenset({silent.getsockname()[1], app.port, app.management_port})
        async with actuator(None) as asked:
            told = await asked.identity(ports)
            assert told is not None
            assert told.instance == of(app)
            assert asked.credentials() == (USER, PASSWORD)
            assert await asked.healthy() is True
            await asked.offline(REGISTRY)
            assert not await online(app)
            assert await asked.identity(frozenset()) == told


async def test_where_no_actuator_answers_none_is_known(app: ScriptedApp) -> None:
    async with actuator(None) as asked:
        for ports in (frozenset[int](), frozenset({app.port})):
            assert await asked.identity(ports) is None
        await app.fault("nacosdiscovery", "200")
        assert await asked.identity(frozenset({app.management_port})) is None
        assert await asked.healthy() is None
        calls = (asked.offline(DEREGISTER), asked.offline(REGISTRY), asked.online(REGISTRY), asked.shutdown())
        for call in (*calls, asked.exposed()):
            with pytest.raises(Rejected, match=r"^no actuator is known: set NACOS_DRAIN_ACTUATOR_URL$"):
                await call


async def test_one_that_wants_a_login_is_worth_a_word(app: ScriptedApp) -> None:
    await app.fault("nacosdiscovery", "401")
    async with actuator(None) as asked:
        with pytest.raises(Rejected, match="401: set NACOS_DRAIN_ACTUATOR_URL; a login is sent"):
            await asked.identity(frozenset({app.port, app.management_port}))


async def test_the_next_life_of_the_app_is_looked_for_anew() -> None:
    async with actuator(None) as asked:
        async with scripted_app() as first:
            assert await asked.identity(frozenset({first.port, first.management_port})) is not None
        async with scripted_app() as second:
            ports = frozenset({second.port, second.management_port})
            with pytest.raises(Unavailable):
                await asked.identity(ports)
            told = await asked.identity(ports)
            assert told is not None
            assert told.instance == of(second)


async def test_of_several_apps_behind_one_address_none_is_taken_for_ours(app: ScriptedApp) -> None:
    async with actuator(None) as asked, scripted_app() as neighbour:
        ports = frozenset({app.port, app.management_port, neighbour.port, neighbour.management_port})
        with pytest.raises(Rejected, match=r"several apps show their actuator here .*: set NACOS_DRAIN_ACTUATOR_URL"):
            await asked.identity(ports)
        assert await asked.identity(ports - {neighbour.port}) is not None, "the other does not listen where it says"


# -- health, shutdown, and what doctor asks


async def test_health_is_yes_or_no_or_nothing_for_us(app: ScriptedApp, asked: SpringActuator) -> None:
    assert await asked.healthy() is True
    for status, healthy in {503: False, 200: True, 302: None, 401: None, 403: None, 404: None, 500: None}.items():
        await app.fault("health", str(status))
        assert await asked.healthy() is healthy


async def test_shutdown_ends_an_app_that_has_opened_it() -> None:
    async with scripted_app(endpoints=ALL, generation="2025.0", stop_wait=0.1) as app, actuator(app.url) as asked:
        await asked.shutdown()
        assert await app.exited() == 0


async def test_what_is_exposed_is_found_out_without_touching_anything(app: ScriptedApp, asked: SpringActuator) -> None:
    assert dict(await asked.exposed()) == {
        "health": "exposed",
        "nacosdiscovery": "exposed",
        DEREGISTER: "exposed",
        REGISTRY: "exposed",
        "shutdown": "not exposed (404)",
    }
    await app.fault("health", "503")
    await app.fault("nacosdiscovery", "401")
    await app.fault(DEREGISTER, "403")
    await app.fault(REGISTRY, "302")
    await app.fault("shutdown", "405")
    assert list((await asked.exposed()).values()) == [
        "exposed",
        "protected (401)",
        "protected (403)",
        "redirects (302)",
        "exposed",
    ]
    await app.fault("health", "500")
    await app.fault(REGISTRY, "reset")
    told = await asked.exposed()
    assert told["health"] == "answers 500"
    assert "the connection broke" in told[REGISTRY]
    assert {(request.method, request.path.rpartition("/")[2]) for request in await app.requests()} == {
        ("GET", "health"),
        ("GET", "nacosdiscovery"),
        ("GET", REGISTRY),
        ("OPTIONS", DEREGISTER),
        ("OPTIONS", "shutdown"),
    }
    await app.clear()
    assert await online(app)


async def test_the_old_name_is_exposed_too() -> None:
    async with scripted_app(endpoints="health,service-registry") as app, actuator(app.url) as asked:
        told = await asked.exposed()
        assert told[REGISTRY] == "exposed, as service-registry"
        await asked.offline(REGISTRY)
        assert (await asked.exposed())[REGISTRY] == "exposed, as service-registry"
        assert told[DEREGISTER] == told["nacosdiscovery"] == "not exposed (404)"


# -- where it is and how it is guarded


@pytest.mark.parametrize("management", [True, False])
@pytest.mark.parametrize("base_path", ["/actuator", "/manage/v2", ""])
async def test_any_port_and_base_path(base_path: str, management: bool) -> None:
    async with (
        scripted_app(base_path=base_path, management=management, endpoints=ALL) as app,
        actuator(app.url) as asked,
    ):
        told = await asked.identity(frozenset())
        assert told is not None
        assert told.instance == of(app)
        assert set((await asked.exposed()).values()) == {"exposed"}
        await asked.offline(DEREGISTER)
        await asked.online(REGISTRY)


async def test_basic_auth() -> None:
    async with scripted_app(basic=f"{USER}:{PASSWORD}") as app:
        async with actuator(app.url, login=lambda: (USER, PASSWORD)) as asked:
            assert await asked.identity(frozenset()) is not None
            assert await asked.healthy() is True
            await asked.offline(DEREGISTER)
            await asked.online(REGISTRY)
        own = Deregister(f"{app.url}/nacos-deregister", headers=lambda: {"authorization": "Bearer x"})
        async with actuator(app.url, login=lambda: (USER, "wrong"), deregister=own) as asked:
            with pytest.raises(Rejected, match="401: it refuses the login: check NACOS_DRAIN_ACTUATOR_USERNAME"):
                await asked.identity(frozenset())
            assert await asked.healthy() is None
            await app.clear()
            with pytest.raises(Rejected, match="401"):
                await asked.offline(DEREGISTER)
            assert (await app.requests())[0].headers["authorization"] == "Bearer x"
        async with actuator(app.url) as asked:
            with pytest.raises(Rejected, match="401: it asks for a login"):
                await asked.offline(REGISTRY)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """One for 127.0.0.1 that nobody but itself vouches for, and its key."""
    if which("openssl") is None:
        lacking("no openssl on the PATH")
    folder = tmp_path_factory.mktemp("tls")
    cert, private = str(folder / "cert.pem"), str(folder / "key.pem")
    # fmt: off
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=app", "-addext", "subjectAltName=IP:127.0.0.1",
            "-out", cert, "-keyout", private,
        ],
        check=True,
        capture_output=True,
    )
    # fmt: on
    return cert, private


async def test_tls_with_an_authority_of_ones_own(certificate: tuple[str, str]) -> None:
    async with scripted_app(tls=certificate) as app:
        async with actuator(app.url, ca_file=certificate[0]) as asked:
            told = await asked.identity(frozenset())
            assert told is not None
            assert told.instance == of(app)
            await asked.offline(DEREGISTER)
        async with actuator(app.url) as distrustful:
            with pytest.raises(Unavailable, match=r"GET /actuator/nacosdiscovery.*TLS.*ACTUATOR_CA_FILE") as told_off:
                await distrustful.identity(frozenset())
            assert not told_off.value.refused
        async with actuator(app.url.replace("https", "http")) as plain:
            with pytest.raises((Rejected, Unavailable)):
                await plain.identity(frozenset())


# -- the scripted app itself: others build on its ends


@pytest.mark.parametrize("generation", ["2021", "2023.0.3", "2025.0", "2025.1"])
async def test_each_generation_ends_in_its_own_order(generation: str) -> None:
    """Old ones close the port first; newer ones leave Nacos first and serve on, 2025.0 only in theory."""
    async with scripted_app(generation=generation, stop_wait=1.0) as app:
        loop = asyncio.get_running_loop()
        start = loop.time()
        app.terminate()
        alive = True
        while alive and await answers("127.0.0.1", app.port):
            await asyncio.sleep(0.01)
            alive = app.process.returncode is None
        served = loop.time() - start
        assert (served >= 1.0) is (generation in {"2023.0.3", "2025.1"})
        assert await app.exited() == 143


async def answers(ip: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection(ip, port)
    except OSError:
        return False
    writer.close()
    return True


# -- what the roads do to a registration

EFFECTS = {  # by generation: on Nacos 2, on Nacos 3
    "2021": ("disabled", "nothing"),
    "2023.0.1": ("disabled", "nothing"),
    "2023.0.3": ("disabled", "nothing"),
    "2025.0": ("disabled", "disabled"),
    "2025.1": ("removed", "removed"),
}


@pytest.mark.real
@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_road_leads_out_and_back_or_says_that_it_does_not(real_nacos: NacosServer, generation: str) -> None:
    """A 200 is a removal, a residue or nothing at all; on Nacos 3 the old ones at least say so."""
    async with (
        scripted_app(nacos=real_nacos, generation=generation) as app,
        actuator(app.url, deregister=Deregister(undo=lambda: UP)) as asked,
        Observer(real_nacos) as eye,
    ):
        await eye.until(app.instance, listed=True)
        await shown_as_told(asked, app, real_nacos)
        for road in asked.roads:
            await out_and_back(asked, road.name, app, eye, EFFECTS[generation][real_nacos.major - 2])


async def out_and_back(asked: SpringActuator, road: str, app: Provider, eye: Observer, effect: str) -> None:
    """One road, there and back again."""
    if effect == "nothing":
        with pytest.raises(Unavailable, match=r"500: .*on Nacos 3.*OpenAPI does it instead"):
            await asked.offline(road)
        record = await eye.record(app.instance)
        assert record is not None
        assert record.enabled
        return
    await asked.offline(road)
    await eye.until(app.instance, listed=False)
    record = await eye.record(app.instance)
    assert effect == ("removed" if record is None else "disabled")
    assert record is None or record.enabled is False
    await asked.online(road)
    await eye.until(app.instance, listed=True)


async def shown_as_told(asked: SpringActuator, app: Provider, server: NacosServer) -> None:
    """The app's word for itself is what Nacos has."""
    told = await asked.identity(frozenset())
    assert told is not None
    assert (told.instance, told.servers) == (of(app), (server.base,))
    login = (server.username, server.password) if server.username and server.password else None
    assert asked.credentials() == login


@pytest.mark.real
@pytest.mark.parametrize("generation", ["2023.0.1", "2025.1"])
async def test_a_custom_endpoint_can_truly_remove(real_nacos: NacosServer, generation: str) -> None:
    """And only its own undo brings an old app back: Spring's UP writes a record that nobody holds, or fails."""
    async with (
        scripted_app(nacos=real_nacos, generation=generation, deregister="removal") as app,
        actuator(app.url, deregister=Deregister(undo=lambda: UP)) as asked,
        Observer(real_nacos) as eye,
    ):
        await eye.until(app.instance, listed=True)
        await back_after_a_removal(asked, app, eye, spring_can=generation.startswith("2025"))


async def leaves_and_comes_back(asked: SpringActuator, app: Provider, eye: Observer) -> None:
    """By our starter, asked twice for each: nothing is left behind, and it is still the same."""
    told = await asked.identity(frozenset())
    await asked.offline(DEREGISTER)
    await asked.offline(DEREGISTER)
    await eye.until(app.instance, listed=False)
    assert await eye.record(app.instance) is None
    assert await asked.identity(frozenset()) == told
    await asked.online(DEREGISTER)
    await asked.online(DEREGISTER)
    await eye.until(app.instance, listed=True)


async def back_after_a_removal(asked: SpringActuator, app: Provider, eye: Observer, *, spring_can: bool) -> None:
    """By `nacos-deregister`: it leads back, and Spring's own UP in the newer generations alone."""
    await asked.offline(DEREGISTER)
    await eye.until(app.instance, listed=False)
    assert await eye.record(app.instance) is None
    if spring_can:
        await asked.online(REGISTRY)
        await eye.until(app.instance, listed=True)
        await asked.offline(DEREGISTER)
        await eye.until(app.instance, listed=False)
    else:
        with contextlib.suppress(Unavailable):  # a 500 on Nacos 3; a 200, and a record that nobody holds, on Nacos 2
            await asked.online(REGISTRY)
        with pytest.raises(AssertionError):
            await eye.until(app.instance, listed=True, within=1.5)  # an UP that works shows within 0.65 s
    await asked.online(DEREGISTER)
    await eye.until(app.instance, listed=True)


@pytest.mark.real
async def test_an_app_of_several_services_leaves_with_all_of_them(real_nacos: NacosServer) -> None:
    async with (
        scripted_app(nacos=real_nacos, generation="2025.1", services=3) as app,
        actuator(app.url) as asked,
        Observer(real_nacos) as eye,
    ):
        for instance in app.instances:
            await eye.until(instance, listed=True)
        await asked.offline(REGISTRY)
        for instance in app.instances:
            await eye.until(instance, listed=False)


@pytest.mark.real
@pytest.mark.parametrize("generation", ["2021", "2025.1"])
async def test_an_app_that_stops_by_itself_is_gone_too(real_nacos: NacosServer, generation: str) -> None:
    """The newer one serves on while consumers learn of it."""
    async with (
        scripted_app(nacos=real_nacos, generation=generation, stop_wait=3.0) as app,
        Observer(real_nacos) as eye,
    ):
        await eye.until(app.instance, listed=True)
        app.terminate()
        await eye.until(app.instance, listed=False)
        assert await answers(app.instance.ip, app.port) is (generation == "2025.1")
        assert await eye.record(app.instance) is None
        assert await app.exited() == 143
