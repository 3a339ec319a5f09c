"""The command line, and the one place where everything is wired to everything.

Heavy modules are imported by the command that needs them: `serve` has bound its port before aiohttp is loaded.
"""

import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import __version__
from .doctor.budget import arithmetic, cover, usual
from .lease import Release, Trigger
from .plan import Plan, fit
from .registration import OPENAPI
from .removal import PATIENCE
from .settings import Loaded, LogFormat, SecretUnreadable, SettingsError, load, options
from .settle import Rule
from .traffic import NETLINK


if TYPE_CHECKING:
    from collections.abc import Callable

    from .ports import Traffic
    from .registration import Identity
    from .runner import Runner
    from .settings import Secret, Settings


GOODBYE = 0.5
UNFIT, USAGE = 1, 2
STOPS = ((signal.SIGTERM, Trigger.SIGTERM), (signal.SIGINT, Trigger.SIGINT))


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Settings: NACOS_DRAIN_* variables or flags. Start with `nacos-drain demo`, then `nacos-drain plan`.",
)
@click.version_option(__version__, prog_name="nacos-drain")
@click.pass_context
def main(context: click.Context) -> None:
    """Take an app out of Nacos before it is stopped, prove it, and let it go when its callers have.

    Without a command this is `serve`.
    """
    if context.invoked_subcommand is None:
        context.invoke(serve)


# -- serve ---------------------------------------------------------------------------------------------------------


@main.command()
@options
def serve(**flags: Any) -> None:
    """Run the sidecar: listen for the preStop hook, drain, watch the app until it has exited."""
    early: list[Trigger] = []
    for number, trigger in STOPS:
        signal.signal(number, lambda *_, trigger=trigger: early.append(trigger))
    loaded = _load(flags)
    from .listener import bind  # noqa: PLC0415  serve binds before it loads

    listen = loaded.settings.listen
    try:
        sock = bind(listen.host, listen.port)
    except OSError as error:
        _fail(f"NACOS_DRAIN_LISTEN={listen}: cannot listen there ({error.strerror})")
    import asyncio  # noqa: PLC0415  serve binds before it loads

    asyncio.run(_serve(loaded, sock, early))


async def _serve(loaded: Loaded, sock: socket.socket, early: list[Trigger]) -> None:
    import asyncio  # noqa: PLC0415  serve binds before it loads

    import structlog  # noqa: PLC0415

    from .server import Door, Surface, serving  # noqa: PLC0415
    from .telemetry import Metrics, Rehearsals, Voices, configure  # noqa: PLC0415

    settings = loaded.settings
    console = settings.log_format is LogFormat.CONSOLE or (
        settings.log_format is LogFormat.AUTO and sys.stdout.isatty()
    )
    configure(console=console, level=settings.log_level.value)
    log, metrics, loop = structlog.get_logger(), Metrics(), asyncio.get_running_loop()

    def refused(path: str, peer: str) -> None:
        metrics.refusals.inc()
        log.warning("auth.refused", path=path, peer=peer, next_step="send X-Drain-Token as configured")

    door = Door(
        _reader(settings.token), loopback_open=settings.loopback_open, release=settings.release, on_refused=refused
    )
    surface = Surface(door)
    async with serving(surface.app(), sock):
        from .composition import assemble  # noqa: PLC0415
        from .doctor.preflight import Preflight  # noqa: PLC0415
        from .ports import Rejected  # noqa: PLC0415
        from .runner import Runner  # noqa: PLC0415

        port = sock.getsockname()[1]
        try:
            parts = assemble(loaded, own_ports=[port], on_request=metrics.request)
        except Rejected as error:  # an extra that a setting needs is not installed
            _fail(str(error))
        await parts.traffic.detect()
        tell = log.info if parts.traffic.source == NETLINK else log.warning
        tell("traffic.source", source=parts.traffic.source, reason=parts.traffic.reason or None)
        runner = Runner(
            parts.rules,
            parts.registry,
            parts.app,
            inside=parts.inside,
            actuator=parts.actuator if parts.rules.actuator else None,
            watch=parts.watch,
            traffic=parts.traffic,
            pod=socket.gethostname(),
        )
        runner.observers.append(Voices(metrics, runner.report))
        runner.observers.append(lambda before, after, *_: _tell_new_plan(log, before.rules.plan, after.rules.plan))
        preflight = Preflight(parts, loaded, runner, Rehearsals(metrics))

        def exposition() -> bytes:
            metrics.callers(runner.drain.settle.rhythms())
            return metrics.text()

        def about() -> dict[str, object]:
            return {**_about(runner), "traffic": _traffic(runner, parts.traffic), "preflight": list(preflight.rows)}

        surface.attach(runner, metrics=exposition, about=about)
        log.info("serve.listening", listen=str(settings.listen), port=port, version=__version__)
        if settings.token is None and settings.release is Release.HOOK and not settings.listen.loopback:
            log.warning(
                "auth.open",
                next_step="whoever reaches this port and calls himself a kubelet may start a drain: that stops "
                "accidents, not malice. Set NACOS_DRAIN_TOKEN, or close the port with a NetworkPolicy",
            )
        for warning in loaded.warnings:
            log.warning("settings.warning", warning=warning)
        _tell_plan(log, parts.rules.plan)
        async with runner.running():
            for number, trigger in STOPS:
                loop.add_signal_handler(number, _signalled, runner, trigger)
            for trigger in early:
                _signalled(runner, trigger)
            checking = asyncio.create_task(preflight.run(), name="preflights")
            await runner.ended()
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # nobody waits for a polite goodbye: SIGKILL may be a second away
            async with asyncio.timeout(GOODBYE):
                await parts.close()


