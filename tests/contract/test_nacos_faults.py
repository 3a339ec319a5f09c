"""The registry when Nacos, or what stands where Nacos should, is not well. On the double, which can be broken at will.

What is not exactly an answer is no answer, and never an absence.
"""

import asyncio
import json
from typing import Any

import pytest
from contract.shop import (
    ALL,
    APP,
    IP,
    LISTS,
    MODERN,
    PASSWORD,
    PORT,
    SHOP,
    USER,
    WRITES,
    Called,
    Client,
    client,
    pair,
    shop,
)

from sidecar.adapters.nacos import name_of
from sidecar.demo.double import Access, Dialect, Double, cluster
from sidecar.demo.double import Service as DoubleService
from sidecar.demo.double.faults import Kind
from sidecar.http import MOST_AT_ONCE, MOST_BYTES
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Record


# -- no answer, late, half


async def test_a_node_that_hangs_keeps_nobody_from_the_others() -> None:
    """Not even its login, which the others need as well."""
    access = Access({USER: PASSWORD})
    async with cluster(2, access=access, auth="all") as doubles:
        doubles[0].naming.register_grpc("shop", IP, PORT, connection="app")
        async with client(*(double.url for double in doubles)) as nacos:
            for on in ("logins", ""):
                doubles[0].faults.set("hang", on)
                del doubles[0].log[:]
                hanging = asyncio.create_task(nacos.read())
                while not any(entry.fault for entry in doubles[0].log):  # noqa: ASYNC110  a list has no events
                    await asyncio.sleep(0.01)
                start = asyncio.get_running_loop().time()
                assert await nacos.read(name_of(doubles[1].url)) == (Record(APP),)
                assert asyncio.get_running_loop().time() - start < 1.0
                hanging.cancel()
                await asyncio.wait([hanging])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await nacos.read()
            assert nacos.counted[-1] == (nacos.node, "read", "unanswered")


async def test_a_login_that_hangs_is_given_up_where_none_is_needed() -> None:
    """Reading is open on 3.x; a call has 2 s in all."""
    async with shop() as double, client(double.url) as nacos:
        double.faults.set("hang", "logins")
        async with asyncio.timeout(2.0):
            assert await nacos.read() == (Record(APP),)
        with pytest.raises(Unavailable, match=r"has not answered the login within 1\.5 s"):
            await nacos.look()
        double.faults.clear()


async def test_a_slow_answer_is_an_answer() -> None:
    async with pair() as (double, nacos):
        double.faults.set("slow", seconds=0.3)
        assert await nacos.read() == (Record(APP),)


async def test_a_node_that_refuses_is_told_from_one_that_does_not_answer() -> None:
    """Only one that refuses may be taken for down."""
    async with pair() as (double, nacos):
        double.faults.set("drop")
        with pytest.raises(Unavailable, match="the connection broke") as broken:
            await nacos.read()
        assert not broken.value.refused
        await double.stop()
        with pytest.raises(Unavailable, match="cannot connect") as refused:
            await nacos.read()
        assert refused.value.refused
        assert nacos.node in str(refused.value)


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("call", ALL)
async def test_a_kept_connection_that_is_dead_costs_one_repeat_at_once(dialect: Dialect, call: Called) -> None:
    async with pair(dialect) as (double, nacos):
        await nacos.look()  # logged in
        double.naming.register_grpc("shop", IP, PORT, connection="app")
        del double.log[:]
        double.faults.set("drop", reused=True)
        await call(nacos)
        assert [entry.fault for entry in double.log] == ["drop", None]


async def test_a_connection_that_is_always_dropped_is_not_tried_for_ever() -> None:
    async with pair() as (double, nacos):
        del double.log[:]
        double.faults.set("drop")
        with pytest.raises(Unavailable):
            await nacos.disable()
        assert len(double.log) <= 3


# -- answers that are none

