"""The rig's clusters check themselves: what is written anywhere is seen everywhere, and they break as real ones do.

2.2.4 runs with the real servers, 3.1.0 in `make soak`. Each test begins with a whole cluster, whatever the one before
broke; the least destructive come first, as healing costs a start.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from contextlib import AsyncExitStack
from typing import cast

import pytest
from rig.balancer import Balancer
from rig.clients import GrpcApp, Subscriber
from rig.cluster import NacosCluster
from rig.openapi import Observer, Witness
from rig.records import Instance
from rig.servers import LOOPBACK, NacosServer


pytestmark = pytest.mark.timeout(120, func_only=True)

log = logging.getLogger("rig.cluster")


@pytest.fixture
def instance() -> Instance:
    """In a service no other test has used: Nacos remembers records of a name for a minute and longer."""
    return Instance(f"cluster-{secrets.token_hex(4)}", 8080, ip="127.0.0.11", weight=3)


async def write(node: NacosServer, instance: Instance, *, enabled: bool) -> tuple[int, str]:
    """Send the write a drain lives by to one node; status 0 says that nobody answered."""
    query = instance.query | {"enabled": str(enabled).lower(), "weight": str(instance.weight)}
    call = ("PATCH", "/v1/ns/instance") if node.major == 2 else ("PUT", "/v3/admin/ns/instance/partial")
    return await asyncio.to_thread(node.call, *call, query)


async def writes_until_taken(node: NacosServer, instance: Instance) -> list[str]:
    """Write until it is answered 200; return what was answered when, each kind of answer once."""
    begun = time.monotonic()
    answers: dict[str, str] = {}
    while True:
        status, body = await write(node, instance, enabled=True)
        after = time.monotonic() - begun
        kind = f"{status} {body[:300]}"
        answers[kind] = f"{answers.get(kind, f'{after:.1f}').split('-')[0]}-{after:.1f} s: {kind}"
        if status == 200:
            return list(answers.values())
        assert status in {400, 500}, answers
        assert after < 40, answers
        await asyncio.sleep(0.2)


async def seen(node: NacosServer, cluster: NacosCluster, state: str, within: float) -> None:
    """Wait until all other nodes that run see this one in that state."""
    async with asyncio.timeout(within):
        for other in cluster.nodes:
            while other is not node and other.runs:
                if (await asyncio.to_thread(cluster.states, other)).get(node.address) == state:
                    break
                await asyncio.sleep(0.1)


def test_all_nodes_are_members_and_follow_one_leader(cluster: NacosCluster) -> None:
    log.info("the start took %.1f s", cluster.started_in)
    leader = cluster.leader()
    assert set(cluster.nodes) == {leader, *cluster.followers()}
    for node in cluster.nodes:
        assert cluster.states(node) == {each.address: "UP" for each in cluster.nodes}


@pytest.mark.soak  # 2.2.4 as published has no auth
async def test_each_nodes_admin_token_is_good_on_every_node(cluster3: NacosCluster) -> None:
    tokens = [node.token for node in cluster3.nodes]
    for node, token in itertools.product(cluster3.nodes, tokens):
        own, node.token = node.token, token
        status, body = await write(node, Instance("nobody", 1), enabled=False)
        node.token = own
        assert status == 404, body  # allowed, and not there


async def test_an_instance_on_one_node_is_listed_and_pushed_on_all(cluster: NacosCluster, instance: Instance) -> None:
    async with AsyncExitStack() as stack:
        witness = await stack.enter_async_context(Witness(cluster.nodes))
        app = await stack.enter_async_context(GrpcApp(cluster.nodes[0]))
        subscribers = [await stack.enter_async_context(Subscriber(node)) for node in cluster.nodes]
        for subscriber in subscribers:
            await subscriber.subscribe(instance.service)

        begun = time.monotonic()
        await app.register(instance)
        since = await witness.until(instance, listed=True)
        assert set(since) == {node.address for node in cluster.nodes}
        log.info("listed after, s: %s", [round(at - begun, 2) for at in since.values()])
        for subscriber in subscribers:
            await subscriber.pushed(lambda push: push.addresses == {instance.address})

        told = [len(subscriber.pushes) for subscriber in subscribers]
        begun = time.monotonic()
        await app.deregister(instance)
        since = await witness.until(instance, listed=False)
        log.info("gone after, s: %s", [round(at - begun, 2) for at in since.values()])
        for subscriber, before in zip(subscribers, told, strict=True):
            await subscriber.pushed(lambda push: not push.hosts, since=before)


async def test_a_write_on_a_follower_is_seen_on_all(cluster: NacosCluster, instance: Instance) -> None:
    follower = cluster.followers()[0]
    async with GrpcApp(cluster.leader()) as app, Witness(cluster.nodes) as witness:
        await app.register(instance)
        await witness.until(instance, listed=True)
        begun = time.monotonic()
        assert (await write(follower, instance, enabled=False))[0] == 200
        since = await witness.until(instance, listed=False)
        log.info("out after, s: %s", [round(at - begun, 2) for at in since.values()])
        assert set(since) == {node.address for node in cluster.nodes}
        for node in cluster.nodes:
            async with Observer(node) as observer:
                record = await observer.record(instance)
            assert record is not None
            assert (record.enabled, record.weight) == (False, 3.0)


async def test_a_balancer_spreads_http_and_grpc(cluster: NacosCluster, instance: Instance) -> None:
    addresses = [node.address for node in cluster.nodes]
    async with Balancer(addresses) as balancer, Witness(cluster.nodes) as witness:
        for _ in range(2 * len(addresses)):
            reader, writer = await asyncio.open_connection(LOOPBACK, balancer.port)
            writer.write(f"GET /nacos/v1/ns/operator/metrics HTTP/1.0\r\nHost: {balancer.address}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == b"200"
            writer.close()
        assert dict(balancer.connections) == dict.fromkeys(addresses, 2)
        async with GrpcApp(cast("NacosServer", balancer)) as app:  # all it asks of a server is the address
            await app.register(instance)
            await witness.until(instance, listed=True)
        assert sum(balancer.connections[f"{LOOPBACK}:{node.port + 1000}"] for node in cluster.nodes) >= 1
        await witness.until(instance, listed=False)


async def test_a_frozen_node_takes_connections_and_hangs(cluster: NacosCluster, instance: Instance) -> None:
    """The others go on, as two of three are a quorum."""
    owner = cluster.owner(instance)
    frozen, *_ = (node for node in cluster.followers() if node is not owner)
    (other,) = (node for node in cluster.followers() if node is not frozen)
    async with GrpcApp(other) as app, Witness(cluster.nodes) as witness:
        frozen.freeze()
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, frozen.port)
            writer.close()
            status, why = await asyncio.to_thread(frozen.call, "GET", "/v1/ns/operator/metrics", timeout=1.0)
            assert (status, why) == (0, "TimeoutError('timed out')")
            await app.register(instance)
            since = await witness.until(instance, listed=True)
            assert set(since) == {node.address for node in cluster.nodes if node is not frozen}
            assert (await witness.listed(instance))[frozen.address] is None
            assert (await write(other, instance, enabled=True))[0] == 200
        finally:
            frozen.thaw()
        await seen(frozen, cluster, "UP", within=30)
        async with asyncio.timeout(30):
            while not (await witness.listed(instance))[frozen.address]:  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.1)


@pytest.mark.soak  # half a minute
async def test_writes_that_a_frozen_node_owns_are_refused_until_it_is_down(
    cluster2: NacosCluster, instance: Instance
) -> None:
    owner = cluster2.owner(instance)
    other = next(node for node in cluster2.nodes if node is not owner)
    async with GrpcApp(other) as app, Witness(cluster2.nodes) as witness:
        await app.register(instance)
        await witness.until(instance, listed=True)
        owner.freeze()
        answers = await writes_until_taken(other, instance)
        log.info("owner frozen, writes: %s", answers)
        assert len(answers) > 1


async def test_a_lost_leader_costs_seconds_of_refused_writes(cluster: NacosCluster, instance: Instance) -> None:
    """Then writes work again by themselves, and the node that comes back is a member again."""
    lost, follower = cluster.leader(), cluster.followers()[0]
    async with GrpcApp(follower) as app, Witness(cluster.nodes) as witness:
        await app.register(instance)
        await witness.until(instance, listed=True)
        lost.kill()
        answers = await writes_until_taken(follower, instance)
        log.info("leader killed, writes: %s", answers)
        assert len(answers) > 1
        assert await asyncio.to_thread(cluster.leader) is not lost
        assert (await witness.listed(instance))[lost.address] is None

        assert (await write(follower, instance, enabled=True))[0] == 200
        cluster.heal()  # on this thread, as a launch must be
        log.info("it was ready %.1f s after its launch", lost.started_in)
        assert set(await witness.until(instance, listed=True)) == {node.address for node in cluster.nodes}


async def test_without_a_quorum_writes_fail_and_registrations_do_not(cluster: NacosCluster, instance: Instance) -> None:
    node = cluster.owner(instance)  # which decides by itself: the refusals are Raft's
    others = [other for other in cluster.nodes if other is not node]
    async with GrpcApp(node) as app, Witness([node]) as witness:
        for other in others:
            other.kill()
        await app.register(instance)
        await witness.until(instance, listed=True)
        for _ in range(3):
            begun = time.monotonic()
            status, body = await write(node, instance, enabled=False)
            log.info("no quorum: %s after %.1f s: %s", status, time.monotonic() - begun, body[:300])
            assert status == 500
        assert await witness.listed(instance) == {node.address: True}
        await app.deregister(instance)
        await witness.until(instance, listed=False)


# -- the balancer by itself, without Nacos


class Upstream:
    """Says its name to each connection, and closes it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._server: asyncio.Server

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._greet, LOOPBACK, 0)
        return f"{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._name.encode() + await reader.readline())
        writer.close()


