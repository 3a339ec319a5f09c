"""`nacos-drain demo`: one provider, rolled in three ways under load, and what each way cost its callers."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import aiohttp

from sidecar.demo.deployment import REPLICAS, Deployment, Trouble
from sidecar.demo.kubelet import DRAIN, SIGTERM, SLEEP, WAYS, Scale
from sidecar.demo.network import Network, NoRoom, find
from sidecar.demo.programs import Died, Programs
from sidecar.demo.registration import PASSWORD, USERNAME, Nacos, NacosError
from sidecar.demo.show import Result, Screen, as_line, screen
from sidecar.report import Ending, Phase
from sidecar.settings.declaration import PREFIX
from sidecar.settings.values import SERVERS
from sidecar.traffic import BLIND, NETLINK, PROCFS


OK, FINDINGS, USAGE = 0, 1, 2
Report = dict[str, Any]


async def run(
    *,
    nacos: str | None = None,
    ways: Sequence[str] = tuple(WAYS),
    as_json: bool = False,
    scale: Scale | None = None,
) -> int:
    """Roll, show, and judge.

    0: nacos-drain lost nothing, proved it and did not wait longer than its callers called, if it can see them here; and
    SIGTERM alone lost something, without which the rest shows nothing.
    1: one of that is not so, or a process failed. 2: the demo was asked for what it cannot do. A signal: 128 and its
    number. A real server's user is taken from the environment.
    """
    if not ways or not set(ways) <= set(WAYS) or len(set(ways)) < len(ways):
        return _refuse(f"--ways {','.join(ways)}: valid are {', '.join(WAYS)}, each once, with commas")
    try:
        url = _server(nacos) if nacos else None
    except ValueError as error:
        return _refuse(f"--nacos: {error}. Valid: {SERVERS.valid}")
    running: list[Programs] = []
    with _interruptible(running) as came:
        try:
            return await _run(url, ways, scale or Scale(), running, as_json=as_json)
        except asyncio.CancelledError:
            if not came:
                raise
    return 128 + came[0]


async def _run(url: str | None, ways: Sequence[str], scale: Scale, running: list[Programs], *, as_json: bool) -> int:
    results: list[Result] = []
    complaints: list[str] = []
    try:
        with screen(as_json=as_json) as shown:
            results, reports = await play(ways, scale, shown, url=url, running=running)
            shown.conclude(results, remarks(scale, reports))
            complaints = verdict(results, reports)
    except* (Died, Trouble, NoRoom, NacosError) as troubles:
        complaints = list(map(str, _leaves(troubles)))
    for complaint in complaints:
        sys.stderr.write(f"{complaint}\n")
    if as_json and results:
        sys.stdout.write(f"{as_line(results, scale.look_back)}\n")
        sys.stdout.flush()
    return FINDINGS if complaints else OK


async def play(
    ways: Sequence[str], scale: Scale, shown: Screen, *, url: str | None = None, running: list[Programs] | None = None
) -> tuple[list[Result], list[Report]]:
    """Roll in each of these ways; the results, and what the sidecars reported.

    Raises a group of Died, Trouble, NoRoom and NacosError. `running` is told the processes once there are any.
    """
    async with _stage(url, scale, shown, len(ways), [] if running is None else running) as deployment:
        return await deployment.roll_all(ways), deployment.kubelet.reports


def verdict(results: Sequence[Result], reports: Sequence[Report]) -> list[str]:
    """What is wrong with this run, as a demonstration."""
    complaints = [f"{result.way}: the consumers sent nothing" for result in results if not result.requests]
    for result in results:
        if result.way == DRAIN and result.failed:
            complaints.append(f"nacos-drain: {result.failed} requests failed, and none should have")
        if result.way == SIGTERM and not result.failed:
            complaints.append("sigterm: no request failed, so this run shows nothing; try it again")
    for report in reports:
        complaints += _faults(report)
    seconds = {result.way: result.seconds for result in results}
    watched = all(report.get("traffic_source") == NETLINK for report in reports)
    if watched and {SLEEP, DRAIN} <= seconds.keys() and seconds[DRAIN] >= seconds[SLEEP]:
        complaints.append(f"nacos-drain: {seconds[DRAIN]:.1f} s, and the sleep {seconds[SLEEP]:.1f} s: no gain")
    return complaints


def _faults(report: Report) -> Iterator[str]:
    """What is wrong with a drain. One that cannot see its callers' requests may wait for the cap."""
    watched = report.get("traffic_source") == NETLINK
    good = {"drained"} if watched else {"drained", "capped"}
    if report.get("outcome") not in good or not report.get("proved_gone"):
        notes = "; ".join(map(str, report.get("notes", ())))
        yield f"nacos-drain: a drain ended as {report.get('outcome')}. {notes}".rstrip()
    for phase in report.get("phases", ()):
        if watched and phase["phase"] == Phase.SETTLE and phase["outcome"] != Ending.MET:
            said = f"SETTLE {phase['outcome']}: {phase['detail']}"
            yield f"nacos-drain: {said}. So this run shows nothing; try it again on a quiet machine"


