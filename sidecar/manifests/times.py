"""Rules of time: one grace period for the hook, the drain and the app's own stop."""

from collections.abc import Iterator
from math import ceil

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.folk import enough, outlasts, story
from sidecar.manifests.pods import GRACE_DEFAULT, Pod
from sidecar.plan import MARGIN, PROOF_LEAST, Plan


RULES = Rules()

_GRACE = "terminationGracePeriodSeconds"


def covers(plan: Plan) -> bool:
    """Whether consumers have forgotten the app when it is let go at the latest."""
    return plan.fits and plan.settle > plan.consumer_cache


def _needed(plan: Plan) -> int:
    return ceil(PROOF_LEAST + plan.consumer_cache + 1 + plan.app_stop_wanted + MARGIN)


def _sum(plan: Plan) -> str:
    cache = f"{plan.consumer_cache + 1:g} s for lists that consumers cache"
    rest = f"{plan.app_stop_wanted:g} s for the app's stop + {MARGIN:g} s margin"
    return f"{PROOF_LEAST:g} s for the proof + {cache} + {rest} = {_needed(plan)} s"


@RULES.rule(
    "grace-default",
    Severity.ERROR,
    "Kubernetes gives 30 s to everything together. When they are over the app gets SIGTERM in the middle of the "
    "drain, and SIGKILL 2 s later.",
)
def _default(pod: Pod) -> Iterator[Told]:
    plan = pod.plan(GRACE_DEFAULT)
    if pod.ours is not None and not pod.spec[_GRACE].there and not covers(plan):
        yield Told(
            pod.spec, f"no {_GRACE}, so 30 s: {_sum(plan)}", f"{_GRACE}: {_needed(plan)} or more (120 leaves room)"
        )


@RULES.rule(
    "grace-too-small",
    Severity.ERROR,
    "When the grace period is over the app gets SIGTERM in the middle of the drain, and SIGKILL 2 s later.",
)
def _small(pod: Pod) -> Iterator[Told]:
    plan = pod.plan()
    place = pod.spec[_GRACE]
    if pod.ours is not None and place.there and pod.grace > 0 and not covers(plan):
        less = "a smaller NACOS_DRAIN_CONSUMER_CACHE, where the consumers forget sooner"
        yield Told(place, f"{pod.grace:g} s are too few: {_sum(plan)}", f"{_GRACE}: {_needed(plan)}, or {less}")


@RULES.rule(
    "grace-zero",
    Severity.ERROR,
    "With a grace period of 0 the pod is killed at once: no hook runs.",
)
def _zero(pod: Pod) -> Iterator[Told]:
    if pod.spec[_GRACE].number == 0:
        yield Told(pod.spec[_GRACE], "the grace period is 0", f"{_GRACE}: {_needed(pod.plan())}")


@RULES.rule(
    "sleep-exceeds-grace",
    Severity.ERROR,
    "The hook is part of the grace period: SIGTERM comes when it is over, not when the sleep is, and SIGKILL 2 s "
    "later.",
)
def _sleep(pod: Pod) -> Iterator[Told]:
    for each in pod.apps:
        if outlasts(pod, each):
            has = f"{pod.grace:g} s" + ("" if pod.spec[_GRACE].there else " (the default)")
            yield Told(
                each.hook.place,
                f"the hook of {each.name} sleeps {each.hook.sleeps:g} s, the grace period is {has}, "
                f"and the app needs about {pod.app_stop:g} s of it to stop",
                f"{_GRACE}: {enough(pod, each)} at least; or nacos-drain, which waits only while there are callers",
                story(pod, each),
            )


@RULES.rule(
    "grace-env-mismatch",
    Severity.ERROR,
    "A container cannot read its pod's grace period. nacos-drain plans with what it is told: with too much it is cut "
    "off, with too little it lets the app go too early.",
)
def _mismatch(pod: Pod) -> Iterator[Told]:
    name = "NACOS_DRAIN_GRACE_PERIOD"
    if pod.ours is None or name in pod.environment.unknown or pod.loaded is None or pod.grace <= 0:
        return
    told = pod.settings.grace_period
    if told is None and (pod.environment.open or pod.grace == GRACE_DEFAULT):
        return
    if told != pod.grace:
        says = f"{name} is {told:g} s" if told is not None else f"{name} is not set, which means 30 s"
        fix = f'{name}: "{pod.grace:g}"'
        yield Told(pod.ours.variable(name), f"{says}, and the pod's grace period is {pod.grace:g} s", fix)


@RULES.rule(
    "app-liveness-grace",
    Severity.WARNING,
    "A restart by a probe runs the hook too, within the probe's own grace period.",
)
def _probes(pod: Pod) -> Iterator[Told]:
    if pod.ours is None:
        return
    for each in pod.apps:
        for probe in ("livenessProbe", "startupProbe"):
            own = each.place.at(probe, _GRACE)
            if own.number is not None and not covers(plan := pod.plan(own.number)) and own.number < pod.grace:
                fix = f"leave it out, or {_needed(plan)} at least"
                yield Told(own, f"{each.name}'s {probe} gives {own.number:g} s: {_sum(plan)}", fix)


@RULES.rule(
    "node-shutdown",
    Severity.INFO,
    "No hook runs when a node loses power, or shuts down without kubelet's shutdownGracePeriod; drain nodes first.",
)
def _node(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and not pod.wrapped:
        fix = f"on the nodes: shutdownGracePeriod of {pod.grace:g} s or more"
        yield Told(pod.spec, "how its nodes shut down is not in any manifest", fix)
