"""The command line: what it prints, and the exit codes of contracts.md."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from sidecar import __version__, client
from sidecar.adapters.nacos_push.link import installed
from sidecar.cli import main
from sidecar.client import Sidecar
from sidecar.settings import describe


NACOS = {"NACOS_DRAIN_NACOS_SERVER_ADDR": "nacos:8848", "NACOS_DRAIN_NACOS_SERVICE": "shop"}


COMMANDS = ("serve", "drain", "status", "resume", "release", "plan", "doctor", "demo", "check", "inject")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be in a pod, or have settings."""
    for name in [*os.environ]:
        if name.startswith("NACOS_DRAIN_") or name == "KUBERNETES_SERVICE_HOST":
            monkeypatch.delenv(name)


def run(*arguments: str, **settings: str) -> Result:
    """A command in this process; settings without their prefix."""
    env = {name if name.startswith("KUBERNETES") else f"NACOS_DRAIN_{name}": value for name, value in settings.items()}
    return CliRunner().invoke(main, arguments, env=env)


async def process(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """A command in a process of its own."""
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sidecar",
        *arguments,
        cwd=Path(__file__).parents[1],
        env={"PATH": os.environ["PATH"], **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, err = await made.communicate()
    assert made.returncode is not None
    return made.returncode, out.decode(), err.decode()


# -- plan ------------------------------------------------------------------------------------------------------------


def test_the_plan_is_a_timetable() -> None:
    result = run("plan", GRACE_PERIOD="120")
    assert result.exit_code == 0
    rows = [line.split(None, 3)[:3] for line in result.stdout.splitlines()[:6]]
    assert rows == [
        ["0", "s", "DEREGISTER"],
        ["0", "s", "VERIFY"],
        ["25", "s", "SETTLE"],
        ["107", "s", "RELEASE"],
        ["107", "s", "AWAIT_EXIT"],
        ["120", "s", "SIGKILL"],
    ]
    assert "budget = 120 (GRACE_PERIOD) - 10 (APP_STOP) - 3 (margin) = 107 s" in result.stdout
    assert "covers a 35 s consumer cache: yes" in result.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACTUATOR_URL", "127.0.0.1:9081"),
        ("DEREGISTER_URL", "http://127.0.0.1:8080/offline"),
        ("DUBBO_QOS", "127.0.0.1:22222"),
    ],
)
def test_the_timetable_says_by_which_road_it_begins(name: str, value: str) -> None:
    words = {
        each: run("plan", GRACE_PERIOD="120", **more).stdout for each, more in (("no", {}), ("yes", {name: value}))
    }
    assert "DEREGISTER  enabled=false by the OpenAPI; with VERIFY at most 25 s" in words["no"]
    assert (
        "DEREGISTER  the app's own road; where that shows nothing in 3 s, enabled=false by the OpenAPI; with VERIFY "
        "at most 25 s"
    ) in words["yes"]


def test_a_program_gets_the_plan_as_json() -> None:
    result = run("plan", "--json", GRACE_PERIOD="30", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "grace_period": 30.0,
        "app_stop": 10.0,
        "margin": 3.0,
        "consumer_cache": 35.0,
        "budget": 17.0,
        "proof": 4.0,
        "settle": 13.0,
        "cap": 40.0,
        "fits": True,
        "covers_35s_cache": False,
        "grace_needed": 53.0,
        "settle_rule": {"floor": 3.0, "quiet": 3.0, "factor": 3.0, "look_back": 300.0},
    }


USUALLY = [
    ({}, "4 to 41 s"),
    ({"CONSUMER_CACHE": "0"}, "4 to 6 s"),
    ({"CONSUMER_CACHE": "0", "SETTLE_FLOOR": "5"}, "6 s"),
    ({"SETTLE_FLOOR": "500ms"}, "1.5 to 41 s"),
    ({"GRACE_PERIOD": "30"}, "4 to 17 s"),
    ({"GRACE_PERIOD": "10"}, "4 s"),
    ({"GRACE_PERIOD": "2"}, "0 s"),
]


