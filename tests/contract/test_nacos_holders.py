"""Who holds an instance, as the registry tells it: on the double and on real servers alike."""

import asyncio
import json
import secrets
from typing import Any

import pytest
from contract.backends import Backend, Kind, on, on_each_kind
from contract.shop import APP, SHOP, Client, client, pair, requests, shop

from sidecar import registration
from sidecar.demo.double import Dialect, Instance
from sidecar.demo.double import Service as DoubleService
from sidecar.registration import Publisher


@on_each_kind(kinds=("grpc", "beat", "persistent", "batch"))
async def test_each_kind_is_told(nacos: Backend, kind: Kind) -> None:
    app = nacos.app(kind)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    assert await nacos.registry().publisher(nacos.node, app.key) is Publisher(kind)


@on("double-2", "double-3", "real")
async def test_kinds_in_one_service_are_told_apart(nacos: Backend) -> None:
    """One batch in a service makes none of the others one."""
    service = f"contract-{secrets.token_hex(4)}"
    kinds: tuple[Kind, ...] = ("grpc", "beat", "batch")
    apps = [nacos.app(kind, service=service, ip=f"127.0.0.{n}") for n, kind in enumerate(kinds, 11)]
    for app in apps:
        await app.join()
        await nacos.observer.until(app.instance, listed=True)
    registry = nacos.registry()
    assert [await registry.publisher(nacos.node, app.key) for app in apps] == [Publisher(kind) for kind in kinds]


async def test_of_what_is_not_there_nothing_is_told(nacos: Backend) -> None:
    """Not even beside a batch, of which 2.2.4 shows no address."""
    app = nacos.app("beat" if nacos.old else "batch")
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    absent = nacos.app("beat", service=app.instance.service, port=1).key
    nowhere = nacos.app("beat").key
    registry = nacos.registry()
    for each in (absent, nowhere):
        assert await registry.publisher(nacos.node, each) is Publisher.UNKNOWN


async def test_a_disabled_one_is_held_all_the_same(nacos: Backend) -> None:
    app = nacos.app()
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    registry = nacos.registry()
    await registry.disable(nacos.node, app.key, weight=1.0, mark="m")
    await nacos.observer.until(app.instance, listed=False)
    assert await registry.publisher(nacos.node, app.key) is Publisher(app.kind)


async def test_a_beat_interval_is_read_in_seconds(nacos: Backend) -> None:
    """Clients tell it in their metadata; the lists show it with everybody's default filled in."""
    app = nacos.app("beat", metadata={"preserved.heart.beat.interval": "1500"})
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    (record,) = await nacos.registry().read(nacos.node, app.key.service, [app.instance.ip], fresh=False)
    assert record.beat == 1.5


# -- on the double, which can be made to answer anything


async def publisher(nacos: Client) -> Publisher:
    return await nacos.nacos.publisher(nacos.node, APP)


@pytest.mark.parametrize("dialect", ["2.2", "3.1"])
async def test_who_may_not_ask_is_told_nothing_and_nothing_breaks(dialect: Dialect) -> None:
    async with pair(dialect, auth="all") as (double, nacos):
        assert await publisher(nacos) is Publisher.UNKNOWN  # "app" is no name of a connection
        double.faults.set("forbid", "publisher/list")
        assert await publisher(nacos) is Publisher.UNKNOWN
        assert nacos.result == "rejected"


@pytest.mark.parametrize("fault", ["drop", "garbage", "page", "empty", "unavailable"])
async def test_what_cannot_be_read_is_unknown(fault: Any) -> None:
    async with pair() as (double, nacos):
        double.faults.set(fault, "publisher/list")
        assert await publisher(nacos) is Publisher.UNKNOWN
        await double.stop()
        assert await publisher(nacos) is Publisher.UNKNOWN


async def test_a_generation_without_the_call_is_not_mistaken_for_another() -> None:
    """2.0 and 2.1 have no such list; asking them anew which they are, at each drain, would lead nowhere."""
    async with pair("2.2") as (double, nacos):
        double.faults.set("status", "publisher/list", status=404, body="{}")
        assert await publisher(nacos) is Publisher.UNKNOWN
        before = requests(double, "server/state")
        assert len(await nacos.read()) == 1
        assert requests(double, "server/state") == before


