"""Our own connections are told from a caller's: real servers look at the port that they are called from."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from needs import lacking, told_in_a_network_of_its_own

from sidecar.adapters.process import PodProcess, addresses
from sidecar.http import Http
from sidecar.ours import LINGER, MOST, VISITORS, Ours


HERE = ["127.0.0.1", "::1", "127.0.0.9"]


@dataclass
class App:
    """A server that notes where each request and each connection comes from, and whether we own up to it by then."""

    ours: Ours
    port: int = 0
    requests: list[tuple[str, int]] = field(default_factory=list)
    connections: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    strangers: list[int] = field(default_factory=list)

    async def on_request(self, request: web.Request) -> web.Response:
        """Answer, and note."""
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.requests.append(peer[:2])
        self._check(peer[1])
        return web.Response(text="ok")

    async def on_connection(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say nothing, and note."""
        port = writer.get_extra_info("peername")[1]
        self._check(port)
        writer.close()
        self.connections.put_nowait(port)

    def _check(self, port: int) -> None:
        if port not in self.ours.ports():
            self.strangers.append(port)


def url(host: str, app: App) -> str:
    return f"http://[{host}]:{app.port}/" if ":" in host else f"http://{host}:{app.port}/"


@asynccontextmanager
async def serving(host: str) -> AsyncIterator[App]:
    """An HTTP server there."""
    app, program = App(Ours()), web.Application()
    program.router.add_route("*", "/", app.on_request)
    runner = web.AppRunner(program)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    app.port = runner.addresses[0][1]
    try:
        yield app
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(ours: Ours | None) -> AsyncIterator[Http]:
    """What the adapters call through."""
    http = Http(ours)
    try:
        yield http
    finally:
        await http.close()


# -- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HERE)
async def test_the_port_that_the_server_sees_is_ours_for_kept_and_for_fresh_connections(host: str) -> None:
    async with serving(host) as app, client(app.ours) as http:
        for fresh in (False, False, True, True):
            assert (await http.request("GET", url(host, app), fresh=fresh)).text == "ok"
        ports = [port for _, port in app.requests]
        assert ports[0] == ports[1]  # kept
        assert len(set(ports)) == 3
        assert not app.strangers
        assert app.ours.ports() == set(ports)


async def test_all_requests_at_once_are_ours() -> None:
    async with serving("127.0.0.1") as app, client(app.ours) as http:
        await asyncio.gather(*(http.request("POST", url("127.0.0.1", app), body=b"x") for _ in range(50)))
        assert len(app.requests) == 50
        assert not app.strangers


async def test_the_port_of_somebody_else_is_not_ours() -> None:
    async with serving("127.0.0.1") as app, client(app.ours) as http, client(None) as other, client(Ours()) as another:
        for each in (http, other, another):
            await each.request("GET", url("127.0.0.1", app))
        first, *rest = [port for _, port in app.requests]
        assert app.ours.ports() == {first}
        assert app.strangers == rest


async def test_it_is_known_before_the_first_packet() -> None:
    ours = Ours()
    for family in (socket.AF_INET, socket.AF_INET6):
        with ours.new(family) as made:
            assert not made.getblocking()
            assert made.getsockname()[1] in ours.ports()


async def test_a_name_of_both_families_is_called_as_ever() -> None:
    """Happy eyeballs: the socket of the family that loses is ours too, and in nobody's way."""
    async with serving("127.0.0.1") as app, client(app.ours) as http:
        assert (await http.request("GET", f"http://localhost:{app.port}/")).text == "ok"
        assert not app.strangers


async def test_a_destination_that_is_not_loopback_sees_the_address_that_it_would_have_seen() -> None:
    if not addresses():
        lacking("this machine has no address but loopback")
    for host in addresses():
        async with serving(host) as app, client(app.ours) as http, client(None) as plain:
            for each in (http, plain):
                await each.request("GET", url(host, app))
            (bound, port), (unbound, _) = app.requests
            assert bound == unbound  # another one, where docker masquerades even what stays on this machine
            assert app.ours.ports() == {port}


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_closed_one_is_remembered_for_a_minute_and_an_open_one_for_good() -> None:
    ours = Ours()
    with ours.new(socket.AF_INET) as kept:
        closed, dropped = ours.new(socket.AF_INET), ours.new(socket.AF_INET6)
        ports = {each.getsockname()[1] for each in (kept, closed, dropped)}
        await asyncio.sleep(10 * LINGER)
        assert ours.ports() == ports
        closed.close()
        dropped.close()
        del dropped
        assert ours.ports() == ports
        await asyncio.sleep(LINGER - 0.1)
        assert ours.ports() == ports
        await asyncio.sleep(0.1)
        assert ours.ports() == {kept.getsockname()[1]}


async def test_of_many_the_newest_are_remembered_and_those_that_are_still_open() -> None:
    ours, made = Ours(), []
    with ours.new(socket.AF_INET) as kept:
        for _ in range(MOST + 100):
            with ours.new(socket.AF_INET) as one:
                made.append(one.getsockname()[1])
        newest = list(dict.fromkeys(reversed(made)))
        # The very last one was still open when it was counted.
        assert ours.ports() == {kept.getsockname()[1], *newest[: MOST + 1]}


# -- knocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [*HERE, "0.0.0.0", "::"])
async def test_a_knock_is_ours(host: str) -> None:
    app = App(Ours())
    server = await asyncio.start_server(app.on_connection, host, 0)
    app.port = server.sockets[0].getsockname()[1]
    async with server:
        assert not await PodProcess(ours=app.ours).hung(frozenset({app.port}))
        async with asyncio.timeout(5):
            port = await app.connections.get()
    assert not app.strangers
    assert app.ours.ports() == {port}  # and it was the only one


# -- where something runs short --------------------------------------------------------------------------------------


def test_with_no_port_left_to_bind_the_app_is_called_all_the_same() -> None:
    """The connection counts as a caller's then, and the drain waits: a call that is not made costs more."""
    told = told_in_a_network_of_its_own("cornered.py", "ports")
    assert told == {"taken": [40000, 40001], "said": "ok", "shared": True, "hung": False, "ours": []}


def test_without_ipv6_on_loopback_a_listener_of_both_families_is_knocked_at_by_ipv4() -> None:
    assert told_in_a_network_of_its_own("cornered.py", "ipv6") == {"open": False, "full": True}


async def test_a_visitors_connections_are_known_to_whoever_watches_here() -> None:
    """`nacos-drain doctor` beside a sidecar: another process, and another memory."""
    async with serving("127.0.0.1") as app, client(Ours(visiting=True)) as http:
        for fresh in (True, True, False):
            await http.request("GET", url("127.0.0.1", app), fresh=fresh)
        assert len(app.requests) == 3
        assert all(port in VISITORS for _, port in app.requests)


async def test_a_visitor_that_finds_its_ports_taken_asks_all_the_same() -> None:
    held = []
    try:
        for port in VISITORS:
            held.append(socket.socket())
            with contextlib.suppress(OSError):  # the test before has left some in TIME_WAIT
                held[-1].bind(("", port))
        async with serving("127.0.0.1") as app, client(Ours(visiting=True)) as http:
            await http.request("GET", url("127.0.0.1", app))
        assert len(app.requests) == 1
        assert app.requests[0][1] not in VISITORS, "a sidecar takes it for a call, and waits for longer"
    finally:
        for each in held:
            each.close()
