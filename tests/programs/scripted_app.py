"""A Spring Cloud Alibaba app as a sidecar meets it: a port, an actuator, a registration that is real, and an end.

What five lines of Spring Cloud Alibaba answer, do to Nacos and do on SIGTERM is played after rollout-baseline.md
sections 3 and 4; with `--nacos`, which needs `.venv-real`, it happens to a registration over gRPC, without to nobody.
It says `ready PORT MANAGEMENT-PORT` once it listens and is registered; with `--log` every request to the actuator as
`request {...}`; with `--control` it obeys lines on stdin, says `done LINE` after each, and ends with it: register,
deregister, fault ENDPOINT=WHAT, clear, and sync, which does nothing.

    scripted_app.py [--nacos HOST:PORT --service NAME…] [--generation 2025.1] [--fault health=503] …
"""

import argparse
import asyncio
import contextlib
import hmac
import json
import signal
import ssl
import sys
import tempfile
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import aiohttp
from aiohttp import web


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STARTED_CLOSING = 0.4  # seconds from SIGTERM to the exit of an app without a built-in wait
SHUTDOWN_DELAY = 0.5  # from the answer of /shutdown to the start of the same
SPRING_JSON = {"application/json", *(f"application/vnd.spring-boot.actuator.v{n}+json" for n in (2, 3))}
LOGIN_PAGE = "<!DOCTYPE html><html><body><form>Please sign in, {username} / {password}</form></body></html>"


@dataclass(frozen=True)
class Generation:
    """What the lines of Spring Cloud Alibaba do differently."""

    down: str  # overlay: enabled=false by v1 OpenAPI; again: registered again, disabled; removal: deregistered
    told_wait: bool  # gracefulShutdownWaitTime is among its properties
    waits_on_term: bool  # and it is heeded on SIGTERM; by /shutdown it always is
    client: str  # the version of its Nacos client
    cluster: str = ""  # its spelling of DEFAULT


GENERATIONS = {
    "2021": Generation("overlay", told_wait=False, waits_on_term=False, client="2.2.0", cluster="DEFAULT"),
    "2023.0.1": Generation("overlay", told_wait=False, waits_on_term=False, client="2.4.2"),
    "2023.0.3": Generation("overlay", told_wait=True, waits_on_term=True, client="2.4.3"),
    "2025.0": Generation("again", told_wait=True, waits_on_term=False, client="3.0.3"),
    "2025.1": Generation("removal", told_wait=True, waits_on_term=True, client="3.1.1"),
}
STARTER, REGISTRATION = "nacos-deregister", "nacos-deregister/registration"


class RefusedError(Exception):
    """Nacos would not; the app answers 500."""


class Registration(Protocol):
    """The app's place in Nacos."""

    async def open(self) -> None: ...
    async def register(self, *, enabled: bool) -> None: ...
    async def deregister(self) -> None: ...
    async def overlay(self, *, enabled: bool) -> None: ...
    async def close(self) -> None: ...


class Nowhere:
    """No Nacos: everything works, nobody is told."""

    async def open(self) -> None:
        """Connect."""

    async def register(self, *, enabled: bool) -> None:
        """Register, or register again."""

    async def deregister(self) -> None:
        """Take the registration back."""

    async def overlay(self, *, enabled: bool) -> None:
        """Switch it by the OpenAPI, as clients of 2.x do."""

    async def close(self) -> None:
        """Disconnect."""


