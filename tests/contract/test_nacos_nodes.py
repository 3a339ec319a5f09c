"""What the registry does while nothing happens: know its nodes, be logged in."""

import asyncio
from contextlib import AsyncExitStack
from http import HTTPStatus

from contract.shop import APP, PASSWORD, USER, client, pair, requests, shop

from sidecar.adapters.nacos import name_of
from sidecar.adapters.nacos.answers import Member
from sidecar.adapters.nacos.nodes import Nodes
from sidecar.demo.double import Access, cluster
from sidecar.registration import Record


# -- housekeeping


async def test_refresh_logs_in_ahead_and_again_at_four_fifths_of_a_tokens_life() -> None:
    access = Access({USER: PASSWORD}, ttl=1.0)
    async with shop(access=access, auth="all") as double, client(double.url) as nacos:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await nacos.nacos.refresh()
        assert access.logins == 1
        while access.logins == 1:
            await nacos.nacos.refresh()
            await nacos.read()
            await asyncio.sleep(0.02)
        assert loop.time() - start >= 0.8
        assert await nacos.read() == (Record(APP),)
        assert all(entry.status == HTTPStatus.OK for entry in double.log)


async def test_refresh_knows_by_the_trigger_all_that_the_first_request_needs() -> None:
    async with shop(auth="all") as double, client(double.url) as nacos:
        await nacos.nacos.refresh()
        del double.log[:]
        await nacos.disable()
        assert len(double.log) == 1


async def test_refresh_is_not_stopped_by_a_node_that_is_not_well() -> None:
    access = Access({USER: PASSWORD})
    async with cluster(2, access=access, auth="all") as doubles:
        await doubles[0].stop()
        async with client(*(double.url for double in doubles)) as nacos:
            await nacos.nacos.refresh()
            assert access.logins == 1
            assert {op for node, op, result in nacos.counted if result == "ok"} == {"members"}


async def test_members_are_asked_for_once_in_five_minutes_also_by_who_may_not() -> None:
    async with pair() as (double, nacos):
        double.access.readers.add(USER)
        for _ in range(3):
            await nacos.nacos.refresh()
        # One 403, one login, one repeat.
        assert requests(double, "/core/cluster/node/list") == 2


async def test_members_that_answer_become_required_and_those_that_left_are_forgotten() -> None:
    async with AsyncExitStack() as stack:
        doubles = await stack.enter_async_context(cluster(2, access=Access({USER: PASSWORD})))
        first, second = (name_of(double.url) for double in doubles)
        naming = doubles[0].naming
        naming.members["127.0.0.1:1"] = "DOWN"
        nacos = await stack.enter_async_context(client(doubles[0].url))
        assert (nacos.nacos.nodes(), nacos.nacos.one_address) == (((first, True),), True)
        await nacos.nacos.refresh()
        assert dict(nacos.nacos.nodes()) == {first: True, second: True, "127.0.0.1:1": False}
        assert (nacos.nacos.one_address,) == (False,)
        assert await nacos.nacos.down() == {"127.0.0.1:1"}

        del naming.members["127.0.0.1:1"]
        nacos.nacos._members_at = float("-inf")  # five minutes later
        await nacos.nacos.refresh()
        assert dict(nacos.nacos.nodes()) == {first: True, second: True}


async def test_one_address_before_several_nodes_that_cannot_be_reached_stays_one() -> None:
    """A balancer in front of addresses of another network."""
    async with shop() as double, client(double.url) as nacos:
        double.naming.members |= {"127.0.0.1:1": "UP", "127.0.0.1:2": "UP"}
        await nacos.nacos.refresh()
        assert nacos.nacos.one_address
        assert dict(nacos.nacos.nodes()) == {nacos.node: True, "127.0.0.1:1": False, "127.0.0.1:2": False}


def test_a_member_that_is_a_configured_node_by_another_name_is_not_asked_twice() -> None:
    """What a StatefulSet behind a headless Service looks like from a pod."""
    nodes = Nodes(["http://nacos-0.nacos:8848/nacos", "http://nacos-1.nacos:8848/nacos"])
    members = ["nacos-0.nacos.default.svc.cluster.local:8848", "10.0.0.8:8848", "10.0.0.9:8848"]
    nodes.discovered([Member(name, down=False) for name in members], {"nacos-1.nacos:8848": "10.0.0.8:8848"})
    assert [name for name, _ in nodes.required] == ["nacos-0.nacos:8848", "nacos-1.nacos:8848", "10.0.0.9:8848"]
    assert [nodes.known_as(name) for name in members] == ["nacos-0.nacos:8848", "nacos-1.nacos:8848", "10.0.0.9:8848"]


async def test_a_resolved_name_and_its_address_are_one_node() -> None:
    async with AsyncExitStack() as stack:
        doubles = await stack.enter_async_context(cluster(2, access=Access({USER: PASSWORD})))
        url = doubles[0].url.replace("127.0.0.1", "localhost")
        nacos = await stack.enter_async_context(client(url))
        await nacos.nacos.refresh()
        assert [name for name, _ in nacos.nacos.nodes()] == [name_of(url), name_of(doubles[1].url)]