@pytest.mark.parametrize(("settings", "seconds"), USUALLY)
def test_how_long_a_drain_takes_lies_between_the_floor_and_the_cap(settings: dict[str, str], seconds: str) -> None:
    said = run("plan", **{"GRACE_PERIOD": "120", **settings}).stdout
    assert f"\nusually the app is released after {seconds}: proof takes 1 s, and the callers decide" in said


def test_the_plan_says_when_callers_have_stopped() -> None:
    said = run("plan", GRACE_PERIOD="120").stdout
    assert "SETTLE      until callers have stopped: 3 s at least, 40 s at most\n" in said
    assert (
        "a caller has stopped after 3 s of silence, or 3 times its longest pause; a sidecar younger than 300 s" in said
    )
    rule = {"SETTLE_FLOOR": "2", "SETTLE_QUIET": "4s", "SETTLE_FACTOR": "2.5", "SETTLE_LOOK_BACK": "1m"}
    said = run("plan", GRACE_PERIOD="120", **rule).stdout
    assert "SETTLE      until callers have stopped: 2 s at least, 40 s at most\n" in said
    assert (
        "a caller has stopped after 4 s of silence, or 2.5 times its longest pause; a sidecar younger than 60 s" in said
    )
    told = json.loads(run("plan", "--json", **rule).stdout)["settle_rule"]
    assert told == {"floor": 2.0, "quiet": 4.0, "factor": 2.5, "look_back": 60.0}
    shrunk = run("plan", GRACE_PERIOD="30").stdout
    assert "until callers have stopped: at most 13 s and what the proof leaves over (it wants 40 s)\n" in shrunk


def test_a_plan_that_is_shrunk_says_what_would_cover_the_cache() -> None:
    result = run("plan", GRACE_PERIOD="30")
    assert result.exit_code == 0
    assert "covers a 35 s consumer cache: no: raise terminationGracePeriodSeconds" in result.stdout
    assert "to 53 s" in result.stdout


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_a_plan_that_does_not_fit_exits_1_with_the_arithmetic(json_: list[str]) -> None:
    result = run("plan", *json_, GRACE_PERIOD="15")
    assert result.exit_code == 1
    assert "a drain needs 7 s before the app's stop and the margin of 3 s, and 5 s are missing" in result.stderr
    assert "With a grace period of 20 s it fits" in result.stderr
    if json_:
        assert json.loads(result.stdout)["fits"] is False


