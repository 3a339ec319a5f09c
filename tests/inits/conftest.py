"""The stage on which the inits are played with."""

import asyncio
import resource
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from inits.rows import Row
from inits.running import Case
from inits.subjects import missing
from stage import Stage


AT_ONCE = 4
AT_MOST = 60.0  # seconds for one, whatever an init does not do


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def inits(request: pytest.FixtureRequest) -> AsyncIterator[Stage[str, str]]:
    """Start every selected case; none of them dumps core."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    functions = [each for each in request.session.items if isinstance(each, pytest.Function)]
    chosen: list[dict[str, Any]] = [each.callspec.params for each in functions if "inits" in each.fixturenames]
    plays = [(each["row"], each["case"]) for each in chosen]
    able = [(row, case) for row, case in plays if not missing(case.name, case.place)]
    made = Stage({row.key(case): partial(_play, row, case) for row, case in able}, AT_ONCE)
    yield made
    await made.close()
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


async def _play(row: Row, case: Case) -> str:
    async with asyncio.timeout(AT_MOST):
        return await row.play(case)
