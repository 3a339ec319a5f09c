"""What was read in the pod, judged: the budget, the app, its callers, its doors, and who may act."""

import os
from ipaddress import ip_address

from sidecar.lease import Port, Release
from sidecar.registration import OPENAPI, Road
from sidecar.settings import duration_text
from sidecar.traffic import BLIND, PROCFS

from .budget import arithmetic, cover
from .checks import Check, Verdict, check, listed
from .findings import Findings, Trouble, unreadable


URL = "NACOS_DRAIN_ACTUATOR_URL"
LOGIN = "NACOS_DRAIN_ACTUATOR_USERNAME and NACOS_DRAIN_ACTUATOR_PASSWORD"
SEEING = (
    "use the seccomp profile RuntimeDefault, or one that allows AF_NETLINK sockets; gVisor has none: there set "
    "NACOS_DRAIN_CONSUMER_CACHE to what the consumers really use"
)
KNOWN = ("exposed", "protected", "not exposed", "redirects", "answers")  # what the adapter says of an endpoint


def plan(f: Findings) -> Check:
    """Whether there is time for a drain."""
    made = f.drain.rules.plan
    if not made.fits:
        return check("plan", Verdict.FAILING, f"budget {made.budget:g} s of {made.grace_period:g} s", arithmetic(made))
    detail = (
        f"grace period {made.grace_period:g} s, of which the drain has {made.budget:g} s: proof {made.proof:g} s, "
        f"SETTLE {made.settle:g} s of at most {made.cap:g} s"
    )
    if made.settle < made.cap:
        return check("plan", Verdict.WARNING, f"{detail}: cut before its end", cover(made))
    if not made.covers_spring_cache:
        detail += f"; a cache of 35 s is not covered, NACOS_DRAIN_CONSUMER_CACHE being {made.consumer_cache:g} s"
    return check("plan", Verdict.OK, detail)


# -- the app ---------------------------------------------------------------------------------------------------------


def app(f: Findings) -> Check:
    """Whether the app is there, and how much of it can be seen."""
    seen, life = f.drain.app, f.drain.app.life
    wanted = f.drain.rules.app_ports or f.drain.rules.ports
    if seen.port is Port.OPEN:
        ports = listed(map(str, sorted(seen.ports)))
        if life is not None and life.pid is not None:
            return check("app", Verdict.OK, f"listens on {ports}, process {life.pid}")
        return check(
            "app", Verdict.OK, f"listens on {ports}; its process is not visible, its exit is seen by its sockets"
        )
    where = f"on {listed(map(str, sorted(wanted)))}" if wanted else "here"
    if any(known.record.enabled for known in f.drain.known.values()):
        detail = f"Nacos lists the app, but nobody listens {where}: its exit could not be seen"
        return check("app", Verdict.WARNING, detail, "set NACOS_DRAIN_APP_PORTS to the ports on which the app listens")
    if seen.port is Port.UNKNOWN:
        step = "let the container read /proc/net/tcp; a drain works without, and waits its whole time"
        return check("app", Verdict.UNKNOWN, "the kernel does not show who listens here", step)
    verdict = Verdict.UNKNOWN if f.starting else Verdict.FAILING
    step = "start the app; if it listens elsewhere, set NACOS_DRAIN_APP_PORTS; both containers have to be in one pod"
    return check("app", verdict, f"nobody listens {where}", step)


def traffic(f: Findings) -> Check:
    """Whether callers can be seen, so that SETTLE ends when they have stopped."""
    told, rules = f.traffic, f.drain.rules
    if told is None or isinstance(told, Trouble):
        detail = told.text if told is not None else "not asked"
        step = "`nacos-drain status --json` tells under traffic what the running sidecar sees"
        return check("traffic", Verdict.UNKNOWN, detail, step)
    cap = f"the cap of {rules.plan.cap:g} s"
    why = f" ({told.reason})" if told.reason else ""
    if told.source == BLIND:
        return check(
            "traffic", Verdict.WARNING, f"callers cannot be seen{why}: SETTLE always lasts until {cap}", SEEING
        )
    if told.source == PROCFS:
        detail = f"connections are seen, but not their use{why}: who keeps one open is waited for until {cap}"
        return check("traffic", Verdict.WARNING, detail, SEEING)
    if told.reason:
        step = "let the container have what that names: by its seccomp profile, by SELinux, and in /proc"
        detail = f"some calls may be missed{why}: a drain waits until {cap} whenever one may have been"
        return check("traffic", Verdict.WARNING, detail, step)
    detail = (
        "callers are seen in the kernel's sockets; a sidecar that has watched for less than "
        f"{duration_text(rules.quiet.look_back)} waits until {cap}"
    )
    if f.loaded.kubernetes and all(ip_address(each).is_link_local for each in rules.watched.nodes):
        detail = f"the node's address is not known, so the kubelet's probes would count as calls; {detail}"
        step = "set NACOS_DRAIN_NODE_IP: env valueFrom fieldRef status.hostIP"
        return check("traffic", Verdict.WARNING, detail, step)
    return check("traffic", Verdict.OK, detail)


