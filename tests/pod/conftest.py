"""The stage on which this folder's scenarios run."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pod.together import SCENARIOS, Stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """Start every selected scenario."""
    made = Stage([SCENARIOS[item.name] for item in request.session.items if item.name in SCENARIOS])
    yield made
    await made.close()
