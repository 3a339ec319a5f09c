"""The contract of `Registry` with a Nacos, on the double and on real servers alike.

Whatever a write did is seen by an observer that is none of the product.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from contract.backends import (
    BACKENDS,
    MODERN,
    App,
    Backend,
    Kind,
    double_backend,
    key,
    on,
    on_each_kind,
    real_backend,
)
from rig.clients import Subscriber
from rig.fixtures import serve
from rig.records import Host, Instance
from rig.servers import NacosServer

from sidecar.ports import NotThere, Rejected
from sidecar.registration import Record


MARK = "2026-01-31T12:00:00Z/pod-7"
ITS_OWN = {"v": "1", "k": "x"}  # the app's metadata
WITHIN = 10.0  # upper bounds are generous: half a second on a quiet machine
SOON = 0.6  # of the push delay: a machine slower than that shows nothing


class Client:
    """The registry under test, on one node and with one key."""

    def __init__(self, nacos: Backend) -> None:
        self.nacos = nacos.registry()
        self.node = nacos.node

    async def read(self, app: App | Instance) -> Record | None:
        """Read as consumers do."""
        of = key(app if isinstance(app, Instance) else app.instance)
        return only_one(await self.nacos.read(self.node, of.service, [of.ip], fresh=False), of.port)

    async def look(self, app: App | Instance) -> Record | None:
        """Read unfiltered."""
        of = key(app if isinstance(app, Instance) else app.instance)
        return only_one(await self.nacos.look(self.node, of.service, [of.ip]), of.port)

    async def disable(self, app: App, mark: str = MARK) -> None:
        """Take it out, with the weight it has."""
        await self.nacos.disable(self.node, app.key, weight=app.instance.weight, mark=mark)

    async def enable(self, app: App) -> None:
        """Put it back."""
        await self.nacos.enable(self.node, app.key, weight=app.instance.weight)


def only_one(records: tuple[Record, ...], port: int) -> Record | None:
    found = [record for record in records if record.instance.port == port]
    assert len(found) < 2
    return found[0] if found else None


async def until(true: Callable[[], Awaitable[object]], within: float = WITHIN) -> None:
    """Poll until it is true."""
    async with asyncio.timeout(within):
        while not await true():  # noqa: ASYNC110  it happens in another process
            await asyncio.sleep(0.05)


async def gone(nacos: Backend, app: App) -> None:
    """Wait until even the unfiltered list has forgotten it."""

    async def absent() -> bool:
        return await nacos.observer.record(app.instance) is None

    await until(absent)


async def there(nacos: Backend, app: App) -> Host:
    """Wait until it is registered, listed or not."""

    async def present() -> bool:
        return await nacos.observer.record(app.instance) is not None

    await until(present)
    record = await nacos.observer.record(app.instance)
    assert record is not None
    return record


@pytest.fixture
async def client(nacos: Backend) -> Client:
    return Client(nacos)


# -- one instance, out and back


@on_each_kind()
async def test_an_instance_is_read_as_it_registered(nacos: Backend, client: Client, kind: Kind) -> None:
    app = nacos.app(kind, weight=3.0, metadata=ITS_OWN)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    expected = Record(app.key, weight=3.0, ephemeral=kind != "persistent")
    assert await client.read(app) == expected
    assert await client.look(app) == expected


@on_each_kind()
async def test_a_disabled_instance_is_out_until_it_is_enabled(nacos: Backend, client: Client, kind: Kind) -> None:
    app = nacos.app(kind, weight=3.0, metadata=ITS_OWN)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)

    for _ in range(2):  # idempotent
        await client.disable(app)
    await nacos.observer.until(app.instance, listed=False, within=WITHIN)
    assert await client.read(app) is None
    assert await client.look(app) == Record(
        app.key, enabled=False, weight=3.0, ephemeral=kind != "persistent", mark=nacos.shown(MARK)
    )
    record = await there(nacos, app)
    assert (record.enabled, record.weight) == (False, 3.0)
    assert record.metadata == (ITS_OWN if nacos.old else {**ITS_OWN, "nacos-drain": MARK})

    if kind == "beat":
        before = app.beats

        async def beaten_twice() -> bool:
            assert not await nacos.observer.is_listed(app.instance)
            return app.beats >= before + 2

        await until(beaten_twice)
        assert not await nacos.observer.is_listed(app.instance)

    for _ in range(2):
        await client.enable(app)
    await nacos.observer.until(app.instance, listed=True, within=WITHIN)
    assert await client.read(app) == Record(app.key, weight=3.0, ephemeral=kind != "persistent")
    record = await there(nacos, app)
    assert record.metadata == (ITS_OWN if nacos.old else {**ITS_OWN, "nacos-drain": ""})


@on_each_kind(*MODERN)
async def test_an_app_back_within_a_minute_is_born_disabled_until_it_is_enabled(
    nacos: Backend, client: Client, kind: Kind
) -> None:
    """What a container restart in the same pod looks like: for good, if nobody does anything about it."""
    app = nacos.app(kind, metadata=ITS_OWN)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await client.disable(app)
    await nacos.observer.until(app.instance, listed=False)
    await app.leave()
    await gone(nacos, app)
    assert await client.look(app) is None

    await app.join(metadata={**ITS_OWN, "v": "2"})
    record = await there(nacos, app)
    assert (record.enabled, record.metadata) == (False, {"k": "x", "v": "2", "nacos-drain": MARK})
    assert await client.read(app) is None
    seen = await client.look(app)
    assert seen is not None
    assert (seen.enabled, seen.mark) == (False, MARK)

    await client.enable(app)
    await nacos.observer.until(app.instance, listed=True)
    record = await there(nacos, app)
    assert record.metadata == {"k": "x", "v": "2", "nacos-drain": ""}


@on_each_kind(*MODERN)
async def test_after_a_sweep_within_the_minute_the_next_life_is_born_enabled(
    nacos: Backend, client: Client, kind: Kind
) -> None:
    app = nacos.app(kind, weight=2.0, metadata=ITS_OWN)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await client.disable(app)
    await nacos.observer.until(app.instance, listed=False)
    await app.leave()
    await gone(nacos, app)
    with pytest.raises(NotThere):
        await client.enable(app)  # it is for live instances only

    await client.nacos.sweep(client.node, app.key, weight=2.0)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    assert await client.look(app) == Record(app.key, weight=2.0, ephemeral=kind != "persistent")
    assert (await there(nacos, app)).metadata == ITS_OWN


@on_each_kind(kinds=("beat",))
async def test_a_crashed_app_whose_beats_kept_it_is_deleted_and_leaves_nothing(
    nacos: Backend, client: Client, kind: Kind
) -> None:
    app = nacos.app(kind, weight=2.0)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await app.crash()
    await client.nacos.delete(client.node, app.key)
    await nacos.observer.until(app.instance, listed=False)
    await gone(nacos, app)
    await client.nacos.delete(client.node, app.key)  # once more is no mistake
    await app.join()
    await nacos.observer.until(app.instance, listed=True)  # and its restart is not born disabled


@on_each_kind(*MODERN, kinds=("grpc",))
async def test_a_delete_says_yes_and_leaves_what_a_connection_holds(nacos: Backend, client: Client, kind: Kind) -> None:
    app = nacos.app(kind)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await client.nacos.delete(client.node, app.key)
    await client.disable(app)  # a write that works, and is seen: by then the other one would have been, too
    await nacos.observer.until(app.instance, listed=False)
    assert (await there(nacos, app)).enabled is False


@on_each_kind("1.4", kinds=("beat", "persistent"))
async def test_on_1x_nothing_outlives_an_instance(nacos: Backend, client: Client, kind: Kind) -> None:
    app = nacos.app(kind, metadata=ITS_OWN)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await client.disable(app)
    await nacos.observer.until(app.instance, listed=False)
    await app.leave()
    await gone(nacos, app)
    with pytest.raises(NotThere):
        await client.nacos.sweep(client.node, app.key, weight=1.0)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    assert (await there(nacos, app)).metadata == ITS_OWN


@on("real")
async def test_consumers_are_pushed_what_the_list_says(nacos: Backend, client: Client) -> None:
    """Once each: a server whose pushes are dead passes every test that only reads lists."""
    assert nacos.server is not None
    app = nacos.app("grpc", metadata=ITS_OWN)
    other = nacos.app("beat", service=app.instance.service, ip="127.0.0.12")
    await other.join()
    await app.join()
    both = {app.instance.address, other.instance.address}
    async with Subscriber(nacos.server) as subscriber:
        await subscriber.subscribe(app.instance.service)
        await subscriber.pushed(lambda push: push.addresses == both)
        seen = len(subscriber.pushes)

        await client.disable(app)
        await subscriber.pushed(lambda push: push.addresses == {other.instance.address}, since=seen)
        await nacos.observer.until(app.instance, listed=False)
        await client.enable(app)
        await subscriber.pushed(lambda push: push.addresses == both, since=seen + 1)
        await nacos.observer.until(app.instance, listed=True)
        told = [push.addresses for push in subscriber.pushes[seen:]]
        assert told == [{other.instance.address}, both]


async def test_one_that_somebody_else_disabled_shows_no_mark(nacos: Backend, client: Client) -> None:
    app = nacos.app(weight=2.0)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await nacos.operator.set_enabled(app.instance, enabled=False)
    await nacos.observer.until(app.instance, listed=False)
    assert await client.read(app) is None
    assert await client.look(app) == Record(app.key, enabled=False, weight=2.0)


@on(*MODERN)
async def test_an_operators_own_metadata_is_lost_to_our_mark(nacos: Backend, client: Client) -> None:
    """What was edited in the console lies in the record that our mark replaces; what the app published does not."""
    app = nacos.app("grpc", metadata=ITS_OWN)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await nacos.operator.set_enabled(app.instance, enabled=True, metadata={"gray": "yes", "v": "operator's"})

    async def edited() -> bool:
        return "gray" in (await there(nacos, app)).metadata

    await until(edited)
    await client.disable(app)
    await nacos.observer.until(app.instance, listed=False)
    assert (await there(nacos, app)).metadata == {**ITS_OWN, "nacos-drain": MARK}


# -- the right one, and none but that


async def test_what_is_not_there_is_told_and_nothing_is_left_behind(nacos: Backend, client: Client) -> None:
    """A plain PUT would answer 200 and disable whoever registers there later."""
    neighbour = nacos.app()
    await neighbour.join()
    await nacos.observer.until(neighbour.instance, listed=True)
    absent = [
        nacos.app("beat", service=neighbour.instance.service, port=8081),
        nacos.app("beat", service=neighbour.instance.service, cluster="NOPE"),
        nacos.app("beat", service=f"absent-{secrets.token_hex(4)}"),
    ]
    for app in absent:
        with pytest.raises(NotThere):
            await client.disable(app)
        with pytest.raises(NotThere):
            await client.enable(app)
    with pytest.raises(NotThere):
        await client.nacos.sweep(client.node, absent[-1].key, weight=1.0)
    for app in absent:
        await app.join()
        await nacos.observer.until(app.instance, listed=True)
        assert await client.look(app) == Record(app.key)
    assert await client.look(neighbour) == Record(neighbour.key)


async def test_a_key_that_never_was_is_nowhere(nacos: Backend, client: Client) -> None:
    """It looks the same as gone, on every node: that is why absence alone proves nothing."""
    app = nacos.app()
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    right = app.instance
    for wrong in (
        replace(right, namespace="nope"),
        replace(right, group="NOPE"),
        replace(right, cluster="NOPE"),
        replace(right, service="nope"),
        replace(right, ip="127.0.0.99"),
        replace(right, port=1),
    ):
        assert await client.read(wrong) is None
        assert await client.look(wrong) is None
    assert await client.read(right) == await client.look(right) == Record(app.key)


async def test_of_several_instances_only_the_addressed_one_changes(nacos: Backend, client: Client) -> None:
    app = nacos.app("beat")
    others = [
        nacos.app("beat", service=app.instance.service, port=8081),
        nacos.app("beat", service=app.instance.service, ip="127.0.0.12"),
        nacos.app("beat"),  # the same address in another service
    ]
    for each in (app, *others):
        await each.join()
        await nacos.observer.until(each.instance, listed=True)
    here = await client.nacos.read(client.node, app.key.service, ["127.0.0.11"], fresh=True)
    assert {record.instance.port for record in here} == {8080, 8081}
    both = await client.nacos.look(client.node, app.key.service, ["127.0.0.11", "127.0.0.12"])
    assert len(both) == 3

    await client.disable(app)
    await nacos.observer.until(app.instance, listed=False)
    for other in others:
        assert await client.read(other) == await client.look(other) == Record(other.key)


async def test_namespace_group_and_cluster_are_part_of_the_key(nacos: Backend, client: Client) -> None:
    app = nacos.app(namespace="staging", group="blue", cluster="north", weight=2.0)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    assert await client.read(app) == await client.look(app) == Record(app.key, weight=2.0)
    await client.disable(app)
    await nacos.observer.until(app.instance, listed=False)
    await client.enable(app)
    await nacos.observer.until(app.instance, listed=True)


@pytest.mark.parametrize("registered", ["fd00::7", "fd00:0:0:0:0:0:0:7", "[fd00::7]"])
async def test_an_ipv6_address_is_found_however_it_is_spelled(nacos: Backend, client: Client, registered: str) -> None:
    """Java writes every group; Spring Cloud Alibaba registers brackets. Writes need the registered spelling."""
    app = nacos.app("beat", ip=registered)
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    (record,) = await client.nacos.read(client.node, app.key.service, ["10.0.0.1", "fd00::7"], fresh=False)
    assert record == Record(app.key)
    assert await client.nacos.look(client.node, app.key.service, ["fd00:0::0007"]) == (record,)
    assert await client.nacos.read(client.node, app.key.service, ["fd00::8"], fresh=False) == ()
    await client.nacos.disable(client.node, record.instance, weight=record.weight, mark=MARK)
    await nacos.observer.until(app.instance, listed=False)


# -- half a second in which a node does not know yet


@on(*MODERN)
async def test_a_write_just_after_the_app_left_is_taken_and_waits_for_the_next_life(
    nacos: Backend, client: Client
) -> None:
    """The check for absence asks the list, which is half a second late. This record has no expiry at all."""
    app = nacos.app("grpc")
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await asyncio.sleep(2 * nacos.push_delay)  # the registration's own push would tell of the leaving as well
    start = asyncio.get_running_loop().time()
    await app.leave()
    try:
        await client.disable(app)
    except NotThere:
        assert asyncio.get_running_loop().time() - start > SOON * nacos.push_delay
        return
    await gone(nacos, app)
    await app.join()
    assert not (await there(nacos, app)).enabled
    await client.enable(app)
    await nacos.observer.until(app.instance, listed=True)


@on(*MODERN)
async def test_a_write_just_after_the_app_came_back_may_be_told_that_it_is_absent(
    nacos: Backend, client: Client
) -> None:
    app = nacos.app("grpc")
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    await app.leave()
    await gone(nacos, app)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await app.join()
    refused = []

    async def disabled() -> bool:
        try:
            await client.disable(app)
        except NotThere:
            refused.append(loop.time() - start)
            return False
        return True

    await until(disabled)
    assert refused or loop.time() - start > SOON * nacos.push_delay
    await nacos.observer.until(app.instance, listed=False)


@on(*MODERN)
async def test_the_unfiltered_view_is_blind_until_a_node_has_made_its_list(nacos: Backend, client: Client) -> None:
    """Half a second after the first registration, or at the first question for the consumers' view."""
    unasked, asked = nacos.app("grpc"), nacos.app("beat")
    start = asyncio.get_running_loop().time()
    await unasked.join()
    early = await client.look(unasked)
    assert early is None or asyncio.get_running_loop().time() - start > SOON * nacos.push_delay

    async def seen() -> bool:
        return await client.look(unasked) is not None

    await until(seen)
    await asked.join()
    assert await client.read(asked) is not None
    assert await client.look(asked) is not None


