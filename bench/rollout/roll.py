"""One replacement after another under one load, as a Deployment's: the new replica is up before an old one goes."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from kubelet import Timeline

from .cells import Cell
from .load import Load, Request
from .stage import REPLICAS, Replica, Stage
from .ways import Way


BEFORE = 0.5  # seconds before the termination from which on failures are its
FORGOTTEN = 3.0  # seconds without a request to the old replica, after which it has been forgotten
LONGEST = 60.0  # seconds for that: the longest cache lasts for 35
RELEASED = "drain.released"


@dataclass(frozen=True)
class Termination:
    """The end of a replica; moments are in loop time."""

    address: str
    began: float
    clean: float | None  # when its Nacos no longer listed it
    timeline: Timeline
    report: dict[str, Any] | None  # the sidecar's, when it let the app stop
    released: float | None  # seconds after the termination began


@dataclass(frozen=True)
class Roll:
    """What was seen of one replacement."""

    way: Way
    cell: Cell
    old: Termination
    requests: list[Request]  # since the load began, or since the former replacement was over
    ended: float
    load_average: float


async def rolls(stage: Stage, way: Way, cell: Cell) -> AsyncGenerator[Roll, None]:
    """Replace the oldest of the replicas, again and again, for as long as anybody asks for one more."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(stage.replica(way, cell)) for _ in range(REPLICAS)]
        listed = dict.fromkeys((replica.instance.address for replica in replicas), loop.time())
        await stage.warm(cell)
        load = stage.load()
        async with load.on(cell.consumers, cell.rate):
            before = loop.time()
            await asyncio.sleep(cell.warm_up)
            while True:
                replicas.append(await stack.enter_async_context(stage.replica(way, cell)))
                old = replicas.pop(0)
                listed[replicas[-1].instance.address] = loop.time()
                # the third one to go came up under way, and its sidecar has watched for less
                await asyncio.sleep(listed[old.instance.address] + cell.warm_up - loop.time())
                end = await _terminate(stage, cell, old, load)
                over = loop.time()
                await load.landed()
                yield Roll(way, cell, end, load.between(before, over), over, os.getloadavg()[0])
                before = over


async def _terminate(stage: Stage, cell: Cell, old: Replica, load: Load) -> Termination:
    loop = asyncio.get_running_loop()
    address, began = old.instance.address, loop.time()
    clean = asyncio.create_task(stage.observer.until(old.instance, listed=False, within=LONGEST * 3))
    stage.serving.remove(address)
    try:
        await old.pod.terminate()
        await _forgotten(load, address, max(FORGOTTEN, 2.0 * REPLICAS / cell.rate))
    finally:
        clean.cancel()
    await asyncio.wait([clean])
    told = _told(old.pod.timeline)
    return Termination(address, began, None if clean.cancelled() else clean.result(), old.pod.timeline, *told)


async def _forgotten(load: Load, address: str, quiet: float) -> None:
    """Wait until nobody has chosen an instance for a while."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + LONGEST
    last, seen = loop.time(), 0
    while loop.time() < min(last + quiet, limit):
        new, seen = load.requests[seen:], len(load.requests)
        last = max([last, *(request.sent for request in new if request.instance == address)])
        await asyncio.sleep(0.1)


def _told(timeline: Timeline) -> tuple[dict[str, Any] | None, float | None]:
    """What the sidecar's log says at the release; nothing where there is no sidecar."""
    for line in timeline.lines:
        if RELEASED in line.text:
            return json.loads(line.text[line.text.index("{") :]), line.seconds
    return None, None
