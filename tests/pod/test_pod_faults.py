"""Nacos in trouble, or set up wrongly: the app is let go in time, and the report says what is known and what to do."""

import asyncio

import pytest
from pod.scene import BUDGET, LONG, PUSH, SHOP, SHORT, Scene, assert_about, free_port, scene
from pod.together import side_by_side

from sidecar.demo.double import Double, Instance


pytestmark = pytest.mark.long


def register(s: Scene) -> None:
    """What an app does that has no client of its own here."""
    s.double.naming.register_grpc(SHOP, s.ip, s.app_port, connection="app")


def phase(report: dict[str, object], name: str) -> tuple[str, str]:
    """How a phase ended, and its detail."""
    rows = report["phases"]
    assert isinstance(rows, list)
    found = next(row for row in rows if row["phase"] == name)
    return found["outcome"], found["detail"]


def views(report: dict[str, object]) -> set[str]:
    """What the nodes show of the instance."""
    rows = report["instances"]
    assert isinstance(rows, list)
    return {node["view"] for row in rows for node in row["nodes"]}


@side_by_side
async def test_a_server_that_is_down_at_the_start_keeps_the_gate_shut_and_nothing_else() -> None:
    late = Double("3.1", port=free_port(), push_delay=PUSH)
    env = {"NACOS_SERVER_ADDR": f"http://127.0.0.1:{late._port}/nacos"}
    async with scene(env, registered=False, ready=False) as s:
        await s.said("registry.unavailable")
        assert (await s.ask("GET", "/readyz")) == (503, "not ready: the instance was not yet seen in Nacos\n")
        assert (await s.ask("GET", "/livez"))[0] == 200
        assert "cannot connect" in s.told("registry.unavailable")["error"]
        async with late:
            late.naming.register_grpc(SHOP, s.ip, s.app_port, connection="app")
            await s.said("registry.ready")
            assert (await s.ask("GET", "/readyz")) == (200, "ready\n")
            s.told("registry.available")
        assert (await s.ask("GET", "/readyz"))[0] == 200  # it latches

        s.pod.timeline.begin()
        code, report = await s.hook()
        assert code == 200
        assert_about(s.pod.timeline.now, BUDGET)
        assert (report["outcome"], report["proved_gone"]) == ("unproven", False)
        assert phase(report, "DEREGISTER")[0] == "expired"
        assert "no answer from" in phase(report, "VERIFY")[1]
        assert views(report) == {"unknown"}
        assert "cannot connect" in " ".join(report["notes"])
        assert f'nacos_drain_listed{{node="127.0.0.1:{late._port}"}} NaN' in await s.metrics()


@side_by_side
async def test_a_node_that_hangs_costs_the_budget_and_no_more() -> None:
    async with scene() as s:
        s.double.faults.set("hang")
        s.pod.timeline.begin()
        code, report = await s.hook()
        assert code == 200
        assert_about(s.pod.timeline.now, BUDGET)
        assert (report["outcome"], report["proved_gone"]) == ("unproven", False)
        assert views(report) == {"unknown"}
        s.double.faults.clear()
        await s.until("unlisted")  # the removal went on


@side_by_side
async def test_a_slow_node_is_waited_for_and_an_expired_token_costs_one_login() -> None:
    async with scene(grace=SHORT + 8) as s:
        s.double.faults.set("slow", seconds=0.5)
        s.double.access.expire()
        logins = s.double.access.logins
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True)
        assert s.double.access.logins == logins + 1


@side_by_side
async def test_a_403_without_credentials_names_the_settings() -> None:
    async with scene({"NACOS_USERNAME": "", "NACOS_PASSWORD": ""}) as s:
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "unproven", False)
        ended, detail = phase(report, "DEREGISTER")
        assert ended == "failed"
        assert "answers 403 without credentials: set NACOS_DRAIN_NACOS_USERNAME" in detail
        assert views(report) == {"listed"}
        assert report["instances"][0]["remaining"] == 1
        assert s.listed


@side_by_side
async def test_a_user_who_may_only_read_is_told_so() -> None:
    async with scene() as s:
        s.double.access.readers.add("nacos")
        code, report = await s.hook()
        assert (code, report["outcome"]) == (200, "unproven")
        ended, detail = phase(report, "DEREGISTER")
        assert ended == "failed"
        assert "403" in detail
        assert "authorization failed" in detail


@side_by_side
async def test_a_wrong_password_is_a_500_on_nacos_3_and_told_as_what_it_is() -> None:
    async with scene({"NACOS_PASSWORD": "wrong"}) as s:
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "unproven", False)
        ended, detail = phase(report, "DEREGISTER")
        assert ended == "failed"
        assert "refuses the login (it answers 500): check NACOS_DRAIN_NACOS_USERNAME" in detail


