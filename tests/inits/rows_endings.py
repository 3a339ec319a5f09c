"""How it ends.

The init's exit code is all that a kubelet, docker or a shell gets to know of the command.
"""

import asyncio
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path

from inits.commands import HEARER, shell
from inits.rows import behaviour
from inits.running import Case, refused, until
from inits.subjects import LONG, Options, Place


AT_ONCE = 16
# What ends a process that does nothing about it: all but those that are ignored then, and those that stop or continue.
DEADLY = [x for x in range(1, 32) if x not in {17, 18, 19, 20, 21, 22, 23, 28}]
REAL_TIME = (int(signal.SIGRTMIN), int(signal.SIGRTMAX))
SHORT, KILLED_BEFORE_END = 4, 1.5  # seconds: a grace period, and how long before its end a command is killed


async def codes(case: Case, scripts: Iterable[str]) -> list[int]:
    """The init's exit code for each script of a shell; some at once."""
    room = asyncio.Semaphore(AT_ONCE)

    async def code(script: str) -> int:
        async with room, case.run(*shell(script)) as run:
            return await run.ended()

    return await asyncio.gather(*map(code, scripts))


def compared(found: Iterable[int], expected: Iterable[int]) -> str:
    """The codes that are not the expected ones."""
    return ", ".join(f"{wanted} -> {got}" for got, wanted in zip(found, expected, strict=True) if got != wanted)


@behaviour("exit codes 0..255", "the command's", places=(Place.FIRST,), marks=("long",))
@behaviour("exit codes 0..255", "the command's", places=(Place.OTHER,), marks=("soak",))
async def all_codes(case: Case) -> str:
    """Every code there is."""
    found = await codes(case, [f"exit {code}" for code in range(256)])
    return compared(found, range(256)) or "the command's"


@behaviour("exit codes 0, 1, 2, 77, 126, 127, 128, 137, 143, 255", "the command's")
async def some_codes(case: Case) -> str:
    """Those that mean something elsewhere, too."""
    some = (0, 1, 2, 77, 126, 127, 128, 137, 143, 255)
    return compared(await codes(case, [f"exit {code}" for code in some]), some) or "the command's"


@behaviour(f"death by each of {len(DEADLY)} signals, RTMIN, RTMAX", "128 + its number", marks=("long",))
async def deaths(case: Case) -> str:
    """With those that would dump core, if they were let."""
    deadly = (*DEADLY, *REAL_TIME)
    found = await codes(case, [f"ulimit -c 0; kill -{number} $$" for number in deadly])
    return compared(found, [128 + number for number in deadly]) or "128 + its number"


# -- another code ------------------------------------------------------------------------------------------------------


ONLY_TO_0 = "tini makes 0 of a code, and nothing else; "
NO_REMAP = "dumb-init has no such option"


@behaviour("`--remap 143:0`", "143 becomes 0, 7 stays", dumb_init="refused", why=NO_REMAP)
async def remap(case: Case) -> str:
    """A JVM that was stopped by TERM exits with 143, which looks like a failure."""
    async with case.run(*HEARER, "--stdin", "7", options=Options(remap=((143, 0),))) as run:
        if await refused(run):
            return "refused"
        run.close_stdin()
        other = await run.ended()
    async with case.run(*shell("echo ready; kill -TERM $$"), options=Options(remap=((143, 0),))) as run:
        return f"143 becomes {await run.ended()}, 7 {'stays' if other == 7 else f'becomes {other}'}"


@behaviour("`--remap 7:3`", "7 becomes 3", tini="refused", dumb_init="refused", why=ONLY_TO_0 + NO_REMAP)
async def remap_to_another(case: Case) -> str:
    """Any code to any other."""
    async with case.run(*HEARER, "--stdin", "7", options=Options(remap=((7, 3),))) as run:
        if await refused(run):
            return "refused"
        run.close_stdin()
        return f"7 becomes {await run.ended()}"


# -- no command --------------------------------------------------------------------------------------------------------


ONE_CODE = "dumb-init has one code for all that is wrong, 2"


@behaviour(
    "a command that does not exist",
    "127, and a line that names it",
    dumb_init="2, and a line that names it",
    why=ONE_CODE,
)
async def not_found(case: Case) -> str:
    """As shells have it."""
    return await not_started(case, "/no/such-command")