async def greeted(balancer: Balancer) -> bytes:
    """Open a connection, say something, and return all that is said until its end."""
    reader, writer = await asyncio.open_connection(LOOPBACK, balancer.port)
    try:
        writer.write(b"?\n")
        return await reader.read()
    finally:
        writer.close()


async def test_connections_go_to_one_upstream_after_another_and_past_the_dead() -> None:
    async with Upstream("a") as a, Upstream("c") as c:
        async with Upstream("b") as b, Balancer([a, b, c], offsets=[0]) as all_up:
            assert [await greeted(all_up) for _ in range(4)] == [b"a?\n", b"b?\n", b"c?\n", b"a?\n"]
            assert all_up.connections == {a: 2, b: 1, c: 1}
        async with Balancer([a, b, c], offsets=[0]) as one_down:
            assert [await greeted(one_down) for _ in range(3)] == [b"a?\n", b"c?\n", b"c?\n"]
            assert one_down.connections == {a: 1, c: 2}
        async with Balancer([b], offsets=[0]) as all_down:
            assert await greeted(all_down) == b""


async def test_a_client_that_goes_takes_its_upstream_connection_along() -> None:
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(100):
                pass
        ended.set()
        writer.close()

    upstream = await asyncio.start_server(listen, LOOPBACK, 0)
    async with upstream, Balancer([f"{LOOPBACK}:{upstream.sockets[0].getsockname()[1]}"], offsets=[0]) as balancer:
        _, writer = await asyncio.open_connection(LOOPBACK, balancer.port)
        writer.write(b"hello")
        writer.transport.abort()
        async with asyncio.timeout(5):
            await ended.wait()
