"""What one look at the traffic takes, from the kernel to the quiet rule, in turn with psutil's list of connections.

python -m bench.look PORT [--times 40]    prints JSON: milliseconds, and how many connections
"""

import argparse
import asyncio
import json
import sys
import time

import psutil

from sidecar.adapters.sockets import Sockets
from sidecar.settle import Settle
from sidecar.wire import Wire


async def main() -> None:
    """Look as a sidecar does, in the network that we are in."""
    parser = argparse.ArgumentParser(prog="python -m bench.look")
    parser.add_argument("port", type=int)
    parser.add_argument("--times", type=int, default=40)
    options = parser.parse_args()
    sockets = Sockets()
    await sockets.detect()
    wire, settle = Wire(), Settle(since=time.monotonic(), source=sockets.source)
    ours, cpu, rival, connections = [], [], [], 0
    for _ in range(options.times):
        await asyncio.sleep(0.25)
        began, used = time.perf_counter(), time.process_time()
        reading = await sockets.read()
        wire, seen = wire.take(reading, frozenset({options.port}))
        settle = settle.observe(seen.calls, reading.at, doubt=seen.doubt)
        ours.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - used))
        connections = len(reading.open)
        began = time.perf_counter()
        psutil.net_connections("tcp")
        rival.append(1000 * (time.perf_counter() - began))
    told = {"source": sockets.source, "connections": connections, "ours": ours, "cpu": cpu, "rival": rival}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
