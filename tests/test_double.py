"""The Nacos double against what real servers were measured to say and do.

Tables of the measured bodies (research/nacos-measured.md §1.1, §2, §2.1, §2.2, §4, §5, §9); time
is a number the tests move, so a minute costs nothing. The contract suite asks the real servers.
"""

import asyncio
import base64
import hmac
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sidecar.demo.double import (
    Access,
    Dialect,
    Double,
    Instance,
    Naming,
    Service,
    View,
    WrongKindError,
    cluster,
)


SHOP = Service("shop")
MODERN: list[Dialect] = ["2.2", "3.1"]
# 1.x has no gRPC.
KINDS = [(dialect, kind) for dialect in ("1.4", *MODERN) for kind in ("grpc", "beat", "persistent")]
KINDS.remove(("1.4", "grpc"))
IP, PORT = "10.9.0.1", 8080
ADDRESS = {"serviceName": "shop", "ip": IP, "port": str(PORT)}
PAGE = {"serviceName": "shop", "clusterName": "DEFAULT", "pageNo": "1", "pageSize": "10"}
WRITES = {"1.4": "PATCH /v1/ns/instance", "2.2": "PATCH /v1/ns/instance"}
WRITES["3.1"] = "PUT /v3/admin/ns/instance/partial"
PUTS = {"1.4": "PUT /v1/ns/instance", "2.2": "PUT /v1/ns/instance", "3.1": "PUT /v3/admin/ns/instance"}


