"""A sidecar's life, whoever has started it: its port, its parts, its voices, and the drain in the middle.

`serve` runs it as a process of its own, `run` beside the command whose init it is.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from . import __version__
from .doctor.budget import arithmetic, cover
from .lease import Release
from .ports import App
from .registration import OPENAPI
from .server import Door, Surface, serving
from .settings import Loaded, LogFormat, Secret, SecretUnreadable
from .telemetry import TERMINATION_LOG, Metrics, Rehearsals, Voices, configure
from .traffic import NETLINK


if TYPE_CHECKING:
    from .plan import Plan
    from .ports import Traffic
    from .registration import Identity
    from .runner import Runner


GOODBYE = 0.5  # seconds: nobody waits for a polite one, SIGKILL may be near
MOST_CALLERS = 10  # on /status; there may be thousands


async def live(
    loaded: Loaded,
    sock: socket.socket | None,
    voice: TextIO,
    begin: "Callable[[Runner], object]",
    *,
    init_of: Callable[[App], App] | None = None,
) -> None:
    """Be there until the drain has ended. Raises Rejected where a setting needs an extra that is not installed.

    `sock` is bound, or there is no port; `begin` is called when triggers are welcome. `init_of`: we have started the
    app, and this is the app as its init knows it.
    """
    settings = loaded.settings
    console = settings.log_format is LogFormat.CONSOLE or (settings.log_format is LogFormat.AUTO and voice.isatty())
    configure(voice, console=console, level=settings.log_level.value)
    log, metrics = structlog.get_logger(), Metrics()

    def refused(path: str, peer: str) -> None:
        metrics.refusals.inc()
        log.warning("auth.refused", path=path, peer=peer, next_step="send X-Drain-Token as configured")

    door = Door(
        _reader(settings.token), loopback_open=settings.loopback_open, release=settings.release, on_refused=refused
    )
    surface = Surface(door)
    async with serving(surface.app(), sock) if sock is not None else contextlib.nullcontext():
        from .composition import assemble  # noqa: PLC0415  the port answers before the rest is loaded
        from .doctor.preflight import Preflight  # noqa: PLC0415
        from .runner import Runner  # noqa: PLC0415

        port = None if sock is None else sock.getsockname()[1]
        own = [] if port is None else [port]
        parts = assemble(loaded, own_ports=own, on_request=metrics.request, init=init_of is not None)
        await parts.traffic.detect()
        tell = log.info if parts.traffic.source == NETLINK else log.warning
        tell("traffic.source", source=parts.traffic.source, reason=parts.traffic.reason or None)
        runner = Runner(
            parts.rules,
            parts.registry,
            parts.app if init_of is None else init_of(parts.app),
            inside=parts.inside,
            actuator=parts.actuator if parts.rules.actuator else None,
            watch=parts.watch,
            traffic=parts.traffic,
            pod=socket.gethostname(),
        )
        word = TERMINATION_LOG if init_of is None else None  # else the container is the app's, and its last word too
        runner.observers.append(Voices(metrics, runner.report, termination_log=word))
        runner.observers.append(lambda before, after, *_: _tell_new_plan(log, before.rules.plan, after.rules.plan))
        preflight = Preflight(parts, loaded, runner, Rehearsals(metrics))

        def exposition() -> bytes:
            metrics.callers(runner.drain.settle.rhythms())
            return metrics.text()

        def about() -> dict[str, object]:
            return {**_about(runner), "traffic": _traffic(runner, parts.traffic), "preflight": list(preflight.rows)}

        surface.attach(runner, metrics=exposition, about=about)
        if port is not None:
            _tell_door(log, loaded, port)
        for warning in loaded.warnings:
            log.warning("settings.warning", warning=warning)
        _tell_plan(log, parts.rules.plan)
        async with runner.running():
            begin(runner)
            checking = asyncio.create_task(preflight.run(), name="preflights")
            await runner.ended()
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await parts.close()


def _tell_door(log: Any, loaded: Loaded, port: int) -> None:
    settings = loaded.settings
    log.info("serve.listening", listen=str(settings.listen), port=port, version=__version__)
    if settings.token is None and settings.release is Release.HOOK and not settings.listen.loopback:
        log.warning(
            "auth.open",
            next_step="whoever reaches this port and calls himself a kubelet may start a drain: that stops "
            "accidents, not malice. Set NACOS_DRAIN_TOKEN, or close the port with a NetworkPolicy",
        )


def _reader(secret: Secret | None) -> Callable[[], str | None] | None:
    """The token, read again at each use; one that cannot be read admits nobody, and says so."""
    if secret is None:
        return None

    def read() -> str | None:
        try:
            return secret.read()
        except SecretUnreadable as error:
            structlog.get_logger().error("auth.token_unreadable", error=str(error))
            return None

    return read


def _about(runner: "Runner") -> dict[str, object]:
    """What `/status` tells besides the report."""
    state = runner.drain
    life = state.app.life
    return {
        "version": __version__,
        "state": state.state.value,
        "ready": state.ready,
        "plan": state.rules.plan.as_json(),
        "app": {"port": state.app.port.value, "pid": life.pid if life else None, "ports": sorted(state.app.ports)},
        "known": [
            {
                "instance": str(i),
                "enabled": k.record.enabled,
                "weight": k.record.weight,
                "publisher": publisher.value if (publisher := state.publisher(i)) is not None else None,
                "at": runner.wall(k.at),
            }
            for i, k in state.known.items()
        ],
        "nodes": [{"node": name, "required": required} for name, required in state.nodes],
        "identity": _identity(state.identity),
        "unidentified": state.unidentified or None,
        "roads": [road.name for road in (*state.rules.roads, OPENAPI)],
        "registry_error": state.trouble or None,
        "traffic_source": state.settle.source,
    }


def _traffic(runner: "Runner", traffic: "Traffic") -> dict[str, object]:
    """What is known of the callers, those that were active last first."""
    settle = runner.drain.settle
    return {
        "source": settle.source,
        "reason": traffic.reason or None,
        "missed": settle.missed or None,
        "watching_since": runner.wall(settle.since),
        "seen_at": None if settle.seen_at is None else runner.wall(settle.seen_at),
        "rhythms": settle.rhythms(),
        "callers": [caller.as_json() for caller in settle.newest(MOST_CALLERS)],
        "omitted": max(0, len(settle.peers) - MOST_CALLERS),
    }


def _identity(told: "Identity | None") -> dict[str, object] | None:
    """What the app says of itself; none where it says nothing, or was not asked."""
    if told is None:
        return None
    return {
        "source": told.source,
        "registers": told.registers,
        "stop_wait": told.stop_wait,
        "nacos_client": told.client or None,
    }


def _tell_new_plan(log: Any, before: "Plan", after: "Plan") -> None:
    """Tell it again: the app has told of its built-in wait."""
    if after != before:
        _tell_plan(log, after)


def _tell_plan(log: Any, plan: "Plan") -> None:
    if not plan.fits:
        log.error("plan.misfit", **plan.as_json(), next_step=arithmetic(plan))
    elif plan.settle < plan.cap:
        log.warning("plan.shrunk", **plan.as_json(), next_step=cover(plan))
    else:
        log.info("plan", **plan.as_json())
