"""What the app is registered as, judged: whether that is known, and whether Nacos has it."""

from collections.abc import Iterator

from sidecar.drain import Known
from sidecar.lease import Port, Residue
from sidecar.registration import Publisher, Record, Service

from .checks import Check, Remark, Verdict, check, listed, together
from .findings import Findings, Trouble, View
from .nacos import SERVERS


HELD = {
    Publisher.GRPC: "held by the app's gRPC connection: Nacos forgets enabled=false 60 s after that is gone",
    Publisher.BATCH: "registered in a batch: Nacos never forgets an enabled=false there, and the sidecar undoes it",
    Publisher.BEAT: "held by HTTP beats: enabled=false survives them, a removal does not while they go on",
    Publisher.PERSISTENT: "persistent: its enabled=false stays until the next life is up and the sidecar undoes it",
    Publisher.UNKNOWN: "Nacos does not tell who holds it, so the drain is as careful as with beats",
    None: "who holds it was not asked",
}


def identity(f: Findings) -> Check:
    """Whether it is known what the app is registered as, and who says so."""
    drain, settings = f.drain, f.settings
    told = drain.identity
    if not drain.registers and told is not None:
        detail = f"the app does not register (registerEnabled=false), {_by(told.source)}: there is nothing to drain"
        return check("identity", Verdict.OK, detail)
    if not drain.services:
        return _unidentified(f)
    said = told.instance if told is not None else None
    service = "NACOS_DRAIN_NACOS_SERVICE" if drain.rules.services else _by(told.source if told else "")
    if f.lease is None or not f.lease.removals:
        return _portless(f)
    if said is not None and not drain.rules.ports:
        port = _by(told.source if told else "")
    elif settings.nacos.port:
        port = "NACOS_DRAIN_NACOS_PORT"
    else:
        port = "NACOS_DRAIN_APP_PORTS" if settings.app_ports else "the only port on which anybody listens here"
    address = "NACOS_DRAIN_NACOS_IP" if settings.nacos.ip else "this pod's own addresses" if said is None else service
    names = listed(str(r.instance) for r in f.lease.removals)
    return check("identity", Verdict.OK, f"{names} (service: {service}; ip: {address}; port: {port})")


def _by(source: str) -> str:
    return f"by {source}" if source else "by the app's actuator"


def _unidentified(f: Findings) -> Check:
    drain = f.drain
    name = f"{SERVERS} and NACOS_DRAIN_NACOS_SERVICE"
    if drain.identity is not None:
        detail = f"the app has not registered yet, {_by(drain.identity.source)}"
        return check(
            "identity", Verdict.UNKNOWN, detail, "wait until the app is up; if it stays so, read the app's log"
        )
    if drain.app.port is Port.CLOSED:
        step = f"start the app; to know ahead of it, set {name}"
        return check("identity", Verdict.UNKNOWN, "nobody listens here who could tell", step)
    step = (
        "let the app show nacos-deregister of our starter, or nacosdiscovery, in "
        "management.endpoints.web.exposure.include (a profile's value replaces the default one's; "
        f"NACOS_DRAIN_ACTUATOR_URL says where the actuator is), or set {name}"
    )
    return check("identity", Verdict.FAILING, drain.unidentified or "the app was not asked yet", step)


def _portless(f: Findings) -> Check:
    """The service is known, and nothing of it could be taken out: without ports, or without an address."""
    if not f.drain.addresses:
        return check("identity", Verdict.FAILING, "this pod has no address of its own", "set NACOS_DRAIN_NACOS_IP")
    if not f.drain.app.ports:
        step = "start the app, or set NACOS_DRAIN_NACOS_PORT"
        return check("identity", Verdict.UNKNOWN, "no port is known: nobody listens here", step)
    ports = listed(map(str, sorted(f.drain.app.ports)))
    step = "set NACOS_DRAIN_NACOS_PORT to the registered one"
    return check("identity", Verdict.FAILING, f"it listens on {ports}, and which is registered is not known", step)


def instance(f: Findings) -> Check:
    """Whether Nacos has it, shows it to consumers, and lets us take it out."""
    drain = f.drain
    if not drain.registers:
        return check("instance", Verdict.OK, "nothing is registered, and nothing is meant to be")
    if drain.ambiguous:
        names = listed(str(i) for i in drain.ambiguous)
        step = "set NACOS_DRAIN_NACOS_PORT (or NACOS_DRAIN_APP_PORTS) to the app's own"
        return check("instance", Verdict.FAILING, f"several instances could be ours: {names}", step)
    if not drain.services:
        return check("instance", Verdict.UNKNOWN, "what to look for is not known", "see identity")
    return together("instance", _services(f))


