"""Run one node of the double by hand: `python -m sidecar.demo.double --listen 127.0.0.1:8848`."""

import argparse
import asyncio
import signal
import sys

from sidecar.demo.double.access import Access
from sidecar.demo.double.server import Double


def main() -> None:
    """Read the options, print the url on one line, and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.double", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port, port 0 for a free one")
    parser.add_argument("--dialect", default="3.1", choices=["1.4", "2.2", "3.1"])
    parser.add_argument("--context-path", default="/nacos")
    parser.add_argument("--push-delay", type=float, default=0.5, help="seconds a list is late")
    parser.add_argument("--expiry", type=float, default=60.0, help="life of a record, seconds")
    parser.add_argument("--token-ttl", type=float, default=18000.0)
    parser.add_argument("--auth", choices=["none", "admin", "all"], help="default: 3.1 admin")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    host, _, port = options.listen.rpartition(":")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    double = Double(
        options.dialect,
        host=host.strip("[]"),
        port=int(port),
        context_path=options.context_path,
        access=Access(ttl=options.token_ttl),
        push_delay=options.push_delay,
        expiry=options.expiry,
        auth=options.auth,
    )
    async with double:
        sys.stdout.write(f"{double.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
