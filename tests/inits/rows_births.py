"""What the command is born with.

The same command without an init is what each of them is compared with.
"""

import json
import os
import random
import tempfile

from inits import kernel
from inits.commands import INHERITOR, shell
from inits.rows import behaviour
from inits.rows_signals import names
from inits.running import Case


ODD = {
    b"EMPTY": b"",
    b"NOT_UTF8": b"\xff\xfe=\xc3",
    b"LINES": b"a\nb\n",
    b"PYTHONPATH": b"/nowhere",
    b"with space": "süß".encode(),
}

OF_ONE_RUN = (b"INITS_RUN=", b"NACOS_DRAIN_LISTEN=")
FIELDS = {"SigIgn": "ignored", "SigBlk": "blocked", "SigCgt": "caught", "SigPnd": "pending", "ShdPnd": "pending"}


@behaviour("dispositions and mask", "all default, none blocked")
async def fresh(case: Case) -> str:
    """Whatever an init does with its own signals is no business of the command."""
    return await masks(case) or "all default, none blocked"


@behaviour(
    "started with HUP, INT, TTIN ignored, USR1 and RTMIN blocked",
    "inherited",
    dumb_init="forgotten: all default, none blocked",
    why="dumb-init has handlers for all, which an exec makes defaults of, and unblocks all",
)
async def inherited_masks(case: Case) -> str:
    """`nohup`, and parents that know what they do."""
    told = await masks(case, ignored=("HUP", "INT", "TTIN"), blocked=("USR1", "RTMIN"))
    return {"": "forgotten: all default, none blocked", "ignored HUP INT TTIN, blocked USR1 RTMIN": "inherited"}.get(
        told, told
    )


@behaviour(
    "started with PIPE and XFSZ ignored",
    "all default",
    tini="inherited",
    why="CPython ignores both before it lets anybody know what they were, so nacos-drain makes both default; dumb-init "
    "makes all default",
)
async def inherited_pipe(case: Case) -> str:
    """What a Python or a Go parent may leave behind."""
    told = await masks(case, ignored=("PIPE", "XFSZ"))
    return {"": "all default", "ignored PIPE XFSZ": "inherited"}.get(told, told)


async def masks(case: Case, ignored: tuple[str, ...] = (), blocked: tuple[str, ...] = ()) -> str:
    """What the command finds ignored, blocked or caught; empty when nothing is."""
    async with case.run("cat", "/proc/self/status", ignored=ignored, blocked=blocked) as run:
        assert await run.ended() == 0, str(run)
        fields = dict(line.partition(":\t")[::2] for line in run.said)
    found = {words: kernel.signals(fields[field]) for field, words in FIELDS.items()}
    return ", ".join(f"{words} {names(which)}" for words, which in found.items() if which)


@behaviour("arguments, environment, folder, umask, open files, limits, niceness", "unchanged, byte for byte")
async def inherited(case: Case) -> str:
    """An environment without a locale, in which CPython would put one, and with what no text can hold."""
    with tempfile.TemporaryDirectory() as folder:
        read, write = os.pipe()
        try:
            alone, under = [await inheritance(case, folder, keep=(read, write), bare=bare) for bare in (True, False)]
        finally:
            os.close(read)
            os.close(write)
    assert alone.keys() == under.keys()
    changed = [f"{key}: {alone[key]} -> {under[key]}" for key in alone if alone[key] != under[key]]
    return "; ".join(changed) or "unchanged, byte for byte"


async def inheritance(case: Case, folder: str, keep: tuple[int, ...], *, bare: bool) -> dict[str, object]:
    """What the command finds."""
    words = ("", "a b", "--", "--remap", "-g", "ü\n", "*")
    async with case.run(*INHERITOR, *words, env=ODD, cwd=folder, umask=0o137, keep=keep, bare=bare) as run:
        assert await run.ended() == 0, str(run)
        told: dict[str, object] = json.loads(run.output)
    environment = bytes.fromhex(str(told["environment"])).split(b"\0")
    assert b"PYTHONPATH=/nowhere" in environment
    return {**told, "environment": [each for each in environment if not each.startswith(OF_ONE_RUN)]}


@behaviour(
    "started with stdin, stdout and stderr closed",
    "they stay closed; its exit code",
    tini="the command is not started: 1",
    why="tini asks stdin for its terminal, and takes any other answer than that it is none for a failure",
)
async def closed(case: Case) -> str:
    """What the init opens itself then has these numbers, and must not come to the command."""
    some_open = " -o ".join(f"-e /proc/self/fd/{number}" for number in range(3))
    async with case.run(*shell(f"[ {some_open} ] && exit 9; exit 7"), closed=True) as run:
        code = await run.ended()
    outcomes = {7: "they stay closed; its exit code", 9: "some are open", 1: "the command is not started: 1"}
    return outcomes.get(code, f"exit code {code}")


@behaviour(
    "started with CHLD ignored",
    "inherited; the command's exit code",
    tini="the init never ends",
    dumb_init="default; the command's exit code",
    why="the kernel reaps for whoever ignores CHLD: tini waits for a child that is gone; the others stop ignoring it, "
    "and dumb-init forgets that it was",
    marks=("long",),
)
async def childless(case: Case) -> str:
    """As a careless parent leaves it."""
    async with case.run(*shell("exit 7"), ignored=("CHLD",)) as run:
        if not await run.ends_within(3.0):  # the command takes a hundredth of it
            assert not kernel.children(run.pid), str(run)
            return "the init never ends"
    what = {"ignored CHLD": "inherited", "": "default"}[await masks(case, ignored=("CHLD",))]
    return f"{what}; the command's exit code" if run.code == 7 else f"{what}; exit code {run.code}"


@behaviour("1 MiB of any bytes through stdin and stdout", "unchanged, byte for byte")
async def through(case: Case) -> str:
    """Two pipes at once, and the end of either."""
    data = random.Random(case.name).randbytes(1 << 20)
    async with case.run("cat") as run:
        await run.write(data)
        run.close_stdin()
        assert await run.ended() == 0, str(run)
        return "unchanged, byte for byte" if run.output == data else f"{len(run.output)} bytes"
