"""One connection to one node, in Nacos' own gRPC messages."""

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sidecar.http import MOST_BYTES
from sidecar.ports import Rejected, Unavailable

from .access import Access
from .states import Key, name_of, of_kind


EXTRA = "NACOS_DRAIN_PUSH_WATCH needs the extra: pip install nacos-drain[grpc]"
VERBOSITY = "GRPC_VERBOSITY"
GENERATED = "v2.nacos.transport.grpcauto.nacos_grpc_service_pb2"
GRPC_OFFSET = 1000  # of Nacos' gRPC port from its HTTP port, in every version
SUCCESS, REFUSALS, UNREGISTERED = 200, frozenset({401, 403}), 301
DEADLINE = 3.0  # of an exchange while connecting
PULSE = 1.5  # of the exchange that a reading makes; readings have 2 s
REGISTERING = 0.02  # between looks whether the server has taken the new connection in; it takes 10-40 ms


class Wire(NamedTuple):
    """What is loaded only when the watch is on."""

    grpc: ModuleType
    messages: ModuleType
    stubs: ModuleType


def installed() -> bool:
    """Whether the packages of the extra are there; loads none of them."""
    try:
        return importlib.util.find_spec("v2.nacos") is not None
    except (ImportError, ValueError):  # no package v2 at all, or one that has been taken away
        return False


def load() -> Wire:
    """Import it all: 0.7 s, and 60 MB for good."""
    # gRPC writes failed TLS handshakes to stderr. It reads this variable when it is loaded, and the app that we may
    # start must not inherit it.
    own = VERBOSITY not in os.environ
    os.environ.setdefault(VERBOSITY, "NONE")
    try:
        modules = [importlib.import_module(name) for name in ("grpc", GENERATED, f"{GENERATED}_grpc")]
    except Exception as error:
        raise Rejected(
            f"the extra cannot be loaded ({type(error).__name__}: {error}): reinstall it; {EXTRA}"
        ) from error
    finally:
        if own:
            os.environ.pop(VERBOSITY, None)
    return Wire(*modules)


class Unregistered(Unavailable):
    """The server does not know this connection, or not yet."""


