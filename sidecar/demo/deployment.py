"""The demo's provider as a Deployment with two replicas, and the load on it.

A story of three releases: the first replicas know nothing but SIGTERM, the next ones have the folk hook, the ones after
that a sidecar; so each rollout stops the replicas of the release before. It goes as a Deployment's does: a new replica
up and listed, the termination of an old one begun, and on to the next without waiting for its end.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from sidecar.demo.kubelet import APP_STOP, DRAIN, WAYS, Kubelet, Pod, Scale
from sidecar.demo.network import Network
from sidecar.demo.programs import Program, Programs
from sidecar.demo.registration import Nacos
from sidecar.demo.show import FRAME, Board, Result, Screen
from sidecar.settings.declaration import PREFIX
from sidecar.settings.values import duration_text
from sidecar.settle import Rule


REPLICAS = 2
START_LIMIT = 30.0  # a busy machine takes seconds for what usually takes one


class Trouble(Exception):
    """The demo cannot go on; the message says why."""


@dataclass
class Told:
    """What the consumers said last."""

    requests: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)


class Deployment:
    """The replicas, their consumers, and how the one are replaced under the eyes of the other."""

    def __init__(
        self, programs: Programs, network: Network, nacos: Nacos, scale: Scale, shown: Screen, *, double: bool
    ) -> None:
        self._programs = programs
        self._network = network
        self._nacos = nacos
        self._scale = scale
        self._shown = shown
        self._double = double
        self._board = Board()
        self.kubelet = Kubelet(nacos.session, scale, shown, self._board)
        self._before = Told()
        self._told = Told()
        self._news = asyncio.Event()
        self._pods: list[Pod] = []
        self._born = 0
        self._changed_at = 0.0  # loop time: the newest replica was listed, or the load has begun

    async def roll_all(self, ways: Sequence[str]) -> list[Result]:
        """Roll in each of these ways, under one load."""
        server = "a Nacos double" if self._double else self._nacos.url
        load = f"{self._scale.consumers} consumers, {self._scale.rate:g} requests/s"
        self._shown.say(f"{REPLICAS} replicas of {self._nacos.service} in {server}; {load}")
        self._shown.say(str(self._scale))
        async with asyncio.TaskGroup() as group:
            first = [group.create_task(self._bring_up(ways[0])) for _ in range(REPLICAS)]
        self._pods = [task.result() for task in first]
        consumers = await self._start_consumers()
        self._changed_at = asyncio.get_running_loop().time()
        results = [await self._roll(way, new) for way, new in zip(ways, [*ways[1:], ways[-1]], strict=True)]
        consumers.send(signal.SIGTERM)
        await consumers.exited()
        return results

    async def draw(self) -> None:
        """Keep the board up to date."""
        while True:
            self._board.requests = self._told.requests - self._before.requests
            self._board.failed = sum(self._told.failed.values()) - sum(self._before.failed.values())
            self._shown.refresh(self._board)
            await asyncio.sleep(FRAME)

    # -- rolling ---------------------------------------------------------------------------------------------------

    async def _roll(self, way: str, new: str) -> Result:
        """Replace every replica; the new ones are made for the release after this one."""
        if way == DRAIN:
            await self._warm_up()
        self._board.title = f"{way}: {WAYS[way]}"
        self._shown.say(f"== {self._board.title}")
        self._before = self._told
        old, self._pods = self._pods, []
        async with asyncio.TaskGroup() as group:
            ends = []
            for pod in old:
                self._pods.append(await self._bring_up(new))
                ends.append(group.create_task(self.kubelet.terminate(pod, way), name=f"end of {pod.name}"))
        await self._forgotten({pod.address for pod in old})
        before, now = self._before, self._told
        kinds = {kind: count - before.failed.get(kind, 0) for kind, count in now.failed.items()}
        result = Result(
            way,
            now.requests - before.requests,
            sum(kinds.values()),
            max(end.result() for end in ends),
            {kind: count for kind, count in kinds.items() if count},
        )
        self._shown.say(f"== {result}")
        return result

    async def _warm_up(self) -> None:
        """Let the sidecars watch their callers for longer than the look-back, as those of real pods have long done."""
        loop, scale = asyncio.get_running_loop(), self._scale
        rest = (
            self._changed_at + scale.cache + scale.warm_up - loop.time()
        )  # by then every consumer has read its list anew
        if rest > 0:
            self._board.title = "warming up"
            self._shown.say(
                f"warming up {rest:.0f} s: a sidecar that has watched for less than the look-back "
                f"(SETTLE_LOOK_BACK={duration_text(scale.look_back)}) waits for the cap"
            )
            await asyncio.sleep(rest)
        for pod in self._pods:
            if (traffic := await self.kubelet.traffic(pod)) is not None:
                self._shown.say(f"{pod.name}: its sidecar {traffic}")

    async def _forgotten(self, old: set[str]) -> None:
        """Wait until no consumer uses or awaits an old replica: until then it could still cost requests."""
        try:
            async with asyncio.timeout(self._scale.cache + START_LIMIT):
                for _ in range(2):  # the line that is on its way may be older than the last exit
                    await self._news.wait()
                while old & set(self._told.used):
                    await self._news.wait()
        except TimeoutError:
            raise Trouble(f"consumers still use {', '.join(sorted(old & set(self._told.used)))}") from None

    # -- starting --------------------------------------------------------------------------------------------------

    async def _bring_up(self, way: str) -> Pod:
        """Start a replica as its release wants it, and wait until it is ready and listed."""
        number, self._born = self._born, self._born + 1
        ip, port = self._network.pod(number)
        name = f"provider-{number + 1}"
        self._board.pods[name] = "starting"
        sidecar = await self._start_sidecar(name, ip, port) if way == DRAIN else None
        arguments = ["--listen", f"{ip}:{port}", "--nacos", self._nacos.url, "--service", self._nacos.service]
        if self._double:
            arguments.append("--double")
        app = await self._programs.start(name, "sidecar.demo.provider", *arguments)
        pod = Pod(name, ip, port, self._network.sidecar_port, app, sidecar)
        try:
            async with asyncio.timeout(START_LIMIT):
                while not await self._ready(pod):  # noqa: ASYNC110  as a kubelet does: ask until it says yes
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Trouble(f"{name} was not ready after {START_LIMIT:g} s\n{pod.last_lines}") from None
        self._changed_at = asyncio.get_running_loop().time()
        self._board.pods[name] = f"serving on {pod.address}"
        self._shown.say(f"{name} is up and listed{', with a sidecar' if sidecar else ''}: {pod.address}")
        return pod

    async def _ready(self, pod: Pod) -> bool:
        if pod.address not in await self._nacos.addresses():
            return False
        if pod.sidecar is None:
            return True
        with contextlib.suppress(aiohttp.ClientError):
            async with self._nacos.session.get(pod.sidecar_url("readyz")) as response:
                return response.status == HTTPStatus.OK
        return False

    async def _start_sidecar(self, name: str, ip: str, port: int) -> Program:
        settings = {
            "LISTEN": f"{ip}:{self._network.sidecar_port}",
            "GRACE_PERIOD": duration_text(self._scale.grace_period),
            "APP_STOP": duration_text(APP_STOP),
            "CONSUMER_CACHE": duration_text(self._scale.longest_cache),
            "NACOS_SERVER_ADDR": self._nacos.url,
            "NACOS_SERVICE": self._nacos.service,
            "NACOS_IP": ip,
            "NACOS_PORT": str(port),
            "LOG_FORMAT": "json",
        }
        if self._scale.look_back != Rule().look_back:
            settings["SETTLE_LOOK_BACK"] = duration_text(self._scale.look_back)
        env = {PREFIX + setting: value for setting, value in settings.items()}
        env["KUBERNETES_SERVICE_HOST"] = self._network.kubelet  # what tells a pod from a compose service
        return await self._programs.start(f"sidecar of {name}", "sidecar", "serve", env=env)

    async def _start_consumers(self) -> Program:
        """Start the load, and wait for its first answers."""
        consumers = await self._programs.start(
            "consumers",
            "sidecar.demo.consumer",
            *("--nacos", self._nacos.url, "--service", self._nacos.service),
            *("--bind", ",".join(self._network.consumers(self._scale.consumers))),
            *("--cache", str(self._scale.cache), "--rate", str(self._scale.rate)),
            on_line=self._hear,
        )
        while not self._told.requests:
            await self._news.wait()
        return consumers

    def _hear(self, line: str) -> None:
        if line.startswith("{"):
            self._told = Told(**json.loads(line))
            news, self._news = self._news, asyncio.Event()
            news.set()