# -- who is there, and who are we


async def test_a_single_server_says_that_it_is_alone(nacos: Backend, client: Client) -> None:
    assert (client.nacos.nodes(), client.nacos.one_address) == (((nacos.node, True),), True)
    await client.nacos.refresh()
    assert (client.nacos.nodes(), client.nacos.one_address) == (((nacos.node, True),), False)
    assert await client.nacos.down() == frozenset()


@on("3.1")
async def test_a_wrong_password_is_told_with_the_settings_to_look_at(nacos: Backend) -> None:
    """Nacos 3 answers 500 to it, which elsewhere means another try. Reading needs no login there."""
    app = nacos.app("beat")
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    registry = nacos.registry(credentials=lambda: ("nacos", "wrong-" + secrets.token_hex(4)))
    await registry.refresh()
    assert len(await registry.read(nacos.node, app.key.service, [app.instance.ip], fresh=False)) == 1
    with pytest.raises(Rejected, match=r"500.*NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD") as told:
        await registry.disable(nacos.node, app.key, weight=1.0, mark=MARK)
    assert "wrong-" not in str(told.value)


@on("3.1")
async def test_without_credentials_a_refusal_names_the_settings(nacos: Backend) -> None:
    app = nacos.app("beat")
    await app.join()
    registry = nacos.registry(credentials=None)
    with pytest.raises(Rejected, match="set NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"):
        await registry.look(nacos.node, app.key.service, [app.instance.ip])
    assert len(await registry.read(nacos.node, app.key.service, [app.instance.ip], fresh=False)) == 1


