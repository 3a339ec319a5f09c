"""Without a configured server: nothing can be asked, everything says so, until the app has told which ones it uses."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from contract.shop import ALL, APP, IP, PASSWORD, SHOP, USER, Called, Client, pair, requests, shop

from sidecar.adapters.nacos import Nacos, name_of
from sidecar.demo.double import Access, cluster
from sidecar.http import Http
from sidecar.ports import Unavailable
from sidecar.registration import Publisher, Record


NOBODY = r"no Nacos server is known yet: set NACOS_DRAIN_NACOS_SERVER_ADDR, or let the app's actuator tell it"
REST: tuple[Called, ...] = (
    lambda nacos: nacos.nacos.down(),
    lambda nacos: nacos.nacos.server(nacos.node),
    lambda nacos: nacos.nacos.login(nacos.node),
    lambda nacos: nacos.nacos.permitted(nacos.node, APP),
    lambda nacos: nacos.nacos.threshold(nacos.node, SHOP),
)


def unaimed() -> Client:
    """A client that knows no server; calls name one all the same."""
    made = Client("http://127.0.0.1:1/nacos")
    made.nacos = Nacos(made.http, [], credentials=lambda: (USER, PASSWORD))
    return made


async def test_without_a_server_everything_says_so() -> None:
    nacos = unaimed()
    assert (nacos.nacos.nodes(), nacos.nacos.one_address) == ((), False)
    await nacos.nacos.refresh()
    for call in (*ALL, *REST):
        with pytest.raises(Unavailable, match=NOBODY):
            await call(nacos)
    assert await nacos.nacos.publisher(nacos.node, APP) is Publisher.UNKNOWN
    nacos.nacos.aim([])
    assert nacos.nacos.nodes() == ()
    await nacos.nacos.close()


async def test_once_the_app_has_told_its_servers_they_are_used() -> None:
    nacos = unaimed()
    async with shop() as double:
        await nacos.nacos.refresh()
        nacos.nacos.aim([double.url])
        nacos.node = name_of(double.url)
        assert (nacos.nacos.nodes(), nacos.nacos.one_address) == (((nacos.node, True),), True)
        await nacos.nacos.refresh()
        assert nacos.nacos.one_address is False  # its members are asked for at once, not in five minutes
        assert await nacos.read() == (Record(APP),)
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 is none of the Nacos servers in use"):
            await nacos.nacos.read("127.0.0.1:1", SHOP, [IP], fresh=False)
        await nacos.nacos.close()


async def test_what_is_configured_stays() -> None:
    async with pair() as (double, nacos):
        nacos.nacos.aim(["http://127.0.0.1:1/nacos"])
        assert nacos.nacos.nodes() == ((nacos.node, True),)
        assert await nacos.read() == (Record(APP),)
        assert requests(double, "core/state") == 1


async def test_the_same_servers_again_are_no_news() -> None:
    """Identity is asked for every now and then; nothing that was learned is to be learned again."""
    nacos = unaimed()
    async with cluster(2, access=Access({USER: PASSWORD})) as doubles:
        for _ in range(3):
            nacos.nacos.aim(reversed([double.url for double in doubles]))
            nacos.nacos.aim(double.url for double in doubles)
            nacos.nacos.aim([])
            await nacos.nacos.refresh()
        assert len(nacos.nacos.nodes()) == 2
        assert [requests(double, "core/state") for double in doubles] == [1, 1]
        assert sum(requests(double, "node/list") for double in doubles) == 1
        await nacos.nacos.close()


@pytest.mark.parametrize("call", [*ALL, *REST[1:], lambda nacos: nacos.nacos.refresh()])
async def test_a_call_under_way_ends_well_when_the_servers_change(call: Callable[[Client], Awaitable[object]]) -> None:
    """The app was restarted with another address, while we were asking."""
    nacos = unaimed()
    async with shop() as old, shop() as new:
        nacos.nacos.aim([old.url])
        nacos.node = name_of(old.url)
        fault = old.faults.set("slow", seconds=0.05)
        asked = asyncio.ensure_future(call(nacos))
        while not old.log:  # noqa: ASYNC110  a list has no events
            await asyncio.sleep(0.01)
        nacos.nacos.aim([new.url])
        await asked
        assert fault.times is None
        assert [name for name, _ in nacos.nacos.nodes()] == [name_of(new.url)]
        nacos.node = name_of(new.url)
        assert await nacos.read() == (Record(APP),)
        await nacos.nacos.close()


async def test_members_of_the_old_servers_are_not_taken_for_the_new_ones() -> None:
    nacos, access = unaimed(), Access({USER: PASSWORD})
    async with shop(access=access) as old, shop(access=access) as new:
        old.naming.members["127.0.0.1:1"] = "UP"
        nacos.nacos.aim([old.url])
        old.faults.set("slow", "node/list", seconds=0.2)
        asked = asyncio.ensure_future(nacos.nacos.refresh())
        while not requests(old, "node/list"):  # noqa: ASYNC110  a list has no events
            await asyncio.sleep(0.01)
        nacos.nacos.aim([new.url])
        await asked
        assert [name for name, _ in nacos.nacos.nodes()] == [name_of(new.url)]
        await nacos.nacos.refresh()
        assert requests(new, "node/list") == 1
        await nacos.nacos.close()


async def test_closing_needs_no_server() -> None:
    await Nacos(Http(), []).close()
