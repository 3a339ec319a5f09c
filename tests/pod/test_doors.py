"""Who may act on a running sidecar, and what its HTTP port says and refuses."""

import asyncio
import json
import re

import pytest
from pod.scene import BUDGET, Scene, assert_about, scene
from pod.together import side_by_side


pytestmark = pytest.mark.long


METRICS = {  # contracts.md, as far as this version measures it
    "nacos_drain_state",
    "nacos_drain_drains_total",
    "nacos_drain_phase_seconds",
    "nacos_drain_registry_requests_total",
    "nacos_drain_listed",
    "nacos_drain_traffic_source",
    "nacos_drain_peers",
    "nacos_drain_restores_total",
    "nacos_drain_auth_failures_total",
    "nacos_drain_preflight",
}
REPORT = {  # contracts.md, schema 1
    "schema",
    "id",
    "final",
    "trigger",
    "state",
    "outcome",
    "proved_gone",
    "started_at",
    "released_at",
    "ended_at",
    "plan",
    "phases",
    "instances",
    "callers",
    "traffic_source",
    "notes",
    "omitted",
}
INSTANCE = {
    "service",
    "group",
    "namespace",
    "cluster",
    "ip",
    "port",
    "road",
    "undoable",
    "residue",
    "remaining",
    "nodes",
}
HELD_UP = 2.0  # how long a hook without the right token is kept from passing for a success


async def raw(s: Scene, request: bytes, within: float = 5.0) -> bytes:
    """Send these bytes; the whole answer, until the sidecar closes."""
    reader, writer = await asyncio.open_connection(s.ip, s.port)
    writer.write(request)
    try:
        async with asyncio.timeout(within):
            return await reader.read()
    finally:
        writer.close()


@side_by_side
async def test_a_hook_without_the_token_is_held_up_and_starts_nothing() -> None:
    async with scene({"TOKEN": "right"}, headers={"X-Drain-Token": "right"}) as s:
        s.pod.timeline.begin()
        refused, local, wrong = await asyncio.gather(s.hook(), s.ask("POST", "/drain"), s.hook("wrong"))
        assert_about(s.pod.timeline.now, HELD_UP)
        for code, body in (refused, local, wrong):
            assert (code, set(body)) == (401, {"error"})
        assert (await s.ask("POST", "/resume"))[0] == 401
        assert (await s.ask("POST", "/release"))[0] == 401
        assert (await s.status())["state"] == "armed"
        assert s.events == []
        assert "nacos_drain_auth_failures_total 5.0" in await s.metrics()
        assert s.told("auth.refused")["level"] == "warning"

        # Beside a drain of somebody who may, it lasts as long as that, and still tells nothing.
        refused_again = asyncio.create_task(s.hook("wrong"))
        await s.pod.timeline.printed("sidecar", "auth.refused", nth=5)
        await s.pod.terminate(order="hook_first")  # with the token, from the pod spec
        code, body = await refused_again
        assert (code, set(body)) == (401, {"error"})
        assert s.told("drain.started")["trigger"] == "hook"
        assert s.pod.timeline.event("app", "hook-end").detail == "200"
        assert_about(s.pod.timeline.at("app", "hook-end"), BUDGET)


@side_by_side
async def test_without_a_token_a_kubelet_may_drain_and_nobody_else_may() -> None:
    async with scene() as s:
        async with s.kubelet.get(s.url + "/drain", headers={"User-Agent": "curl/8"}) as answer:
            assert answer.status == 401
        for path in ("/resume", "/release"):
            code, _ = await s.ask("POST", path, node=True)
            assert code == 401  # no hook calls these
        async with s.kubelet.get(s.url + "//drain", headers={"User-Agent": "Go-http-client/1.1"}) as answer:
            assert answer.status == 200
            assert answer.headers["Connection"] == "close"