def _signalled(runner: "Runner", trigger: Trigger) -> None:
    """SIGTERM, and SIGINT from a runtime, starts or joins; SIGINT again ends the waits.

    Ctrl-C at a terminal stops the sidecar, not the app.
    """
    if trigger is Trigger.SIGINT and sys.stdin is not None and sys.stdin.isatty():
        runner.leave()
        return
    if trigger is Trigger.SIGINT and runner.drain.stop:
        runner.release()
    runner.trigger(trigger)


def _reader(secret: "Secret | None") -> "Callable[[], str | None] | None":
    """The token, read again at each use; one that cannot be read admits nobody, and says so."""
    if secret is None:
        return None

    def read() -> str | None:
        try:
            return secret.read()
        except SecretUnreadable as error:
            import structlog  # noqa: PLC0415  serve binds before it loads

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
                "publisher": k.publisher.value if k.publisher else None,
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


MOST_CALLERS = 10  # on /status; there may be thousands


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
    return {"source": told.source, "registers": told.registers, "stop_wait": told.stop_wait}


def _tell_new_plan(log: Any, before: Plan, after: Plan) -> None:
    """Tell it again: the app has told of its built-in wait."""
    if after != before:
        _tell_plan(log, after)


def _tell_plan(log: Any, plan: Plan) -> None:
    if not plan.fits:
        log.error("plan.misfit", **plan.as_json(), next_step=arithmetic(plan))
    elif plan.settle < plan.cap:
        log.warning("plan.shrunk", **plan.as_json(), next_step=cover(plan))
    else:
        log.info("plan", **plan.as_json())


# -- plan ----------------------------------------------------------------------------------------------------------


@main.command()
@options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def plan(*, as_json: bool, **flags: Any) -> None:
    """Print the timetable that these settings make, and whether it fits. Exits 1 when it does not."""
    loaded = _load(flags, need_nacos=False)
    fitted = fit(loaded.grace_period, loaded.settings.app_stop, loaded.settings.consumer_cache)
    rule = loaded.settings.settle_rule
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps({**fitted.as_json(), "settle_rule": _numbers(rule)}))
    else:
        click.echo(timetable(fitted, rule, inside=_asks_the_app(loaded.settings)))
    try:
        load(os.environ, flags)
    except SettingsError as error:
        click.echo(f"serve would not start yet: {error}", err=True)
    if not fitted.fits:
        click.echo(arithmetic(fitted), err=True)
        sys.exit(UNFIT)


def _asks_the_app(settings: "Settings") -> bool:
    """Whether a road in the app is named, which goes first."""
    return bool(settings.actuator_url or settings.deregister_url or settings.dubbo_qos)


def _numbers(rule: Rule) -> dict[str, float]:
    """Those that can be set."""
    return {"floor": rule.floor, "quiet": rule.quiet, "factor": rule.factor, "look_back": rule.look_back}


