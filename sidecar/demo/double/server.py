"""The listener: one node of the double, its log, and the private paths of the demo's provider."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

from aiohttp import web

from sidecar.demo.double.access import Access
from sidecar.demo.double.answers import Answer, Dialect, WrongError, no_context, spring, text
from sidecar.demo.double.calls import Call, Node
from sidecar.demo.double.faults import Faults
from sidecar.demo.double.naming import Naming, View
from sidecar.demo.double.records import WrongKindError
from sidecar.demo.double.routes import find, logins, missing, perform


Auth = Literal["none", "admin", "all"]
SECURED: dict[Auth, frozenset[str]] = {
    "none": frozenset(),
    "admin": frozenset({"admin"}),
    "all": frozenset({"admin", "client"}),
}
SECRETS = {"password", "accessToken", "ak", "signature"}
LONGEST_LOG = 200_000


@dataclass
class Request:
    """One line of the log; `nth` counts on its connection, `status` is None until answered."""

    at: float
    node: str
    method: str
    path: str
    params: Mapping[str, str]
    nth: int
    status: int | None = None
    fault: str | None = None


class Double:
    """One node; several may share a `naming` and an `access` and are then a cluster."""

    def __init__(
        self,
        dialect: Dialect = "3.1",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        context_path: str = "/nacos",
        naming: Naming | None = None,
        access: Access | None = None,
        push_delay: float = 0.5,
        expiry: float = 60.0,
        auth: Auth | None = None,
        console: bool | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        sticky = dialect != "1.4"
        self.naming = naming or Naming(sticky=sticky, expiry=expiry)
        if self.naming.sticky != sticky:
            raise ValueError("1.x keeps its records in another way than 2.x and 3.x")
        self.access = access or Access()
        self.faults = Faults()
        self.log: list[Request] = []
        self.context_path = context_path.rstrip("/")
        self.view = View(self.naming, push_delay)
        self._host, self._port = host, port
        self._auth, self._console, self._tls = auth, console, tls
        self._node = Node(dialect, self.naming, self.view)
        self._served: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self.upgrade(dialect)

    @property
    def address(self) -> str:
        """Host and port, as member lists name this node."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    @property
    def url(self) -> str:
        """The address of the API, context path included."""
        return f"{'https' if self._tls else 'http'}://{self.address}{self.context_path}"

    @property
    def dialect(self) -> Dialect:
        """The version spoken at the moment."""
        return self._node.dialect

    def upgrade(self, dialect: Dialect) -> None:
        """Speak another version from the next request on, with that version's defaults."""
        if (dialect == "1.4") == self.naming.sticky:
            raise ValueError("1.x keeps its records in another way than 2.x and 3.x")
        new = dialect == "3.1"
        secured = SECURED[self._auth or ("admin" if new else "none")]
        console = not new if self._console is None else self._console
        self._node = replace(self._node, dialect=dialect, secured=secured, console=console)

    # -- life

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and drop every connection."""
        await self.stop()

    async def start(self) -> None:
        """Listen; also again after `stop`, on the same port: a node that was down."""
        app = web.Application()
        app.router.add_get("/double/grpc/connection", self._connection)
        app.router.add_route("*", "/double/grpc/{what}", self._private)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._stopping.clear()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls).start()
        self._port = self._runner.addresses[0][1]
        self._node.address = self.address
        self.naming.members[self.address] = "UP"

    async def stop(self) -> None:
        """Refuse connections and drop those there are; what was registered stays."""
        self._stopping.set()
        for socket in list(self._sockets):
            await socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- requests

    async def _handle(self, request: web.Request) -> web.Response:
        params = dict(request.query)
        form = await request.post() if request.method in {"POST", "PUT", "PATCH"} else {}
        old = self.dialect == "1.4" and request.method == "POST" and "/ns/" in request.path
        if not old:  # measured: 1.4 does not see a registration's form
            params |= {name: value for name, value in form.items() if isinstance(value, str)}
        entry = self._note(request, params)
        answer = await self._faulty(request, entry, params)
        if answer is None:
            answer = self._answer(request, params, self._node)
        entry.status = answer.status
        headers = {"Authorization": answer.token} if answer.token else {}
        return web.Response(
            status=answer.status,
            text=answer.body,
            content_type=answer.content_type,
            headers=headers,
        )

    def _note(self, request: web.Request, params: Mapping[str, str]) -> Request:
        nth = 1
        if request.transport is not None:
            nth += self._served.get(request.transport, 0)
            self._served[request.transport] = nth
        shown = {name: "***" if name in SECRETS else value for name, value in params.items()}
        now = asyncio.get_running_loop().time()
        entry = Request(now, self.address, request.method, request.path, shown, nth)
        self.log.append(entry)
        if len(self.log) > LONGEST_LOG:
            del self.log[: LONGEST_LOG // 2]
        return entry

    async def _faulty(self, request: web.Request, entry: Request, params: Mapping[str, str]) -> Answer | None:
        fault = self.faults.pick(request.method, request.path, entry.nth)
        if fault is None:
            return None
        entry.fault = fault.kind
        await asyncio.sleep(fault.seconds)
        if fault.kind == "hang":
            await self._stopping.wait()
        if fault.kind in {"hang", "drop"}:
            if request.transport is not None:
                request.transport.close()
            return text(HTTPStatus.OK, "")  # to nobody
        if fault.kind == "blank":
            nothing = View(Naming(sticky=self.naming.sticky))
            return self._answer(request, params, replace(self._node, view=nothing))
        return fault.answer(self.dialect, request.path)

    def _answer(self, request: web.Request, params: Mapping[str, str], node: Node) -> Answer:
        method, path = request.method, request.path
        if not path.startswith(f"{self.context_path}/"):
            return no_context()
        inside = path.removeprefix(self.context_path)
        if method == "POST" and inside in logins(node.dialect, console=node.console):
            return self.access.login(node.dialect, params, path)
        route = find(node.dialect, f"{method} {inside}", console=node.console)
        if route is None:
            return missing(node.dialect, method, inside, path, console=node.console)
        if route.right.split(":")[0] in node.secured:
            why = self.access.refusal(node.dialect, route.right, params, request.headers)
            if why:
                return spring(HTTPStatus.FORBIDDEN, why, path)
        return perform(route, Call(node, inside.split("/")[1], params), path)

    # -- what stands in for gRPC: never faulty, never secured, not in the log

    async def _private(self, request: web.Request) -> web.Response:
        call = Call(self._node, "v1", request.query)
        try:
            self._connected(request, call)
        except WrongError as error:
            return web.Response(status=error.status, text=error.message)
        except (ValueError, LookupError, WrongKindError) as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=str(error))
        return web.Response(text="ok")

    def _connected(self, request: web.Request, call: Call) -> None:
        spot = (request.method, request.match_info["what"])
        if spot == ("DELETE", "connection"):
            self.naming.close_connection(call.required("id"))
        elif spot == ("DELETE", "instance"):
            self.naming.deregister(call.service, call.required("connection"))
        elif spot == ("POST", "instance"):
            found = call.instance
            more: dict[str, Any] = {"weight": found.weight, "enabled": found.enabled}
            self.naming.register_grpc(
                call.service,
                *found.key,
                connection=call.required("connection"),
                metadata=found.metadata,
                **more,
            )
        else:
            raise LookupError("no such private path")

    async def _connection(self, request: web.Request) -> web.WebSocketResponse:
        """Hold a client's connection: when it ends, even by SIGKILL, its instances go."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            async for _ in socket:
                pass
        finally:
            self._sockets.discard(socket)
            if not self._stopping.is_set():  # else the node died, not the client
                self.naming.close_connection(request.query["id"])
        return socket


@asynccontextmanager
async def cluster(
    size: int,
    dialect: Dialect = "3.1",
    *,
    naming: Naming | None = None,
    access: Access | None = None,
    push_delays: tuple[float, ...] = (),
    auth: Auth | None = None,
) -> AsyncIterator[list[Double]]:
    """Run several nodes on free ports over one registry; `push_delays` from the first on."""
    naming = naming or Naming(sticky=dialect != "1.4")
    access = access or Access()
    delays = (*push_delays, *[0.5] * size)[:size]
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Double(dialect, naming=naming, access=access, push_delay=delay, auth=auth))
            for delay in delays
        ]
