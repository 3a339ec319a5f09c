"""The command line, and the one place where everything is wired to everything.

Heavy modules are imported by the command that needs them: `serve` has bound its port before aiohttp is loaded.
"""

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import __version__
from .doctor.budget import arithmetic, cover, usual
from .lease import Trigger
from .plan import Plan, fit
from .removal import PATIENCE
from .settings import Loaded, SecretUnreadable, SettingsError, load, options
from .settle import Rule


if TYPE_CHECKING:
    from .runner import Runner
    from .settings import Settings


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

    Without a command this is `serve`. To be the init of an app, without a sidecar: `nacos-drain run -- COMMAND`, which
    is not listed below as it starts its command before any of this is loaded (`nacos-drain run --help`).
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

    from .ports import Rejected  # noqa: PLC0415
    from .service import live  # noqa: PLC0415

    def begin(runner: "Runner") -> None:
        for number, trigger in STOPS:
            asyncio.get_running_loop().add_signal_handler(number, _signalled, runner, trigger)
        for trigger in early:
            _signalled(runner, trigger)

    try:
        await live(loaded, sock, sys.stdout, begin)
    except Rejected as error:  # an extra that a setting needs is not installed
        _fail(str(error))


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


# -- check ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("files", nargs=-1, metavar="FILE|DIR|-…")
@click.option("--kubernetes-version", "kubernetes", metavar="1.N", help="The oldest Kubernetes that this is for.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "info", "never"]),
    default="error",
    show_default=True,
    help="Exit 1 for a finding as bad as this.",
)
@click.option("--all", "all_", is_flag=True, help="Show what is only worth knowing, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option("--rules", "list_rules", is_flag=True, help="List the rules and why they bite, and exit.")
def check(
    *, files: tuple[str, ...], kubernetes: str | None, fail_on: str, all_: bool, as_json: bool, list_rules: bool
) -> None:
    r"""Tell what these manifests will do when their pods are stopped, before a release does.

    \b
        nacos-drain check deployment.yaml
        helm template shop | nacos-drain check -
        nacos-drain check --kubernetes-version 1.29 k8s/

    Give a pod's Service, NetworkPolicy and ConfigMap with it, and they are looked at together. To accept a finding,
    name it on the pod: `nacos-drain/check-ignore: one-replica`. Templates have to be rendered first.

    Exits 0 when nothing as bad as --fail-on was found, 1 when something was, 2 when a file cannot be read or nothing
    in it makes pods.
    """
    try:
        from .manifests import telling  # noqa: PLC0415  PyYAML is an extra
        from .manifests.checking import check as look  # noqa: PLC0415
        from .manifests.findings import Severity  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        _fail("check reads YAML, which is an extra: pip install 'nacos-drain[manifests]'")
    if list_rules:
        click.echo(telling.rules())
        return
    if not files:
        _fail("check: which files? `nacos-drain check deployment.yaml`, or - for what is piped in")
    checked = look(_manifests(files), _minor(kubernetes))
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps(telling.as_json(checked)))
    else:
        click.echo(telling.text(checked, all_=all_))
    for unreadable in checked.unreadable:
        click.echo(str(unreadable), err=True)
    if checked.unreadable:
        sys.exit(USAGE)
    if not checked.pods and not checked.passed:
        _fail("nothing in there makes pods: give a Deployment, StatefulSet, DaemonSet, Job, CronJob, Rollout or Pod")
    worst = checked.worst()
    if fail_on != "never" and worst is not None and worst.rank <= Severity(fail_on).rank:
        sys.exit(UNFIT)