class Nacos:
    """One gRPC connection, holding one instance of each service."""

    def __init__(self, options: argparse.Namespace, port: int) -> None:
        self._options = options
        self._port = port
        self._scratch = tempfile.TemporaryDirectory(prefix="scripted-app-")
        self._naming: Any = None

    async def open(self) -> None:
        """Connect."""
        from v2.nacos import ClientConfigBuilder, NacosNamingService  # noqa: PLC0415  seconds of imports

        options = self._options
        builder = ClientConfigBuilder().server_address(options.nacos).namespace_id(options.namespace)
        builder = builder.log_dir(self._scratch.name).cache_dir(self._scratch.name)
        if options.username:
            builder = builder.username(options.username).password(options.password)
        config = builder.load_cache_at_start(load_cache_at_start=False).build()
        self._naming = await NacosNamingService.create_naming_service(config)

    async def register(self, *, enabled: bool) -> None:
        """Register, or register again."""
        from v2.nacos import RegisterInstanceParam  # noqa: PLC0415

        for service in self._options.service:
            instance = RegisterInstanceParam(**self._key(service), enabled=enabled, metadata=metadata(self._options))
            await self._naming.register_instance(instance)

    async def deregister(self) -> None:
        """Take the registration back."""
        from v2.nacos import DeregisterInstanceParam  # noqa: PLC0415

        for service in self._options.service:
            await self._naming.deregister_instance(DeregisterInstanceParam(**self._key(service)))

    async def overlay(self, *, enabled: bool) -> None:
        """Switch it by the OpenAPI, as clients of 2.x do: Nacos 3 answers 410."""
        options = self._options
        async with aiohttp.ClientSession() as session:
            for service in options.service:
                query = {
                    "serviceName": service,
                    "groupName": options.group,
                    "namespaceId": options.namespace,
                    "clusterName": options.cluster,
                    "ip": options.ip,
                    "port": str(self._port),
                    "weight": "1.0",
                    "enabled": str(enabled).lower(),
                    "ephemeral": "true",
                    "metadata": json.dumps(metadata(options)),
                }
                url = f"http://{options.nacos}/nacos/v1/ns/instance"
                async with session.put(url, params=query) as answer:
                    if answer.status != 200:
                        raise RefusedError(f"update nacos instance status fail: {answer.status}")

    async def close(self) -> None:
        """Disconnect."""
        await self._naming.shutdown()
        self._scratch.cleanup()

    def _key(self, service: str) -> dict[str, Any]:
        options = self._options
        return {
            "service_name": service,
            "group_name": options.group,
            "cluster_name": options.cluster,
            "ip": options.ip,
            "port": self._port,
        }


def metadata(options: argparse.Namespace) -> dict[str, str]:
    """What the starter registers besides its own."""
    own = {"preserved.register.source": "SPRING_CLOUD"}
    if options.management_port is not None:
        own["management.port"] = str(options.management_port)
    return own | dict(options.metadata)


class App:
    """The Spring application: its registration and its life."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.generation = GENERATIONS[options.generation]
        self.port = -1  # Spring knows it when it registers
        self.online = False
        self.removed = False  # by our starter
        self.ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._registration: Registration = Nowhere()

    async def start(self, port: int) -> None:
        """Connect, and register unless told not to."""
        if self.options.nacos:
            self._registration = Nacos(self.options, port)
        self._port = port
        await self._registration.open()
        if not (self.options.register_disabled or self.options.unregistered):
            await self.register()

    async def register(self, *, enabled: bool = True) -> None:
        """Register, or register again."""
        await self._registration.register(enabled=enabled)
        self.port, self.online, self.removed = self._port, enabled, False

    async def deregister(self) -> None:
        """Take the registration back, as `NacosServiceRegistry.deregister` does."""
        await self._registration.deregister()
        self.online = False

    @property
    def state(self) -> str:
        """As our starter tells it."""
        if self.options.register_disabled:
            return "DISABLED"
        return "STARTING" if self.port < 0 else "DOWN" if self.removed else "UP"

    async def set_status(self, status: str) -> None:
        """Do what `NacosServiceRegistry.setStatus` does in this generation; an unknown status is none of its."""
        if status.upper() not in {"UP", "DOWN"}:
            return
        up = status.upper() == "UP"
        match self.generation.down:
            case "overlay":
                await self._registration.overlay(enabled=up)
                self.online = up
            case "again":
                await self.register(enabled=up)
            case _:
                await (self.register() if up else self.deregister())

    def end(self, how: str) -> None:
        """Begin to stop, once."""
        if not self.ending.done():
            self.ending.set_result(how)

    async def stop(self, how: str, close_ports: Callable[[], Awaitable[None]]) -> None:
        """Stop in this generation's order."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        if self.generation.told_wait and (self.generation.waits_on_term or how == "shutdown"):
            await self.deregister()
            await asyncio.sleep(self.options.stop_wait)
            await close_ports()
        else:
            await close_ports()
            await self.deregister()
            await asyncio.sleep(start + STARTED_CLOSING - loop.time())
        await self._registration.close()


