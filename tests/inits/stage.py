"""Plays the cases of this run side by side: two processes of each are mostly waiting for one another."""

import asyncio
from collections.abc import Iterable

from inits.rows import Row
from inits.running import Case


AT_ONCE = 4
AT_MOST = 60.0  # seconds for one, whatever an init does not do


class Stage:
    """The plays, in the order in which their outcomes are asked for."""

    def __init__(self, plays: Iterable[tuple[Row, Case]]) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks = {row.key(case): asyncio.create_task(self._play(row, case)) for row, case in plays}

    async def _play(self, row: Row, case: Case) -> str:
        async with self._room, asyncio.timeout(AT_MOST):
            return await row.play(case)

    async def outcome(self, row: Row, case: Case) -> str:
        """Wait for one, or raise what it raised."""
        return await self._tasks[row.key(case)]

    async def close(self) -> None:
        """End what is still running, and its processes with it."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
