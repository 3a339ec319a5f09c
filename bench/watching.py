"""What it costs to watch the callers: a whole sidecar beside an app, in a network as a pod has."""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psutil

from bench.place import Place, place
from bench.row import Row
from bench.running import DRAIN_PORT, SERVE, process, settings, until


APP_PORT, NACOS_PORT = 18080, 8848
MEASURED = 60.0  # seconds; the kernel counts CPU in 10 ms, which is 0.02 % of a core then
MANY = 10_000
CALLING = 600.0  # seconds at most, for three requests of each of them


@dataclass(frozen=True)
class Scene:
    """An app with its sidecar, and where they are."""

    at: Place
    sidecar: psutil.Process

    @property
    def callers(self) -> tuple[str, ...]:
        """The program that calls the app, but for who calls how."""
        app = f"{self.at.pod}:{APP_PORT}"
        return (*self.at.outside, sys.executable, "-m", "bench.callers", app, "--from", self.at.callers)

    async def ask(self, path: str) -> bytes | None:
        """What the sidecar answers in there; None when it does not, or says no."""
        url = f"http://{self.at.pod}:{DRAIN_PORT}{path}"
        curl = await asyncio.create_subprocess_exec(*self.at.inside, "curl", "-sf", url, stdout=PIPE)
        told, _ = await curl.communicate()
        return None if curl.returncode else told

    async def ready(self) -> bool:
        """Whether it has seen the app in Nacos."""
        return await self.ask("/readyz") is not None

    async def watched(self) -> str:
        """What it knows of the callers, for the note."""
        traffic = json.loads(await self.ask("/status") or b"null")["traffic"]
        missed = f", missed: {traffic['missed']}" if traffic["missed"] else ""
        return f"source {traffic['source']}, {sum(traffic['rhythms'].values())} callers{missed}"

    def cpu(self) -> float:
        """The CPU time that the sidecar has had, in seconds."""
        times = self.sidecar.cpu_times()
        return float(times.user + times.system)

    @property
    def rss(self) -> float:
        """Its resident memory in MiB."""
        return float(self.sidecar.memory_info().rss / 2**20)

    def note(self, *parts: str) -> str:
        """These, and what is special about the place."""
        return "; ".join(filter(None, (*parts, self.at.note)))


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """An app that serves and is listed, and its sidecar, which has seen it."""
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(place())
        module = (sys.executable, "-m")
        listen = ("--listen", f"{at.nacos}:{NACOS_PORT}")
        double = await stack.enter_async_context(
            process(*at.outside, *module, "sidecar.demo.double", *listen, "--dialect", "2.2", stdout=PIPE)
        )
        assert double.stdout is not None  # noqa: S101  asked for
        url = (await double.stdout.readline()).decode().strip()
        app = ("--listen", f"{at.pod}:{APP_PORT}", "--nacos", url, "--service", "shop", "--double")
        await stack.enter_async_context(process(*at.inside, *module, "sidecar.demo.provider", *app))
        env = settings(f"{at.nacos}:{NACOS_PORT}", at.pod, APP_PORT)
        sidecar = await stack.enter_async_context(process(*at.inside, *SERVE, env=env))
        playing = Scene(at, psutil.Process(sidecar.pid))
        await until(playing.ready, period=0.1)
        yield playing


@asynccontextmanager
async def kept(playing: Scene, connections: int) -> AsyncIterator[None]:
    """So many connections, on which little goes on."""
    async with process(*playing.callers, "keep", str(connections), stdout=PIPE) as callers:
        assert callers.stdout is not None  # noqa: S101  asked for
        await callers.stdout.readline()
        await asyncio.sleep(3.0)
        yield


# -- CPU -----------------------------------------------------------------------------------------------------------


async def hundred(_: int) -> list[Row]:
    """What is allowed at 100 connections."""
    return [await idle_cpu(100, "<= 0.2 %")]


async def thousand(_: int) -> list[Row]:
    """What is allowed at 1,000 connections."""
    return [await idle_cpu(1000, "<= 0.8 %")]


