"""Pods that share no network with anybody, as pods do not: what the kernel counts is theirs alone.

A network namespace belongs to a thread and to what that starts, so each scenario has a thread of its own, with a loop.
Like those of together.py they run side by side.
"""

import asyncio
import ctypes
import fcntl
import functools
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress

import pytest


CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}  # by the name of their test
_libc = ctypes.CDLL(None, use_errno=True)


class Apart:
    """The scenarios of this run, in the order in which their results are asked for."""

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        _Elsewhere(_nothing).result.result()  # raises OSError once, where we may not do this
        self._elsewhere = {scenario: _Elsewhere(scenario) for scenario in scenarios}

    async def result(self, scenario: Scenario) -> None:
        """Wait for the end of one, or raise what it raised."""
        await asyncio.wrap_future(self._elsewhere[scenario].result)

    def close(self) -> None:
        """End what is still running, and its processes with it."""
        for each in self._elsewhere.values():
            each.end()
        for each in self._elsewhere.values():
            each.join()


def alone(scenario: Scenario) -> Callable[[Apart], Awaitable[None]]:
    """Make a test of a scenario: it only collects the result."""
    assert scenario.__name__ not in SCENARIOS

    @pytest.mark.timeout(120)  # the first waits for nearly all of them
    @functools.wraps(scenario)
    async def test(apart: Apart) -> None:
        await apart.result(scenario)

    del test.__wrapped__  # or pytest would look for the scenario's arguments
    SCENARIOS[test.__name__] = scenario
    return test


class _Elsewhere(threading.Thread):
    """A scenario in a network namespace of its own."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(name=scenario.__name__)
        self.result: Future[None] = Future()
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
    """Give this thread a network of which only loopback is there. Raises OSError where it may not."""
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


async def _nothing() -> None:
    pass