class Clock:
    """Time as a number."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


class Rig:
    """A double on a clock of its own, and a client."""

    def __init__(self, double: Double, clock: Clock, http: aiohttp.ClientSession) -> None:
        self.double, self.clock, self.http = double, clock, http

    async def ask(self, spot: str, **params: str) -> tuple[int, Any]:
        """Ask `METHOD /path`, and read JSON where there is some."""
        status, body = await self.raw(spot, **params)
        return status, json.loads(body) if body[:1] in {"{", "["} else body

    async def raw(self, spot: str, **params: str) -> tuple[int, str]:
        """Ask, and take the body as it is."""
        method, path = spot.split()
        async with self.http.request(method, self.double.url + path, params=params) as got:
            return got.status, await got.text()

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    async def listed(self, **more: str) -> list[str]:
        """Ask as a consumer."""
        _, said = await self.ask("GET /v1/ns/instance/list", serviceName="shop", **more)
        return [f"{each['ip']}:{each['port']}" for each in said["hosts"]]

    def only(self) -> Instance:
        """Look at the one instance as it is by now, whatever lists say."""
        (found,) = self.double.naming.merged(SHOP)
        return found


@asynccontextmanager
async def rig(dialect: Dialect, **options: Any) -> AsyncIterator[Rig]:
    clock = Clock()
    naming = Naming(sticky=dialect != "1.4", clock=clock)
    options.setdefault("auth", "none")
    options.setdefault("access", Access(clock=clock))
    async with (
        Double(dialect, naming=naming, **options) as double,
        aiohttp.ClientSession() as http,
    ):
        yield Rig(double, clock, http)


# -- the registry alone


def registry() -> tuple[Naming, Clock]:
    clock = Clock()
    return Naming(clock=clock), clock


def born(naming: Naming) -> bool:
    """Register again and tell whether it is enabled."""
    naming.register_grpc(SHOP, IP, PORT, connection="next", weight=7.0)
    return naming.merged(SHOP)[0].enabled


@pytest.mark.parametrize(("offline", "enabled"), [(5.0, False), (30.0, False), (70.0, True)])
def test_a_disabled_state_outlives_its_instance_by_a_minute(offline: float, *, enabled: bool) -> None:
    naming, clock = registry()
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    naming.disable_as_operator(SHOP, IP, PORT)
    naming.close_connection("one")
    clock.now += offline
    assert born(naming) is enabled
    clock.now += 75
    assert naming.merged(SHOP)[0].enabled is enabled


@pytest.mark.parametrize(
    ("written_after", "then", "kept"),
    [(10.0, 30.0, True), (10.0, 80.0, False), (30.0, 150.0, False), (75.0, 95.0, True)],
)
def test_a_write_on_an_absent_instance_expires_only_inside_the_window(
    written_after: float, then: float, *, kept: bool
) -> None:
    naming, clock = registry()
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    naming.disable_as_operator(SHOP, IP, PORT)
    naming.close_connection("one")
    clock.now += written_after
    naming.put(SHOP, Instance(IP, PORT))
    clock.now += then
    assert (naming.record(SHOP, IP, PORT) is not None) is kept


def test_a_record_on_a_port_that_never_was_never_expires() -> None:
    naming, clock = registry()
    naming.register_grpc(SHOP, IP, 9999, connection="neighbour")
    naming.put(SHOP, Instance(IP, PORT, enabled=False))
    clock.now += 150
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    assert [each.enabled for each in naming.merged(SHOP)] == [True, False]


def test_a_batch_publishers_record_never_expires() -> None:
    naming, clock = registry()
    both = (Instance(IP, PORT, grpc=True), Instance(IP, PORT + 1, grpc=True))
    naming.register(SHOP, "one", *both, batch=True)
    naming.disable_as_operator(SHOP, IP, PORT)
    naming.close_connection("one")
    clock.now += 75
    naming.register(SHOP, "two", *both, batch=True)
    assert [each.enabled for each in naming.merged(SHOP)] == [False, True]


def test_a_connection_has_one_instance_per_service() -> None:
    naming, _ = registry()
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    naming.register_grpc(SHOP, IP, PORT + 1, connection="one")
    assert [each.port for each in naming.merged(SHOP)] == [PORT + 1]


def test_what_the_client_says_loses_to_the_record_except_its_metadata() -> None:
    naming, _ = registry()
    naming.register_grpc(SHOP, IP, PORT, connection="one", metadata={"v": "1", "k": "x"})
    naming.put(SHOP, Instance(IP, PORT, metadata={"mark": "m"}))
    again = {"v": "2", "k": "x"}
    naming.register_grpc(SHOP, IP, PORT, connection="one", enabled=False, weight=5.0, metadata=again)
    (found,) = naming.merged(SHOP)
    assert (found.enabled, found.weight) == (True, 1.0)
    assert found.metadata == {"v": "2", "k": "x", "mark": "m"}


def test_a_silent_instance_turns_unhealthy_and_then_goes() -> None:
    naming, clock = registry()
    instance = Instance(IP, PORT)
    naming.register(SHOP, naming.http_client(instance), instance)
    clock.now += 14
    assert naming.beat(SHOP, instance, complete=False)
    clock.now += 16
    assert [each.healthy for each in naming.merged(SHOP)] == [False]
    clock.now += 15
    assert naming.merged(SHOP) == ()
    assert not naming.beat(SHOP, instance, complete=False)
    assert naming.beat(SHOP, instance, complete=True)


def test_a_service_is_ephemeral_or_persistent() -> None:
    naming, _ = registry()
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    with pytest.raises(WrongKindError, match=r"DEFAULT_GROUP@@shop is ephemeral service"):
        naming.register(SHOP, "x", Instance(IP, PORT, ephemeral=False))


def test_a_list_is_computed_when_its_push_is_due_and_not_before() -> None:
    naming, clock = registry()
    view, late = View(naming), View(naming, 1.5)
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    assert len(view.hosts(SHOP)) == 1  # the first question is answered at once
    clock.now += 2
    naming.close_connection("one")
    clock.now += 0.4
    naming.register_grpc(SHOP, IP, PORT + 1, connection="two")
    assert [each.port for each in view.hosts(SHOP)] == [PORT]
    clock.now += 0.11  # changes are pushed together, at the earliest one's time
    assert [each.port for each in view.hosts(SHOP)] == [PORT + 1]
    assert [each.port for each in late.hosts(SHOP)] == [PORT]


def test_what_was_due_happens_at_its_own_time_however_late_somebody_looks() -> None:
    naming, clock = registry()
    view = View(naming)
    instance = Instance(IP, PORT)
    naming.register(SHOP, naming.http_client(instance), instance)
    naming.disable_as_operator(SHOP, IP, PORT)
    clock.now += 85  # gone after 30 s, so its record has 5 s left
    assert view.hosts(SHOP) == ()
    assert naming.record(SHOP, IP, PORT) is not None
    clock.now += 6
    assert naming.record(SHOP, IP, PORT) is None


def test_an_expired_record_is_not_announced() -> None:
    naming, clock = registry()
    naming.register_grpc(SHOP, IP, PORT, connection="one")
    naming.disable_as_operator(SHOP, IP, PORT)
    naming.close_connection("one")
    clock.now += 1
    changes: list[Service] = []
    naming.watch(changes.append)
    clock.now += 120
    assert naming.record(SHOP, IP, PORT) is None
    assert changes == []


# -- one write on one instance


async def publish(to: Rig, kind: str) -> None:
    """Register with weight 3 and metadata, as the kind does it."""
    what = {"weight": "3", "metadata": '{"v":"1","k":"x"}', "ephemeral": "true"}
    if kind == "grpc":
        to.double.naming.register_grpc(SHOP, IP, PORT, connection="app", weight=3.0, metadata={"v": "1", "k": "x"})
    else:
        what["ephemeral"] = str(kind == "beat").lower()
        assert await to.raw("POST /v1/ns/instance", **ADDRESS, **what) == (200, "ok")
    assert await to.listed() == [f"{IP}:{PORT}"]


@pytest.mark.parametrize(("dialect", "kind"), KINDS)
async def test_disabling_takes_every_kind_off_the_list_half_a_second_later(dialect: Dialect, kind: str) -> None:
    async with rig(dialect) as to:
        await publish(to, kind)
        status, said = await to.ask(WRITES[dialect], **ADDRESS, enabled="false", weight="3")
        v3 = {"code": 0, "message": "success", "data": "ok"}
        assert (status, said) == (200, v3 if dialect == "3.1" else "ok")
        to.later(0.4)
        assert await to.listed() == [f"{IP}:{PORT}"]
        to.later(0.2)
        assert await to.listed() == []
        assert (to.only().enabled, to.only().weight) == (False, 3.0)
        assert to.only().metadata == {"v": "1", "k": "x"}
        if kind == "beat":
            beat = json.dumps({"ip": IP, "port": PORT, "cluster": "DEFAULT"})
            await to.ask("PUT /v1/ns/instance/beat", serviceName="shop", beat=beat)
            to.later(1)
            assert await to.listed() == []


@pytest.mark.parametrize(
    ("dialect", "spot", "more", "left"),
    [
        ("1.4", "PATCH /v1/ns/instance", {"enabled": "false"}, (False, 3.0, {"v": "1", "k": "x"})),
        ("1.4", "PATCH /v1/ns/instance", {"metadata": '{"m":"1"}'}, (True, 3.0, {"m": "1"})),
        ("1.4", "PUT /v1/ns/instance", {"enabled": "false"}, (False, 1.0, {})),
        ("2.2", "PATCH /v1/ns/instance", {"enabled": "false"}, (False, 1.0, {"v": "1", "k": "x"})),
        ("2.2", "PUT /v1/ns/instance", {"enabled": "false"}, (False, 1.0, {"v": "1", "k": "x"})),
        ("2.2", "PUT /v2/ns/instance", {"weight": "0"}, (True, 0.0, {"v": "1", "k": "x"})),
        (
            "2.2",
            "PATCH /v1/ns/instance",
            {"metadata": '{"m":"1"}'},
            (True, 1.0, {"v": "1", "k": "x", "m": "1"}),
        ),
        (
            "3.1",
            "PUT /v3/admin/ns/instance/partial",
            {"enabled": "false"},
            (False, 1.0, {"v": "1", "k": "x"}),
        ),
        (
            "3.1",
            "PUT /v3/admin/ns/instance",
            {"enabled": "false", "weight": "3"},
            (False, 3.0, {"v": "1", "k": "x"}),
        ),
    ],
)
async def test_what_a_write_leaves(
    dialect: Dialect, spot: str, more: dict[str, str], left: tuple[bool, float, dict[str, str]]
) -> None:
    async with rig(dialect) as to:
        await publish(to, "beat")
        assert (await to.raw(spot, **ADDRESS, **more))[0] == 200
        found = to.only()
        assert (found.enabled, found.weight, found.metadata) == left


@pytest.mark.parametrize(("dialect", "enabled"), [("2.2", False), ("3.1", True)])
async def test_a_partial_write_without_enabled_enables_again_on_3_only(dialect: Dialect, *, enabled: bool) -> None:
    async with rig(dialect) as to:
        await publish(to, "grpc")
        await to.raw(WRITES[dialect], **ADDRESS, enabled="false", weight="3")
        await to.raw(WRITES[dialect], **ADDRESS, metadata='{"m":"1"}')
        assert to.only().enabled is enabled
        assert to.only().weight == (1.0 if dialect == "3.1" else 3.0)


@pytest.mark.parametrize("dialect", MODERN)
async def test_our_mark_survives_a_restart_and_leaves_the_apps_metadata_alone(
    dialect: Dialect,
) -> None:
    async with rig(dialect) as to:
        await publish(to, "grpc")
        mark = {"metadata": '{"nacos-drain":"t/pod"}', "weight": "3"}
        await to.raw(WRITES[dialect], **ADDRESS, enabled="false", **mark)
        assert to.only().metadata == {"nacos-drain": "t/pod", "v": "1", "k": "x"}
        to.double.naming.close_connection("app")
        to.later(10)
        to.double.naming.register_grpc(SHOP, IP, PORT, connection="app2", metadata={"v": "2", "k": "x"})
        to.later(1)
        assert to.only().enabled is False
        assert to.only().metadata == {"nacos-drain": "t/pod", "v": "2", "k": "x"}
        cleared = {"metadata": '{"nacos-drain":""}', "weight": "3"}
        await to.raw(WRITES[dialect], **ADDRESS, enabled="true", **cleared)
        assert to.only().enabled is True
        assert to.only().metadata == {"nacos-drain": "", "v": "2", "k": "x"}


DELETES = [
    ("1.4", "DELETE /v1/ns/instance"),
    ("2.2", "DELETE /v1/ns/instance"),
    ("2.2", "DELETE /v2/ns/instance"),
    ("3.1", "DELETE /v1/ns/instance"),
    ("3.1", "DELETE /v3/admin/ns/instance"),
    ("3.1", "DELETE /v3/client/ns/instance"),
]


@pytest.mark.parametrize(
    ("dialect", "spot", "kind", "more", "gone"),
    [
        (*called, *found)
        for called in DELETES
        for found in [
            ("grpc", {}, False),
            ("grpc", {"ephemeral": "false"}, False),
            ("beat", {}, True),
            ("persistent", {}, False),
            ("persistent", {"ephemeral": "false"}, True),
        ]
        if (called[0], found[0]) in KINDS
    ],
)
async def test_delete_says_ok_whatever_it_does(
    dialect: Dialect, spot: str, kind: str, more: dict[str, str], *, gone: bool
) -> None:
    async with rig(dialect) as to:
        await publish(to, kind)
        status, said = await to.ask(spot, **ADDRESS, **more)
        v1 = "/v1/" in spot
        assert (status, said if v1 else said["data"]) == (200, "ok")
        to.later(1)
        assert (await to.listed() == []) is gone
        beat = json.dumps({"ip": IP, "port": PORT, "cluster": "DEFAULT"})
        if kind == "beat":  # and the next one brings it back
            await to.ask("PUT /v1/ns/instance/beat", serviceName="shop", beat=beat)
            to.later(1)
            assert await to.listed() == [f"{IP}:{PORT}"]


async def test_on_1_4_a_put_without_ephemeral_leaves_a_ghost_beside_a_persistent_one() -> None:
    async with rig("1.4") as to:
        await publish(to, "persistent")
        assert await to.raw("PUT /v1/ns/instance", **ADDRESS, enabled="false") == (200, "ok")
        to.later(1)
        assert await to.listed() == [f"{IP}:{PORT}"]
        both = to.double.naming.merged(SHOP)
        assert [(each.ephemeral, each.enabled) for each in both] == [(False, True), (True, False)]


async def test_on_1_4_nothing_sticks() -> None:
    async with rig("1.4") as to:
        await publish(to, "beat")
        await to.raw("PATCH /v1/ns/instance", **ADDRESS, enabled="false")
        await to.raw("POST /v1/ns/instance", **ADDRESS)
        assert to.only().enabled is True


# -- absent instances, wrong keys


def v3(code: int, message: str, data: str) -> dict[str, Any]:
    return {"code": code, "message": message, "data": data}


def service_shown(name: str) -> str:
    return (
        f"service not found, namespace: public, service: Service{{namespace='public',"
        f" group='DEFAULT_GROUP', name='{name}', ephemeral=true, revision=0}}"
    )


NO_MATCH = "no matched ip found!"
NO_IPS = "no ips found for cluster DEFAULT in service DEFAULT_GROUP@@nope"
NO_RESOURCE = (20004, "resource not found")


@pytest.mark.parametrize(
    ("dialect", "spot", "more", "status", "said", "residue"),
    [
        ("1.4", WRITES["1.4"], {"port": "1"}, 400, "caused: instance not found;", False),
        ("1.4", WRITES["1.4"], {"serviceName": "nope"}, 400, "caused: instance not found;", False),
        ("1.4", WRITES["1.4"], {"clusterName": "N"}, 400, "caused: instance not found;", False),
        ("2.2", WRITES["2.2"], {"port": "1"}, 404, NO_MATCH, False),
        ("2.2", WRITES["2.2"], {"clusterName": "NOPE"}, 404, NO_MATCH, False),
        ("2.2", WRITES["2.2"], {"serviceName": "nope"}, 404, NO_IPS, False),
        ("2.2", PUTS["2.2"], {"port": "1"}, 200, "ok", True),
        ("2.2", PUTS["2.2"], {"clusterName": "NOPE"}, 200, "ok", True),
        ("2.2", PUTS["2.2"], {"serviceName": "nope"}, 400, service_shown("nope"), False),
        (
            "2.2",
            "PUT /v2/ns/instance",
            {"serviceName": "nope"},
            400,
            v3(21004, "instance error", service_shown("nope")),
            False,
        ),
        ("3.1", WRITES["3.1"], {"port": "1"}, 404, v3(*NO_RESOURCE, NO_MATCH), False),
        ("3.1", WRITES["3.1"], {"clusterName": "NOPE"}, 404, v3(*NO_RESOURCE, NO_MATCH), False),
        ("3.1", WRITES["3.1"], {"serviceName": "nope"}, 404, v3(*NO_RESOURCE, NO_IPS), False),
        ("3.1", PUTS["3.1"], {"port": "1"}, 200, v3(0, "success", "ok"), True),
        (
            "3.1",
            PUTS["3.1"],
            {"serviceName": "nope"},
            400,
            v3(21004, "instance error", service_shown("nope")),
            False,
        ),
        ("1.4", "DELETE /v1/ns/instance", {"serviceName": "nope"}, 200, "ok", False),
        ("2.2", "DELETE /v1/ns/instance", {"serviceName": "nope"}, 200, "ok", False),
        ("3.1", "DELETE /v1/ns/instance", {"port": "1"}, 200, "ok", False),
    ],
)
async def test_writes_on_what_is_not_there(
    *, dialect: Dialect, spot: str, more: dict[str, str], status: int, said: Any, residue: bool
) -> None:
    async with rig(dialect) as to:
        await publish(to, "beat")
        asked = ADDRESS | {"enabled": "false"} | more
        assert await to.ask(spot, **asked) == (status, said)
        service = Service(asked["serviceName"])
        key = (asked["ip"], int(asked["port"]), asked.get("clusterName", "DEFAULT"))
        assert (to.double.naming.record(service, *key) is not None) is residue
        to.later(1)
        assert await to.listed() == [f"{IP}:{PORT}"]


async def test_on_1_4_a_put_makes_an_instance_of_a_service_nobody_knew() -> None:
    async with rig("1.4") as to:
        asked = ADDRESS | {"serviceName": "ghost"}
        assert await to.raw("PUT /v1/ns/instance", **asked) == (200, "ok")
        assert len(to.double.naming.merged(Service("ghost"))) == 1


async def test_a_put_works_on_a_service_that_was_emptied() -> None:
    async with rig("3.1") as to:
        await publish(to, "grpc")
        to.double.naming.close_connection("app")
        to.later(75)
        status, _ = await to.ask(PUTS["3.1"], **ADDRESS, enabled="true")
        assert status == 200
        to.later(95)
        assert to.double.naming.record(SHOP, IP, PORT) is not None


@pytest.mark.parametrize("dialect", MODERN)
async def test_a_patch_just_after_the_instance_left_still_finds_it_and_its_record_stays(
    dialect: Dialect,
) -> None:
    """From reading the code, not measured: the check reads the list, which is half a second late."""
    async with rig(dialect) as to:
        await publish(to, "grpc")
        to.later(5)
        await to.listed()
        to.double.naming.close_connection("app")
        to.later(0.2)
        status, _ = await to.ask(WRITES[dialect], **ADDRESS, enabled="false")
        assert status == 200
        to.later(600)
        assert to.double.naming.record(SHOP, IP, PORT) is not None


# -- reads

HOST = {
    "instanceId": "10.9.0.1#8080#DEFAULT#DEFAULT_GROUP@@shop",
    "ip": IP,
    "port": PORT,
    "weight": 3.0,
    "healthy": True,
    "enabled": True,
    "ephemeral": True,
    "clusterName": "DEFAULT",
    "serviceName": "DEFAULT_GROUP@@shop",
    "metadata": {"v": "1", "k": "x"},
    "instanceHeartBeatInterval": 5000,
    "instanceHeartBeatTimeOut": 15000,
    "ipDeleteTimeout": 30000,
}


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("name", ["shop", "nope"])
async def test_v1_list(dialect: Dialect, name: str) -> None:
    async with rig(dialect) as to:
        await publish(to, "beat")
        status, said = await to.ask("GET /v1/ns/instance/list", serviceName=name)
        assert status == 200
        assert said.pop("lastRefTime") > 0
        assert said == {
            "name": f"DEFAULT_GROUP@@{name}",
            "groupName": "DEFAULT_GROUP",
            "clusters": "",
            "cacheMillis": 10000,
            "hosts": [HOST] if name == "shop" else [],
            "checksum": "",
            "allIps" if dialect == "3.1" else "allIPs": False,
            "reachProtectionThreshold": False,
            "valid": True,
        }


async def test_v2_list_is_the_v1_object_in_an_envelope() -> None:
    async with rig("2.2") as to:
        await publish(to, "beat")
        status, said = await to.ask("GET /v2/ns/instance/list", serviceName="shop")
        assert (status, said["code"], said["message"]) == (200, 0, "success")
        assert said["data"]["hosts"] == [HOST]


async def test_1_4_lists_a_dom_and_no_group() -> None:
    async with rig("1.4") as to:
        await publish(to, "beat")
        _, said = await to.ask("GET /v1/ns/instance/list", serviceName="shop")
        assert said["dom"] == "DEFAULT_GROUP@@shop"
        assert "groupName" not in said


async def test_2_2_shows_no_instance_id_for_a_grpc_instance() -> None:
    async with rig("2.2") as to:
        await publish(to, "grpc")
        _, said = await to.ask("GET /v1/ns/instance/list", serviceName="shop")
        assert "instanceId" not in said["hosts"][0]


@pytest.mark.parametrize(
    ("dialect", "spot", "more", "status", "said"),
    [
        ("3.1", "GET /v3/client/ns/instance/list", {}, 200, v3(0, "success", [HOST])),  # type: ignore[arg-type]  # data is a list here
        (
            "3.1",
            "GET /v3/client/ns/instance/list",
            {"serviceName": "nope"},
            200,
            {"code": 0, "message": "success", "data": []},
        ),
        (
            "3.1",
            "GET /v3/client/ns/instance/list",
            {"serviceName": ""},
            400,
            v3(
                10000,
                "parameter missing",
                "Required parameter 'serviceName' type String is not present",
            ),
        ),
        (
            "3.1",
            "GET /v3/admin/ns/instance/list",
            {},
            200,
            {"code": 0, "message": "success", "data": [HOST]},
        ),
        (
            "3.1",
            "GET /v3/admin/ns/instance/list",
            {"serviceName": "nope"},
            404,
            v3(30000, "server error", "service DEFAULT_GROUP@@nope is not found!"),
        ),
        (
            "3.1",
            "GET /v3/admin/ns/instance/list",
            {"clusterName": "NOPE"},
            404,
            v3(30000, "server error", "cluster NOPE is not found!"),
        ),
        (
            "3.1",
            "GET /v3/admin/ns/instance",
            {},
            200,
            {"code": 0, "message": "success", "data": HOST},
        ),
        ("3.1", "GET /v3/admin/ns/instance", {"port": "1"}, 404, v3(*NO_RESOURCE, NO_MATCH)),
        ("2.2", "GET /v1/ns/catalog/instances", {}, 200, {"list": [HOST], "count": 1}),
        (
            "2.2",
            "GET /v1/ns/catalog/instances",
            {"serviceName": "nope"},
            404,
            "service DEFAULT_GROUP@@nope is not found!",
        ),
        (
            "2.2",
            "GET /v1/ns/catalog/instances",
            {"clusterName": "NOPE"},
            404,
            "cluster NOPE is not found!",
        ),
        (
            "1.4",
            "GET /v1/ns/catalog/instances",
            {"serviceName": "nope"},
            500,
            "caused: service DEFAULT_GROUP@@nope is not found!;",
        ),
        (
            "1.4",
            "GET /v1/ns/instance",
            {"serviceName": "nope"},
            500,
            "caused: no service DEFAULT_GROUP@@nope found!;",
        ),
        ("2.2", "GET /v1/ns/instance", {"port": "1"}, 404, NO_MATCH),
        ("1.4", "GET /v1/ns/instance", {"port": "1"}, 500, "caused: no matched ip found!;"),
        (
            "2.2",
            "GET /v1/ns/instance/list",
            {"serviceName": ""},
            400,
            "Param 'serviceName' is required.",
        ),
        (
            "1.4",
            "GET /v1/ns/instance/list",
            {"serviceName": ""},
            400,
            "caused: Param 'serviceName' is required.;",
        ),
    ],
)
async def test_reads(dialect: Dialect, spot: str, more: dict[str, str], status: int, said: Any) -> None:
    async with rig(dialect) as to:
        await publish(to, "beat")
        assert await to.ask(spot, **(ADDRESS | PAGE | more)) == (status, said)


async def test_v1_detail_does_not_tell_enabled() -> None:
    async with rig("2.2") as to:
        await publish(to, "beat")
        _, said = await to.ask("GET /v1/ns/instance", **ADDRESS)
        names = {"service", "ip", "port", "clusterName", "weight", "healthy", "instanceId"}
        assert said.keys() == names | {"metadata"}


@pytest.mark.parametrize(
    ("dialect", "spot"),
    [("2.2", "GET /v1/ns/catalog/instances"), ("3.1", "GET /v3/admin/ns/instance/list")],
)
async def test_operators_see_disabled_ones_and_lose_the_cluster_with_its_last_instance(
    dialect: Dialect, spot: str
) -> None:
    async with rig(dialect) as to:
        await publish(to, "grpc")
        await to.raw(WRITES[dialect], **ADDRESS, enabled="false", weight="3")
        to.later(1)
        _, said = await to.ask(spot, **PAGE)
        (row,) = said["list" if dialect == "2.2" else "data"]
        assert (row["ip"], row["enabled"]) == (IP, False)
        to.double.naming.close_connection("app")
        to.later(1)
        status, said = await to.ask(spot, **PAGE)
        gone = "cluster DEFAULT is not found!"
        expected = gone if dialect == "2.2" else v3(30000, "server error", gone)
        assert (status, said) == (404, expected)


async def test_the_cluster_of_a_new_service_is_unknown_until_its_first_list() -> None:
    """From reading the code: the index of clusters is filled when a list is computed."""
    async with rig("2.2") as to:
        to.double.naming.register_grpc(SHOP, IP, PORT, connection="app")
        assert (await to.raw("GET /v1/ns/catalog/instances", **PAGE))[0] == 404
        to.later(0.6)
        assert (await to.raw("GET /v1/ns/catalog/instances", **PAGE))[0] == 200


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({}, True),
        ({"namespaceId": ""}, True),
        ({"namespaceId": "public"}, True),
        ({"groupName": "DEFAULT_GROUP"}, True),
        ({"serviceName": "DEFAULT_GROUP@@shop"}, True),
        ({"clusters": "DEFAULT,OTHER"}, True),
        ({"namespaceId": "other"}, False),
        ({"groupName": "other"}, False),
        ({"serviceName": "other@@shop"}, False),
        ({"clusters": "default"}, False),
    ],
)
async def test_a_list_is_exact_about_namespace_group_and_cluster(more: dict[str, str], *, seen: bool) -> None:
    async with rig("2.2") as to:
        await publish(to, "grpc")
        _, said = await to.ask("GET /v1/ns/instance/list", **({"serviceName": "shop"} | more))
        assert bool(said["hosts"]) is seen


async def test_to_the_v3_client_list_no_cluster_means_default() -> None:
    async with rig("3.1") as to:
        to.double.naming.register_grpc(SHOP, IP, PORT, "EAST", connection="app")
        _, blank = await to.ask("GET /v3/client/ns/instance/list", serviceName="shop")
        asked = {"serviceName": "shop", "clusterName": "EAST"}
        _, named = await to.ask("GET /v3/client/ns/instance/list", **asked)
        assert (blank["data"], len(named["data"])) == ([], 1)
        assert await to.listed() == [f"{IP}:{PORT}"]


async def test_consumers_get_unhealthy_ones_unless_they_ask_not_to() -> None:
    async with rig("2.2") as to:
        await publish(to, "beat")
        to.later(16)
        assert await to.listed() == [f"{IP}:{PORT}"]
        to.later(1)
        assert await to.listed(healthyOnly="true") == []


async def test_operators_may_ask_for_healthy_ones_only() -> None:
    async with rig("3.1") as to:
        await publish(to, "beat")
        to.later(17)
        _, every = await to.ask("GET /v3/admin/ns/instance/list", **PAGE)
        _, healthy = await to.ask("GET /v3/admin/ns/instance/list", **PAGE, healthyOnly="true")
        assert (len(every["data"]), healthy["data"]) == (1, [])


async def test_a_registration_of_the_other_kind_is_refused_on_2_x_and_3_x() -> None:
    async with rig("2.2") as to:
        await publish(to, "grpc")
        refused = "Current service DEFAULT_GROUP@@shop is ephemeral service, can't register persistent instance."
        assert await to.raw("POST /v1/ns/instance", **ADDRESS, ephemeral="false") == (400, refused)


PUBLISHERS = {
    "2.2": "GET /v2/ns/client/service/publisher/list",
    "3.1": "GET /v3/admin/ns/client/service/publisher/list",
}


@pytest.mark.parametrize(("dialect", "cluster"), [("2.2", {}), ("3.1", {"clusterName": "DEFAULT"})])
async def test_publishers_name_connection_or_address(dialect: Dialect, cluster: dict[str, str]) -> None:
    async with rig(dialect) as to:
        await publish(to, "beat")
        to.double.naming.register_grpc(SHOP, IP, PORT + 1, connection="17_127.0.0.1_55")
        _, said = await to.ask(PUBLISHERS[dialect], **ADDRESS)
        assert said["data"] == [{"clientId": f"{IP}:{PORT}#true", "ip": IP, "port": PORT} | cluster]
        _, said = await to.ask(PUBLISHERS[dialect], serviceName="shop")
        assert len(said["data"]) == (0 if dialect == "2.2" else 2)


@pytest.mark.parametrize("dialect", MODERN)
async def test_2_2_does_not_look_into_a_batch(dialect: Dialect) -> None:
    """Its client is there under no address at all (2.2.4)."""
    client = "17_127.0.0.1_55"
    async with rig(dialect) as to:
        both = (Instance(IP, PORT, grpc=True), Instance(IP, PORT + 1, grpc=True))
        to.double.naming.register(SHOP, client, *both, batch=True)
        _, here = await to.ask(PUBLISHERS[dialect], **ADDRESS)
        _, nowhere = await to.ask(PUBLISHERS[dialect], serviceName="shop", port="0")
        _, blank = await to.ask(PUBLISHERS[dialect], serviceName="shop", port="0", ip="")
        family = "v2" if dialect == "2.2" else "v3/admin"
        _, published = await to.ask(f"GET /{family}/ns/client/publish/list", clientId=client)
        if dialect == "3.1":
            assert [each["port"] for each in here["data"]] == [PORT]
            shown = [each["publisherInfo"] for each in published["data"]]
            assert [(each["ip"], each["port"]) for each in shown] == [(IP, PORT), (IP, PORT + 1)]
            return
        assert here["data"] == blank["data"] == []
        assert nowhere["data"] == [{"clientId": client, "ip": None, "port": 0}]
        names = {"namespace": "public", "group": "DEFAULT_GROUP", "serviceName": "shop"}
        row = names | {"registeredInstance": {"ip": None, "port": 0, "cluster": None}}
        assert published["data"] == [row]


@pytest.mark.parametrize(
    ("dialect", "family", "said"),
    [
        ("2.2", "v2", "clientId [ nobody ] not exist"),
        ("3.1", "v3/admin", v3(20004, "resource not found", "clientId [ nobody ] not exist")),
    ],
)
async def test_a_client_that_is_not_there_published_nothing(dialect: Dialect, family: str, said: object) -> None:
    async with rig(dialect) as to:
        assert await to.ask(f"GET /{family}/ns/client/publish/list", clientId="nobody") == (404, said)


NO_SERVICE = "service not found, namespace: public, serviceName: DEFAULT_GROUP@@nope"


@pytest.mark.parametrize(
    ("dialect", "path", "unknown", "unwritten"),
    [
        ("1.4", "/v1/ns/service", (500, "caused: service DEFAULT_GROUP@@nope is not found!;"), None),
        ("2.2", "/v1/ns/service", (400, NO_SERVICE), (400, "service DEFAULT_GROUP@@nope not found!")),
        (
            "3.1",
            "/v3/admin/ns/service",
            (400, v3(21008, "service not exist", NO_SERVICE)),
            (400, v3(21008, "service not exist", "service DEFAULT_GROUP@@nope not found!")),
        ),
    ],
)
async def test_a_service_has_a_threshold(dialect: Dialect, path: str, unknown: object, unwritten: object) -> None:
    async with rig(dialect) as to:
        await publish(to, "beat")
        for wanted in (0.0, 0.5):
            _, said = await to.ask(f"GET {path}", serviceName="shop")
            assert said.get("data", said)["protectThreshold"] == wanted
            assert (await to.raw(f"PUT {path}", serviceName="shop", protectThreshold="0.5"))[0] == 200
        assert await to.ask(f"GET {path}", serviceName="nope") == unknown
        if unwritten is not None:
            assert await to.ask(f"PUT {path}", serviceName="nope", protectThreshold="1") == unwritten


@pytest.mark.parametrize("dialect", MODERN)
async def test_a_beat_interval_is_what_the_metadata_say(dialect: Dialect) -> None:
    async with rig(dialect) as to:
        await to.raw("POST /v1/ns/instance", **ADDRESS, metadata='{"preserved.heart.beat.interval":"1000"}')
        _, said = await to.ask("GET /v1/ns/instance/list", serviceName="shop")
        assert said["hosts"][0]["instanceHeartBeatInterval"] == 1000


@pytest.mark.parametrize(("dialect", "family"), [("2.2", "v2"), ("3.1", "v3/admin")])
async def test_a_member_tells_its_version(dialect: Dialect, family: str) -> None:
    async with rig(dialect) as to:
        _, said = await to.ask(f"GET /{family}/core/cluster/node/list")
        assert said["data"][0]["extendInfo"]["version"] == {"2.2": "2.2.4", "3.1": "3.1.0"}[dialect]


# -- beats


async def test_beats() -> None:
    async with rig("2.2") as to:
        spot = "PUT /v1/ns/instance/beat"
        ok = {"clientBeatInterval": 5000, "code": 10200, "lightBeatEnabled": True}
        assert await to.ask(spot, **ADDRESS) == (200, ok | {"code": 20404})
        full = {"ip": IP, "port": PORT, "weight": 2.0, "cluster": "EAST", "metadata": {"a": "1"}}
        asked = {"serviceName": "DEFAULT_GROUP@@shop", "beat": json.dumps(full)}
        assert await to.ask(spot, **asked) == (200, ok)
        assert to.only() == Instance(IP, PORT, "EAST", weight=2.0, metadata={"a": "1"})
        for _ in range(10):
            to.later(10)
            assert await to.ask(spot, **ADDRESS) == (200, ok)
        assert len(await to.listed()) == 1
        to.later(30.2)
        assert await to.listed() == [f"{IP}:{PORT}"]  # the push of its removal is still to come
        to.later(0.6)
        assert await to.listed() == []


async def test_v3_beats_tell_to_register_again() -> None:
    async with rig("3.1") as to:
        spot = "POST /v3/client/ns/instance"
        _, said = await to.ask(spot, **ADDRESS, heartBeat="true")
        assert said == {"code": 21003, "message": "instance not found", "data": None}
        assert (await to.ask(spot, **ADDRESS))[1]["data"] == "ok"
        assert (await to.ask(spot, **ADDRESS, heartBeat="true"))[1]["code"] == 0


@pytest.mark.parametrize(("dialect", "status"), [("1.4", 400), ("2.2", 200)])
async def test_1_4_does_not_see_the_form_of_a_registration(dialect: Dialect, status: int) -> None:
    async with rig(dialect) as to:
        url = f"{to.double.url}/v1/ns/instance"
        async with to.http.post(url, data=ADDRESS) as got:
            said = (got.status, await got.text())
        refused = "caused: Param 'serviceName' is required.;"
        assert said == (status, refused if dialect == "1.4" else "ok")


# -- what a server tells about itself


@pytest.mark.parametrize(
    ("dialect", "console", "v1", "new"),
    [
        ("1.4", None, 200, 404),
        ("2.2", None, 200, 404),
        ("2.2", False, 404, 404),
        ("3.1", None, 404, 200),
        ("3.1", True, 410, 200),
    ],
)
async def test_detection(dialect: Dialect, *, console: bool | None, v1: int, new: int) -> None:
    async with rig(dialect, console=console) as to:
        old = await to.ask("GET /v1/console/server/state")
        assert (old[0], (await to.ask("GET /v1/console/health/readiness"))[0]) == (v1, v1)
        state = await to.ask("GET /v3/admin/core/state")
        assert (state[0], (await to.ask("GET /v3/admin/core/state/readiness"))[0]) == (new, new)
        version = {"1.4": "1.4.8", "2.2": "2.2.4", "3.1": "3.1.0"}[dialect]
        for status, said in (old, state):
            if status == 200:
                assert said.get("data", said)["version"] == version
        assert (await to.ask("GET /v1/ns/operator/metrics"))[1]["status"] == "UP"


async def test_state_bodies() -> None:
    async with rig("1.4") as to:
        _, said = await to.ask("GET /v1/console/server/state")
        alone = {"standalone_mode": "standalone", "function_mode": None}
        assert said == {"version": "1.4.8"} | alone
    async with rig("3.1", auth="admin") as to:
        _, said = await to.ask("GET /v3/admin/core/state")
        assert (said["code"], said["data"]["auth_enabled"]) == (0, "true")
        assert said["data"]["server_port"] == to.double.address.split(":")[1]


@pytest.mark.parametrize(
    ("dialect", "spot", "status", "error", "message"),
    [
        ("3.1", "GET /v9/nothing", 404, "Not Found", "No endpoint GET /nacos/v9/nothing."),
        ("2.2", "GET /v9/nothing", 404, "Not Found", "No message available"),
        (
            "2.2",
            "GET /v1/ns/operator/servers",
            501,
            "Not Implemented",
            "no such api:GET:/nacos/v1/ns/operator/servers",
        ),
        (
            "3.1",
            "GET /v1/ns/operator/servers",
            501,
            "Not Implemented",
            "no such api:GET:/nacos/v1/ns/operator/servers",
        ),
    ],
)
async def test_unknown_paths(dialect: Dialect, spot: str, status: int, error: str, message: str) -> None:
    async with rig(dialect) as to:
        got, said = await to.ask(spot)
        assert (got, said["status"], said["error"]) == (status, status, error)
        assert (said["message"], said["path"]) == (message, "/nacos" + spot.split()[1])


@pytest.mark.parametrize(
    "spot",
    [
        "PATCH /v1/ns/instance",
        "PUT /v1/ns/instance",
        "GET /v1/ns/catalog/instances",
        "GET /v2/ns/instance/list",
        "PUT /v2/ns/instance",
        "DELETE /v2/ns/instance",
        "GET /v1/ns/instance",
        "GET /v1/core/cluster/nodes",
        "GET /v2/core/cluster/node/list",
    ],
)
async def test_what_3_switched_off_is_gone_and_does_nothing(spot: str) -> None:
    async with rig("3.1") as to:
        await publish(to, "beat")
        status, said = await to.ask(spot, **ADDRESS, enabled="false")
        assert (status, said["status"], said["error"]) == (410, 410, "Gone")
        assert json.loads(said["message"])["code"] == 40000
        assert to.only().enabled


async def test_the_measured_410() -> None:
    async with rig("3.1") as to:
        _, said = await to.ask("PATCH /v1/ns/instance", **ADDRESS)
        assert said["message"] == (
            '{"code":40000,"message":"Current API will be deprecated, please use API(s)'
            " `PUT ${contextPath:nacos}/v3/admin/ns/instance/partial` instead, or set"
            ' `nacos.core.api.compatibility.admin.enabled=true` in application.properties."}'
        )


async def test_an_upgraded_server_keeps_its_instances_and_drops_its_old_paths() -> None:
    async with rig("2.2", auth=None) as to:
        await publish(to, "grpc")
        await to.raw("PATCH /v1/ns/instance", **ADDRESS, enabled="false", weight="3")
        to.double.upgrade("3.1")
        assert (await to.raw("PATCH /v1/ns/instance", **ADDRESS, enabled="true"))[0] == 410
        assert (await to.raw("GET /v3/admin/core/state"))[0] == 200
        assert (await to.raw("GET /v3/admin/ns/instance/list", serviceName="shop"))[0] == 403
        assert to.only().enabled is False


async def test_another_context_path() -> None:
    async with rig("2.2", context_path="/registry") as to:
        assert to.double.url.endswith("/registry")
        assert (await to.raw("GET /v1/console/server/state"))[0] == 200
        wrong = f"http://{to.double.address}/nacos/v1/console/server/state"
        async with to.http.get(wrong) as got:
            assert (got.status, got.content_type) == (404, "text/html")


@pytest.mark.parametrize(
    ("dialect", "spot", "rows"),
    [
        ("1.4", "GET /v1/ns/operator/servers", "servers"),
        ("1.4", "GET /v1/core/cluster/nodes", "data"),
        ("2.2", "GET /v1/core/cluster/nodes", "data"),
        ("2.2", "GET /v2/core/cluster/node/list", "data"),
        ("3.1", "GET /v3/admin/core/cluster/node/list", "data"),
    ],
)
async def test_members(dialect: Dialect, spot: str, rows: str) -> None:
    async with cluster(3, dialect, auth="none") as nodes, aiohttp.ClientSession() as http:
        to = Rig(nodes[0], Clock(), http)
        nodes[0].naming.members[nodes[2].address] = "DOWN"
        _, said = await to.ask(spot)
        assert said.get("code") == {"servers": None, "data": 200 if "/v1/" in spot else 0}[rows]
        assert [each["address"] for each in said[rows]] == [each.address for each in nodes]
        assert [each["state"] for each in said[rows]] == ["UP", "UP", "DOWN"]
        for row in said[rows]:
            assert row["address"] == f"{row['ip']}:{row['port']}"
            assert "raftMetaData" in row["extendInfo"]
        _, up = await to.ask(spot, state="UP")
        assert len(up[rows]) == 2


# -- logins


async def login(to: Rig, path: str = "/v3/auth/user/login", **form: str) -> tuple[int, Any]:
    form = {"username": "nacos", "password": "nacos"} | form
    async with to.http.post(to.double.url + path, data=form) as got:
        body = await got.text()
        return got.status, json.loads(body) if body.startswith("{") else body


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("1.4", "/v1/auth/login"),
        ("1.4", "/v1/auth/users/login"),
        ("2.2", "/v1/auth/users/login"),
        ("3.1", "/v3/auth/user/login"),
        ("3.1", "/v1/auth/login"),
        ("3.1", "/v1/auth/users/login"),
    ],
)
async def test_login(dialect: Dialect, path: str) -> None:
    async with rig(dialect) as to:
        status, said = await login(to, path)
        assert (status, said["tokenTtl"], said["globalAdmin"]) == (200, 18000, True)
        assert said["accessToken"].count(".") == 2


@pytest.mark.parametrize(
    ("dialect", "path", "form", "status", "message"),
    [
        ("3.1", "/v3/auth/user/login", {"password": "x"}, 500, "No message available"),
        (
            "3.1",
            "/v1/auth/users/login",
            {"password": "x"},
            500,
            "Handle API Compatibility failed, please see log for detail.",
        ),
        ("3.1", "/v3/auth/user/login", {"username": "x"}, 403, "Access Denied"),
        ("1.4", "/v1/auth/login", {"password": "x"}, 403, "unknown user!"),
        ("2.2", "/v1/auth/users/login", {"password": "x"}, 403, "unknown user!"),
        ("2.2", "/v3/auth/user/login", {}, 404, "No message available"),
    ],
)
async def test_refused_logins(dialect: Dialect, path: str, form: dict[str, str], status: int, message: str) -> None:
    async with rig(dialect) as to:
        got, said = await login(to, path, **form)
        assert (got, said if isinstance(said, str) else said["message"]) == (status, message)


async def test_2_x_without_any_user_or_any_auth_module() -> None:
    async with rig("2.2", access=Access({})) as to:
        said = await login(to, "/v1/auth/users/login")
        assert said == (500, "caused: User nacos not found;")
    async with rig("2.2", console=False) as to:
        assert (await login(to, "/v1/auth/users/login"))[0] == 404


ADMIN_LIST = "GET /v3/admin/ns/instance/list"


@pytest.mark.parametrize("how", ["query", "header", "bearer"])
async def test_a_token_is_taken_wherever_it_is_put(how: str) -> None:
    async with rig("3.1", auth="admin") as to:
        await publish(to, "grpc")
        token = (await login(to))[1]["accessToken"]
        headers = {"header": {"accessToken": token}, "bearer": {"Authorization": f"Bearer {token}"}}
        params = PAGE | ({"accessToken": token} if how == "query" else {})
        url = f"{to.double.url}/v3/admin/ns/instance/list"
        async with to.http.get(url, params=params, headers=headers.get(how, {})) as got:
            assert got.status == 200


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "none",
            "Code: 401, Message: User not found! Please check user exist or password is right!.",
        ),
        ("garbage", "Code: 401, Message: unsupported signature algorithm."),
        ("forged", "Code: 401, Message: Invalid signature."),
        ("revoked", "Code: 401, Message: Invalid signature."),
        ("old", "Code: 401, Message: token expired!."),
        ("made to expire", "Code: 401, Message: token expired!."),
        ("deleted", "Code: 403, Message: authorization failed!."),
    ],
)
async def test_refused_tokens(what: str, message: str) -> None:
    async with rig("3.1", auth="admin") as to:
        token = (await login(to))[1]["accessToken"]
        access = to.double.access
        if what == "old":
            to.later(18001)
        elif what == "made to expire":
            access.expire()
        elif what == "revoked":
            access.revoke()
        elif what == "deleted":
            access.users.clear()
        token = {"none": "", "garbage": "rubbish", "forged": "a.b.c"}.get(what, token)
        status, said = await to.ask(ADMIN_LIST, **PAGE, accessToken=token)
        assert (status, said["status"], said["error"]) == (403, 403, "Forbidden")
        assert (said["message"], said["path"]) == (message, "/nacos/v3/admin/ns/instance/list")


async def test_3_secures_admin_calls_only_and_2_all_or_none() -> None:
    async with rig("3.1", auth=None) as to:
        await publish(to, "beat")
        assert (await to.raw("PUT /v3/admin/ns/instance/partial", **ADDRESS))[0] == 403
        assert (await to.raw("GET /v3/client/ns/instance/list", serviceName="shop"))[0] == 200
        assert (await to.raw("GET /v3/admin/core/cluster/node/list"))[0] == 403
        assert to.only().enabled
    async with rig("2.2", auth="all") as to:
        assert (await to.raw("GET /v1/ns/instance/list", serviceName="shop"))[0] == 403
        assert (await to.raw("GET /v1/console/server/state"))[0] == 200
        token = (await login(to, "/v1/auth/users/login"))[1]["accessToken"]
        asked = {"serviceName": "shop", "accessToken": token}
        assert (await to.raw("GET /v1/ns/instance/list", **asked))[0] == 200


async def test_a_reader_reads_and_the_detail_counts_as_a_write() -> None:
    async with rig("3.1", auth="admin", access=Access({"eve": "eve"})) as to:
        await publish(to, "grpc")
        to.double.access.readers.add("eve")
        token = (await login(to, username="eve", password="eve"))[1]["accessToken"]
        as_eve = ADDRESS | {"accessToken": token}
        assert (await to.raw(ADMIN_LIST, **as_eve))[0] == 200
        assert (await to.raw("GET /v3/admin/ns/instance", **as_eve))[0] == 403
        assert (await to.raw("PUT /v3/admin/ns/instance/partial", **as_eve))[0] == 403


def signed(data: str, secret: str = "sk") -> dict[str, str]:
    """Sign as clients of Aliyun MSE do."""
    digest = hmac.new(secret.encode(), data.encode(), "sha1").digest()
    return {"ak": "ak", "data": data, "signature": base64.b64encode(digest).decode()}


def now_ms(ago: float = 0.0) -> str:
    return str(int((time.time() - ago) * 1000))


@pytest.mark.parametrize(
    ("signature", "status"),
    [
        (lambda: signed(f"{now_ms()}@@DEFAULT_GROUP@@shop"), 200),
        (dict, 403),
        (lambda: signed(f"{now_ms()}@@DEFAULT_GROUP@@shop", "another"), 403),
        (lambda: signed(f"{now_ms()}@@DEFAULT_GROUP@@another"), 403),
        (lambda: signed(f"{now_ms()}@@shop"), 403),
        (lambda: signed(now_ms()), 403),
        (lambda: signed(f"{now_ms(61)}@@DEFAULT_GROUP@@shop"), 403),
        (lambda: signed("now@@DEFAULT_GROUP@@shop"), 403),
        (lambda: signed(f"{now_ms()}@@DEFAULT_GROUP@@shop") | {"ak": "nobody"}, 403),
        (lambda: signed(f"{now_ms()}@@DEFAULT_GROUP@@shop") | {"signature": ""}, 403),
    ],
)
async def test_a_request_may_be_signed_instead(signature: Callable[[], dict[str, str]], status: int) -> None:
    async with rig("2.2", auth="all", access=Access({}, keys={"ak": "sk"})) as to:
        assert (await to.raw("GET /v1/ns/instance/list", serviceName="shop", **signature()))[0] == status
        assert to.double.log[-1].params.get("signature", "***") == "***"


async def test_a_call_about_no_service_signs_the_time_and_keys_may_be_for_reading_only() -> None:
    access = Access({}, keys={"ak": "sk"})
    async with rig("2.2", auth="all", access=access) as to:
        assert (await to.raw("GET /v1/core/cluster/nodes", **signed(now_ms())))[0] == 200
        access.readers.add("ak")
        assert (await to.raw("GET /v1/core/cluster/nodes", **signed(now_ms())))[0] == 200
        asked = ADDRESS | signed(f"{now_ms()}@@DEFAULT_GROUP@@shop")
        status, said = await to.ask("PATCH /v1/ns/instance", **asked)
        assert (status, said["message"]) == (403, "authorization failed!")


# -- faults


@pytest.mark.parametrize(
    ("kind", "dialect", "status", "part"),
    [
        ("forbid", "3.1", 403, "Code: 403, Message: authorization failed!."),
        ("expired", "3.1", 403, "Code: 401, Message: token expired!."),
        ("redirect", "2.2", 400, "receive invalid redirect request from peer 127.0.0.1"),
        ("unavailable", "2.2", 503, "try again later"),
        (
            "no_leader",
            "3.1",
            500,
            '{"code":30000,"message":"server error","data":"errCode: 500, errMsg: do metadata operation failed "}',
        ),
        (
            "no_leader",
            "2.2",
            500,
            (
                "caused: errCode: 500, errMsg: do metadata operation failed ;caused: "
                "com.alibaba.nacos.consistency.exception.ConsistencyException: "
                "Could not find leader : naming_instance_metadata;"
                "caused: Could not find leader : naming_instance_metadata;"
            ),
        ),
        ("empty", "3.1", 200, ""),
        ("page", "3.1", 200, "<!doctype html>"),
        ("garbage", "3.1", 200, '{"hosts":'),
    ],
)
async def test_answers_of_a_node_that_is_not_well(kind: Any, dialect: Dialect, status: int, part: str) -> None:
    async with rig(dialect) as to:
        await publish(to, "grpc")
        to.double.faults.set(kind, "writes", times=1)
        got, body = await to.raw(WRITES[dialect], **ADDRESS, enabled="false")
        assert (got, part in body, to.double.log[-1].fault) == (status, True, kind)
        assert await to.listed() == [f"{IP}:{PORT}"]
        assert to.only().enabled
        assert (await to.raw(WRITES[dialect], **ADDRESS, enabled="false"))[0] == 200


async def test_a_blank_node_lists_nothing_and_says_200() -> None:
    async with rig("3.1") as to:
        await publish(to, "grpc")
        to.double.faults.set("blank")
        assert await to.listed() == []
        to.double.faults.clear()
        assert await to.listed() == [f"{IP}:{PORT}"]


async def test_a_status_of_choice_on_a_path_of_choice() -> None:
    async with rig("3.1") as to:
        to.double.faults.set("status", "/client/ns/instance/list", status=429, body="slow down")
        asked = {"serviceName": "shop"}
        assert await to.raw("GET /v3/client/ns/instance/list", **asked) == (429, "slow down")
        assert (await to.raw("GET /v1/ns/instance/list", **asked))[0] == 200


async def test_a_slow_write_lands_though_nobody_waits_for_it_any_more() -> None:
    async with rig("3.1") as to:
        await publish(to, "grpc")
        to.double.faults.set("slow", "writes", seconds=0.2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await to.raw(WRITES["3.1"], **ADDRESS, enabled="false")
        assert to.only().enabled
        await until(lambda: not to.only().enabled)


async def test_a_hanging_node_accepts_and_never_answers_and_can_still_be_stopped() -> None:
    async with rig("3.1") as to:
        to.double.faults.set("hang")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await to.raw("GET /v3/admin/core/state")
        assert to.double.log[-1].status is None
        hung = asyncio.create_task(to.raw("GET /v3/admin/core/state"))
        await until(lambda: len(to.double.log) == 2)
        await to.double.stop()
        with pytest.raises(aiohttp.ClientError):
            await hung


async def test_a_dropped_connection_may_be_a_reused_one_only() -> None:
    async with rig("3.1") as to:
        to.double.faults.set("drop", reused=True)  # POST: aiohttp itself repeats the idempotent ones
        assert (await to.raw("POST /v3/admin/core/state"))[0] == 404
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await to.raw("POST /v3/admin/core/state")
        assert (await to.raw("POST /v3/admin/core/state"))[0] == 404
        assert [(each.nth, each.fault) for each in to.double.log] == [
            (1, None),
            (2, "drop"),
            (1, None),
        ]


async def test_a_stopped_node_refuses_and_comes_back_on_its_port_with_its_instances() -> None:
    async with rig("3.1") as to:
        await publish(to, "grpc")
        address = to.double.address
        await to.double.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await to.listed()
        await to.double.start()
        assert to.double.address == address
        assert await to.listed() == [f"{IP}:{PORT}"]


async def test_nodes_share_the_truth_and_a_login_but_neither_lists_nor_faults() -> None:
    naming, clock = registry()
    async with (
        cluster(3, naming=naming, push_delays=(0.5, 1.5)) as nodes,
        aiohttp.ClientSession() as http,
    ):
        rigs = [Rig(node, clock, http) for node in nodes]
        naming.register_grpc(SHOP, IP, PORT, connection="app")
        clock.now += 2
        token = (await login(rigs[0]))[1]["accessToken"]
        assert [len(await each.listed()) for each in rigs] == [1, 1, 1]
        asked = ADDRESS | {"enabled": "false", "accessToken": token}
        assert (await rigs[2].raw(WRITES["3.1"], **asked))[0] == 200
        clock.now += 1
        assert [len(await each.listed()) for each in rigs] == [0, 1, 0]
        nodes[0].faults.set("forbid")
        assert [(await each.raw("GET /v3/admin/core/state"))[0] for each in rigs] == [403, 200, 200]


async def test_the_log_tells_what_was_asked_and_no_secret() -> None:
    async with rig("3.1", auth="admin") as to:
        before = asyncio.get_running_loop().time()
        await login(to, password="s3cr3t")
        to.double.access.users["nacos"] = "s3cr3t"
        token = (await login(to, password="s3cr3t"))[1]["accessToken"]
        await to.raw(ADMIN_LIST, **PAGE, accessToken=token)
        log = to.double.log
        assert [(each.method, each.path, each.status) for each in log] == [
            ("POST", "/nacos/v3/auth/user/login", 500),
            ("POST", "/nacos/v3/auth/user/login", 200),
            ("GET", "/nacos/v3/admin/ns/instance/list", 404),
        ]
        assert before <= log[0].at <= log[1].at <= log[2].at
        assert {each.node for each in log} == {to.double.address}
        assert log[2].params["serviceName"] == "shop"
        assert "s3cr3t" not in repr(log)
        assert token not in repr(log)


# -- what stands in for gRPC


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # what is polled is the outside's; nothing would set an event
            await asyncio.sleep(0.01)


async def test_a_provider_registers_over_the_private_path_and_leaves_by_closing() -> None:
    async with rig("3.1", auth="all") as to:
        to.double.faults.set("forbid")
        base = f"http://{to.double.address}/double/grpc"
        asked = ADDRESS | {"connection": "c1", "metadata": "a=1,b=2", "weight": "2"}
        async with to.http.post(f"{base}/instance", params=asked) as got:
            assert (got.status, await got.text()) == (200, "ok")
        assert to.only() == Instance(IP, PORT, weight=2.0, metadata={"a": "1", "b": "2"}, grpc=True)
        async with to.http.delete(f"{base}/connection", params={"id": "c1"}) as got:
            assert got.status == 200
        assert to.double.naming.merged(SHOP) == ()
        assert to.double.log == []


@pytest.mark.parametrize(
    ("dialect", "method", "what", "params"),
    [
        ("3.1", "POST", "instance", ADDRESS),
        ("3.1", "POST", "nothing", {}),
        ("1.4", "POST", "instance", ADDRESS | {"connection": "c1"}),
    ],
)
async def test_private_calls_that_make_no_sense(
    dialect: Dialect, method: str, what: str, params: dict[str, str]
) -> None:
    async with rig(dialect) as to:
        url = f"http://{to.double.address}/double/grpc/{what}"
        async with to.http.request(method, url, params=params) as got:
            assert got.status == 400


async def test_a_held_connection_takes_its_instances_along_however_it_ends() -> None:
    async with rig("3.1") as to:
        url = f"http://{to.double.address}/double/grpc/connection"
        held = await to.http.ws_connect(url, params={"id": "c1"})
        to.double.naming.register_grpc(SHOP, IP, PORT, connection="c1")
        assert held._response.connection is not None
        assert held._response.connection.transport is not None
        held._response.connection.transport.abort()  # as SIGKILL does
        await until(lambda: to.double.naming.merged(SHOP) == ())
        await held.close()


async def test_a_node_that_stops_takes_no_clients_instances_with_it() -> None:
    async with rig("3.1") as to:
        url = f"http://{to.double.address}/double/grpc/connection"
        held = await to.http.ws_connect(url, params={"id": "c1"})
        to.double.naming.register_grpc(SHOP, IP, PORT, connection="c1")
        closed = asyncio.create_task(held.receive())
        await to.double.stop()
        assert (await closed).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        assert len(to.double.naming.merged(SHOP)) == 1


# -- by hand


async def test_it_runs_by_hand_and_prints_its_url() -> None:
    args = ["-m", "sidecar.demo.double", "--listen", "127.0.0.2:0", "--dialect", "2.2"]
    process = await asyncio.create_subprocess_exec(sys.executable, *args, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        assert url.startswith("http://127.0.0.2:")
        async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/console/server/state") as got:
            assert (await got.json())["version"] == "2.2.4"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_1_x_state_does_not_become_2_x_state() -> None:
    with pytest.raises(ValueError, match=r"1\.x keeps its records"):
        Double("1.4", naming=Naming(sticky=True))
    old = Double("1.4")
    with pytest.raises(ValueError, match=r"1\.x keeps its records"):
        old.upgrade("2.2")