class Actuator:
    """The app's actuator, over HTTP."""

    def __init__(self, app: App, out: TextIO) -> None:
        self.faults: dict[str, str] = dict(app.options.fault)
        self._app = app
        self._options = app.options
        self._out = out
        self._endpoints: dict[str, dict[str, Handler]] = {
            "health": {"GET": self._health},
            "nacosdiscovery": {"GET": self._nacosdiscovery},
            "nacos-deregister": {"POST": self._nacos_deregister},
            "serviceregistry": {"GET": self._status, "POST": self._set_status},
            "service-registry": {"GET": self._status, "POST": self._set_status},
            "shutdown": {"POST": self._shutdown},
        }
        if app.options.starter:
            self._endpoints[STARTER] = {"GET": self._registration, "POST": self._starter}
            self._endpoints[REGISTRATION] = {"GET": self._registration}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request below the base path."""
        name = "/".join(filter(None, map(request.match_info.get, ("endpoint", "part"))))
        await self._log(request)
        fault = self.faults.get(name, "")
        if fault.endswith("s"):
            await asyncio.sleep(float(fault[:-1]))
        elif fault:
            return await self._break(request, fault)
        if self._options.basic:
            expected = "Basic " + b64encode(self._options.basic.encode()).decode()
            if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode()):
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="Realm"'})
        methods = self._endpoints.get(name)
        if methods is None or request.match_info["endpoint"] not in self._options.endpoints:
            return self.error(request, 404)
        if request.method == "OPTIONS":
            return web.Response(headers={"Allow": ",".join([*methods, "OPTIONS"])})
        if request.method not in methods:
            return self.error(request, 405)
        return await methods[request.method](request)

    def error(self, request: web.Request, status: int) -> web.Response:
        """Answer as Spring Boot's error page does, in the worst case with a secret in its message."""
        message = f"login as {self._options.username} with {self._options.password} failed"
        told = {"timestamp": "2026-01-31T12:00:00.000+00:00", "status": status, "error": "Error", "message": message}
        return web.json_response(told | {"path": request.path}, status=status)

    async def _log(self, request: web.Request) -> None:
        if self._options.log:
            body = (await request.read()).decode()
            headers = {name.lower(): value for name, value in request.headers.items()}
            told = {"method": request.method, "path": request.path_qs, "headers": headers, "body": body}
            say(self._out, f"request {json.dumps(told)}")

    async def _break(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
        if fault == "html":
            page = LOGIN_PAGE.format(username=self._options.username, password=self._options.password)
            return web.Response(text=page, content_type="text/html")
        headers = {"Location": "https://127.0.0.1/login"} if fault.startswith("3") else {}
        answer = self.error(request, int(fault) if fault.isdigit() else 500)
        answer.headers.update(headers)
        return answer

    # -- endpoints -------------------------------------------------------------------------------------------------

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return _spring({"status": "UP"})

    async def _nacosdiscovery(self, _request: web.Request) -> web.StreamResponse:
        options, app = self._options, self._app
        login = {"username": options.username, "password": options.password}
        cluster = options.cluster if options.cluster != "DEFAULT" else app.generation.cluster
        properties: dict[str, Any] = {
            "serverAddr": options.nacos or "127.0.0.1:8848",
            **login,
            "endpoint": "",
            "namespace": "" if options.namespace == "public" else options.namespace,
            "watchDelay": 30000,
            "logName": "",
            "service": options.service[0],
            "weight": 1.0,
            "clusterName": cluster,
            "group": options.group,
            "namingLoadCacheAtStart": "false",
            "metadata": metadata(options),
            "registerEnabled": not options.register_disabled,
            "ip": options.ip,
            "networkInterface": "",
            "ipType": None,
            "port": app.port,
            "secure": False,
            "accessKey": "",
            "secretKey": "",
            "heartBeatInterval": None,
            "heartBeatTimeout": None,
            "ipDeleteTimeout": None,
            "instanceEnabled": True,
            "ephemeral": True,
            "failureToleranceEnabled": False,
            "failFast": True,
            "nacosProperties": {"serverAddr": options.nacos or "127.0.0.1:8848", **login, "secretKey": ""},
        }
        if app.generation.told_wait:
            properties["gracefulShutdownWaitTime"] = round(options.stop_wait * 1000)
        return _spring({"subscribe": [], "NacosDiscoveryProperties": properties})

    async def _nacos_deregister(self, request: web.Request) -> web.StreamResponse:
        """Take the app out, as users write it; `{"status": "UP"}` brings it back."""
        body, kind = await request.text(), _content_type(request)
        if kind not in SPRING_JSON and (kind or body):
            return self.error(request, 415)
        told = json.loads(body) if body else {}
        up = told.get("status") == "UP"
        try:
            if self._options.deregister == "removal":
                await (self._app.register() if up else self._app.deregister())
            else:
                await self._app.set_status("UP" if up else "DOWN")
        except RefusedError:
            return self.error(request, 500)
        return _spring("ok")

    async def _starter(self, request: web.Request) -> web.StreamResponse:
        """Truly remove, or register again: what `examples/spring-boot-starter` does."""
        body, kind = await request.text(), _content_type(request)
        if kind not in SPRING_JSON and (kind or body):
            return self.error(request, 415)
        status = "DOWN"
        if kind:  # only then Spring looks at the query, too
            try:
                told = dict(json.loads(body or "{}")) | dict(request.query)
            except (TypeError, ValueError):
                return self.error(request, 400)
            if "status" not in told:
                return self.error(request, 400)
            status = told["status"]
        if status not in {"UP", "DOWN"}:
            return _spring({"reason": "status is neither DOWN nor UP"}, 400)
        if self._app.state in {"DISABLED", "STARTING"}:
            return _spring({"reason": "the app has not registered"}, 409)
        try:
            await (self._app.register() if status == "UP" else self._app.deregister())
        except Exception as error:  # noqa: BLE001  whatever the client has raised
            return _spring({"reason": f"{type(error).__name__} at Nacos"}, 500)
        self._app.removed = status == "DOWN"
        return await self._registration(request)

    async def _registration(self, _request: web.Request) -> web.StreamResponse:
        options, app = self._options, self._app
        told: dict[str, object] = {
            "service": options.service[0],
            "group": options.group,
            "namespace": "" if options.namespace == "public" else options.namespace,
            "cluster": options.cluster,
            "ip": options.ip,
            "port": app.port,
            "ephemeral": True,
            "registerEnabled": not options.register_disabled,
            "state": app.state,
            "serverAddr": options.nacos or "127.0.0.1:8848",
        }
        if app.generation.told_wait:
            told["gracefulShutdownWaitTime"] = round(options.stop_wait * 1000)
        return _spring(told | {"nacosClient": app.generation.client})

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="UP" if self._app.online else "")

    async def _set_status(self, request: web.Request) -> web.StreamResponse:
        if _content_type(request) not in SPRING_JSON:
            return self.error(request, 415)
        told = json.loads(await request.text() or "{}")
        status = request.query.get("status") or (told.get("status") if isinstance(told, dict) else None)
        if not status:
            return self.error(request, 400)
        try:
            await self._app.set_status(status)
        except RefusedError:
            return self.error(request, 500)
        return web.Response()

    async def _shutdown(self, _request: web.Request) -> web.StreamResponse:
        asyncio.get_running_loop().call_later(SHUTDOWN_DELAY, self._app.end, "shutdown")
        return _spring({"message": "Shutting down, bye..."})


