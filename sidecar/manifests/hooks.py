"""Rules of the hook: whether the kubelet's request reaches nacos-drain, and the app waits for the answer."""

from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.folk import remedy
from sidecar.manifests.hooking import HANDLERS
from sidecar.manifests.places import Place, whole
from sidecar.manifests.pods import Container, Pod


RULES = Rules()

_LOOPBACK = ("127.", "::1", "localhost")
# What does something only when it is posted; a GET reads, or is refused.
_POSTED = (
    "/actuator/shutdown",
    "/actuator/serviceregistry",
    "/actuator/service-registry",
    "/actuator/pause",
    "/nacos/v",
)
_LONG = ("heapdump", "threaddump", "prometheus", "logfile", "beans", "conditions", "configprops", "env", "mappings")


def _http(port: int) -> str:
    return f"httpGet: {{path: /drain, port: {port}}}"


@RULES.rule(
    "hook-missing",
    Severity.ERROR,
    "Without a hook the app gets SIGTERM at once: it stops serving while its callers still have it in their lists.",
)
def _missing(pod: Pod) -> Iterator[Told]:
    app = pod.app
    if pod.ours is None or pod.wrapped or app is None or pod.ours.hook.there:
        return
    if not app.hook.there:
        fix = f"add to {app.name}: lifecycle.preStop.{_http(pod.port)}, with X-Drain-Token where there is a token"
        yield Told(app.place, f"{app.name} has no preStop hook, so nacos-drain is never asked", fix)
    elif "exec" in app.hook.handlers and str(pod.port) not in app.hook.script and "nacos-drain" not in app.hook.script:
        yield Told(
            app.hook.place,
            f"the hook of {app.name} runs a command of its own and does not ask nacos-drain",
            f"replace it: {_http(pod.port)}",
        )


@RULES.rule(
    "hook-on-wrong-container",
    Severity.ERROR,
    "A hook holds back the SIGTERM of its own container only; the app's comes at once.",
)
def _on_ours(pod: Pod) -> Iterator[Told]:
    if pod.ours is None or pod.wrapped or not pod.ours.hook.there or pod.app is None:
        return
    what = f"the hook is on {pod.ours.name} itself"
    what += "" if pod.app.hook.there else f", and {pod.app.name} has none"
    yield Told(pod.ours.hook.place, what, f"move it to {pod.app.name}")


@RULES.rule(
    "hook-host-loopback",
    Severity.ERROR,
    "The kubelet sends the request from the node: `host: 127.0.0.1` is the node's loopback, and any other host is not"
    " this pod. A server there may even answer, and then the hook counts as done.",
)
def _host(pod: Pod) -> Iterator[Told]:
    for each in pod.apps:
        host = each.hook.http["host"]
        if host.there:
            where = "the node, not the pod" if host.text.startswith(_LOOPBACK) else "another host"
            yield Told(
                host, f"the hook asks {host.text}: {where}", "delete `host`: without it the kubelet asks the pod"
            )


@RULES.rule(
    "hook-named-port",
    Severity.ERROR,
    "A port's name is looked up in the container that has the hook. One that only the sidecar declares is an error to"
    " the kubelet, and the app gets SIGTERM at once.",
)
def _named(pod: Pod) -> Iterator[Told]:
    for each in pod.apps:
        port = each.hook.http["port"]
        if port.text and _port(each, port) is None:
            yield Told(port, f"{each.name} declares no port named {port.text!r}", "write the number")


@RULES.rule(
    "hook-port-mismatch",
    Severity.ERROR,
    "A request that does not reach nacos-drain fails or does nothing; the kubelet ignores which, and sends SIGTERM.",
)
def _elsewhere(pod: Pod) -> Iterator[Told]:
    app = pod.app
    if pod.ours is None or pod.wrapped or app is None:
        return
    if pod.loaded is not None and pod.settings.listen.loopback:
        yield Told(
            pod.ours.variable("NACOS_DRAIN_LISTEN"),
            f"nacos-drain listens on {pod.settings.listen}, where no kubelet comes",
            f"NACOS_DRAIN_LISTEN={pod.port}, or leave it out",
        )
    if not app.hook.http.there:
        return
    port = _port(app, app.hook.http["port"])
    if port is not None and port != pod.port:
        yield Told(
            app.hook.http["port"],
            f"the hook asks port {port}, and nacos-drain listens on {pod.port}",
            f"port: {pod.port}",
        )
    elif app.hook.path != "/drain":
        yield Told(
            app.hook.http["path"], f"the hook asks {app.hook.path}, and a drain starts with /drain", "path: /drain"
        )


def _port(container: Container, port: Place) -> int | None:
    """The number of a hook's port; None for a name that nobody declares."""
    if (number := port.number) is not None:
        return int(number)
    if (number := whole(port.text)) is not None:
        return number
    for each in container.place["ports"]:
        if each["name"].text == port.text and (found := each["containerPort"].number) is not None:
            return int(found)
    return None


@RULES.rule(
    "hook-method",
    Severity.ERROR,
    "A hook's request is always a GET. Here a GET reads or is refused, and the kubelet takes any answer for success.",
)
def _method(pod: Pod) -> Iterator[Told]:
    for each in pod.apps:
        hook = each.hook
        if hook.http.there and _needs_post(hook.path):
            yield Told(
                hook.http["path"], f"{hook.path} does nothing for a GET", "let the hook ask nacos-drain (/drain)"
            )
        elif not hook.posts:
            for url in hook.urls:
                if _needs_post(url):
                    yield Told(hook.place, f"{url} does nothing for a GET", "curl -f -X POST, or better nacos-drain")


def _needs_post(url: str) -> bool:
    return any(path in url for path in _POSTED)


@RULES.rule(
    "hook-both-handlers",
    Severity.ERROR,
    "A hook is exactly one of exec, httpGet and sleep: Kubernetes refuses two, and tcpSocket does nothing.",
)
def _handlers(pod: Pod) -> Iterator[Told]:
    for each in pod.containers:
        if not each.hook.there:
            continue
        known = [name for name in each.hook.handlers if name in HANDLERS]
        if len(known) != 1 or known == ["tcpSocket"]:
            what = " and ".join(known) or ", ".join(each.hook.handlers) or "nothing"
            yield Told(each.hook.place, f"the hook of {each.name} has {what}", "keep one: httpGet")


@RULES.rule(
    "keep-alive-body",
    Severity.WARNING,
    "The kubelet reads 10 KiB of a hook's answer and goes on: with a longer one the hook ends before the server is "
    "done.",
)
def _long(pod: Pod) -> Iterator[Told]:
    for each in pod.apps:
        last = each.hook.path.rpartition("/")[2]
        if each.hook.http.there and last in _LONG:
            yield Told(each.hook.http["path"], f"{each.hook.path} answers with more than that", "ask /drain instead")


@RULES.rule(
    "folk-remedy",
    Severity.WARNING,
    "It takes as long whoever calls, and nobody looks whether Nacos has let the instance go: where the request is "
    "refused the pod sleeps while it is still listed.",
)
def _folk(pod: Pod) -> Iterator[Told]:
    for each in pod.apps:
        if pod.ours is None and (told := remedy(pod, each)) is not None:
            yield told
