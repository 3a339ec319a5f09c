"""One init with its command: how they are started, signalled, heard and ended."""

import asyncio
import itertools
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, TypeVar

from inits import kernel
from inits.subjects import NAMESPACE, Name, Options, Place, Target, argv, settings
from inits.terminal import Terminal


WITHIN = 15.0  # seconds that anything may take on a busy machine
PERIOD = 0.005  # seconds between looks at what the kernel announces to nobody

NO_OPTIONS = Options()

T = TypeVar("T")
_numbers = itertools.count(1)


async def until(look: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
    """Look until there is something; what the kernel announces to nobody has to be asked for."""
    try:
        async with asyncio.timeout(within):
            while (found := look()) is None:  # noqa: ASYNC110  another process
                await asyncio.sleep(PERIOD)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None


class Run:
    """An init that runs. `pid` is the init's own, as it is known here, outside of its namespace."""

    def __init__(
        self, process: subprocess.Popen[bytes], place: Place, mark: bytes, output: int, errors: IO[bytes]
    ) -> None:
        self.process, self.place, self.mark = process, place, mark
        self.output = bytearray()
        self._errors = errors
        self._fd = output
        self._pid = process.pid if place is Place.OTHER else 0
        self.listen = ""  # the address that ours is to listen at
        self._news = asyncio.Event()
        self.closed = False  # the output: nobody has it any more
        os.set_blocking(output, False)
        asyncio.get_running_loop().add_reader(output, self.read)

    # -- who -------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The init; 0 while there is none yet."""
        if not self._pid:
            self._pid = next(iter(kernel.children(self.process.pid)), 0)
        return self._pid

    @property
    def command(self) -> int:
        """Its command, which is its only child."""
        (found,) = kernel.children(self.pid)
        return found

    def signal(self, number: int) -> None:
        """Send the init a signal."""
        os.kill(self.pid, number)

    def close_stdin(self) -> None:
        """End what the command reads."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def write(self, data: bytes) -> None:
        """Give the command something to read."""
        pipe = self.process.stdin
        assert pipe is not None
        await asyncio.to_thread(lambda: (pipe.write(data), pipe.flush()))

    async def go(self) -> None:
        """Let an init be executed that was held."""
        await self.write(b"go\n")

    def hang_up(self) -> None:
        """Close our end of its terminal."""
        self._close()
        os.close(self._fd)
        self._fd = -1

    # -- what is said ----------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take what there is now."""
        try:
            while data := os.read(self._fd, 1 << 16):
                self.output += data
        except BlockingIOError:
            pass
        except OSError:  # a terminal that everybody has left
            self._close()
        else:
            self._close()
        self._news.set()

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        self.closed = True

    @property
    def said(self) -> list[str]:
        """The whole lines so far."""
        return self.output.decode(errors="replace").split("\n")[:-1]

    @property
    def errors(self) -> str:
        """What was written to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    async def heard(self, found: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
        """Wait until something has been said."""
        try:
            async with asyncio.timeout(within):
                while (told := found()) is None:
                    assert not self.closed, f"ended without {what}: {self}"
                    self._news.clear()
                    await self._news.wait()
                return told
        except TimeoutError:
            raise AssertionError(f"not within {within} s: {what}: {self}") from None

    async def line(self, start: str, after: int = 0) -> str:
        """Wait for the line that begins so, behind so many others."""
        return await self.heard(
            lambda: next((each for each in self.said[after:] if each.startswith(start)), None), f"{start!r}"
        )

    async def text(self, words: str, after: int = 0) -> int:
        """Wait for words anywhere behind a place in the output; returns where they end."""
        wanted = words.encode()

        def end() -> int | None:
            found = self.output.find(wanted, after)
            return None if found < 0 else found + len(wanted)

        return await self.heard(end, f"{words!r}")

    # -- its end ---------------------------------------------------------------------------------------------------

    @property
    def code(self) -> int | None:
        """The init's exit code, or the signal's number below zero; None while it runs."""
        if self.process.poll() is not None and not self.closed:
            self.read()
        return self.process.returncode

    @property
    def left(self) -> list[int]:
        """The processes that it has left behind."""
        return kernel.marked(self.mark)

    async def ended(self, within: float = WITHIN) -> int:
        """Wait for the init's end: its exit code, or the signal's number below zero."""
        if self.process.returncode is None:
            over = asyncio.Event()
            watch = os.pidfd_open(self.process.pid)
            asyncio.get_running_loop().add_reader(watch, over.set)
            try:
                async with asyncio.timeout(within):
                    await over.wait()
            except TimeoutError:
                raise AssertionError(f"did not end within {within} s: {self}") from None
            finally:
                asyncio.get_running_loop().remove_reader(watch)
                os.close(watch)
            self.process.wait()
        if not self.closed:
            self.read()
        code = self.process.returncode
        assert code is not None
        return code

    async def ends_within(self, seconds: float) -> bool:
        """Whether it ends in that time."""
        with suppress(AssertionError):
            await self.ended(seconds)
        return self.process.returncode is not None

    def __str__(self) -> str:
        return (
            f"said {bytes(self.output[-2000:])!r}, exit code {self.process.returncode}, stderr: {self.errors[-1500:]}"
        )

    def clear(self) -> None:
        """End whatever is left of it."""
        if self.process.returncode is None:
            self.process.kill()  # with unshare goes its namespace, and everything in there
            self.process.wait()
        while left := self.left:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if not self.closed:
            self._close()
        if self._fd >= 0:
            os.close(self._fd)
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self._errors.close()


async def refused(run: Run) -> bool:
    """Whether an init refuses its options, instead of starting a command that says that it is ready."""

    def look() -> bool | None:
        if any(line.startswith("ready") for line in run.said):
            return False
        return None if run.code is None else bool(run.code) and "option" in run.errors

    return await until(look, "a start, or a refusal")


@dataclass(frozen=True)
class Case:
    """One behaviour is asked of one init, in one place."""

    name: Name
    place: Place
    target: Target

    @property
    def first(self) -> bool:
        """Whether it is PID 1."""
        return self.place is Place.FIRST

    @asynccontextmanager
    async def run(
        self,
        *command: str | os.PathLike[str],
        options: Options = NO_OPTIONS,
        env: Mapping[bytes, bytes] | Mapping[str, str] = {},
        ignored: Iterable[str] = (),
        blocked: Iterable[str] = (),
        held: bool = False,
        closed: bool = False,
        terminal: Terminal | None = None,
        bare: bool = False,
        cwd: str | None = None,
        umask: int = -1,
        keep: tuple[int, ...] = (),
    ) -> AsyncIterator[Run]:
        """Start an init with a command; `bare`: the command without one, to compare with.

        It is born with no handlers and an empty mask but for the signals that are named, and has a session of its own,
        with no terminal or with that one. Held, it says that it is born, and is executed at `go`. Closed, it has no
        stdin, stdout and stderr.
        """
        number = next(_numbers)
        mark = f"INITS_RUN={os.getpid()}-{number}".encode()
        listen = f"127.88.{number // 250}.{number % 250 + 1}:18980"
        init = [] if bare else argv(self.name, self.place, self.target, options)
        birth = _birth(ignored, blocked, held=held, closed=closed)
        session = ["setsid", *["--ctty"] * (terminal is not None)]
        where = [*NAMESPACE, *session] if self.first else session
        environ = {
            b"PATH": os.environ.get("PATH", os.defpath).encode(),
            b"HOME": b"/root",
            **_bytes(settings(listen)),
            **_bytes(env),
        }
        key, _, value = mark.partition(b"=")
        errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the run
        output, theirs = (terminal.master, terminal.slave) if terminal else os.pipe()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  its end is seen by pidfd; asyncio's waits for its heirs too
                [*where, *birth, *init, *command],
                stdin=theirs if terminal else subprocess.PIPE,
                stdout=theirs,
                stderr=theirs if terminal else errors,
                env={**environ, key: value},
                cwd=cwd,
                umask=umask,
                pass_fds=keep,
                # setsid forks when its process leads a group already; it must not, the init has this pid
                start_new_session=False,
            )
        finally:
            os.close(theirs)
        run = Run(process, self.place, mark, output, errors)
        run.listen = listen
        try:
            yield run
        finally:
            run.clear()


def _birth(ignored: Iterable[str], blocked: Iterable[str], *, held: bool, closed: bool) -> list[str]:
    """What gives a program its dispositions and its mask."""
    words = ["env", "--default-signal"]
    words += [f"--ignore-signal={name}" for name in ignored]
    words += [f"--block-signal={name}" for name in blocked]
    if held or closed:
        script = "echo born; read go; " * held + 'exec "$@"' + " <&- >&- 2>&-" * closed
        words += ["sh", "-c", script, "sh"]
    return words


def _bytes(env: Mapping[bytes, bytes] | Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