@behaviour(
    "a command that may not be executed",
    "126, and a line that names it",
    dumb_init="2, and a line that names it",
    why=ONE_CODE,
)
async def not_executable(case: Case) -> str:
    """A text file."""
    return await not_started(case, "/etc/passwd")


@behaviour(
    "a command whose interpreter is missing",
    "127, and a line that names it",
    dumb_init="2, and a line that names it",
    why=ONE_CODE,
)
async def without_interpreter(case: Case) -> str:
    """An image without a shell: the file is there, and the kernel says that it is not."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script"
        script.write_text("#!/no/such/shell\n")
        script.chmod(0o755)
        return await not_started(case, str(script))


async def not_started(case: Case, path: str) -> str:
    """What an init says and exits with when it cannot execute its command."""
    async with case.run(path) as run:
        code = await run.ended()
        named = [line for line in run.errors.splitlines() if path in line]
    return f"{code}, and {'a line' if len(named) == 1 else f'{len(named)} lines'} that names it"


# -- being stopped -----------------------------------------------------------------------------------------------------


@behaviour("TERM to a command that does nothing about it", "143")
async def terminated(case: Case) -> str:
    """The usual end."""
    return await stopped_by(case, signal.SIGTERM)


@behaviour("INT to a command that does nothing about it", "130")
async def interrupted(case: Case) -> str:
    """Ctrl-C."""
    return await stopped_by(case, signal.SIGINT)


async def stopped_by(case: Case, number: int) -> str:
    """The exit code after such a signal."""
    async with case.run(*shell("echo ready; exec sleep 1000")) as run:
        await run.line("ready")
        run.signal(number)
        return str(await run.ended())


@behaviour(
    "TERM to a command that ignores it",
    "it lives on",
    ours="killed 1.5 s before the grace period ends: 137",
    why="only nacos-drain knows the grace period, and ends it in order: docker's or the kubelet's KILL would hit "
    "nacos-drain too",
    marks=("long",),
)
async def ignored(case: Case) -> str:
    """Looked at until the grace period is over."""
    more = {"NACOS_DRAIN_GRACE_PERIOD": str(SHORT), "NACOS_DRAIN_APP_STOP": "1"}
    async with case.run(*HEARER, env=more) as run:
        await run.line("ready")
        began = asyncio.get_running_loop().time()
        run.signal(signal.SIGTERM)
        await run.line(f"heard {int(signal.SIGTERM)}")
        if not await run.ends_within(SHORT):
            return "it lives on"
        took = asyncio.get_running_loop().time() - began
        assert SHORT - KILLED_BEFORE_END - 0.1 < took < SHORT, took
        return f"killed {KILLED_BEFORE_END} s before the grace period ends: {run.code}"


@behaviour(
    "TERM, and time enough for a drain",
    "the command hears it at once",
    ours="first the drain; a second TERM lets it through",
    why="nacos-drain is there for this: no caller knows the app any more when it hears of it",
)
async def drained(case: Case) -> str:
    """All other signals go through meanwhile."""
    term, other = (f"heard {int(number)}" for number in (signal.SIGTERM, signal.SIGUSR1))
    async with case.run(*HEARER, env=LONG) as run:
        await run.line("ready")
        run.signal(signal.SIGTERM)
        if case.name != "nacos-drain":
            await run.line(term)
            return "the command hears it at once"
        await until(lambda: "drain.started" in run.errors or None, "a drain")
        run.signal(signal.SIGUSR1)
        await run.line(other)
        assert term not in run.said, str(run)
        run.signal(signal.SIGTERM)
        await run.line(term)
    return "first the drain; a second TERM lets it through"


@behaviour("the command ends by itself while it is being stopped", "its exit code, at once")
async def ends_by_itself(case: Case) -> str:
    """Ours is in the middle of a drain then, with half a minute left; the command has not heard of it."""
    async with case.run(*HEARER, "--stdin", "7", env=LONG) as run:
        await run.line("ready")
        run.signal(signal.SIGTERM)
        if case.name == "nacos-drain":
            await until(lambda: "drain.started" in run.errors or None, "a drain")
            assert f"heard {int(signal.SIGTERM)}" not in run.said
        else:
            await run.line(f"heard {int(signal.SIGTERM)}")
        run.close_stdin()
        code = await run.ended()
    return "its exit code, at once" if code == 7 else f"{code}"
