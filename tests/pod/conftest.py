"""The stage on which this folder's scenarios run."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pod.together import AT_ONCE, SCENARIOS
from stage import Stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage[str, None]]:
    """Start every selected scenario."""
    chosen = (item.name for item in request.session.items if item.name in SCENARIOS)
    made = Stage({name: SCENARIOS[name] for name in chosen}, AT_ONCE)
    yield made
    await made.close()
