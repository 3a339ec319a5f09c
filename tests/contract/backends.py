"""What the contract is checked against: the double and real servers, each as 2.x and as 3.x; 1.x on the double alone.

Everything but the registry under test is the rig's: apps that register and observers that read speak the same HTTP to
all. Only a gRPC instance is another thing on the double, which has no gRPC.
"""

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import pytest
from _pytest.mark import ParameterSet
from rig.clients import BeatApp, GrpcApp, PersistentApp
from rig.openapi import Observer, Operator
from rig.openapi import Server as Api
from rig.records import Host, Instance
from rig.servers import NacosServer

from sidecar import registration
from sidecar.adapters.nacos import Nacos
from sidecar.demo.double import Access, Dialect, Double
from sidecar.demo.double import Instance as DoubleInstance
from sidecar.demo.double import Service as DoubleService
from sidecar.http import Http


Kind = Literal["grpc", "beat", "persistent", "batch"]
KINDS: tuple[Kind, ...] = ("grpc", "beat", "persistent")
BEAT = 1.0  # seconds; clients beat every 5, which is only longer to wait for
DOUBLES_BEAT = 0.1
PUSH_DELAY = 0.5
DOUBLES_PUSH_DELAY = 0.06

OLD_API = 2  # which 1.x speaks as well
HTTP_OK, HTTP_NOT_FOUND = 200, 404
DOUBLES: dict[str, Dialect] = {"double-1.4": "1.4", "double-2.2": "2.2", "double-3.1": "3.1"}
MODERN = ("double-2", "double-3", "real")  # where records outlive their instances

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


@dataclass
class Token:
    """A server as another user sees it."""

    base: str
    major: int
    token: str | None


class OldObserver(Observer):
    """What an absent service looks like on 1.x: a server error."""

    async def unfiltered(self, instance: Instance) -> tuple[Host, ...]:
        """Return everything the registry holds."""
        try:
            return await super().unfiltered(instance)
        except RuntimeError as error:
            if " is not found!" in str(error):
                return ()
            raise


class App:
    """An app that comes and goes under one address, as one of Nacos' kinds of instances."""

    def __init__(self, backend: "Backend", kind: Kind, instance: Instance) -> None:
        self.kind = kind
        self.instance = instance
        self._backend = backend
        self._http: BeatApp | PersistentApp | None = None
        self._grpc: GrpcApp | None = None
        self._connection = f"1795421846173_127.0.0.1_{secrets.randbelow(2**30)}"

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
        elif backend.server is None and self.kind == "batch":
            assert backend.double is not None
            app = self.instance
            backend.double.naming.register(
                DoubleService(app.service, app.group, app.namespace),
                self._connection,
                *(DoubleInstance(each.ip, each.port, each.cluster, grpc=True) for each in self.batch),
                batch=True,
            )
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
            if self.kind == "batch":
                await self._grpc.register_batch(*self.batch)
            else:
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

    async def crash(self) -> None:
        """Beat no more. Only an app that beats can."""
        assert isinstance(self._http, BeatApp)
        http, self._http = self._http, None
        await http.crash()

    async def close(self) -> None:
        """End with the test; gRPC clients end by themselves."""
        if self._http is not None:
            await self.leave()

    @property
    def batch(self) -> tuple[Instance, Instance]:
        """What a batch consists of: it, and its neighbour on the next port."""
        return self.instance, replace(self.instance, port=self.instance.port + 1)

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
        self.old = self.name.endswith("1.4")
        self.usual: Kind = "beat" if self.old else "grpc"
        self.observer = OldObserver(self.api) if self.old else Observer(self.api)
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

    def app(self, kind: Kind | None = None, **fields: object) -> App:
        """An app yet to register, in a service of its own: Nacos remembers names for a minute and longer."""
        kind = kind or self.usual
        fields = {"service": f"contract-{secrets.token_hex(4)}", "port": 8080, "ip": "127.0.0.11"} | fields
        if kind == "persistent":
            fields["port"] = 0  # a free one: it is connected to
        app = App(self, kind, Instance(**fields))  # type: ignore[arg-type]  # fields of Instance
        self.stack.push_async_callback(app.close)
        return app

    def shown(self, mark: str) -> str:
        """What is seen of a mark: 1.x gets none, as it would wipe the app's own metadata."""
        return "" if self.old else mark

    async def protect(self, instance: Instance, threshold: float) -> None:
        """Set the protectThreshold of its service, as an operator does."""
        path = "/v1/ns/service" if self.api.major == OLD_API else "/v3/admin/ns/service"
        await self.operator._do("PUT", path, instance.service_query | {"protectThreshold": str(threshold)})

    async def reader(self) -> tuple[str, str]:
        """Make a user who may read what is in the namespace `public`, and change nothing."""
        name = password = f"reader-{secrets.token_hex(4)}"
        if self.double is not None:
            self.double.access.users[name] = password
            self.double.access.readers.add(name)
            return name, password
        grants = {
            "/v3/auth/user": {"username": name, "password": password},
            "/v3/auth/role": {"role": name, "username": name},
            "/v3/auth/permission": {"role": name, "resource": "public:*:*", "action": "r"},
        }
        for path, grant in grants.items():
            await self.operator._do("POST", path, grant)
        async with asyncio.timeout(40):  # users, and what they may, are read again every 15 s
            while not await self._reads(name, password):  # noqa: ASYNC110  it happens in another process
                await asyncio.sleep(0.5)
        return name, password

    async def _reads(self, name: str, password: str) -> bool:
        async with Operator(Token(self.api.base, self.api.major, None)) as nobody:  # a token outranks the password
            form = {"username": name, "password": password}
            status, body = await nobody._call("POST", "/v3/auth/user/login", form)
        if status != HTTP_OK:
            return False
        async with Operator(Token(self.api.base, self.api.major, json.loads(body)["accessToken"])) as reader:
            status, _ = await reader._call("GET", "/v3/admin/ns/instance/list", {"serviceName": "nobody's"})
        return status == HTTP_NOT_FOUND


