"""A real Nacos cluster on loopback: three nodes of one version that hold elections and can be broken.

Nodes are `NacosServer`s; kill, stop, freeze or launch one by itself, and `heal` makes all of it whole again.
Like a server's, its methods block: a test whose own loop has work to do awaits `asyncio.to_thread(cluster.wait_ready)`
after `node.launch()`.
"""

import json
import logging
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from rig.records import Instance
from rig.servers import LOOPBACK, NacosServer, Secrets, ServerNotReadyError, free_ports


log = logging.getLogger("rig.cluster")

METADATA = "naming_instance_metadata"  # the Raft group of what operators, and we, write into instances
LAUNCHES = 3  # until a node that ends while it starts is given up
RAFT = 1000  # a node's Raft port is its HTTP port minus this


class NacosCluster:
    """Its nodes find one another, elect leaders, and share one admin."""

    def __init__(self, version: str, size: int = 3) -> None:
        self.version = version
        self.major = int(version.split(".", maxsplit=1)[0])
        ports = free_ports(size)
        members = [f"{LOOPBACK}:{port}" for port in ports]
        shared = Secrets()
        self.nodes = tuple(NacosServer(version, port=port, members=members, shared=shared) for port in ports)
        self.started_in = 0.0

    @property
    def addresses(self) -> str:
        """What a client library is given: every node's host:port, with commas."""
        return ",".join(node.address for node in self.nodes)

    @property
    def username(self) -> str | None:
        """The admin's, where there is one."""
        return self.nodes[0].username

    @property
    def password(self) -> str | None:
        """The admin's, on every node."""
        return self.nodes[0].password

    @property
    def token(self) -> str | None:
        """The admin's, good on every node."""
        return self.nodes[0].token

    def __repr__(self) -> str:
        return f"Nacos {self.version} at {self.addresses}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        """Launch all nodes at once, and wait until the cluster is whole."""
        begun = time.monotonic()
        self._make_whole()
        self.started_in = time.monotonic() - begun
        return self

    def heal(self) -> None:
        """Thaw what is frozen, launch what is dead, and wait until the cluster is whole; at once if it is."""
        for node in self.nodes:
            node.thaw()
        self._make_whole()

    def wait_ready(self, timeout: float = 180.0) -> None:
        """Return once every node has answered writes 200, and lists all of them as UP."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.wait_ready(timeout), self.nodes))  # raises what one of them raised
        self._wait_for_members()

    def close(self) -> None:
        """Kill all nodes and forget their homes."""
        for node in self.nodes:
            node.close()

    def leader(self, group: str = METADATA, within: float = 30.0) -> NacosServer:
        """Return the leader of a Raft group, once all nodes that answer name the same one, and it is one of them."""
        deadline = time.monotonic() + within
        while True:
            named = {node: _named_leader(node, group) for node in self.nodes if node.runs}
            answered = {node: leader for node, leader in named.items() if leader is not None}
            for node in answered:
                if set(answered.values()) == {f"{LOOPBACK}:{node.port - RAFT}"}:
                    return node
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self}: no leader of {group} that all agree on; named are {named}")
            time.sleep(0.1)

    def followers(self, group: str = METADATA) -> tuple[NacosServer, ...]:
        """Return the other nodes."""
        leader = self.leader(group)
        return tuple(node for node in self.nodes if node is not leader)

    def owner(self, instance: Instance) -> NacosServer:
        """Return the node that v1 calls on this instance are handed on to, from whichever node got them.

        A 2.x node that is asked to write what a hanging or dead one owns answers 500 until it sees that one DOWN.
        """
        node = next(node for node in self.nodes if node.runs)
        path = "/v1/ns/operator/distro/client" if self.major == 2 else "/v3/admin/ns/client/distro"
        status, body = node.call("GET", path, {"ip": instance.ip, "port": str(instance.port)})
        if status != 200:
            raise RuntimeError(f"GET {path}: {status} {body}")
        answer = json.loads(body)
        address = answer.get("data", answer)["responsibleServer"]
        return next(node for node in self.nodes if node.address == address)

    def states(self, node: NacosServer) -> dict[str, str]:
        """Tell how one node sees all: address and UP, SUSPICIOUS or DOWN; nothing if it does not answer."""
        return {member["address"]: member["state"] for member in _members(node)}

    def _make_whole(self) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            try:
                self._make_ready(pool, time.monotonic() + 240)
            except BaseException:
                for node in self.nodes:
                    node.kill()  # or the pool would go on waiting for it
                raise
        self._wait_for_members()

    def _make_ready(self, pool: ThreadPoolExecutor, deadline: float) -> None:
        # A 3.x node whose start falls into an election ends by itself ("did not find the Leader node"), in about half
        # of the starts on two busy cores; in a pod it would be started again, and so it is here.
        launches: Counter[NacosServer] = Counter()
        waiting: dict[Future[None], NacosServer] = {}
        unready = list(self.nodes)
        while unready or waiting:
            for node in unready:
                if not node.runs:
                    node.kill()  # one that ended by itself is to be forgotten first
                    node.launch()
                    launches[node] += 1
                waiting[pool.submit(node.wait_ready, deadline - time.monotonic())] = node
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            unready = []
            for each in done:
                node = waiting.pop(each)
                error = each.exception()
                if error is not None:
                    if launches[node] == LAUNCHES or time.monotonic() > deadline:
                        raise error
                    log.warning("%s is launched once more: %s", node, str(error).splitlines()[0])
                    unready.append(node)

    def _wait_for_members(self, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        for node in self.nodes:
            while (states := list(self.states(node).values())) != ["UP"] * len(self.nodes):
                if time.monotonic() > deadline:
                    raise ServerNotReadyError(f"{node} still sees its cluster as {states}")
                time.sleep(0.1)


def _members(node: NacosServer) -> list[dict[str, Any]]:
    path = "/v1/core/cluster/nodes" if node.major == 2 else "/v3/admin/core/cluster/node/list"
    status, body = node.call("GET", path, timeout=2.0)
    members: list[dict[str, Any]] = json.loads(body)["data"] if status == 200 else []
    return members


def _named_leader(node: NacosServer, group: str) -> str | None:
    # What a node says of itself is fresh; what it knows of the others is as old as their last report.
    for member in _members(node):
        if member["address"] == node.address:
            groups = member["extendInfo"].get("raftMetaData", {}).get("metaDataMap", {})
            return str(groups.get(group, {}).get("leader"))
    return None
