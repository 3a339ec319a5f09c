"""Rules of signals: whether SIGTERM reaches the app, whoever sends it."""

from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.hooking import last_program, shell, takes_over
from sidecar.manifests.places import Place
from sidecar.manifests.pods import Container, Pod


RULES = Rules()

_HEEDED = {"", "SIGTERM", "SIGINT"}


@RULES.rule(
    "shared-pid-uid",
    Severity.ERROR,
    "The kernel lets a process signal another one only where it sees it and has the same user. A capability does not "
    "help: a user that is not root does not get it.",
)
def _shared(pod: Pod) -> Iterator[Told]:
    if not pod.signals or pod.ours is None or pod.app is None or pod.wrapped:
        return
    if not pod.spec["shareProcessNamespace"].true:
        what = "NACOS_DRAIN_RELEASE=signal, and the sidecar does not see the app's process"
        yield Told(pod.spec, what, "shareProcessNamespace: true")
    ours, theirs = _user(pod, pod.ours), _user(pod, pod.app)
    if ours.value != theirs.value or not ours.there:
        says = " and ".join(
            f"{each.name} {user.value or 'an unknown one'}" for each, user in _users(pod, pod.ours, pod.app)
        )
        yield Told(ours, f"NACOS_DRAIN_RELEASE=signal, and the users are: {says}", "the same runAsUser for both")


def _users(pod: Pod, *containers: Container) -> list[tuple[Container, Place]]:
    return [(each, _user(pod, each)) for each in containers]


def _user(pod: Pod, container: Container) -> Place:
    """The user that it runs as, as far as the manifest says."""
    own = container.place.at("securityContext", "runAsUser")
    return own if own.there else pod.spec.at("securityContext", "runAsUser")


@RULES.rule(
    "shell-pid1",
    Severity.ERROR,
    "The shell is process 1 and keeps SIGTERM to itself: the app never hears of its end, and is killed when the grace "
    "period is over.",
)
def _shell(pod: Pod) -> Iterator[Told]:
    if pod.signals:
        return  # the app itself is signalled, not process 1
    for each in pod.apps:
        line = shell(each.command)
        if line and not takes_over(line):
            key = "command" if each.place["command"].there else "args"
            yield Told(
                each.place[key],
                f"{each.name} runs `{last_program(line)}` in a shell without exec",
                "write exec in front of it",
            )


@RULES.rule(
    "stop-signal",
    Severity.WARNING,
    "A JVM ends in order at SIGTERM, SIGINT and SIGHUP; nacos-drain heeds SIGTERM and SIGINT. Another one ends them "
    "at once, or not at all.",
)
def _stop_signal(pod: Pod) -> Iterator[Told]:
    for each in (*pod.apps, *([pod.ours] if pod.ours is not None and not pod.wrapped else [])):
        signal = each.place.at("lifecycle", "stopSignal")
        if signal.text not in _HEEDED and (each is pod.ours or signal.text != "SIGHUP"):
            yield Told(signal, f"{each.name} is stopped with {signal.text}", "delete it, or SIGTERM")
