"""Somebody sits before it.

A terminal of its own is what `docker run -it` gives: the init leads the session. Under a shell it is a job as others.
"""

import os
import shlex
import signal
from contextlib import suppress

from inits import kernel
from inits.commands import AT_TERMINAL
from inits.rows import behaviour
from inits.running import Case, Run, until
from inits.subjects import Options, Place, Target, argv
from inits.terminal import Terminal


SHELL = ("bash", "--norc", "--noprofile", "--noediting", "-i")
PROMPT = {"PS1": "$ ", "TERM": "dumb"}
CTRL_C, CTRL_Z = "\x03", "\x1a"


# -- a terminal of its own ---------------------------------------------------------------------------------------------


@behaviour("Ctrl-C", "the command hears it; its exit code")
async def ctrl_c(case: Case) -> str:
    """In front of the terminal is the command."""
    terminal = Terminal()
    async with case.run(*AT_TERMINAL, terminal=terminal) as run:
        await run.text("up")
        terminal.type(CTRL_C)
        code = await run.ended()
        assert run.output.count(b"interrupted") == 1, str(run)
    return "the command hears it; its exit code" if code == 3 else f"exit code {code}"


@behaviour("the window changes its size", "the command hears it")
async def resized(case: Case) -> str:
    """The kernel tells who is in front."""
    terminal = Terminal()
    async with case.run(*AT_TERMINAL, terminal=terminal) as run:
        await run.text("up")
        terminal.resize(50, 132)
        await run.text("size 50x132")
    return "the command hears it"


@behaviour("the terminal is closed", "the command hears HUP; its exit code")
async def hung_up(case: Case) -> str:
    """As when a connection breaks."""
    terminal = Terminal()
    async with case.run(*AT_TERMINAL, terminal=terminal) as run:
        await run.text("up")
        run.hang_up()
        code = await run.ended()
    return "the command hears HUP; its exit code" if code == 4 else f"exit code {code}"


@behaviour("an interactive shell as the command: Ctrl-Z, `fg`, Ctrl-C, `exit 7`", "has its jobs; 7")
async def shell_inside(case: Case) -> str:
    """Job control needs a session with that terminal, and to be in front of it."""
    terminal = Terminal()
    async with case.run(*SHELL, terminal=terminal, env=PROMPT) as run:
        return await works_a_job(run, terminal, await run.text("$ "))


async def works_a_job(run: Run, terminal: Terminal, place: int) -> str:
    """Have the shell at the prompt stop, continue and interrupt a job, and exit."""
    if b"no job control" in run.output:
        return "has no job control"
    shell = terminal.foreground
    terminal.type("sleep 1000\n")
    await until(lambda: kernel.name(terminal.foreground) == "sleep" or None, "the job to be in front")
    sleep = terminal.foreground
    terminal.type(CTRL_Z)
    place = await run.text("Stopped", place)
    await until(lambda: terminal.foreground == shell or None, "the shell to be in front")
    terminal.type("fg\n")
    await until(lambda: kernel.state(sleep) != kernel.STOPPED or None, "the job to go on")
    terminal.type(CTRL_C)
    await until(lambda: terminal.foreground == shell or None, "the shell to be in front")
    terminal.type("echo six times seven is $((6 * 7))\n")
    await run.text("is 42", place)
    terminal.type("exit 7\n")
    return f"has its jobs; {await run.ended()}"


# -- under a shell -----------------------------------------------------------------------------------------------------


UNSEEN = "tini puts the command in front, but does not look whether it is stopped: nobody ever gets the terminal back"


