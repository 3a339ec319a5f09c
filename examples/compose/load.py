"""Orders at a constant rate, and what became of them. An answer that is no 200, or none, is a failure.

The image of nacos-drain has the Python and the aiohttp for it:
/opt/nacos-drain/bin/python3 -IBS load.py URL
"""  # noqa: INP001  a script that is mounted into a container

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from http import HTTPStatus

import aiohttp


RATE = float(os.environ.get("RATE", "20"))  # requests a second
SAY_EVERY = float(os.environ.get("SAY_EVERY", "5"))
SLOW_EVERY, SLOW_MILLIS = 5, 300  # every fifth order takes its time
TIMEOUT = aiohttp.ClientTimeout(total=10)


def say(text: str) -> None:
    """A line in the container's log, at once."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


class Load:
    """What was sent, and what failed and why."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.requests = 0
        self.failures: Counter[str] = Counter()

    async def order(self, millis: int) -> str:
        """One order; why it failed, or nothing."""
        try:
            # A POST: nobody on the way repeats one in silence.
            async with self._session.post(self._url, params={"millis": millis}) as answer:
                await answer.read()
                if answer.status == HTTPStatus.OK:
                    return ""
                return f"{answer.status} from {answer.headers.get('X-Instance', 'the gateway')}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__

    async def count(self, millis: int) -> None:
        """One order, counted when it has ended."""
        failure = await self.order(millis)
        self.requests += 1
        if failure:
            self.failures[failure] += 1

    async def send(self) -> None:
        """Orders at the rate, whether or not earlier ones were answered."""
        loop = asyncio.get_running_loop()
        due, nth = loop.time(), 0
        async with asyncio.TaskGroup() as orders:
            while True:
                orders.create_task(self.count(SLOW_MILLIS if nth % SLOW_EVERY == 0 else 0))
                due, nth = due + 1 / RATE, nth + 1
                await asyncio.sleep(due - loop.time())

    async def tell(self) -> None:
        """Say how it goes, again and again."""
        requests, failures = 0, Counter[str]()
        while True:
            await asyncio.sleep(SAY_EVERY)
            new = self.failures - failures
            why = "".join(f"; {failure}: {times}" for failure, times in new.items())
            say(
                f"{self.requests - requests} requests, {new.total()} failed; "
                f"in all {self.requests} requests, {self.failures.total()} failed{why}"
            )
            requests, failures = self.requests, self.failures.copy()


async def main(url: str) -> None:
    """Wait for the first order that gets through, and count from then on."""
    ours = asyncio.current_task()
    assert ours is not None  # noqa: S101  this is one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)  # PID 1 would not hear it else
    async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:
        load = Load(session, url)
        while failure := await load.order(0):
            say(f"not yet: {failure}")
            await asyncio.sleep(1)
        say(f"{RATE:g} requests/s to {url}")
        async with asyncio.TaskGroup() as group:
            group.create_task(load.send())
            group.create_task(load.tell())


try:
    asyncio.run(main(sys.argv[1]))
except (KeyboardInterrupt, asyncio.CancelledError):
    say("stopped")
