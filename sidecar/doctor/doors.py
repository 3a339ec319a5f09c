"""The app's own doors, judged: which of them are open, and so by which roads it can leave; what they give away."""

from collections.abc import Iterator, Mapping

from sidecar.adapters.actuator.client import is_json
from sidecar.registration import OPENAPI, Road

from .checks import Check, Remark, Verdict, check, listed, together
from .findings import Findings, Trouble, unreadable
from .nacos import USER
from .pod import LOGIN


URL = "NACOS_DRAIN_ACTUATOR_URL"
EXPOSURE = "management.endpoints.web.exposure.include"
KNOWN = ("exposed", "protected", "not exposed", "redirects", "answers")  # what the adapter says of an endpoint


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
    ours = {"nacos-deregister": " (our starter)"} if _starter(f) else {}
    detail = ", ".join(
        f"{name} {words if words.startswith(KNOWN) else 'no answer'}{ours.get(name, '')}"
        for name, words in told.items()
    )
    detail = f"{detail}; roads: {', then '.join((*open_roads(f), OPENAPI.name))}"
    return together("actuator", (_roads(f, told, detail), *_password(f, told), *_content_type(f), *_nacos_3(f)))


def _roads(f: Findings, told: Mapping[str, str], detail: str) -> Remark:
    """Whether the app can be asked at all."""
    if not any(words.startswith("exposed") for words in told.values()):
        protected = any(words.startswith("protected") for words in told.values())
        step = f"set or correct {LOGIN}" if protected else f"check {URL}: the management port or base path is another"
        return Remark(Verdict.FAILING, detail, step)
    if not open_roads(f):
        protected = any(told.get(road.name, "").startswith("protected") for road in f.drain.rules.roads)
        step = (
            f"add nacos-deregister or serviceregistry to {EXPOSURE} (a profile's value replaces the default one's); "
            "without one, only Nacos' OpenAPI is left"
        )
        return Remark(Verdict.WARNING, detail, f"set or correct {LOGIN}" if protected else step)
    return Remark(Verdict.OK, detail)


def _password(f: Findings, told: Mapping[str, str]) -> Iterator[Remark]:
    """What nobody needs any more, and shows the app's password at Nacos in clear."""
    shown = told.get("nacosdiscovery", "").startswith("exposed")
    if _starter(f) and shown and not f.settings.borrow_credentials:
        detail = "nacosdiscovery, which shows the app's Nacos password in clear, is not needed beside our starter"
        yield Remark(Verdict.WARNING, detail, f"take nacosdiscovery out of {EXPOSURE}")


def _content_type(f: Findings) -> Iterator[Remark]:
    """Spring's endpoints take JSON with its content type, or nothing at all with none: anything else gets a 415."""
    settings = f.settings
    url = settings.deregister_url or "/"
    if not url.startswith("/"):
        return  # somebody's own, which takes what it likes
    headers = settings.deregister_headers.read() if settings.deregister_headers is not None else {}
    kinds = [value for name, value in headers.items() if name.lower() == "content-type"]
    body = settings.deregister_body.read() if settings.deregister_body is not None else ""
    step = "send JSON in NACOS_DRAIN_DEREGISTER_BODY, and leave Content-Type out of NACOS_DRAIN_DEREGISTER_HEADERS"
    if kinds and "json" not in kinds[0].lower():
        yield Remark(Verdict.WARNING, "Spring answers 415 to a content type that is not JSON", step)
    elif body and not kinds and not is_json(body):
        yield Remark(Verdict.WARNING, "Spring answers 415 to a body that is not JSON", step)
    elif url.startswith(("/serviceregistry?", "/service-registry?")) and not kinds and not body:
        step = "set NACOS_DRAIN_DEREGISTER_HEADERS to Content-Type: application/json"
        yield Remark(Verdict.WARNING, "Spring answers 415 to a query without a content type", step)


def _nacos_3(f: Findings) -> Iterator[Remark]:
    """Whoever calls `setStatus` in an old app gets a 500 there. That cannot be tried without doing it."""
    roads = [road for road in open_roads(f) if road != "dubbo"]
    refuses = any(isinstance(told, str) and told.startswith("3.") for told in f.versions.values())
    if _starter(f) or not roads or not refuses:
        return
    detail = (
        f"{listed(roads)} may answer 500 (Nacos 3 refuses the setStatus of Spring Cloud Alibaba before 2025); "
        "openapi does it then"
    )
    if isinstance(f.permission, Trouble):
        step = f"put our starter into the app, or set {USER}, as openapi needs a login: see permission"
        yield Remark(Verdict.WARNING, detail, step)
    else:
        yield Remark(Verdict.OK, detail)


def _starter(f: Findings) -> bool:
    """Whether our starter has answered."""
    return f.drain.identity is not None and f.drain.identity.starter


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
