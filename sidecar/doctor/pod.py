"""What was read in the pod, judged: the budget, the app, its callers, its release, and who may act."""

import os
from collections.abc import Iterator
from ipaddress import ip_address

from sidecar.lease import Port, Release
from sidecar.settings import duration_text
from sidecar.traffic import BLIND, PROCFS

from .budget import arithmetic, cover
from .checks import Check, Remark, Verdict, check, listed, together
from .findings import Findings, Trouble, unreadable


LOGIN = "NACOS_DRAIN_ACTUATOR_USERNAME and NACOS_DRAIN_ACTUATOR_PASSWORD"
SEEING = (
    "use the seccomp profile RuntimeDefault, or one that allows AF_NETLINK sockets; gVisor has none: there set "
    "NACOS_DRAIN_CONSUMER_CACHE to what the consumers really use"
)
WAIT = "spring.cloud.nacos.discovery.graceful-shutdown-wait-time"
LOSES_WAIT = "3.0."  # the Nacos client of Spring Cloud Alibaba 2025.0: rollout-baseline.md section 4


def plan(f: Findings) -> Check:
    """Whether there is time for a drain."""
    return together("plan", (_budget(f), *_built_in_wait(f)))


def _budget(f: Findings) -> Remark:
    made = f.drain.rules.plan
    if not made.fits:
        return Remark(Verdict.FAILING, f"budget {made.budget:g} s of {made.grace_period:g} s", arithmetic(made))
    detail = (
        f"grace period {made.grace_period:g} s, of which the drain has {made.budget:g} s: proof {made.proof:g} s, "
        f"SETTLE {made.settle:g} s of at most {made.cap:g} s"
    )
    if made.settle < made.cap:
        return Remark(Verdict.WARNING, f"{detail}: cut before its end", cover(made))
    if not made.covers_spring_cache:
        detail += f"; a cache of 35 s is not covered, NACOS_DRAIN_CONSUMER_CACHE being {made.consumer_cache:g} s"
    return Remark(Verdict.OK, detail)


def _built_in_wait(f: Findings) -> Iterator[Remark]:
    """Newer apps deregister and serve on for a while by themselves, also after a drain has done both for them."""
    told, app_stop = f.drain.identity, f.settings.app_stop
    if told is None or not told.stop_wait:
        return
    wait = f"the app's built-in wait of {told.stop_wait:g} s (gracefulShutdownWaitTime)"
    if told.client.startswith(LOSES_WAIT) and f.settings.release is not Release.ACTUATOR:
        detail = (
            f"{wait} is lost on SIGTERM with nacos-client {told.client}, and works by POST /actuator/shutdown only: "
            "no harm with the sidecar in front, whose drain is over by then"
        )
        yield Remark(Verdict.OK, detail)
    elif app_stop is not None and app_stop < told.stop_wait:
        detail = f"NACOS_DRAIN_APP_STOP is {app_stop:g} s, which is less than {wait}: it may be killed while it waits"
        step = f"set {WAIT}=0 in the app, as the drain has waited already, or raise NACOS_DRAIN_APP_STOP"
        yield Remark(Verdict.WARNING, detail, step)
    else:
        lost = "" if told.client else " (Spring Cloud Alibaba 2025.0 loses it on SIGTERM)"
        yield Remark(
            Verdict.OK, f"{wait} is counted{lost}; a drain has waited already, so {WAIT}=0 in the app saves it"
        )


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
