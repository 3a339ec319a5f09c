"""The kubelet emulator against what was read in the kubelet's source and measured on a real one."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from kubelet import Container, Exec, HookFailedError, HttpGet, LifecycleClient, Pod


SECOND = 0.1  # of the kubelet's arithmetic, so that a minute's scenario takes seconds
SLACK = 2.0  # real seconds a busy machine may lose; order is asserted strictly
PROGRAM = str(Path(__file__).parent / "programs" / "pod_process.py")
NODE = "127.0.0.2"
POD = "127.0.0.21"
ELSEWHERE = "127.0.0.22"


def program(*options: str) -> list[str]:
    return [sys.executable, "-I", "-S", PROGRAM, *options]


def free_port(ip: str = POD) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def app(port: int, *, on_term: str = "exit") -> Container:
    """Give an app with a hook on the sidecar's port."""
    return Container("app", program("--on-term", on_term), pre_stop=HttpGet("/drain", port))


def sidecar(
    port: int,
    *,
    answer_after: float,
    on_term: str = "exit",
    native: bool = False,
    pre_stop: HttpGet | None = None,
) -> Container:
    """Give the server of the app's hook; `answer_after` is in the emulator's seconds."""
    answer = str(answer_after * SECOND)
    return Container(
        "sidecar",
        program("--listen", f"{POD}:{port}", "--answer-after", answer, "--on-term", on_term),
        native_sidecar=native,
        startup_probe=HttpGet("/up", port),
        pre_stop=pre_stop,
    )


def pod_of(*containers: Container, grace: int = 6, old_kubelet: bool = False) -> Pod:
    return Pod(
        *containers,
        ip=POD,
        termination_grace_period_seconds=grace,
        second=SECOND,
        node_ip=NODE,
        old_kubelet=old_kubelet,
    )


async def running(pod: Pod, *names: str) -> None:
    """Wait until the programs have their signal handlers."""
    for name in names:
        await pod.timeline.printed(name, "running")


def assert_about(actual: float, expected: float) -> None:
    """Assert a time that is never early, and late only by what a busy machine costs.

    Events are noted just before or after what they tell, hence the hundredths.
    """
    assert expected - 0.03 <= actual < expected + SLACK


def app_with(*argv: str) -> Container:
    """Give an app whose hook is a program."""
    return Container("app", program(), pre_stop=Exec(argv))


# Who is told what, and when


async def test_a_hook_may_be_a_program_and_is_waited_for() -> None:
    async with pod_of(app_with("sleep", str(2 * SECOND))) as pod:
        await running(pod, "app")
        await pod.terminate()
    t = pod.timeline
    t.assert_order(("app", "hook-start"), ("app", "hook-end"), ("app", "sigterm"), ("app", "exit"))
    assert_about(t.at("app", "sigterm"), 2 * SECOND)


@pytest.mark.parametrize(
    ("argv", "complaint"), [(["false"], "false exited with 1"), (["no-such-hook"], "no-such-hook")]
)
async def test_a_program_that_fails_is_a_failed_hook_and_delays_nothing(argv: list[str], complaint: str) -> None:
    async with pod_of(app_with(*argv)) as pod:
        await running(pod, "app")
        await pod.terminate()
    assert complaint in pod.timeline.event("app", "hook-failed").detail
    assert_about(pod.timeline.at("app", "sigterm"), 0)


async def test_a_program_that_outlasts_the_grace_period_ends_with_its_container() -> None:
    async with pod_of(app_with("sleep", "600"), grace=3) as pod:
        await running(pod, "app")
        await pod.terminate()
        await pod.timeline.seen("app", "hook-failed")
    assert_about(pod.timeline.at("app", "sigterm"), 3 * SECOND)


