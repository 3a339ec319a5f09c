"""The init of one command: waits for signals and children, passes the one on and reaps the others.

Laws of this file
- One thread waits, for one signal at a time; all are blocked. Nothing interrupts anything, nothing is lost, and a real
  fault of our own still kills us, as a blocked one does.
- Nobody else in this process calls waitpid, and nobody signals the command but `forward`, which cannot hit a stranger.
- Whatever becomes of the drain, the command hears its signal in time: the limits are kept here once more, without it.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

from .entrypoint import EVERY, STDIN, Command, complain, in_front


BY_SIGNAL = 128
HEARS_WITHIN = 4.0  # of docker's 10 s, until the settings are read. Nobody is killed before that
KILLED_AFTER_REFUSAL = 8.5
MOMENT = 1.0  # between a signal and SIGKILL, at the least
LAST_WORDS = 1.2  # after that SIGKILL: all that is left of the grace period, but for what an exit takes
GIVEN_UP = 8.0  # seconds after the command's end: the drain's own limit for what it does then is shorter
ORPHANS = 2.0  # seconds for processes that are left when the command has ended


class Guest(Protocol):
    """The drain beside the command. It is told in the main thread, and must return at once."""

    def stop(self, number: int) -> None:
        """A signal has come that asks for a drain."""

    def hurry(self) -> None:
        """Another one has come: the command has heard it meanwhile."""

    def exited(self, code: int) -> None:
        """The command has ended, with this exit code."""

    def tell(self, event: str, **fields: object) -> None:
        """Write a line of the log."""


class Init:
    """One command, from its start to its end. All signals are blocked, and what has come already is pending."""

    def __init__(self, command: Command) -> None:
        self.name, self.pid, self.options = command.name, command.pid, command.options
        self._foreground = command.foreground
        self._main = threading.get_ident()
        self._running = threading.Lock()  # who holds it may signal the command: it is not reaped meanwhile
        self._code: int | None = None  # the command's
        self._refused: int | None = None  # the code to exit with, whatever the command's is
        self._guest: Guest | None = None
        self._news: list[Callable[[Guest], None]] = []  # what the guest has not been told
        self._guest_over = False
        self._asked: int = signal.SIGTERM  # the first signal that asks for a drain
        self._asked_at = inf
        self._let_through = threading.Lock()  # taken once, for good
        self._told_at = inf  # when the command was
        self.trouble = ""  # why a signal could not be sent
        self._killed = False
        self._hears_within, self._killed_after = HEARS_WITHIN, inf
        self._ended_at = inf
        self._childless = False
        self._orphans: set[int] = set()  # those that were told to end

    # -- for any thread --------------------------------------------------------------------------------------------

    def attach(self, guest: Guest) -> None:
        """Be told what happens from now on, and before that what has happened."""
        self._guest = guest
        self._wake()

    def detach(self) -> None:
        """Nothing is left to do beside the command. From now on signals go straight to it."""
        self._guest_over = True
        self._wake()

    def limit(self, hears_within: float, killed_after: float) -> None:
        """Let no drain keep a signal from the command for longer, nor the command live longer: seconds from it."""
        self._hears_within, self._killed_after = hears_within, killed_after
        self._wake()

    def release(self) -> None:
        """Let the command hear what we were told; SIGTERM when we were told nothing. Idempotent."""
        if self._let_through.acquire(blocking=False):  # once, whoever comes first: this thread, or the drain's
            self._told_at = time.monotonic()
            self.forward(self._asked)
            self._wake()  # it may have to be killed

    @property
    def _released(self) -> bool:
        return self._let_through.locked()

    def forward(self, number: int) -> None:
        """Send a signal to the command, and its process group, as the options have it."""
        number = self.options.rewrite.get(number, number)
        if number:
            self._send(number, alone=self.options.single)

    def kill(self) -> None:
        """End the command and its process group, whatever they are doing."""
        self._send(signal.SIGKILL, alone=False)

    def _send(self, number: int, *, alone: bool) -> None:
        with self._running:
            if self._code is not None:
                return
            try:
                if alone:
                    os.kill(self.pid, number)
                else:
                    _to_group(self.pid, number)
            except PermissionError:
                self.trouble = f"{self.name} runs as another user and cannot be sent {_name(number)}"

    def _wake(self) -> None:
        """Have the main thread look around."""
        signal.pthread_kill(self._main, signal.SIGCHLD)

    # -- its life --------------------------------------------------------------------------------------------------

    def live(self, beside: Callable[["Init"], int | None]) -> int:
        """Do an init's work until the command, the drain and what the command left are done with; the exit code."""
        try:
            threading.Thread(target=self._accompany, args=(beside,), name="drain", daemon=True).start()
        except RuntimeError as error:  # as many as are allowed are there
            self._lose_drain(error)
        self._reap()
        while not self._over():
            self._take(self._wait())
            self._reap()
            self._keep_limits()
            self._deliver()
        if self._foreground:
            _give_terminal_to(os.getpgrp())
        assert self._code is not None  # noqa: S101  it has ended
        code = self.options.remap.get(self._code, self._code)
        return code if self._refused is None else self._refused

    def _accompany(self, beside: Callable[["Init"], int | None]) -> None:
        """Run the drain. What it does wrong is not the command's fault."""
        try:
            self._refused = beside(self)
        except BaseException as error:  # noqa: BLE001  nothing may end this process but the command's end
            self._lose_drain(error)
        else:
            self.detach()

    def _lose_drain(self, error: BaseException) -> None:
        self.detach()
        complain(f"run: there is no drain any more ({type(error).__name__}: {error}): signals go straight through")

    def _over(self) -> bool:
        """Whether nothing is left to wait for. A drain that has not even been imported yet has seen nothing."""
        if self._code is None:
            return False
        now = time.monotonic()
        late = now >= self._late_at
        drained = self._guest is None or self._guest_over or late or now >= self._ended_at + GIVEN_UP
        return drained and (self._childless or late or now >= self._ended_at + ORPHANS)

    def _wait(self) -> int:
        """The next signal; SIGCHLD when it is only time to look around."""
        now = time.monotonic()
        moment = min((m for m in self._moments() if m > now), default=inf)
        heard = signal.sigwaitinfo(EVERY) if moment == inf else signal.sigtimedwait(EVERY, moment - now)
        if heard is None or (heard.si_signo == signal.SIGPIPE and heard.si_pid == os.getpid()):  # our own complaint's
            return signal.SIGCHLD
        return heard.si_signo

    def _moments(self) -> Iterator[float]:
        """When something is to be done without a signal."""
        yield self._asked_at + self._hears_within
        yield self._kill_at
        yield self._late_at
        yield self._ended_at + ORPHANS
        yield self._ended_at + GIVEN_UP

    @property
    def _late_at(self) -> float:
        """When we have to be gone, whatever is left."""
        return self._asked_at + self._killed_after + LAST_WORDS

    @property
    def _kill_at(self) -> float:
        """It has a moment to react, however late it has heard."""
        return max(self._asked_at + self._killed_after, self._told_at + MOMENT)

    def _take(self, number: int) -> None:
        """A signal has come."""
        if number == signal.SIGCHLD:
            return
        if number not in self.options.stops or self._released or self.options.rewrite.get(number) == 0:
            if number == signal.SIGCONT and self._foreground and in_front():  # the shell's `fg`
                _give_terminal_to(self.pid)
            self.forward(number)
        elif self._asked_at == inf:
            self._asked, self._asked_at = number, time.monotonic()
            self._news.append(lambda guest: guest.stop(number))
        else:
            self.release()
            if number != self._asked:  # the command may ignore the first one
                self.forward(number)
            self._news.append(lambda guest: guest.hurry())

    def _reap(self) -> None:
        """Reap whoever has ended, the command or an orphan."""
        flags = os.WNOHANG | (os.WUNTRACED if self._foreground else 0)
        while True:
            with self._running:
                try:
                    pid, status = os.waitpid(-1, flags)
                except ChildProcessError:
                    pid = status = 0
                    self._childless = True
                if pid == self.pid and not os.WIFSTOPPED(status):
                    code = os.waitstatus_to_exitcode(status)
                    self._code = code if code >= 0 else BY_SIGNAL - code
            if not pid:
                return
            if pid == self.pid:
                self._changed(status)

    def _changed(self, status: int) -> None:
        """The command has ended, or is stopped."""
        if os.WIFSTOPPED(status):
            os.kill(0, signal.SIGSTOP)  # our whole job, which a shell waits for; it has its terminal back then
            return
        assert self._code is not None  # noqa: S101  just reaped
        code = self._code
        self._ended_at = time.monotonic()
        self._news.append(lambda guest: guest.exited(code))

    def _keep_limits(self) -> None:
        now = time.monotonic()
        if self._code is not None:
            if not self._childless:
                self._tell_orphans()
            return
        if self._refused is not None and self._killed_after == inf:
            self._asked_at, self._killed_after = min(now, self._asked_at), KILLED_AFTER_REFUSAL
        spent = now - self._asked_at
        if not self._released and spent >= (0.0 if self._guest_over else self._hears_within):
            if not self._guest_over:
                self._say("run.limit", detail=f"the drain has not let the signal through within {spent:.1f} s")
            self.release()
        if not self._killed and now >= self._kill_at:
            self._killed = True
            self.kill()
            self._say("run.killed", detail=f"the command lived {spent:.1f} s after {_name(self._asked)}")

    def _tell_orphans(self) -> None:
        """Tell processes that the command has left that it is over. Theirs become ours, and are told then."""
        new = [pid for pid in _children() if pid not in self._orphans]
        for pid in new:
            self._orphans.add(pid)
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                os.kill(pid, signal.SIGTERM)
        if new:
            self._say("run.orphans", pids=new, detail=f"told to end, within {ORPHANS:g} s")

    # -- the drain -------------------------------------------------------------------------------------------------

    def _say(self, event: str, **fields: object) -> None:
        if self._guest_over:
            complain(f"run: {event} {fields}")
        else:
            self._news.append(lambda guest: guest.tell(event, **fields))

    def _deliver(self) -> None:
        """Tell the drain, if it is there, what it does not know."""
        while self._guest is not None and self._news:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._news.pop(0)(self._guest)


def _to_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it has left its group for another
        os.kill(pid, number)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"


def _children() -> Iterator[int]:
    """Our children's pids. Not by psutil: not even an installation that is broken may cost an init its work."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():  # noqa: PTH112, PTH208  a thousand times a second
        with contextlib.suppress(OSError, ValueError):
            number = int(name)
            with open(f"/proc/{number}/stat", "rb") as file:  # noqa: PTH123  likewise
                parent = file.read().rpartition(b")")[2].split()[1]
            if int(parent) == os.getpid():
                yield number


def _give_terminal_to(group: int) -> None:
    with contextlib.suppress(OSError):  # it has hung up
        os.tcsetpgrp(STDIN, group)
