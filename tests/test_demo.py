"""The demo's parts, and the demo itself on a small scale; the whole of it is run by `make demo`."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import psutil
import pytest
from needs import told_in_a_network_of_its_own

from sidecar.demo import network, provider, show
from sidecar.demo.consumer import CachedList, Consumer, Tally
from sidecar.demo.kubelet import Scale
from sidecar.demo.programs import Died, Programs
from sidecar.demo.registration import NacosError
from sidecar.demo.roll import Report, remarks, run, verdict
from sidecar.demo.show import Result


# -- a consumer's list


class Registry:
    """Answers what it is told to, and counts how often it was asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.reads = 0
        self.down = False

    async def read(self) -> tuple[str, ...]:
        """Take the place of Nacos' list."""
        self.reads += 1
        if self.down:
            raise NacosError("down")
        await asyncio.sleep(0)
        return self.hosts


@pytest.mark.looptime
async def test_a_list_is_used_for_its_seconds_whatever_nacos_says() -> None:
    registry = Registry("old", "new")
    cached = CachedList(registry.read, 35.0)
    assert await cached.get() == ("old", "new")
    registry.hosts = ("new",)
    await asyncio.sleep(34.9)
    assert await cached.get() == ("old", "new")
    await asyncio.sleep(0.2)
    assert await cached.get() == cached.held == ("new",)


@pytest.mark.looptime
async def test_the_first_list_may_live_shorter_so_that_consumers_differ() -> None:
    registry = Registry("a")
    cached = CachedList(registry.read, 6.0, first=1.5)
    for seconds, reads in ((0.0, 1), (1.4, 1), (0.2, 2), (5.9, 2), (0.2, 3)):
        await asyncio.sleep(seconds)
        await cached.get()
        assert registry.reads == reads


@pytest.mark.looptime
async def test_an_empty_list_is_asked_for_again_and_an_unread_one_leaves_the_old() -> None:
    registry = Registry()
    cached = CachedList(registry.read, 6.0)
    assert await cached.get() == ()
    registry.hosts = ("a",)
    assert await cached.get() == ("a",)
    await asyncio.sleep(6.1)
    registry.down = True
    assert await cached.get() == ("a",)
    registry.down, registry.hosts = False, ("b",)
    assert await cached.get() == ("b",)


async def test_many_requests_at_once_read_the_list_once() -> None:
    registry = Registry("a")
    cached = CachedList(registry.read, 6.0)
    assert set(await asyncio.gather(*(cached.get() for _ in range(20)))) == {("a",)}
    assert registry.reads == 1


# -- a consumer's requests


@asynccontextmanager
async def replica(*, cuts: bool = False) -> AsyncIterator[str]:
    """Something that answers every request, or hangs up on it."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if not cuts:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_failed_requests_are_counted_by_kind_and_taken_in_turn() -> None:
    tally = Tally()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        refuses = "{}:{}".format(*nobody.getsockname())
        async with replica() as good, replica(cuts=True) as cut, aiohttp.ClientSession() as session:
            consumer = Consumer(CachedList(Registry(good, cut, refuses).read, 60.0), session, tally)
            for _ in range(9):
                await consumer.call()
            lost = Consumer(CachedList(Registry().read, 60.0), session, tally)
            await lost.call()
    assert tally.requests == 10
    assert tally.failed == {"connection refused": 3, "cut off before the answer": 3, "no instance known": 1}
    assert not +tally.calling


# -- processes and addresses


async def test_a_process_that_exits_unasked_ends_all_with_its_last_lines() -> None:
    """One dies by itself: its words are in the error, and the other one is gone as well."""
    pids = []

    async def broken() -> None:
        async with asyncio.TaskGroup() as group, Programs(group, os.environ) as programs:
            pids.append((await programs.start("other", "http.server", "0", "--bind", "127.0.0.1")).pid)
            await programs.start("broken", "http.server", "--no-such-option")
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await broken()
    (died,) = caught.value.exceptions
    assert isinstance(died, Died)
    assert "broken exited with 2, unasked" in str(died)
    assert "unrecognized arguments: --no-such-option" in str(died)
    assert not psutil.pid_exists(pids[0])


async def test_a_process_that_was_told_to_exit_may_do_so() -> None:
    async with asyncio.TaskGroup() as group, Programs(group, os.environ) as programs:
        program = await programs.start("server", "http.server", "0", "--bind", "127.0.0.1")
        program.send(signal.SIGTERM)
        assert await program.exited() == -signal.SIGTERM


async def test_a_process_that_was_dying_when_it_was_told_to_exit_has_died() -> None:
    """Its connections are cut before the kernel calls it dead: a hook that fails is followed by a SIGTERM at once."""

    async def dies() -> None:
        async with asyncio.TaskGroup() as group, Programs(group, os.environ) as programs:
            program = await programs.start("server", "http.server", "0", "--bind", "127.0.0.1")
            os.kill(program.pid, signal.SIGKILL)
            program.send(signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await dies()
    assert "server exited with -9, unasked" in str(caught.value.exceptions[0])


def test_pods_have_addresses_and_ports_of_their_own() -> None:
    found = network.find(8)
    pods = [found.pod(number) for number in range(8)]
    assert len({ip for ip, _ in pods}) == len({port for _, port in pods}) == 8
    assert not {ip for ip, _ in pods} & {found.kubelet, *found.consumers(4)}


def test_where_the_usual_port_is_taken_everywhere_sidecars_listen_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as everywhere:
        taken = everywhere.getsockname()[1]
        monkeypatch.setattr(network, "SIDECAR_PORT", taken)
        assert network.find(2).sidecar_port != taken


def test_without_loopback_addresses_the_demo_says_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, where 127.0.0.1 is the only one; TEST-NET is nobody's address either."""
    monkeypatch.setattr(network.Network, "_host", lambda self, number: f"192.0.2.{number}")
    with pytest.raises(network.NoRoom, match="Linux"):
        network.find(2)


