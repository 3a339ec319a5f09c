"""Where the app's actuator is, and what the app says of itself there: by our starter, or else by `nacosdiscovery`.

The starter is asked first, as its answer holds no password. It is asked at a path that nobody else's endpoint has, and
an app without it costs one request more. That question must never stand in the way of the one that has always worked:
`nacosdiscovery` is asked beside it as soon as it takes its time.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.http import Answer
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Identity

from .asking import Asking
from .discovery import Discovery, discovery, registration
from .refusals import CLOSED, NO_ACTUATOR, Call, Endpoint, accept


STARTER = 0.5  # seconds that our starter is waited for alone
SEARCH = 2.0  # a port that speaks another protocol may say nothing at all


@dataclass(frozen=True, slots=True)
class Heard:
    """What was answered at one base: by our starter if it is there, and by `nacosdiscovery` if that was asked."""

    starter: Identity | None
    answer: Answer | None


class Finding:
    """The app's word for itself, and where it was had; `url` is the base of the endpoints, None: to be looked for.

    `borrows`: the app's own login at Nacos is wanted, which only `nacosdiscovery` shows.
    """

    def __init__(self, asking: Asking, url: str | None, *, borrows: bool) -> None:
        self.configured = url.rstrip("/") if url else None
        self.credentials: tuple[str, str] | None = None
        self.starter: str | None = None  # the base at which our starter has answered
        self._found: str | None = None
        self._last: str | None = None  # where it was found before: a management port opens later than the app's
        self._asking = asking
        self._borrows = borrows

    @property
    def known(self) -> str | None:
        """The base, if there is one."""
        return self.configured or self._found

    @property
    def base(self) -> str:
        """The base. Raises Rejected where none is known."""
        if self.known is None:
            raise Rejected(NO_ACTUATOR)
        return self.known

    def call(self, endpoint: Endpoint, method: str, base: str, *, name: str = "") -> Call:
        """A call below a base. A login goes to a configured one alone: for another nobody has vouched."""
        known = self._asking.login is not None and self.configured is not None
        return Call(endpoint, method, f"{base}/{name or endpoint}", known)

    async def identity(self, ports: frozenset[int]) -> Identity | None:
        """How the app is registered; None where neither endpoint is exposed, or, without a URL, was not found yet."""
        base = self.known
        if base is None:
            return await self._search(ports)
        try:
            heard = await self._hear(base)
        except Unavailable as error:
            if error.refused:
                self._found = self.starter = None  # the next life of the app may have it elsewhere, or not at all
            raise
        self.starter = None
        if heard.starter is None and heard.answer is not None and heard.answer.status == HTTPStatus.NOT_FOUND:
            return None
        return self._take(base, self._read(base, heard))

    # -- one base --------------------------------------------------------------------------------------------------

    async def _hear(self, base: str) -> Heard:
        """Ask our starter, and `nacosdiscovery` where that is not there, takes its time, or cannot tell all."""
        asking = asyncio.create_task(self._ask_starter(base))
        try:
            await asyncio.wait([asking], timeout=STARTER)
            answer = None
            if self._borrows or not asking.done() or asking.result() is None:
                answer = await self._asking.send(self._discovery(base))
                await asyncio.wait([asking], timeout=STARTER)  # a cold JVM answers both at the same time
            return Heard(asking.result() if asking.done() else None, answer)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask_starter(self, base: str) -> Identity | None:
        """What it tells; None for whatever is not its answer: the app may have an endpoint of its own, or none."""
        call = self.call(Endpoint.REGISTRATION, "GET", base)
        with contextlib.suppress(Unavailable):
            answer = await self._asking.send(call)
            if answer.status == HTTPStatus.OK:
                return registration(answer.body, f"the app's actuator, {call}")
        return None

    def _discovery(self, base: str) -> Call:
        return self.call(Endpoint.DISCOVERY, "GET", base)

    def _read(self, base: str, heard: Heard) -> Discovery:
        """Understand the answers. Raises Rejected and Unavailable; a login that is withheld is no reason to."""
        call, answer = self._discovery(base), heard.answer
        if heard.starter is None:
            assert answer is not None  # noqa: S101  where there is no starter, that was asked
            accept(answer.status, call)
            return _understood(call, answer)
        credentials = None
        if answer is not None:
            with contextlib.suppress(Rejected):
                accept(answer.status, call)
                credentials = _understood(call, answer).credentials
        return Discovery(heard.starter, credentials)

    def _take(self, base: str, told: Discovery) -> Identity:
        self.credentials = told.credentials
        self.starter = base if told.identity.starter else None
        return told.identity

    # -- looking for it --------------------------------------------------------------------------------------------

    async def _search(self, ports: frozenset[int]) -> Identity | None:
        """Ask each port once, and where it was the last time; keep the one that tells of a port that listens here.

        Behind a shared address (hostNetwork, a VM) there may be several apps: which is ours nobody can tell.
        """
        bases = dict.fromkeys(f"http://127.0.0.1:{port}/actuator" for port in sorted(ports))
        bases |= {self._last: None} if self._last is not None else {}
        told = dict(zip(bases, await asyncio.gather(*map(self._knock, bases)), strict=True))
        found: dict[str, Discovery] = {}
        for base, heard in told.items():
            with contextlib.suppress(Rejected, Unavailable):  # an app's own page for whatever it does not know
                if heard is not None:
                    found[base] = self._read(base, heard)
        ours = {b: d for b, d in found.items() if d.identity.instance is None or d.identity.instance.port in ports}
        if len({each.identity.instance for each in ours.values()}) > 1:
            raise Rejected(f"several apps show their actuator here ({', '.join(ours)}): set NACOS_DRAIN_ACTUATOR_URL")
        for base, discovered in ours.items():
            self._found = self._last = base
            return self._take(base, discovered)
        for base, heard in told.items():
            if heard is not None and heard.answer is not None and heard.answer.status in CLOSED:
                raise Rejected(
                    f"{self._discovery(base)} answers {heard.answer.status}: set NACOS_DRAIN_ACTUATOR_URL; "
                    "a login is sent to a configured actuator only"
                )
        return None

    async def _knock(self, base: str) -> Heard | None:
        try:
            async with asyncio.timeout(SEARCH):
                return await self._hear(base)
        except (Unavailable, TimeoutError):
            return None


def _understood(call: Call, answer: Answer) -> Discovery:
    try:
        return discovery(answer.body, f"the app's actuator, {call}")
    except Unavailable as error:
        raise Unavailable(f"{call} {error}: is it the actuator of a Spring Cloud Alibaba app?") from None