FOREIGN = ["garbage", "empty", "page"]


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("fault", FOREIGN)
@pytest.mark.parametrize("call", ALL)
async def test_a_200_that_is_not_nacos_is_no_verdict(dialect: Dialect, fault: Kind, call: Called) -> None:
    """Half a list holds our address as little as an empty one does."""
    async with pair(dialect) as (double, nacos):
        double.faults.set(fault)
        with pytest.raises(Unavailable):
            await call(nacos)
        assert nacos.result == "unavailable"
        double.faults.clear()
        assert await nacos.read() == (Record(APP),)


ROW = {"ip": IP, "port": PORT, "weight": 1.0, "healthy": True, "enabled": True, "ephemeral": True}
NO_LISTS: list[Any] = [
    [],
    None,
    "ok",
    {},
    {"hosts": None, "list": None, "data": None, "code": 0},
    {"hosts": {}, "list": {}, "data": {}, "code": 0},
    {"hosts": "ok", "list": "ok", "data": "ok", "code": 0},
    {"code": 30000, "message": "config not in readiness", "data": None},
    {"code": 30000, "message": "server error", "data": []},
    {"data": []},
    *(
        {"hosts": [row], "list": [row], "data": [row], "code": 0}
        for row in (
            "row",
            None,
            {},
            {"port": PORT, "enabled": True},
            ROW | {"ip": None},
            {name: value for name, value in ROW.items() if name != "enabled"},
            ROW | {"enabled": "true"},
            ROW | {"healthy": None},
            ROW | {"port": "http"},
            ROW | {"weight": None},
            ROW | {"metadata": ["nacos-drain"]},
        )
    ),
]


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("call", LISTS)
@pytest.mark.parametrize("body", NO_LISTS, ids=lambda body: json.dumps(body)[:60])
async def test_json_that_is_no_list_of_instances_is_not_an_empty_one(dialect: Dialect, call: Called, body: Any) -> None:
    async with pair(dialect) as (double, nacos):
        double.faults.set("status", "ns/", status=200, body=json.dumps(body, separators=(",", ":")))
        with pytest.raises(Unavailable):
            await call(nacos)


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("call", LISTS)
async def test_a_list_is_searched_before_it_is_parsed(dialect: Dialect, call: Called) -> None:
    """Told by a list that is none: without our address nobody looks closer, with it somebody does."""
    async with pair(dialect) as (double, nacos):
        rows = '[{"ip":"10.9.0.2",}]'
        whole = f'{{"code":0,"hosts":{rows},"list":{rows},"data":{rows}}}'
        fault = double.faults.set("status", "ns/", status=200, body=whole)
        assert await call(nacos) == ()
        for cut in (whole[:-1], whole[:-2], whole[: whole.index(rows) + 1]):
            fault.body = cut
            with pytest.raises(Unavailable):
                await call(nacos)
        fault.body = whole.replace("10.9.0.2", IP)
        with pytest.raises(Unavailable):
            await call(nacos)


async def test_an_answer_has_a_limit() -> None:
    async with pair() as (double, nacos):
        double.faults.set("status", status=200, body="x" * (MOST_BYTES + 1))
        with pytest.raises(Unavailable, match="more than 16 MiB"):
            await nacos.read()


async def test_a_node_has_no_more_than_sixteen_requests_at_once() -> None:
    async with pair() as (double, nacos):
        del double.log[:]
        double.faults.set("slow", seconds=0.2)
        fresh = [nacos.nacos.read(nacos.node, SHOP, [IP], fresh=True) for _ in range(40)]  # those are never shared
        reads = [asyncio.ensure_future(read) for read in (*fresh, nacos.read())]
        most = 0
        while not all(read.done() for read in reads):
            most = max(most, sum(entry.status is None for entry in double.log))
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*reads) == [(Record(APP),)] * 41
        assert most == MOST_AT_ONCE


# -- absent, in whose words

