"""Consumers that follow Nacos' pushes, a little behind them, and open a connection for each request."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rig.clients import Subscriber


LATE = 1.0  # seconds that a consumer uses a list for when there is a newer one
PATIENCE = 5.0  # seconds until an answer has to be there


@dataclass(frozen=True)
class Consumer:
    """One caller: its address, the seconds from one request to the next, and what a request takes."""

    address: str
    every: float
    takes: float = 0.0


@dataclass
class Load:
    """What they asked for and got."""

    subscriber: Subscriber
    answers: Counter[str] = field(default_factory=Counter)  # by the address that answered
    failures: list[str] = field(default_factory=list)
    over: bool = False

    @property
    def requests(self) -> int:
        """All of them, whatever became of them."""
        return self.answers.total() + len(self.failures)

    @property
    def addresses(self) -> list[str]:
        """Whom they would call now."""
        return self.subscriber.addresses(LATE)

    async def until(self, address: str, answers: int, within: float = 40.0) -> None:
        """Wait until this one has answered so many more times."""
        wanted = self.answers[address] + answers
        try:
            async with asyncio.timeout(within):
                while self.answers[address] < wanted:  # noqa: ASYNC110  another task counts
                    await asyncio.sleep(0.05)
        except TimeoutError:
            missing = wanted - self.answers[address]
            raise AssertionError(f"{missing} answers of {address} missing: {self.failures[:3]}") from None

    async def run(self, consumer: Consumer) -> None:
        """Call until it is over, and have each call end."""
        async with asyncio.TaskGroup() as calls:
            while not self.over:
                await asyncio.sleep(consumer.every)
                if addresses := self.addresses:
                    calls.create_task(self._call(consumer, random.choice(addresses)))

    async def _call(self, consumer: Consumer, address: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await ask(consumer, address)
        except (OSError, EOFError, TimeoutError) as error:
            self.failures.append(f"{address}: {error!r}")
            return
        if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nin stock\n"):
            self.answers[address] += 1
        else:
            self.failures.append(f"{address}: {answer!r}")


async def ask(consumer: Consumer, address: str) -> bytes:
    """One request over a connection of its own. A slow one is sent in two parts: the app has only fast answers."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(consumer.address, 0))
    try:
        writer.write(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(consumer.takes)
        writer.write(f"Host: {address}\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()


@asynccontextmanager
async def calling(load: Load, *consumers: Consumer) -> AsyncIterator[None]:
    """Let them call until the end of the context."""
    tasks = [asyncio.create_task(load.run(consumer)) for consumer in consumers]
    try:
        yield
    finally:
        load.over = True
        await asyncio.gather(*tasks)
