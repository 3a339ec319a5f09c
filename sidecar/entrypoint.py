"""`nacos-drain run`: the command first, then everything else.

Until the command runs nothing is imported that this does not take: asyncio and aiohttp alone need 200 ms. All signals
are blocked from the first line on, so that none is lost meanwhile; who waits for them is `init.py`.

The command gets what it would have got without us: the environment as it was given to us, descriptors, working
directory, signal mask, ignored signals. CPython hides whether SIGPIPE and SIGXFSZ were ignored: they are default again.
"""

import errno
import fcntl
import os
import select
import signal
import sys
import termios


USAGE, CANNOT_RUN, NOT_FOUND = 2, 126, 127
EVERY = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
HIDDEN = frozenset({signal.SIGPIPE, signal.SIGXFSZ})  # CPython ignores them from its start
STDIN = 0
MOST_EXIT_CODE = 255


class Options:
    """What the command line says of signals and exit codes."""

    def __init__(self) -> None:
        self.rewrite: dict[int, int] = {}  # what to send instead; 0: nothing
        self.remap: dict[int, int] = {}
        self.stops = STOPS  # what asks for a drain first
        self.single = False
        self.server = True


class Command:
    """A command that was started, all our signals being blocked."""

    def __init__(self, name: str, pid: int, options: Options, *, foreground: bool) -> None:
        self.name = name
        self.pid = pid  # and its process group
        self.options = options
        self.foreground = foreground  # it has our terminal, and we are the job of a shell


def start(arguments: list[str]) -> Command:
    """Start what the command line names. Exits with a message where that is not possible."""
    inherited = signal.pthread_sigmask(signal.SIG_BLOCK, EVERY)
    place = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[place + 1 :]
    if not command and not {"-h", "--help"} & {*arguments}:
        complain("run: put the command behind --, as in: nacos-drain run -- java -jar app.jar")
        raise SystemExit(USAGE)
    options = _options(arguments[:place])
    try:
        pid, foreground = _start(command, inherited)
    except OSError as error:
        missing = error.errno == errno.ENOENT
        why = "not on the PATH, or its interpreter is missing" if missing else os.strerror(error.errno or 0).lower()
        complain(f"run: cannot execute {command[0]!r}: {why}")
        raise SystemExit(NOT_FOUND if missing else CANNOT_RUN) from None
    return Command(command[0], pid, options, foreground=foreground)


def complain(message: str) -> None:
    """Tell a person what no log can tell. Never raises: nobody may read it any more."""
    if sys.stderr is None:  # it was closed at our start, and its number may be another file's by now
        return
    try:
        writable = select.poll()
        writable.register(2, select.POLLOUT)
        if writable.poll(0):  # a pipe that is full would hold up whoever tells
            os.write(2, f"nacos-drain {message}\n".encode())
    except OSError:
        pass


# -- options ---------------------------------------------------------------------------------------------------------


def _options(flags: list[str]) -> Options:
    """Exits with a message where they are wrong."""
    options = Options()
    if not flags:
        return options
    import argparse  # noqa: PLC0415  17 ms that only those pay who have options

    parser = argparse.ArgumentParser(
        "nacos-drain run",
        usage="%(prog)s [OPTIONS] -- COMMAND [ARG...]",
        description="Start a command and be its init (PID 1): reap, pass signals on, and take the app out of Nacos "
        "before it hears of SIGTERM or SIGINT. A second one lets it hear at once. Settings: NACOS_DRAIN_* variables, "
        "as for `serve`. Our log goes to stderr; stdin and stdout are the command's.",
        epilog="Exits with the code of the command, 128+n when signal n ended it, 127 when there is no such command, "
        "126 when it cannot be executed, 2 when options or settings are wrong.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rewrite", metavar="A:B", type=_signals, action="append", default=[], help="send signal B for A; 0: drop A")
    add("--remap", metavar="A:B", type=_codes, action="append", default=[], help="exit with B for A, as in 143:0")
    add("--stop-signal", metavar="SIG", type=_signal, action="append", default=[], help="drain at this signal too")
    add("--single", action="store_true", help="send signals to the command alone, not to its process group")
    add("--no-server", dest="server", action="store_false", help="listen on no port")
    found = parser.parse_args(flags)
    options.rewrite, options.remap = dict(found.rewrite), dict(found.remap)
    options.stops = STOPS.union(found.stop_signal)
    options.single, options.server = found.single, found.server
    return options


