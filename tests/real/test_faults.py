"""What can go wrong in a drain, on real servers: the rows of docs/faults.md, each checked by an independent watcher.

`make faults` writes the table from what these tests found. The rows that wait for a minute, and the cluster that costs
one to start, are played by `make soak`.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from real import rows_inside, rows_outside, rows_restarts
from real.rows import BOTH, FAULTS, Kind, Stage, yard


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stages(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Stage]]:
    """All rows of a server begin when the first of them is asked for."""
    chosen = [item.callspec.params for item in request.session.items if item.module is request.module]  # type: ignore[attr-defined]  # a test function has both
    async with AsyncExitStack() as stack:
        made: dict[str, Stage] = {}
        for version, fixture in zip(BOTH, ("nacos2", "nacos3"), strict=True):
            names = {(each["name"], each["kind"]) for each in chosen if each["server"] == version}
            rows = [(f, kind) for f in FAULTS for kind in f.kinds if (f.name, kind) in names]
            if rows:
                here = await stack.enter_async_context(yard(request.getfixturevalue(fixture)))
                made[version] = Stage(here, rows)
                stack.push_async_callback(made[version].close)
        yield made


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("server", "name", "kind"), PLAYED)
async def test_fault(server: str, name: str, kind: Kind, stages: dict[str, Stage]) -> None:
    await stages[server].result(name, kind)
