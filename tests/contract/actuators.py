"""Apps with an actuator, as the suite wants them: scripted ones here, real ones by rig.spring.

async with scripted_app(generation="2025.1", nacos=server) as app:
    SpringActuator(Http(), app.url)
"""

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from rig.clients import PYTHON, find_client
from rig.records import Instance
from rig.servers import NacosServer


PROGRAM = Path(__file__).parents[1] / "programs/scripted_app.py"
START = 30.0  # seconds; the client's imports take five on a busy machine

_addresses = itertools.count(1)


class Provider(Protocol):
    """A running app: what the suite asks of it, whoever plays it."""

    @property
    def url(self) -> str:
        """Its actuator's."""

    @property
    def port(self) -> int:
        """Where consumers call it."""

    @property
    def instance(self) -> Instance:
        """What it registers, of several the first."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    async def exited(self, within: float = 20.0) -> int:
        """Wait for its end and give its exit code."""


@dataclass(frozen=True)
class Request:
    """What reached the actuator."""

    method: str
    path: str
    headers: dict[str, str]  # by their lower-case names
    body: str


@dataclass
class ScriptedApp:
    """A process of `scripted_app.py`."""

    url: str  # of its actuator
    port: int
    management_port: int
    instances: tuple[Instance, ...]  # what it registers, one per service
    process: asyncio.subprocess.Process
    _requests: list[Request] = field(default_factory=list)
    _done: deque[str] = field(default_factory=deque)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def instance(self) -> Instance:
        """What `nacosdiscovery` tells."""
        return self.instances[0]

    async def register(self) -> None:
        """Have it register itself."""
        await self._tell("register")

    async def deregister(self) -> None:
        """Have it deregister itself."""
        await self._tell("deregister")

    async def fault(self, endpoint: str, what: str) -> None:
        """Break an endpoint: a status, hang, reset or html; `0.5s` only slows it down."""
        await self._tell(f"fault {endpoint}={what}")

    async def clear(self) -> None:
        """Mend everything, and forget the requests."""
        await self._tell("clear")
        self._requests.clear()

    async def requests(self) -> list[Request]:
        """What has reached its actuator since the last `clear`."""
        await self._tell("sync")
        return self._requests

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    async def exited(self, within: float = 20.0) -> int:
        """Wait for its end and give its exit code."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def _tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        async with asyncio.timeout(START), self._news:
            await self._news.wait_for(lambda: self._done or self.process.returncode is not None)
            if not self._done or self._done.popleft() != command:
                raise RuntimeError(f"the scripted app has not carried out {command!r}")

    async def read(self) -> None:
        """Take in what it says, until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            kind, _, rest = line.decode().strip().partition(" ")
            if kind == "request":
                self._requests.append(Request(**json.loads(rest)))
            elif kind == "done":
                self._done.append(rest)
            async with self._news:
                self._news.notify_all()
        await self.process.wait()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def scripted_app(
    *,
    nacos: NacosServer | None = None,
    generation: str = "2023.0.1",
    services: int = 1,
    ip: str | None = None,
    base_path: str = "/actuator",
    management: bool = True,
    tls: tuple[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[ScriptedApp]:
    """Run one, under service names of its own; `options` are those of its command line, True for a bare one.

    With Nacos it gets an address of its own too, since Nacos remembers what was on one.
    """
    if nacos:
        find_client()
        options = {"username": nacos.username, "password": nacos.password} | options
    ip = ip or (f"127.0.11.{next(_addresses)}" if nacos else "127.0.0.1")
    salt = uuid4().hex[:8]
    names = [f"scripted-{salt}-{number}" for number in range(services)]
    options |= {"generation": generation, "ip": ip, "base_path": base_path, "service": names}
    options |= {"nacos": nacos.address if nacos else None, "management_port": 0 if management else None, "tls": tls}
    process = await asyncio.create_subprocess_exec(
        *(str(PYTHON) if nacos else sys.executable, str(PROGRAM), "--control", "--log", *_arguments(options)),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},  # its packages' deprecations, not ours
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 20,
    )
    reading: asyncio.Task[None] | None = None
    try:
        port, management_port = await _ready(process)
        made = ScriptedApp(
            f"{'https' if tls else 'http'}://{ip}:{management_port}{base_path}".rstrip("/"),
            port,
            management_port,
            tuple(Instance(name, port, ip=ip, cluster=options.get("cluster", "DEFAULT")) for name in names),
            process,
        )
        reading = asyncio.create_task(made.read())
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        if reading is not None:
            await reading


async def _ready(process: asyncio.subprocess.Process) -> tuple[int, int]:
    assert process.stdout is not None
    async with asyncio.timeout(START):
        line = (await process.stdout.readline()).decode().split()
    if not line or line[0] != "ready":
        raise RuntimeError(f"the scripted app did not start: {line}")
    return int(line[1]), int(line[2])


def _arguments(options: dict[str, Any]) -> list[str]:
    arguments: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif isinstance(value, tuple):
            arguments += [flag, *map(str, value)]
        elif isinstance(value, list):
            arguments += [f"{flag}={each}" for each in value]
        elif value is not None and value is not False:
            arguments.append(f"{flag}={value}")  # in one word: a password may begin with a dash
    return arguments