async def test_an_ordinary_sidecar_is_signalled_before_its_hook_is_called() -> None:
    """Measured: SIGTERM +21 ms, then the request; the app follows the answer by 10-20 ms."""
    port = free_port()
    async with pod_of(app(port), sidecar(port, answer_after=2, on_term="stay"), grace=4) as pod:
        await running(pod, "app", "sidecar")
        await pod.terminate(order="signal_first")
    t = pod.timeline
    t.assert_order(
        ("sidecar", "sigterm"),
        ("app", "hook-start"),
        ("app", "hook-end"),
        ("app", "sigterm"),
        ("app", "exit"),
        ("sidecar", "sigkill"),
        ("sidecar", "exit"),
        ("pod", "gone"),
    )
    assert t.at("app", "hook-start") - t.at("sidecar", "sigterm") >= 0.02
    assert_about(t.at("sidecar", "sigterm"), 0)
    assert_about(t.at("app", "sigterm"), 2 * SECOND)
    # Its StopContainer began at T0 with the whole grace period.
    assert_about(t.at("sidecar", "sigkill"), 4 * SECOND)
    assert t.event("app", "exit").detail == "3"
    assert t.event("sidecar", "exit").detail == "137"
    assert t.text("sidecar").index("SIGTERM") < t.text("sidecar").index("GET /drain")


async def test_the_hook_may_also_come_first_and_its_status_counts_for_nothing() -> None:
    """Measured: request +30 ms, SIGTERM +38 ms; 404 and 500 are as good as 200."""
    port = free_port()
    async with pod_of(app(port), sidecar(port, answer_after=2, on_term="stay"), grace=4) as pod:
        await running(pod, "app", "sidecar")
        await pod.terminate(order="hook_first")
    t = pod.timeline
    t.assert_order(("app", "hook-start"), ("sidecar", "sigterm"), ("app", "hook-end"), ("app", "sigterm"))
    assert t.event("app", "hook-end").detail == "500"
    assert t.text("sidecar").index(f"GET /drain from {NODE}") < t.text("sidecar").index("SIGTERM")


async def test_a_sidecar_that_exits_on_sigterm_loses_the_drain() -> None:
    """Measured: hook reset or refused, app SIGTERM at +0.02...0.06 s, with the whole grace left."""
    port = free_port()
    pod = pod_of(app(port, on_term="stay"), sidecar(port, answer_after=40), grace=4)
    async with pod:
        await running(pod, "app", "sidecar")
        await pod.terminate()
    t = pod.timeline
    t.assert_order(("sidecar", "sigterm"), ("app", "hook-failed"), ("app", "sigterm"), ("app", "sigkill"))
    t.assert_order(("sidecar", "exit"), ("app", "sigkill"))
    assert t.event("app", "hook-failed").detail.startswith("FailedPreStopHook: ")
    assert_about(t.at("app", "sigkill") - t.at("app", "sigterm"), 4 * SECOND)


async def test_native_sidecars_go_after_the_app_in_reverse_order() -> None:
    """All hooks run at T0, the native sidecar's own too; its SIGTERM waits for the app's exit."""
    port = free_port()
    proxy = Container("proxy", program(), native_sidecar=True)
    drain = sidecar(port, answer_after=2, native=True, pre_stop=HttpGet("/own", port))
    async with pod_of(app(port), drain, proxy, grace=20) as pod:
        await running(pod, "app", "sidecar", "proxy")
        await pod.terminate()
    t = pod.timeline
    t.assert_order(
        ("sidecar", "startup-passed"),
        ("proxy", "started"),
        ("app", "started"),
        ("app", "hook-end"),
        ("app", "sigterm"),
        ("app", "exit"),
        ("proxy", "sigterm"),
        ("proxy", "exit"),
        ("sidecar", "sigterm"),
        ("sidecar", "exit"),
        ("pod", "gone"),
    )
    assert_about(t.at("app", "hook-start"), 0)
    assert_about(t.at("sidecar", "hook-start"), 0)
    assert t.at("sidecar", "hook-start") < t.at("app", "hook-end")
    assert t.at("proxy", "sigterm") - t.at("app", "exit") < SLACK


