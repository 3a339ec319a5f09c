"""The three ways to stop a pod, as a kubelet goes them: hook, SIGTERM, exit, SIGKILL at the end of the grace period."""

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import Any

import aiohttp

from sidecar.demo.programs import Program
from sidecar.demo.provider import DEREGISTER
from sidecar.demo.show import FRAME, Board, Screen
from sidecar.plan import MARGIN, PROOF_LEAST, SETTLE_SLACK, SPRING_CACHE
from sidecar.report import Phase
from sidecar.settings.values import duration_text
from sidecar.settle import Rule
from sidecar.traffic import BLIND


SIGTERM, SLEEP, DRAIN = "sigterm", "sleep", "nacos-drain"
WAYS = {
    SIGTERM: "SIGTERM and nothing else",
    SLEEP: "the folk hook, curl -X POST …/nacos-deregister && sleep, then SIGTERM",
    DRAIN: "preStop asks the sidecar, SIGTERM when it answers",
}
GRACE_PERIOD = 30.0
APP_STOP = 2.0
USER_AGENT = "kube-lifecycle/1.32"  # without a token the sidecar lets nobody else drain from another address


@dataclass(frozen=True)
class Scale:
    """The demo's seconds.

    Who stops a provider does not know its consumers, so both hooks reckon with the longest cache, as in production.
    These consumers have a shorter one, or each way would take as long again until the last of them has noticed.
    """

    cache: float = 6.0
    longest_cache: float = SPRING_CACHE
    rate: float = 40.0
    consumers: int = 4
    look_back: float = 20.0  # the replicas of a demo do not live for the default
    warm_up: float = 25.0  # under load before the roll; with less than the look-back a sidecar knows nobody

    @property
    def sleep(self) -> float:
        """What the folk hook sleeps for, and the sidecar's cap: 40 s in production."""
        return self.longest_cache + SETTLE_SLACK

    @property
    def grace_period(self) -> float:
        """Long enough for the slowest way."""
        return max(GRACE_PERIOD, PROOF_LEAST + self.sleep + APP_STOP + MARGIN)

    @property
    def watching(self) -> str:
        """What is special about the sidecars here."""
        return (
            f"nacos-drain's sidecars have SETTLE_LOOK_BACK={duration_text(self.look_back)} (default: "
            f"{duration_text(Rule().look_back)}) and {self.warm_up:g} s of load before their roll"
        )

    def __str__(self) -> str:
        return (
            f"both hooks reckon with lists of {self.longest_cache:g} s, as Spring Cloud LoadBalancer's are: one sleeps "
            f"{self.sleep:g} s, the other has that as its cap; these consumers use theirs for {self.cache:g} s"
        )


@dataclass
class Pod:
    """A replica: its app, and its sidecar if it has one."""

    name: str
    ip: str
    port: int
    sidecar_port: int
    app: Program
    sidecar: Program | None

    @property
    def address(self) -> str:
        """As it is registered."""
        return f"{self.ip}:{self.port}"

    def sidecar_url(self, path: str) -> str:
        """Where its sidecar answers."""
        return f"http://{self.ip}:{self.sidecar_port}/{path}"

    @property
    def last_lines(self) -> str:
        """What both said last."""
        programs = [self.app] if self.sidecar is None else [self.app, self.sidecar]
        return "\n".join(program.told for program in programs)


