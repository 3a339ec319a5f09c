"""A small demo, and what its sidecars know of their callers meanwhile. It takes a network namespace of its own.

unshare --net python raise_lo.py python small_demo.py WAY...
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

import aiohttp
import psutil

from sidecar.demo.kubelet import Scale
from sidecar.demo.roll import play, verdict
from sidecar.demo.show import Silent, as_line


SCALE = Scale(cache=1.0, longest_cache=10.0, consumers=2, look_back=5.0, warm_up=6.0)


async def look(seen: dict[str, list[dict[str, Any]]]) -> None:
    """Ask the sidecars again and again. Found by their environment, as nobody tells where they listen."""
    async with aiohttp.ClientSession() as session:
        while True:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error, aiohttp.ClientError, KeyError):
                    listen = child.environ()["NACOS_DRAIN_LISTEN"]
                    async with session.get(f"http://{listen}/status") as response:
                        told = await response.json()
                        seen.setdefault(told["state"], []).append(told["traffic"])
            await asyncio.sleep(0.2)


async def main() -> None:
    """Play, and print the results as one line."""
    seen: dict[str, list[dict[str, Any]]] = {}
    looking = asyncio.create_task(look(seen))
    results, reports = await play(sys.argv[1:], SCALE, Silent(sys.stderr))
    looking.cancel()
    rhythms = {
        state: [dict(each) for each in {tuple(t["rhythms"].items()) for t in told}] for state, told in seen.items()
    }
    everything = [traffic for told in seen.values() for traffic in told]
    told = {
        **json.loads(as_line(results, SCALE.look_back)),
        "complaints": verdict(results, reports),
        "sources": sorted({traffic["source"] for traffic in everything}),
        "missed": sorted({traffic["missed"] for traffic in everything} - {None}),
        "rhythms": rhythms,
    }
    sys.stdout.write(json.dumps(told) + "\n")


asyncio.run(main())