class Link:
    """One connection to one node."""

    def __init__(self, wire: Wire, server: str, channel: Any, ip: str, access: Access) -> None:
        self.name = name_of(server)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._server = server
        self._target = _target(server)
        self._ip = ip
        self._access = access
        self._request = wire.stubs.RequestStub(channel).request
        self._stream = wire.stubs.BiRequestStreamStub(channel).requestBiStream()

    async def open(self, namespace: str) -> None:
        """Introduce ourselves: a stream first, which is the connection to Nacos, then any request belongs to it."""
        await self.ask("ServerCheckRequest", {})  # fails at once where nobody listens; the stream would not
        labels = {"source": "sdk", "module": "naming", "AppName": "nacos-drain"}
        setup = {"clientVersion": "nacos-drain", "tenant": namespace, "labels": labels}
        await self._say("ConnectionSetupRequest", setup)
        try:
            async with asyncio.timeout(DEADLINE):
                while not await self._registered():  # noqa: ASYNC110  it happens in another process
                    await asyncio.sleep(REGISTERING)
        except TimeoutError:
            raise Unavailable(f"{self.name} has not taken the connection in within {DEADLINE:g} s") from None

    async def _registered(self) -> bool:
        try:
            await self.pulse()
        except Unregistered:
            return False
        return True

    async def pulse(self) -> None:
        """Have the server answer on this connection, and know it."""
        await self.ask("HealthCheckRequest", {}, deadline=PULSE)

    async def subscribe(self, namespace: str, key: Key) -> Any:
        """Ask for a service's pushes; returns its state at that moment."""
        group, name = key
        body = {"namespace": namespace, "groupName": group, "serviceName": name, "clusters": "", "subscribe": True}
        headers = await self._access.headers(self._server, key)
        answer = await self.ask("SubscribeServiceRequest", body, headers)
        self._access.accepted()
        return answer.get("serviceInfo")

    async def ask(
        self,
        kind: str,
        body: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        deadline: float = DEADLINE,
    ) -> dict[str, Any]:
        """Send a request; anything but a success is an error of ours."""
        with self._translated():
            answer = self._json(await self._request(self._payload(kind, body, headers), timeout=deadline))
        if answer.get("resultCode") == SUCCESS:
            return answer
        code, told = answer.get("errorCode"), str(answer.get("message") or "")
        if code == UNREGISTERED:
            raise Unregistered(f"{self.name} does not know our connection any more")
        if code in REFUSALS:
            raise self._access.refused(self.name, told)
        raise Unavailable(f"{self.name} answers {code} to a {kind}: {self._access.quoted(told)}")

    async def pushes(self) -> AsyncIterator[Any]:
        """The state of a service, each time the server tells one; raises Unavailable at the end of the connection."""
        while True:
            with self._translated():
                payload = await self._stream.read()
            if payload is self._wire.grpc.aio.EOF:
                raise Unavailable(f"{self.name} closed the connection")
            request = self._json(payload)
            match payload.metadata.type:
                case "NotifySubscriberRequest":
                    yield request.get("serviceInfo")
                    await self._reply("NotifySubscriberResponse", request)
                case "ClientDetectionRequest":  # after silence; without a reply it closes the connection
                    await self._reply("ClientDetectionResponse", request)
                case "ConnectResetRequest":  # a rebalancing cluster: it waits for nobody
                    await self._reply("ConnectResetResponse", request)
                    raise Unavailable(f"{self.name} asked us to connect anew")
                case _:
                    pass  # abilities, and whatever a later version tells; no reply is better than a wrong one

    def lose(self, problem: Unavailable) -> None:
        """End it: it has been found dead from outside."""
        if not self.lost.done():
            self.lost.set_exception(problem)
            self.lost.exception()  # it may have ended meanwhile, and nobody ask

    async def _reply(self, kind: str, request: Mapping[str, Any]) -> None:
        await self._say(kind, {"resultCode": 200, "errorCode": 0, "requestId": request.get("requestId", "")})

    async def _say(self, kind: str, body: Mapping[str, object]) -> None:
        with self._translated():
            await self._stream.write(self._payload(kind, body))

    def _payload(self, kind: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Any:
        messages = self._wire.messages
        metadata = messages.Metadata(type=kind, clientIp=self._ip, headers=headers or {})
        return messages.Payload(metadata=metadata, body={"value": json.dumps(body).encode()})

    def _json(self, payload: Any) -> dict[str, Any]:
        try:
            return of_kind(json.loads(payload.body.value), dict)
        except (TypeError, ValueError, RecursionError):
            raise Unavailable(f"{self.name} sends a {payload.metadata.type} that is no JSON object") from None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._wire.grpc.aio.AioRpcError as error:
            told = (error.details() or "").rpartition("last error: ")[2]
            raise Unavailable(
                f"{self.name} does not answer over gRPC at {self._target}, its HTTP port + {GRPC_OFFSET} "
                f"({error.code().name}: {self._access.quoted(told)})"
            ) from None
        except asyncio.InvalidStateError:
            raise Unavailable(f"{self.name} closed the connection") from None
        except asyncio.CancelledError:  # gRPC's word for a call whose channel was closed, by us
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Unavailable(f"the connection to {self.name} is closed") from None


def _endpoint(server: str) -> tuple[str, int]:
    parts = urlsplit(server)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.hostname or "", port + GRPC_OFFSET


def _target(server: str) -> str:
    host, port = _endpoint(server)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def own_ip(server: str) -> str:
    """Our address on the way there: consoles show it as the subscriber's. Nothing is sent."""
    try:
        async with asyncio.timeout(DEADLINE):
            socket, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=_endpoint(server)
            )
    except (OSError, TimeoutError, OverflowError, ValueError):
        raise Unavailable(f"the name or address of {name_of(server)} cannot be resolved") from None
    try:
        return str(socket.get_extra_info("sockname")[0])
    finally:
        socket.close()


@contextlib.asynccontextmanager
async def connected(wire: Wire, server: str, ca_file: str | None) -> AsyncIterator[Any]:
    """A channel to the server; it connects with the first request."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),  # else channels share a connection, and its pause after a failure
        ("grpc.enable_http_proxy", 0),  # as in sidecar/http.py
        ("grpc.max_receive_message_length", MOST_BYTES),
    ]
    aio = wire.grpc.aio
    if urlsplit(server).scheme == "https":
        credentials = wire.grpc.ssl_channel_credentials(_authorities(ca_file))
        channel = aio.secure_channel(_target(server), credentials, options=options)
    else:
        channel = aio.insecure_channel(_target(server), options=options)
    try:
        yield channel
    finally:
        await channel.close()


def _authorities(ca_file: str | None) -> bytes | None:
    try:
        return Path(ca_file).read_bytes() if ca_file else None
    except OSError as error:
        raise Unavailable(f"the CA file {ca_file} cannot be used: {error.strerror}") from None
