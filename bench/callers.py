"""Callers with addresses of their own, for the sidecar to watch.

    python -m bench.callers HOST:PORT --from 10.98 keep 1000    kept connections, ten for each caller
    python -m bench.callers HOST:PORT --from 10.98 once 10000   callers, each with one connection per request

`keep` says `ready` when all are open, and goes on until it is killed: one in ten has a request a second, the others one
in thirty seconds. `once` makes three requests for each caller, a second apart or more, and exits.
"""

import argparse
import asyncio
import sys
from asyncio import StreamReader, StreamWriter


PER_CALLER, BUSY = 10, 10
RARE = 30.0  # seconds; servers drop what is idle for longer than 60
REQUESTS = 3  # make a rhythm
RATE = 400.0  # connections a second
KEPT, LAST = (
    f"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\nConnection: {how}\r\n\r\n".encode()
    for how in ("keep-alive", "close")
)


async def connect(options: argparse.Namespace, caller: int) -> tuple[StreamReader, StreamWriter]:
    """Come from the address of this caller."""
    host, _, port = options.to.rpartition(":")
    source = f"{options.source}.{caller // 250}.{caller % 250 + 1}"
    return await asyncio.open_connection(host, int(port), local_addr=(source, 0))


async def keep(options: argparse.Namespace) -> None:
    """Open all, then call over each at its own pace."""
    opened = []
    for n in range(options.number):
        reader, writer = await connect(options, n // PER_CALLER)
        await ask(reader, writer, KEPT)
        opened.append((reader, writer))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as group:
        for n, (reader, writer) in enumerate(opened):
            period = RARE if n % BUSY else 1.0
            group.create_task(calling(reader, writer, period, delay=period * n / options.number))


async def calling(reader: StreamReader, writer: StreamWriter, period: float, *, delay: float) -> None:
    """Ask again and again, not in step with the others."""
    await asyncio.sleep(delay)
    while True:
        await ask(reader, writer, KEPT)
        await asyncio.sleep(period)


async def once(options: argparse.Namespace) -> None:
    """Call from each address in turn, and so all over again."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    async with asyncio.TaskGroup() as group:
        for n in range(REQUESTS * options.number):
            group.create_task(single(options, options.first + n % options.number))
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))


async def single(options: argparse.Namespace, caller: int) -> None:
    """Make one request over a connection of its own."""
    reader, writer = await connect(options, caller)
    await ask(reader, writer, LAST)
    writer.close()
    await writer.wait_closed()


async def ask(reader: StreamReader, writer: StreamWriter, request: bytes) -> None:
    """One request, and the beginning of its answer, which is all there is of a short one."""
    writer.write(request)
    if not await reader.read(65536):
        raise ConnectionError("the app hung up")


def main() -> None:
    """Read the options and call."""
    parser = argparse.ArgumentParser(prog="python -m bench.callers")
    parser.add_argument("to", metavar="HOST:PORT")
    parser.add_argument("--from", dest="source", default="10.98", help="the first two numbers of their addresses")
    parser.add_argument("--first", type=int, default=0, help="the number of the first caller")
    parser.add_argument("how", choices=["keep", "once"])
    parser.add_argument("number", type=int)
    options = parser.parse_args()
    asyncio.run({"keep": keep, "once": once}[options.how](options))


if __name__ == "__main__":
    main()