def release(f: Findings) -> Check:
    """Whether the app can be let go."""
    match f.settings.release:
        case Release.HOOK:
            return check("release", Verdict.OK, "by the answer to preStop: needs no right")
        case Release.SIGNAL:
            return _signal(f)
        case Release.ACTUATOR:
            return _shutdown(f)


def _signal(f: Findings) -> Check:
    life = f.drain.app.life
    if life is not None and life.pid is not None:
        if may_signal(life.pid):
            return check("release", Verdict.OK, f"by SIGTERM: process {life.pid} is visible, and we may signal it")
        step = "give both containers the same runAsUser, or the sidecar CAP_KILL"
        return check("release", Verdict.FAILING, f"we may not signal process {life.pid}", step)
    step = "set shareProcessNamespace: true and the same runAsUser in both containers, or NACOS_DRAIN_RELEASE=hook"
    if f.settings.app_process is not None:
        detail = "no process is visible behind the app's port; NACOS_DRAIN_APP_PROCESS has to match exactly one then"
        return check("release", Verdict.WARNING, detail, f"{step}; or make sure of it with ps in this container")
    if life is None:
        return check(
            "release", Verdict.UNKNOWN, "by SIGTERM: the app does not listen, so its process is not known", step
        )
    return check("release", Verdict.FAILING, "by SIGTERM, but the process behind the app's port is not visible", step)


