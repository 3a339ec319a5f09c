"""A sidecar's look at its app, from where that app cannot be seen: as another user, or in another PID namespace.

python observer.py PORT [--uid UID] [--match PATTERN] [--signal]
"""

import argparse
import asyncio
import concurrent.futures.thread  # noqa: F401  asyncio loads it later, when we may not read its file any more
import json
import os
import sys

from sidecar.adapters.process import PodProcess
from sidecar.ports import Rejected


async def observe(port: int, match: str | None, *, signal: bool) -> dict[str, object]:
    """Look, and signal if told to."""
    observer = PodProcess(match=match)
    seen = await observer.look(frozenset({port}))
    told: dict[str, object] = {"port": seen.port.value, "age": seen.age}
    if seen.life is not None:
        told |= {"pid": seen.life.pid, "sockets": len(seen.life.sockets)}
    if signal:
        try:
            await observer.signal(seen.life, kill=False)
        except Rejected as error:
            told["rejected"] = str(error)
    return told


def main() -> None:
    """Give up what must not be had, observe, and say what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--match")
    parser.add_argument("--signal", action="store_true")
    options = parser.parse_args()
    if options.uid is not None:
        os.setgroups([])
        os.setresgid(options.uid, options.uid, options.uid)
        os.setresuid(options.uid, options.uid, options.uid)
    told = asyncio.run(observe(options.port, options.match, signal=options.signal))
    sys.stdout.write(f"observed {json.dumps(told)}\n")
    sys.stdout.flush()


main()