BACKENDS = (
    pytest.param("double-1.4"),
    pytest.param("double-2.2"),
    pytest.param("double-3.1"),
    pytest.param("real-2.2.4", marks=pytest.mark.real),
    pytest.param("real-3.1.0", marks=pytest.mark.real),
)


def on(*parts: str) -> pytest.MarkDecorator:
    """For what one kind of backend cannot do: `on("real")`, `on("3.1")`."""
    return pytest.mark.parametrize("nacos", _those(parts), indirect=True)


def on_each_kind(*parts: str, kinds: tuple[Kind, ...] = KINDS) -> pytest.MarkDecorator:
    """For each kind of instance, on the backends that have it: 1.x has no gRPC."""
    pairs = [
        pytest.param(str(backend.values[0]), kind, marks=backend.marks)
        for backend, kind in product(_those(parts), kinds)
        if kind in {"beat", "persistent"} or "1.4" not in str(backend.values[0])
    ]
    return pytest.mark.parametrize(("nacos", "kind"), pairs, indirect=["nacos"])


def _those(parts: tuple[str, ...]) -> list[ParameterSet]:
    return [each for each in BACKENDS if any(part in str(each.values[0]) for part in parts or ("",))]


def real_backend(name: str, server: NacosServer, stack: AsyncExitStack) -> Backend:
    """A server of the rig."""
    credentials = (server.username, server.password) if server.username and server.password else None
    return Backend(name, server.base, server, credentials, stack, server=server)


async def double_backend(name: str, stack: AsyncExitStack, *, context_path: str = "/nacos") -> Backend:
    """The double as its own laptop demo has it, but for the password."""
    dialect: Dialect = DOUBLES[name]
    access = Access({"nacos": PASSWORD})
    double = await stack.enter_async_context(
        Double(dialect, access=access, context_path=context_path, push_delay=DOUBLES_PUSH_DELAY)
    )
    form = {"username": "nacos", "password": PASSWORD}
    token: str = json.loads(access.login(dialect, form, "/v1/auth/login").body)["accessToken"]
    api = DoubleServer(double, 3 if dialect == "3.1" else OLD_API, token)
    return Backend(name, double.url, api, ("nacos", PASSWORD), stack, double=double)


def key(instance: Instance) -> registration.Instance:
    """An instance of the rig as the product names it."""
    service = registration.Service(instance.service, instance.group, instance.namespace, instance.cluster)
    return registration.Instance(service, instance.ip, instance.port)
