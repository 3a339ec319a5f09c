"""The Actuator: which request goes where, and what its answer means for the drain."""

import asyncio
import contextlib
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from sidecar.http import Answer, Http
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Identity, Road

from .discovery import Discovery, discovery
from .refusals import NO_ACTUATOR, Call, Endpoint, accept, unreachable


SEARCH = 1.0  # seconds: a port that speaks another protocol may say nothing at all
OLD_REGISTRY = "service-registry"  # until Spring Cloud Hoxton
JSON = {"Content-Type": "application/json"}  # anything else gets a 415 (rollout-baseline.md section 3)

CLOSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
STANDING = frozenset(  # there, but with another method, or as the health of an unhealthy app
    {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.SERVICE_UNAVAILABLE}
)

Login = Callable[[], tuple[str, str]]


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
    app listens. `login` is for basic auth; it goes to the actuator alone, not to a custom endpoint elsewhere. Deadlines
    are the caller's: an endpoint that hangs hangs.
    """

    def __init__(
        self, http: Http, url: str | None, *, login: Login | None = None, deregister: Deregister = BY_CUSTOM
    ) -> None:
        self._http = http
        self._configured = url.rstrip("/") if url else None
        self._found: str | None = None
        self._last: str | None = None  # where it was found before: a management port opens later than the app's
        self._login = login
        self._deregister = deregister
        self._registry = (Endpoint.REGISTRY.value, OLD_REGISTRY)  # first the one that was there the last time
        self._credentials: tuple[str, str] | None = None

    @property
    def roads(self) -> tuple[Road, ...]:
        """The ways out that the app offers, the custom one first: only that can be a true removal in old versions."""
        return (
            Road(Endpoint.DEREGISTER.value, undoable=self._deregister.undo is not None, inside=True),
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
        elif self._deregister.undo is None:
            raise Rejected(f"{Endpoint.DEREGISTER} has no way back: set NACOS_DRAIN_DEREGISTER_UNDO")
        else:
            await self._ask_custom(self._deregister.undo)

    async def identity(self, ports: frozenset[int]) -> Identity | None:
        """How the app is registered; None where its endpoint is not exposed, or, without a URL, was not found yet."""
        base = self._configured or self._found
        if base is None:
            return await self._search(ports)
        call = self._call(Endpoint.DISCOVERY, "GET", base)
        try:
            answer = await self._send(call)
        except Unavailable as error:
            if error.refused:
                self._found = None  # the next life of the app may have it elsewhere
            raise
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        accept(answer.status, call)
        return self._take(_read(call, answer))

    def credentials(self) -> tuple[str, str] | None:
        """The user and password with which the app logs in at Nacos, by its own word."""
        return self._credentials

    async def healthy(self) -> bool | None:
        """Whether its health endpoint is content; None where it has none for us. Raises Unavailable without answer."""
        base = self._configured or self._found
        if base is None:
            return None
        answer = await self._send(self._call(Endpoint.HEALTH, "GET", base))
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        return True if answer.status == HTTPStatus.OK else None

    async def shutdown(self) -> None:
        """Ask the app to stop."""
        call = self._call(Endpoint.SHUTDOWN, "POST", self._base())
        accept((await self._send(call)).status, call)

    async def exposed(self) -> Mapping[str, str]:
        """What a harmless request to each endpoint says, for people.

        Those that act are asked by OPTIONS, which Spring answers by itself: a folk endpoint may act on a GET too.
        """
        base = self._base()
        asked = {
            Endpoint.HEALTH: [self._call(Endpoint.HEALTH, "GET", base)],
            Endpoint.DISCOVERY: [self._call(Endpoint.DISCOVERY, "GET", base)],
            Endpoint.DEREGISTER: [self._custom("OPTIONS")],
            Endpoint.REGISTRY: [self._call(Endpoint.REGISTRY, "GET", base, name=name) for name in self._registry],
            Endpoint.SHUTDOWN: [self._call(Endpoint.SHUTDOWN, "OPTIONS", base)],
        }
        told = await asyncio.gather(*map(self._exposure, asked.values()))
        return {endpoint.value: words for endpoint, words in zip(asked, told, strict=True)}

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # -- finding it ------------------------------------------------------------------------------------------------

    async def _search(self, ports: frozenset[int]) -> Identity | None:
        """Ask each port once, and where it was the last time; keep the one that tells of a port that listens here.

        Behind a shared address (hostNetwork, a VM) there may be several apps: which is ours nobody can tell.
        """
        bases = dict.fromkeys(f"http://127.0.0.1:{port}/actuator" for port in sorted(ports))
        bases |= {self._last: None} if self._last is not None else {}
        calls = {base: self._call(Endpoint.DISCOVERY, "GET", base) for base in bases}
        answers = dict(zip(calls, await asyncio.gather(*map(self._knock, calls.values())), strict=True))
        found: dict[str, Discovery] = {}
        for base, answer in answers.items():
            if answer is not None and answer.status == HTTPStatus.OK:
                with contextlib.suppress(Unavailable):  # an app's own page for whatever it does not know
                    found[base] = _read(calls[base], answer)
        ours = {b: d for b, d in found.items() if d.identity.instance is None or d.identity.instance.port in ports}
        if len({told.identity.instance for told in ours.values()}) > 1:
            raise Rejected(f"several apps show their actuator here ({', '.join(ours)}): set NACOS_DRAIN_ACTUATOR_URL")
        for base, told in ours.items():
            self._found = self._last = base
            return self._take(told)
        for base, answer in answers.items():
            if answer is not None and answer.status in CLOSED:
                raise Rejected(
                    f"{calls[base]} answers {answer.status}: set NACOS_DRAIN_ACTUATOR_URL; "
                    "a login is sent to a configured actuator only"
                )
        return None

    async def _knock(self, call: Call) -> Answer | None:
        try:
            async with asyncio.timeout(SEARCH):
                return await self._send(call)
        except (Unavailable, TimeoutError):
            return None

    def _take(self, told: Discovery) -> Identity:
        self._credentials = told.credentials
        return told.identity

    async def _exposure(self, calls: Iterable[Call]) -> str:
        """What is said under the first name that is known there."""
        for call in calls:
            try:
                answer = await self._send(call)
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
        if text is not None and "content-type" not in map(str.lower, headers) and _is_json(text):
            headers |= JSON
        answer = await self._send(call, headers, None if text is None else text.encode())
        accept(answer.status, call)

    async def _set_status(self, road: str, status: str) -> None:
        """Spring's own endpoint, by the name that it has in this version."""
        if road != Endpoint.REGISTRY:
            raise ValueError(f"no road of the actuator: {road}")
        base, body = self._base(), json.dumps({"status": status}).encode()
        call = self._call(Endpoint.REGISTRY, "POST", base, name=self._registry[0])
        answer = await self._send(call, JSON, body)
        if answer.status == HTTPStatus.NOT_FOUND:
            other = self._call(Endpoint.REGISTRY, "POST", base, name=self._registry[1])
            second = await self._send(other, JSON, body)
            if second.status != HTTPStatus.NOT_FOUND:
                self._registry = (self._registry[1], self._registry[0])
                call, answer = other, second
        accept(answer.status, call)

    def _base(self) -> str:
        base = self._configured or self._found
        if base is None:
            raise Rejected(NO_ACTUATOR)
        return base

    def _custom(self, method: str) -> Call:
        where = self._deregister.url or f"/{Endpoint.DEREGISTER}"
        if where.startswith("/"):
            return self._call(Endpoint.DEREGISTER, method, self._base(), name=where[1:])
        base = self._configured or self._found
        elsewhere = base is None or _origin(where) != _origin(base)
        return Call(Endpoint.DEREGISTER, method, where, self._login is not None and not elsewhere, elsewhere)

    def _call(self, endpoint: Endpoint, method: str, base: str, *, name: str = "") -> Call:
        known = self._login is not None and self._configured is not None
        return Call(endpoint, method, f"{base}/{name or endpoint}", known)

    async def _send(self, call: Call, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        sent = dict(headers or {})
        if call.login and "authorization" not in map(str.lower, sent):
            sent["Authorization"] = self._basic()
        if call.endpoint is Endpoint.DISCOVERY:
            sent["Accept"] = "application/json"
        try:
            return await self._http.request(call.method, call.url, headers=sent, body=body)
        except Unavailable as error:
            raise unreachable(call, error) from error

    def _basic(self) -> str:
        assert self._login is not None  # noqa: S101  asked by the caller
        return "Basic " + b64encode(":".join(self._login()).encode()).decode()


def _read(call: Call, answer: Answer) -> Discovery:
    try:
        return discovery(answer.body, f"the app's actuator, {call}")
    except Unavailable as error:
        raise Unavailable(f"{call} {error}: is it the actuator of a Spring Cloud Alibaba app?") from None


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


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
