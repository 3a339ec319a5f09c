"""Plays a manifest's pod to its end: real containers, a real Nacos, consumers that call, and the kubelet's rules.

The pod is one of two replicas; the other one stays. The app registers itself, as apps do: from a process of ours, as
the one in examples/java-image is too small to, at the address of its pod and for as long as its container runs.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from kubelet import Order, Pod, Timeline
from manifests.ground import APP, PORT, Ground
from manifests.load import Consumer, Load, calling
from manifests.place import JAVA, SIDECAR, Image, place
from manifests.probing import Probing, probed
from manifests.reading import read
from rig.clients import GrpcApp, Subscriber
from rig.openapi import Observer
from rig.records import Host, Instance
from rig.servers import NacosServer


EXAMPLES = Path(__file__).parents[2] / "examples/kubernetes"
DIRECTLY = ("java", "-cp", "/app", "Shop")
LISTENING = "listening"  # what the app prints
LOOK_BACK = 10
EVERY = 0.02
AT_ONCE = 3  # two cores; each play is some JVMs and Pythons that start, and then half a minute of waiting
KNOWN = int((LOOK_BACK + 2) / EVERY / 2)  # half the answers of so long: a look-back, and a little more
AFTER = int(1 / EVERY / 2)  # a second's

# All that is not the manifests', and why.
SETTINGS = {
    "NACOS_SERVER_ADDR": "the Nacos that is here",
    "NACOS_SERVICE": "each play has one of its own: Nacos remembers an address for a minute",
    "SETTLE_LOOK_BACK": "a younger sidecar waits for the cap of 40 s, and a play would last for 5 min",
}
SECRETS = {"nacos-login": {"username": "nacos", "password": "nacos"}, "shop-drain": {"token": "any"}}


def images(*entrypoint: str) -> dict[str, Image]:
    """Ours, and the app's: nacos-drain's `run` is its entrypoint, unless it is started as an app of no wrapper is."""
    return {
        "registry.example.com/nacos-drain:0.1.0": Image(SIDECAR),
        "registry.example.com/shop:1.0.0": Image(JAVA, entrypoint),
    }


@dataclass
class Played:
    """What came of a play."""

    timeline: Timeline
    load: Load
    instance: Instance
    restart: Timeline | None = None  # counted from the app's liveness restart
    back: float = 0.0  # seconds from that to the app being listed again
    residue: Host | None = None  # its record some time after that
    last_words: Mapping[str, str] = field(default_factory=dict)  # each container's termination message

    @property
    def log(self) -> list[dict[str, Any]]:
        """What nacos-drain said, in whichever container it was."""
        return [json.loads(line.text) for line in self.timeline.lines if line.text.startswith('{"')]

    def told(self, event: str, nth: int = -1) -> dict[str, Any]:
        """One of its log lines."""
        found = [line for line in self.log if line["event"] == event]
        assert found, f"no {event} in\n{self.timeline}"
        return found[nth]


@dataclass
class Scene:
    """A pod that runs, is registered, probed and called."""

    pod: Pod
    probing: Probing
    nacos: NacosServer
    played: Played


Act = Callable[[Scene], Awaitable[None]]


def stop(order: Order = "hook_first") -> Act:
    """Delete the pod."""

    async def act(scene: Scene) -> None:
        scene.probing.end_liveness()
        await scene.pod.terminate(order=order)

    return act


async def restart_and_stop(scene: Scene) -> None:
    """Let the app's liveness probe fail; delete the pod when the app is back and has been called for a while."""
    played, timeline = scene.played, scene.pod.timeline
    async with Observer(scene.nacos) as eye:
        await scene.pod.liveness_restart(APP)
        played.restart = timeline.kept()
        await timeline.printed(APP, LISTENING, nth=1)
        await eye.until(played.instance, listed=True, within=30)
        played.back = timeline.now - timeline.at(APP, "exit")
        await played.load.until(played.instance.address, KNOWN)
        played.residue = await eye.record(played.instance)
    await stop()(scene)


@dataclass(frozen=True)
class Form:
    """An example, what happens to its pod, and how its app starts."""

    folder: str
    act: Act
    images: Mapping[str, Image] = field(default_factory=lambda: images(*DIRECTLY))
    drained_in: str | None = "nacos-drain"  # the container; None: nothing drains it
    change: Callable[[dict[str, Any]], None] = lambda _: None
    old_kubelet: bool = False


