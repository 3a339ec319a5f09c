"""The demo's consumers: gateways under constant load, each with a list that it trusts for too long.

Spring Cloud LoadBalancer reads a service's instances once and uses them for 35 s, whatever Nacos says meanwhile; no
push reaches that cache (rollout-baseline.md section 2). So a failed request here is a call of an instance that Nacos
had already dropped. Nothing is retried: a gateway does not retry either unless it is told to.

    python -m sidecar.demo.consumer --nacos URL --service NAME --bind 127.0.0.101,127.0.0.102 [--cache 6] [--rate 40]
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from sidecar.demo.registration import Nacos, NacosError


SLOW_EVERY = 5  # 20 % of the requests; odd, so that round robin over two replicas brings slow ones to both
SLOW_SECONDS = 0.3
TIMEOUT = 5.0
TELL_PERIOD = 0.1

Read = Callable[[], Awaitable[tuple[str, ...]]]


class CachedList:
    """The addresses of a service, read when the former reading is `seconds` old, and used until then."""

    def __init__(self, read: Read, seconds: float, *, first: float | None = None) -> None:
        self._read = read
        self._seconds = seconds
        self._life = seconds if first is None else first
        self._expires = float("-inf")
        self._reading = asyncio.Lock()
        self.held: tuple[str, ...] = ()

    async def get(self) -> tuple[str, ...]:
        """What this consumer believes at the moment."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            if loop.time() >= self._expires:
                # Spring's cache does not keep an empty list either; one that cannot be read leaves the old one in use.
                with contextlib.suppress(NacosError):
                    self.held = await self._read()
                    if self.held:
                        self._expires = loop.time() + self._life
                        self._life = self._seconds
        return self.held


@dataclass
class Tally:
    """What came of the requests of all consumers."""

    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    calling: Counter[str] = field(default_factory=Counter)


class Consumer:
    """One gateway: its list, its connections, its turn."""

    def __init__(self, cached: CachedList, session: aiohttp.ClientSession, tally: Tally) -> None:
        self.cached = cached
        self._session = session
        self._tally = tally
        self._turn = 0

    async def call(self) -> None:
        """Send one request to the next instance, and count what became of it."""
        known = await self.cached.get()
        turn, self._turn = self._turn, self._turn + 1
        if not known:
            self._count("no instance known")
            return
        address = known[turn % len(known)]
        self._tally.calling[address] += 1
        try:
            self._count(await self._order(address, SLOW_SECONDS if turn % SLOW_EVERY == 0 else 0.0))
        finally:
            self._tally.calling[address] -= 1

    def _count(self, failure: str | None) -> None:
        self._tally.requests += 1
        if failure is not None:
            self._tally.failed[failure] += 1

    async def _order(self, address: str, seconds: float) -> str | None:
        """Say how it failed; None when it did not."""
        try:
            # A POST, because the client would repeat a GET by itself when a kept connection turns out to be cut.
            async with self._session.post(f"http://{address}/orders", params={"seconds": str(seconds)}) as response:
                await response.read()
                return None if response.status == HTTPStatus.OK else f"status {response.status}"
        except aiohttp.ClientConnectorError:
            return "connection refused"
        except TimeoutError:
            return "no answer in time"
        except aiohttp.ClientError:
            return "cut off before the answer"


async def consume(options: argparse.Namespace) -> None:
    """Send at a constant rate until SIGTERM, and tell the counts as JSON lines."""
    stop, tally = asyncio.Event(), Tally()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        nacos = Nacos(session, options.nacos, options.service)
        await nacos.login()
        consumers = []
        sources = options.bind.split(",")
        for nth, source in enumerate(sources, 1):
            connector = aiohttp.TCPConnector(local_addr=(source, 0), limit=0)
            own = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
            # Of consumers that started at different times some have an old list at any moment. So have these.
            cached = CachedList(nacos.addresses, options.cache, first=options.cache * nth / len(sources))
            consumers.append(Consumer(cached, await stack.enter_async_context(own), tally))
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(consumers, tally))
            await _load(consumers, options.rate, group, stop)
            telling.cancel()
        _say(consumers, tally)


async def _load(consumers: list[Consumer], rate: float, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
    """Start requests on time, whether or not earlier ones were answered: callers do not wait for one another."""
    loop = asyncio.get_running_loop()
    due, nth = loop.time(), 0
    while not stop.is_set():
        group.create_task(consumers[nth % len(consumers)].call())
        due, nth = due + 1 / rate, nth + 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await stop.wait()


async def _tell(consumers: list[Consumer], tally: Tally) -> None:
    while True:
        _say(consumers, tally)
        await asyncio.sleep(TELL_PERIOD)


def _say(consumers: list[Consumer], tally: Tally) -> None:
    """One line; `used` is every address that somebody still believes in or waits for."""
    used = {address for consumer in consumers for address in consumer.cached.held}
    told = {
        "requests": tally.requests,
        "failed": dict(tally.failed),
        "used": sorted(used | set(+tally.calling)),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the options and consume."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.consumer")
    parser.add_argument("--nacos", required=True, metavar="URL")
    parser.add_argument("--service", required=True)
    parser.add_argument("--bind", required=True, metavar="IP,…", help="one consumer for each of these addresses")
    parser.add_argument("--cache", type=float, default=6.0, help="seconds for which a list is used")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second, of all consumers together")
    asyncio.run(consume(parser.parse_args()))


if __name__ == "__main__":
    main()