def _content_type(request: web.Request) -> str:
    """As it came; nothing when none did, which is another thing to Spring than any."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _spring(body: object, status: int = 200) -> web.Response:
    kind = "application/vnd.spring-boot.actuator.v3+json"
    return web.Response(text=json.dumps(body), status=status, content_type=kind)


def say(out: TextIO, text: str) -> None:
    """Write a line at once."""
    out.write(f"{text}\n")
    out.flush()


class Servers:
    """The app's port and the actuator's, which may be one."""

    def __init__(self, options: argparse.Namespace, actuator: Actuator) -> None:
        self._options = options
        self._actuator = actuator
        self._runners: list[web.AppRunner] = []
        self.ports: list[int] = []

    async def open(self) -> None:
        """Listen."""
        options, tls = self._options, None
        if options.tls:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(*options.tls)
        if options.management_port is None:
            await self._listen(options.port, tls, manages=True)
            self.ports *= 2
        else:
            await self._listen(options.port, None, manages=False)
            await self._listen(options.management_port, tls, manages=True)
            options.management_port = self.ports[-1]

    async def _listen(self, port: int, tls: ssl.SSLContext | None, *, manages: bool) -> None:
        app = web.Application()
        base = self._options.base_path.rstrip("/")
        if manages:
            app.router.add_route("*", f"{base}/{{endpoint}}", self._actuator.answer)
            app.router.add_route("*", f"{base}/{{endpoint}}/{{part}}", self._actuator.answer)
        if manages and self._options.management_port is not None:
            app.router.add_route("*", "/{path:.*}", self._nothing)
        else:
            app.router.add_route("*", f"{base or '/actuator'}/{{path:.*}}", self._nothing)
            app.router.add_get("/{path:.*}", self._page)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self._options.ip, port, ssl_context=tls)
        await site.start()
        self._runners.append(runner)
        self.ports.append(runner.addresses[0][1])

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        return self._actuator.error(request, 404)

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def close(self) -> None:
        """Close the ports and whatever is on them."""
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))


async def obey(app: App, actuator: Actuator, out: TextIO) -> None:
    """Carry out the lines on stdin; its end is ours."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode().strip():
        match line.split():
            case ["register"]:
                await app.register()
            case ["deregister"]:
                await app.deregister()
            case ["fault", what]:
                actuator.faults |= dict([_pair(what)])
            case ["clear"]:
                actuator.faults.clear()
            case ["sync"]:
                pass
            case _:
                raise ValueError(f"no such command: {line}")
        say(out, f"done {line}")


