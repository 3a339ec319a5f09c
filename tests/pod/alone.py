"""Pods that share no network with anybody, as pods do not: what the kernel counts is theirs alone.

A network namespace belongs to a thread and to what that starts, so each scenario has a thread of its own, with a loop.
"""

import asyncio
import ctypes
import functools
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress

from needs import lacking
from pod.together import Scenario, side_by_side
from programs.raise_lo import raise_lo
from stage import Stage


CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def alone(scenario: Scenario) -> Callable[[Stage[str, None]], Awaitable[None]]:
    """Make a test of a scenario, as `side_by_side` does, with a network of its own."""

    @functools.wraps(scenario)
    async def elsewhere() -> None:
        thread = _Elsewhere(scenario)
        try:
            await asyncio.wrap_future(thread.result)
        finally:
            thread.end()
            await asyncio.to_thread(thread.join)

    return side_by_side(elsewhere)


class _Elsewhere(threading.Thread):
    """A scenario in a network namespace of its own."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(name=scenario.__name__)
        self.result: Future[None] = Future()
        self.result.set_running_or_notify_cancel()  # whoever waits may give up, and we still have a say
        self._scenario = scenario
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.start()

    def run(self) -> None:
        try:
            _leave()
            asyncio.run(self._play())
        except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
            self.result.set_exception(error)
        else:
            self.result.set_result(None)

    def end(self) -> None:
        """Break it off. Does nothing when it has ended."""
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _play(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await self._scenario()


def _leave() -> None:
    """Give this thread a network of which only loopback is there."""
    if _libc.unshare(CLONE_NEWNET):
        lacking(f"no network namespace for each pod: {os.strerror(ctypes.get_errno())}; run it as root")
    raise_lo()
