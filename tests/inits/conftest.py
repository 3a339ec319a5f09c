"""The stage on which the inits are played with."""

import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from inits.stage import Stage
from inits.subjects import missing


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def inits(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """Start every selected case; none of them dumps core."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    functions = [each for each in request.session.items if isinstance(each, pytest.Function)]
    chosen: list[dict[str, Any]] = [each.callspec.params for each in functions if "inits" in each.fixturenames]
    plays = [(each["row"], each["case"]) for each in chosen]
    made = Stage((row, case) for row, case in plays if not missing(case.name, case.place))
    yield made
    await made.close()
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