async def run(options: argparse.Namespace, out: TextIO) -> int:
    """Live until SIGTERM, /shutdown, or the end of stdin."""
    app = App(options)
    actuator = Actuator(app, out)
    servers = Servers(options, actuator)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.end, "SIGTERM")
    await servers.open()
    await app.start(servers.ports[0])
    say(out, f"ready {servers.ports[0]} {servers.ports[1]}")
    obeying = asyncio.create_task(obey(app, actuator, out)) if options.control else None
    if obeying is not None:
        obeying.add_done_callback(lambda _: app.end("stdin"))  # its end, or a command that failed
    how = await app.ending
    await app.stop(how, servers.close)
    if obeying is not None:
        obeying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await obeying
    return 143 if how == "SIGTERM" else 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text}")
    return name, value


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser()
    made.add_argument("--nacos", metavar="HOST:PORT", help="where it really registers; without it, nowhere")
    made.add_argument("--username", default="", help="at Nacos; shown by nacosdiscovery")
    made.add_argument("--password", default="")
    made.add_argument("--service", action="append", help="several by repeating; nacosdiscovery shows the first")
    made.add_argument("--group", default="DEFAULT_GROUP")
    made.add_argument("--namespace", default="public")
    made.add_argument("--cluster", default="DEFAULT")
    made.add_argument("--metadata", type=_pair, action="append", default=[], metavar="NAME=VALUE")
    made.add_argument("--ip", default="127.0.0.1", help="where it listens and what it registers")
    made.add_argument("--port", type=int, default=0)
    made.add_argument("--management-port", type=int, help="0: a free one; without it, the app's port")
    made.add_argument("--base-path", default="/actuator")
    made.add_argument("--generation", choices=GENERATIONS, default="2023.0.1")
    made.add_argument("--deregister", choices=["folk", "removal"], default="folk", help="what nacos-deregister does")
    made.add_argument("--starter", action="store_true", help="nacos-deregister is our starter's")
    made.add_argument(
        "--endpoints",
        type=lambda text: text.split(","),
        help="those exposed; default: what is open by default, by their new names",
    )
    made.add_argument(
        "--fault", type=_pair, action="append", default=[], metavar="ENDPOINT=STATUS|SECONDSs|hang|reset|html"
    )
    made.add_argument("--basic", metavar="USER:PASSWORD", help="basic auth before the actuator")
    made.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="for the actuator's port")
    made.add_argument("--register-disabled", action="store_true", help="registerEnabled=false")
    made.add_argument("--unregistered", action="store_true", help="not registered until told on stdin")
    made.add_argument("--stop-wait", type=float, default=0.5, help="gracefulShutdownWaitTime, in seconds")
    made.add_argument("--log", action="store_true")
    made.add_argument("--control", action="store_true")
    made.set_defaults(service=None, endpoints=["health", "nacosdiscovery", "nacos-deregister", "serviceregistry"])
    return made


def main() -> None:
    """Run the app."""
    options = parser().parse_args()
    options.service = options.service or ["scripted"]
    out, sys.stdout = sys.stdout, sys.stderr  # the client prints now and then
    sys.exit(asyncio.run(run(options, out)))


if __name__ == "__main__":
    main()