@side_by_side
async def test_a_wrong_namespace_is_never_seen_and_never_gone() -> None:
    async with scene({"NACOS_NAMESPACE": "elsewhere"}, ready=False) as s:
        assert (await s.ask("GET", "/readyz"))[0] == 503
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "never_seen", False)
        assert views(report) == {"never_seen"}
        assert "never seen present (check namespace" in phase(report, "VERIFY")[1]
        assert s.listed


@side_by_side
async def test_a_wrong_context_path_is_no_absence() -> None:
    async with scene(ready=False, context_path="/wrong") as s:
        await s.said("registry.unavailable")
        assert "context path" in s.told("registry.unavailable")["error"]
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "never_seen", False)
        assert views(report) == {"unknown"}
        assert "context path" in " ".join(report["notes"])
        assert s.listed


@side_by_side
async def test_a_server_that_is_upgraded_under_us_is_spoken_to_in_its_new_tongue() -> None:
    async with scene(double=Double("2.2", push_delay=PUSH), grace=SHORT + 4) as s:
        s.double.upgrade("3.1")
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True)
        assert not s.listed
        assert 410 in {request.status for request in s.double.log}


@side_by_side
async def test_an_instance_that_is_not_registered_ends_soon_and_says_so() -> None:
    async with scene(registered=False, ready=False) as s:
        s.double.naming.register_grpc(SHOP, "10.9.9.9", 1, connection="somebody else")
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "never_seen", False)
        assert not [r for r in s.double.log if r.method in {"PUT", "PATCH", "DELETE"}]


@side_by_side
async def test_what_somebody_else_disabled_is_left_alone() -> None:
    def disable(s: Scene) -> None:
        register(s)
        s.double.naming.disable_as_operator(SHOP, s.ip, s.app_port)

    async with scene(registered=False, prepare=disable) as s:
        assert s.told("registry.seen")["instances"][0]["enabled"] is False
        code, report = await s.hook()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True)
        assert phase(report, "DEREGISTER") == ("skipped", "disabled by somebody else already")
        assert "disabled by somebody else before the drain" in " ".join(report["notes"])
        assert (await s.ask("POST", "/resume"))[0] == 200
        await s.until_state("armed")
        assert s.disabled
        assert s.mark == ""
        assert not [r for r in s.double.log if r.method in {"PUT", "PATCH", "DELETE"}]


@side_by_side
async def test_an_instance_that_somebody_enables_in_mid_drain_is_taken_out_again() -> None:
    async with scene(grace=LONG) as s:
        waiting = asyncio.create_task(s.hook())
        await s.said("drain.phase_finished", nth=1)
        s.double.naming.put(SHOP, Instance(s.ip, s.app_port, enabled=True))
        await s.until("listed")
        await s.until("unlisted")
        code, report = await waiting
        assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True)
        assert "listed again 1 time(s)" in " ".join(report["notes"])
        assert s.mark != ""


@side_by_side
async def test_an_instance_that_a_beat_brings_back_is_taken_out_again() -> None:
    """On 1.x a beat registers whole what was removed; there `enabled=false` does not outlive the instance."""

    async def beat(s: Scene, instance: Instance) -> None:
        while True:
            s.double.naming.beat(SHOP, instance, complete=True)
            await asyncio.sleep(0.2)

    double = Double("1.4", push_delay=PUSH)
    async with scene(double=double, grace=LONG, registered=False, ready=False) as s:
        app = Instance(s.ip, s.app_port)
        beating = asyncio.create_task(beat(s, app))
        await s.said("registry.ready")
        waiting = asyncio.create_task(s.hook())
        await s.said("drain.phase_finished", nth=1)
        double.naming.deregister(SHOP, double.naming.http_client(app))
        await s.until("listed")
        await s.until("unlisted")
        code, report = await waiting
        beating.cancel()
        assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True)
        assert "listed again 1 time(s)" in " ".join(report["notes"])


@side_by_side
async def test_our_mark_of_an_earlier_life_is_undone_when_the_app_is_live_and_nobody_drains() -> None:
    def marked(s: Scene) -> None:
        register(s)
        mine = {"nacos-drain": "2026-01-01T00:00:00Z/earlier"}
        s.double.naming.put(SHOP, Instance(s.ip, s.app_port, enabled=False, metadata=mine))

    async with scene(registered=False, prepare=marked) as s:
        await s.until("listed")
        assert s.mark == ""
        await s.said("drain.restored")
        assert s.told("drain.restored")["reason"] == "startup"
        assert 'nacos_drain_restores_total{reason="startup"} 1.0' in await s.metrics()
