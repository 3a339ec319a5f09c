"""A container as one of docker's: the real image's command as PID 1, with the limits that a pod spec sets."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from rig.docker import DockerError, docker, inspect

from .hook import Exec, HookFailedError
from .lives import ContainerLives, Output, Spec
from .timeline import Timeline


NEVER = "0001-01-01T00:00:00Z"  # docker's time of what has not happened


@dataclass(frozen=True)
class DockerContainer(Spec):
    """One of docker's; `options` are those of `docker create`, `argv` is what follows the image's name."""

    image: str = ""
    options: Sequence[str] = ()

    def lives(self, timeline: Timeline) -> ContainerLives:
        """Make the container, not started yet."""
        return DockerLives(self, timeline)


class DockerLives(ContainerLives):
    """Each life is a container of its own, as in a pod: nothing but mounts survives a restart.

    Whoever made the pod removes them, by the label in their options.
    """

    spec: DockerContainer

    def __init__(self, spec: DockerContainer, timeline: Timeline) -> None:
        super().__init__(spec, timeline)
        self.name = ""

    @property
    def pid(self) -> int:
        """The first process of the present life, in this machine's numbers."""
        return int(inspect(self.name)["State"]["Pid"])

    async def run(self, hook: Exec) -> None:
        """Run a hook in here to its end, or to the container's, with which it dies."""
        try:
            await asyncio.to_thread(docker, "exec", self.name, *hook.argv, within=600)
        except DockerError as error:
            raise HookFailedError(str(error)) from error

    async def kill(self) -> None:
        """Send SIGKILL to every process of the container."""
        with suppress(DockerError):  # it has ended, or was never there
            await asyncio.to_thread(docker, "kill", self.name)

    async def _begin(self) -> None:
        self.name = f"nacos-drain-test-{self.spec.name}-{uuid4().hex[:8]}"
        env = [part for name, value in self.spec.env.items() for part in ("--env", f"{name}={value}")]
        command = ("create", "--name", self.name, *self.spec.options, *env, self.spec.image, *self.spec.argv)
        await asyncio.to_thread(docker, *command)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: Output(self),
            *("docker", "start", "--attach", self.name),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # or a Ctrl-C at the test's terminal would be passed on
        )
        while (await asyncio.to_thread(inspect, self.name))["State"]["StartedAt"] == NEVER:
            if not self.running:
                raise RuntimeError(f"{self.spec.name} does not start:\n{self.timeline}")
            await asyncio.sleep(0.02)
        self.on_start()

    async def _terminate(self) -> None:
        with suppress(DockerError):  # it has just ended
            await asyncio.to_thread(docker, "kill", "--signal", "TERM", self.name)