def may_signal(pid: int) -> bool:
    """Whether the kernel would let us: signal 0 asks, and does nothing."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except OSError:
        return True  # gone by now: whether we may is nobody's question
    return True


def _shutdown(f: Findings) -> Check:
    if f.exposed is None or isinstance(f.exposed, Trouble):
        return check("release", Verdict.UNKNOWN, "by /shutdown, but the actuator does not answer", "see actuator")
    told = f.exposed.get("shutdown", "")
    if told.startswith("exposed"):
        return check("release", Verdict.OK, "by the actuator's shutdown, which is exposed")
    if told.startswith("protected"):
        return check("release", Verdict.FAILING, f"by the actuator's shutdown: {told}", f"set or correct {LOGIN}")
    step = (
        "let the app expose shutdown and permit it (management.endpoint.shutdown.enabled=true; from Spring Boot 3.4 on "
        "management.endpoint.shutdown.access=unrestricted), or use another NACOS_DRAIN_RELEASE"
    )
    return check("release", Verdict.FAILING, f"by the actuator's shutdown: {told}", step)


# -- its doors -------------------------------------------------------------------------------------------------------


def actuator(f: Findings) -> Check:
    """Which endpoints are open, and so by which roads the app can leave."""
    settings = f.settings
    if not f.actuator:
        own = settings.deregister_url is not None
        detail = (
            "none is in use; your own deregister endpoint is not asked ahead, it might act" if own else "not in use"
        )
        return check("actuator", Verdict.OK, detail)
    secrets = (settings.actuator_username, settings.actuator_password)
    if problem := unreadable(*secrets, settings.deregister_body, settings.deregister_undo, settings.deregister_headers):
        step = "mount that file, or correct the variable with _FILE behind it that names it"
        return check("actuator", Verdict.FAILING, problem, step)
    told = f.exposed
    if told is None or (isinstance(told, Trouble) and told.rejected):
        step = f"set {URL}, or start the app: it is looked for where the app listens"
        return check("actuator", Verdict.UNKNOWN, "none was found", step)
    if isinstance(told, Trouble):
        return check("actuator", Verdict.FAILING, f"it does not answer: {told.text}", f"is the app up? Check {URL}")
    silent = [words for words in told.values() if not words.startswith(KNOWN)]
    if len(silent) == len(told):
        return check("actuator", Verdict.FAILING, silent[0], f"is the app up? Check {URL}")
    detail = ", ".join(f"{name} {words if words.startswith(KNOWN) else 'no answer'}" for name, words in told.items())
    roads = ", then ".join((*open_roads(f), OPENAPI.name))
    detail = f"{detail}; roads: {roads}"
    if not any(words.startswith("exposed") for words in told.values()):
        protected = any(words.startswith("protected") for words in told.values())
        step = f"set or correct {LOGIN}" if protected else f"check {URL}: the management port or base path is another"
        return check("actuator", Verdict.FAILING, detail, step)
    if not open_roads(f):
        protected = any(told.get(road.name, "").startswith("protected") for road in f.drain.rules.roads)
        step = "expose serviceregistry or nacos-deregister; without one, only Nacos' OpenAPI is left"
        return check("actuator", Verdict.WARNING, detail, f"set or correct {LOGIN}" if protected else step)
    return check("actuator", Verdict.OK, detail)


def open_roads(f: Findings) -> tuple[str, ...]:
    """The roads in the app that are open as far as could be asked, in their order."""
    return tuple(dict.fromkeys(road.name for road in ladder(f) if road.inside and is_open(f, road)))


def ladder(f: Findings) -> tuple[Road, ...]:
    """The roads that a drain would try, in their order."""
    removals = f.lease.removals if f.lease is not None else ()
    return tuple(dict.fromkeys(road for r in removals for road in r.roads)) or (*f.drain.rules.roads, OPENAPI)


def is_open(f: Findings, road: Road) -> bool:
    """Whether nothing that was read speaks against a road."""
    if road.name == "dubbo":
        return not isinstance(f.dubbo, Trouble)
    if f.exposed is None or isinstance(f.exposed, Trouble):
        return not f.actuator and road.inside  # the user's own endpoint, which nobody may ask ahead
    # an endpoint of one's own need not know OPTIONS: only a clear refusal means that it is shut
    return not f.exposed.get(road.name, "exposed").startswith(("not exposed", "protected", "redirects"))


def dubbo(f: Findings) -> Check:
    """Whether Dubbo's QoS port would obey."""
    told, address = f.dubbo, f.settings.dubbo_qos
    if address is None:
        return check("dubbo", Verdict.OK, "not in use")
    if isinstance(told, Trouble):
        step = "let the app open it to loopback (dubbo.application.qos-enable), or correct NACOS_DRAIN_DUBBO_QOS"
        return check("dubbo", Verdict.FAILING, told.text, step)
    if told is None:
        return check("dubbo", Verdict.UNKNOWN, "not asked yet", "`nacos-drain doctor` asks now")
    return check("dubbo", Verdict.OK, f"QoS answers at {address}, and would obey")


# -- who may act -----------------------------------------------------------------------------------------------------


def door(f: Findings) -> Check:
    """Who may start a drain."""
    settings = f.settings
    if problem := unreadable(settings.token):
        step = "mount that file, or correct NACOS_DRAIN_TOKEN_FILE: until then nobody is let in"
        return check("door", Verdict.FAILING, problem, step)
    if settings.token is not None:
        more = ", and loopback without it" if settings.loopback_open else ""
        return check("door", Verdict.OK, f"who sends the token may act{more}")
    if settings.listen.loopback:
        return check("door", Verdict.OK, f"only loopback reaches {settings.listen}")
    if settings.release is not Release.HOOK:
        detail = (
            f"without a token and with RELEASE={settings.release} only loopback may drain: a kubelet's hook is refused"
        )
        return check("door", Verdict.WARNING, detail, "set NACOS_DRAIN_TOKEN, and the same in the hook's X-Drain-Token")
    detail = "no token: loopback may do everything, and whoever calls himself a kubelet may start a drain"
    step = "set NACOS_DRAIN_TOKEN, or close the port with a NetworkPolicy: this stops accidents, not malice"
    return check("door", Verdict.WARNING, detail, step)


def push(f: Findings) -> Check:
    """Whether the push watch can work."""
    if not f.settings.push_watch:
        return check("push", Verdict.OK, "not in use")
    from sidecar.adapters.nacos_push.link import installed  # noqa: PLC0415  only those pay who switch it on

    if not installed():
        step = "pip install nacos-drain[grpc], or use the image that has it; else set NACOS_DRAIN_PUSH_WATCH=false"
        return check("push", Verdict.FAILING, "NACOS_DRAIN_PUSH_WATCH is on, and its extra is not installed", step)
    return check("push", Verdict.OK, "subscribes as a consumer does, one more reader for the proof")
