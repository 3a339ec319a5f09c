"""Rules of Pod Security: what a namespace at level `restricted` refuses, told before it does."""

from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.places import Place
from sidecar.manifests.pods import Container, Pod


RULES = Rules()

_LEVEL = "pod-security.kubernetes.io/enforce"
_PROFILES = {"RuntimeDefault", "Localhost"}


@RULES.rule(
    "pss-restricted",
    Severity.ERROR,
    "The namespace enforces Pod Security's level restricted, which refuses such a pod: the rollout stands still.",
)
def _restricted(pod: Pod) -> Iterator[Told]:
    names = {each.name for each in pod.beside if each.kind == "Namespace" and _enforced(each.place)}
    if pod.ours is None or pod.object.namespace not in names:
        return
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec[name].true:
            yield Told(pod.spec[name], f"{name} is true", f"delete {name}")
    for each in pod.containers:
        yield from _of(pod, each)


def _enforced(namespace: Place) -> bool:
    return bool(namespace.at("metadata", "labels", _LEVEL).text == "restricted")


def _of(pod: Pod, container: Container) -> Iterator[Told]:
    own, common = container.place["securityContext"], pod.spec["securityContext"]

    def effective(*path: str) -> Place:
        return own.at(*path) if own.at(*path).there else common.at(*path)

    capabilities = own["capabilities"]
    lacking = [
        text
        for wrong, text in (
            (not effective("runAsNonRoot").true, "runAsNonRoot: true"),
            (effective("runAsUser").number == 0, "a runAsUser that is not 0"),
            (effective("seccompProfile", "type").text not in _PROFILES, "seccompProfile: {type: RuntimeDefault}"),
            (own["allowPrivilegeEscalation"].value is not False, "allowPrivilegeEscalation: false"),
            ("ALL" not in capabilities["drop"].words, "capabilities: {drop: [ALL]}"),
            (bool({*capabilities["add"].words} - {"NET_BIND_SERVICE"}), "no added capabilities"),
        )
        if wrong
    ]
    if lacking:
        at = own if own.there else container.place
        yield Told(at, f"{container.name} is refused there", f"securityContext: {', '.join(lacking)}")
