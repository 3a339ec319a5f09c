"""The drain beside the command whose init we are: what `run` starts when the command runs.

It lives in a thread with a loop of its own. The init tells it what happens, and it tells the init when the command may
hear what we were told.
"""

import asyncio
import os
import signal
import socket
import sys

import structlog

from .entrypoint import USAGE, complain
from .init import Init
from .lease import Life, State, Trigger
from .listener import bind
from .plan import Plan
from .ports import App, Rejected
from .runner import Runner
from .service import live
from .settings import Loaded, SettingsError, load


PATIENCE = 0.5  # seconds that the init grants the drain beyond its own limits
KILL_BEFORE_END = 1.5  # of the grace period: the end is still to be told


def beside(init: Init) -> int | None:
    """Drain before the command hears of its end, and look after what it leaves. The code to exit with, if not its own.

    Wrong settings end the command, so that a rollout stops at the first pod, as it does with `serve`.
    """
    try:
        loaded = load(os.environ, {})
        asyncio.run(_live(init, loaded, _port(loaded) if init.options.server else None))
    except (SettingsError, Rejected) as error:
        complain(f"run: {error}")
        return USAGE
    return None


def _port(loaded: Loaded) -> socket.socket | None:
    listen = loaded.settings.listen
    try:
        return bind(listen.host, listen.port)
    except OSError as error:  # the app's perhaps, which goes first; signals need no port
        complain(f"run: NACOS_DRAIN_LISTEN={listen}: cannot listen there ({error.strerror}), so there is no HTTP")
        return None


async def _live(init: Init, loaded: Loaded, sock: socket.socket | None) -> None:
    gone = asyncio.Event()

    def begin(runner: Runner) -> None:
        _limit(init, runner.drain.rules.plan)
        runner.observers.append(lambda _, after, *__: _limit(init, after.rules.plan))
        init.attach(_Guest(init, runner, gone))

    await live(loaded, sock, sys.stderr, begin, init_of=lambda app: _Command(app, init, gone))


def _limit(init: Init, plan: Plan) -> None:
    init.limit(max(0.0, plan.budget) + PATIENCE, max(PATIENCE, plan.grace_period - KILL_BEFORE_END))


class _Guest:
    """What the init tells, on its own thread."""

    def __init__(self, init: Init, runner: Runner, gone: asyncio.Event) -> None:
        self._init = init
        self._runner = runner
        self._gone = gone
        self._loop = asyncio.get_running_loop()

    def stop(self, number: int) -> None:
        """Drain, or let it through where that is done."""

        def stop() -> None:
            self._runner.trigger(Trigger.SIGINT if number == signal.SIGINT else Trigger.SIGTERM)
            if self._runner.drain.state is not State.DRAINING:
                self._init.release()

        self._loop.call_soon_threadsafe(stop)

    def hurry(self) -> None:
        """End the waits."""
        self._loop.call_soon_threadsafe(self._runner.release)

    def exited(self, code: int) -> None:
        """Look after what it has left in Nacos."""

        def exited() -> None:
            structlog.get_logger().info("run.exited", code=code)
            self._gone.set()
            self._runner.trigger(Trigger.EXIT)

        self._loop.call_soon_threadsafe(exited)

    def tell(self, event: str, **fields: object) -> None:
        """Log it."""
        self._loop.call_soon_threadsafe(lambda: structlog.get_logger().warning(event, **fields))


class _Command:
    """The App that we have started: nobody knows better when it has ended, and nobody else may signal it."""

    def __init__(self, app: App, init: Init, gone: asyncio.Event) -> None:
        self._init = init
        self._gone = gone
        self.look = app.look
        self.hung = app.hung

    async def exited(self, _: Life) -> None:
        """Whatever becomes of the process that listens: it may be one of several."""
        await self._gone.wait()

    async def signal(self, _: Life | None, *, kill: bool) -> None:
        """What we were told, or SIGTERM; or SIGKILL to all of them."""
        if kill:
            self._init.kill()
        else:
            self._init.release()
