"""The Dubbo adapter against a scripted QoS port, which answers as the real ones did and registers on the double.

The same on a real Dubbo provider: tests/real/test_dubbo_provider.py.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

from sidecar import drain
from sidecar.adapters.dubbo import DubboQos
from sidecar.demo.double import Double, Service
from sidecar.http import Answer, Http
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Road


PROGRAM = Path(__file__).parents[1] / "programs/scripted_qos.py"
ORDERS, PAYMENTS, SHOP = "providers:shop.Orders:1.0.0:", "providers:shop.Payments:1.0.0:", "shop-app"
INTERFACES = {(ORDERS, 20880), (ORDERS, 20881), (PAYMENTS, 20880), (PAYMENTS, 20881)}
ALL = INTERFACES | {(SHOP, 20880)}
RELEASES = ("2.7.23", "3.1.11", "3.2.16", "3.3.5")

Called = Callable[[DubboQos], Awaitable[None]]
COMMANDS: dict[str, Called] = {"offline": lambda qos: qos.offline("dubbo"), "online": lambda qos: qos.online("dubbo")}
CALLS: dict[str, Called] = COMMANDS | {"ls": DubboQos.answers}
each_command = pytest.mark.parametrize("call", COMMANDS.values(), ids=COMMANDS)
each_call = pytest.mark.parametrize(("name", "call"), CALLS.items(), ids=CALLS)


@dataclass
class Provider:
    """A process of `scripted_qos.py`, the adapter before it and the registry behind it."""

    http: Http
    address: str
    double: Double
    process: asyncio.subprocess.Process

    @property
    def qos(self) -> DubboQos:
        """The adapter."""
        return DubboQos(self.http, self.address)

    @property
    def registered(self) -> set[tuple[str, int]]:
        """Every service and port of the app that the registry holds."""
        naming = self.double.naming
        return {(name, found.port) for name in (ORDERS, PAYMENTS, SHOP) for found in naming.merged(Service(name))}

    async def answer(self, command: str) -> Answer:
        """What it says to others than the adapter."""
        return await self.http.request("GET", f"http://{self.address}/{command}", fresh=True)

    async def publish(self) -> None:
        """Let the second pass after which Dubbo publishes by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"publish\n")
        assert await self.process.stdout.readline() == b"published\n"


@asynccontextmanager
async def client() -> AsyncIterator[Http]:
    http = Http()
    try:
        yield http
    finally:
        await http.close()


