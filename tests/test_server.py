"""The HTTP surface on real sockets, over a runner in a small simulated world."""

import asyncio
import io
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp.test_utils import make_mocked_request
from sim import SimApp, SimNacos, World, rules

from sidecar import server
from sidecar.lease import Release, Trigger
from sidecar.listener import bind
from sidecar.registration import Instance, Service
from sidecar.server import Door, Surface, serving
from sidecar.telemetry import TERMINATION_BYTES, Metrics, Voices, configure


KUBELET = "kube-lifecycle/1.32"


@dataclass
class Served:
    """A surface that listens, and a client."""

    surface: Surface
    world: World
    http: aiohttp.ClientSession
    url: str
    metrics: Metrics

    def attach(self) -> None:
        """Let the runner come."""
        self.surface.attach(self.world.runner, metrics=self.metrics.text, about=self.about)

    def about(self) -> dict[str, object]:
        """What /status tells besides the report."""
        return {"state": self.world.runner.drain.state.value}

    async def ask(self, method: str, path: str, **headers: str) -> tuple[int, Any]:
        """One request."""
        async with self.http.request(method, self.url + path, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text


def door(token: str | None = None, *, loopback_open: bool = False, release: Release = Release.HOOK) -> Door:
    return Door(None if token is None else lambda: token, loopback_open=loopback_open, release=release)


@asynccontextmanager
async def served(
    door_: Door | None = None, *, grace: float = 30, attached: bool = True, registered: bool = True
) -> AsyncIterator[Served]:
    """A surface over a runner; `grace` less the margin of 3 s is the budget."""
    world = World(rules(grace, app_stop=0, cache=0), SimNacos(), SimApp())
    if registered:
        world.nacos.register()
    surface = Surface(door_ or door())
    with bind("127.0.0.1", 0) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with serving(surface.app(), sock), world.runner.running(), aiohttp.ClientSession() as http:
            made = Served(surface, world, http, url, Metrics())
            if attached:
                made.attach()
            yield made


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the runner announces no single step
            await asyncio.sleep(0.01)


# -- who may act -----------------------------------------------------------------------------------------------------

LOCAL, MESH, ELSEWHERE = "127.0.0.1", "127.0.0.6", "10.0.0.9"


@pytest.mark.parametrize(
    ("door_", "remote", "headers", "admitted_to_drain", "admitted_elsewhere"),
    [
        (door(), LOCAL, {}, True, True),
        (door(), "::1", {}, True, True),
        (door(), "::ffff:127.0.0.1", {}, True, True),
        (door(), MESH, {}, False, False),
        (door(), "127.0.0.2", {}, False, False),
        (door(), ELSEWHERE, {}, False, False),
        (door(), ELSEWHERE, {"User-Agent": KUBELET}, True, False),
        (door(), ELSEWHERE, {"User-Agent": "Go-http-client/1.1"}, True, False),
        (door(), ELSEWHERE, {"User-Agent": "kube-probe/1.32"}, False, False),
        (door(release=Release.SIGNAL), ELSEWHERE, {"User-Agent": KUBELET}, False, False),
        (door(release=Release.SIGNAL), LOCAL, {}, True, True),
        (door("right"), LOCAL, {}, False, False),
        (door("right"), ELSEWHERE, {"User-Agent": KUBELET}, False, False),
        (door("right"), ELSEWHERE, {"X-Drain-Token": "right"}, True, True),
        (door("right"), ELSEWHERE, {"X-Drain-Token": "righ"}, False, False),
        (door("right"), ELSEWHERE, {"X-Drain-Token": "right "}, False, False),
        (door("tökén"), ELSEWHERE, {"X-Drain-Token": "tökén"}, True, True),
        (door("right", loopback_open=True), LOCAL, {}, True, True),
        (door("right", loopback_open=True), MESH, {}, False, False),
        (door("right", release=Release.SIGNAL), ELSEWHERE, {"X-Drain-Token": "right"}, True, True),
        (Door(lambda: None, loopback_open=False, release=Release.HOOK), LOCAL, {"X-Drain-Token": ""}, False, False),
    ],
)
async def test_who_is_let_in(
    door_: Door,
    remote: str,
    headers: dict[str, str],
    admitted_to_drain: bool,
    admitted_elsewhere: bool,
) -> None:
    request = make_mocked_request("GET", "/drain", headers=headers).clone(remote=remote)
    assert door_.admits(request, hook=True) is admitted_to_drain
    assert door_.admits(request) is admitted_elsewhere


async def test_a_token_of_any_bytes_is_only_a_wrong_one() -> None:
    async with served(door("right")) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(s.url.rpartition(":")[2]))
        writer.write(b"POST /resume HTTP/1.1\r\nHost: pod\r\nX-Drain-Token: r\xff\xfeght\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()


async def test_a_mesh_that_delivers_from_its_own_loopback_address_is_not_loopback() -> None:
    async with served() as s:
        connector = aiohttp.TCPConnector(local_addr=(MESH, 0))
        async with aiohttp.ClientSession(connector=connector) as mesh, mesh.post(s.url + "/release") as answer:
            assert answer.status == 401


# -- before anything is loaded ---------------------------------------------------------------------------------------


async def test_a_hook_that_comes_before_the_rest_is_loaded_waits_for_it() -> None:
    async with served(attached=False) as s:
        assert await s.ask("GET", "/livez") == (200, "alive\n")
        assert await s.ask("GET", "/readyz") == (503, "not ready: starting\n")
        early = asyncio.create_task(s.ask("POST", "/drain?wait=0"))
        done, _ = await asyncio.wait({early}, timeout=0.2)
        assert not done
        s.attach()
        code, body = await early
        assert (code, body["state"]) == (202, "draining")


async def test_ready_latches_when_the_instance_was_seen() -> None:
    async with served(registered=False) as s:
        await until(lambda: s.world.runner.drain.surveys > 0)
        assert await s.ask("GET", "/readyz") == (503, "not ready: the instance was not yet seen in Nacos\n")
        s.world.nacos.register()
        await until(lambda: s.world.runner.drain.ready)
        assert await s.ask("GET", "/readyz") == (200, "ready\n")
        s.world.nacos.named["a"].fault = "refuse"
        assert await s.ask("GET", "/readyz") == (200, "ready\n")


# -- drains ----------------------------------------------------------------------------------------------------------


async def test_the_hook_is_answered_with_the_report_and_the_connection_is_closed() -> None:
    async with served() as s:
        await until(lambda: s.world.runner.drain.ready)
        hook = asyncio.create_task(s.http.get(s.url + "/drain"))
        await until(lambda: (lease := s.world.runner.drain.lease) is not None and lease.proved)
        await s.ask("POST", "/release")
        async with await hook as answer:
            report = await answer.json()
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert (report["outcome"], report["proved_gone"], report["final"]) == ("drained", True, False)
        assert report["trigger"] == "hook"
        _, status = await s.ask("GET", "/status")
        assert status["report"]["id"] == report["id"]


async def test_two_slashes_are_one_path_and_a_second_hook_joins() -> None:
    async with served() as s:
        first = asyncio.create_task(s.ask("GET", "/drain"))
        await until(lambda: s.world.runner.drain.lease is not None)
        second = asyncio.create_task(s.ask("GET", "//drain"))
        code, body = await s.ask("POST", "/drain?wait=0")
        assert (await s.ask("POST", "/release"))[0] == 200
        answers = [await first, await second]
        assert [status for status, _ in answers] == [200, 200]
        assert (code, {report["id"] for _, report in answers}) == (202, {body["id"]})


async def test_a_hook_with_a_query_that_nobody_understands_still_drains() -> None:
    """For a kubelet any answer at once would be the end of the drain."""
    async with served() as s:
        hook = asyncio.create_task(s.ask("GET", "/drain?wait=true&manual=no"))
        await until(lambda: s.world.runner.drain.lease is not None)
        await s.ask("POST", "/release")
        code, report = await hook
        assert (code, report["trigger"]) == (200, "hook")


async def test_a_client_that_hangs_up_leaves_the_drain_alone() -> None:
    async with served() as s:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), s.http.get(s.url + "/drain"):
                pass
        hung_up = s.world.runner.drain.lease
        assert hung_up is not None
        assert (await s.ask("POST", "/release"))[0] == 200
        lease = await s.world.runner.released(hung_up.id)
        assert lease is not None
        assert lease.released_at is not None