class Kubelet:
    """Stops pods. Its session is bound to an address that is neither the pod's nor 127.0.0.1, as a node's is."""

    def __init__(self, session: aiohttp.ClientSession, scale: Scale, shown: Screen, board: Board) -> None:
        self.reports: list[dict[str, Any]] = []
        self._session = session
        self._scale = scale
        self._shown = shown
        self._board = board

    async def terminate(self, pod: Pod, way: str) -> float:
        """End a pod; returns the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._scale.grace_period):
                await self._hook(pod, way)
                self._board.pods[pod.name] = "SIGTERM"
                pod.app.send(signal.SIGTERM)
                await pod.app.exited()
                if pod.sidecar is not None:  # a native sidecar is told when the app's containers are gone
                    pod.sidecar.send(signal.SIGTERM)
                    await pod.sidecar.exited()
        except TimeoutError:
            self._shown.say(f"{pod.name}: the grace period is over, SIGKILL")
            for program in (pod.app, pod.sidecar):
                if program is not None:
                    program.send(signal.SIGKILL)
                    await program.exited()
        seconds = loop.time() - began
        del self._board.pods[pod.name]
        self._shown.say(f"{pod.name} has exited, {seconds:.1f} s after its termination began")
        return seconds

    async def traffic(self, pod: Pod) -> str | None:
        """What a replica's sidecar knows of its callers, in words; None when it does not answer."""
        try:
            async with self._session.get(pod.sidecar_url("status")) as response:
                told = (await response.json())["traffic"]
        except (aiohttp.ClientError, ValueError):
            return None
        if told["source"] == BLIND:
            return f"cannot see its callers: {told['reason']}"
        rhythms = told["rhythms"]
        missed = f"; it may have missed a call: {told['missed']}" if told["missed"] else ""
        return f"knows {rhythms['known']} of {sum(rhythms.values())} callers (traffic source: {told['source']}){missed}"

    async def _hook(self, pod: Pod, way: str) -> None:
        """What this release's preStop does; when it fails, a kubelet goes on all the same."""
        hooks = {SLEEP: self._deregister_and_sleep, DRAIN: self._drain}
        if way not in hooks:
            self._shown.say(f"{pod.name}: no preStop")
            return
        try:
            await hooks[way](pod)
        except (aiohttp.ClientError, ValueError) as error:
            self._shown.say(f"{pod.name}: preStop failed: {error}")

    async def _deregister_and_sleep(self, pod: Pod) -> None:
        self._board.pods[pod.name] = f"preStop: deregister, sleep {self._scale.sleep:g}"
        self._shown.say(f"{pod.name}: preStop deregisters it and sleeps for {self._scale.sleep:g} s")
        async with self._session.post(f"http://{pod.address}{DEREGISTER}") as response:
            await response.read()  # whatever it says: curl without -f exits 0
        await asyncio.sleep(self._scale.sleep)

    async def _drain(self, pod: Pod) -> None:
        self._board.pods[pod.name] = "preStop: GET /drain"
        self._shown.say(f"{pod.name}: preStop asks its sidecar")
        report: dict[str, Any] = {"outcome": "a hook without an answer"}
        said: list[str] = []
        following = asyncio.create_task(self._follow(pod, said), name=f"status of {pod.name}")
        try:
            async with self._session.get(pod.sidecar_url("drain"), headers={"User-Agent": USER_AGENT}) as response:
                report = await response.json()
        finally:
            following.cancel()
            self.reports.append(report)
        self._say_phases(pod, report, said)
        proof = "proved gone" if report.get("proved_gone") else "NOT proved gone"
        self._shown.say(f"{pod.name}: the sidecar answers: {report.get('outcome')}, {proof}")

    async def _follow(self, pod: Pod, said: list[str]) -> None:
        """Show the phases as the sidecar reports them."""
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with self._session.get(pod.sidecar_url("status")) as response:
                    self._say_phases(pod, (await response.json())["report"] or {}, said)
                doing = next((phase for phase in Phase if phase not in said), Phase.RELEASE)
                self._board.pods[pod.name] = f"draining: {doing.value}"
            await asyncio.sleep(FRAME)

    def _say_phases(self, pod: Pod, report: dict[str, Any], said: list[str]) -> None:
        """Tell of each phase once, when it is over."""
        for phase in report.get("phases", [])[len(said) :]:
            said.append(phase["phase"])
            told = "{phase} {outcome} after {seconds:.2f} s: {detail}".format_map(phase)
            self._shown.say(f"{pod.name}: {told}")
