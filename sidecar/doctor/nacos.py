"""What was read at Nacos, judged: who answers, who we are there, what we may do, and what a drain could spoil."""

import re

from sidecar.registration import Service

from .checks import Check, Remark, Verdict, check, together
from .findings import Findings, Trouble, unreadable


SERVERS = "NACOS_DRAIN_NACOS_SERVER_ADDR"
USER = "NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"
KEYS = "NACOS_DRAIN_NACOS_ACCESS_KEY and NACOS_DRAIN_NACOS_SECRET_KEY"
LOSES_THRESHOLD = ((2, 0), (2, 5))  # from, and before: nacos-semantics.md section 4


# -- who answers -----------------------------------------------------------------------------------------------------


def nodes(f: Findings) -> Check:
    """Whether everybody whose word the proof needs can be asked."""
    if not f.nodes:
        step = f"set {SERVERS}, or let the app's actuator tell: by our starter, or by nacosdiscovery"
        return check("nodes", Verdict.FAILING, "no Nacos server is known", step)
    remarks = [_node(f, name, required=required) for name, required in f.nodes]
    versions = sorted({told for told in f.versions.values() if isinstance(told, str)})
    if len(versions) > 1:
        step = "finish the upgrade of Nacos before you rely on one behaviour"
        remarks.append(Remark(Verdict.WARNING, f"several versions: {', '.join(versions)}", step))
    if f.one_address and f.answering:
        detail = "one address and no proof that one node stands behind it: a drain proves >= 1 node of ?"
        remarks.append(Remark(Verdict.WARNING, detail, f"name every node in {SERVERS}"))
    return together("nodes", remarks)


def _node(f: Findings, name: str, *, required: bool) -> Remark:
    told = f.versions.get(name)
    if isinstance(told, str):
        return Remark(Verdict.OK, f"{name} {told}")
    why = _named(name, told.text if told is not None else "not asked")
    if name in f.down:
        return Remark(
            Verdict.WARNING, f"{why}; DOWN by another node's word", "start it: a drain leaves it out meanwhile"
        )
    if required:
        step = f"a drain proves nothing there: start it, open the network to it, or correct {SERVERS}"
        return Remark(Verdict.FAILING, why, step)
    return Remark(Verdict.WARNING, f"{why}; known from the member list only", "open the network to every member")


def _named(name: str, text: str) -> str:
    return text if text.startswith(name) else f"{name}: {text}"


# -- who we are ------------------------------------------------------------------------------------------------------


def login(f: Findings) -> Check:
    """Whether Nacos knows us."""
    nacos = f.settings.nacos
    if problem := unreadable(nacos.username, nacos.password, nacos.access_key, nacos.secret_key):
        step = "mount that file, or correct the variable with _FILE behind it that names it"
        return check("login", Verdict.FAILING, problem, step)
    if nacos.access_key is not None:
        return check("login", Verdict.OK, "requests are signed; whether the keys are right shows at permission")
    if nacos.username is None and not f.settings.borrow_credentials:
        return check("login", Verdict.OK, "no login is set, so none is used")
    if not f.answering:
        return _unasked("login", f)
    remarks = [
        Remark(Verdict.OK, f"logged in at {name}") if told is None else _refused(f, name, told)
        for name, told in f.logins.items()
    ]
    return together("login", remarks) if remarks else _unasked("login", f)


def _refused(f: Findings, name: str, told: Trouble) -> Remark:
    detail = _named(name, told.text)
    if not told.rejected:
        return Remark(Verdict.UNKNOWN, detail, "try again when that server is well")
    if f.permission is True:
        step = f"leave {USER} unset, or switch authentication on in Nacos"
        return Remark(Verdict.WARNING, f"{detail}; but this Nacos lets anybody write", step)
    return Remark(Verdict.FAILING, detail, f"correct {USER}: a user of this very Nacos, as in its console")


def permission(f: Findings) -> Check:
    """Whether we may write."""
    told, nacos = f.permission, f.settings.nacos
    if told is True:
        detail = "we may write (asked about a port that nobody has; nothing was written)"
        return check("permission", Verdict.OK, detail)
    if not f.drain.registers:
        return check("permission", Verdict.OK, "nothing is registered, so nothing has to be written")
    if not f.answering:
        return _unasked("permission", f)
    if nacos.access_key is None and f.logins and all(x is not None for x in f.logins.values()):
        step = "correct the login first, see login"
        return check("permission", Verdict.UNKNOWN, "cannot be asked without a login", step)
    if not isinstance(told, Trouble):
        step = "it is asked once, within 5 minutes of the start; `nacos-drain doctor` asks now"
        known = f.lease is not None and f.lease.removals
        if not known:
            step = "settle identity first"
        return check("permission", Verdict.UNKNOWN, "not asked yet", step)
    if not told.rejected:
        return check("permission", Verdict.UNKNOWN, told.text, "try again when Nacos is well")
    namespace = nacos.namespace or next((s.namespace for s in f.drain.services), "") or "public"
    who = (
        f"the keys in {KEYS}"
        if nacos.access_key is not None
        else f"the user in {USER}"
        if nacos.username is not None or f.settings.borrow_credentials
        else ""
    )
    step = (
        f"ask Nacos' administrator to let {who} read and write in the namespace {namespace}"
        if who
        else f"set {USER}: a user who may read and write in the namespace {namespace}"
    )
    if f.drain.identity is not None and f.drain.identity.starter:
        detail = f"{told.text}; our starter's nacos-deregister, which goes first, needs no such right"
        return check("permission", Verdict.WARNING, detail, f"for the road behind it, openapi: {step}")
    return check("permission", Verdict.FAILING, told.text, step)


def _unasked(name: str, f: Findings) -> Check:
    detail = "no Nacos server answers" if f.nodes else "no Nacos server is known"
    return check(name, Verdict.UNKNOWN, detail, "see nodes")


# -- what a drain could spoil ----------------------------------------------------------------------------------------


def protect_threshold(f: Findings) -> Check:
    """Whether the servers would lose the service's protectThreshold when our edit expires."""
    name = "protect_threshold"
    if not f.answering:
        return _unasked(name, f)
    if not any(loses_threshold(told) for told in f.versions.values() if isinstance(told, str)):
        return check(name, Verdict.OK, "these servers keep what is set for a service")
    if not f.services:
        return check(name, Verdict.UNKNOWN, "which service to ask about is not known", "see identity")
    return together(name, (_threshold(service, told) for service, told in f.services.items()))


def _threshold(service: Service, told: float | Trouble | None) -> Remark:
    if isinstance(told, Trouble):
        return Remark(
            Verdict.UNKNOWN, f"{service}: {told.text}", "let our user read the service, or look in the console"
        )
    if not told:
        return Remark(Verdict.OK, f"{service}: protectThreshold is not set")
    step = (
        "upgrade Nacos to 2.5.0, or open a road in the app, which goes first and leaves no record; else look at it "
        "after a release"
    )
    detail = f"{service}: protectThreshold {told:g}, which this Nacos may reset when a disabled record expires"
    return Remark(Verdict.WARNING, detail, step)


def loses_threshold(version: str) -> bool:
    """Whether a server of this version is one of those; 2.x that does not tell more may be."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        return version.startswith("2.")
    first, before = LOSES_THRESHOLD
    return first <= (int(match[1]), int(match[2])) < before
