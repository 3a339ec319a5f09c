"""Signals that are sent to the init.

The command blocks all and says each one that it hears; so does its heir, a process of the same group. Two signals to
one process are taken in the order of their numbers, so behind every signal a higher one is sent, and when that is heard
without the first, the first will never come.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterable

from inits import kernel
from inits.commands import HEARER
from inits.rows import EITHER, behaviour
from inits.running import PERIOD, Case, Run, refused, until
from inits.subjects import Options, Place, Target


FINISH, FENCE = signal.SIGRTMIN + 1, signal.SIGRTMAX - 1
QUEUED = signal.SIGRTMIN + 3
STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
FAULTS = (4, 5, 6, 7, 8, 11, 31)  # what the kernel sends to a process that went wrong
NEVER = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD)
STOPPING = (signal.SIGINT, signal.SIGTERM)  # ours drains first, and kills the command some time after: they come last
STANDARD = [x for x in range(1, 32) if x not in (*NEVER, *STOPS, *FAULTS, *STOPPING)]
ALL = (*STANDARD, signal.SIGRTMIN, signal.SIGRTMAX, *STOPPING)


def name(number: int) -> str:
    """A signal as it is called."""
    if number > signal.SIGRTMIN:
        return "RTMAX" if number == signal.SIGRTMAX else f"RTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name.removeprefix("SIG")


def names(numbers: Iterable[int]) -> str:
    """Some of them."""
    return " ".join(map(name, sorted(numbers)))


async def hears(run: Run, number: int) -> bool:
    """Whether the command hears a signal that its init is sent."""
    before = len(run.said)
    run.signal(number)
    if number in STOPPING or number > FENCE:
        await run.line(f"heard {number}", before)
        return True
    run.signal(FENCE)
    await run.line(f"heard {FENCE}", before)
    return f"heard {number}" in run.said[before:]


async def finished(run: Run) -> set[int]:
    """Have the command finish; what its heir has heard."""
    run.signal(FINISH)
    heir = await run.line("heir heard")
    assert await run.ended() == 0, str(run)
    return set(map(int, heir.split()[2:])) - {FENCE, FINISH}


@behaviour(
    f"{len(ALL)} signals: {names(STANDARD)} RTMIN RTMAX INT TERM",
    "the command and its group hear all",
    targets=(Target.GROUP,),
)
@behaviour(
    f"the same {len(ALL)} signals",
    "the command alone hears all",
    targets=(Target.SINGLE,),
)
async def each_signal(case: Case) -> str:
    """Each of them is heard by whom it is meant for."""
    async with case.run(*HEARER, "--heir") as run:
        await run.line("ready")
        await run.line("heir ready")
        heard = {number for number in ALL if await hears(run, number)}
        heirs = await finished(run)
    assert heirs in (set(), heard), names(heirs)
    who = "the command and its group hear" if heirs else "the command alone hears"
    return f"{who} all" if heard == set(ALL) else f"{who} all but {names(set(ALL) - heard)}"


FAULTY = "tini leaves signals that mean a fault unblocked, to die of its own; "


@behaviour(
    f"sent by kill: {names(FAULTS)}",
    "the command hears them",
    tini="the command hears nothing",
    why=FAULTY + "as PID 1 it has no handler for them, and the kernel drops them",
    places=(Place.FIRST,),
    targets=EITHER,
)
@behaviour(
    f"sent by kill: {names(FAULTS)}",
    "the command hears them",
    tini="each ends tini, and the command lives on",
    why=FAULTY + "sent by somebody they end it too, and nobody tells the command",
    places=(Place.OTHER,),
    targets=EITHER,
)
async def faults(case: Case) -> str:
    """What the kernel sends to a process that went wrong, sent by somebody: no fault of the init."""
    fates, left = set(), list(FAULTS)
    while left:
        async with case.run(*HEARER) as run:
            await run.line("ready")
            while left and kernel.alive(run.pid):
                fates.add(await fate(case, run, left.pop()))
    return "; ".join(sorted(fates))


async def fate(case: Case, run: Run, number: int) -> str:
    """What becomes of the init and of its command by such a signal."""
    before, command = len(run.said), run.command
    run.signal(number)
    run.signal(FENCE)  # a zombie may be signalled too

    def look() -> str | None:
        if not kernel.alive(run.pid):
            return f"each ends {case.name}, and the command {'lives on' if kernel.alive(command) else 'too'}"
        said = run.said[before:]
        if f"heard {FENCE}" in said:
            return "the command hears them" if f"heard {number}" in said else "the command hears nothing"
        return None

    return await until(look, f"a fate by {name(number)}")


PAUSES = "dumb-init stops itself whenever it has passed one of them on, so that a shell above notices; "
IGNORED = "tini itself ignores TTIN and TTOU, to be able to give the terminal away; "


@behaviour(
    names(STOPS),
    "the command hears all",
    tini="the command hears TSTP",
    dumb_init="the command is stopped by all, until CONT",
    why=IGNORED + "dumb-init makes STOP of them, as a session's leader without a shell above cannot be stopped by them",
    places=(Place.FIRST,),
)
@behaviour(
    names(STOPS),
    "the command hears all",
    tini="the command hears TSTP",
    why=IGNORED.rstrip("; "),
    places=(Place.FIRST,),
    targets=(Target.SINGLE,),
)
@behaviour(
    names(STOPS),
    "the command hears all",
    tini="the command hears TSTP",
    dumb_init="the command is stopped by all, until CONT; the init too",
    why=IGNORED + PAUSES + "of its group it makes STOP of them first",
    places=(Place.OTHER,),
)
@behaviour(
    names(STOPS),
    "the command hears all",
    tini="the command hears TSTP",
    dumb_init="the command hears all; the init is stopped until CONT",
    why=IGNORED + PAUSES.rstrip("; "),
    places=(Place.OTHER,),
    targets=(Target.SINGLE,),
)
async def stops(case: Case) -> str:
    """What a terminal sends to stop a job; sent by somebody, as from a shell or a debugger."""
    found: dict[str, list[int]] = {}
    async with case.run(*HEARER) as run:
        await run.line("ready")
        command = run.command
        for number in STOPS:
            before = len(run.said)
            run.signal(number)
            run.signal(FENCE)
            outcome = await until(lambda: stop(run, command, number, before), f"a fate by {name(number)}")  # noqa: B023
            if outcome:
                found.setdefault(outcome, []).append(number)
            if "CONT" in outcome:
                run.signal(signal.SIGCONT)
                await run.line(f"heard {FENCE}", before)
                await run.line(f"heard {signal.SIGCONT}", before)
    return ", and ".join(
        outcome.format("all" if len(which) == len(STOPS) else names(which)) for outcome, which in found.items()
    )


def stop(run: Run, command: int, number: int, before: int) -> str | None:
    """What such a signal has done, once that is clear: no more can come then."""
    said = run.said[before:]
    heard, stopped = f"heard {number}" in said, kernel.state(command) == kernel.STOPPED
    if kernel.state(run.pid) == kernel.STOPPED:
        if stopped:
            return "the command is stopped by {}, until CONT; the init too"
        return "the command hears {}; the init is stopped until CONT" if heard else None
    if stopped:
        return None if FENCE in kernel.pending(run.pid) else "the command is stopped by {}, until CONT"
    if f"heard {FENCE}" in said:
        return "the command hears {}" if heard else ""
    return None


# -- before the command runs -------------------------------------------------------------------------------------------


TOO_EARLY = "dumb-init unblocks all in the child before it executes the command, and its own handler swallows them; "
NO_GROUP = "tini and dumb-init tell a group that does not exist yet, and do not notice"


def tries(case: Case) -> int:
    """How often to ask: the others lose by a race, most times; ours takes half a second for each."""
    return 2 if case.name == "nacos-drain" else 10


@behaviour(
    "HUP or TERM, sent while the init is executed",
    "goes to the command",
    dumb_init="lost",
    why=TOO_EARLY.rstrip("; "),
    targets=(Target.SINGLE,),
)
@behaviour(
    "HUP or TERM, sent while the init is executed",
    "goes to the command",
    tini="lost",
    dumb_init="lost",
    why=TOO_EARLY + NO_GROUP,
)
async def early(case: Case) -> str:
    """The kernel keeps what is blocked through an exec."""
    for number in (signal.SIGHUP, signal.SIGTERM) * tries(case):
        async with case.run(*HEARER, blocked=[name(number)], held=True) as run:
            await run.line("born")
            run.signal(number)
            await run.go()
            await run.line("ready")
            if case.name == "nacos-drain" and number == signal.SIGTERM:
                await run.line(f"heard {int(number)}")  # it has to go through the drain
            run.signal(FENCE)
            await run.line(f"heard {FENCE}")
            if f"heard {int(number)}" not in run.said:
                return "lost"
    return "goes to the command"


@behaviour(
    "real-time signals, from before the init is executed until the command runs",
    "the command hears as many",
    dumb_init="some are lost",
    why="they can be counted, as they queue, if the command inherits that they are blocked, which dumb-init forgets: "
    "it dies of one",
    targets=(Target.SINGLE,),
)
@behaviour(
    "real-time signals, from before the init is executed until the command runs",
    "the command hears as many",
    tini="some are lost",
    dumb_init="some are lost",
    why=NO_GROUP,
)
async def queued(case: Case) -> str:
    """They may come at any moment between; none may be lost."""
    for _ in range(tries(case)):
        sent, heard = await queue(case)
        if heard != sent:
            return "some are lost"
    return "the command hears as many"


async def queue(case: Case) -> tuple[int, int]:
    """How many were sent, and how many heard; none when the command has died of one."""
    async with case.run(*HEARER, blocked=[name(QUEUED)], held=True) as run:
        await run.line("born")
        for _ in range(20):
            run.signal(QUEUED)
        await run.go()
        sent = 20
        try:
            while run.code is None and len(run.said) < 2:
                run.signal(QUEUED)
                sent += 1
                await asyncio.sleep(PERIOD)
        except ProcessLookupError:
            await run.ended()
        if run.code == 128 + QUEUED:
            return sent, 0
        run.signal(FENCE)
        await run.line(f"heard {FENCE}")
        return sent, run.said.count(f"heard {QUEUED}")


MOMENTS = (0, 1, 2, 5, 10, 20, 30, 35, 40, 45, 50, 60, 80)  # ms; CPython's own start lies in between


@behaviour("TERM again and again, from its first moment on", "ends the command: 143", places=(Place.FIRST,))
@behaviour(
    "TERM again and again, from its first moment or another one on",
    "ends the init before it has a command, or the command: 143",
    places=(Place.OTHER,),
    marks=("long",),
)
async def from_some_moment(case: Case) -> str:
    """Before it has handlers, the kernel drops what PID 1 is sent, and lets another process die of it."""
    for moment in MOMENTS[:1] if case.first else MOMENTS:
        async with case.run("sleep", "1000") as run:
            await until(lambda: run.pid or None, "a process")
            await asyncio.sleep(moment / 1000)
            while run.code is None:
                with contextlib.suppress(ProcessLookupError):
                    run.signal(signal.SIGTERM)
                await asyncio.sleep(PERIOD / 10)
            if run.code != 128 + signal.SIGTERM and (case.first or run.code != -signal.SIGTERM or run.left):
                return f"exit code {run.code} and {len(run.left)} processes left, from {moment} ms on"
    return "ends the command: 143" if case.first else "ends the init before it has a command, or the command: 143"


@behaviour("TERM 200 times in a row", "the command hears it; its exit code is the init's")
async def storm(case: Case) -> str:
    """Whoever stops it is impatient."""
    async with case.run(*HEARER, "--exit", f"{int(signal.SIGTERM)}:5") as run:
        await run.line("ready")
        with contextlib.suppress(ProcessLookupError):  # it has ended before we have
            for _ in range(200):
                run.signal(signal.SIGTERM)
        await run.line(f"heard {int(signal.SIGTERM)}")
        code = await run.ended()
    return "the command hears it; its exit code is the init's" if code == 5 else f"exit code {code}"


# -- changed on the way ------------------------------------------------------------------------------------------------


NO_REWRITE = "tini has no such option"


@behaviour(
    "`--rewrite USR1:USR2`, TERM:QUIT",
    "the command hears USR2 and QUIT instead",
    tini="refused",
    why=NO_REWRITE,
)
async def rewrite(case: Case) -> str:
    """Some programs stop gracefully by another signal."""
    pairs = ((signal.SIGUSR1, signal.SIGUSR2), (signal.SIGTERM, signal.SIGQUIT))
    async with case.run(*HEARER, options=Options(rewrite=pairs)) as run:
        if await refused(run):
            return "refused"
        for sent, other in pairs:
            run.signal(sent)
            await run.line(f"heard {int(other)}")
        wrong = [sent for sent, _ in pairs if f"heard {int(sent)}" in run.said]
    return "the command hears USR2 and QUIT instead" if not wrong else f"and also {names(wrong)}"


@behaviour("`--rewrite USR1:0`", "the command hears nothing", tini="refused", why=NO_REWRITE)
async def drop(case: Case) -> str:
    """Some signals are nobody's business."""
    async with case.run(*HEARER, options=Options(rewrite=((signal.SIGUSR1, 0),))) as run:
        if await refused(run):
            return "refused"
        return "the command hears it" if await hears(run, signal.SIGUSR1) else "the command hears nothing"