async def test_what_the_hook_deregistered_the_stop_does_not_deregister_again() -> None:
    calls: list[str] = []

    class Registration:
        async def register(self) -> None:
            calls.append("register")

        async def deregister(self) -> None:
            calls.append("deregister")

    app = provider.Provider(Registration())
    await app.register()
    await app.deregister()
    await app.deregister()
    assert calls == ["register", "deregister"]


# -- what is shown


def test_the_last_line_for_programs() -> None:
    results = [Result("sigterm", 10, 4, 0.5004, {"connection refused": 4}), Result("nacos-drain", 20, 0, 12.0)]
    assert show.as_line(results, 20.0) == (
        '{"ways": {"sigterm": {"requests": 10, "failed": 4, "seconds": 0.5}, '
        '"nacos-drain": {"requests": 20, "failed": 0, "seconds": 12.0}}, "settle_look_back": 20.0}'
    )


async def test_the_table_without_rich() -> None:
    stream = io.StringIO()
    show.Screen(stream).conclude([Result("sigterm", 300, 40, 0.46)], ["a remark"])
    assert [line.split() for line in stream.getvalue().splitlines() if line] == [
        ["way", "requests", "failed", "seconds"],
        ["sigterm", "300", "40", "0.5"],
        ["a", "remark"],
    ]


@contextmanager
def terminal() -> Iterator[io.StringIO]:
    """Something that claims to be one."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    yield Terminal()


async def test_a_terminal_gets_a_board_and_without_rich_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        shown = show.screen(as_json=False)
        assert isinstance(shown, show.Live)
        with shown:
            shown.say("something [bold]happened")
            shown.refresh(show.Board("rolling", 10, 3, {"provider-1": "draining: VERIFY"}))
            shown.conclude([Result("sigterm", 10, 3, 0.5)], ["a remark"])
        text = stream.getvalue()
        for part in ("something [bold]happened", "rolling", "3 failed", "draining: VERIFY", "a remark"):
            assert part in text
        monkeypatch.setitem(sys.modules, "rich.console", None)
        assert type(show.screen(as_json=False)) is show.Screen


async def test_with_json_stdout_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = show.screen(as_json=True)
    silent.say("not to be seen")
    silent.conclude([], ["nor this"])
    assert capsys.readouterr() == ("", "")
    with terminal() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        show.screen(as_json=True).say("for whoever looks on")
        assert "for whoever looks on" in stream.getvalue()
    assert capsys.readouterr().out == ""


def reported(source: str = "netlink", *, outcome: str = "drained", proved: bool = True, settle: str = "met") -> Report:
    """The end of a drain, as far as the demo looks at it."""
    phases = [
        {"phase": "VERIFY", "outcome": "met", "detail": ""},
        {"phase": "SETTLE", "outcome": settle, "detail": "x"},
    ]
    return {"outcome": outcome, "proved_gone": proved, "traffic_source": source, "phases": phases}


GAINED = [Result("sigterm", 100, 9, 0.5), Result("sleep", 100, 0, 40.5), Result("nacos-drain", 9, 0, 9)]
SLOWER = [Result("sleep", 100, 0, 7.5), Result("nacos-drain", 9, 0, 12.5)]


@pytest.mark.parametrize(
    ("results", "reports", "complaint"),
    [
        (GAINED, [reported()], None),
        ([Result("sleep", 100, 5, 7.5)], [], None),  # the folk hook may fail: that is the point
        ([Result("nacos-drain", 100, 1, 9)], [reported()], "1 requests failed"),
        ([Result("sigterm", 100, 0, 0.5)], [], "shows nothing"),
        ([Result("nacos-drain", 100, 0, 9)], [reported(outcome="unproven", proved=False)], "ended as unproven"),
        ([Result("nacos-drain", 100, 0, 9)], [{"outcome": "a hook without an answer"}], "ended as a hook without"),
        ([Result("sleep", 0, 0, 9)], [], "sent nothing"),
        (SLOWER, [reported()], "12.5 s, and the sleep 7.5 s: no gain"),
        ([Result("nacos-drain", 100, 0, 9)], [reported(settle="expired")], "SETTLE expired: x"),
        ([Result("nacos-drain", 100, 0, 9)], [reported(outcome="capped", settle="expired")], "ended as capped"),
        # who cannot see requests has to wait for the cap
        (SLOWER, [reported("blind", settle="expired")], None),
        (SLOWER, [reported("procfs", settle="expired", outcome="capped")], None),
        (
            [Result("nacos-drain", 100, 0, 9)],
            [reported("blind", outcome="unproven", proved=False)],
            "ended as unproven",
        ),
    ],
)
def test_the_verdict(results: list[Result], reports: list[Report], complaint: str | None) -> None:
    complaints = verdict(results, reports)
    assert bool(complaints) == (complaint is not None)
    assert complaint is None or complaint in complaints[0]


@pytest.mark.parametrize(
    ("source", "remark"),
    [
        ("netlink", None),
        ("blind", "(traffic source: blind), so it waited for 40 s"),
        ("procfs", "no requests (traffic source: procfs)"),
    ],
)
def test_the_remarks_tell_the_look_back_and_what_could_not_be_seen(source: str, remark: str | None) -> None:
    told = "\n".join(remarks(Scale(), [reported(source)]))
    assert "SETTLE_LOOK_BACK=20s (default: 5m) and 25 s of load" in told
    assert ("traffic source" in told) == (remark is not None)
    assert remark is None or remark in told
    assert "LOOK_BACK" not in "".join(remarks(Scale(), [])), "no sidecar took part"


@pytest.mark.parametrize(
    ("ways", "nacos", "said"),
    [
        (["sigterm", "sigkill"], None, "valid are sigterm, sleep, nacos-drain"),
        (["sleep", "sleep"], None, "each once"),
        ([], None, "valid are"),
        (["sleep"], "ftp://127.0.0.1", "--nacos: "),
    ],
)
async def test_what_the_demo_cannot_do_it_refuses(
    ways: list[str], nacos: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(ways=ways, nacos=nacos) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


# -- the demo itself


@pytest.mark.long
async def test_a_small_demo_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM alone loses requests, the last line is JSON, and no process is left."""
    others = set(psutil.Process().children(recursive=True))  # real servers of other tests
    assert await run(ways=["sigterm"], as_json=True, scale=Scale(cache=1.0, consumers=2)) == 0
    out, _ = capsys.readouterr()
    told = json.loads(out)["ways"]
    assert list(told) == ["sigterm"]
    assert told["sigterm"]["failed"] > 0
    assert told["sigterm"]["requests"] > told["sigterm"]["failed"]
    assert told["sigterm"]["seconds"] >= provider.STOP_SECONDS
    assert not set(psutil.Process().children(recursive=True)) - others


