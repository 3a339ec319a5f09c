"""What must hold in a pod with nacos-drain, and no schema can tell: the ways to copy an example wrongly, by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from sidecar.lease import Release
from sidecar.plan import fit
from sidecar.settings import Settings, SettingsError, load


PREFIX = "NACOS_DRAIN_"
FIELDS = {
    "status.hostIP": "192.0.2.1",
    "metadata.labels['app']": "shop",
    "metadata.annotations['nacos-drain/port']": "8080",
}
HOST = frozenset({"hostNetwork", "hostPID", "hostIPC"})
LIVENESS_ASKED_OF_US = "a liveness probe would restart nacos-drain in the middle of a drain"


@dataclass(frozen=True)
class Pod:
    """A Deployment's pod, and which of its containers is ours."""

    deployment: Mapping[str, Any]
    spec: Mapping[str, Any]
    ours: Mapping[str, Any]
    app: Mapping[str, Any]  # the same one where nacos-drain is its entrypoint
    environ: Mapping[str, str]
    containers: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def wrapped(self) -> bool:
        """Whether nacos-drain is the app's entrypoint."""
        return self.app is self.ours

    @property
    def native(self) -> bool:
        """Whether it is a native sidecar."""
        return any(each is self.ours for each in self.spec.get("initContainers", ()))


