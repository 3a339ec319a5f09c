"""Rules of a mesh: whether the hook gets past its proxy, and the proxy outlives the drain."""

import re
from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.places import Place, whole
from sidecar.manifests.pods import Pod


RULES = Rules()

_ISTIO = "traffic.sidecar.istio.io/excludeInboundPorts"
_LINKERD = "config.linkerd.io/skip-inbound-ports"
_NATIVE_ISTIO = "sidecar.istio.io/nativeSidecar"
_NATIVE_LINKERD = "config.beta.linkerd.io/proxy-enable-native-sidecar"
_DRAINS = re.compile(r"(?:terminationDrainDuration|EXIT_ON_ZERO_ACTIVE_CONNECTIONS)['\"]?\s*[:=]\s*['\"]?([\w.]+)")


def _mesh(pod: Pod) -> str:
    """Which one the pod is in, as far as it says so itself."""
    if pod.labels.get("sidecar.istio.io/inject", pod.annotations.get("sidecar.istio.io/inject")) == "true" or _has(
        pod, "istio-proxy"
    ):
        return "Istio"
    if pod.annotations.get("linkerd.io/inject") in {"enabled", "ingress"} or _has(pod, "linkerd-proxy"):
        return "Linkerd"
    return ""


def _has(pod: Pod, name: str) -> bool:
    return any(each.name == name for each in pod.containers)


def _annotations(pod: Pod) -> Place:
    return pod.template.at("metadata", "annotations")


@RULES.rule(
    "mesh-mtls",
    Severity.ERROR,
    "The kubelet has no certificate of the mesh: where it is strict, the proxy resets the hook's connection, and the "
    "app gets SIGTERM at once.",
)
def _mtls(pod: Pod) -> Iterator[Told]:
    mesh = _mesh(pod)
    if not mesh or pod.ours is None or pod.wrapped:
        return
    name = _ISTIO if mesh == "Istio" else _LINKERD
    told = pod.annotations.get(name, "")
    if not any(_within(pod.port, part) for part in told.split(",")):
        what = f"{mesh} takes in port {pod.port}, which the kubelet asks"
        yield Told(_annotations(pod)[name], what, f'annotation on the pod: {name}: "{pod.port}"')


def _within(port: int, part: str) -> bool:
    low, _, high = part.strip().partition("-")
    if part.strip() == "*":
        return True
    first, last = whole(low), whole(high or low)
    return first is not None and last is not None and first <= port <= last


@RULES.rule(
    "mesh-proxy-exits-first",
    Severity.ERROR,
    "An ordinary proxy gets SIGTERM together with the hook and by default ends 5 s later: for the rest of the drain "
    "nobody reaches the app, and it reaches nobody.",
)
def _first(pod: Pod) -> Iterator[Told]:
    if pod.ours is None:
        return
    mesh, budget = _mesh(pod), pod.plan().budget
    native = {"Istio": _NATIVE_ISTIO, "Linkerd": _NATIVE_LINKERD}.get(mesh)
    if native is None or pod.annotations.get(native) == "true":
        return
    if any(each.native and each.name in {"istio-proxy", "linkerd-proxy"} for each in pod.containers):
        return
    waits = f"{budget + pod.app_stop:g}s"
    if mesh == "Istio":
        if any(_long(found, budget) for found in _DRAINS.findall(pod.annotations.get("proxy.istio.io/config", ""))):
            return
        fix = f'annotation {native}: "true"; or in proxy.istio.io/config terminationDrainDuration: {waits}'
    else:
        wait = pod.annotations.get("config.alpha.linkerd.io/proxy-wait-before-exit-seconds", "")
        if (whole(wait) or 0) >= budget:
            return
        fix = f'annotation {native}: "true"'
    yield Told(_annotations(pod), f"{mesh}'s proxy does not wait for the {budget:g} s that the drain may take", fix)


def _long(text: str, least: float) -> bool:
    if text.lower() == "true":
        return True
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text)
    return sum(float(amount) * units[unit] for amount, unit in parts) >= least