@side_by_side
async def test_status_report_and_metrics_have_the_fields_of_the_contract() -> None:
    async with scene() as s:
        await s.until_app_seen()
        status = await s.status()
        fields = {"version", "state", "ready", "plan", "app", "known", "nodes", "registry_error", "traffic_source"}
        fields |= {"identity", "unidentified", "roads", "preflight", "traffic"}
        assert set(status) == fields | {"report"}
        assert (status["state"], status["ready"], status["report"]) == ("armed", True, None)
        assert status["app"]["ports"] == [s.app_port]
        assert status["app"]["pid"] == s.pod.pid("app")
        assert [row["enabled"] for row in status["known"]] == [True]
        assert status["nodes"] == [{"node": s.double.address, "required": True}]
        assert status["plan"]["budget"] == BUDGET
        assert f'nacos_drain_listed{{node="{s.double.address}"}} 1.0' in await s.metrics()

        code, report = await s.hook()
        assert code == 200
        assert set(report) == REPORT
        assert (report["schema"], report["final"], report["state"], report["trigger"]) == (1, False, "released", "hook")
        assert [set(row) for row in report["instances"]] == [INSTANCE]
        assert set(report["phases"][0]) == {"phase", "outcome", "seconds", "detail"}
        row = report["instances"][0]
        assert (row["service"], row["group"], row["namespace"]) == ("shop", "DEFAULT_GROUP", "public")
        assert (row["road"], row["undoable"], row["remaining"]) == ("openapi", True, 0)
        assert [(n["node"], n["view"]) for n in row["nodes"]] == [(s.double.address, "gone")]
        assert all(
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", report[k]) for k in ("started_at", "released_at")
        )
        assert (await s.report())["id"] == report["id"]

        text = await s.metrics()
        assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == METRICS
        assert 'nacos_drain_drains_total{outcome="drained",trigger="hook"} 1.0' in text
        assert 'nacos_drain_state{state="released"} 1.0' in text
        assert 'nacos_drain_traffic_source{source="netlink"} 1.0' in text
        assert 'nacos_drain_peers{rhythm="unknown"} 0.0' in text
        assert re.search(r'nacos_drain_phase_seconds\{phase="VERIFY"\} \d', text)
        assert re.search(r'nacos_drain_registry_requests_total\{node="[^"]+",op="disable",result="ok"\} 1\.0', text)
        assert f'nacos_drain_listed{{node="{s.double.address}"}} 0.0' in text


@side_by_side
async def test_the_answer_is_small_and_closes_the_connection_even_with_thirty_instances() -> None:
    names = [f"a-service-with-a-rather-long-name-{n}" for n in range(30)]

    def register(s: Scene) -> None:
        for name in names:
            s.double.naming.register_grpc(name, s.ip, s.app_port, connection="app")

    env = {"NACOS_SERVICE": ",".join(names)}
    async with scene(env, grace=8, registered=False, ready=False, prepare=register) as s:
        await s.pod.timeline.printed("sidecar", "registry.seen")
        answer = await raw(s, b"GET /drain HTTP/1.1\r\nHost: pod\r\n\r\n", within=10)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert len(body) < 10 * 1024
        report = json.loads(body)
        assert len(report["instances"]) + report["omitted"]["instances"] == 30
        assert (report["outcome"], report["proved_gone"]) == ("drained", True)


async def assert_refusals(s: Scene) -> None:
    """What nobody should send is answered as it deserves, and harms nothing."""
    assert (await s.ask("GET", "/nowhere"))[0] == 404
    code, body = await s.ask("PUT", "/drain")
    assert (code, set(body)) == (405, {"error"})
    assert (await s.ask("GET", "/resume"))[0] == 405
    assert (await s.ask("GET", "/release"))[0] == 405
    assert (await s.ask("POST", "/status"))[0] == 405
    head = b"GET /status HTTP/1.1\r\nHost: pod\r\n"
    assert b" 400 " in (await raw(s, head + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n")).split(b"\r\n")[0]
    assert b" 400 " in (await raw(s, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n")).split(b"\r\n")[0]
    assert b" 400 " in (await raw(s, b"\x16\x03\x01 this is TLS\r\n\r\n")).split(b"\r\n")[0]
    body_of_a_megabyte = b"Content-Length: 1000000\r\nConnection: close\r\n\r\n" + b"x" * 100_000
    answer = await raw(s, b"POST /resume HTTP/1.1\r\nHost: pod\r\n" + body_of_a_megabyte, within=15)
    assert b" 200 " in answer.split(b"\r\n")[0]
    assert (await s.ask("GET", "/livez")) == (200, "alive\n")


@side_by_side
async def test_connections_that_send_no_request_are_hung_up_and_keep_nobody_out() -> None:
    async with scene() as s:
        s.pod.timeline.begin()
        silent = [asyncio.create_task(raw(s, b"GET /drain HTT" * (n % 2), within=20)) for n in range(200)]
        assert b'"schema": 1' in await raw(s, b"GET /drain HTTP/1.1\r\nHost: pod\r\n\r\n")
        refusals = asyncio.create_task(assert_refusals(s))
        assert set(await asyncio.gather(*silent)) == {b""}
        assert_about(s.pod.timeline.now, 10)
        await refusals
        assert s.events.count("drain.started") == 1
