"""Containers of a test, and the network that they have with this machine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from rig.docker import DockerError, docker, inspect, streams
from rig.wire import Wire


# What a careful person gives a sidecar.
CONFINED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")


class Container:
    """One that was started."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ip(self) -> str:
        """Its address in its one network."""
        networks = (await self.inspected())["NetworkSettings"]["Networks"]
        (address,) = (each["IPAddress"] for each in networks.values())
        return str(address)

    async def inspected(self) -> dict[str, Any]:
        """All that docker knows of it."""
        return await asyncio.to_thread(inspect, self.name)

    async def state(self) -> dict[str, Any]:
        """Running or not, exit code, health, the main process' pid."""
        state: dict[str, Any] = (await self.inspected())["State"]
        return state

    async def run(self, *command: str) -> str:
        """Run a command in it; raises DockerError where that fails."""
        return await asyncio.to_thread(docker, "exec", self.name, *command)

    async def stop(self, grace: int | None = None) -> tuple[int, float]:
        """Stop it, within docker's own 10 s unless told: its exit code, and the seconds that took."""
        began = time.monotonic()
        await asyncio.to_thread(docker, "stop", *(() if grace is None else ("--time", str(grace))), self.name)
        return (await self.state())["ExitCode"], time.monotonic() - began

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        return int(await asyncio.to_thread(docker, "wait", self.name))

    async def kill(self, signal: str) -> None:
        """Send a signal to its main process."""
        await asyncio.to_thread(docker, "kill", "--signal", signal, self.name)

    async def printed(self) -> tuple[str, str]:
        """Its stdout and stderr until now."""
        return await asyncio.to_thread(streams, self.name)

    async def log(self) -> list[dict[str, Any]]:
        """The JSON lines of nacos-drain: on stdout as a sidecar, on stderr as an entrypoint."""
        lines = "\n".join(await self.printed()).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def told(self, event: str, within: float = 20.0) -> dict[str, Any]:
        """The newest line of an event, waited for."""
        found: list[dict[str, Any]] = []

        async def told() -> bool:
            found[:] = [line for line in await self.log() if line["event"] == event]
            return bool(found)

        await self._until(event, within, told)
        return found[-1]

    async def until(self, text: str, within: float = 20.0) -> None:
        """Wait until this is printed on stdout."""

        async def printed() -> bool:
            return text in (await self.printed())[0]

        await self._until(text, within, printed)

    async def until_health(self, wanted: str, within: float = 20.0) -> None:
        """Wait for what the image's HEALTHCHECK says."""

        async def healthy() -> bool:
            return bool((await self.state())["Health"]["Status"] == wanted)

        await self._until(wanted, within, healthy)

    async def _until(self, what: str, within: float, enough: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(within):
                while not await enough():  # noqa: ASYNC110  another process
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"no {what} within {within} s:\n{await self.everything()}") from None

    async def everything(self) -> str:
        """What it printed, for eyes."""
        return "\n".join(await self.printed())


@asynccontextmanager
async def container(
    image: str, *command: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> AsyncIterator[Container]:
    """Start one. Its end is SIGKILL, unless the test has stopped it."""
    made = Container(f"nacos-drain-test-{uuid4().hex[:8]}")
    given = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
    try:
        await asyncio.to_thread(docker, "run", "--detach", "--name", made.name, *options, *given, image, *command)
        yield made
    finally:
        with suppress(DockerError):  # it was never created
            await asyncio.to_thread(docker, "rm", "--force", "--volumes", made.name)


@dataclass(frozen=True)
class Network:
    """A bridge of our own; `gateway` is this machine's address in it."""

    name: str
    gateway: str


@contextmanager
def network() -> Iterator[Network]:
    """Make one."""
    name = f"nacos-drain-test-{uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        yield Network(name, str(inspect(name)["IPAM"]["Config"][0]["Gateway"]))
    finally:
        docker("network", "rm", name)


@asynccontextmanager
async def reachable(server: str, at: str) -> AsyncIterator[str]:
    """Let containers connect to a server that listens on loopback only; its host:port for them, at our address."""
    async with Wire(server, at) as wire:
        yield wire.address