def timetable(plan: Plan, rule: Rule, *, inside: bool = False) -> str:
    """The plan for eyes: when each phase begins at the latest, counted from the trigger.

    `inside`: the app itself is asked first.
    """
    released = max(0.0, plan.budget)
    road = "enabled=false by the OpenAPI"
    if inside:
        road = f"the app's own road; where that shows nothing in {PATIENCE:g} s, {road}"
    rows = (
        (0.0, "DEREGISTER", f"{road}; with VERIFY at most {plan.proof:g} s"),
        (0.0, "VERIFY", "every Nacos node reads clean, twice"),
        (
            min(plan.proof, released),
            "SETTLE",
            f"until callers have stopped: {_settling(plan, rule)}",
        ),
        (released, "RELEASE", "the hook is answered at the latest; the app gets SIGTERM"),
        (released, "AWAIT_EXIT", f"the app has {plan.app_stop:g} s, and 3 s to spare"),
        (plan.grace_period, "SIGKILL", "the end of the grace period"),
    )
    lines = [f"{at:6g} s  {phase:<11} {text}" for at, phase, text in rows]
    lines.append("")
    lines.append(
        f"budget = {plan.grace_period:g} (GRACE_PERIOD) - {plan.app_stop:g} (APP_STOP) - 3 (margin) = {plan.budget:g} s"
    )
    least, most = usual(plan, rule.floor), usual(plan, plan.cap)
    span = f"{least:g} to {most:g} s" if least < most else f"{most:g} s"
    stopped = f"a caller has stopped after {rule.quiet:g} s of silence, or {rule.factor:g} times its longest pause"
    lines += [
        f"usually the app is released after {span}: proof takes 1 s, and the callers decide about the rest",
        f"{stopped}; a sidecar younger than {rule.look_back:g} s cannot tell",
        f"covers a 35 s consumer cache: {'yes' if plan.covers_spring_cache else 'no: ' + cover(plan)}",
    ]
    return "\n".join(lines)


def _settling(plan: Plan, rule: Rule) -> str:
    if plan.settle >= plan.cap:
        return f"{rule.floor:g} s at least, {plan.cap:g} s at most"
    return f"at most {plan.settle:g} s and what the proof leaves over (it wants {plan.cap:g} s)"


# -- doctor --------------------------------------------------------------------------------------------------------


@main.command()
@options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def doctor(*, as_json: bool, **flags: Any) -> None:
    """Rehearse a drain without changing anything, and tell what would be in its way.

    Run it where the sidecar runs, with the same settings; it opens connections of its own:

        kubectl exec deploy/shop -c nacos-drain -- nacos-drain doctor

    It looks at the plan, every Nacos node, the login, who the app is and whether it is listed, the right to write
    (asked in a way that writes nothing), the app and its doors, whether its callers can be seen, and who may act. A
    warning is worth knowing and no obstacle; what could not be read is never good news. It takes 15 s at most.

    Exits 0 when all is well, warnings included, 1 when a check is failing or unknown, 2 for wrong settings.
    """
    import asyncio  # noqa: PLC0415

    loaded = _load(flags)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    sys.exit(asyncio.run(_doctor(loaded, as_json=as_json)))


async def _doctor(loaded: Loaded, *, as_json: bool) -> int:
    import dataclasses  # noqa: PLC0415
    import json  # noqa: PLC0415

    from .composition import assemble  # noqa: PLC0415
    from .doctor.checks import bad  # noqa: PLC0415
    from .doctor.outlook import text  # noqa: PLC0415
    from .doctor.rehearsal import judge, rehearse  # noqa: PLC0415

    quiet = dataclasses.replace(loaded, settings=dataclasses.replace(loaded.settings, push_watch=False))
    # to subscribe is the sidecar's business
    parts = assemble(quiet, own_ports=[loaded.settings.listen.port], visiting=True)
    try:
        findings = await rehearse(parts, loaded)
    finally:
        await parts.close()
    checks = judge(findings)
    failed = bad(checks)
    if as_json:
        click.echo(json.dumps({"schema": 1, "checks": [each.as_json() for each in checks], "ok": not failed}))
    else:
        click.echo(text(checks, findings))
    return UNFIT if failed else 0