async def test_a_hook_that_overruns_leaves_two_seconds() -> None:
    """Measured with grace 6 and a hook of 40: SIGTERM at +6.02, SIGKILL at +8.1, both containers.

    The request is not cancelled: it ends when the sidecar does.
    """
    port = free_port()
    drain = sidecar(port, answer_after=40, on_term="stay", native=True)
    async with pod_of(app(port, on_term="stay"), drain, grace=3) as pod:
        await running(pod, "app", "sidecar")
        await pod.terminate()
        await pod.timeline.seen("app", "hook-failed")
    t = pod.timeline
    for name in ("app", "sidecar"):
        assert_about(t.at(name, "sigterm"), 3 * SECOND)
        assert_about(t.at(name, "sigkill") - t.at(name, "sigterm"), 2 * SECOND)
    t.assert_order(("sidecar", "sigterm"), ("app", "sigkill"))
    t.assert_order(("app", "sigterm"), ("sidecar", "sigkill"))
    t.assert_order(("sidecar", "sigkill"), ("app", "hook-failed"))


async def test_an_app_that_dies_early_does_not_end_the_hook() -> None:
    """Measured: app dead at +0.87 s, hook answered at +9.0 s, native sidecar SIGTERM at +9.0 s."""
    port = free_port()
    async with pod_of(app(port), sidecar(port, answer_after=10, native=True), grace=40) as pod:
        await running(pod, "app", "sidecar")
        stop = asyncio.create_task(pod.terminate())
        await pod.timeline.printed("sidecar", "GET /drain")
        os.kill(pod.pid("app"), signal.SIGKILL)
        await stop
    t = pod.timeline
    t.assert_order(("app", "exit"), ("app", "hook-end"), ("sidecar", "sigterm"), ("pod", "gone"))
    assert_about(t.at("app", "hook-end"), 10 * SECOND)
    t.assert_never("app", "sigterm")
    assert len(t.all("app", "started")) == 1


@pytest.mark.parametrize(("grace", "hook"), [(5, 1.5), (2, 1.5)])
async def test_time_spent_is_cut_to_whole_seconds_with_a_floor_of_two(grace: int, hook: float) -> None:
    """A hook of 1.5 s takes off 1 s, so that the whole may take longer than the grace period."""
    port = free_port()
    drain = sidecar(port, answer_after=hook, native=True)
    async with pod_of(app(port, on_term="stay"), drain, grace=grace) as pod:
        await running(pod, "app")
        await pod.terminate()
    t = pod.timeline
    spent = int((t.at("app", "hook-end") - t.at("app", "hook-start")) / SECOND)
    left = max(2, grace - spent)
    assert spent >= 1
    assert_about(t.at("app", "sigkill") - t.at("app", "sigterm"), left * SECOND)
    assert t.at("app", "sigkill") > grace * SECOND


async def test_a_forced_deletion_gives_the_hook_one_second() -> None:
    port = free_port()
    drain = sidecar(port, answer_after=40, on_term="stay", native=True)
    async with pod_of(app(port, on_term="stay"), drain, grace=30) as pod:
        await running(pod, "app", "sidecar")
        await pod.force_delete()
    t = pod.timeline
    assert_about(t.at("app", "sigterm"), SECOND)
    assert_about(t.at("app", "sigkill"), 3 * SECOND)
    assert t.at("pod", "gone") < 3 * SECOND + SLACK


# Kubelet restarts, liveness restarts, crashes


async def test_a_restarted_kubelet_delivers_the_hook_again_with_the_full_grace() -> None:
    """At least once: the first connection dies with the old kubelet.

    A container runtime does not repeat its stop signal.
    """
    port = free_port()
    drain = sidecar(port, answer_after=40, on_term="stay")
    async with pod_of(app(port), drain, grace=2) as pod:
        await running(pod, "app", "sidecar")
        stop = asyncio.create_task(pod.terminate())
        await pod.timeline.printed("sidecar", "GET /drain")
        await pod.timeline.seen("sidecar", "sigterm")
        await pod.restart_kubelet(down=1)
        await stop
    t = pod.timeline
    t.assert_order(
        ("app", "hook-start"),
        ("kubelet", "down"),
        ("app", "hook-cut"),
        ("kubelet", "up"),
        ("app", "hook-start"),
        ("app", "sigterm"),
        ("app", "exit"),
    )
    again = t.at("app", "hook-start", 1)
    assert_about(again - t.at("kubelet", "down"), SECOND)
    assert_about(t.at("app", "sigterm") - again, 2 * SECOND)
    assert t.text("sidecar").count("GET /drain") == 2
    assert len(t.all("sidecar", "sigterm")) == 1


