"""The rig checks itself, above all by pushes: a badly built server passes every list-based test."""

import secrets
from collections.abc import AsyncIterator

import pytest
from rig.clients import BeatApp, GrpcApp, PersistentApp, Subscriber
from rig.openapi import Observer, Operator
from rig.records import Instance
from rig.servers import NacosServer


pytestmark = pytest.mark.real


@pytest.fixture
def service() -> str:
    """A name no other test has used: Nacos remembers records of a name for a minute and longer."""
    return f"rig-{secrets.token_hex(4)}"


@pytest.fixture
async def observer(real_nacos: NacosServer) -> AsyncIterator[Observer]:
    async with Observer(real_nacos) as observer:
        yield observer


@pytest.fixture
async def operator(real_nacos: NacosServer) -> AsyncIterator[Operator]:
    async with Operator(real_nacos) as operator:
        yield operator


@pytest.fixture
async def subscriber(real_nacos: NacosServer, service: str) -> AsyncIterator[Subscriber]:
    async with Subscriber(real_nacos) as subscriber:
        await subscriber.subscribe(service)
        yield subscriber


async def test_a_grpc_instance_that_deregisters_is_pushed_away(
    real_nacos: NacosServer, service: str, observer: Observer, subscriber: Subscriber
) -> None:
    leaving = Instance(service, 8080, ip="127.0.0.11", weight=3, metadata={"zone": "a"})
    staying = Instance(service, 8080, ip="127.0.0.12")
    async with GrpcApp(real_nacos) as app, GrpcApp(real_nacos) as other:
        await app.register(leaving)
        await other.register(staying)
        await observer.until(leaving, listed=True)
        both = {leaving.address, staying.address}
        push = await subscriber.pushed(lambda push: push.addresses == both)
        (host,) = (host for host in push.hosts if host.address == leaving.address)
        assert (host.weight, host.metadata["zone"]) == (3.0, "a")

        seen = len(subscriber.pushes)
        await app.deregister(leaving)
        await subscriber.pushed(lambda push: push.addresses == {staying.address}, since=seen)
        await observer.until(leaving, listed=False)


@pytest.mark.parametrize("end", ["close", "kill"])
async def test_a_grpc_instance_whose_connection_ends_is_pushed_away(
    real_nacos: NacosServer, service: str, observer: Observer, subscriber: Subscriber, end: str
) -> None:
    instance = Instance(service, 8080, ip="127.0.0.11")
    async with GrpcApp(real_nacos) as app:
        await app.register(instance)
        await subscriber.pushed(lambda push: push.addresses == {instance.address})
        seen = len(subscriber.pushes)
        await getattr(app, end)()
        await subscriber.pushed(lambda push: not push.hosts, since=seen)
        await observer.until(instance, listed=False)
        assert await observer.record(instance) is None


async def test_a_disabled_grpc_instance_leaves_list_and_pushes_but_not_the_registry(
    real_nacos: NacosServer,
    service: str,
    observer: Observer,
    operator: Operator,
    subscriber: Subscriber,
) -> None:
    instance = Instance(service, 8080, ip="127.0.0.11", weight=3)
    async with GrpcApp(real_nacos) as app:
        await app.register(instance)
        await subscriber.pushed(lambda push: push.addresses == {instance.address})
        seen = len(subscriber.pushes)

        await operator.set_enabled(instance, enabled=False)
        await subscriber.pushed(lambda push: not push.hosts, since=seen)
        await observer.until(instance, listed=False)
        record = await observer.record(instance)
        assert record is not None
        assert (record.enabled, record.weight) == (False, 3.0)

        await operator.set_enabled(instance, enabled=True)
        await observer.until(instance, listed=True)
        await subscriber.pushed(lambda push: push.addresses == {instance.address}, since=seen)


async def test_a_delete_by_somebody_else_is_lost_on_a_grpc_instance(
    real_nacos: NacosServer, service: str, observer: Observer, operator: Operator
) -> None:
    """It answers 200: the reason why the product writes enabled=false and proves it."""
    instance = Instance(service, 8080, ip="127.0.0.11")
    other = Instance(service, 8080, ip="127.0.0.12")
    async with GrpcApp(real_nacos) as app, GrpcApp(real_nacos) as barrier:
        await app.register(instance)
        await observer.until(instance, listed=True)
        await operator.delete(instance, ephemeral=True)
        await barrier.register(other)  # once this later write is shown, the DELETE would be too
        await observer.until(other, listed=True)
        assert await observer.is_listed(instance)


async def test_a_beating_instance_comes_back_after_its_deletion(
    real_nacos: NacosServer, service: str, observer: Observer, operator: Operator
) -> None:
    instance = Instance(service, 8080, ip="127.0.0.11")
    async with BeatApp(real_nacos, instance) as app:
        await observer.until(instance, listed=True)
        await operator.delete(instance, ephemeral=True)
        await observer.until(instance, listed=False)
        await observer.until(instance, listed=True)
        assert app.beats >= 1
        await app.deregister()
        await observer.until(instance, listed=False)


async def test_a_persistent_instance_is_listed_while_its_port_answers(
    real_nacos: NacosServer, service: str, observer: Observer, operator: Operator
) -> None:
    async with PersistentApp(real_nacos, Instance(service, 0, ip="127.0.0.11")) as app:
        await observer.until(app.instance, listed=True)
        record = await observer.record(app.instance)
        assert record is not None
        assert not record.ephemeral
        await operator.set_enabled(app.instance, enabled=False)
        await observer.until(app.instance, listed=False)


async def test_namespace_group_and_cluster_reach_the_server(
    real_nacos: NacosServer, service: str, observer: Observer
) -> None:
    instance = Instance(service, 8080, ip="127.0.0.11", group="blue", namespace="staging", cluster="north")
    async with GrpcApp(real_nacos, namespace="staging") as app:
        await app.register(instance)
        await observer.until(instance, listed=True)
        record = await observer.record(instance)
        assert record is not None
        assert record.cluster == "north"
    assert not await observer.listed(Instance(service, 8080))