@asynccontextmanager
async def provider(
    *options: str, release: str = "3.3.5", interfaces: tuple[str, ...] = ("shop.Orders", "shop.Payments")
) -> AsyncIterator[Provider]:
    """Two interfaces on two ports each, registered."""
    named = [part for name in interfaces for part in ("--interface", name)]
    async with Double("2.2", push_delay=0.05) as double, client() as http:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(PROGRAM), "--nacos", double.address, "--application", SHOP),
            *(*named, "--port", "20880", "--port", "20881", "--release", release, *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            ready = (await process.stdout.readline()).decode().split()
            assert ready[0] == "ready"
            yield Provider(http, f"127.0.0.1:{ready[1]}", double, process)
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def stranger(*answers: bytes) -> AsyncIterator[tuple[DubboQos, list[str]]]:
    """Something else on that port, which gives one answer after the other, the last one for ever."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request.split()[1].decode())
        writer.write(answers[min(len(asked), len(answers)) - 1])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, client() as http:
        yield DubboQos(http, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), asked


def reply(status: int, body: str = "") -> bytes:
    """An answer as QoS gives it."""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


# -- out and back


async def test_the_road_is_the_cores() -> None:
    async with client() as http:
        assert DubboQos(http, "127.0.0.1:22222").roads == (Road(drain.DUBBO, undoable=True, inside=True),)


@pytest.mark.parametrize("release", RELEASES)
async def test_one_command_takes_every_service_on_every_port_out_and_one_brings_them_back(release: str) -> None:
    """The application's own instance too, of which 3.1 would not think by itself."""
    expected = INTERFACES if release.startswith("2.7") else ALL
    async with provider(release=release) as app:
        assert app.registered == expected
        for _ in range(2):  # a second one is OK as well
            await app.qos.offline("dubbo")
            assert app.registered == set()
        for _ in range(2):
            await app.qos.online("dubbo")
            assert app.registered == expected


async def test_the_app_is_asked_for_nothing_but_its_commands_and_to_publish_at_once() -> None:
    async with stranger(reply(200, "OK"), reply(404), reply(200, "publish metadata succeeded. App:x\n")) as (
        qos,
        asked,
    ):
        await qos.offline("dubbo")
        assert asked == ["/offline", "/publishMetadata", "/publish-metadata"]


@pytest.mark.parametrize("answer", [reply(404), reply(403), reply(500, "null"), b""])
async def test_what_cannot_be_published_now_is_left_to_dubbo(answer: bytes) -> None:
    """The interfaces are out: nothing that would be worth the next road at once."""
    async with stranger(reply(200, "OK"), answer) as (qos, asked):
        await qos.offline("dubbo")
        assert asked[:2] == ["/offline", "/publishMetadata"]


@each_command
async def test_without_services_there_is_nothing_to_command(call: Called) -> None:
    async with provider(interfaces=()) as app:
        with pytest.raises(Rejected, match=r"has no services for `(offline|online)`.*none is exported yet"):
            await call(app.qos)
        await app.qos.answers()


async def test_an_ok_is_no_proof() -> None:
    """What Dubbo does after it could not reach Nacos: it takes half for done, and then all."""
    async with provider("--lost") as app:
        with pytest.raises(
            Unavailable, match=r"has failed .* \(500\), perhaps half-way: .*can it reach Nacos\?"
        ) as told:
            await app.qos.offline("dubbo")
        assert not told.value.refused
        assert app.registered == {(PAYMENTS, 20880), (PAYMENTS, 20881), (SHOP, 20880)}
        await app.qos.offline("dubbo")
        assert app.registered == {(PAYMENTS, 20880), (PAYMENTS, 20881), (SHOP, 20880)}


async def test_the_password_in_its_failure_is_not_repeated() -> None:
    async with provider("--lost") as app:
        raw = await app.answer("offline")
        assert b"password=sekret" in raw.body
    async with provider("--lost") as app:
        with pytest.raises(Unavailable) as told:
            await app.qos.offline("dubbo")
        for each in (told.value, told.value.__cause__, told.value.__context__):
            assert "sekret" not in f"{each} {each!r}"


# -- refused


@each_call
@pytest.mark.parametrize("release", ["3.2.16", "3.3.5"])
async def test_a_403_names_loopback_and_what_would_let_us_in(release: str, name: str, call: Called) -> None:
    async with provider("--foreign", release=release) as app:
        with pytest.raises(
            Rejected, match=rf"refuses `{name}` at 127.* \(403\).*set NACOS_DRAIN_DUBBO_QOS to 127\.0\.0\.1"
        ):
            await call(app.qos)
        assert app.registered == ALL


@each_call
@pytest.mark.parametrize(("release", "level"), [("2.7.23", "PUBLIC"), ("3.1.11", "PUBLIC"), ("3.3.5", "NONE")])
async def test_a_refusal_in_bare_words_is_no_verdict(release: str, level: str, name: str, call: Called) -> None:
    """It is no HTTP, and no truth either."""
    async with provider("--foreign", "--level", level, release=release) as app:
        with pytest.raises(
            Unavailable, match=rf"refuses `{name}` to any but loopback, and may have done it: set"
        ) as told:
            await call(app.qos)
        assert not told.value.refused
        assert (ORDERS, 20880) in app.registered or name == "offline"
        assert (ORDERS, 20880) not in app.registered or name != "offline"


@each_call
async def test_a_closed_port_names_what_opens_it(name: str, call: Called) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with client() as http:
        with pytest.raises(
            Unavailable, match=rf"127.0.0.1:{port}: cannot connect .*qos-enable=true .*qos-port"
        ) as told:
            await call(DubboQos(http, f"127.0.0.1:{port}"))
        assert told.value.refused


# -- something else


@each_call
async def test_a_404_asks_whether_it_is_qos(name: str, call: Called) -> None:
    """Which Nacos itself is not, nor the web port of the app."""
    async with Double("2.2") as double, client() as http:
        with pytest.raises(
            Rejected, match=rf"`{name}` at {double.address} is unknown \(404\): is NACOS_DRAIN_DUBBO_QOS"
        ):
            await call(DubboQos(http, double.address))


@pytest.mark.parametrize("body", ["", "ok", "OK then", "<html>OK</html>", "true"])
async def test_a_200_in_other_words_is_no_verdict(body: str) -> None:
    async with stranger(reply(200, body)) as (qos, asked):
        for name, call in COMMANDS.items():
            with pytest.raises(Unavailable, match=f"`{name}` .* answers 200, but not as QoS does"):
                await call(qos)
        with pytest.raises(Rejected, match=r"`ls` .* answers 200, but not as QoS does"):
            await qos.answers()
        assert asked == ["/offline", "/online", "/ls"]


@each_call
@pytest.mark.parametrize(
    ("status", "error"), [(302, Rejected), (401, Rejected), (405, Rejected), (502, Unavailable), (503, Unavailable)]
)
async def test_a_status_that_is_not_of_qos_is_told_as_one(
    status: int, error: type[Exception], name: str, call: Called
) -> None:
    async with stranger(reply(status, "sekret")) as (qos, _):
        with pytest.raises(error, match=rf"`{name}` .* answers {status}, but not as QoS does") as told:
            await call(qos)
        assert "sekret" not in str(told.value)


@each_call
@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_a_port_that_speaks_something_else_is_no_verdict(said: bytes, name: str, call: Called) -> None:
    async with stranger(said) as (qos, _):
        with pytest.raises(
            Unavailable, match=r"Dubbo's QoS at 127\.0\.0\.1:\d+: (the connection broke|no valid HTTP).*qos-port\?"
        ) as told:
            await call(qos)
        assert not told.value.refused


async def test_a_port_that_says_nothing_is_left_to_the_callers_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with client() as http:
            qos = DubboQos(http, f"127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await qos.offline("dubbo")


# -- for doctor


@pytest.mark.parametrize("release", RELEASES)
async def test_to_ask_whether_it_would_obey_changes_nothing(release: str) -> None:
    async with provider(release=release) as app:
        before = app.registered
        await app.qos.answers()
        assert app.registered == before


async def test_a_road_of_somebody_else_is_a_mistake_of_ours() -> None:
    async with stranger(reply(200, "OK")) as (qos, asked):
        with pytest.raises(ValueError, match="no road of Dubbo: openapi"):
            await qos.offline("openapi")
        assert not asked


async def test_by_itself_dubbo_publishes_later() -> None:
    """The peer is not kinder than the real one: an `offline` alone leaves the application listed."""
    async with provider() as app:
        answer = await app.answer("offline")
        assert (answer.status, answer.text) == (200, "OK")
        assert app.registered == {(SHOP, 20880)}
        await app.publish()
        assert app.registered == set()
