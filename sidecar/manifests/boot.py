"""Rules of Spring Boot: whether the app has the endpoint that is asked, and the time that its own stop takes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.places import Place, whole
from sidecar.manifests.pods import Pod
from sidecar.manifests.spring import Property, milliseconds
from sidecar.manifests.times import covers


RULES = Rules()

_INCLUDE = "management.endpoints.web.exposure.include"
_EXCLUDE = "management.endpoints.web.exposure.exclude"
_EXPOSED = "health"  # without a list
_PHASE = "spring.lifecycle.timeout-per-shutdown-phase"
_PHASE_DEFAULT = 30.0


@dataclass(frozen=True)
class _Call:
    """A request to the app's actuator, and where the pod says so."""

    place: Place
    who: str
    path: str
    port: int | None


def _calls(pod: Pod) -> Iterator[_Call]:
    for each in pod.apps:
        for url in each.hook.urls:
            if (parts := _split(url)) is not None:
                yield _Call(each.hook.place, f"the hook of {each.name}", parts.path, _port(parts))
        if each.hook.http.there and (port := each.hook.http["port"].number) is not None:
            yield _Call(each.hook.http["path"], f"the hook of {each.name}", each.hook.path, int(port))
    actuator = pod.settings.actuator_url
    if pod.ours is not None and actuator is not None and (parts := _split(actuator)) is not None:
        road = pod.settings.deregister_url or "nacos-deregister"
        if "://" not in road:
            path = f"{parts.path.rstrip('/')}/{road.strip('/')}"
            yield _Call(pod.ours.variable("NACOS_DRAIN_ACTUATOR_URL"), "nacos-drain", path, _port(parts))


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _port(parts: SplitResult) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


@RULES.rule(
    "spring-endpoint-hidden",
    Severity.ERROR,
    "An endpoint that is not in the list answers 404. A profile's list replaces that of application.yml and does not "
    "add to it.",
)
def _hidden(pod: Pod) -> Iterator[Told]:
    spring = pod.spring
    if spring is None:
        return
    base = _known(spring.get("management.endpoints.web.base-path"), "/actuator")
    listed, *replaced = [*spring.told(_INCLUDE), Property(_EXPOSED, "Spring Boot's default")]
    if base is None or listed.text is None:
        return
    names = _names(listed.text)
    kept_out = _names(_known(spring.get(_EXCLUDE), "") or "")
    for call in _calls(pod):
        match = re.match(re.escape(base.rstrip("/")) + r"/([\w-]+)", call.path)
        if match is None or (({match[1], "*"} & names) and not ({match[1], "*"} & kept_out)):
            continue
        what = f"{call.who} asks {call.path}, and {listed.origin} exposes only {listed.text or 'nothing'}"
        if spring.profiles != ("default",):
            what += f" (active: {', '.join(spring.profiles)})"
        if before := next((each for each in replaced if each.text and match[1] in _names(each.text)), None):
            what += f"; it replaces {before.origin}, which has {match[1]}"
        fix = f"{_INCLUDE}: {listed.text + ',' if listed.text else ''}{match[1]}"
        yield Told(listed.place or call.place, what, fix, document=listed.document)


def _names(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")}


def _known(told: Property | None, default: str) -> str | None:
    return default if told is None else told.text


@RULES.rule(
    "spring-management-port",
    Severity.ERROR,
    "On another port there is no actuator: the request is refused, or answered with 404, and nobody leaves Nacos.",
)
def _management(pod: Pod) -> Iterator[Told]:
    spring = pod.spring
    if spring is None:
        return
    server = spring.get("server.port")
    told = spring.get("management.server.port") or server
    port = whole(_known(told, "8080") or "")
    if not port or (told is not None and told.text is None):
        return
    base = (_known(spring.get("management.endpoints.web.base-path"), "/actuator") or "/actuator").rstrip("/")
    for call in _calls(pod):
        if call.port is not None and call.port != port and call.path.startswith(f"{base}/"):
            says = told.origin if told is not None else "Spring Boot's default"
            what = f"{call.who} asks {call.path} on port {call.port}, and the actuator is on {port} ({says})"
            yield Told(call.place, what, f"port {port}")


@RULES.rule(
    "spring-shutdown",
    Severity.WARNING,
    "At SIGTERM an app without graceful shutdown cuts the requests that it is working on.",
)
def _shutdown(pod: Pod) -> Iterator[Told]:
    if pod.spring is None:
        return
    told = pod.spring.get("server.shutdown")
    if told is None:
        app = pod.app.place if pod.app is not None else pod.spec
        what = "server.shutdown is not set: graceful by default only since Spring Boot 3.4"
        yield Told(app, what, "server.shutdown: graceful", severity=Severity.INFO)
    elif told.text == "immediate":
        at = told.place or pod.spec
        yield Told(
            at, f"server.shutdown is immediate ({told.origin})", "server.shutdown: graceful", document=told.document
        )


@RULES.rule(
    "spring-phase-timeout",
    Severity.ERROR,
    "The app may take as long as this for its stop, and is killed when the grace period is over before.",
)
def _phase(pod: Pod) -> Iterator[Told]:
    spring = pod.spring
    if spring is None or pod.app is None or _known(spring.get("server.shutdown"), "") != "graceful":
        return
    told = spring.get(_PHASE)
    found = _PHASE_DEFAULT * 1000 if told is None else milliseconds(told.text or "")
    if found is None:
        return
    stop = found / 1000
    at, document = (told.place, told.document) if told is not None and told.place is not None else (pod.spec, None)
    says = f"a phase may take {stop:g} s ({told.origin if told is not None else 'the default'})"
    if pod.ours is None:
        sleeps = pod.app.hook.sleeps
        if sleeps and sleeps + stop > pod.grace:
            what = f"{says}, after a hook of {sleeps:g} s, and the grace period is {pod.grace:g} s"
            yield Told(at, what, f"terminationGracePeriodSeconds: {sleeps + stop + 3:g}", document=document)
        return
    if stop <= pod.app_stop:
        return
    fix = f'NACOS_DRAIN_APP_STOP: "{stop + 5:g}"'
    if covers(pod.plan(stop=stop)):
        what = f"{says}, and NACOS_DRAIN_APP_STOP is {pod.app_stop:g} s"
        yield Told(at, what, fix, severity=Severity.WARNING, document=document)
    else:
        what = f"{says}: with that the grace period of {pod.grace:g} s does not cover the drain"
        grace = f"terminationGracePeriodSeconds: {pod.plan(stop=stop + 5).grace_needed or pod.grace + stop:g}"
        yield Told(at, what, f"{fix}, and {grace}; or a shorter {_PHASE}", document=document)