def read(deployment: Mapping[str, Any], config: Mapping[str, Mapping[str, str]]) -> Pod:
    """Find our container by the setting that none can do without; `config` are the ConfigMaps it may name."""
    spec = deployment["spec"]["template"]["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    ours = next(each for each in containers if f"{PREFIX}GRACE_PERIOD" in _names(each))
    others = [each for each in spec["containers"] if each is not ours]
    return Pod(deployment, spec, ours, others[0] if others else ours, _environ(ours, config), containers)


def complaints(deployment: Mapping[str, Any], *, config: Mapping[str, Mapping[str, str]], oldest: int) -> list[str]:
    """All that is wrong with it; `oldest` is the minor version of the first Kubernetes that it is for."""
    pod = read(deployment, config)
    found = [*_of_the_rollout(pod), *_of_the_place(pod), *_of_resources(pod), *_of_security(pod)]
    try:
        loaded = load(pod.environ)
    except SettingsError as error:
        return [*found, f"settings: {error}"]
    mounted = tuple(mount["mountPath"] for mount in pod.ours.get("volumeMounts", ()))
    # A Secret's file is not here, and is in the pod.
    found += [f"settings: {text}" for text in loaded.warnings if not any(path in text for path in mounted)]
    return [
        *found,
        *_of_time(pod, loaded.settings),
        *_of_the_hook(pod, loaded.settings, oldest),
        *_of_signals(pod, loaded.settings),
    ]


def _names(container: Mapping[str, Any]) -> set[str]:
    return {each["name"] for each in container.get("env", ())}


def _environ(container: Mapping[str, Any], config: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The variables as a kubelet would set them, with any text for what comes from a Secret."""
    found: dict[str, str] = {}
    for each in container.get("envFrom", ()):
        found |= config[each["configMapRef"]["name"]]
    for each in container["env"]:
        source = each.get("valueFrom", {})
        found[each["name"]] = (
            FIELDS[source["fieldRef"]["fieldPath"]] if "fieldRef" in source else each.get("value", "from-a-secret")
        )
    return {name: text for name, text in found.items() if name.startswith(PREFIX)}


def _of_the_rollout(pod: Pod) -> Iterator[str]:
    spec = pod.deployment["spec"]
    strategy = spec.get("strategy", {})
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        yield "all old pods go before a new one is there: type RollingUpdate"
    rolling = strategy.get("rollingUpdate", {})
    if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
        yield "an old pod goes before the new one is there: maxUnavailable 0 and maxSurge 1"
    if not spec.get("minReadySeconds"):
        yield "no minReadySeconds"
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "a token for the API server that nobody needs"


def _of_the_place(pod: Pod) -> Iterator[str]:
    if pod.native and pod.ours.get("restartPolicy") != "Always":
        yield "an init container without restartPolicy: Always never ends, and the app never starts"
    if not pod.native and "restartPolicy" in pod.ours:
        yield "restartPolicy is for init containers"
    if f"{PREFIX}NODE_IP" not in _names(pod.ours):
        yield "without NODE_IP the kubelet's probes may pass for calls"
    if {"containerPort": 19081, "name": "drain"} not in pod.ours.get("ports", ()):
        yield "no port named drain, by which Prometheus finds it"
    if pod.wrapped:
        return
    if pod.ours.get("startupProbe", {}).get("httpGet") != {"path": "/livez", "port": 19081}:
        yield "no startupProbe: the app may be stopped before nacos-drain listens"
    if "livenessProbe" in pod.ours:
        yield LIVENESS_ASKED_OF_US
    if pod.ours.get("readinessProbe", {}).get("httpGet") != {"path": "/readyz", "port": 19081}:
        yield "no readinessProbe: a rollout goes on before Nacos lists the new pod"
    if "lifecycle" in pod.ours:
        yield "a hook on nacos-drain itself: it belongs to the app"


def _of_resources(pod: Pod) -> Iterator[str]:
    for each in pod.containers:
        asked, limits = (each.get("resources", {}).get(part, {}) for part in ("requests", "limits"))
        if not {"cpu", "memory"} <= asked.keys() or "memory" not in limits:
            yield f"{each['name']}: requests for cpu and memory and a limit for memory"
        if "cpu" in limits:
            yield f"{each['name']}: a CPU limit, which slows its start"
    if not pod.wrapped and pod.ours["resources"] != {
        "requests": {"cpu": "20m", "memory": "64Mi"},
        "limits": {"memory": "128Mi"},
    }:
        yield "nacos-drain: other resources than the 20m, 64Mi and 128Mi that were measured for it"


def _of_security(pod: Pod) -> Iterator[str]:
    """Pod Security's level `restricted`, and a read-only root besides."""
    if told := HOST & pod.spec.keys():
        yield f"the pod uses {', '.join(sorted(told))}"
    for each in pod.containers:
        context = {**pod.spec.get("securityContext", {}), **each.get("securityContext", {})}
        for wrong, what in (
            (context.get("runAsNonRoot") is not True, "runAsNonRoot"),
            (not context.get("runAsUser"), "a numeric runAsUser"),
            (context.get("seccompProfile") != {"type": "RuntimeDefault"}, "seccompProfile RuntimeDefault"),
            (context.get("capabilities") != {"drop": ["ALL"]}, "capabilities: drop ALL"),
            (context.get("allowPrivilegeEscalation") is not False, "allowPrivilegeEscalation: false"),
            (context.get("readOnlyRootFilesystem") is not True, "readOnlyRootFilesystem"),
        ):
            if wrong:
                yield f"{each['name']}: {what}"


def _of_time(pod: Pod, settings: Settings) -> Iterator[str]:
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if settings.grace_period != grace:
        yield f"GRACE_PERIOD is {settings.grace_period}, the pod's is {grace}"
    plan = fit(grace, settings.app_stop, settings.consumer_cache)
    if not plan.fits or not plan.covers_spring_cache:
        yield f"{grace} s do not cover a 35 s cache: {plan.grace_needed} s would"


def _of_the_hook(pod: Pod, settings: Settings, oldest: int) -> Iterator[str]:
    hook = pod.app.get("lifecycle", {}).get("preStop", {}).get("httpGet")
    if pod.wrapped:
        if hook is not None:
            yield "a hook beside `run`, whose trigger is SIGTERM"
        if "run" not in pod.ours.get("command", ()):
            yield "the entrypoint is not `nacos-drain run`"
        return
    if hook is None:
        yield "no preStop.httpGet on the app"
        return
    if "host" in hook:
        yield f"the hook asks {hook['host']}, and for a kubelet 127.0.0.1 is the node: without host it asks the pod"
    if settings.listen.host and ip_address(settings.listen.host).is_loopback:
        yield "nacos-drain listens on loopback, where no kubelet comes"
    if hook["path"] != "/drain" or hook["port"] != settings.listen.port:
        yield f"the hook asks {hook['path']} on {hook['port']}, nacos-drain listens on {settings.listen.port}"
    sent = {each["name"]: each["value"] for each in hook.get("httpHeaders", ())}.get("X-Drain-Token")
    if sent != pod.environ.get(f"{PREFIX}TOKEN"):
        yield "the hook's token is not the sidecar's"
    if sent is not None and oldest < 26:
        yield "kubelets before 1.26 do not send a hook's headers, and a hook without its token is refused"


def _of_signals(pod: Pod, settings: Settings) -> Iterator[str]:
    if settings.release is not Release.SIGNAL:
        return
    if not pod.spec.get("shareProcessNamespace"):
        yield "to signal the app takes shareProcessNamespace"
    users = {each["securityContext"].get("runAsUser") for each in (pod.ours, pod.app)}
    if len(users) > 1:
        yield "to signal the app takes its runAsUser"
    if settings.token is None:
        yield "to signal the app takes a token"
