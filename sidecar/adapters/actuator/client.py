"""The Actuator: which request goes where, and what its answer means for the drain."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import urlsplit

from sidecar.http import Http
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Identity, Road

from .asking import Asking, Login
from .finding import Finding
from .refusals import CLOSED, Call, Endpoint, accept


OLD_REGISTRY = "service-registry"  # until Spring Cloud Hoxton
JSON = {"Content-Type": "application/json"}  # anything else gets a 415 (rollout-baseline.md section 3)
BACK = json.dumps({"status": "UP"})  # what our starter understands
STANDING = frozenset(  # there, but with another method, or as the health of an unhealthy app
    {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.SERVICE_UNAVAILABLE}
)


@dataclass(frozen=True, slots=True)
class Deregister:
    """The endpoint that users write themselves. What may hold a secret is asked for anew at each call."""

    url: str | None = None  # what begins with a slash is below the actuator's; None: `/nacos-deregister` there
    method: str = "POST"
    body: Callable[[], str] | None = None
    undo: Callable[[], str] | None = None  # the body that brings the app back, by the same URL and method
    headers: Callable[[], Mapping[str, str]] | None = None


BY_CUSTOM = Deregister()


class SpringActuator:
    """An Actuator over HTTP.

    `url` is the base of the endpoints, as in `http://127.0.0.1:9081/actuator`; without one it is looked for where the
    app listens. `login` is for basic auth; it goes to the actuator alone, not to a custom endpoint elsewhere.
    `borrows`: its credentials at Nacos are wanted. Deadlines are the caller's: an endpoint that hangs hangs.
    """

    def __init__(
        self,
        http: Http,
        url: str | None,
        *,
        login: Login | None = None,
        deregister: Deregister = BY_CUSTOM,
        borrows: bool = False,
    ) -> None:
        self._asking = Asking(http, login)
        self._finding = Finding(self._asking, url, borrows=borrows)
        self._deregister = deregister
        self._registry = (Endpoint.REGISTRY.value, OLD_REGISTRY)  # first the one that was there the last time

    @property
    def roads(self) -> tuple[Road, ...]:
        """The ways out that the app offers, the custom one first: only that can be a true removal in old versions.

        What is known of the way back from there grows when our starter has answered.
        """
        return (
            Road(Endpoint.DEREGISTER.value, undoable=self._way_back() is not None, inside=True),
            Road(Endpoint.REGISTRY.value, undoable=True, inside=True),
        )

    async def offline(self, road: str) -> None:
        """Ask the app to leave Nacos."""
        if road == Endpoint.DEREGISTER:
            await self._ask_custom(self._deregister.body)
        else:
            await self._set_status(road, "DOWN")

    async def online(self, road: str) -> None:
        """Ask the app to register again."""
        if road != Endpoint.DEREGISTER:
            await self._set_status(road, "UP")
        elif (undo := self._way_back()) is None:
            raise Rejected(f"{Endpoint.DEREGISTER} has no way back: set NACOS_DRAIN_DEREGISTER_UNDO")
        else:
            await self._ask_custom(undo)

    async def identity(self, ports: frozenset[int]) -> Identity | None:
        """How the app is registered; None where its endpoint is not exposed, or, without a URL, was not found yet."""
        told = await self._finding.identity(ports)
        return replace(told, roads=self.roads) if told is not None and told.starter else told

    def credentials(self) -> tuple[str, str] | None:
        """The user and password with which the app logs in at Nacos, by its own word."""
        return self._finding.credentials

    async def healthy(self) -> bool | None:
        """Whether its health endpoint is content; None where it has none for us. Raises Unavailable without answer."""
        base = self._finding.known
        if base is None:
            return None
        answer = await self._asking.send(self._finding.call(Endpoint.HEALTH, "GET", base))
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        return True if answer.status == HTTPStatus.OK else None

    async def shutdown(self) -> None:
        """Ask the app to stop."""
        call = self._finding.call(Endpoint.SHUTDOWN, "POST", self._finding.base)
        accept((await self._asking.send(call)).status, call)

    async def exposed(self) -> Mapping[str, str]:
        """What a harmless request to each endpoint says, for people.

        Those that act are asked by OPTIONS, which Spring answers by itself: a folk endpoint may act on a GET too.
        """
        base, call = self._finding.base, self._finding.call
        asked = {
            Endpoint.HEALTH: [call(Endpoint.HEALTH, "GET", base)],
            Endpoint.DISCOVERY: [call(Endpoint.DISCOVERY, "GET", base)],
            Endpoint.DEREGISTER: [self._custom("OPTIONS")],
            Endpoint.REGISTRY: [call(Endpoint.REGISTRY, "GET", base, name=name) for name in self._registry],
            Endpoint.SHUTDOWN: [call(Endpoint.SHUTDOWN, "OPTIONS", base)],
        }
        told = await asyncio.gather(*map(self._exposure, asked.values()))
        return {endpoint.value: words for endpoint, words in zip(asked, told, strict=True)}

    async def close(self) -> None:
        """Close every connection."""
        await self._asking.close()

    async def _exposure(self, calls: Iterable[Call]) -> str:
        """What is said under the first name that is known there."""
        for call in calls:
            try:
                answer = await self._asking.send(call)
            except Unavailable as error:
                return str(error)
            if answer.status != HTTPStatus.NOT_FOUND:
                old = call.url.endswith(OLD_REGISTRY)
                return f"{_exposed(answer.status)}{f', as {OLD_REGISTRY}' if old else ''}"
        return f"not exposed ({HTTPStatus.NOT_FOUND.value})"

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _ask_custom(self, body: Callable[[], str] | None) -> None:
        call = self._custom(self._deregister.method)
        text = body() if body is not None else None
        headers = dict(self._deregister.headers() if self._deregister.headers is not None else {})
        if text is not None and "content-type" not in map(str.lower, headers) and is_json(text):
            headers |= JSON
        answer = await self._asking.send(call, headers, None if text is None else text.encode())
        accept(answer.status, call)

    async def _set_status(self, road: str, status: str) -> None:
        """Spring's own endpoint, by the name that it has in this version."""
        if road != Endpoint.REGISTRY:
            raise ValueError(f"no road of the actuator: {road}")
        base, body = self._finding.base, json.dumps({"status": status}).encode()
        call = self._finding.call(Endpoint.REGISTRY, "POST", base, name=self._registry[0])
        answer = await self._asking.send(call, JSON, body)
        if answer.status == HTTPStatus.NOT_FOUND:
            other = self._finding.call(Endpoint.REGISTRY, "POST", base, name=self._registry[1])
            second = await self._asking.send(other, JSON, body)
            if second.status != HTTPStatus.NOT_FOUND:
                self._registry = (self._registry[1], self._registry[0])
                call, answer = other, second
        accept(answer.status, call)

    def _way_back(self) -> Callable[[], str] | None:
        """The body that undoes it: as set, or as our starter has it, where that is what is asked."""
        starter = self._finding.starter
        if self._deregister.undo is not None or starter is None or self._deregister.method != "POST":
            return self._deregister.undo
        return (lambda: BACK) if self._custom("POST").starter else None

    def _custom(self, method: str) -> Call:
        where, base = self._deregister.url or f"/{Endpoint.DEREGISTER}", self._finding.known
        if where.startswith("/"):
            call = self._finding.call(Endpoint.DEREGISTER, method, self._finding.base, name=where[1:])
        else:
            elsewhere = base is None or _origin(where) != _origin(base)
            known = self._asking.login is not None and not elsewhere
            call = Call(Endpoint.DEREGISTER, method, where, known, elsewhere)
        starter = self._finding.starter
        return replace(call, starter=starter is not None and call.url == f"{starter}/{Endpoint.DEREGISTER}")


def _exposed(status: int) -> str:
    """What the status of a harmless request says of an endpoint."""
    if status in CLOSED:
        return f"protected ({status})"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"redirects ({status})"
    if status < HTTPStatus.BAD_REQUEST or status in STANDING:
        return "exposed"
    return f"answers {status}"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower()


def is_json(text: str) -> bool:
    """Whether a body gets JSON's content type."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
