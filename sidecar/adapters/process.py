"""The app beside us, as the kernel shows it: who listens on its ports, whether it is still there, how to tell it.

Listening is read, never tried: a connect would be one more caller to watch. Netlink tells it in a hundredth of the time
that /proc takes, which is read where there is no netlink. The pod's network namespace is shared, so the sockets are
always visible; the process behind them only with `shareProcessNamespace` and the same user id. What psutil tells of
sockets lacks the inode, which is what tells one run of an app from the next where no process is visible, and which
leads to the process where one is; so those columns are read here.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop

import psutil

from sidecar.lease import App, Life, Port
from sidecar.ours import Ours
from sidecar.ports import Rejected, Unavailable
from sidecar.traffic import Listener


LISTEN = "0A"  # the kernel's TCP_LISTEN, as /proc/net/tcp spells it
KNOCK = 1.0
LOOPBACKS = {"0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}  # noqa: S104  compared, not bound
CLOSED_PERIOD = 0.1
STARTED = 19  # of the fields behind the name in /proc/PID/stat: in clock ticks since the boot
INIT = 1  # in a pod with a shared process namespace this is the sandbox, whose end is the pod's
MAPPED = bytes(10) + b"\xff\xff"  # what an IPv4 address in IPv6 begins with

Listeners = Callable[[], Awaitable[tuple[Listener, ...]]]


def addresses(proc: Path = Path("/proc")) -> tuple[str, ...]:
    """The addresses under which this pod may be registered: no loopback, no link-local ones."""
    try:
        cards = [card for each in psutil.net_if_addrs().values() for card in each]
    except OSError:  # it asks netlink, which a seccomp profile may deny
        found = list(_addresses_in(proc))
    else:
        found = [card.address for card in cards if card.family in {AF_INET, AF_INET6}]
    outside = (a for a in found if not a.startswith(("127.", "fe80:", "169.254.")) and a != "::1")
    return tuple(dict.fromkeys(outside))


def _addresses_in(proc: Path) -> Iterator[str]:
    """The same from the routing tables of the kernel, as far as they can be read."""
    here = ""
    with contextlib.suppress(OSError):
        for words in map(str.split, (proc / "net/fib_trie").read_text().splitlines()):
            if words[0] == "|--":
                here = words[1]
            elif words == ["/32", "host", "LOCAL"]:
                yield here
    with contextlib.suppress(OSError):
        for row in (proc / "net/if_inet6").read_text().splitlines():
            yield inet_ntop(AF_INET6, bytes.fromhex(row.split()[0]))


class PodProcess:
    """An App in the same network namespace, and perhaps in the same process namespace.

    `listeners` tells all listening sockets; without it, or when it raises Unavailable, they are read from /proc.
    `ours` remembers our knocks, so that they are told from callers. `below_us`: we have started the app, so that only
    what a process below us listens on is its: a machine's network has others' listeners too.
    """

    def __init__(
        self,
        *,
        own_ports: Iterable[int] = (),
        match: str | None = None,
        listeners: Listeners | None = None,
        ours: Ours | None = None,
        below_us: bool = False,
        proc: str = "/proc",
    ) -> None:
        self._own = frozenset(own_ports)
        self._tell = listeners
        self._ours = ours or Ours()
        self._match = re.compile(match) if match else None
        self._proc = Path(proc)
        self._below_us = below_us
        self._found_below: frozenset[int] = frozenset()  # inodes
        self._owners: dict[frozenset[int], tuple[int, float] | None] = {}

    async def look(self, ports: frozenset[int]) -> App:
        """The app's listeners on these ports, or all but ours. Raises Unavailable when the kernel does not tell."""
        mine = await self._mine(ports)
        if not mine:
            return App(Port.CLOSED)
        sockets = frozenset(x.inode for x in mine)
        owner = await asyncio.to_thread(self._owner, sockets)
        listening = frozenset(x.port for x in mine)
        if owner is None:
            return App(Port.OPEN, Life(sockets), listening)
        pid, started = owner
        age = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
        return App(Port.OPEN, Life(sockets, pid, started), listening, age=age)

    async def hung(self, ports: frozenset[int]) -> bool:
        """Whether one of its listeners does not accept within a second."""
        mine = await self._mine(ports)
        results = await asyncio.gather(*(self._knock(x.host, x.port) for x in mine))
        return any(results)

    async def exited(self, life: Life) -> None:
        """Wait for the process to be gone, then for sockets that it may have passed on to its children."""
        if life.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                await self._gone(life)
        while life.sockets & {x.inode for x in await self._listeners()}:  # noqa: ASYNC110  the kernel has no event for it
            await asyncio.sleep(CLOSED_PERIOD)

    async def signal(self, life: Life | None, *, kill: bool) -> None:
        """Send SIGTERM or SIGKILL through a pidfd, so that a reused pid is never hit."""
        pid, started = self._target(life)
        try:
            with _pidfd(pid) as handle:
                if self._started(pid) == started:
                    signal.pidfd_send_signal(handle, signal.SIGKILL if kill else signal.SIGTERM)
        except PermissionError as error:
            raise Rejected(f"not allowed to signal process {pid}: give both containers the same runAsUser") from error
        except ProcessLookupError:
            return  # gone is what was wanted
        except OSError as error:
            raise Rejected(f"cannot signal process {pid} ({error.strerror}): use NACOS_DRAIN_RELEASE=hook") from error

    # -- the kernel's view -----------------------------------------------------------------------------------------

    async def _mine(self, ports: frozenset[int]) -> list[Listener]:
        found = [x for x in await self._listeners() if (x.port in ports if ports else x.port not in self._own)]
        inodes = frozenset(x.inode for x in found)
        if not self._below_us or inodes <= self._found_below:
            return found
        held = await asyncio.to_thread(self._held_below)
        if held is None:
            return found
        self._found_below = inodes & held
        return [x for x in found if x.inode in held]

    async def _listeners(self) -> tuple[Listener, ...]:
        """Every listening socket.

        /proc in a thread: the kernel walks its table of all connections of the node for it, 12 ms on a machine of
        32 GiB, and the first request of a drain must not wait for that.
        """
        if self._tell is not None:
            with contextlib.suppress(Unavailable):
                return await self._tell()
        return await asyncio.to_thread(lambda: tuple(self._read()))

    def _read(self) -> Iterator[Listener]:
        read = 0
        for name in ("tcp", "tcp6"):
            try:
                rows = (self._proc / "net" / name).read_text().splitlines()[1:]
            except FileNotFoundError:
                continue  # a kernel without IPv6 has no tcp6
            except OSError as error:
                raise Unavailable(f"cannot read {self._proc}/net/{name}: {error.strerror}") from error
            read += 1
            for row in rows:
                fields = row.split()
                if fields[3] == LISTEN:
                    host, _, port = fields[1].rpartition(":")
                    yield Listener(_address(host), int(port, 16), int(fields[9]))
        if not read:
            raise Unavailable(f"{self._proc}/net/tcp is not there")

    def _owner(self, sockets: frozenset[int]) -> tuple[int, float] | None:
        """The process that holds these sockets; of several the oldest, which is the parent of the others.

        Asked once per set of sockets while it lives: it walks every process that we may look into.
        """
        known = self._owners.get(sockets)
        if known is not None:
            if self._started(known[0]) == known[1]:
                return known
        elif sockets in self._owners:
            return None
        holders = [(started, pid) for pid in self._holders(sockets) if (started := self._started(pid)) is not None]
        oldest = min(holders, default=None)
        self._owners = {sockets: None if oldest is None else (oldest[1], oldest[0])}
        return self._owners[sockets]

    def _holders(self, sockets: frozenset[int]) -> Iterator[int]:
        """Every process that holds one of these sockets; psutil names one of several, and not the first."""
        links = {f"socket:[{inode}]" for inode in sockets}
        for entry in self._proc.glob("[0-9]*"):
            if not links.isdisjoint(_open_files(entry / "fd")):
                yield int(entry.name)

    def _held_below(self) -> frozenset[int] | None:
        """The sockets of all processes below us; None where one of them is another user's, and hides its own."""
        links: set[str] = set()
        for child in psutil.Process().children(recursive=True):
            folder = self._proc / str(child.pid) / "fd"
            try:
                next(folder.iterdir(), None)
            except PermissionError:
                return None
            except OSError:
                continue  # it has ended
            links.update(_open_files(folder))
        return frozenset(int(link[8:-1]) for link in links if link.startswith("socket:["))

    async def _knock(self, host: str, port: int) -> bool:
        """Whether nobody accepts. A JVM listens on `::` also where loopback has no IPv6; then IPv4 is the way in."""
        loop = asyncio.get_running_loop()
        for there in LOOPBACKS.get(host, (host,)):
            try:
                with self._ours.new(AF_INET6 if ":" in there else AF_INET) as door:
                    async with asyncio.timeout(KNOCK):
                        await loop.sock_connect(door, (there, port))
            except TimeoutError:
                return True
            except ConnectionRefusedError:
                return False
            except OSError:
                continue
            return False
        return False

    async def _gone(self, life: Life) -> None:
        assert life.pid is not None  # noqa: S101  asked by the caller
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        with _pidfd(life.pid) as handle:
            if self._started(life.pid) != life.started:
                return
            loop.add_reader(handle, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(handle)

    def _started(self, pid: int) -> float | None:
        """When it was started, in seconds since the boot; None when it is gone.

        Not psutil's create_time(), which moves with every correction of the wall clock: the same process would pass
        for another one, and an app that lives for one that has exited.
        """
        try:
            stat = (self._proc / str(pid) / "stat").read_text()
        except OSError:
            return None
        return int(stat.rpartition(")")[2].split()[STARTED]) / os.sysconf("SC_CLK_TCK")

    def _target(self, life: Life | None) -> tuple[int, float | None]:
        if life is not None and life.pid is not None and life.pid != os.getpid():
            return life.pid, life.started
        if self._match is None:
            raise Rejected(
                "the process behind the app's port is not visible: set shareProcessNamespace: true and the same "
                "runAsUser in both containers, or name it with NACOS_DRAIN_APP_PROCESS"
            )
        found = self._matching()
        top = [pid for pid, parent in found.items() if parent not in found]
        if len(top) != 1:
            raise Rejected(
                f"NACOS_DRAIN_APP_PROCESS matches {len(top)} processes; it has to match the command line of exactly one"
            )
        return top[0], self._started(top[0])

    def _matching(self) -> dict[int, int]:
        """The processes whose command line matches, and their parents; never ourselves, never the sandbox."""
        assert self._match is not None  # noqa: S101  asked by the caller
        return {
            process.pid: process.info["ppid"]
            for process in psutil.process_iter(["cmdline", "ppid"])
            if process.pid not in {INIT, os.getpid()} and self._match.search(" ".join(process.info["cmdline"] or ()))
        }


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _open_files(folder: Path) -> Iterator[str]:
    """What a process has open: nothing where we may not look; one that is closed while we do hides no other."""
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            with contextlib.suppress(OSError):
                yield str(file.readlink())


def _address(words: str) -> str:
    """The kernel prints addresses as 32-bit words in the machine's byte order; IPv4 in IPv6 is folded."""
    packed = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
    packed = packed.removeprefix(MAPPED)
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)  # noqa: PLR2004  bytes of an IPv4 address