async def test_a_liveness_restart_runs_the_hook_and_tells_the_sidecar_nothing() -> None:
    """Measured: hook +0, answer +3, SIGTERM and exit +3.03, the app again 1 s after its exit."""
    port = free_port()
    async with pod_of(app(port), sidecar(port, answer_after=2), grace=6) as pod:
        await running(pod, "app", "sidecar")
        await pod.liveness_restart("app")
        await pod.timeline.printed("app", "running", nth=1)
        t = pod.timeline
        t.assert_order(
            ("app", "unhealthy"),
            ("app", "hook-start"),
            ("app", "hook-end"),
            ("app", "sigterm"),
            ("app", "exit"),
            ("app", "started"),
        )
        assert_about(t.at("app", "sigterm"), 2 * SECOND)
        assert_about(t.at("app", "started", -1) - t.at("app", "exit"), SECOND)
        for nothing in ("sigterm", "exit", "hook-start"):
            t.assert_never("sidecar", nothing)
        assert "SIGTERM" not in t.text("sidecar")

        await pod.terminate()  # a restarted app is stopped like any other
        assert len(t.all("app", "hook-start")) == 2
        assert len(t.all("app", "started")) == 2


async def test_a_probes_own_grace_period_bounds_the_hook_of_a_liveness_restart() -> None:
    port = free_port()
    drain = sidecar(port, answer_after=40)
    async with pod_of(app(port, on_term="stay"), drain, grace=30) as pod:
        await running(pod, "app", "sidecar")
        await pod.liveness_restart("app", grace=1)
        assert_about(pod.timeline.at("app", "sigterm"), SECOND)
        assert_about(pod.timeline.at("app", "sigkill"), 3 * SECOND)


async def test_a_crash_runs_no_hook_and_the_container_comes_back() -> None:
    port = free_port()
    async with pod_of(app(port), sidecar(port, answer_after=0), grace=6) as pod:
        await running(pod, "app", "sidecar")
        await pod.crash("app")
        t = pod.timeline
        t.assert_order(("app", "crash"), ("app", "exit"), ("app", "started"))
        t.assert_never("app", "hook-start")
        t.assert_never("sidecar", "exit")
        assert t.event("app", "exit").detail == "137"
        first = pod.pid("sidecar")
        await pod.crash("sidecar")  # back on the same address: its startup probe has passed again
        assert pod.pid("sidecar") != first
        assert len(t.all("sidecar", "startup-passed")) == 2


async def test_a_native_sidecar_that_dies_in_mid_drain_stays_dead() -> None:
    """Measured: hook = EOF, the app is SIGTERMed at once, no restart in a terminating pod."""
    port = free_port()
    async with pod_of(app(port, on_term="stay"), sidecar(port, answer_after=400, native=True), grace=200) as pod:
        await running(pod, "app", "sidecar")
        stop = asyncio.create_task(pod.terminate())
        await pod.timeline.printed("sidecar", "GET /drain")
        os.kill(pod.pid("sidecar"), signal.SIGKILL)
        await pod.timeline.printed("app", "SIGTERM")
        # The socket ends before the process does: an app that went at once could be gone before the sidecar counts
        # as dead, whose turn to be stopped it would then be.
        await pod.timeline.seen("sidecar", "exit")
        os.kill(pod.pid("app"), signal.SIGKILL)
        await stop
    t = pod.timeline
    t.assert_order(("app", "hook-start"), ("app", "hook-failed"), ("app", "sigterm"), ("app", "exit"))
    assert t.event("sidecar", "exit").detail == "137"
    assert t.at("app", "sigterm") < SLACK
    assert len(t.all("sidecar", "started")) == 1
    t.assert_never("sidecar", "sigterm")


# The processes


