"""The command line's clients, as exec hooks and people use them."""

import json

import pytest
from pod.scene import command, scene
from pod.together import side_by_side


pytestmark = pytest.mark.long


@side_by_side
async def test_drain_waits_until_the_app_may_stop_and_status_tells_of_it() -> None:
    async with scene({"TOKEN": "right"}) as s:
        env = {"NACOS_DRAIN_TOKEN": "right", "NACOS_DRAIN_LISTEN": f"{s.ip}:{s.port}"}
        code, out, err = await command("drain", env={**env, "NACOS_DRAIN_TOKEN": "wrong"})
        assert (code, err) == (2, f"asking {s.url} for a drain; each phase is told as it ends\n")
        assert "set NACOS_DRAIN_TOKEN to the sidecar's" in out
        code, out, err = await command("drain", "--json", env=env)
        assert (code, err) == (0, "")
        report = json.loads(out)
        assert (report["outcome"], report["trigger"]) == ("drained", "hook")
        code, out, err = await command("status", env=env)
        assert (code, err) == (0, "")
        assert f"app            port open, process {s.pod.pid('app')}" in out
        assert "drained, proved gone (hook, " in out
        assert "VERIFY      met" in out


@side_by_side
async def test_resume_and_release_say_what_came_of_it() -> None:
    async with scene({"TOKEN": "right", "CONSUMER_CACHE": "35", "GRACE_PERIOD": "60"}) as s:
        env = {"NACOS_DRAIN_TOKEN": "right", "NACOS_DRAIN_LISTEN": f"{s.ip}:{s.port}"}
        assert await command("release", env=env) == (1, "no drain is waiting: the state is armed\n", "")
        assert await command("resume", env=env) == (0, "resume: the state is armed\n", "")
        code, out, err = await command("resume", env={**env, "NACOS_DRAIN_TOKEN": "wrong"})
        assert (code, err) == (2, "")
        assert "set NACOS_DRAIN_TOKEN to the sidecar's" in out

        await command("drain", "--no-wait", "--manual", env=env)
        await s.until("disabled")
        code, out, err = await command("release", env=env)
        assert (code, out, err) == (0, "release: the state is released\n", "")
        code, out, err = await command("resume", env=env)
        assert (code, err) == (0, "")
        assert out.startswith("resume: the state is ")
        await s.until("enabled")
        nowhere = {**env, "NACOS_DRAIN_LISTEN": f"{s.ip}:{s.app_port}"}
        assert (await command("resume", env=nowhere))[0] == 4