def _services(f: Findings) -> Iterator[Remark]:
    for service in f.drain.services:
        known = [known for i, known in f.drain.known.items() if i.service == service]
        yield from (_known(f, each) for each in known)
        if not known:
            yield _absent(f, service)


def _known(f: Findings, known: Known) -> Remark:
    record = known.record
    name = str(record.instance)
    if not record.enabled:
        return _disabled(f, name, record)
    if not known.seen:
        step = "a drain would prove nothing: is the cluster right (NACOS_DRAIN_NACOS_CLUSTER)? Ask Nacos' administrator"
        return Remark(Verdict.FAILING, f"{name}: Nacos holds it, but shows it to no consumer", step)
    if not record.healthy:
        step = "look at the app: its beats do not arrive, or Nacos cannot reach it. A drain would not wait for callers"
        return Remark(Verdict.FAILING, f"{name}: listed, but unhealthy", step)
    without = [
        node
        for (node, service), view in f.views.items()
        if service == record.instance.service and isinstance(view, View) and not _shows(view, record)
    ]
    if without:
        step = "wait a second and try again; if it stays, that node does not follow its cluster"
        return Remark(Verdict.WARNING, f"{name}: listed, but not at {listed(without)}", step)
    detail = f"{name}: listed, weight {record.weight:g}; {HELD[f.drain.publisher(record.instance)]}"
    inside = any(r.roads[0].inside for r in (f.lease.removals if f.lease else ()) if r.instance == record.instance)
    if known.publisher is Publisher.BATCH and not inside:
        step = (
            "open a road in the app, so that nothing is left behind: serviceregistry, nacos-deregister or Dubbo's QoS"
        )
        return Remark(Verdict.WARNING, detail, step)
    return Remark(Verdict.OK, detail)


def _shows(view: View, record: Record) -> bool:
    return view.listed and any(row.instance == record.instance for row in view.records)


def _disabled(f: Findings, name: str, record: Record) -> Remark:
    if not record.mark:
        born = f.settings.clear_residue is Residue.BORN
        step = (
            "whoever disabled it in Nacos has to enable it; a drain writes nothing there. A folk hook's leftover is "
            "undone with NACOS_DRAIN_CLEAR_RESIDUE=born"
        )
        if born:
            step = "whoever disabled it in Nacos has to enable it; a drain writes nothing there"
        return Remark(Verdict.WARNING, f"{name}: disabled, and not by us", step)
    detail = f"{name}: disabled by a drain of ours ({record.mark})"
    if f.settings.clear_residue is Residue.NEVER:
        step = "enable it in the Nacos console: NACOS_DRAIN_CLEAR_RESIDUE=never leaves that to you"
        return Remark(Verdict.FAILING, detail, step)
    step = "the sidecar enables it when no drain is under way and the app listens; `nacos-drain status` says which"
    return Remark(Verdict.WARNING, detail, step)


def _absent(f: Findings, service: Service) -> Remark:
    """It was never seen: say what is there instead."""
    views = [view for (_, of), view in f.views.items() if of == service]
    failed = [view.text for view in views if isinstance(view, Trouble)]
    if not f.answering:
        return Remark(Verdict.UNKNOWN, f"{service}: no Nacos server answers", "see nodes")
    if failed and len(failed) == len(views):
        return Remark(Verdict.UNKNOWN, f"{service}: {failed[0]}", "try again when Nacos is well; see login too")
    if f.drain.trouble and not views:
        return Remark(Verdict.UNKNOWN, f"{service}: {f.drain.trouble}", "try again when Nacos is well")
    if f.starting:
        return Remark(Verdict.UNKNOWN, f"{service}: not registered yet", "wait until the app is up")
    others = [row for view in views if isinstance(view, View) for row in view.records]
    if others:
        there = listed(row.instance.address for row in others)
        step = "set NACOS_DRAIN_NACOS_PORT to the port that the app is registered with, or start the app"
        return Remark(Verdict.FAILING, f"{service}: registered from here with another port: {there}", step)
    if service in f.services and f.services[service] is None:
        step = (
            "check NACOS_DRAIN_NACOS_SERVICE, NACOS_DRAIN_NACOS_GROUP and NACOS_DRAIN_NACOS_NAMESPACE (its id, not its "
            "name), or start the app"
        )
        return Remark(Verdict.FAILING, f"{service}: Nacos knows no such service", step)
    step = (
        "check NACOS_DRAIN_NACOS_IP and NACOS_DRAIN_NACOS_CLUSTER; in a wrong group or namespace (its id, not its "
        "name) nothing of it is seen either. Or start the app"
    )
    addresses = listed(f.drain.addresses)
    return Remark(Verdict.FAILING, f"{service}: nothing of this pod is registered ({addresses})", step)
