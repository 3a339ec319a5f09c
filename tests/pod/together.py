"""Runs the scenarios of this folder side by side: nearly all of their time is waiting, and all have one minute."""

import functools
from collections.abc import Awaitable, Callable

import pytest
from stage import Stage


AT_ONCE = 10  # pods; each start takes half a second of a core

Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}  # by the name of their test


def side_by_side(scenario: Scenario) -> Callable[[Stage[str, None]], Awaitable[None]]:
    """Make a test of a scenario: it only collects the result."""
    assert scenario.__name__ not in SCENARIOS

    @pytest.mark.timeout(120)  # the first waits for its turn among all
    @pytest.mark.asyncio(loop_scope="session")
    @functools.wraps(scenario)
    async def test(stage: Stage[str, None]) -> None:
        await stage.result(scenario.__name__)

    del test.__wrapped__  # or pytest would look for the scenario's arguments
    SCENARIOS[test.__name__] = scenario
    return test
