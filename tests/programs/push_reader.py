"""A sidecar's push watch in a process of its own: `.venv-real` has the gRPC packages, pytest's environment has not.

The first line on stdin are the watch's arguments, then come commands, all as JSON; so are the answers on stdout.
Nothing else may appear there, nor on stderr, where everything goes that anybody logs.
"""

import asyncio
import json
import logging
import sys
import threading
from typing import Any

from sidecar.adapters.nacos_push import PushWatch
from sidecar.ports import Unavailable
from sidecar.registration import Record, Service


def told(record: Record) -> dict[str, Any]:
    """One record as JSON."""
    app = record.instance
    return {
        "address": app.address,
        "service": str(app.service),
        "enabled": record.enabled,
        "healthy": record.healthy,
        "ephemeral": record.ephemeral,
        "weight": record.weight,
        "mark": record.mark,
    }


async def obey(watch: PushWatch, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command."""
    if command["op"] == "close":
        await watch.close()
        await watch.close()  # twice is once
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # gRPC learns in its own thread that a call was cancelled
            await asyncio.wait(others, timeout=1.0)
        return {
            "tasks": [str(task) for task in others if not task.done()],
            "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
        }
    service = Service(**command["service"])
    if command["op"] == "subscribe":
        watch.subscribe(service)
        return {}
    try:
        return {"records": [told(record) for record in await watch.read(service, command["addresses"])]}
    except Unavailable as problem:
        return {"unavailable": str(problem)}


async def main() -> None:
    """Obey until stdin ends."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    arguments = json.loads(await stdin.readline())
    for name in ("credentials", "keys"):
        if pair := arguments.pop(name, None):
            arguments[name] = lambda pair=pair: tuple(pair)
    watch = PushWatch(**arguments)
    while line := await stdin.readline():
        sys.stdout.write(json.dumps(await obey(watch, json.loads(line))) + "\n")
        sys.stdout.flush()


asyncio.run(main())
