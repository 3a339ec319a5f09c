"""The app's process as the kernel shows it: real children, real sockets, real signals."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.adapters.process import PodProcess, addresses
from sidecar.lease import Life, Port
from sidecar.ports import Rejected, Unavailable
from sidecar.traffic import Listener


PROGRAMS = Path(__file__).parent / "programs"
OBSERVER = [sys.executable, str(PROGRAMS / "observer.py")]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up or to make a PID namespace")
NEW_PID_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Child:
    """A process of ours with its children, and what they say.

    No asyncio process: its wait() is for the end of the output too, which an heir holds open.
    """

    def __init__(self, *argv: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(PROGRAMS.parents[1])}
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
        self.pid = self._process.pid
        self.said: list[str] = []

    async def line(self, start: str) -> str:
        """Wait for the line that begins so."""
        for said in self.said:
            if said.startswith(start):
                return said
        assert self._process.stdout is not None
        async with asyncio.timeout(10):
            while True:
                line = await asyncio.to_thread(self._process.stdout.readline)
                assert line, f"no {start!r}, but {self.said}"
                self.said.append(line.rstrip())
                if line.startswith(start):
                    return self.said[-1]

    async def exit_code(self) -> int:
        """Wait for its end."""
        return await asyncio.to_thread(self._process.wait, 5)

    async def end(self) -> None:
        """Kill it, and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.exit_code()
        assert self._process.stdout is not None
        self._process.stdout.close()


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[Child]:
    """A child process."""
    child = Child(*argv)
    try:
        yield child
    finally:
        await child.end()


@asynccontextmanager
async def listening(
    port: int, *options: str, host: str = "127.0.0.1", within: tuple[str, ...] = ()
) -> AsyncIterator[Child]:
    """A child that listens."""
    program = (sys.executable, "-I", "-S", str(PROGRAMS / "listener.py"), host, str(port), *options)
    async with running(*within, *program) as child:
        await child.line("listening")
        yield child


async def life_of(port: int) -> Life:
    seen = await PodProcess().look(frozenset({port}))
    assert seen.life is not None
    return seen.life


# -- listening -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
async def test_a_listener_of_any_family_is_seen_and_its_process(host: str) -> None:
    port = free_port()
    async with listening(port, host=host) as child:
        observer = PodProcess()
        seen = await observer.look(frozenset({port}))
        assert seen.port is Port.OPEN
        assert seen.ports == {port}
        assert seen.life is not None
        assert seen.life.pid == child.pid
        assert seen.age is not None
        assert 0 <= seen.age < 10
        assert not await observer.hung(frozenset({port}))


async def test_a_port_that_nobody_listens_on_is_closed_and_refused_is_not_hung() -> None:
    observer, port = PodProcess(), free_port()
    seen = await observer.look(frozenset({port}))
    assert (seen.port, seen.life, seen.ports) == (Port.CLOSED, None, frozenset())
    assert not await observer.hung(frozenset({port}))


async def test_with_no_port_named_all_are_the_apps_but_our_own() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        own = ours.getsockname()[1]
        async with listening(port):
            seen = await PodProcess(own_ports=[own]).look(frozenset())
            assert port in seen.ports
            assert own not in seen.ports


async def test_connections_are_no_listeners() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        seen = await PodProcess().look(frozenset({client.getsockname()[1]}))
        assert seen.port is Port.CLOSED