def remarks(scale: Scale, reports: Sequence[Report]) -> list[str]:
    """What the table needs in order not to mislead."""
    told = [str(scale), "seconds: from the beginning of a replica's termination to its exit, the slower one's"]
    sources = {report.get("traffic_source") for report in reports}
    if reports:
        told.append(scale.watching)
    if BLIND in sources:
        told.append(
            f"nacos-drain could not watch its callers (traffic source: blind), so it waited for {scale.sleep:g} s: the "
            "longest cache, and 5 s more"
        )
    elif PROCFS in sources:
        told.append(
            "nacos-drain saw connections and no requests (traffic source: procfs): a kept one is a caller to it"
        )
    return told


def _server(text: str) -> str:
    """The first address, as the settings understand it."""
    servers = SERVERS.parse(text)
    assert isinstance(servers, tuple)  # noqa: S101  as its kind says
    return str(servers[0])


def _refuse(problem: str) -> int:
    sys.stderr.write(f"{problem}\n")
    return USAGE


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


@contextmanager
def _interruptible(running: list[Programs]) -> Iterator[list[int]]:
    """Let a signal end the demo in good order, and a second one at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine runs in a task
    came: list[int] = []

    def interrupt(number: int) -> None:
        if came:
            for programs in running:
                programs.kill()
        else:
            task.cancel()
        came.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield came
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _stage(
    url: str | None, scale: Scale, shown: Screen, ways: int, running: list[Programs]
) -> AsyncIterator[Deployment]:
    """Everything that has to be there before the curtain, and goes after it."""
    network = find(REPLICAS * (ways + 1))
    # A sidecar of the demo must not read settings that were meant for another one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    user = dict.fromkeys((USERNAME, PASSWORD), "nacos")  # the double's
    if url is not None:
        user = {name: os.environ[name] for name in (USERNAME, PASSWORD) if os.environ.get(name)}
    environment.update(user)
    own = aiohttp.TCPConnector(local_addr=(network.kubelet, 0), force_close=True)
    async with (
        asyncio.TaskGroup() as group,
        Programs(group, environment) as programs,
        aiohttp.ClientSession(connector=own, timeout=aiohttp.ClientTimeout(total=None)) as session,
    ):
        running.append(programs)
        server = url or await _double(programs, network)
        nacos = Nacos(session, server, f"nacos-drain-demo-{uuid4().hex[:8]}", environment)
        await nacos.login()
        await nacos.addresses()  # there are none yet; but whether this server answers at all is better known now
        deployment = Deployment(programs, network, nacos, scale, shown, double=url is None)
        drawing = group.create_task(deployment.draw(), name="board")
        yield deployment
        drawing.cancel()


async def _double(programs: Programs, network: Network) -> str:
    """Start it apart from us, so that no load of ours is in its timings."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def listening(line: str) -> None:
        if not url.done():
            url.set_result(line)

    await programs.start(
        "Nacos double", "sidecar.demo.double", "--listen", network.registry, "--dialect", "3.1", on_line=listening
    )
    return await url