@behaviour(
    "a shell's job: Ctrl-Z, `fg`, Ctrl-C",
    "stops, goes on, ends; the shell has its terminal each time",
    tini="stops, and the shell waits for ever",
    why=UNSEEN,
    places=(Place.OTHER,),
)
async def job(case: Case) -> str:
    """What everybody does who tries it out on a laptop."""
    terminal = Terminal()
    async with case.run(*SHELL, terminal=terminal, env=PROMPT, bare=True) as run:
        place = await run.text("$ ")
        shell = terminal.foreground
        terminal.type(f"{line(case, *AT_TERMINAL)}\n")
        place = await run.text("up ", place)
        (init,) = kernel.children(shell)
        (command,) = kernel.children(init)
        terminal.type(CTRL_Z)
        if not await stops(init, command):
            return "stops, and the shell waits for ever"
        place = await run.text("Stopped", place)
        await until(lambda: terminal.foreground == shell or None, "the shell to be in front")
        terminal.type("fg\n")
        place = await run.text("continued", place)
        terminal.type(CTRL_C)
        place = await run.text("interrupted", place)
        await until(lambda: terminal.foreground == shell or None, "the shell to be in front")
        terminal.type("echo its code was $?\n")
        await run.text("was 3", place)
    return "stops, goes on, ends; the shell has its terminal each time"


async def stops(init: int, command: int) -> bool:
    """Whether an init stops with its command.

    It is told by the kernel, with SIGCHLD; what is sent then is taken after that has been seen to.
    """
    await until(lambda: kernel.state(command) == kernel.STOPPED or None, "the command to stop")
    os.kill(init, signal.SIGWINCH)

    def look() -> bool | None:
        if kernel.state(init) == kernel.STOPPED:
            return True
        return None if signal.SIGWINCH in kernel.pending(init) else False

    if not await until(look, "the init to stop, or not to"):
        with suppress(AssertionError):  # the kernel shows a stop a moment before it tells the parent
            await until(lambda: kernel.state(init) == kernel.STOPPED or None, "a stop", within=0.5)
    return kernel.state(init) == kernel.STOPPED


@behaviour(
    "a shell's job in the background",
    "the shell keeps its terminal",
    tini="the command takes it",
    why="tini puts its command in front of the terminal whoever is there",
    places=(Place.OTHER,),
)
async def background(case: Case) -> str:
    """`&`."""
    terminal = Terminal()
    async with case.run(*SHELL, terminal=terminal, env=PROMPT, bare=True) as run:
        place = await run.text("$ ")
        shell = terminal.foreground
        terminal.type(f"{line(case, *AT_TERMINAL)} &\n")
        await run.text("up ", place)
        return "the shell keeps its terminal" if terminal.foreground == shell else "the command takes it"


@behaviour(
    "an interactive shell as the command, under a shell",
    "has its jobs; 7",
    dumb_init="has no job control",
    why="dumb-init makes a session for its command, which the terminal does not belong to",
    places=(Place.OTHER,),
)
@behaviour(
    "an interactive shell as the command, under a shell",
    "has its jobs; 7",
    places=(Place.OTHER,),
    targets=(Target.SINGLE,),
)
async def shell_in_a_shell(case: Case) -> str:
    """Both have their jobs."""
    terminal = Terminal()
    async with case.run(*SHELL, terminal=terminal, env=PROMPT, bare=True) as run:
        place = await run.text("$ ")
        outer = terminal.foreground
        terminal.type(f"exec 2>&1; {line(case, 'env', 'PS1=inner ', *SHELL)}; exit $?\n")
        place = await run.text("inner ", await run.text("\n", place))
        assert terminal.foreground != outer or case.name == "dumb-init"
        return await works_a_job(run, terminal, place)


@behaviour(
    "a script reads the terminal after it",
    "reads it",
    tini="cannot",
    why="tini does not give the terminal back; a shell that does jobs takes it, a script does not",
    places=(Place.OTHER,),
)
async def given_back(case: Case) -> str:
    """A script has no jobs: what it runs is in its own group, and has to give back what it takes."""
    terminal = Terminal()
    script = f"{line(case, 'true')}; read answer && echo the answer is $answer; echo over"
    async with case.run("sh", "-c", script, terminal=terminal, bare=True) as run:
        terminal.type("42\n")
        await run.text("over")
        return "reads it" if b"answer is 42" in run.output else "cannot"


def line(case: Case, *command: str) -> str:
    """What to type."""
    return f"{shlex.join([*argv(case.name, case.place, case.target, Options()), *command])}"