def test_without_a_setting_the_platform_decides_the_grace_period() -> None:
    for env, grace in (({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 30.0), ({}, 10.0)):
        assert json.loads(run("plan", "--json", **env).stdout)["grace_period"] == grace


def test_a_flag_goes_before_the_variable() -> None:
    result = run("plan", "--json", "--grace-period", "2m", GRACE_PERIOD="30")
    assert json.loads(result.stdout)["grace_period"] == 120.0


# -- usage and settings ----------------------------------------------------------------------------------------------


def test_every_command_explains_itself() -> None:
    for command in ([], *([name] for name in COMMANDS)):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
    for word in COMMANDS:
        assert word in run("--help").stdout


def test_the_help_of_serve_names_every_setting_and_gives_no_secret_a_flag() -> None:
    text = "".join(run("serve", "--help").stdout.split())  # wrapped anywhere
    for row in describe():
        assert (row.name in text) is (row.flag is not None)
        if row.flag:
            assert row.flag in text
    for secret in ("--token", "--nacos-username", "--nacos-password"):
        assert secret not in text


def test_exit_codes_are_in_the_help() -> None:
    for command, words in (
        ("drain", "Exits 0 when drained"),
        ("status", "Exits 4 when the sidecar cannot be reached"),
        ("resume", "1 when that is not possible"),
        ("release", "1 when no drain is waiting"),
        ("plan", "Exits 1 when it does not"),
        ("doctor", "1 when a check is failing or unknown"),
        ("check", "1 when something was"),
        ("inject", "1 when a pod was left alone"),
    ):
        assert words in " ".join(run(command, "--help").stdout.split())


def test_what_does_not_exist_is_a_usage_error() -> None:
    for arguments in (["undrain"], ["serve", "--nonsense"], ["drain", "--token", "x"]):
        assert run(*arguments).exit_code == 2


def test_the_version() -> None:
    assert run("--version").stdout.strip() == f"nacos-drain, version {__version__}"


async def test_bad_settings_are_told_all_at_once_masked_and_with_what_would_be_valid() -> None:
    env = {
        "NACOS_DRAIN_NACOS_SERVER_ADDR": "http://nacos:canary@10.0.0.1",
        "NACOS_DRAIN_GRACE_PERIOD": "soon",
        "NACOS_DRAIN_LISTEN": "everywhere",
        "NACOS_DRAIN_RELEASE": "sigterm",
        "NACOS_DRAIN_NACOS_GROUP": "orders",
        "NACOS_DRAIN_NACOS_PASSWORD": "canary",
        "NACOS_DRAIN_ACTUATOR_URL": "http://app:canary@127.0.0.1:8080/actuator",
    }
    by_name, by_default = await asyncio.gather(process("serve", env=env), process(env=env))
    assert by_name == by_default
    code, out, err = by_name
    assert (code, out) == (2, "")
    assert "canary" not in err
    lines = err.splitlines()
    assert lines[0] == "7 settings are wrong:"
    told = {line.strip().split("=")[0].split(":")[0]: line for line in lines[1:]}
    assert set(told) == {
        "NACOS_DRAIN_NACOS_SERVER_ADDR",
        "NACOS_DRAIN_NACOS_GROUP",
        "NACOS_DRAIN_NACOS_USERNAME",
        "NACOS_DRAIN_GRACE_PERIOD",
        "NACOS_DRAIN_LISTEN",
        "NACOS_DRAIN_RELEASE",
        "NACOS_DRAIN_ACTUATOR_URL",
    }
    assert "NACOS_DRAIN_NACOS_SERVER_ADDR=***" in told["NACOS_DRAIN_NACOS_SERVER_ADDR"]
    assert (
        "NACOS_DRAIN_GRACE_PERIOD='soon': not a duration. Valid: seconds, or units" in told["NACOS_DRAIN_GRACE_PERIOD"]
    )
    assert "Valid: hook, signal, actuator" in told["NACOS_DRAIN_RELEASE"]
    assert "NACOS_DRAIN_ACTUATOR_URL=***: credentials go into" in told["NACOS_DRAIN_ACTUATOR_URL"]
    assert all("Valid: " in line for line in lines[1:])


async def test_an_occupied_port_is_told_before_anything_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        code, out, err = await process("serve", env={**NACOS, "NACOS_DRAIN_LISTEN": where})
    assert (code, out) == (2, "")
    assert err == f"NACOS_DRAIN_LISTEN={where}: cannot listen there (Address already in use)\n"


@pytest.mark.skipif(installed(), reason="the extra is installed here")
async def test_an_extra_that_is_not_installed_is_a_matter_of_settings() -> None:
    env = {**NACOS, "NACOS_DRAIN_LISTEN": "127.0.0.1:0", "NACOS_DRAIN_PUSH_WATCH": "true"}
    code, out, err = await process("serve", env=env)
    assert (code, out) == (2, "")
    assert err == "NACOS_DRAIN_PUSH_WATCH needs the extra: pip install nacos-drain[grpc]\n"


# -- clients ---------------------------------------------------------------------------------------------------------

REPORT = {
    "schema": 1,
    "id": "abc",
    "final": False,
    "trigger": "hook",
    "state": "released",
    "outcome": "drained",
    "proved_gone": True,
    "phases": [{"phase": "VERIFY", "outcome": "met", "seconds": 0.5, "detail": "gone on 1 node"}],
    "instances": [
        {
            "service": "shop",
            "ip": "10.0.0.7",
            "port": 8080,
            "road": "openapi",
            "nodes": [{"node": "nacos:8848", "view": "gone"}],
        }
    ],
    "callers": [{"peer": "10.0.0.9", "last_seen_s": 1.5}],
    "notes": ["a note"],
}


@asynccontextmanager
async def answering(status: int, body: object, *, path: str = "/drain") -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Somebody at a sidecar's place; a text is sent as it is."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return (
            web.Response(status=status, text=body) if isinstance(body, str) else web.json_response(body, status=status)
        )

    app = web.Application()
    app.router.add_route("*", path, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def drain(url: str, *, token: str | None = None, manual: bool = False, wait: bool = True) -> tuple[int, str]:
    """The client's exit code, and what it said."""
    said: list[str] = []
    code = await client.drain(
        Sidecar(url, token), manual=manual, wait=wait, as_json=False, say=said.append, progress=said.append
    )
    return code, "\n".join(said)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("drained", 0),
        ("nothing_registered", 0),
        ("unproven", 3),
        ("never_seen", 3),
        ("capped", 3),
        ("aborted", 3),
        ("lease_expired", 3),
    ],
)
async def test_the_exit_code_tells_the_outcome(outcome: str, code: int) -> None:
    async with answering(200, {**REPORT, "outcome": outcome}) as (url, _):
        ended, said = await drain(url)
    assert ended == code
    assert f"{outcome}, proved gone (hook, released)" in said
    assert "shop 10.0.0.7:8080  road openapi; nacos:8848 gone" in said
    assert "still calling: 10.0.0.9, last seen 1.5 s ago" in said
    assert "note: a note" in said


