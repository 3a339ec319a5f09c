"""The kubelet's probes that go on: to a sidecar they look like callers, so a play without them would be too easy."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from kubelet import HookFailedError, LifecycleClient, Pod
from manifests.reading import Probe

from sidecar.probes import BEATS


READY_WITHIN, KNOWN_WITHIN = 40.0, 60.0


class Probing:
    """The readiness and liveness probes of one pod, each on a clock that does not drift."""

    def __init__(self, client: LifecycleClient, pod: Pod, probes: Sequence[Probe]) -> None:
        self._client = client
        self._pod = pod
        self._passed = dict.fromkeys(range(len(probes)), 0)
        self._probes = probes
        self._tasks = [asyncio.create_task(self._go_on(number)) for number in self._passed]

    async def until_ready(self) -> None:
        """Wait until each readiness probe has passed."""
        await self._until("readiness", 1, READY_WITHIN)

    async def until_known(self) -> None:
        """Wait for as many beats as a sidecar wants to see before it takes them for probes, and one more."""
        await self._until("readiness", BEATS + 1, KNOWN_WITHIN)

    def end_liveness(self) -> None:
        """Do what a kubelet does at T0: whether it lives is not asked any more, whether it is ready is."""
        for probe, task in zip(self._probes, self._tasks, strict=True):
            if probe.kind == "liveness":
                task.cancel()

    async def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _until(self, kind: str, times: int, within: float) -> None:
        wanted = [number for number, probe in enumerate(self._probes) if probe.kind == kind]
        try:
            async with asyncio.timeout(within):
                while any(self._passed[number] < times for number in wanted):  # noqa: ASYNC110  another task counts
                    await asyncio.sleep(0.05)
        except TimeoutError:
            passed = [(self._probes[number].action, self._passed[number]) for number in wanted]
            raise AssertionError(f"not passed {times} times: {passed}\n{self._pod.timeline}") from None

    async def _go_on(self, number: int) -> None:
        probe, loop = self._probes[number], asyncio.get_running_loop()
        began = loop.time()
        for beat in count(1):
            lived = self._pod.timeline.now - self._pod.timeline.at(probe.container, "started", -1)
            if lived >= probe.delay and await self._passes(probe):
                self._passed[number] += 1
            await asyncio.sleep(began + beat * probe.period - loop.time())

    async def _passes(self, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(1):
                return 200 <= await self._client.get(probe.action, self._pod.ip, kind="probe") < 400
        except (HookFailedError, TimeoutError):
            return False


@asynccontextmanager
async def probed(pod: Pod, node_ip: str, probes: Sequence[Probe]) -> AsyncIterator[Probing]:
    """Probe a pod until the end of the context."""
    probing = Probing(LifecycleClient(node_ip), pod, probes)
    try:
        yield probing
    finally:
        await probing.close()
