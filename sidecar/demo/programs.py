"""The demo's processes: what it starts it ends, by pid, on every way out.

Each gets a session of its own, so that Ctrl-C reaches only the demo, which then ends them in an order that makes sense.
One that exits unasked ends the demo, with its last lines: they say more than any message of ours.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self


LAST_LINES = 15
PATIENCE = 2.0  # from SIGTERM to SIGKILL when the demo is over: an idle sidecar would begin a drain
KILLED_BY_SIGTERM = 143  # what a JVM, and so the demo's provider, exits with
LONGEST_LINE = 1024 * 1024


class Died(Exception):
    """A process of the demo exited unasked."""

    def __init__(self, program: "Program", code: int) -> None:
        super().__init__(f"{program.name} exited with {code}, unasked\n{program.told}")


class Program:
    """One process, and the end of what it said."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: Callable[[str], None] | None) -> None:
        self.name = name
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = process
        self._on_line = on_line
        self._sent: set[signal.Signals] = set()
        self._over = False
        self._reading = asyncio.create_task(self._read(), name=f"output of {name}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    @property
    def told(self) -> str:
        """The end of its output, for an error message."""
        lines = "".join(f"\n  | {line}" for line in self._lines)
        return f"the last lines of {self.name} (pid {self.pid}):{lines or ' none'}"

    def send(self, number: signal.Signals) -> None:
        """Signal it; from the first one on it may exit."""
        self._sent.add(number)
        # Not by asyncio, which in passing would take the exit code of a process that is just dead from whoever waits.
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(self.pid, number)

    async def exited(self) -> int:
        """Wait for its end, and for its last words."""
        code = await self._process.wait()
        await asyncio.wait([self._reading], timeout=1.0)
        return code

    async def watch(self) -> None:
        """Raise Died when it exits unasked, or in another way than it was asked to."""
        code = await self.exited()
        asked = {0, KILLED_BY_SIGTERM, *(-number for number in self._sent)} if self._sent else set()
        if not self._over and code not in asked:
            raise Died(self, code)

    async def end(self) -> None:
        """Ask it to exit, and make it; how no longer matters."""
        self._over = True
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
        finally:
            self._reading.cancel()

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  started with a pipe
        while line := await self._process.stdout.readline():
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            if self._on_line is not None:
                self._on_line(text)


class Programs:
    """All processes of one demo, each watched in `group`; leaving ends them."""

    def __init__(self, group: asyncio.TaskGroup, environment: Mapping[str, str]) -> None:
        self._group = group
        self._environment = environment
        self._started: list[Program] = []

    async def start(
        self,
        name: str,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Program:
        """Run a module of this project."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # whatever lies in the folder that the demo is called from is not ours
            "-m",
            module,
            *arguments,
            env={**self._environment, **(env or {}), "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=LONGEST_LINE,
        )
        program = Program(name, process, on_line)
        self._started.append(program)
        self._group.create_task(program.watch(), name=f"watch {name}")
        return program

    def kill(self) -> None:
        """End everything at once, for somebody who cannot wait."""
        for program in self._started:
            if program.alive:
                program.send(signal.SIGKILL)

    async def __aenter__(self) -> Self:
        """Start with nothing."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """End what is left; the registry was the first to come, and goes last."""
        await asyncio.gather(*(program.end() for program in self._started[1:]))
        await asyncio.gather(*(program.end() for program in self._started[:1]))