def _signal(text: str) -> int:
    """A signal by its name or number. Raises ArgumentTypeError."""
    from argparse import ArgumentTypeError  # noqa: PLC0415  see above

    names = {f"RTMIN+{n - signal.SIGRTMIN}": n for n in range(signal.SIGRTMIN, signal.SIGRTMAX + 1)}
    names |= {each.name.removeprefix("SIG"): each.value for each in signal.Signals}
    names |= {str(number): int(number) for number in EVERY}
    number = names.get(text.upper().removeprefix("SIG"), 0)
    if number not in EVERY - {signal.SIGCHLD}:
        raise ArgumentTypeError(f"{text!r} is no signal that can be passed on: a name as TERM or RTMIN+3, or a number")
    return number


def _signals(text: str) -> tuple[int, int]:
    old, _, new = text.partition(":")
    return _signal(old), 0 if new == "0" else _signal(new)


def _codes(text: str) -> tuple[int, int]:
    from argparse import ArgumentTypeError  # noqa: PLC0415  see above

    old, _, new = text.partition(":")
    if not (old.isdecimal() and new.isdecimal() and max(int(old), int(new)) <= MOST_EXIT_CODE):
        raise ArgumentTypeError(f"{text!r} is no pair of exit codes (0 to {MOST_EXIT_CODE}), as 143:0 is")
    return int(old), int(new)


# -- the start -------------------------------------------------------------------------------------------------------


def _start(command: list[str], inherited: "set[int]") -> tuple[int, bool]:
    """Start it; returns its pid, and whether it has the terminal of our session. Raises OSError when it cannot run."""
    chld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would reap for us
    if os.getpid() != 1:
        _become_subreaper()
    shares = in_front()
    leads = shares and os.getsid(0) == os.getpid()
    if leads:
        _let_go_of_terminal()
    environment = _environment()
    failed, fail = os.pipe()  # an exec closes it
    pid = os.fork()
    if not pid:
        try:
            _take_place(shares=shares, leads=leads)
            _restore(inherited, chld)
            os.execvpe(command[0], command, environment)  # noqa: S606  no shell is what is wanted
        except OSError as error:
            os.write(fail, str(error.errno).encode())
        finally:
            os._exit(NOT_FOUND)
    os.close(fail)
    number = os.read(failed, 16)
    os.close(failed)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return pid, shares and not leads


def _environment() -> dict[bytes, bytes]:
    """As it was given to us: CPython may have added LC_CTYPE (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123  pathlib takes 9 ms
            rows = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    return {name: value for name, is_, value in (row.partition(b"=") for row in rows) if is_}


def _become_subreaper() -> None:
    """Have the command's orphans as children, as PID 1 has them by nature."""
    import ctypes  # noqa: PLC0415  6 ms that PID 1 does not need

    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def in_front() -> bool:
    """Whether stdin is the terminal of our session, and in front of it are we."""
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False


def _let_go_of_terminal() -> None:
    """Leave it to the command's session. The kernel tells the whole group, which is us, that it has hung up."""
    fcntl.ioctl(STDIN, termios.TIOCNOTTY)
    while signal.sigtimedwait({signal.SIGHUP, signal.SIGCONT}, 0):
        pass


def _take_place(*, shares: bool, leads: bool) -> None:
    """In the child: out of our group, with the terminal if there is one."""
    if shares and not leads:  # a shell's job: job control needs one session
        os.setpgid(0, 0)
        os.tcsetpgrp(STDIN, os.getpid())  # SIGTTOU is still blocked
        return
    os.setsid()
    if leads:
        fcntl.ioctl(STDIN, termios.TIOCSCTTY, 0)


def _restore(inherited: "set[int]", chld: object) -> None:
    """In the child: signals as they were given to us. An exec makes default what is caught, not what is ignored."""
    for number in HIDDEN:
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else it is a KeyboardInterrupt before the exec
    if chld is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, inherited)
