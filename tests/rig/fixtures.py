"""Real servers as fixtures: one of each version for the whole run, started when first asked for."""

import os
from collections.abc import Iterator

import pytest
from rig.build import RigUnavailableError
from rig.clients import find_client
from rig.servers import NacosServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A server's start, half a minute on a busy machine, is not the time of the test before it."""
    for item in items:
        if item.get_closest_marker("real") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60, func_only=True))


def serve(version: str, *, context_path: str = "/nacos") -> Iterator[NacosServer]:
    """Run a server; without what it takes, skip, or fail where nothing may be missing."""
    try:
        find_client()
        server = NacosServer(version, context_path=context_path)
        try:
            yield server.start()
        finally:
            server.close()
    except RigUnavailableError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def nacos2() -> Iterator[NacosServer]:
    """Nacos 2.2.4: no auth module in the published build."""
    yield from serve("2.2.4")


@pytest.fixture(scope="session")
def nacos3() -> Iterator[NacosServer]:
    """Nacos 3.1.0 with its default auth: admin calls need the token."""
    yield from serve("3.1.0")


@pytest.fixture(params=["nacos2", "nacos3"])
def real_nacos(request: pytest.FixtureRequest) -> NacosServer:
    """Each of them in turn."""
    server: NacosServer = request.getfixturevalue(request.param)
    return server
