"""What can go wrong in a drain, on real servers: the rows of docs/faults.md, each checked by an independent watcher.

`make faults` writes the table from what these tests found. The rows that wait for a minute, and the cluster that costs
one to start, are played by `make soak`.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from real import rows_inside, rows_outside, rows_restarts
from real.rows import BOTH, FAULTS, Kind, staged, yard
from rig.servers import NacosServer
from stage import Stage


assert {each.scenario.__module__ for each in FAULTS} == {m.__name__ for m in (rows_inside, rows_outside, rows_restarts)}
# -- playing them ----------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.timeout(400)

PLAYED = [
    pytest.param(
        server,
        each.name,
        kind,
        id=f"{server}-{kind}-{each.name}",
        marks=pytest.mark.soak if each.soak else pytest.mark.real,
    )
    for server in BOTH
    for each in FAULTS
    for kind in each.kinds
    if server in each.servers
]


class Stages:
    """A stage per server: its rows begin when the first of them is asked for, after those of the server before."""

    def __init__(self, request: pytest.FixtureRequest, stack: AsyncExitStack) -> None:
        self._request, self._stack = request, stack
        self._made: dict[str, Stage[tuple[str, Kind], None]] = {}

    async def of(self, version: str, nacos: NacosServer) -> Stage[tuple[str, Kind], None]:
        """The one of this server."""
        if version not in self._made:
            items = [item for item in self._request.session.items if isinstance(item, pytest.Function)]
            chosen = [item.callspec.params for item in items if item.module is self._request.module]
            names = {(each["name"], each["kind"]) for each in chosen if each["server"] == version}
            here = await self._stack.enter_async_context(yard(nacos))
            rows = [(f, kind) for f in FAULTS for kind in f.kinds if (f.name, kind) in names]
            self._made[version] = staged(here, rows)
            self._stack.push_async_callback(self._made[version].close)
        return self._made[version]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stages(request: pytest.FixtureRequest) -> AsyncIterator[Stages]:
    """The stages of this run."""
    async with AsyncExitStack() as stack:
        yield Stages(request, stack)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("server", "name", "kind"), PLAYED)
async def test_fault(request: pytest.FixtureRequest, server: str, name: str, kind: Kind, stages: Stages) -> None:
    nacos: NacosServer = request.getfixturevalue({"2.2.4": "nacos2", "3.1.0": "nacos3"}[server])
    stage = await stages.of(server, nacos)
    await stage.result((name, kind))