def small_demo(*ways: str) -> dict[str, Any]:
    """What the program of that name prints."""
    return told_in_a_network_of_its_own("small_demo.py", *ways)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_sidecar_that_sees_its_callers_is_done_before_the_sleep() -> None:
    told = small_demo("nacos-drain", "sleep")  # the sidecars first: nothing else gives them time to watch
    assert told["complaints"] == []
    sleep, drain = told["ways"]["sleep"], told["ways"]["nacos-drain"]
    assert sleep["failed"] == drain["failed"] == 0
    assert sleep["seconds"] >= 15
    assert 4 < drain["seconds"] < sleep["seconds"] - 2
    assert told["sources"] == ["netlink"]
    assert told["missed"] == []
    assert told["rhythms"]["draining"] == [{"known": 2, "unknown": 0, "many": 0}]


@pytest.mark.long
@pytest.mark.timeout(60)
async def test_a_sidecar_has_to_watch_before_its_roll(capsys: pytest.CaptureFixture[str]) -> None:
    """Too short a warm-up, and the demo says what came of it."""
    scale = Scale(cache=1.0, longest_cache=3.0, consumers=2, look_back=60.0, warm_up=4.0)
    assert await run(ways=["nacos-drain"], scale=scale) == 1
    out, err = capsys.readouterr()
    assert "warming up 5 s: a sidecar that has watched for less than the look-back (SETTLE_LOOK_BACK=1m)" in out
    assert "its sidecar knows 2 of 2 callers (traffic source: netlink)" in out
    assert "SETTLE expired: waited for the cap" in err


@pytest.mark.long
@pytest.mark.parametrize("how", ["interrupted", "a replica dies"])
def test_the_demo_takes_everything_with_it(how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--ways", "sleep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        while "preStop deregisters" not in demo.stdout.readline():
            assert demo.poll() is None
        children = psutil.Process(demo.pid).children()
        (first, *_) = [child for child in children if "sidecar.demo.provider" in child.cmdline()]
        assert len(children) >= 5  # double, consumers, three replicas
        if how == "interrupted":
            demo.send_signal(signal.SIGINT)
        else:
            first.kill()
        _, errors = demo.communicate(timeout=15)
    assert demo.returncode == (130 if how == "interrupted" else 1)
    assert ("exited with -9, unasked" in errors) == (how == "a replica dies")
    assert "Traceback" not in errors
    assert not any(child.is_running() for child in children)
