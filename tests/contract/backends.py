"""What the contract is checked against: the double and real servers, each as 2.x and as 3.x.

Everything but the registry under test is the rig's: apps that register and observers that read speak the same HTTP to
all four. Only a gRPC instance is another thing on the double, which has no gRPC.
"""

import json
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from rig.clients import BeatApp, GrpcApp, PersistentApp
from rig.openapi import Observer, Operator
from rig.openapi import Server as Api
from rig.records import Instance
from rig.servers import NacosServer

from sidecar import registration
from sidecar.adapters.nacos import Nacos
from sidecar.demo.double import Access, Double
from sidecar.demo.double import Service as DoubleService
from sidecar.http import Http


Kind = Literal["grpc", "beat", "persistent"]
BEAT = 1.0  # seconds; clients beat every 5, which is only longer to wait for
DOUBLES_BEAT = 0.1
PUSH_DELAY = 0.5
DOUBLES_PUSH_DELAY = 0.06

PASSWORD = "a Passw%rd/with+all?of&it=" + secrets.token_hex(2)


@dataclass
class DoubleServer:
    """The double, as the rig's clients want to know a server."""

    double: Double
    major: int
    token: str | None

    @property
    def base(self) -> str:
        """The URL that API paths are appended to."""
        return self.double.url


class App:
    """An app that comes and goes under one address, as one of Nacos' kinds of instances."""

    def __init__(self, backend: "Backend", kind: Kind, instance: Instance) -> None:
        self.kind = kind
        self.instance = instance
        self._backend = backend
        self._http: BeatApp | PersistentApp | None = None
        self._grpc: GrpcApp | None = None
        self._connection = secrets.token_hex(4)

    @property
    def key(self) -> registration.Instance:
        """As the product names it."""
        return key(self.instance)

    async def join(self, **changes: object) -> None:
        """Register, perhaps with other weight or metadata than in the former life."""
        self.instance = replace(self.instance, **changes)  # type: ignore[arg-type]  # fields of Instance
        backend = self._backend
        if self.kind == "beat":
            self._http = await BeatApp(backend.api, self.instance, backend.beat).__aenter__()
        elif self.kind == "persistent":
            self._http = await PersistentApp(backend.api, self.instance).__aenter__()
            self.instance = self._http.instance
        elif backend.server is None:
            assert backend.double is not None
            app = self.instance
            backend.double.naming.register_grpc(
                DoubleService(app.service, app.group, app.namespace),
                app.ip,
                app.port,
                app.cluster,
                connection=self._connection,
                weight=app.weight,
                metadata=app.metadata,
            )
        else:
            if self._grpc is None:
                client = GrpcApp(backend.server, self.instance.namespace)
                self._grpc = await backend.stack.enter_async_context(client)
            await self._grpc.register(self.instance)

    async def leave(self) -> None:
        """Deregister, as an app that shuts down does."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.__aexit__(None, None, None)
        elif self._grpc is not None:
            await self._grpc.deregister(self.instance)
        else:
            assert self._backend.double is not None
            app = self.instance
            service = DoubleService(app.service, app.group, app.namespace)
            assert self._backend.double.naming.deregister(service, self._connection)

    async def close(self) -> None:
        """End with the test; gRPC clients end by themselves."""
        if self._http is not None:
            await self.leave()

    @property
    def beats(self) -> int:
        """How often it has beaten by now."""
        return self._http.beats if isinstance(self._http, BeatApp) else 0


@dataclass
class Backend:
    """One server under one registry client."""

    name: str
    url: str
    api: Api
    credentials: tuple[str, str] | None
    stack: AsyncExitStack
    double: Double | None = None
    server: NacosServer | None = None

    def __post_init__(self) -> None:
        self.beat = BEAT if self.double is None else DOUBLES_BEAT
        self.push_delay = PUSH_DELAY if self.double is None else DOUBLES_PUSH_DELAY
        self.observer = Observer(self.api)
        self.operator = Operator(self.api)

    @property
    def node(self) -> str:
        """The node's name."""
        return self.url.split("/")[2]

    def registry(self, **options: object) -> Nacos:
        """The client under test."""
        credentials = self.credentials
        options = {"credentials": (lambda: credentials) if credentials else None} | options
        nacos = Nacos(Http(), [self.url], **options)  # type: ignore[arg-type]  # named as the parameters are
        self.stack.push_async_callback(nacos.close)
        return nacos

    def app(self, kind: Kind, **fields: object) -> App:
        """An app yet to register, in a service of its own: Nacos remembers names for a minute and longer."""
        fields = {"service": f"contract-{secrets.token_hex(4)}", "port": 8080, "ip": "127.0.0.11"} | fields
        if kind == "persistent":
            fields["port"] = 0  # a free one: it is connected to
        app = App(self, kind, Instance(**fields))  # type: ignore[arg-type]  # fields of Instance
        self.stack.push_async_callback(app.close)
        return app


BACKENDS = (
    pytest.param("double-2.2"),
    pytest.param("double-3.1"),
    pytest.param("real-2.2.4", marks=pytest.mark.real),
    pytest.param("real-3.1.0", marks=pytest.mark.real),
)


def on(part: str) -> pytest.MarkDecorator:
    """For what one kind of backend cannot do: `on("real")`, `on("3.1")`."""
    return pytest.mark.parametrize("nacos", [each for each in BACKENDS if part in str(each.values[0])], indirect=True)


def real_backend(name: str, server: NacosServer, stack: AsyncExitStack) -> Backend:
    """A server of the rig."""
    credentials = (server.username, server.password) if server.username and server.password else None
    return Backend(name, server.base, server, credentials, stack, server=server)


async def double_backend(name: str, stack: AsyncExitStack, *, context_path: str = "/nacos") -> Backend:
    """The double as its own laptop demo has it, but for the password."""
    dialect: Literal["2.2", "3.1"] = "3.1" if name.endswith("3.1") else "2.2"
    access = Access({"nacos": PASSWORD})
    double = await stack.enter_async_context(
        Double(dialect, access=access, context_path=context_path, push_delay=DOUBLES_PUSH_DELAY)
    )
    form = {"username": "nacos", "password": PASSWORD}
    token: str = json.loads(access.login(dialect, form, "/v1/auth/login").body)["accessToken"]
    api = DoubleServer(double, int(dialect[0]), token)
    return Backend(name, double.url, api, ("nacos", PASSWORD), stack, double=double)


def key(instance: Instance) -> registration.Instance:
    """An instance of the rig as the product names it."""
    service = registration.Service(instance.service, instance.group, instance.namespace, instance.cluster)
    return registration.Instance(service, instance.ip, instance.port)
