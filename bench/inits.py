"""What it costs to be an init: `nacos-drain run` beside tini and dumb-init, each with the same command.

They are programs in C of 20 KB, ours is an interpreter with a drain: the figures say what that costs a start and a
signal.
"""

import asyncio
import os
import shutil
import signal
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import psutil

from bench.row import Row
from bench.running import process


RIVALS = {"tini": ("tini", "-s", "-g", "--"), "dumb-init": ("dumb-init", "--")}
STARTS, SIGNALS = 5, 100  # per repetition
# As in an image: without the extra [tui], see bench.running.
OURS = (
    *(sys.executable, "-c", "import sys; sys.modules['rich'] = None; from sidecar.__main__ import main; main()"),
    *("run", "--"),
)
SETTINGS = {
    "NACOS_DRAIN_NACOS_SERVER_ADDR": "127.0.0.1:1",
    "NACOS_DRAIN_NACOS_SERVICE": "none",
    "NACOS_DRAIN_GRACE_PERIOD": "60",
    "NACOS_DRAIN_LISTEN": "127.0.0.44:19081",
}
QUIET = ("sh", "-c", 'exec "$@" 2>/dev/null', "sh")  # our log
# Hears signals without a handler, and says so by one write: what is measured is the way there.
HEARER = (
    *(sys.executable, "-I", "-S", "-c"),
    """
import os, signal
heard = {signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
os.write(1, b"-")
while True:
    signal.sigwait(heard)
    os.write(1, b"+")
""",
)


def _inits() -> dict[str, tuple[str, ...]]:
    """Ours, those that are installed, and none at all."""
    return {"none": (), "ours": OURS, **{name: argv for name, argv in RIVALS.items() if shutil.which(name)}}


def _rows(what: str, unit: str, figures: Mapping[str, float], bar: str, note: str = "") -> list[Row]:
    """One row per rival."""
    return [Row(what, unit, figures["ours"], figures.get(name), name, bar, note) for name in RIVALS]


@asynccontextmanager
async def _armed(init: tuple[str, ...]) -> AsyncIterator[asyncio.subprocess.Process]:
    """An init whose command hears; ours has loaded its drain, and is as idle as it gets."""
    async with process(*QUIET, *init, *HEARER, env=SETTINGS, stdout=PIPE) as child:
        assert child.stdout is not None  # noqa: S101  asked for
        await child.stdout.readexactly(1)
        if init == OURS:
            await _idle(psutil.Process(child.pid))
        try:
            yield child
        finally:  # an init that is killed leaves its command
            for command in psutil.Process(child.pid).children():
                command.kill()
            if init:
                await child.wait()


async def _idle(child: psutil.Process) -> None:
    """Wait until it has had no CPU time for a second: it has loaded what it needs."""
    async with asyncio.timeout(60):
        before = -1.0
        while (now := sum(child.cpu_times()[:2])) != before:
            before = now
            await asyncio.sleep(1.0)


async def exec_delay(repetitions: int) -> list[Row]:
    """From the init's start to the command's first word, less what the command alone takes. In turns."""
    took: dict[str, list[float]] = {name: [] for name in _inits()}
    for _ in range(repetitions * STARTS):
        for name, init in _inits().items():
            began = time.perf_counter()
            async with process(*init, "/bin/echo", env=SETTINGS, stdout=PIPE) as child:
                assert child.stdout is not None  # noqa: S101  asked for
                await child.stdout.readexactly(1)
                took[name].append(time.perf_counter() - began)
                await child.wait()
    medians = {name: 1000 * statistics.median(each) for name, each in took.items()}
    delays = {name: each - medians["none"] for name, each in medians.items()}
    note = f"the command alone: {medians['none']:.1f} ms; most is CPython's own start"
    return _rows("init: exec delay", "ms", delays, "<= 50 ms", note)


async def forward_latency(repetitions: int) -> list[Row]:
    """From a signal's sending to what the command says to it; without an init too, as most is not theirs. In turns."""
    took: dict[str, list[float]] = {name: [] for name in _inits()}
    for _ in range(repetitions):
        for name, init in _inits().items():
            async with _armed(init) as child:
                took[name] += [await _answer(child) for _ in range(SIGNALS)]
    medians = {name: 1e6 * statistics.median(each) for name, each in took.items()}
    slow = {name: 1e6 * statistics.quantiles(each, n=100)[98] for name, each in took.items()}
    note = f"without an init {medians['none']:.0f} us; p99 {', '.join(f'{n} {x:.0f}' for n, x in slow.items())} us"
    return _rows("init: signal -> the command's echo", "us", medians, "<= without + 1 ms", note)


async def _answer(child: asyncio.subprocess.Process) -> float:
    """The seconds from a signal to its echo."""
    assert child.stdout is not None  # noqa: S101  asked for
    sent = time.perf_counter()
    os.kill(child.pid, signal.SIGUSR1)
    await child.stdout.readexactly(1)
    return time.perf_counter() - sent


async def memory(_: int) -> list[Row]:
    """Idle, with the drain loaded; the command's memory is not in it."""
    figures = {}
    for name, init in _inits().items():
        async with _armed(init) as child:
            figures[name] = psutil.Process(child.pid).memory_info().rss / 2**20
    return _rows("init: idle RSS", "MiB", figures, "that of `serve`")
