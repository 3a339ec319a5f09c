"""Rules of the place: where in the pod nacos-drain stands, and whether it lives as long as it is needed."""

from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.pods import PROXIES, Pod


RULES = Rules()

NATIVE = 29  # the first minor version with native sidecars that end after the app
_SLOW_CPU = 0.1  # cores: below, Python takes seconds to listen


@RULES.rule(
    "ordinary-sidecar-exits-on-term",
    Severity.ERROR,
    "An ordinary sidecar gets SIGTERM together with the hook. nacos-drain stays until the app is gone; another "
    "program in its place ends, and the hook fails.",
)
def _exits(pod: Pod) -> Iterator[Told]:
    ours = pod.ours
    if ours is None or ours.init or pod.wrapped or not ours.place["command"].there:
        return
    words = ours.command
    at = next((index for index, word in enumerate(words) if word.rpartition("/")[2] == "nacos-drain"), None)
    if words and (at is None or any(word in {"drain", "plan", "doctor", "status"} for word in words[at + 1 : at + 2])):
        yield Told(
            ours.place["command"], f"{ours.name} runs `{words[0]}`, which is no `nacos-drain serve`", "delete `command`"
        )


@RULES.rule(
    "use-native-sidecar",
    Severity.WARNING,
    "A native sidecar listens before the app starts and ends after it, whatever happens in between.",
)
def _native(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and not pod.ours.init and not pod.wrapped and (pod.kubernetes or 0) >= NATIVE:
        fix = "move it to initContainers, with restartPolicy: Always"
        yield Told(pod.ours.place, f"an ordinary sidecar on Kubernetes 1.{pod.kubernetes}", fix)


@RULES.rule(
    "native-too-old",
    Severity.ERROR,
    "Before 1.28 restartPolicy is dropped, and the app waits for ever for an init container that never ends; in 1.28 "
    "the sidecar ends together with the app.",
)
def _old(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and pod.ours.native and pod.kubernetes is not None and pod.kubernetes < NATIVE:
        what = f"a native sidecar on Kubernetes 1.{pod.kubernetes}"
        yield Told(pod.ours.place["restartPolicy"], what, "move it to containers, without restartPolicy")


@RULES.rule(
    "native-no-restartpolicy",
    Severity.ERROR,
    "An init container without it is waited for until it ends, and nacos-drain does not: the app never starts.",
)
def _init(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and pod.ours.init and not pod.ours.native:
        yield Told(
            pod.ours.place, f"{pod.ours.name} is an init container without restartPolicy", "restartPolicy: Always"
        )


@RULES.rule(
    "native-no-startup-probe",
    Severity.WARNING,
    "Without it the app may be running, and be stopped, before nacos-drain listens: the hook is refused and nothing "
    "drained.",
)
def _startup(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and pod.ours.native and not pod.ours.place["startupProbe"].there:
        fix = f"startupProbe: {{httpGet: {{path: /livez, port: {pod.port}}}, periodSeconds: 1, failureThreshold: 30}}"
        yield Told(pod.ours.place, f"{pod.ours.name} has no startupProbe", fix)


@RULES.rule(
    "sidecar-order",
    Severity.WARNING,
    "Native sidecars end in the opposite order: one that is listed later is gone before nacos-drain is.",
)
def _order(pod: Pod) -> Iterator[Told]:
    natives = [each for each in pod.containers if each.native]
    if pod.ours is not None and pod.ours in natives:
        for each in natives[natives.index(pod.ours) + 1 :]:
            if each.name in PROXIES:
                yield Told(each.place, f"{each.name} is listed after {pod.ours.name}", "list it first")


@RULES.rule(
    "sidecar-liveness",
    Severity.WARNING,
    "A livenessProbe that fails on a busy node restarts nacos-drain in the middle of a drain, and the drain is over.",
)
def _liveness(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and not pod.wrapped and pod.ours.place["livenessProbe"].there:
        yield Told(pod.ours.place["livenessProbe"], f"{pod.ours.name} has a livenessProbe", "delete it")


@RULES.rule(
    "cpu-limit-startup",
    Severity.WARNING,
    "Below 200m of CPU it takes seconds until nacos-drain listens; without a limit of memory the kernel may choose "
    "it, or the app, when the node has none left.",
)
def _resources(pod: Pod) -> Iterator[Told]:
    if pod.ours is None or pod.wrapped:
        return
    resources = pod.ours.place["resources"]
    limit = resources.at("limits", "cpu")
    cores = _cores(limit.text or str(limit.number or ""))
    if cores is not None and cores < _SLOW_CPU and not pod.ours.place["startupProbe"].there:
        yield Told(limit, f"a CPU limit of {limit.value} without a startupProbe", "no CPU limit, or a startupProbe")
    if not resources.at("limits", "memory").there or not resources["requests"].there:
        fix = "resources: {requests: {cpu: 20m, memory: 64Mi}, limits: {memory: 128Mi}}"
        yield Told(pod.ours.place, f"{pod.ours.name} has no requests, or no limit of memory", fix)


def _cores(text: str) -> float | None:
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return None


@RULES.rule(
    "job-ordinary-sidecar",
    Severity.WARNING,
    "A Job is done when all its containers are, and an ordinary sidecar never is.",
)
def _job(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and not pod.ours.init and not pod.wrapped and pod.object.kind in {"Job", "CronJob"}:
        yield Told(
            pod.ours.place, f"{pod.ours.name} keeps this {pod.object.kind} running", "a native sidecar, or `run`"
        )
