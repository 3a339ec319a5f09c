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

from .drain import Drain
from .entrypoint import USAGE, complain
from .init import Init
from .lease import Life, State, Trigger
from .listener import bind
from .plan import fit
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
        _tell_limits(init, loaded)
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


def _tell_limits(init: Init, loaded: Loaded) -> None:
    """Before there is a drain, and even if none ever is."""
    plan = fit(loaded.grace_period, loaded.settings.app_stop, loaded.settings.consumer_cache)
    init.limit(*_limits(plan.budget, plan.grace_period))


async def _live(init: Init, loaded: Loaded, sock: socket.socket | None) -> None:
    gone = asyncio.Event()

    def begin(runner: Runner) -> None:
        guest = _Guest(init, runner, gone)
        runner.observers.append(lambda _, after, *__: guest.limit(after))
        init.attach(guest)

    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230, PTH123  nothing waits there
        voice = sys.stderr or nowhere  # where it was closed at our start there is no log
        await live(loaded, sock, voice, begin, init_of=lambda app: _Command(app, init, gone))
    init.detach()  # closing the loop waits for whatever asks DNS in vain


def _limits(budget: float, grace: float) -> tuple[float, float]:
    """When the command hears a signal at the latest, and when it is killed: seconds from the signal."""
    return max(0.0, budget) + PATIENCE, max(PATIENCE, grace - KILL_BEFORE_END)


class _Guest:
    """What the init tells, on its own thread."""

    def __init__(self, init: Init, runner: Runner, gone: asyncio.Event) -> None:
        self._init = init
        self._runner = runner
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._limits = 0.0, 0.0

    def limit(self, drain: Drain) -> None:
        """Tell the init its limits when they have changed.

        A plan is fitted anew when the app tells of its own wait; and a grace period may have begun with a hook.
        """
        plan, lease = drain.rules.plan, drain.lease
        limits = _limits(plan.budget, plan.grace_period)
        if lease is not None and lease.sigterm_at is not None:
            limits = _limits(lease.deadline - lease.sigterm_at, lease.grace_end - lease.sigterm_at)
        if limits != self._limits:
            self._limits = limits
            self._init.limit(*limits)

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
            self._runner.trigger(Trigger.EXIT, code=code)

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
        if self._init.trouble:
            raise Rejected(self._init.trouble)