async def test_acting_needs_post_and_what_is_asked_wrongly_is_told() -> None:
    async with served() as s:
        for path in ("/resume", "/release"):
            async with s.http.get(s.url + path) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert await s.ask("POST", "/drain?wait=maybe") == (400, {"error": "wait='maybe': valid are 0 and 1"})
        assert await s.ask("POST", "/release") == (409, {"error": "no drain is waiting: the state is armed"})
        assert await s.ask("POST", "/resume") == (200, {"state": "armed"})
        assert (await s.ask("GET", "/nowhere"))[0] == 404
        assert s.world.runner.drain.lease is None


async def test_resume_is_refused_after_our_sigterm() -> None:
    async with served() as s:
        await until(lambda: s.world.runner.drain.ready)
        s.world.runner.trigger(Trigger.SIGTERM)
        assert await s.ask("POST", "/resume") == (409, {"error": "cannot resume: this sidecar was told to stop"})


async def test_a_connection_without_a_request_is_closed_and_a_waiting_hook_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HEADER_TIMEOUT", 0.3)
    async with served() as s:
        hook = asyncio.create_task(s.ask("GET", "/drain"))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(s.url.rpartition(":")[2]))
        writer.write(b"GET /drain HTTP/1.1\r\nHost")
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()
        assert not hook.done()
        await s.ask("POST", "/release")
        assert (await hook)[0] == 200


