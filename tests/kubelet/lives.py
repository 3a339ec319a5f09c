"""What the kubelet's rules need of a container, whatever runs it, and how its output and its end come to be known."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from .hook import Exec, HttpGet
from .timeline import Timeline


@dataclass(frozen=True)
class Spec(ABC):
    """What a pod spec says of a container."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    pre_stop: HttpGet | Exec | None = None
    native_sidecar: bool = False
    startup_probe: HttpGet | None = None

    @abstractmethod
    def lives(self, timeline: Timeline) -> "ContainerLives":
        """Make the container, not started yet."""


class ContainerLives(ABC):
    """One container through all its lives, one at a time: its first process counts."""

    def __init__(self, spec: Spec, timeline: Timeline) -> None:
        self.spec = spec
        self.timeline = timeline
        self.exited = asyncio.Event()
        self.exited.set()
        self.drained = asyncio.Event()  # exited, and all its output read
        self.drained.set()
        self.stop_signalled = False

    @property
    def running(self) -> bool:
        """Whether the first process is alive."""
        return not self.exited.is_set()

    @property
    @abstractmethod
    def pid(self) -> int:
        """The first process of the present life, or of the last."""

    async def start(self) -> None:
        """Begin a life."""
        self.exited, self.drained = asyncio.Event(), asyncio.Event()
        self.stop_signalled = False
        try:
            await self._begin()
        except BaseException:
            self.exited.set()
            self.drained.set()
            raise

    @abstractmethod
    async def run(self, hook: Exec) -> None:
        """Run a hook in here to its end, or to the container's, with which it dies."""

    async def stop(self, seconds: float, signalled: asyncio.Event | None = None) -> None:
        """Stop as a container runtime does: signal, wait, kill; end when the container has exited.

        The signal is sent once in a life, however often the kubelet asks (containerd does so). `signalled` tells
        when it is out.
        """
        if self.running and not self.stop_signalled:
            self.stop_signalled = True
            self.timeline.record(self.spec.name, "sigterm")
            await self._terminate()
        if signalled is not None:
            signalled.set()
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            self.timeline.record(self.spec.name, "sigkill")
            await self.kill()
            await self.exited.wait()

    @abstractmethod
    async def kill(self) -> None:
        """Send SIGKILL to every process of the container."""

    def on_start(self) -> None:
        """Take note that the first process runs."""
        self.timeline.record(self.spec.name, "started")

    def on_exit(self, code: int) -> None:
        """Take note of the first process' end, which is the end of the container."""
        self.timeline.record(self.spec.name, "exit", str(code if code >= 0 else 128 - code))
        self.exited.set()

    @abstractmethod
    async def _begin(self) -> None:
        """Start the first process, with an `Output`."""

    @abstractmethod
    async def _terminate(self) -> None:
        """Send SIGTERM to the first process, which may be gone."""


class Output(asyncio.SubprocessProtocol):
    """The output of one life in lines, and its end, of a process that lives as long as the container."""

    def __init__(self, owner: ContainerLives) -> None:
        self._owner = owner
        self._partial = {1: b"", 2: b""}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

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
