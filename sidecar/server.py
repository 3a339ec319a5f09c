"""The HTTP surface: the preStop target of a kubelet, and the few words a person needs.

What shapes it (k8s-termination.md section 2): the kubelet sends GET to the pod's address, ignores the status code, has
no timeout and stops reading after 10 KiB; older ones ask for `//drain` and send no headers. So a drain is never tied to
the request that started it, the answer is small and comes when the app may stop, and a refusal must not be an answer at
once: it would mean an un-drained stop.
"""

import asyncio
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from weakref import WeakSet

from aiohttp import web

from .lease import Lease, Release, Trigger
from .report import shrunk
from .runner import Runner


HOOK_BYTES = 10_000  # a kubelet stops reading at 10,240
UNAUTHORISED_WAIT = 2.0
HEADER_TIMEOUT = 10.0  # a connection that has sent no request by then is closed
KUBELETS = ("kube-lifecycle/", "Go-http-client/")  # since 1.23, and before
SPOKEN = web.AppKey("spoken", WeakSet[asyncio.BaseTransport])  # connections on which a whole request came
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """Who may act. Without a configured token this stops accidents, not malice."""

    def __init__(
        self,
        token: Callable[[], str | None] | None,
        *,
        loopback_open: bool,
        release: Release,
        on_refused: Callable[[str, str], None] = lambda _path, _peer: None,
    ) -> None:
        self._token = token
        self._loopback_open = loopback_open
        self._release = release
        self._on_refused = on_refused

    def admits(self, request: web.Request, *, hook: bool = False) -> bool:
        """Whether this request may act; `hook` is a path that a kubelet calls."""
        admitted = self._admits(request, hook=hook)
        if not admitted:
            self._on_refused(request.path, request.remote or "?")
        return admitted

    def _admits(self, request: web.Request, *, hook: bool) -> bool:
        local = _loopback(request.remote)
        if self._token is not None:
            if local and self._loopback_open:
                return True
            expected, given = self._token(), request.headers.get("X-Drain-Token", "")
            return expected is not None and hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
        if local:
            return True
        kubelet = request.headers.get("User-Agent", "").startswith(KUBELETS)
        return hook and kubelet and self._release is Release.HOOK


def _loopback(remote: str | None) -> bool:
    """Exactly 127.0.0.1 and ::1: a mesh delivers foreign calls from 127.0.0.6."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address) in {"127.0.0.1", "::1"}


class Surface:
    """The routes over one runner, which may come later than the listening socket: binding is the first thing done."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._runner: Runner | None = None
        self._came = asyncio.Event()
        self._metrics: Callable[[], bytes] = lambda: b""
        self._about: Callable[[], dict[str, object]] = dict

    def attach(self, runner: Runner, *, metrics: Callable[[], bytes], about: Callable[[], dict[str, object]]) -> None:
        """Give the surface what it speaks for."""
        self._runner, self._metrics, self._about = runner, metrics, about
        self._came.set()

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=1024, middlewares=[_plain])
        app[SPOKEN] = WeakSet()
        for path in ("/drain", "//drain"):
            app.router.add_route("GET", path, self._drain)
            app.router.add_route("POST", path, self._drain)
        app.router.add_post("/resume", self._resume)
        app.router.add_post("/release", self._release)
        app.router.add_get("/status", self._status)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    async def _attached(self) -> Runner:
        await self._came.wait()
        assert self._runner is not None  # noqa: S101  set before the event
        return self._runner

    # -- acting ----------------------------------------------------------------------------------------------------

    async def _drain(self, request: web.Request) -> web.Response:
        wait, manual = request.query.get("wait", "1"), request.query.get("manual", "0")
        for name, value in (("wait", wait), ("manual", manual)):
            if value not in {"0", "1"} and request.method == "POST":  # a hook, always GET, would pass for drained
                return _error(400, f"{name}={value!r}: valid are 0 and 1")
        runner = await self._attached()
        if not self._door.admits(request, hook=True):
            return await self._refused_drain(runner)
        lease_id = runner.trigger(Trigger.MANUAL if manual == "1" else Trigger.HOOK)
        if wait == "0":
            return _json({"id": lease_id, "state": runner.drain.state.value}, status=202)
        lease = await runner.released(lease_id)
        return _json(_small(runner, lease, HOOK_BYTES))

    async def _refused_drain(self, runner: Runner) -> web.Response:
        """A kubelet takes a 401 for a success. So wait with it as long as somebody else's drain takes."""
        lease_id = await runner.draining(UNAUTHORISED_WAIT)
        if lease_id is not None:
            await runner.released(lease_id)
        return _error(401, "X-Drain-Token is missing or wrong; no drain was started")

    async def _resume(self, request: web.Request) -> web.Response:
        if not self._door.admits(request):
            return _error(401, "X-Drain-Token is missing or wrong")
        runner = await self._attached()
        refusal = runner.resume()
        if refusal is not None:
            return _error(501 if refusal.for_good else 409, f"cannot resume: {refusal.reason}")
        return _json({"state": runner.drain.state.value})

    async def _release(self, request: web.Request) -> web.Response:
        if not self._door.admits(request):
            return _error(401, "X-Drain-Token is missing or wrong")
        runner = await self._attached()
        if not runner.release():
            return _error(409, f"no drain is waiting: the state is {runner.drain.state.value}")
        return _json({"state": runner.drain.state.value})

    # -- telling ---------------------------------------------------------------------------------------------------

    async def _status(self, _: web.Request) -> web.Response:
        runner = await self._attached()
        return _json({**self._about(), "report": runner.report()})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        """A start gate that latches: it never turns red because Nacos did."""
        runner = self._runner
        if runner is not None and runner.drain.ready:
            return web.Response(text="ready\n")
        reason = "starting" if runner is None else "the instance was not yet seen in Nacos"
        return web.Response(status=503, text=f"not ready: {reason}\n")

    async def _show_metrics(self, _: web.Request) -> web.Response:
        await self._attached()
        body = self._metrics()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


@web.middleware
async def _plain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as one line of JSON, and no connection that outlives its answer: a kubelet would reuse it later."""
    if request.transport is not None:
        request.app[SPOKEN].add(request.transport)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _error(error.status, error.reason)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    if request.path.endswith("drain"):
        response.force_close()
    return response


def _json(body: object, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


def _small(runner: Runner, lease: Lease | None, limit: int) -> dict[str, object] | None:
    """The report, with its lists cut until it fits."""
    told = runner.report(lease)
    return None if told is None else shrunk(told, limit)


# -- listening -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(app: web.Application, sock: socket.socket) -> AsyncIterator[None]:
    """Serve on a bound socket until the block ends. Signals are not touched: SIGTERM must not close the listener."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0, keepalive_timeout=15.0)
    await runner.setup()

    def protocol() -> asyncio.Protocol:
        """Aiohttp's own; one that sent no whole request in time is hung up, which aiohttp does only between two."""
        assert runner.server is not None  # noqa: S101  set up above
        made = runner.server()
        loop.call_later(HEADER_TIMEOUT, _hang_up, made, app[SPOKEN])
        return made

    try:
        server = await loop.create_server(protocol, sock=sock)
        try:
            yield
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _hang_up(made: web.RequestHandler, spoken: WeakSet[asyncio.BaseTransport]) -> None:
    if made.transport is not None and made.transport not in spoken:
        made.transport.close()
