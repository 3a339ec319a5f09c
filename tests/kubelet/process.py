"""A container as local processes: one that counts, as in a PID namespace, and whatever it starts."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

import psutil

from .hook import Exec, HookFailedError
from .lives import ContainerLives, Output, Spec
from .timeline import Timeline


MARK = "KUBELET_CONTAINER_ID"
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")  # nothing else of the test's own environment


@dataclass(frozen=True)
class Container(Spec):
    """One that is a program here; ports are not mapped, it shares the machine's network."""

    def lives(self, timeline: Timeline) -> ContainerLives:
        """Make the container, not started yet."""
        return ContainerProcesses(self, timeline)


class ContainerProcesses(ContainerLives):
    """The processes of one container through all its lives.

    A stop signal goes to the first process alone, and when it ends, everything else of the container
    is killed. Membership is a mark in the environment, which survives a new session and a lost parent,
    where process groups do not.
    """

    def __init__(self, spec: Spec, timeline: Timeline) -> None:
        super().__init__(spec, timeline)
        self._mark = f"{os.getpid()}-{id(self):x}"
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def _env(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {**own, **self.spec.env, MARK: self._mark}

    @property
    def pid(self) -> int:
        """The first process of the present life, or of the last."""
        assert self._transport is not None, f"{self.spec.name} was never started"
        pid = self._transport.get_pid()
        assert pid is not None
        return pid

    async def run(self, hook: Exec) -> None:
        """Run a hook in here to its end, or to the container's, with which it dies."""
        null = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *hook.argv, env=self._env, stdin=null, stdout=null, stderr=null, start_new_session=True
            )
        except OSError as error:
            raise HookFailedError(str(error)) from error
        if code := await process.wait():
            raise HookFailedError(f"{hook.argv[0]} exited with {code if code > 0 else 128 - code}")

    async def kill(self) -> None:
        """Send SIGKILL to every process of the container."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._kill_marked()

    def on_exit(self, code: int) -> None:
        """Let nothing of the container outlive its first process."""
        self._kill_marked()
        super().on_exit(code)

    async def _begin(self) -> None:
        # asyncio's own Process.wait() also waits for pipes, which a grandchild may hold open.
        self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Life(self),
            *self.spec.argv,
            stdin=asyncio.subprocess.DEVNULL,
            env=self._env,
            start_new_session=True,
        )

    async def _terminate(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _kill_marked(self) -> None:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    process.kill()


class _Life(Output):
    """One life: a local process runs as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._owner.on_start()
