"""Processes whose parent has gone.

Somebody has to take their exit codes, or they stay as zombies, and somebody should tell them when all is over. PID 1
gets them from the kernel; another process only when it asks to be a subreaper.
"""

import asyncio
import os
import signal

from inits import kernel
from inits.commands import ORPHANS
from inits.rows import behaviour
from inits.running import Case, Run, until
from inits.subjects import Place


MANY = 500
FENCE = signal.SIGRTMAX
AT_MOST = 2.0  # seconds that ours gives them
NO_SUBREAPER = "dumb-init does not ask for them where it is not PID 1"


@behaviour(f"{MANY} orphans that exit at once", "no zombie is left", places=(Place.FIRST,))
@behaviour(
    f"{MANY} orphans that exit at once",
    "no zombie is left",
    dumb_init="not its own",
    why=NO_SUBREAPER + ": they go to whoever is above; tini is asked to by -s, nacos-drain need not be",
    places=(Place.OTHER,),
)
async def many(case: Case) -> str:
    """Looked at while the command lives."""
    async with case.run(*ORPHANS, "--brief", str(MANY), "--lasting", "group") as run:
        await run.line("made")
        if not await adopted(run):
            return "not its own"
        await until(lambda: None if kernel.children(run.pid, kernel.ZOMBIE) else True, "the last zombie to go")
        assert len(kernel.children(run.pid)) == 2, "the command, and the orphan that stays"
        run.close_stdin()
        assert await run.ended() == 0, str(run)
        return "no zombie is left"


async def adopted(run: Run) -> bool:
    """Whether the orphan that stays is the init's."""
    parent = (await run.line("orphan ")).split()[3]
    return parent == ("1" if run.place is Place.FIRST else str(run.pid))


TOLD, KILLED, LATE, UNTOLD = "told, and waited for", "killed by the kernel", "told, not waited for", "lives on, untold"


@behaviour(
    "the command ends; an orphan is left in its group",
    TOLD,
    tini=KILLED,
    dumb_init=KILLED,
    why="with PID 1 the kernel kills everything; tini tells nobody, dumb-init tells the group, and is gone before "
    "anybody can act",
    places=(Place.FIRST,),
)
@behaviour(
    "the command ends; an orphan is left in its group",
    TOLD,
    tini=UNTOLD,
    dumb_init=LATE,
    why="tini tells nobody; dumb-init tells the group, and goes",
    places=(Place.OTHER,),
)
async def left_in_group(case: Case) -> str:
    """As a shell script's `&`."""
    return await left(case, "group")


@behaviour(
    "the command ends; a daemon is left, in a session of its own",
    TOLD,
    tini=KILLED,
    dumb_init=KILLED,
    why="a daemon has left the group, and neither looks further",
    places=(Place.FIRST,),
)
@behaviour(
    "the command ends; a daemon is left, in a session of its own",
    TOLD,
    tini=UNTOLD,
    dumb_init=UNTOLD,
    why="a daemon has left the group, and neither looks further",
    places=(Place.OTHER,),
)
async def left_alone(case: Case) -> str:
    """A double fork: it runs as long as the command does."""
    return await left(case, "daemon")


async def left(case: Case, which: str) -> str:
    """What becomes of a process that is left when the command ends; it has 0.3 s to do."""
    async with case.run(*ORPHANS, "--lasting", which) as run:
        await run.line("made")
        number = (await run.line("orphan ")).split()[1]
        orphan = next(pid for pid in run.left if kernel.status(pid, "NSpid").split()[-1] == number)
        os.kill(orphan, FENCE)
        await run.line("orphan is there")
        assert "orphan told" not in run.said
        run.close_stdin()
        assert await run.ended() == 0, str(run)
        if "orphan done" in run.said:
            return TOLD
        if case.first:
            await until(lambda: None if kernel.alive(orphan) else True, "the kernel to kill it")
            return KILLED
        before = len(run.said)
        os.kill(orphan, FENCE)
        told = await run.line("orphan", before) if "orphan told" not in run.said else "orphan told"
        return LATE if told == "orphan told" else UNTOLD


@behaviour(
    "the command ends; an orphan ignores TERM",
    "the init ends at once",
    ours="the init ends 2 s later",
    why="only nacos-drain waits, and not for ever",
    marks=("long",),
)
async def deaf(case: Case) -> str:
    """Nobody waits for it longer than the time that is given to all."""
    async with case.run(*ORPHANS, "--lasting", "daemon", "--deaf") as run:
        await run.line("made")
        await run.line("orphan ")
        began = asyncio.get_running_loop().time()
        run.close_stdin()
        assert await run.ended() == 0, str(run)
        took = asyncio.get_running_loop().time() - began
    if AT_MOST - 0.1 < took < AT_MOST + 1.5:
        return "the init ends 2 s later"
    return "the init ends at once" if took < AT_MOST / 2 else f"the init ends {took:.1f} s later"
