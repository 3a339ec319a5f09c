"""Rules of nacos-drain's own settings, read by the very code that `serve` starts with."""

from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.pods import Pod


RULES = Rules()


@RULES.rule(
    "setting-wrong",
    Severity.ERROR,
    "nacos-drain does not start with a wrong setting, and without it a hook finds nobody.",
)
def _wrong(pod: Pod) -> Iterator[Told]:
    for fault in pod.faults:
        if pod.ours is not None:
            given = f"{fault.name}={fault.value_shown}" if fault.value_shown else fault.name
            yield Told(pod.ours.variable(fault.name), f"{given}: {fault.problem}", f"valid: {fault.valid}")


@RULES.rule(
    "setting-idle",
    Severity.WARNING,
    "What has no effect was meant to have one.",
)
def _idle(pod: Pod) -> Iterator[Told]:
    if pod.ours is None or pod.loaded is None:
        return
    mounted = tuple(each["mountPath"].text for each in pod.ours.place["volumeMounts"])
    for warning in pod.loaded.warnings:
        # A Secret's file is not here, and is in the pod.
        name = warning.partition(" ")[0].partition("=")[0].rstrip(":")
        if name not in pod.environment.unknown and not any(path and path in warning for path in mounted):
            yield Told(
                pod.ours.variable(name), warning, "`nacos-drain plan --help` and docs/settings.md have the names"
            )
