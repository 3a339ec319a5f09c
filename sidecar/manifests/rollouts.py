"""Rules of the rollout: whether a new pod takes its share before an old one goes."""

from collections.abc import Iterator
from math import floor

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.places import Place, whole
from sidecar.manifests.pods import Pod


RULES = Rules()

_DEFAULT_REPLICAS = 1


def _rolling(pod: Pod) -> Place:
    return pod.owner.at("strategy", "rollingUpdate")


def _replicas(pod: Pod) -> int | None:
    """None where something else decides: a DaemonSet's nodes, an HPA."""
    told = pod.owner["replicas"].number
    return None if told is None else int(told)


def _unavailable(pod: Pod) -> int:
    """How many old pods may be missing at once, as Kubernetes rounds it."""
    told, replicas = _rolling(pod)["maxUnavailable"], _replicas(pod) or _DEFAULT_REPLICAS
    if (number := told.number) is not None:
        return int(number)
    text = told.text.removesuffix("%") if told.text else "25"
    return floor(replicas * (whole(text) or 0) / 100)


@RULES.rule(
    "readiness-ignores-nacos",
    Severity.WARNING,
    "A pod may be Ready before Nacos lists it: the rollout takes the next old one while callers do not know the new "
    "one yet.",
)
def _readiness(pod: Pod) -> Iterator[Told]:
    if pod.ours is None or pod.wrapped or pod.object.kind in {"Job", "CronJob", "Pod"}:
        return
    if not pod.ours.place["readinessProbe"].there and not pod.owner["minReadySeconds"].number:
        fix = f"readinessProbe: {{httpGet: {{path: /readyz, port: {pod.port}}}, periodSeconds: 2}}"
        what = f"{pod.ours.name} has no readinessProbe, and minReadySeconds is 0"
        yield Told(pod.ours.place, what, fix)


@RULES.rule(
    "max-unavailable",
    Severity.ERROR,
    "All old pods go at once, before a new one is there: every call fails until it is.",
)
def _all(pod: Pod) -> Iterator[Told]:
    replicas = _replicas(pod)
    if pod.object.kind in {"Deployment", "Rollout"} and replicas and _unavailable(pod) >= replicas:
        told = _rolling(pod)["maxUnavailable"]
        yield Told(
            told if told.there else _rolling(pod),
            f"maxUnavailable is {told.value or '25%'} of {replicas} replicas",
            "rollingUpdate: {maxUnavailable: 0, maxSurge: 1}",
        )


@RULES.rule(
    "strategy-recreate",
    Severity.WARNING,
    "Recreate stops all old pods before it starts a new one: no drain can help the callers in between.",
)
def _recreate(pod: Pod) -> Iterator[Told]:
    kind = pod.owner.at("strategy", "type")
    if kind.text == "Recreate":
        yield Told(kind, "the strategy is Recreate", "type: RollingUpdate, with maxUnavailable: 0 and maxSurge: 1")


@RULES.rule(
    "one-replica",
    Severity.INFO,
    "A rollout starts the new pod first, but a node that is drained does not: there is nobody else for the callers "
    "then.",
)
def _one(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and _replicas(pod) == 1:
        yield Told(pod.owner["replicas"], "there is one replica", "two, and a PodDisruptionBudget")
