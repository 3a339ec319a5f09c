"""Pods that live on: a drain is a lease, and its instance comes back."""

import asyncio

import pytest
from pod.scene import LONG, assert_about, scene
from pod.together import side_by_side


@side_by_side
async def test_a_liveness_restart_brings_the_instance_back_and_the_next_drain_works() -> None:
    async with scene() as s:
        await s.pod.liveness_restart("app")
        s.pod.timeline.assert_order(("app", "hook-end"), ("app", "sigterm"), ("app", "exit"), ("app", "started"))
        s.pod.timeline.assert_never("sidecar", "sigterm")
        await s.said("drain.restored")
        await s.until("listed")
        assert not s.disabled
        assert s.mark == ""
        await s.until_state("armed")
        assert s.told("drain.restored")["reason"] == "new_life"
        assert s.told("drain.finished")["outcome"] == "drained"
        await s.pod.terminate()
        assert s.events.count("drain.started") == 2
        assert s.told("drain.started", 0)["id"] != s.told("drain.started", 1)["id"]
        assert s.told("drain.finished")["outcome"] == "drained"
        assert not s.disabled


@side_by_side
async def test_a_crash_that_nobody_announced_writes_nothing() -> None:
    async with scene() as s:
        await s.pod.crash("app")
        await s.pod.timeline.printed("app", "registered", nth=1)
        await s.until("listed")
        assert not [r for r in s.double.log if r.method in {"PUT", "PATCH", "DELETE"}]
        assert s.events == []


@pytest.mark.long
@side_by_side
async def test_a_false_alarm_expires_five_seconds_after_the_grace_period() -> None:
    async with scene(grace=3) as s:
        s.pod.timeline.begin()
        code, report = await s.hook()
        assert (code, report["outcome"]) == (200, "unproven")
        await s.until("unlisted")
        assert_about(await s.said("drain.restored"), 3 + 5)
        await s.until("listed")
        await s.until_state("armed")
        assert s.mark == ""
        assert s.told("drain.restored")["reason"] == "lease_expired"
        report = await s.report()
        assert (report["outcome"], report["proved_gone"]) == ("lease_expired", True)
        assert 'nacos_drain_restores_total{reason="lease_expired"} 1.0' in await s.metrics()


@side_by_side
async def test_resume_gives_the_lease_back_and_release_ends_all_waits() -> None:
    async with scene(grace=LONG) as s:
        waiting = asyncio.create_task(s.hook())
        await s.said("drain.phase_finished", nth=1)
        await s.until("unlisted")
        code, body = await s.ask("POST", "/resume")
        assert (code, body) == (200, {"state": "restoring"})
        code, report = await waiting
        assert (code, report["outcome"], report["final"]) == (200, "aborted", True)
        await s.until("listed")
        await s.until_state("armed")
        assert s.mark == ""
        assert s.told("drain.restored")["reason"] == "resume"
        assert 'outcome="aborted"' in await s.metrics()

        code, _ = await s.ask("POST", "/release")
        assert code == 409  # nobody waits
        s.pod.timeline.begin()
        waiting = asyncio.create_task(s.hook())
        await s.said("drain.phase_finished", nth=3)
        code, body = await s.ask("POST", "/release")
        assert (code, body) == (200, {"state": "released"})
        code, report = await waiting
        assert s.pod.timeline.now < 3
        assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True)
        assert report["phases"][2]["detail"] == "release asked for"
        await s.pod.terminate(order="signal_first")
        assert s.events.count("drain.started") == 2


@side_by_side
async def test_after_our_sigterm_nothing_is_given_back() -> None:
    async with scene(grace=LONG) as s:
        stopping = asyncio.create_task(s.pod.terminate(order="signal_first"))
        await s.said("drain.started")
        code, body = await s.ask("POST", "/resume")
        assert code == 409
        assert body == {"error": "cannot resume: this sidecar was told to stop"}
        code, _ = await s.ask("POST", "/release")
        assert code == 200
        await stopping
        assert not s.disabled
