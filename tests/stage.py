"""Plays many scenarios side by side: nearly all of their time is waiting."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar


K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Stage(Generic[K, T]):
    """The scenarios of a run, begun in the order in which their results are asked for.

    They go on only while a test of the loop that they were begun on is awaited: all of them have to be of one loop.
    """

    def __init__(self, plays: Mapping[K, Callable[[], Awaitable[T]]], at_once: int) -> None:
        self._room = asyncio.Semaphore(at_once)
        self._tasks = {key: asyncio.create_task(self._play(play)) for key, play in plays.items()}

    async def _play(self, play: Callable[[], Awaitable[T]]) -> T:
        async with self._room:
            return await play()

    async def result(self, key: K) -> T:
        """Wait for the end of one, or raise what it raised."""
        return await self._tasks[key]

    async def close(self) -> None:
        """End what is still running, and its processes with it."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
