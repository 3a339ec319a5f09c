"""Nacos as the demo's apps use it: log in, read a service's list, be registered there.

On the double the provider is what a modern client is, an instance that hangs on a connection. Over HTTP alone a real
server offers that to nobody, so there the provider beats every five seconds, as clients before 2.0 did.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aiohttp


USERNAME, PASSWORD = "NACOS_DRAIN_NACOS_USERNAME", "NACOS_DRAIN_NACOS_PASSWORD"
INSTANCE = "/v1/ns/instance"  # from 1.x to 3.1 the one API that registers over HTTP
BEAT_PERIOD = 5.0
TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class NacosError(Exception):
    """Nacos refused, or did not answer; the message says what it was asked."""


class Nacos:
    """One service on one server, as the user in the environment if there is one."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, service: str, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.session = session
        self.url = url
        self.service = service
        self._user = {"username": environment.get(USERNAME, ""), "password": environment.get(PASSWORD, "")}
        self._token: dict[str, str] = {}

    async def login(self) -> None:
        """Take a token that outlives the demo; without a user do nothing."""
        if not self._user["username"]:
            return
        text = await self.ask("POST", "/v1/auth/login", form=self._user)
        self._token = {"accessToken": json.loads(text)["accessToken"]}

    async def addresses(self) -> tuple[str, ...]:
        """The instances that a consumer may call, as ip:port."""
        text = await self.ask("GET", f"{INSTANCE}/list", {"serviceName": self.service, "healthyOnly": "true"})
        return tuple(f"{host['ip']}:{host['port']}" for host in json.loads(text)["hosts"])

    async def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> str:
        """Send one request; anything but 200 is an error."""
        asked = f"{method} {self.url}{path}"
        try:
            async with self.session.request(
                method, self.url + path, params={**(query or {}), **self._token}, data=form, timeout=TIMEOUT
            ) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NacosError(f"{asked}: {str(error) or type(error).__name__}") from error
        if response.status != HTTPStatus.OK:
            raise NacosError(f"{asked} answers {response.status}: {text[:200]}")
        return text


class Registration(Protocol):
    """An instance of the service, and how it comes and goes."""

    async def register(self) -> None:
        """Be listed."""

    async def deregister(self) -> None:
        """Be listed no more."""


@dataclass
class Connected:
    """An instance of the double that lives as long as a connection, as with a gRPC client."""

    nacos: Nacos
    ip: str
    port: int
    _socket: aiohttp.ClientWebSocketResponse | None = None

    def __post_init__(self) -> None:
        self._id = uuid4().hex
        # Beside the API, not below its context path.
        self._private = urlunsplit((*urlsplit(self.nacos.url)[:2], "/double/grpc", "", ""))

    async def register(self) -> None:
        """Connect, and publish the instance over that."""
        self._socket = await self.nacos.session.ws_connect(f"{self._private}/connection", params={"id": self._id})
        await self._publish("POST")

    async def deregister(self) -> None:
        """Take the instance back; the connection stays, as a client's does."""
        await self._publish("DELETE")

    async def _publish(self, method: str) -> None:
        query = {"serviceName": self.nacos.service, "ip": self.ip, "port": str(self.port), "connection": self._id}
        async with self.nacos.session.request(method, f"{self._private}/instance", params=query) as response:
            if response.status != HTTPStatus.OK:
                raise NacosError(f"{method} of an instance answers {response.status}: {await response.text()}")


@dataclass
class Beating:
    """An ephemeral instance of a real server that is held by beats."""

    nacos: Nacos
    ip: str
    port: int
    _beats: asyncio.Task[None] | None = None

    @property
    def _query(self) -> dict[str, str]:
        return {"serviceName": self.nacos.service, "ip": self.ip, "port": str(self.port), "ephemeral": "true"}

    async def register(self) -> None:
        """Register and begin to beat."""
        await self.nacos.ask("POST", INSTANCE, self._query)
        self._beats = asyncio.create_task(self._beat(), name="beats")

    async def deregister(self) -> None:
        """Beat no more, and take the instance back: in the other order a late beat would register it again."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.wait([self._beats])
        await self.nacos.ask("DELETE", INSTANCE, self._query)

    async def _beat(self) -> None:
        beat = {"serviceName": self.nacos.service, "ip": self.ip, "port": self.port, "cluster": "DEFAULT", "weight": 1}
        query = {**self._query, "beat": json.dumps(beat)}
        while True:
            await asyncio.sleep(BEAT_PERIOD)
            with contextlib.suppress(NacosError):  # the next one is due soon enough
                await self.nacos.ask("PUT", f"{INSTANCE}/beat", query)