async def idle_cpu(connections: int, bar: str) -> Row:
    """The whole sidecar beside `ss -tin` once a second: the same look by the usual tool, and nothing made of it.

    What the sidecar takes without a connection stands in the note, as the share of watching is the difference.
    """
    rival = None
    async with scene() as playing:
        await asyncio.sleep(3.0)  # what a start leaves to do
        before = playing.cpu()
        await asyncio.sleep(MEASURED)
        without = playing.cpu() - before
        async with kept(playing, connections):
            before = playing.cpu()
            if shutil.which("ss"):
                rival = 100 * await asyncio.to_thread(ss, playing.at) / MEASURED
            else:
                await asyncio.sleep(MEASURED)
            ours = playing.cpu() - before
            watched = await playing.watched()
    return Row(
        f"idle CPU, {connections:,} connections",
        "% of a core",
        100 * ours / MEASURED,
        rival,
        "ss -tin once a second",
        bar,
        playing.note(f"without a connection {100 * without / MEASURED:.2f} %", watched, f"over {MEASURED:g} s"),
    )


def ss(at: Place) -> float:
    """Run it once a second for as long as we measure; the CPU seconds of its processes alone."""
    spent = 0.0
    nothing = os.open(os.devnull, os.O_WRONLY)
    argv = [*at.inside, "ss", "-tin"]
    began = os.times().elapsed
    for turn in range(round(MEASURED)):
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nothing, 1)])
        _, status, used = os.wait4(pid, 0)
        if status:
            raise RuntimeError(f"ss -tin: wait status {status}")
        spent += used.ru_utime + used.ru_stime
        time.sleep(max(0.0, began + turn + 1 - os.times().elapsed))
    os.close(nothing)
    return spent


# -- one look ------------------------------------------------------------------------------------------------------


CONNECTIONS = 2000


async def sample(_: int) -> list[Row]:
    """One sample at 2,000 connections, from the question to the kernel to what is remembered of the callers."""
    async with scene() as playing, kept(playing, CONNECTIONS):
        look = (*playing.at.inside, sys.executable, "-m", "bench.look", str(APP_PORT))
        told = json.loads(await asyncio.to_thread(subprocess.check_output, look))
    ours, rival = told["ours"], told["rival"]
    cpu = f"{statistics.median(told['cpu']):.1f} ms of CPU, worst {max(ours):.1f} ms of {len(ours)}"
    return [
        Row(
            f"a sample, {CONNECTIONS:,} connections",
            "ms",
            statistics.median(ours),
            statistics.median(rival),
            'psutil.net_connections("tcp")',
            "< 20 ms",
            playing.note(cpu, f"{told['connections']:,} connections by {told['source']}"),
        )
    ]


# -- many callers --------------------------------------------------------------------------------------------------


async def peers(_: int) -> list[Row]:
    """10,000 callers with a connection per request, which is all that is remembered; and then 10,000 others."""
    async with scene() as playing:
        await asyncio.sleep(3.0)
        empty = playing.rss
        rss, cpu, calling, told = [], [], [], []
        for first in (0, MANY):
            before, began = playing.cpu(), asyncio.get_running_loop().time()
            async with process(*playing.callers, "--first", str(first), "once", str(MANY)) as callers:
                async with asyncio.timeout(CALLING):
                    if await callers.wait():
                        raise RuntimeError("the callers failed")
            seconds = asyncio.get_running_loop().time() - began
            calling.append(100 * (playing.cpu() - before) / seconds)
            await asyncio.sleep(3.0)
            before = playing.cpu()
            await asyncio.sleep(MEASURED)
            cpu.append(1000 * (playing.cpu() - before) / MEASURED)
            rss.append(playing.rss)
            told.append(await playing.watched())
    what, rival_is = f"{MANY:,} callers with short connections", f"{2 * MANY:,} callers"
    memory = playing.note(f"{empty:.1f} MiB without", "; then ".join(told))
    busy = playing.note(f"{calling[0]:.1f} % of a core while they called")
    return [
        Row(f"{what}: RSS", "MiB", rss[0], rss[1], rival_is, "bounded: no more than the rival", memory),
        Row(f"{what}: CPU a sample", "ms", cpu[0], cpu[1], rival_is, "bounded: no more than the rival", busy),
    ]
