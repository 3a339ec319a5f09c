"""Real servers as fixtures, started when first asked for: one of each version, then a cluster of each.

Two busy cores bear one set at a time. So tests of clusters come last, and a cluster that starts ends the set before it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from needs import lacking
from rig.build import RigUnavailableError
from rig.clients import find_client
from rig.cluster import NacosCluster
from rig.servers import NacosServer


# The sets in the order of their tests: none or standalone servers, then these.
CLUSTERS = ("cluster2", "cluster3")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put clusters last, and time no test for the start of its server, half a minute on a busy machine."""
    items.sort(key=_set)
    for item in items:
        needs_servers = item.get_closest_marker("real") or item.get_closest_marker("soak")
        if needs_servers and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60, func_only=True))


def _set(item: pytest.Item) -> int:
    asked = set(getattr(item, "fixturenames", ()))
    if callspec := getattr(item, "callspec", None):
        asked |= {value for value in callspec.params.values() if isinstance(value, str)}
    return max((1 + CLUSTERS.index(name) for name in asked.intersection(CLUSTERS)), default=0)


@contextmanager
def _what_it_takes() -> Iterator[None]:
    """Skip without a JDK and the like, or fail where nothing may be missing."""
    try:
        find_client()
        yield
    except RigUnavailableError as missing:
        lacking(str(missing))


def serve(version: str, *, context_path: str = "/nacos") -> Iterator[NacosServer]:
    """Run a server; without what it takes, skip, or fail where nothing may be missing."""
    with _what_it_takes():
        server = NacosServer(version, context_path=context_path)
        try:
            yield server.start()
        finally:
            server.close()


@pytest.fixture(scope="session")
def set_of_servers() -> Iterator[ExitStack]:
    """What runs now and for the tests to come; closing it makes room for the next set."""
    with ExitStack() as running:
        yield running


@pytest.fixture(scope="session")
def nacos2(set_of_servers: ExitStack) -> Iterator[NacosServer]:
    """Nacos 2.2.4: no auth module in the published build."""
    for server in serve("2.2.4"):
        set_of_servers.callback(server.close)
        yield server


@pytest.fixture(scope="session")
def nacos3(set_of_servers: ExitStack) -> Iterator[NacosServer]:
    """Nacos 3.1.0 with its default auth: admin calls need the token."""
    for server in serve("3.1.0"):
        set_of_servers.callback(server.close)
        yield server


@pytest.fixture(params=["nacos2", "nacos3"])
def real_nacos(request: pytest.FixtureRequest) -> NacosServer:
    """Each of them in turn."""
    server: NacosServer = request.getfixturevalue(request.param)
    return server


def _cluster(version: str, running: ExitStack) -> Iterator[NacosCluster]:
    running.close()
    with _what_it_takes():
        cluster = NacosCluster(version)
        running.callback(cluster.close)
        try:
            yield cluster.start()
        finally:
            cluster.close()


@pytest.fixture(scope="session")
def started_cluster2(set_of_servers: ExitStack) -> Iterator[NacosCluster]:
    """Three nodes of 2.2.4, in whatever state the last test left them."""
    yield from _cluster("2.2.4", set_of_servers)


@pytest.fixture(scope="session")
def started_cluster3(set_of_servers: ExitStack) -> Iterator[NacosCluster]:
    """Three nodes of 3.1.0, in whatever state the last test left them."""
    yield from _cluster("3.1.0", set_of_servers)


@pytest.fixture
def cluster2(started_cluster2: NacosCluster) -> NacosCluster:
    """Three nodes of 2.2.4, whole, whatever the test before broke."""
    started_cluster2.heal()
    return started_cluster2


@pytest.fixture
def cluster3(started_cluster3: NacosCluster) -> NacosCluster:
    """Three nodes of 3.1.0, whole, whatever the test before broke."""
    started_cluster3.heal()
    return started_cluster3


@pytest.fixture(
    params=[pytest.param("cluster2", marks=pytest.mark.real), pytest.param("cluster3", marks=pytest.mark.soak)]
)
def cluster(request: pytest.FixtureRequest) -> NacosCluster:
    """Each of them in turn, 3.1.0 in `make soak` alone."""
    cluster: NacosCluster = request.getfixturevalue(request.param)
    return cluster