def dead(process: psutil.Process) -> bool:
    """Tell the dead, buried or not: a container's PID 1 may never bury orphans."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_nothing_survives_the_context_even_in_a_session_of_its_own() -> None:
    pod = pod_of(Container("app", program("--stray", "--on-term", "stay")))
    alive: list[psutil.Process] = []

    async def fail() -> None:
        async with pod:
            await running(pod, "app")
            stray = (await pod.timeline.printed("app", "stray")).text.split()[1]
            alive.extend(psutil.Process(pid) for pid in (pod.pid("app"), int(stray)))
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError, match="the test failed"):
        await fail()
    async with asyncio.timeout(5):
        while not all(dead(process) for process in alive):  # noqa: ASYNC110 - /proc tells nobody
            await asyncio.sleep(0.01)
    assert pod.timeline.text("app", "stderr") == "no newline at the end"


async def test_a_command_that_does_not_exist_is_the_tests_own_failure() -> None:
    with pytest.raises(FileNotFoundError):
        await pod_of(Container("app", ["/nonexistent"])).__aenter__()


async def test_a_failed_assertion_shows_the_timeline() -> None:
    async with pod_of(Container("app", program())) as pod:
        await running(pod, "app")
        with pytest.raises(AssertionError, match=r"no sigterm number 0 in\n.*app +started\n.*run"):
            pod.timeline.at("app", "sigterm")
        with pytest.raises(AssertionError, match="not found in its place"):
            pod.timeline.assert_order(("app", "started"), ("app", "started"))
        with pytest.raises(AssertionError, match="not seen within"):
            await pod.timeline.seen("app", "exit", within=0.01)


# The request on the wire


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Script:
    """A server on the pod's address that keeps the requests and answers as the test says."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        self.peers: list[tuple[str, int]] = []
        self.answers: list[bytes | float | None] = []  # bytes to send, seconds to wait, None = cut

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests; one answer is everything up to and including the next `b""` or None."""
        try:
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                self.peers.append(writer.get_extra_info("peername"))
                while part := self.answers.pop(0):
                    if isinstance(part, bytes):
                        writer.write(part)
                    else:
                        await asyncio.sleep(part)
                if part is None:
                    return
        except (OSError, EOFError):
            return
        finally:
            writer.close()

    def hook(self, path: str = "/drain", **headers: str) -> HttpGet:
        """Give a hook that calls this server."""
        return HttpGet(path, self.port, {k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    server = await asyncio.start_server(script.serve, POD, 0)
    script.port = server.sockets[0].getsockname()[1]
    yield script
    server.close()
    await server.wait_closed()


@pytest.fixture
async def client() -> AsyncIterator[LifecycleClient]:
    client = LifecycleClient(NODE)
    yield client
    await client.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def seconds(call: Awaitable[int]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await call
    return loop.time() - began


async def test_the_request_is_the_kubelets(script: Script, client: LifecycleClient) -> None:
    script.answers = [OK, b""]
    hook = script.hook("/drain?wait=1", x_drain_token="abc")
    assert await client.get(hook, POD) == 200
    assert script.requests[0].split("\r\n") == [
        "GET /drain?wait=1 HTTP/1.1",
        f"Host: {POD}:{script.port}",
        "User-Agent: kube-lifecycle/1.32",
        "Accept: */*",
        "X-Drain-Token: abc",
        "Accept-Encoding: gzip",
        "",
        "",
    ]
    assert script.peers[0][0] == NODE


async def test_an_old_kubelet_adds_a_slash_and_drops_the_headers(script: Script, client: LifecycleClient) -> None:
    script.answers = [OK, b""]
    hook = script.hook(x_drain_token="abc")
    await client.get(hook, POD, kind="old-hook")
    assert script.requests[0].split("\r\n") == [
        "GET //drain HTTP/1.1",
        f"Host: {POD}:{script.port}",
        "User-Agent: Go-http-client/1.1",
        "Accept-Encoding: gzip",
        "",
        "",
    ]


async def test_an_old_kubelets_pod_uses_that_request() -> None:
    port = free_port()
    drain = sidecar(port, answer_after=0, native=True)
    async with pod_of(app(port), drain, old_kubelet=True) as pod:
        await running(pod, "app", "sidecar")
        await pod.terminate()
    assert "GET //drain from" in pod.timeline.text("sidecar")


async def test_hooks_share_a_connection_and_probes_do_not(script: Script, client: LifecycleClient) -> None:
    """Measured: a second hook 10 s later came from the same port."""
    script.answers = [OK, b""] * 3
    await client.get(script.hook(), POD)
    await client.get(script.hook(), POD)
    await client.get(script.hook("/livez"), POD, kind="probe")
    first, second, probe = script.peers
    assert first == second != probe
    assert "User-Agent: kube-probe/1.32\r\n" in script.requests[2]
    assert "Connection: close\r\n" in script.requests[2]


async def test_a_reused_connection_that_dies_unanswered_is_dialled_again(
    script: Script, client: LifecycleClient
) -> None:
    script.answers = [OK, b"", None, OK, b""]
    await client.get(script.hook(), POD)
    assert await client.get(script.hook(), POD) == 200
    assert len(set(script.peers)) == 2
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    "answers",
    [
        [None],
        [b"HTTP/1.1 200 OK\r\nContent-Le", None],
        [b"SSH-2.0-OpenSSH\r\n\r\n", None],
    ],
    ids=["closed", "closed in the headers", "no HTTP"],
)
async def test_no_answer_is_a_failure(
    script: Script, client: LifecycleClient, answers: list[bytes | float | None]
) -> None:
    script.answers = answers
    with pytest.raises(HookFailedError):
        await client.get(script.hook(), POD)


async def test_a_refused_connection_is_a_failure(client: LifecycleClient) -> None:
    with pytest.raises(HookFailedError, match="ConnectionRefusedError"):
        await client.get(HttpGet("/drain", free_port()), POD)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BIG = b"fa0\r\n" + b"x" * 4000 + b"\r\n"
SMALL = b"1\r\nx\r\n"


@pytest.mark.parametrize(
    ("answers", "lasts"),
    [
        ([0.2, OK, b""], 0.2),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", 0.2, b"k", b""], 0.2),
        ([CHUNKED, SMALL, 0.1, SMALL, 0.1, b"0\r\n\r\n", b""], 0.2),
        ([b"HTTP/1.0 200 OK\r\n\r\nuntil", 0.2, b"the end", None], 0.2),
        ([b"HTTP/1.1 204 None\r\n\r\n", 5.0, b""], 0.0),
        ([CHUNKED, BIG, 0.1, BIG, 0.1, BIG, 5.0, b"0\r\n\r\n", b""], 0.2),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10241\r\n\r\n", 5.0, b"x" * 10241, b""], 0.0),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10240\r\n\r\n", 0.2, b"x" * 10240, b""], 0.2),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", 0.2, None], 0.2),
        ([b"HTTP/1.1 102 Wait\r\n\r\n", 0.2, OK, b""], 0.2),
    ],
    ids=[
        "late headers",
        "late body",
        "chunks to the last",
        "no length, to the end of the connection",
        "no body at all",
        "no more than 10240 bytes of chunks",
        "headers only when more is announced",
        "10240 bytes exactly",
        "a body cut short is no failure",
        "an informational answer first",
    ],
)
async def test_a_hook_ends_with_the_body_or_after_10_kib(
    script: Script, client: LifecycleClient, answers: list[bytes | float | None], lasts: float
) -> None:
    script.answers = answers
    assert_about(await seconds(client.get(script.hook(), POD)), lasts)


async def test_redirects_are_followed_on_the_same_host_only(script: Script, client: LifecycleClient) -> None:
    """Measured: 3 s behind a redirect were waited for; one to another host counted as done."""
    to = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n"
    script.answers = [to % b"/slow", b"", 0.2, OK, b""]
    assert_about(await seconds(client.get(script.hook(), POD)), 0.2)
    assert script.requests[1].startswith("GET /slow HTTP/1.1\r\n")

    script.answers = [to % b"http://%s:1/" % ELSEWHERE.encode(), b""]
    assert await client.get(script.hook(), POD) == 302

    script.answers = [to % b"/again", b""] * 10
    script.requests.clear()
    with pytest.raises(HookFailedError, match="stopped after 10 redirects"):
        await client.get(script.hook(), POD)
    assert len(script.requests) == 10