def bare(spec: dict[str, Any]) -> None:
    """Take from a pod what makes the difference."""
    del spec["initContainers"]
    del spec["containers"][0]["lifecycle"]


# It keeps SIGTERM to itself, so that the app hears of its end from nobody but a sidecar. Without the trap it would die
# of the signal, as it is no PID 1 there, and the app with it.
SHELL = "trap : TERM; java -cp /app Shop; exit $?"

FORMS = {
    "native": Form("01-native-sidecar", stop()),
    "liveness": Form("01-native-sidecar", restart_and_stop),
    "bare": Form("01-native-sidecar", stop(), drained_in=None, change=bare),
    "ordinary, signalled first": Form("02-ordinary-sidecar", stop("signal_first"), old_kubelet=True),
    "ordinary, asked first": Form("02-ordinary-sidecar", stop("hook_first")),
    "wrapper": Form("03-wrapper", stop(), images(), drained_in=APP),
    "signal": Form("04-signal", stop(), images("sh", "-c", SHELL)),
}


def deployment(folder: str) -> dict[str, Any]:
    """An example's."""
    documents = yaml.safe_load_all((EXAMPLES / folder / "deployment.yaml").read_text())
    (found,) = [each for each in documents if each and each["kind"] == "Deployment"]
    return dict(found)


async def play(form: Form, ground: Ground) -> Played:
    """Play one."""
    service = f"shop-{uuid4().hex[:8]}"
    values = (ground.address, service, f"{LOOK_BACK}s")
    settings = {f"NACOS_DRAIN_{name}": value for name, value in zip(SETTINGS, values, strict=True)}
    async with (
        place(ground.bridge, form.images, settings, SECRETS) as where,
        GrpcApp(ground.nacos) as stays,
        Subscriber(ground.nacos) as subscriber,
    ):
        await stays.register(Instance(service, PORT, ip=ground.stays))
        await subscriber.subscribe(service)
        manifest = deployment(form.folder)
        form.change(manifest["spec"]["template"]["spec"])
        spec = read(manifest, where)
        pod = Pod(
            *spec.containers,
            ip=where.ip,
            node_ip=where.host_ip,
            termination_grace_period_seconds=spec.grace,
            old_kubelet=form.old_kubelet,
        )
        played = Played(pod.timeline, Load(subscriber), Instance(service, PORT, ip=where.ip))
        async with pod, registered(played, ground), probed(pod, where.host_ip, spec.probes) as probing:
            await probing.until_ready()
            if form.drained_in:
                await pod.timeline.printed(form.drained_in, '"registry.ready"', within=40)
            await called(form, Scene(pod, probing, ground.nacos, played), ground)
        played.last_words = where.last_words()
    return played


async def called(form: Form, scene: Scene, ground: Ground) -> None:
    """Let the act happen under load, which goes on for a second after it."""
    load = scene.played.load
    consumers = (Consumer(ground.fast, EVERY), Consumer(ground.slow, every=0.25, takes=0.3))
    async with calling(load, *consumers):
        if form.drained_in:
            await scene.probing.until_known()
        await load.until(scene.played.instance.address, KNOWN if form.drained_in else AFTER)
        await form.act(scene)
        await load.until(f"{ground.stays}:{PORT}", 2 * AFTER)


async def ended(timeline: Timeline, life: int) -> None:
    """Wait until the JVM has ended: with its container, or before it where that is ours."""
    ends = (
        timeline.seen(APP, "exit", nth=life, within=600),
        timeline.printed(APP, '"run.exited"', nth=life, within=600),
    )
    tasks = [asyncio.ensure_future(end) for end in ends]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def registered(played: Played, ground: Ground) -> AsyncIterator[None]:
    """Register the app in each of its lives, from when it listens until it has exited."""

    async def live() -> None:
        lives = 0
        while True:
            await played.timeline.printed(APP, LISTENING, nth=lives, within=600)
            async with GrpcApp(ground.nacos) as registration:
                await registration.register(played.instance)
                await ended(played.timeline, lives)
            lives += 1

    living = asyncio.create_task(live())
    try:
        yield
        if living.done():
            living.result()
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