async def test_the_client_says_what_it_wants_and_who_it_is() -> None:
    async with answering(202, {"id": "abc", "state": "draining"}) as (url, asked):
        code, said = await drain(url, token="right", manual=True, wait=False)
    assert (code, said) == (0, "drain abc is under way")
    assert (asked[0].method, dict(asked[0].query)) == ("POST", {"manual": "1", "wait": "0"})
    assert asked[0].headers["X-Drain-Token"] == "right"


async def test_a_refused_token_is_a_matter_of_settings() -> None:
    async with answering(401, {"error": "X-Drain-Token is missing or wrong"}) as (url, _):
        code, said = await drain(url)
    assert code == 2
    assert "set NACOS_DRAIN_TOKEN" in said


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": "Not Found"}),
        (404, "<h1>nothing here</h1>"),
        (401, "log in, stranger"),
        (200, "welcome"),
        (200, []),
        (200, None),
        (200, {"status": "UP"}),
        (500, {"outcome": "drained"}),
        (503, ""),
    ],
)
async def test_somebody_else_at_its_place_is_no_sidecar(status: int, body: object) -> None:
    async with answering(status, body) as (url, _), answering(status, body, path="/status") as (other, _asked):
        code, said = await drain(url)
        assert code == 4
        assert "not a nacos-drain sidecar" in said
        told: list[str] = []
        assert await client.status(Sidecar(other), watch=False, as_json=False, say=told.append) == 4


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (200, {"state": "restoring"}, 0, "resume: the state is restoring"),
        (409, {"error": "cannot resume: the app was told to stop"}, 1, "the app was told to stop"),
        (501, {"error": "cannot resume: only a restart registers it"}, 1, "only a restart"),
        (401, {"error": "X-Drain-Token is missing or wrong"}, 2, "set NACOS_DRAIN_TOKEN"),
        (401, "log in, stranger", 4, "not a nacos-drain sidecar"),
        (404, {"error": "Not Found"}, 4, "not a nacos-drain sidecar"),
        (409, "conflict", 4, "not a nacos-drain sidecar"),
        (200, "welcome", 4, "not a nacos-drain sidecar"),
    ],
)
async def test_a_person_is_told_what_came_of_it(status: int, body: object, code: int, said: str) -> None:
    told: list[str] = []
    async with answering(status, body, path="/resume") as (url, asked):
        assert await client.act(Sidecar(url, "right"), "resume", say=told.append) == code
    assert said in told[0]
    assert (asked[0].method, asked[0].headers["X-Drain-Token"]) == ("POST", "right")