def rows(*clients: str, ip: str = "10.9.0.1", port: int = 8080, cluster: str = "DEFAULT") -> str:
    """A publisher list of the same instance by several clients."""
    data = [{"clientId": client, "ip": ip, "port": port, "clusterName": cluster} for client in clients]
    return json.dumps({"code": 0, "message": "success", "data": data})


GRPC, AGAIN = "1795421846173_127.0.0.1_45304", "1795421846999_127.0.0.1_45306"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (rows(GRPC), Publisher.GRPC),
        (rows("1795421846173_0:0:0:0:0:0:0:1_45304"), Publisher.GRPC),
        (rows("10.9.0.1:8080#true"), Publisher.BEAT),
        (rows("10.9.0.1:8080#false"), Publisher.PERSISTENT),
        (rows(GRPC, AGAIN), Publisher.GRPC),  # a connection that is not yet gone, and the next
        (rows(GRPC, GRPC), Publisher.BATCH),
        (rows(GRPC, "10.9.0.1:8080#true"), Publisher.UNKNOWN),  # a migration: it beats, and it does not
        (rows(GRPC, ip="10.9.0.2"), Publisher.UNKNOWN),
        (rows(GRPC, port=8081), Publisher.UNKNOWN),
        (rows(GRPC, cluster="EAST"), Publisher.UNKNOWN),
        (rows("somebody"), Publisher.UNKNOWN),
        (rows(), Publisher.UNKNOWN),
        ('{"code":30000,"message":"server error","data":null}', Publisher.UNKNOWN),
        ('{"code":0,"message":"success","data":[{"ip":"10.9.0.1"}]}', Publisher.UNKNOWN),
        ('{"code":0,"message":"success","data":null}', Publisher.UNKNOWN),
    ],
)
async def test_the_name_of_a_client_tells_its_kind(body: str, told: Publisher) -> None:
    async with pair() as (double, nacos):
        double.faults.set("status", "publisher/list", status=200, body=body)
        assert await publisher(nacos) is told


async def test_a_batch_that_a_later_2x_looks_into_is_told_by_what_its_client_published() -> None:
    """Read from code: from some 2.x on the list shows the instances of a batch, one by one."""
    async with pair("2.2") as (double, nacos):
        double.faults.set("status", "publisher/list", status=200, body=rows(GRPC))
        names = {"namespace": "public", "group": "DEFAULT_GROUP", "serviceName": "shop"}
        other = names | {"serviceName": "another"}
        fault = double.faults.set("status", "publish/list", status=200)
        for published, told in (
            ([names, other], Publisher.GRPC),
            ([names, names, other], Publisher.BATCH),
            ([{}], Publisher.UNKNOWN),
        ):
            fault.body = json.dumps({"code": 0, "data": published})
            assert await publisher(nacos) is told


@pytest.mark.parametrize("sent", [None, "soon", "5000", True, 0, -1, 1e12, [], float("nan")])
async def test_an_absurd_beat_interval_is_the_default(sent: object) -> None:
    async with pair() as (double, nacos):
        row = {"ip": APP.ip, "port": APP.port, "enabled": True, "instanceHeartBeatInterval": sent}
        body = json.dumps({"code": 0, "data": [row]}, separators=(",", ":"))
        double.faults.set("status", "instance/list", status=200, body=body)
        (record,) = await nacos.read()
        assert record.beat == 5.0


async def test_three_hundred_in_one_batch_ask_once() -> None:
    async with shop("3.1") as double, client(double.url) as nacos:
        ports = range(9000, 9300)
        batch = (Instance(APP.ip, port, grpc=True) for port in ports)
        double.naming.register(DoubleService("shop"), GRPC, *batch, batch=True)
        asked = (nacos.nacos.publisher(nacos.node, registration.Instance(SHOP, APP.ip, port)) for port in ports)
        assert set(await asyncio.gather(*asked)) == {Publisher.BATCH}
        assert requests(double, "publisher/list") == 1
