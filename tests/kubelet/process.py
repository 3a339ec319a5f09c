"""A container as local processes: one that counts, as in a PID namespace, and whatever it starts."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import psutil

from .hook import Exec, HookFailedError, HttpGet
from .timeline import Timeline


MARK = "KUBELET_CONTAINER_ID"
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")  # nothing else of the test's own environment


@dataclass(frozen=True)
class Container:
    """What a pod spec says of a container; ports are not mapped, it shares the machine's network."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    pre_stop: HttpGet | Exec | None = None
    native_sidecar: bool = False
    startup_probe: HttpGet | None = None


class ContainerProcesses:
    """The processes of one container through all its lives.

    The first process counts: a stop signal goes to it alone, and when it ends, everything else of
    the container is killed. Membership is a mark in the environment, which survives a new session
    and a lost parent, where process groups do not.
    """

    def __init__(self, spec: Container, timeline: Timeline) -> None:
        self.spec = spec
        self.timeline = timeline
        self._mark = f"{os.getpid()}-{id(self):x}"
        self._transport: asyncio.SubprocessTransport | None = None
        self.exited = asyncio.Event()
        self.exited.set()
        self.drained = asyncio.Event()  # exited, and all its output read
        self.drained.set()
        self.stop_signalled = False

    @property
    def _env(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {**own, **self.spec.env, MARK: self._mark}

    @property
    def running(self) -> bool:
        """Whether the first process is alive."""
        return not self.exited.is_set()

    @property
    def pid(self) -> int:
        """The first process of the present life, or of the last."""
        assert self._transport is not None, f"{self.spec.name} was never started"
        pid = self._transport.get_pid()
        assert pid is not None
        return pid

    async def start(self) -> None:
        """Begin a life."""
        life = _Life(self)
        self.exited, self.drained = asyncio.Event(), asyncio.Event()
        self.stop_signalled = False
        try:
            # asyncio's own Process.wait() also waits for pipes, which a grandchild may hold open.
            self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: life,
                *self.spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,
            )
        except BaseException:
            self.exited.set()
            self.drained.set()
            raise

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

    async def stop(self, seconds: float) -> None:
        """Stop as a container runtime does: signal, wait, kill; end when the container has exited.

        The signal is sent once in a life, however often the kubelet asks (containerd does so).
        """
        if self.running and not self.stop_signalled:
            self.stop_signalled = True
            self.timeline.record(self.spec.name, "sigterm")
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            self.timeline.record(self.spec.name, "sigkill")
            self.kill()
            await self.exited.wait()

    def kill(self) -> None:
        """Send SIGKILL to every process of the container."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._kill_marked()

    def _kill_marked(self) -> None:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    process.kill()

    def on_exit(self, code: int) -> None:
        """Take note of the first process' end, which is the end of the container."""
        self._kill_marked()
        self.timeline.record(self.spec.name, "exit", str(code if code >= 0 else 128 - code))
        self.exited.set()


class _Life(asyncio.SubprocessProtocol):
    """One life of a container: its output in lines, and its end."""

    def __init__(self, owner: ContainerProcesses) -> None:
        self._owner = owner
        self._partial = {1: b"", 2: b""}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._owner.timeline.record(self._owner.spec.name, "started")

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        *lines, self._partial[fd] = (self._partial[fd] + data).split(b"\n")
        for line in lines:
            self._output(fd, line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if self._partial.get(fd):
            self._output(fd, self._partial.pop(fd))

    def process_exited(self) -> None:
        self._owner.on_exit(self._transport.get_returncode() or 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()
        self._owner.drained.set()

    def _output(self, fd: int, line: bytes) -> None:
        stream = "stdout" if fd == 1 else "stderr"
        self._owner.timeline.output(self._owner.spec.name, stream, line.decode(errors="replace"))