ELSEWHERE = [
    "404 page not found",
    "default backend - 404",
    "no service endpoints",
    "no service",
    "<html><body>service shop is not found!</body></html>",
    '{"message":"no Route matched with those values"}',
    '{"error":"service shop is not found!"}',
    '{"status":404,"error":"Not Found","message":"No endpoint GET /nacos/v3/admin/ns/instance/list."}',
    "",
]


@pytest.mark.parametrize("body", ELSEWHERE)
@pytest.mark.parametrize("status", [404, 405, 410, 501])
async def test_a_404_of_somebody_else_is_no_absence(status: int, body: str) -> None:
    """A context path that went away, an Ingress, a gateway."""
    async with pair() as (double, nacos):
        double.faults.set("status", "ns/", status=status, body=body)
        for call in ALL:
            with pytest.raises(Unavailable, match="Detecting again"):
                await call(nacos)


@pytest.mark.parametrize("dialect", MODERN)
async def test_a_wrong_context_path_is_told_as_one(dialect: Dialect) -> None:
    async with shop(dialect) as double, client(double.url.replace("/nacos", "/registry")) as nacos:
        for call in ALL:
            with pytest.raises(Unavailable, match=r"below /registry: check NACOS_DRAIN_NACOS_SERVER_ADDR"):
                await call(nacos)
        assert nacos.nacos.nodes() == ((nacos.node, True),)


async def test_a_server_upgraded_under_us_is_understood_at_the_next_try() -> None:
    """Consumers' reads go on as before, so it is a write that meets the 410."""
    async with pair("2.2") as (double, nacos):
        double.upgrade("3.1")
        assert await nacos.read() == (Record(APP),)
        with pytest.raises(Unavailable, match=r"410, which is not the 2.x API: was it upgraded"):
            await nacos.disable()
        await nacos.disable()
        record = double.naming.record("shop", IP, PORT)
        assert record is not None
        assert not record.enabled


# -- a cluster that is busy with itself


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("fault", ["no_leader", "unavailable", "redirect"])
@pytest.mark.parametrize("call", WRITES)
async def test_a_leader_election_is_worth_another_try(dialect: Dialect, fault: Kind, call: Called) -> None:
    """Its 400 is no verdict either."""
    async with pair(dialect) as (double, nacos):
        double.faults.set(fault, "writes", times=1)
        with pytest.raises(Unavailable, match=r"answers (400|500|503): "):
            await call(nacos)
        await call(nacos)


async def test_another_400_is_a_verdict() -> None:
    async with pair("2.2") as (double, nacos):
        double.faults.set("status", "writes", status=400, body="Param 'serviceName' is required.")
        with pytest.raises(Rejected, match="answers 400: Param 'serviceName' is required"):
            await nacos.disable()
        assert nacos.result == "rejected"


# -- 1.x, which no real server here speaks


async def test_a_1x_server_gets_no_mark_and_needs_no_sweep() -> None:
    """A metadata write would wipe the app's own there, and a record goes with its instance."""
    async with Double("1.4", push_delay=0.05) as double, client(double.url, user=None) as nacos:
        await until_read(nacos, ())
        for call in (Client.disable, Client.enable, Client.sweep):
            with pytest.raises(NotThere):
                await call(nacos)
        query = {"serviceName": "shop", "ip": IP, "port": str(PORT), "metadata": '{"v":"1"}'}
        assert (await nacos.http.request("POST", f"{double.url}/v1/ns/instance", params=query)).text == "ok"
        await until_read(nacos, (Record(APP),))
        await nacos.disable()
        await until_read(nacos, ())
        assert await nacos.look() == (Record(APP, enabled=False),)
        (found,) = double.naming.merged(DoubleService("shop"))
        assert found.metadata == {"v": "1"}
        await nacos.enable()
        await until_read(nacos, (Record(APP),))


async def until_read(nacos: Client, wanted: tuple[Record, ...]) -> None:
    """Poll the consumers' view, which is late by the push delay."""
    async with asyncio.timeout(10):
        while await nacos.read() != wanted:  # noqa: ASYNC110  it happens in the double
            await asyncio.sleep(0.01)