# -- clients -------------------------------------------------------------------------------------------------------

URL = click.option(
    "--url",
    default=None,
    help="Where the sidecar listens. Default: the port of NACOS_DRAIN_LISTEN on 127.0.0.1.",
)


@main.command()
@URL
@click.option("--manual", is_flag=True, help="A person's drain: only what can be undone, and nobody is signalled.")
@click.option("--no-wait", is_flag=True, help="Start it and return at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def drain(*, url: str | None, manual: bool, no_wait: bool, as_json: bool) -> None:
    """Ask the sidecar for a drain and wait until the app may stop: for exec hooks, compose, and people.

    Without --manual this counts as a hook: with an actuator it may take a way that only a restart of the app undoes.

    Exits 0 when drained (or nothing was registered), 2 when the token is refused, 3 for any other outcome,
    4 when the sidecar cannot be reached.
    """
    import asyncio  # noqa: PLC0415

    from . import client  # noqa: PLC0415

    def progress(line: str) -> None:
        if not as_json:
            click.echo(line, err=True)

    asked = client.drain(
        _sidecar(url), manual=manual, wait=not no_wait, as_json=as_json, say=click.echo, progress=progress
    )
    sys.exit(asyncio.run(asked))


@main.command()
@URL
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="The whole of /status.")
def status(*, url: str | None, watch: bool, as_json: bool) -> None:
    """Show phase, evidence and the last report. Exits 4 when the sidecar cannot be reached."""
    import asyncio  # noqa: PLC0415

    from . import client  # noqa: PLC0415

    def say(text: str) -> None:
        if watch and sys.stdout.isatty() and not as_json:
            click.clear()
        click.echo(text)

    try:
        sys.exit(asyncio.run(client.status(_sidecar(url), watch=watch, as_json=as_json, say=say)))
    except KeyboardInterrupt:
        sys.exit(0)


@main.command()
@URL
def resume(*, url: str | None) -> None:
    """Give the lease back: the instance online again, the hooks that wait are answered with `aborted`.

    Exits 0 when it is on its way back, 1 when that is not possible (the reason is told), 2 when the token is refused,
    4 when the sidecar cannot be reached.
    """
    _act("resume", url)


@main.command()
@URL
def release(*, url: str | None) -> None:
    """End all waits of the drain under way: the app is let go now.

    Exits 0 when it is released, 1 when no drain is waiting, 2 when the token is refused, 4 when the sidecar cannot be
    reached.
    """
    _act("release", url)


def _act(what: str, url: str | None) -> NoReturn:
    import asyncio  # noqa: PLC0415

    from . import client  # noqa: PLC0415

    sys.exit(asyncio.run(client.act(_sidecar(url), what, say=click.echo)))


def _sidecar(url: str | None) -> Any:
    from .client import Sidecar  # noqa: PLC0415

    settings = _load({}, need_nacos=False).settings
    host = settings.listen.host
    near = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  compared, not bound
    try:
        token = settings.token.read() if settings.token is not None else None
    except SecretUnreadable as error:
        _fail(str(error))
    return Sidecar((url or f"http://{near}:{settings.listen.port}").rstrip("/"), token)


# -- demo ----------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--nacos", default=None, metavar="URL", help="Use this real Nacos (2.x or 3.x) instead of the double.")
@click.option("--ways", default="sigterm,sleep,nacos-drain", show_default=True, help="Which ways to roll, in order.")
@click.option("--json", "as_json", is_flag=True, help="The last line is the table as JSON.")
def demo(*, nacos: str | None, ways: str, as_json: bool) -> None:
    """Roll a provider under load three ways on this machine, and count the failed requests."""
    import asyncio  # noqa: PLC0415

    from .demo import roll  # noqa: PLC0415

    try:
        sys.exit(asyncio.run(roll.run(nacos=nacos, ways=ways.split(","), as_json=as_json)))
    except KeyboardInterrupt:
        sys.exit(130)


# -- shared --------------------------------------------------------------------------------------------------------


def _load(flags: dict[str, Any], *, need_nacos: bool = True) -> Loaded:
    try:
        return load(os.environ, flags, need_nacos=need_nacos)
    except SettingsError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(USAGE)