async def test_a_kernel_that_tells_nothing_is_unavailable_and_never_closed(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await PodProcess(proc=str(tmp_path)).look(frozenset({8080}))


async def test_a_new_life_on_the_same_port_is_another_one() -> None:
    port, observer = free_port(), PodProcess()
    lives = []
    for _ in range(2):
        async with listening(port):
            seen = await observer.look(frozenset({port}))
            assert seen.life is not None
            assert seen.life.same((await observer.look(frozenset({port}))).life)
            lives.append(seen.life)
    assert not lives[0].same(lives[1])
    assert not lives[0].sockets & lives[1].sockets


async def test_ipv4_in_ipv6_is_folded_as_the_other_source_folds_it() -> None:
    port = free_port()
    async with listening(port, host="::ffff:127.0.0.1"):
        found = [(x.host, x.port) for x in await PodProcess()._listeners()]
        assert ("127.0.0.1", port) in found


# -- another source of listeners -------------------------------------------------------------------------------------


class Source:
    """What netlink would tell: a script."""

    def __init__(self, *told: Listener) -> None:
        self.told: tuple[Listener, ...] | None = told
        self.asked = 0

    async def __call__(self) -> tuple[Listener, ...]:
        self.asked += 1
        if self.told is None:
            raise Unavailable("no netlink here")
        return self.told


async def test_another_source_is_believed_and_proc_not_read(tmp_path: Path) -> None:
    source = Source(Listener("127.0.0.1", 8080, 7), Listener("::", 8080, 8), Listener("::", 9090, 9))
    observer = PodProcess(own_ports=[9090], listeners=source, proc=str(tmp_path))
    for ports in ({8080}, set[int]()):
        seen = await observer.look(frozenset(ports))
        assert (seen.port, seen.life, seen.ports) == (Port.OPEN, Life(frozenset({7, 8})), frozenset({8080}))
    source.told = ()
    assert (await observer.look(frozenset({8080}))).port is Port.CLOSED


async def test_the_process_is_found_by_the_inode_that_another_source_tells() -> None:
    port = free_port()
    async with listening(port) as child:
        (inode,) = (await life_of(port)).sockets
        seen = await PodProcess(listeners=Source(Listener("127.0.0.1", port, inode))).look(frozenset({port}))
        assert seen.life is not None
        assert seen.life.pid == child.pid


async def test_where_the_other_source_tells_nothing_proc_does_each_time(tmp_path: Path) -> None:
    port, source = free_port(), Source(Listener("127.0.0.1", 1, 7))
    source.told = None
    observer = PodProcess(listeners=source)
    async with listening(port) as child:
        seen = await observer.look(frozenset({port}))
        assert seen.life is not None
        assert seen.life.pid == child.pid
        source.told = (Listener("127.0.0.1", 1, 7),)
        assert (await observer.look(frozenset({port}))).port is Port.CLOSED  # it has come back, and is asked first
    source.told = None
    assert (await observer.look(frozenset({port}))).port is Port.CLOSED
    assert source.asked == 3
    with pytest.raises(Unavailable, match="/net/tcp is not there"):
        await PodProcess(listeners=source, proc=str(tmp_path)).look(frozenset({port}))


async def test_an_exit_without_a_visible_process_is_seen_by_the_same_source(tmp_path: Path) -> None:
    source = Source(Listener("::", 8080, 7), Listener("::", 8080, 8))
    exited = asyncio.create_task(PodProcess(listeners=source, proc=str(tmp_path)).exited(Life(frozenset({7, 8}))))
    done, _ = await asyncio.wait({exited}, timeout=0.3)
    assert not done
    assert source.asked > 1
    source.told = (Listener("::", 8080, 8), Listener("::", 8080, 9))  # one left, and the next run has begun
    done, _ = await asyncio.wait({exited}, timeout=0.3)
    assert not done
    source.told = (Listener("::", 8080, 9),)
    async with asyncio.timeout(5):
        await exited


# -- exits -----------------------------------------------------------------------------------------------------------


async def test_an_exit_is_noticed_at_once() -> None:
    port, loop = free_port(), asyncio.get_running_loop()
    async with listening(port) as child:
        exited = asyncio.create_task(PodProcess().exited(await life_of(port)))
        done, _ = await asyncio.wait({exited}, timeout=0.2)
        assert not done
        killed = loop.time()
        os.kill(child.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            await exited
        assert loop.time() - killed < 0.5


async def test_a_reused_pid_is_an_exit() -> None:
    """Our own pid stands for it: alive, but never started then."""
    async with asyncio.timeout(5):
        await PodProcess().exited(Life(frozenset(), os.getpid(), 1.0))


async def test_children_that_keep_the_socket_are_the_same_life_until_the_last_has_let_go() -> None:
    port, observer = free_port(), PodProcess()
    program = (sys.executable, "-I", "-S", str(PROGRAMS / "listener.py"), "127.0.0.1", str(port), "--children", "1")
    async with running(*program) as parent:
        heir = int((await parent.line("child")).split()[1])
        await parent.line("listening")
        life = (await observer.look(frozenset({port}))).life
        assert life is not None
        assert life.pid == parent.pid  # the older one
        exited = asyncio.create_task(observer.exited(life))
        os.kill(parent.pid, signal.SIGKILL)
        await parent.exit_code()
        done, _ = await asyncio.wait({exited}, timeout=0.3)
        assert not done
        left = await observer.look(frozenset({port}))
        assert left.life is not None
        assert left.life.pid == heir
        assert left.life.same(life)
        os.kill(heir, signal.SIGKILL)
        async with asyncio.timeout(5):
            await exited


# -- a process that cannot be seen -----------------------------------------------------------------------------------


async def observed(child: Child) -> dict[str, Any]:
    line = await child.line("observed")
    told: dict[str, Any] = json.loads(line.removeprefix("observed "))
    return told


@as_root
async def test_a_process_of_another_user_is_an_open_port_without_a_pid() -> None:
    port = free_port()
    options = ["--uid", str(NOBODY), "--signal"]
    async with listening(port), running(*OBSERVER, str(port), *options) as observer:
        told = await observed(observer)
        assert (told["port"], told["pid"], told["sockets"], told["age"]) == ("open", None, 1, None)
        assert "shareProcessNamespace: true" in told["rejected"]
        assert "NACOS_DRAIN_APP_PROCESS" in told["rejected"]


@as_root
async def test_a_process_of_another_user_may_be_named_but_not_signalled() -> None:
    port = free_port()
    options = ["--uid", str(NOBODY), "--match", rf"listener\.py 127.0.0.1 {port}", "--signal"]
    async with listening(port) as app, running(*OBSERVER, str(port), *options) as observer:
        told = await observed(observer)
        assert told["rejected"] == (f"not allowed to signal process {app.pid}: give both containers the same runAsUser")


@as_root
async def test_a_process_in_another_pid_namespace_is_an_open_port_without_a_pid() -> None:
    """What a pod without shareProcessNamespace is."""
    port = free_port()
    async with listening(port), running(*NEW_PID_NAMESPACE, *OBSERVER, str(port)) as observer:
        told = await observed(observer)
        assert (told["port"], told["pid"], told["sockets"]) == ("open", None, 1)


@as_root
async def test_process_one_is_signalled_when_it_owns_the_port() -> None:
    port = free_port()
    async with listening(port, "--run", *OBSERVER, str(port), "--signal", within=(*NEW_PID_NAMESPACE,)) as app:
        told = await observed(app)
        assert told["pid"] == 1
        assert "rejected" not in told
        await app.line("SIGTERM")


@as_root
async def test_process_one_is_never_signalled_by_its_name_nor_are_we() -> None:
    port = free_port()
    watch = [*OBSERVER, str(free_port()), "--match", "python", "--signal"]
    async with listening(port, "--run", *watch, within=(*NEW_PID_NAMESPACE,)) as sandbox:
        told = await observed(sandbox)
        assert "matches 0 processes" in told["rejected"]
        assert "SIGTERM" not in sandbox.said


# -- signals ---------------------------------------------------------------------------------------------------------


async def test_the_owner_of_the_port_is_asked_to_stop_or_made_to() -> None:
    observer = PodProcess()
    for kill, code in ((False, 0), (True, -signal.SIGKILL)):
        port = free_port()
        async with listening(port) as child:
            life = await life_of(port)
            await observer.signal(life, kill=kill)
            if not kill:
                await child.line("SIGTERM")
            async with asyncio.timeout(5):
                await observer.exited(life)
                assert await child.exit_code() == code
            await observer.signal(life, kill=kill)  # gone is what was wanted


async def test_a_reused_pid_is_not_signalled() -> None:
    port = free_port()
    async with listening(port) as child:
        life = await life_of(port)
        assert life.started is not None
        await PodProcess().signal(replace(life, started=life.started - 1), kill=True)
        assert (await life_of(port)).same(life)
        os.kill(child.pid, 0)


async def test_a_process_is_found_by_its_command_line_when_it_is_the_only_one() -> None:
    port = free_port()
    by_name = PodProcess(match=rf"listener\.py 127.0.0.1 {port}")
    with pytest.raises(Rejected, match="matches 0 processes"):
        await by_name.signal(None, kill=False)
    async with listening(port) as child:
        await by_name.signal(None, kill=False)
        await child.line("SIGTERM")
    other = free_port()
    async with listening(port), listening(other):
        both = PodProcess(match=rf"listener\.py 127.0.0.1 ({port}|{other})")
        with pytest.raises(Rejected, match="matches 2 processes; it has to match the command line of exactly one"):
            await both.signal(None, kill=False)


async def test_of_a_family_that_matches_the_parent_is_signalled() -> None:
    port = free_port()
    program = (sys.executable, "-I", "-S", str(PROGRAMS / "listener.py"), "127.0.0.1", str(port), "--children", "1")
    async with running(*program) as parent:
        heir = int((await parent.line("child")).split()[1])
        await parent.line("listening")
        await PodProcess(match=rf"listener\.py 127.0.0.1 {port}").signal(None, kill=True)
        assert await parent.exit_code() == -signal.SIGKILL
        os.kill(heir, 0)
        os.kill(heir, signal.SIGKILL)


async def test_we_are_never_the_target() -> None:
    ours = " ".join(psutil.Process().cmdline())
    with pytest.raises(Rejected, match="matches 0 processes"):
        await PodProcess(match=f"^{re.escape(ours)}$").signal(None, kill=False)
    with socket.create_server(("127.0.0.1", 0)) as mine:
        life = await life_of(mine.getsockname()[1])
        assert life.pid == os.getpid()
        with pytest.raises(Rejected, match="shareProcessNamespace"):
            await PodProcess().signal(life, kill=False)


# -- hung ------------------------------------------------------------------------------------------------------------


async def test_a_full_queue_of_connections_is_hung() -> None:
    async def knock(host: str) -> tuple[bool, float]:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as app:
            app.bind((host, 0))
            app.listen(0)
            waiting = socket.create_connection(app.getsockname()[:2])  # there is room for one more than it says
            began = asyncio.get_running_loop().time()
            hung = await PodProcess().hung(frozenset({app.getsockname()[1]}))
            waiting.close()
            return hung, asyncio.get_running_loop().time() - began

    for hung, seconds in await asyncio.gather(knock("127.0.0.1"), knock("::1")):
        assert hung
        assert 1 <= seconds < 2


async def test_refused_and_unreachable_are_not_hung() -> None:
    """What listened when the kernel was asked may be gone when we knock."""
    closed = free_port()
    for host in ("127.0.0.1", "::1", "0.0.0.0", "::", "fe80::1"):  # the last one cannot be called without its card
        observer = PodProcess(listeners=Source(Listener(host, closed, 7)))
        async with asyncio.timeout(0.9):
            assert not await observer.hung(frozenset({closed}))


async def test_where_netlink_is_denied_the_pods_addresses_are_read_from_proc() -> None:
    """A hardened pod's seccomp profile may deny it, and psutil asks nothing else."""
    script = "from sidecar.adapters.process import addresses; print('found', *addresses())"
    denied = [sys.executable, str(PROGRAMS / "confined.py"), "no-netlink", sys.executable, "-c", script]
    async with running(*denied) as child:
        assert set((await child.line("found")).split()[1:]) == set(addresses())
