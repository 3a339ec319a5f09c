"""The kubelet's rules for starting, stopping and restarting the containers of one pod."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Literal, Self

from .hook import Exec, HookFailedError, HttpGet, LifecycleClient
from .lives import ContainerLives, Spec
from .timeline import Timeline


MINIMUM_GRACE = 2  # whole seconds every container gets between SIGTERM and SIGKILL
RESTART_DELAY = 1.0  # seconds from a container's exit to its next start, as measured
HOOK_AFTER_SIGNAL = 0.025  # real seconds between the two at T0; both orders have been measured
SIGNAL_AFTER_HOOK = 0.010
PROBE_PERIOD = 0.05
STARTUP_DEADLINE = 20.0
CLEAN_UP_DEADLINE = 5.0
RACE_DECIDED = 0.2  # by then the slower of the two goes ahead whatever became of the faster

Order = Literal["signal_first", "hook_first"]


class _Race:
    """The order of SIGTERM and hook request at T0, where two containers get one each."""

    def __init__(self, order: Order | None) -> None:
        self._order = order
        self.led = asyncio.Event()  # the first of the two is out

    async def before_hook(self) -> None:
        if self._order == "signal_first":
            await self._follow(HOOK_AFTER_SIGNAL)

    async def before_signal(self) -> None:
        if self._order == "hook_first":
            await self._follow(SIGNAL_AFTER_HOOK)

    async def _follow(self, lag: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RACE_DECIDED):
                await self.led.wait()
        await asyncio.sleep(lag)


class Pod:
    """A pod whose containers run from entering the context to leaving it, at the latest.

    `second` is the length of a second in all of the kubelet's arithmetic (grace periods, whole
    seconds spent, the floor, the restart delay): the rules at 0.1 are the rules at 1. The timeline
    is in real seconds all the same. `node_ip` is where hooks and probes come from.
    """

    def __init__(
        self,
        *containers: Spec,
        ip: str,
        termination_grace_period_seconds: int = 30,
        second: float = 1.0,
        node_ip: str = "127.0.0.2",
        old_kubelet: bool = False,
        restart_policy: Literal["Always", "Never"] = "Always",
    ) -> None:
        self.ip = ip
        self.timeline = Timeline()
        self.containers = {spec.name: spec.lives(self.timeline) for spec in containers}
        self._grace = termination_grace_period_seconds
        self._second = second
        self._old_kubelet = old_kubelet
        self._restart_policy = restart_policy
        self._client = LifecycleClient(node_ip)
        self._starting = asyncio.Lock()
        self._terminating = asyncio.Event()
        self._supervisors: list[asyncio.Task[None]] = []
        self._hooks: set[asyncio.Task[None]] = set()
        self._attempt: asyncio.Task[None] | None = None
        self._kubelet_up = asyncio.Event()
        self._kubelet_up.set()
        self._left = False

    async def __aenter__(self) -> Self:
        """Start native sidecars in turn, then all main containers, and wait for startup probes."""
        try:
            for container in self.containers.values():
                if container.spec.native_sidecar:
                    await self._start(container)
                    await self._startup(container)
            mains = [c for c in self.containers.values() if not c.spec.native_sidecar]
            for container in mains:
                await self._start(container)
            for container in mains:
                await self._startup(container)
        except BaseException:
            await self._clean_up()
            raise
        return self

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Kill whatever is left; tell if a container could not be started again."""
        await self._clean_up()
        if failure is None:
            await asyncio.gather(*self._supervisors)

    def pid(self, name: str) -> int:
        """Return the first process of a container."""
        return self.containers[name].pid

    async def terminate(self, grace: int | None = None, *, order: Order = "hook_first") -> None:
        """Delete the pod, and return when all its containers have exited.

        `order` says which comes first when one container has a hook and another has none and gets
        SIGTERM at T0. An override of the grace period is never below one second.
        """
        async with self._starting:  # what is being started now is stopped like all others
            self._terminating.set()
        self.timeline.begin()
        whole = max(1, self._grace if grace is None else grace)
        while True:
            await self._kubelet_up.wait()
            self._attempt = asyncio.create_task(self._kill_pod(whole, order))
            try:
                await asyncio.wait({self._attempt})
            finally:
                self._attempt.cancel()
            if self._left or not self._attempt.cancelled():
                break
        self._attempt.result()
        self.timeline.record("pod", "gone")
        await asyncio.gather(*self._supervisors)

    async def force_delete(self) -> None:
        """`kubectl delete --force --grace-period=0`, which is one second."""
        await self.terminate(grace=1)

    async def restart_kubelet(self, down: float = 0.0) -> None:
        """Let the kubelet die in mid-termination and come back after `down` seconds.

        The hook's connection is cut, no promise of the old one is kept, and the termination begins
        again with the whole grace period: hooks are delivered twice.
        """
        assert self._attempt is not None, "only a running terminate() can be interrupted"
        self._kubelet_up.clear()
        self.timeline.record("kubelet", "down")
        self._client.cut()
        for task in (self._attempt, *self._hooks):
            task.cancel()
        await asyncio.sleep(down * self._second)
        self.timeline.record("kubelet", "up")
        self._kubelet_up.set()

    async def liveness_restart(self, name: str, grace: int | None = None) -> None:
        """Let a container's liveness probe fail for good, and return when it is started again.

        Its own hook, its own signals; nothing at all for the others. `grace` is the probe's own.
        This is a T0 of its own: what came before, and a terminate() after it, count from theirs.
        """
        container = self.containers[name]
        lives = len(self.timeline.all(name, "started"))
        self.timeline.begin()
        self.timeline.record(name, "unhealthy")
        whole = self._grace if grace is None else grace
        await self._kill_container(container, whole, None, _Race(None))
        await self._restarted(container, lives)

    async def crash(self, name: str) -> None:
        """Let a container die without the kubelet's doing, and return when it is started again."""
        container = self.containers[name]
        lives = len(self.timeline.all(name, "started"))
        self.timeline.record(name, "crash")
        await container.kill()
        await self._restarted(container, lives)

    async def _kill_pod(self, grace: int, order: Order) -> None:
        running = [c for c in self.containers.values() if c.running]
        hooked = any(c.spec.pre_stop for c in running)
        bare = any(not c.spec.pre_stop and not c.spec.native_sidecar for c in running)
        race = _Race(order if hooked and bare else None)
        async with asyncio.TaskGroup() as group:
            mains = [c for c in running if not c.spec.native_sidecar]
            ended = [group.create_task(self._kill_container(c, grace, None, race)) for c in mains]
            later: list[asyncio.Task[None]] = []
            for sidecar in reversed([c for c in running if c.spec.native_sidecar]):
                turn = (*ended, *later)
                later = [group.create_task(self._kill_container(sidecar, grace, turn, race))]

    async def _kill_container(
        self,
        container: ContainerLives,
        grace: int,
        turn: Collection[asyncio.Task[None]] | None,
        race: _Race,
    ) -> None:
        """Spend one grace period on the hook, on the others' exits, and on SIGTERM.

        Each takes off the whole seconds it lasted. The hook is not asked whether its container is
        still there: the wait goes on after an early exit.
        """
        hook = container.spec.pre_stop
        if hook is not None and grace > 0:
            task = asyncio.create_task(self._deliver(container, hook, race))
            self._hooks.add(task)
            grace -= await self._spend(grace, task)
        if turn and grace > 0:
            grace -= await self._spend(grace, *turn)
        if hook is None:
            await race.before_signal()
        await container.stop(max(grace, MINIMUM_GRACE) * self._second, race.led)

    async def _spend(self, grace: int, *tasks: asyncio.Task[None]) -> int:
        """Wait for the tasks within the grace period; return the whole seconds that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        done, pending = await asyncio.wait(tasks, timeout=grace * self._second)
        for task in done:
            task.result()  # a fault of the emulator must not pass for a hook's end
        return grace if pending else min(grace, int((loop.time() - began) / self._second))

    async def _deliver(self, container: ContainerLives, hook: HttpGet | Exec, race: _Race) -> None:
        """Call a hook until it answers, the server dies or the kubelet does; never give up."""
        name = container.spec.name
        await race.before_hook()
        self.timeline.record(name, "hook-start")
        try:
            status = await self._call(container, hook, race)
        except HookFailedError as error:
            self.timeline.record(name, "hook-failed", f"FailedPreStopHook: {error}")
        except asyncio.CancelledError:
            self.timeline.record(name, "hook-cut")
            raise
        else:
            self.timeline.record(name, "hook-end", str(status))
        finally:
            race.led.set()

    async def _call(self, container: ContainerLives, hook: HttpGet | Exec, race: _Race) -> int:
        if isinstance(hook, Exec):
            race.led.set()
            await container.run(hook)
            return 0
        kind: Literal["hook", "old-hook"] = "old-hook" if self._old_kubelet else "hook"
        return await self._client.get(hook, self.ip, kind=kind, sent=race.led)

    async def _start(self, container: ContainerLives) -> None:
        await container.start()
        self._supervisors.append(asyncio.create_task(self._supervise(container)))

    async def _supervise(self, container: ContainerLives) -> None:
        """Start the container again whenever it has exited, unless the pod is going."""
        while True:
            await container.drained.wait()
            if self._restart_policy == "Never":
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(RESTART_DELAY * self._second):
                    await self._terminating.wait()
            async with self._starting:
                if self._terminating.is_set():
                    return
                await container.start()

    async def _restarted(self, container: ContainerLives, lives: int) -> None:
        if self._restart_policy == "Never":
            return
        await self.timeline.seen(container.spec.name, "started", nth=lives, within=RESTART_DELAY * self._second + 10)
        await self._startup(container)

    async def _startup(self, container: ContainerLives) -> None:
        """Probe until the container counts as started."""
        probe = container.spec.startup_probe
        if probe is None:
            return
        try:
            async with asyncio.timeout(STARTUP_DEADLINE):
                while True:
                    if await self._passes(probe):
                        break
                    await asyncio.sleep(PROBE_PERIOD)
        except TimeoutError:
            name = container.spec.name
            raise AssertionError(f"{name} failed its startup probe\n{self.timeline}") from None
        self.timeline.record(container.spec.name, "startup-passed")

    async def _passes(self, probe: HttpGet) -> bool:
        try:
            async with asyncio.timeout(1):
                return 200 <= await self._client.get(probe, self.ip, kind="probe") < 400
        except (HookFailedError, TimeoutError):
            return False

    async def _clean_up(self) -> None:
        self._left = True
        async with self._starting:
            self._terminating.set()
        for container in self.containers.values():
            await container.kill()
        unfinished = [*self._hooks, *([self._attempt] if self._attempt else [])]
        for task in unfinished:
            task.cancel()
        try:
            async with asyncio.timeout(CLEAN_UP_DEADLINE):  # somebody may hold a container's output
                await asyncio.gather(*unfinished, *self._supervisors, return_exceptions=True)
        finally:
            await self._client.close()