async def test_nobody_at_its_place_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        code, said = await drain(url)
        assert code == 4
        assert "cannot be reached: cannot connect" in said
        told: list[str] = []
        assert await client.status(Sidecar(url), watch=False, as_json=False, say=told.append) == 4
        assert await client.act(Sidecar(url), "release", say=told.append) == 4
    assert (await drain("no url at all"))[0] == 4


async def test_a_sidecar_that_dies_in_mid_drain_is_unreachable() -> None:
    async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server:
        code, _ = await drain(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert code == 4


def test_the_clients_find_the_sidecar_by_its_own_setting() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for listen in (f":{port}", f"0.0.0.0:{port}", f"127.0.0.1:{port}"):
            for command in ("drain", "status", "resume", "release"):
                result = run(command, LISTEN=listen)
                assert result.exit_code == 4
                assert f"the sidecar at http://127.0.0.1:{port} cannot be reached" in result.stdout
        assert f"http://[::1]:{port} " in run("status", LISTEN=f"[::]:{port}").stdout
        assert run("status", "--url", f"http://127.0.0.1:{port}/").exit_code == 4


def test_a_token_that_cannot_be_read_is_a_matter_of_settings(tmp_path: Path) -> None:
    result = run("drain", TOKEN_FILE=str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "cannot read" in result.stderr


async def test_status_is_for_eyes_and_for_programs() -> None:
    body: dict[str, Any] = {
        "state": "armed",
        "ready": False,
        "app": {"port": "open", "pid": None, "ports": [8080]},
        "known": [{"instance": "public/DEFAULT_GROUP/shop/DEFAULT 10.0.0.7:8080", "enabled": False}],
        "nodes": [{"node": "nacos:8848", "required": False}],
        "traffic_source": "procfs",
        "traffic": {
            "source": "procfs",
            "reason": "netlink is forbidden",
            "missed": "connections accepted but not seen (on any port): 3",
            "callers": [
                {"peer": "10.0.1.1", "connections": 2, "last_seen_s": 0.25, "rhythm_s": 1.5},
                {"peer": "10.0.1.2", "connections": 0, "last_seen_s": 61.0, "rhythm_s": None},
            ],
            "omitted": 7,
        },
        "preflight": [
            {"check": "plan", "verdict": "ok", "detail": "all the time in the world", "next_step": None},
            {"check": "instance", "verdict": "failing", "detail": "not there", "next_step": "look elsewhere"},
        ],
        "report": REPORT,
    }
    async with answering(200, body, path="/status") as (url, _):
        said: list[str] = []
        assert await client.status(Sidecar(url), watch=False, as_json=False, say=said.append) == 0
        for part in ("armed (not ready", "process not visible", "8080 DISABLED", "not yet asked", "proved gone"):
            assert part in said[0]
        assert "preflight      instance FAILING: not there\n               -> look elsewhere\n" in said[0]
        assert "all the time in the world" not in said[0]
        for line in (
            "traffic        procfs: netlink is forbidden",
            "               a call may have been missed: connections accepted but not seen (on any port): 3",
            "caller         10.0.1.1, 2 connections, last seen 0.2 s ago, longest gap 1.5 s",
            "caller         10.0.1.2, 0 connections, last seen 61.0 s ago, rhythm not known",
            "               and 7 more",
        ):
            assert line in said[0].splitlines()
        assert await client.status(Sidecar(url), watch=False, as_json=True, say=said.append) == 0
        assert json.loads(said[1]) == body