# -- listening -------------------------------------------------------------------------------------------------------


def test_without_a_host_both_families_are_served() -> None:
    with bind("", 0) as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=1).close()


def test_a_host_is_kept_to() -> None:
    with bind("127.0.0.1", 0) as sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", sock.getsockname()[1]), timeout=1)
    with bind("::1", 0) as sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=1)


def test_an_occupied_port_is_an_error_in_both_families() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="Address already in use"):
            bind("127.0.0.1", port)
        with pytest.raises(OSError, match="Address already in use"):
            bind("", port)


# -- logs, metrics, the last word ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Logging is the process' own: leave it as others expect it."""
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """What is logged from here on, parsed."""
    written = io.StringIO()
    configure(written, console=False, level="info")
    return lambda: [json.loads(line) for line in written.getvalue().splitlines()]


def voices(w: World, path: Path) -> Metrics:
    metrics = Metrics()
    w.runner.observers.append(Voices(metrics, w.runner.report, termination_log=path))
    return metrics


async def test_the_last_word_fits_into_four_kilobytes(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """A termination message that is longer is cut by the kubelet, in the middle of the JSON."""
    last = tmp_path / "termination-log"
    last.touch()
    nacos, app = SimNacos(), SimApp()
    many = [Service(f"a-service-with-a-long-name-{n}") for n in range(30)]
    for service in many:
        nacos.register(Instance(service, "10.0.0.7", 8080))
    world = World(replace(rules(4, app_stop=0, cache=0), services=tuple(many)), nacos, app)
    voices(world, last)
    async with world.runner.running():
        await world.runner.released(world.runner.trigger(Trigger.HOOK))
        report = json.loads(last.read_text())
        assert (report["state"], report["final"]) == ("released", False)
        app.exit()
        for service in many:
            nacos.deregister(Instance(service, "10.0.0.7", 8080))
        world.runner.trigger(Trigger.SIGTERM)
        await world.runner.ended()
    assert len(last.read_bytes()) <= TERMINATION_BYTES
    report = json.loads(last.read_text())
    assert (report["state"], report["final"]) == ("ended", True)
    assert len(report["instances"]) + report["omitted"]["instances"] == 30
    assert [line["event"] for line in lines()].count("drain.finished") == 1


async def test_what_cannot_be_written_stops_no_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last word that is a folder, and a log that nobody reads any more."""
    closed = io.StringIO()
    closed.close()
    configure(closed, console=False, level="debug")
    world = World(rules(3.2, app_stop=0, cache=0), SimNacos(), SimApp())
    world.nacos.register()
    voices(world, tmp_path)
    async with world.runner.running():
        lease = await world.runner.released(world.runner.trigger(Trigger.HOOK))
    assert lease is not None
    assert lease.released_at is not None


async def test_no_last_word_is_left_where_kubernetes_asks_for_none(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    world = World(rules(3, app_stop=0, cache=0), SimNacos(), SimApp())
    voices(world, tmp_path / "none")
    async with world.runner.running():
        await world.runner.released(world.runner.trigger(Trigger.HOOK))
    assert not (tmp_path / "none").exists()
    assert "drain.released" in [line["event"] for line in lines()]


def test_what_a_library_logs_is_told_in_our_form_and_without_what_clients_sent(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    try:
        raise ValueError("X-Drain-Token: canary")  # noqa: TRY301  a library's, with a request's bytes in it
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", "10.0.0.9")
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("library", "error", "aiohttp.server")
    assert (line["message"], line["error"]) == ("Error handling request from 10.0.0.9", "ValueError")
    assert "test_server.py:" in line["at"]
    assert "canary" not in json.dumps(line)


def test_a_person_gets_the_same_line_without_json(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    configure(written, console=True, level="info")
    structlog.get_logger().info("drain.started", id="abc")
    assert "drain.started" in written.getvalue()
    assert not written.getvalue().startswith("{")
