"""Runs the scenarios of this folder side by side: nearly all of their time is waiting, and all have one minute."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable

import pytest


AT_ONCE = 10  # pods; each start takes half a second of a core

Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}  # by the name of their test


class Stage:
    """The scenarios of this run, in the order in which their results are asked for."""

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks = {scenario: asyncio.create_task(self._run(scenario)) for scenario in scenarios}

    async def _run(self, scenario: Scenario) -> None:
        async with self._room:
            await scenario()

    async def result(self, scenario: Scenario) -> None:
        """Wait for the end of one, or raise what it raised."""
        await self._tasks[scenario]

    async def close(self) -> None:
        """End what is still running, and its processes with it."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def side_by_side(scenario: Scenario) -> Callable[[Stage], Awaitable[None]]:
    """Make a test of a scenario: it only collects the result."""
    assert scenario.__name__ not in SCENARIOS

    @pytest.mark.timeout(120)  # the first waits for its turn among all
    @pytest.mark.asyncio(loop_scope="session")
    @functools.wraps(scenario)
    async def test(stage: Stage) -> None:
        await stage.result(scenario)

    del test.__wrapped__  # or pytest would look for the scenario's arguments
    SCENARIOS[test.__name__] = scenario
    return test
