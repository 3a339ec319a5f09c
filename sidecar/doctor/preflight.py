"""The rehearsal inside `serve`: once when the first survey is over, again only while something is wrong.

It must never be in a drain's way. It asks nothing unless the lease is ARMED, and a trigger cancels it in the same turn
of the loop. It is hardly noticed by Nacos either: what the surveys know is not asked again, versions and thresholds are
asked for once, and the question whether we may write comes once, at a moment of its own within the first five minutes,
so that a fleet that starts together does not ask together.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sidecar import wishes
from sidecar.drain import EAGER_FOR, Drain
from sidecar.lease import State
from sidecar.runner import Runner
from sidecar.settings import Loaded

from .checks import Check, bad
from .rehearsal import Known, Parts, examine, judge


FIRST = 10.0  # seconds after the start, where no survey comes to an end
PERIOD = 300.0
PROBE_WITHIN = 300.0
PROBE_AGAIN = 3600.0  # where writing is not allowed: somebody has to change that first
JITTER = (0.85, 1.15)
PERMISSION = "permission"

Tell = Callable[[Sequence[Mapping[str, str | None]], bool], None]


class Preflight:
    """The checks of one sidecar, and when they are made.

    `tell` hears of each run: the rows, and whether anything in them is wrong that is not just due later.
    """

    def __init__(
        self,
        parts: Parts,
        loaded: Loaded,
        runner: Runner,
        tell: Tell,
        *,
        period: float = PERIOD,
        probe_within: float = PROBE_WITHIN,
        probe_again: float = PROBE_AGAIN,
    ) -> None:
        self._parts = parts
        self._loaded = loaded
        self._runner = runner
        self._tell = tell
        self._period, self._probe_again = period, probe_again
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._probe_at = self._born + _between(0.0, probe_within)
        self._known = Known()
        self._permission: Check | None = None  # as the newest probe found it
        self._asking: asyncio.Task[None] | None = None
        self._armed, self._surveyed, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._armed.set()
        self._bad = False
        self._over = False  # a survey came to an end, or there is nothing to survey
        self.rows: list[dict[str, str | None]] = []
        runner.observers.append(self._observe)

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST):
                    await self._surveyed.wait()
            while True:
                await self._armed.wait()
                self._news.clear()
                self._asking = asyncio.create_task(self._examine(), name="preflight")
                await asyncio.wait([self._asking])
                if self._asking.cancelled():
                    continue  # a drain is under way
                if (error := self._asking.exception()) is not None:  # a bug of ours is no reason to end a sidecar
                    self._bad = True
                    self._loop.call_exception_handler({"message": "a preflight check broke", "exception": error})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._next()):
                        await self._news.wait()
        finally:
            self._cancel()

    def _cancel(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _next(self) -> float | None:
        """When to ask again by itself; None: never."""
        now = self._loop.time()
        moments = [now + self._period * _between(*JITTER)] if self._bad else []
        if not self._known.permitted:
            moments.append(max(now, self._probe_at))
        return min(moments, default=None)

    def _observe(self, before: Drain, after: Drain, event: wishes.Event, _now: float) -> None:
        """Hear of each step of the drain, before anything follows from it."""
        failed = isinstance(event, wishes.Failed) and isinstance(event.effect, wishes.Survey)
        self._over |= failed or isinstance(event, wishes.Surveyed) or not after.registers
        if self._over and after.peeks:
            self._surveyed.set()
        if after.ready and not before.ready:
            self._news.set()  # what was not there yet is there now
        if after.state is State.ARMED:
            self._armed.set()
        else:
            self._armed.clear()
            self._cancel()

    async def _examine(self) -> None:
        drain, probe = self._runner.drain, self._loop.time() >= self._probe_at
        if drain.trouble:
            self._known.versions.clear()  # what was well may be down
        findings = await examine(self._parts, self._loaded, drain, self._known, probe=probe)
        now = self._loop.time()
        starting = not drain.ready and now - drain.born < EAGER_FOR
        checks = judge(replace(findings, starting=starting))
        if probe:
            self._permission = next(each for each in checks if each.name == PERMISSION)
            self._probe_at = now + self._probe_again * _between(*JITTER)
        elif (known := self._permission) is not None and not self._known.permitted:
            checks = tuple(known if each.name == PERMISSION else each for each in checks)
        self._bad = bad(each for each in checks if each.name != PERMISSION)
        at = self._runner.wall(now)
        self.rows = [{**each.as_json(), "at": at} for each in checks]
        self._tell(self.rows, self._bad or (self._permission is not None and bad([self._permission])))


def _between(least: float, most: float) -> float:
    return secrets.SystemRandom().uniform(least, most)
