"""Drains on clusters of three: nodes that die, hang and come back, a leader lost, no leader, one address for all.

One after the other, since each breaks the cluster. The app's own connection, and our subscriber's, are at a node that
lives on. A row is kept for docs/faults.md as in test_faults.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from real.rows import NOTHING, Case, Kind, Told, case, describe, save, yard
from rig.balancer import Balancer
from rig.cluster import NacosCluster
from rig.servers import NacosServer


pytestmark = pytest.mark.timeout(300, func_only=True)

Cluster = pytest.mark.parametrize(
    "cluster",
    [pytest.param("cluster2", marks=pytest.mark.real), pytest.param("cluster3", marks=pytest.mark.soak)],
    indirect=True,
)
Soaked = pytest.mark.parametrize(
    "cluster",
    [pytest.param("cluster2", marks=pytest.mark.soak), pytest.param("cluster3", marks=pytest.mark.soak)],
    indirect=True,
)


@asynccontextmanager
async def app_at(home: NacosServer, cluster: NacosCluster, kind: Kind = "gRPC", **env: str) -> AsyncIterator[Case]:
    """An app whose connection is to this node."""
    async with yard(cluster, home=home) as here, case(here, kind, **env) as made:
        yield made


async def end(c: Case, name: str, *, left: str | None = None) -> Told:
    """The app exits, the story is told, and the row is kept."""
    await c.exit()
    report = await c.final()
    told = Told(report, await c.successor() if left is None else left, c.agree(report))
    save(name, c, told)
    return told


@Cluster
@pytest.mark.parametrize(
    "kind", ["gRPC", *(pytest.param(each, marks=pytest.mark.soak) for each in ("HTTP beat", "persistent"))]
)
async def test_quiet(cluster: NacosCluster, kind: Kind) -> None:
    """Every node is proved, and quickly."""
    async with app_at(cluster.nodes[0], cluster, kind) as c:
        await c.start()
        c.trigger()
        await c.released()
        told = await end(c, "nothing")
        assert told.report["outcome"] == "drained", c.told()
        assert told.proved is not None
        assert told.proved <= 4.5
        assert {n["view"] for n in told.report["instances"][0]["nodes"]} == {"gone"}


@Cluster
async def test_a_follower_dies(cluster: NacosCluster) -> None:
    """It refuses; once the others call it DOWN it is left out, and named."""
    home, victim = cluster.leader(), cluster.followers()[0]
    async with app_at(home, cluster) as c:
        await c.start()
        victim.kill()
        c.trigger()
        report = await c.released()
        assert report["outcome"] == "drained", c.told()
        views = {n["node"]: n["view"] for n in report["instances"][0]["nodes"]}
        assert views.pop(victim.address) == "down"
        assert set(views.values()) == {"gone"}
        assert f"{victim.address} is down" in " ".join(report["notes"])
        await end(c, "a follower dies at the trigger")


@Cluster
async def test_the_leader_dies(cluster: NacosCluster) -> None:
    """Writes answer 500, and for a moment 400, until another is elected; then the drain succeeds by itself."""
    victim = cluster.leader()
    home = cluster.followers()[0]
    async with app_at(home, cluster, GRACE_PERIOD="60") as c:
        await c.start()
        victim.kill()
        c.trigger()
        report = await c.released()
        assert report["outcome"] == "drained", c.told()
        dealt = next(p for p in report["phases"] if p["phase"] == "DEREGISTER")
        assert dealt["outcome"] == "met"
        assert dealt["seconds"] < 20
        await end(c, "the leader dies at the trigger")


@Cluster
async def test_no_quorum_and_only_nacos_to_ask(cluster: NacosCluster) -> None:
    """Nothing can be written, nothing is claimed, and the app is let go in time."""
    home, *victims = cluster.nodes
    async with app_at(home, cluster, GRACE_PERIOD="20") as c:
        await c.start()
        for victim in victims:
            victim.kill()
        c.trigger()
        report = await c.released()
        assert report["outcome"] == "unproven"
        assert report["proved_gone"] is False
        assert c.answered - c.started < 16
        views = {n["node"]: n["view"] for n in report["instances"][0]["nodes"]}
        assert views[home.address] == "listed"
        await end(c, "no quorum", left=f"still listed ({describe(await c.record())})")


@Cluster
async def test_no_quorum_and_an_app_that_can_leave(cluster: NacosCluster) -> None:
    """Only the in-app road works without a leader, and it is taken."""
    home, *victims = cluster.nodes
    async with app_at(home, cluster, "scripted app") as c:
        await c.start_scripted("2025.1", endpoints="health,nacosdiscovery,serviceregistry")
        for victim in victims:
            victim.kill()
        c.trigger()
        report = await c.released()
        assert report["instances"][0]["road"] == "serviceregistry"
        assert report["outcome"] == "drained", c.told()
        assert not await c.yard.observer.is_listed(c.instance)
        await end(c, "no quorum, but the app removes itself", left="nothing")


@Soaked
async def test_a_node_hangs_for_the_whole_drain(cluster: NacosCluster) -> None:
    """Unknown is not zero: it hangs, so nobody can say that it is clean."""
    home, victim = cluster.leader(), cluster.followers()[0]
    async with app_at(home, cluster) as c:
        await c.start()
        victim.freeze()
        c.trigger()
        report = await c.released()
        victim.thaw()
        assert report["outcome"] == "unproven"
        views = {n["node"]: n["view"] for n in report["instances"][0]["nodes"]}
        assert views.pop(victim.address) == "unknown"
        assert set(views.values()) == {"gone"}
        await end(c, "a node hangs until the release")


@Soaked
async def test_a_node_restarts_in_the_middle(cluster: NacosCluster) -> None:
    """A node that was away is believed again only after it has been clean once more than the others."""
    home, victim = cluster.leader(), cluster.followers()[0]
    async with app_at(home, cluster, GRACE_PERIOD="90") as c:
        await c.start()
        victim.kill()
        c.trigger()
        await asyncio.sleep(1)  # the fault itself lasts
        victim.launch()
        await c.released(within=90)
        await asyncio.to_thread(cluster.wait_ready)
        told = await end(c, "a node restarts in the middle of the drain")
        assert told.report["outcome"] == "drained", c.told()


@Cluster
async def test_one_address_before_three_nodes(cluster: NacosCluster) -> None:
    """A VIP is enough to be told: the nodes behind it are found by the member list, and each has to be clean."""
    home = cluster.nodes[0]
    async with Balancer([node.address for node in cluster.nodes]) as vip, app_at(home, cluster) as c:
        await c.start(NACOS_SERVER_ADDR=vip.address)
        c.trigger()
        report = await c.released()
        assert report["outcome"] == "drained", c.told()
        named = {n["node"] for n in report["instances"][0]["nodes"]}
        assert named >= {node.address for node in cluster.nodes}
        told = await end(c, "one address before three nodes (VIP)")
        assert told.left == NOTHING
