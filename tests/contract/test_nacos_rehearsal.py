"""What a rehearsal asks before the day: versions, the login, the right to write, thresholds. Nothing of it writes."""

import secrets
from typing import Any

import pytest
from contract.backends import Backend, on
from contract.shop import APP, MODERN, PASSWORD, SHOP, USER, client, pair, requests, shop

from sidecar.demo.double import Access, Dialect, Double
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Instance, Record, Service


VERSIONS = {
    "double-1.4": "1.4.8",
    "double-2.2": "2.2.4",
    "double-3.1": "3.1.0",
    "real-2.2.4": "2.2.4",  # it has no console to tell; its members do
    "real-3.1.0": "3.1.0-bugfix",
}


async def test_a_server_tells_its_version(nacos: Backend) -> None:
    assert await nacos.registry().server(nacos.node) == VERSIONS[nacos.name]


async def test_we_may_write_and_have_not(nacos: Backend) -> None:
    app = nacos.app(weight=3.0, metadata={"v": "1"})
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    registry = nacos.registry()
    await registry.permitted(nacos.node, app.key)
    assert await registry.look(nacos.node, app.key.service, [app.instance.ip]) == (Record(app.key, weight=3.0),)
    record = await nacos.observer.record(app.instance)
    assert record is not None
    assert record.metadata == {"v": "1"}


async def test_we_may_write_where_nothing_is_yet(nacos: Backend) -> None:
    """The app is still starting; and after the question nothing is there either."""
    app = nacos.app("beat", port=1)
    registry = nacos.registry()
    await registry.permitted(nacos.node, app.key)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    assert await registry.look(nacos.node, app.key.service, [app.instance.ip]) == (Record(app.key),)


@pytest.mark.timeout(90)  # a real server reads users and their rights again every 15 s
@on("3.1")
async def test_a_user_who_only_reads_is_told_so_before_the_day(nacos: Backend) -> None:
    app = nacos.app()
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    reader = await nacos.reader()
    registry = nacos.registry(credentials=lambda: reader)
    await registry.login(nacos.node)
    assert await registry.look(nacos.node, app.key.service, [app.instance.ip]) == (Record(app.key),)
    with pytest.raises(Rejected, match="answers 403 after a login"):
        await registry.permitted(nacos.node, app.key)


async def test_a_threshold_is_what_the_operator_set(nacos: Backend) -> None:
    app = nacos.app()
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    registry = nacos.registry()
    assert await registry.threshold(nacos.node, app.key.service) == 0.0
    await nacos.protect(app.instance, 0.5)
    assert await registry.threshold(nacos.node, app.key.service) == 0.5
    with pytest.raises(NotThere):
        await registry.threshold(nacos.node, Service(f"absent-{secrets.token_hex(4)}"))


@on("3.1")
async def test_a_login_is_told_as_it_went(nacos: Backend) -> None:
    await nacos.registry().login(nacos.node)
    await nacos.registry(credentials=None).login(nacos.node)
    wrong = nacos.registry(credentials=lambda: ("nacos", "wrong-" + secrets.token_hex(4)))
    with pytest.raises(Rejected, match=r"refuses the login .*: check NACOS_DRAIN_NACOS_USERNAME"):
        await wrong.login(nacos.node)


# -- on the double


async def test_members_that_disagree_on_their_version_tell_the_generation_only() -> None:
    async with shop("2.2", console=False) as double, client(double.url) as nacos:
        assert await nacos.nacos.server(nacos.node) == "2.2.4"
        for body in (
            '{"code":0,"data":[{"extendInfo":{"version":"2.2.4"}},{"extendInfo":{"version":"2.5.1"}}]}',
            '{"code":0,"data":[{"extendInfo":{}}]}',
            '{"code":0,"data":[{}]}',
            '{"code":0,"data":null}',
        ):
            double.faults.clear()
            double.faults.set("status", "/v2/core", status=200, body=body)
            assert await nacos.nacos.server(nacos.node) == "2.x"


async def test_a_version_is_asked_for_anew() -> None:
    async with pair("2.2") as (double, nacos):
        assert await nacos.nacos.server(nacos.node) == "2.2.4"
        double.upgrade("3.1")
        assert await nacos.nacos.server(nacos.node) == "3.1.0"
        await nacos.disable()  # and it is spoken to as such
        await double.stop()
        with pytest.raises(Unavailable, match="cannot connect"):
            await nacos.nacos.server(nacos.node)


@pytest.mark.parametrize("dialect", ["1.4", *MODERN])
async def test_who_may_not_write_is_told_before_the_day(dialect: Dialect) -> None:
    access = Access({USER: PASSWORD})
    access.readers.add(USER)
    async with Double(dialect, access=access, auth="all") as double, client(double.url) as nacos:
        await nacos.nacos.login(nacos.node)
        with pytest.raises(Rejected, match=r"403 after a login: .*authorization failed"):
            await nacos.nacos.permitted(nacos.node, APP)
        access.readers.clear()
        await nacos.nacos.permitted(nacos.node, APP)


NO_VERDICTS: list[dict[str, Any]] = [
    {"kind": "unavailable"},
    {"kind": "empty"},  # a 200 of 3.x whose filter failed is no permission
    {"kind": "page"},
    {"kind": "garbage"},
    {"kind": "drop"},
    {"kind": "status", "status": 404, "body": "default backend - 404"},
]


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("fault", NO_VERDICTS, ids=lambda fault: fault["kind"])
async def test_what_is_no_verdict_is_no_permission(dialect: Dialect, fault: dict[str, Any]) -> None:
    async with pair(dialect) as (double, nacos):
        double.faults.set(**fault)
        with pytest.raises(Unavailable):
            await nacos.nacos.permitted(nacos.node, APP)


@pytest.mark.parametrize("dialect", ["1.4", *MODERN])
async def test_the_question_is_about_a_port_that_nobody_has(dialect: Dialect) -> None:
    async with Double(dialect) as double, client(double.url, user=None) as nacos:
        double.access.users.clear()
        await nacos.nacos.refresh()
        del double.log[:]
        if dialect == "3.1":
            with pytest.raises(Rejected):
                await nacos.nacos.permitted(nacos.node, Instance(SHOP, APP.ip, APP.port))
        else:
            await nacos.nacos.permitted(nacos.node, Instance(SHOP, APP.ip, APP.port))
        (asked,) = double.log
        assert (asked.params["ip"], asked.params["port"]) == (APP.ip, "1")
        assert "enabled" not in asked.params
        assert "weight" not in asked.params


@pytest.mark.parametrize(
    "body", ['{"name":"shop"}', '{"protectThreshold":null}', "[]", "ok", '{"protectThreshold":"x"}']
)
async def test_a_service_without_a_threshold_is_no_service(body: str) -> None:
    async with pair("2.2") as (double, nacos):
        double.faults.set("status", "/ns/service", status=200, body=body)
        with pytest.raises(Unavailable):
            await nacos.nacos.threshold(nacos.node, SHOP)


async def test_a_server_without_a_login_is_told_as_such() -> None:
    """The published 2.2.4, and credentials that are set everywhere."""
    async with shop("2.2", console=False) as double, client(double.url) as nacos:
        with pytest.raises(Rejected, match="has no login below /nacos: none is needed there"):
            await nacos.nacos.login(nacos.node)


async def test_a_login_that_is_good_is_not_repeated() -> None:
    async with pair() as (double, nacos):
        for _ in range(3):
            await nacos.nacos.login(nacos.node)
        assert requests(double, "/auth/") == 1