@on("3.1")
async def test_a_token_that_is_refused_is_replaced_at_once(nacos: Backend, client: Client) -> None:
    """A server that came back with another secret knows none of our tokens."""
    app = nacos.app("beat")
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    assert await client.look(app) is not None
    header, _, signature = client.nacos._ask.login.token.split(".")
    client.nacos._ask.login.token = f"{header}.e30.{signature}"
    assert await client.look(app) is not None


@on("1.4", "2.2")
async def test_credentials_that_nobody_asks_for_do_no_harm(nacos: Backend) -> None:
    """The published 2.2.4 has no login at all, and neither has the double when its console is off."""
    app = nacos.app("beat")
    await app.join()
    await nacos.observer.until(app.instance, listed=True)
    registry = nacos.registry(credentials=lambda: ("somebody", "something"))
    await registry.refresh()
    assert len(await registry.look(nacos.node, app.key.service, [app.instance.ip])) == 1
    await registry.disable(nacos.node, app.key, weight=1.0, mark=MARK)
    await nacos.observer.until(app.instance, listed=False)


# -- another context path


@pytest.mark.timeout(120)  # a server of its own is started
@pytest.mark.parametrize("name", BACKENDS)
def test_a_server_may_live_below_any_path(name: str) -> None:
    """Not a coroutine: starting a real server blocks."""
    path = "/some/registry"
    if name.startswith("double"):
        asyncio.run(_out_and_back(lambda stack: double_backend(name, stack, context_path=path)))
        return
    for server in serve(name.removeprefix("real-"), context_path=path):

        async def real(stack: AsyncExitStack, server: NacosServer = server) -> Backend:
            return real_backend(name, server, stack)

        asyncio.run(_out_and_back(real))


async def _out_and_back(backend: Callable[[AsyncExitStack], Awaitable[Backend]]) -> None:
    async with AsyncExitStack() as stack:
        nacos = await backend(stack)
        await stack.enter_async_context(nacos.observer)
        client, app = Client(nacos), nacos.app("beat")
        await app.join()
        await nacos.observer.until(app.instance, listed=True)
        await client.disable(app)
        await nacos.observer.until(app.instance, listed=False)
        assert await client.look(app) == Record(app.key, enabled=False, mark=nacos.shown(MARK))
        await client.enable(app)
        await nacos.observer.until(app.instance, listed=True)
