"""What the plays of a run share: a Nacos, a network for pods, addresses for consumers, and the replica that stays."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import uuid4

from manifests.place import JAVA
from rig.containers import Network, container, network, reachable
from rig.docker import docker, inspect
from rig.servers import NacosServer


APP, PORT = "shop", 8080


@dataclass(frozen=True)
class Ground:
    """All of it."""

    nacos: NacosServer
    address: str  # of Nacos, for containers
    bridge: Network
    stays: str  # the other replica's address
    fast: str  # the consumers' addresses: this machine's, and not the one from which it probes
    slow: str


@contextmanager
def address() -> Iterator[str]:
    """An address of this machine by which a consumer is known: that of a network without anybody in it.

    Docker hides whoever calls from one of its networks into another behind the node's address, unless told not to. The
    node stands for many, so that each drain would wait for the cap.
    """
    name = f"nacos-drain-test-{uuid4().hex[:8]}"
    docker("network", "create", "--opt", "com.docker.network.bridge.enable_ip_masquerade=false", name)
    try:
        yield str(inspect(name)["IPAM"]["Config"][0]["Gateway"])
    finally:
        docker("network", "rm", name)


@asynccontextmanager
async def ground(nacos: NacosServer) -> AsyncIterator[Ground]:
    """Make it."""
    async with AsyncExitStack() as stack:
        bridge = stack.enter_context(network())
        fast, slow = (stack.enter_context(address()) for _ in range(2))
        server = await stack.enter_async_context(reachable(nacos.address, bridge.gateway))
        options = ("--network", bridge.name, "--entrypoint", "java")
        stays = await stack.enter_async_context(container(JAVA, "-cp", "/app", "Shop", options=options))
        await stays.until("listening")
        yield Ground(nacos, server, bridge, await stays.ip(), fast, slow)
