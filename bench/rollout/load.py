"""Constant load on the gateways, and what became of each request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp


SLOW_EVERY, SLOW_MILLIS = 5, 300  # 20 % of the requests; odd, so that round robin brings slow ones to both replicas
TIMEOUT = 10.0  # seconds; nothing here takes one, so who waits for so long has met a hung machine


@dataclass(frozen=True)
class Consumer:
    """A gateway: how it comes to its list of instances, and where it is."""

    name: str
    ip: str
    options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where it takes requests."""
        return f"http://{self.ip}:8000"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, in loop time."""

    consumer: str
    due: float
    sent: float
    done: float
    instance: str  # whom the gateway chose, as ip:port; empty when it did not say
    slow: bool
    failure: str  # empty for a success


class Load:
    """Requests at a constant rate to each of some consumers, whether or not earlier ones were answered."""

    def __init__(self, session: aiohttp.ClientSession, path: str) -> None:
        self.requests: list[Request] = []
        self._session = session
        self._path = path
        self._flying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def on(self, consumers: Sequence[Consumer], rate: float) -> AsyncIterator[None]:
        """Send until the end of the block, and wait for the last answers."""
        senders = [
            asyncio.create_task(self._send(each, rate, nth / rate / len(consumers)), name=f"load on {each.name}")
            for nth, each in enumerate(consumers)
        ]
        try:
            yield
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, *self._flying, return_exceptions=True)
        for sender in senders:
            if not sender.cancelled() and (error := sender.exception()) is not None:
                raise error

    def between(self, begin: float, end: float) -> list[Request]:
        """The requests that were sent in this time, and have ended."""
        return [request for request in self.requests if begin <= request.sent < end]

    async def landed(self) -> None:
        """Wait for what is under way now."""
        if self._flying:
            await asyncio.wait(tuple(self._flying))

    async def _send(self, consumer: Consumer, rate: float, delay: float) -> None:
        loop = asyncio.get_running_loop()
        due, nth = loop.time() + delay, 0
        while True:
            await asyncio.sleep(due - loop.time())
            task = asyncio.create_task(self._order(consumer, due, slow=nth % SLOW_EVERY == 0))
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
            due, nth = due + 1 / rate, nth + 1

    async def _order(self, consumer: Consumer, due: float, *, slow: bool) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        instance, failure = "", ""
        query = {"millis": str(SLOW_MILLIS if slow else 0)}
        try:
            async with self._session.post(consumer.url + self._path, params=query) as answer:
                instance = answer.headers.get("X-Instance", "")
                await answer.read()
                if answer.status != HTTPStatus.OK:
                    failure = f"status {answer.status}"
        except TimeoutError:
            failure = "no answer in time"
        except aiohttp.ClientError as error:
            failure = type(error).__name__
        self.requests.append(Request(consumer.name, due, sent, loop.time(), instance, slow, failure))


def session() -> aiohttp.ClientSession:
    """What the load is sent through: as many connections as it takes, so that no request waits for another."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=TIMEOUT), trust_env=False
    )


async def warm(consumer: Consumer, http: aiohttp.ClientSession, path: str, within: float) -> None:
    """Wait until a gateway gets an order through."""
    async with asyncio.timeout(within):
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.post(consumer.url + path) as answer:
                    if answer.status == HTTPStatus.OK:
                        return
            await asyncio.sleep(0.2)