@main.command()
@click.argument("files", nargs=-1, metavar="FILE|DIR|-…")
@click.option("--nacos", metavar="HOST:PORT,…", help="The Nacos servers, each by its own name. Needed.")
@click.option("--image", default=f"nacos-drain:{__version__}", show_default=True, help="The sidecar's image.")
@click.option("--service", default="", help="As what the app is registered. Default: the object's name.")
@click.option(
    "--login-secret", "login", default="", metavar="NAME", help="A Secret with username and password for Nacos."
)
@click.option("--token", default=None, help="Between hook and sidecar. Default: 32 new random characters.")
@click.option("--kubernetes-version", "kubernetes", metavar="1.N", help="Before 1.29 the sidecar is an ordinary one.")
@click.option("--name", "names", multiple=True, help="Only the object of this name; can be given again.")
@click.option("--diff", is_flag=True, help="Print what would change, and nothing else.")
@click.option("--write", is_flag=True, help="Change the files themselves.")
@click.option("--uninject", "undo", is_flag=True, help="Take out what inject has written; what it replaced comes back.")
def inject(
    *,
    files: tuple[str, ...],
    nacos: str | None,
    image: str,
    service: str,
    login: str,
    token: str | None,
    kubernetes: str | None,
    names: tuple[str, ...],
    diff: bool,
    write: bool,
    undo: bool,
) -> None:
    r"""Write nacos-drain into manifests: sidecar, hook, grace period and token.

    \b
        nacos-drain inject --nacos nacos-0.nacos:8848,nacos-1.nacos:8848 --diff deployment.yaml
        helm template shop | nacos-drain inject --nacos nacos:8848 - | kubectl apply -f -
        nacos-drain inject --uninject --write deployment.yaml

    All lines that it does not write stay as they are. A pod that has nacos-drain is not changed again; one that is
    written in a way that it does not understand is left alone, and it says so. It changes pods in which Nacos is named
    or that have a hook, or the only one there is; --name names others. The result is printed, and what became of each
    pod told on stderr.

    Exits 0 when all was done, 1 when a pod was left alone that it does not understand, 2 when a file cannot be read.
    """
    try:
        from .manifests import injecting  # noqa: PLC0415  PyYAML is an extra
        from .manifests.documents import Unreadable  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        _fail("inject reads YAML, which is an extra: pip install 'nacos-drain[manifests]'")
    if not files:
        _fail("inject: which files? `nacos-drain inject --nacos nacos:8848 deployment.yaml`, or - for what is piped in")
    if not undo and not (nacos or "").strip():
        _fail("inject: --nacos is missing: the Nacos servers, as nacos-0.nacos:8848,nacos-1.nacos:8848")
    given = _with_one_output(files, write=write, diff=diff)
    import secrets  # noqa: PLC0415

    wanted = injecting.Wanted(image, nacos or "", token or secrets.token_hex(16), service, login, _minor(kubernetes))
    done = []
    for name, data in given:
        try:
            done.append(injecting.uninject(data, name, names) if undo else injecting.inject(data, name, wanted, names))
        except Unreadable as error:
            _fail(str(error))
    for (name, data), result in zip(given, done, strict=True):
        for note in result.notes:
            click.echo(note, err=True)
        if diff:
            click.echo(injecting.difference(name, data, result), nl=False)
        elif not write:
            sys.stdout.buffer.write(result.text.encode())
        elif result.text.encode() != data:
            _write(name, result.text)
    if any(result.left for result in done):
        sys.exit(UNFIT)


def _write(name: str, text: str) -> None:
    from pathlib import Path  # noqa: PLC0415

    try:
        Path(name).write_bytes(text.encode())
    except OSError as error:
        _fail(f"{name}: cannot be written ({error.strerror})")


def _with_one_output(files: tuple[str, ...], *, write: bool, diff: bool) -> list[tuple[str, bytes]]:
    """The files, where it is clear what is to become of the result."""
    if write and "-" in files:
        _fail("inject: --write needs files: what is piped in has no place to be written to")
    given = _manifests(files)
    if len(given) > 1 and not write and not diff:
        _fail(f"inject: {len(given)} files, and one output: --write changes them, --diff shows what would change")
    return given


def _manifests(files: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """What the arguments name; of a folder all YAML files, in order."""
    from pathlib import Path  # noqa: PLC0415

    found = []
    for name in files:
        if name == "-":
            found.append(("<stdin>", sys.stdin.buffer.read()))
            continue
        path = Path(name)
        inside = sorted(each for each in path.rglob("*") if each.suffix in {".yaml", ".yml"} and each.is_file())
        if path.is_dir() and not inside:
            _fail(f"{name}: no .yaml or .yml file in this folder")
        try:
            found += [(str(each), each.read_bytes()) for each in (inside if path.is_dir() else [path])]
        except OSError as error:
            _fail(f"{error.filename}: cannot be read ({error.strerror})")
    return found


def _minor(version: str | None) -> int | None:
    """The minor version of a Kubernetes 1.x, however exactly it is told: 1.29, v1.29.4+k3s1."""
    if version is None:
        return None
    major, _, rest = version.strip().removeprefix("v").partition(".")
    minor = rest.partition(".")[0].rstrip("+")
    if major != "1" or not minor.isdecimal():
        _fail(f"--kubernetes-version {version}: no version of Kubernetes. Valid: 1.29, v1.29.4")
    return int(minor)


# -- shared --------------------------------------------------------------------------------------------------------


def _load(flags: dict[str, Any], *, need_nacos: bool = True) -> Loaded:
    try:
        return load(os.environ, flags, need_nacos=need_nacos)
    except SettingsError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(USAGE)
