"""The folk remedy, second by second: a hook that asks the app to deregister, and sleeps.

The hook is part of the grace period: SIGTERM comes when it ends or the period is over, and SIGKILL 2 s later at the
earliest (measured with a real kubelet, k8s-termination.md 1.4).
"""

from sidecar.manifests.findings import Told
from sidecar.manifests.pods import Container, Pod


FLOOR = 2.0  # what the kubelet grants after SIGTERM when nothing is left
SLACK = 3.0  # between the end of the hook and that of the grace period, besides the app's own stop

Story = tuple[tuple[float, str], ...]


def outlasts(pod: Pod, app: Container) -> bool:
    """Whether the hook sleeps into the time that the app needs to stop."""
    return app.hook.sleeps > 0 and app.hook.sleeps > pod.grace - pod.app_stop


def remedy(pod: Pod, app: Container) -> Told | None:
    """A hook that sleeps, within its time; None for one that does not, or sleeps longer than there is."""
    hook = app.hook
    if not hook.sleeps or outlasts(pod, app):
        return None
    what = f"the hook of {app.name} sleeps {hook.sleeps:g} s at every release"
    if hook.urls:
        what += f", and does not look what became of {hook.urls[0]}"
    return Told(
        hook.place, what, "nacos-drain instead: it reads Nacos, and goes on when the callers have", story(pod, app)
    )


def story(pod: Pod, app: Container) -> Story:
    """What happens when this pod is deleted, from second to second."""
    hook, grace, stop = app.hook, pod.grace, pod.app_stop
    rows: list[tuple[float, str]] = [(0.0, "the pod is deleted, and the kubelet runs the hook")]
    for url in hook.urls:
        blind = "" if hook.fails else "; without -f curl is content with a 404 or 500, too"
        rows.append((0.0, f"it asks {url}{blind}"))
    rows.append((0.0, f"`sleep {hook.sleeps:g}` begins; nobody asks Nacos whether the instance is gone"))
    if hook.sleeps >= grace:
        late = hook.sleeps - grace
        rows += [
            (
                grace,
                f"the grace period is over with {late:g} s of the sleep to go: SIGTERM, and callers may still be there",
            ),
            (grace + FLOOR, f"SIGKILL: the app had {FLOOR:g} s of the {stop:g} s that it may need"),
            (
                grace + FLOOR,
                "never drained: requests in progress are cut, and what leaves Nacos only at the app's end does not",
            ),
        ]
        return tuple(rows)
    left = max(FLOOR, grace - hook.sleeps)
    rows.append((hook.sleeps, f"the hook ends: SIGTERM, whether callers have stopped or not; {left:g} s are left"))
    if left < stop:
        rows.append((hook.sleeps + left, f"SIGKILL: the app had {left:g} s of the {stop:g} s that it may need"))
    else:
        rows.append((hook.sleeps + stop, f"the app has stopped, if {stop:g} s are enough for it"))
    return tuple(rows)


def enough(pod: Pod, app: Container) -> int:
    """The grace period in which this hook would fit."""
    return int(app.hook.sleeps + pod.app_stop + SLACK)
