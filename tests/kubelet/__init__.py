"""A kubelet stopping a pod, with local processes for containers and a loopback address for the pod, or with docker's.

How the stop goes (who is called, signalled and killed, and when) is most of what the product
promises, and no test machine has a cluster. The rules here are those read in the kubelet's source
and measured on a real one; test_kubelet.py holds the emulator to those timelines.

    app = Container("app", [sys.executable, "app.py"], pre_stop=HttpGet("/drain", 19081))
    sidecar = Container("sidecar", ["nacos-drain"], native_sidecar=True,
                        startup_probe=HttpGet("/livez", 19081))
    async with Pod(app, sidecar, ip="127.0.0.21", termination_grace_period_seconds=30) as pod:
        await pod.terminate()
        pod.timeline.assert_order(("app", "hook-end"), ("app", "sigterm"), ("sidecar", "sigterm"))

A `DockerContainer` in place of a `Container` is a real one: tests/manifests plays whole manifests with them.

What it does not model: a PID namespace (a local process is no PID 1, so SIGTERM with the default
disposition kills it), sleep hooks, HTTPS, crash back-off beyond the first restart,
and liveness or readiness probing: a test says when a liveness probe fails.
"""

from .docker import DockerContainer
from .hook import Exec, HookFailedError, HttpGet, LifecycleClient
from .lives import ContainerLives
from .pod import Order, Pod
from .process import Container
from .timeline import Event, Line, Timeline


__all__ = [
    "Container",
    "ContainerLives",
    "DockerContainer",
    "Event",
    "Exec",
    "HookFailedError",
    "HttpGet",
    "LifecycleClient",
    "Line",
    "Order",
    "Pod",
    "Timeline",
]
