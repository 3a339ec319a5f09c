"""The traffic of this machine's network namespace, as the kernel shows it: real sockets throughout."""

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from needs import lacking

from sidecar.adapters.sockets import Sockets, default_gateways, events, procfs, proofs
from sidecar.ports import Unavailable
from sidecar.traffic import Listener, Socket


JIFFY = 0.011  # the kernel's clock for these times: 4 ms here, 10 at most


@asynccontextmanager
async def watching(
    *, ours: frozenset[int] = frozenset(), proc: str = "/proc", buffer: int = events.BUFFER
) -> AsyncIterator[Sockets]:
    """A source that sees all that there is to see, which each of these tests is about."""
    source = Sockets(lambda: ours, proc=proc, buffer=buffer)
    await source.detect()
    try:
        if source.source != "netlink":
            lacking(source.reason)
        await source.read()  # what others have closed up to here
        yield source
    finally:
        source.close()


Ends = tuple[int, int]  # a connection on this machine, by its port here and its peer's


class Pair(NamedTuple):
    """A connection, and what it is called at either end."""

    client: socket.socket
    accepted: socket.socket
    here: Ends  # as the app sees it
    there: Ends


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::", backlog=512) as server:
        yield server


@contextmanager
def connected(host: str = "127.0.0.1", to: str = "") -> Iterator[Pair]:
    with listening(host) as server, socket.create_connection((to or host, server.getsockname()[1])) as client:
        accepted, _ = server.accept()
        with accepted:
            here = server.getsockname()[1], client.getsockname()[1]
            yield Pair(client, accepted, here, here[::-1])


def one(sockets: Iterable[Socket], ends: Ends) -> Socket:
    [found] = [x for x in sockets if (x.port, x.peer_port) == ends]
    return found


def call(server: socket.socket) -> Ends:
    """One request on a connection of its own, which the app closes; it, as the app sees it."""
    with socket.create_connection(server.getsockname()[:2]) as client:
        accepted, there = server.accept()
        with accepted:
            client.sendall(b"x" * 100)
            assert len(accepted.recv(100)) == 100
            accepted.sendall(b"y" * 50)
        while client.recv(65536):
            pass
    return server.getsockname()[1], there[1]


def between(first: float, moment: float | None, last: float) -> bool:
    """Whether it is, as exactly as the kernel's clock goes and a busy machine lets us read ours."""
    return moment is not None and first - 2 * JIFFY <= moment <= last + 2 * JIFFY


def found(sockets: Iterable[Socket]) -> set[Ends]:
    return {(x.port, x.peer_port) for x in sockets}


async def gone(source: Sockets, ends: Iterable[Ends]) -> dict[Ends, Socket]:
    """Read until these have been told as closed: the kernel may take a moment for that. Each comes once."""
    missing = set(ends)
    seen: dict[Ends, Socket] = {}
    async with asyncio.timeout(5):
        while missing:
            for x in (await source.read()).closed:
                before = seen.get((x.port, x.peer_port))
                assert before is None or before.id != x.id  # the kernel may give the same ports out again
                seen[x.port, x.peer_port] = x
            missing -= set(seen)
    return seen


# -- open connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "to", "shown"),
    [("127.0.0.1", "", "127.0.0.1"), ("::1", "", "::1"), ("::", "127.0.0.1", "127.0.0.1"), ("::", "::1", "::1")],
)
async def test_both_ends_of_a_connection_of_any_family(host: str, to: str, shown: str) -> None:
    async with watching() as source:
        with connected(host, to) as pair:
            reading = await source.read()
            for ends in (pair.here, pair.there):
                seen = one(reading.open, ends)
                assert (seen.host, seen.peer, seen.half) == (shown, shown, False)
            ids = [one(reading.open, x).id for x in (pair.here, pair.there)]
            again = await source.read()
            assert [one(again.open, x).id for x in (pair.here, pair.there)] == ids


async def test_counters_and_times() -> None:
    loop = asyncio.get_running_loop()
    async with watching() as source:
        with connected() as pair:
            await asyncio.sleep(0.1)  # ages are what this is about
            asking = loop.time()
            pair.client.sendall(b"x" * 100)
            asked = loop.time()
            assert len(pair.accepted.recv(60)) == 60
            await asyncio.sleep(0.1)
            answering = loop.time()
            pair.accepted.sendall(b"y" * 50)
            answered = loop.time()
            assert len(pair.client.recv(50)) == 50
            await asyncio.sleep(0.3)
            before = loop.time()
            reading = await source.read()
            assert before <= reading.at <= loop.time()
            there = one(reading.open, pair.here)
            assert (there.received, there.sent, there.segments, there.unread, there.unsent) == (100, 50, 1, 40, 0)
            assert there.answers == 1
            assert between(asking, there.heard, asked)
            assert between(answering, there.spoke, answered)
            opening = loop.time()
            with connected() as silent:
                opened = loop.time()
                fresh = one((await source.read()).open, silent.here)
                assert (fresh.received, fresh.segments, fresh.sent) == (0, 0, 0)
                assert between(opening, fresh.heard, opened)
                assert between(opening, fresh.spoke, opened)


async def test_a_connection_on_which_nothing_has_moved_is_the_same_object() -> None:
    """Most are idle most of the time, and whoever compares two readings is done with them at once."""
    async with watching() as source:
        with connected() as idle, connected() as busy:
            first = (await source.read()).open
            busy.client.sendall(b"x")
            second = (await source.read()).open
            assert one(first, idle.here) is one(second, idle.here)
            assert one(second, busy.here).unread == one(first, busy.here).unread + 1
            busy.client.shutdown(socket.SHUT_WR)
            assert one((await source.read()).open, busy.here).half


async def test_what_the_peer_does_not_take_is_unsent_and_counts_as_sent() -> None:
    async with watching() as source:
        with connected() as pair:
            pair.accepted.setblocking(False)
            written = 0
            with suppress(BlockingIOError):
                while True:
                    written += pair.accepted.send(b"z" * 65536)
            seen = (await source.read()).open
            here, there = one(seen, pair.here), one(seen, pair.there)
            assert here.sent == written
            assert here.unsent > 0
            assert there.unread == there.received >= written - here.unsent  # what came in may not be acknowledged yet


async def test_requests_on_a_kept_connection_are_at_least_as_many_segments() -> None:
    async with watching() as source:
        with connected() as pair:
            for n in range(1, 6):
                pair.client.sendall(b"x" * 100)
                assert len(pair.accepted.recv(100)) == 100
                pair.accepted.sendall(b"y")
                assert pair.client.recv(1) == b"y"
                seen = one((await source.read()).open, pair.here)
                assert (seen.segments, seen.received, seen.sent) == (n, 100 * n, n)


async def test_a_connection_of_which_one_direction_has_ended_is_half_closed() -> None:
    async with watching() as source:
        with connected() as pair:
            pair.client.sendall(b"x")
            pair.client.shutdown(socket.SHUT_WR)
            seen = (await source.read()).open
            here, there = one(seen, pair.here), one(seen, pair.there)
            assert here.half
            assert there.half
            assert (here.received, here.unread) == (2, 2)  # its end is a byte to the kernel


async def test_a_connection_that_nobody_has_accepted_yet_is_one() -> None:
    async with watching() as source:
        with listening() as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"hello")
            seen = one((await source.read()).open, (server.getsockname()[1], client.getsockname()[1]))
            assert (seen.received, seen.unread) == (5, 5)


async def test_who_is_still_connecting_and_what_is_left_of_the_closed_are_no_connections() -> None:
    async with watching() as source:
        with listening() as server, socket.socket() as waiting:
            server.listen(0)  # room for one
            with socket.create_connection(server.getsockname()) as through:
                waiting.setblocking(False)
                with suppress(BlockingIOError):
                    waiting.connect(server.getsockname())
                seen = {x.port for x in (await source.read()).open}
                assert through.getsockname()[1] in seen
                assert waiting.getsockname()[1] not in seen
        with connected() as pair:
            pair.accepted.close()  # closes first, so that this end lingers in TIME_WAIT
            pair.client.close()
            assert not {x.port for x in (await source.read()).open} & set(pair.here)


# -- listeners -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_a_listener_is_there_until_it_is_gone(host: str) -> None:
    async with watching() as source:
        with listening(host) as server:
            expected = Listener(host, server.getsockname()[1], os.fstat(server.fileno()).st_ino)
            assert expected in (await source.read()).listeners
            assert expected in await source.listeners()
        assert expected not in (await source.read()).listeners
        assert expected not in await source.listeners()


# -- connections that are gone ---------------------------------------------------------------------------------------


async def test_every_one_of_200_callers_with_a_connection_per_request_is_seen() -> None:
    async with watching() as source:
        before = await source.read()
        with listening() as server:
            calls = [call(server) for _ in range(200)]
        after = await source.read()
        told = {(x.port, x.peer_port): x for x in after.closed} | await gone(source, set(calls) - found(after.closed))
        mine = [told[ends] for ends in calls]
        assert {(x.received - 100 in {0, 1}, x.sent - 50 in {0, 1}, x.segments) for x in mine} == {(True, True, 1)}
        assert len({x.id for x in mine}) == 200
        assert after.trouble == ""
        assert before.opens is not None
        assert after.opens is not None
        assert after.opens[0] - before.opens[1] >= 200  # there may be others on this machine


async def test_a_closed_connection_has_its_last_counters_and_times_and_comes_once() -> None:
    loop = asyncio.get_running_loop()
    async with watching() as source:
        with connected("::", "127.0.0.1") as pair:
            known = one((await source.read()).open, pair.here)
            asking = loop.time()
            pair.client.sendall(b"x" * 100)
            asked = loop.time()
            assert len(pair.accepted.recv(100)) == 100
            await asyncio.sleep(0.3)
        seen = (await gone(source, [pair.here]))[pair.here]
        later = await source.read()
        assert (seen.id, seen.host, seen.peer) == (known.id, "127.0.0.1", "127.0.0.1")
        assert (seen.received, seen.segments) == (101, 1)
        assert between(asking, seen.heard, asked + events.PAUSE)
        assert known.id not in {x.id for x in later.open + later.closed}


async def test_an_event_waits_a_tenth_of_a_second_at_most() -> None:
    """However long nobody reads: its times count from when it came, not from when it was looked at.

    So it is on a loop that has had others: one was closed while it listened, one while events gathered.
    """
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    with listening() as server:
        for calls in (0, 1):
            async with watching():
                await asyncio.sleep(2 * events.PAUSE)  # finding out makes events as well
                for _ in range(calls):
                    call(server)
                    await asyncio.sleep(0.02)
        async with watching() as source:
            call(server)
            await asyncio.sleep(0.02)
            calling, ends, called = loop.time(), call(server), loop.time()
            await asyncio.sleep(0.5)
            heard = (await gone(source, [ends]))[ends].heard
    assert between(calling, heard, called + events.PAUSE)
    assert not faults


async def test_a_reset_connection_is_one() -> None:
    async with watching() as source:
        with connected() as pair:
            pair.client.sendall(b"x" * 10)
            pair.accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            pair.accepted.close()
            assert (await gone(source, [pair.here]))[pair.here].received == 10


async def test_sockets_that_never_were_connections_are_none() -> None:
    async with watching() as source:
        ports = set()
        with listening() as server:
            ports.add(server.getsockname()[1])
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            ports.add(bound.getsockname()[1])
        with socket.socket() as refused:
            refused.setblocking(False)
            with suppress(BlockingIOError):
                refused.connect(("127.0.0.1", max(ports)))
            ports.add(refused.getsockname()[1])
            assert refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        with listening() as server:
            ends = call(server)
        told = await gone(source, [ends])  # the last to be closed is there, so the others would be
        assert not {(port, peer_port) for port, peer_port in told if port in ports}


@pytest.fixture
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few there are to look at."""
    monkeypatch.setattr("sidecar.adapters.sockets.source.FEW", 0)


async def test_a_reading_that_was_given_up_loses_nothing(in_a_thread: None) -> None:
    async with watching() as source:
        with listening() as server:
            ends = call(server)
            given_up = asyncio.create_task(source.read())
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
        assert await gone(source, [ends])


async def test_1000_closed_connections_wake_us_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    woken = 0

    class Counting(events.Events):
        def _readable(self) -> None:
            nonlocal woken
            woken += 1
            super()._readable()

    monkeypatch.setattr("sidecar.adapters.sockets.source.Events", Counting)
    loop = asyncio.get_running_loop()
    async with watching() as source:
        started = loop.time()
        with listening() as server:
            calls = set()
            for _ in range(500):
                calls.add(call(server))
                await asyncio.sleep(0)
        took = loop.time() - started
        assert woken <= 2 + took / events.PAUSE
        assert await gone(source, calls)


def sockets_of_ours() -> set[str]:
    targets = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the look itself
            targets.add(str(file.readlink()))
    return {target for target in targets if target.startswith("socket:")}


def dropped() -> int:
    """How many messages the kernel could not put into our netlink sockets."""
    ours = sockets_of_ours()
    columns = (row.split() for row in Path("/proc/net/netlink").read_text().splitlines()[1:])
    return sum(int(x[8]) for x in columns if f"socket:[{x[9]}]" in ours)


async def test_more_at_once_than_the_kernel_keeps_is_trouble_once_and_then_they_come_again() -> None:
    async with watching(buffer=32768) as source:  # for some 400 events; each call makes two
        with listening() as server:
            for _ in range(400):
                call(server)
            late = time.monotonic() + 5
            while not dropped() and time.monotonic() < late:
                pass  # and the loop with it: this is a sidecar that is held up
            lossy = await source.read()
            assert lossy.trouble == "closed connections were missed: more at once than the kernel keeps for us"
            assert len(lossy.closed) > 100
            while (await source.read()).trouble:
                assert time.monotonic() < late
            assert await gone(source, [call(server)])


async def test_no_more_than_a_bounded_number_is_kept_and_the_rest_waits_in_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "MOST", 50)
    async with watching() as source:
        with listening() as server:
            calls = {call(server) for _ in range(100)}
        readings = [await source.read() for _ in range(40)]
        seen = [len(reading.closed) for reading in readings]
        assert max(seen) <= 50
        assert calls <= {ends for reading in readings for ends in found(reading.closed)}
        assert {reading.trouble for reading in readings} == {""}


# -- a reading -------------------------------------------------------------------------------------------------------


async def test_our_own_connections_are_named_as_of_the_end_of_the_reading(in_a_thread: None) -> None:
    ours: set[int] = set()
    source = Sockets(lambda: frozenset(ours))
    await source.detect()
    try:
        looking = asyncio.create_task(source.read())
        await asyncio.sleep(0)  # it is under way
        ours.add(4711)
        assert (await looking).ours == {4711}
    finally:
        source.close()


@pytest.mark.parametrize(
    ("snmp", "why"),
    [
        (None, "No such file"),
        ("Tcp: ActiveOpens PassiveOpens\n", "does not tell PassiveOpens"),
        ("Tcp: ActiveOpens\nTcp: 5\n", "does not tell PassiveOpens"),
        ("Tcp: ActiveOpens PassiveOpens\nTcp: 5\n", "does not tell PassiveOpens"),
        ("Tcp: ActiveOpens PassiveOpens\nTcp: 5 many\n", "does not tell PassiveOpens"),
        ("Udp: PassiveOpens\nUdp: 5\n", "does not tell PassiveOpens"),
    ],
)
async def test_accepts_that_nobody_counts_are_trouble(tmp_path: Path, snmp: str | None, why: str) -> None:
    if snmp is not None:
        (tmp_path / "net").mkdir()
        (tmp_path / "net" / "snmp").write_text(snmp)
    async with watching(proc=str(tmp_path)) as source:
        assert why in source.reason
        reading = await source.read()
        assert reading.opens is None
        assert why in reading.trouble


async def test_a_full_source_lacks_nothing_and_leaves_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    before, started = sockets_of_ours(), loop.time()
    async with watching() as source:
        assert (source.source, source.reason) == ("netlink", "")
        assert loop.time() - started < 1.5
        assert not {f"socket:[{x.inode}]" for x in await source.listeners()} & sockets_of_ours()
        source.close()
        source.close()
    assert sockets_of_ours() == before


async def test_a_kernel_that_joins_us_but_tells_nothing_is_found_out() -> None:
    loop = asyncio.get_running_loop()
    deaf = events.Events(loop.time)
    for link in deaf._lanes.values():
        for group in events.GROUPS:
            link.setsockopt(events.SOL_NETLINK, 2, group)  # NETLINK_DROP_MEMBERSHIP
    started = loop.time()
    with proofs.listening() as ours:
        assert "did not tell that a connection of our own was closed" in proofs.why_untold(ours, deaf, loop.time)
    deaf.close()
    assert proofs.PATIENCE <= loop.time() - started < proofs.PATIENCE + 0.5


async def test_a_kernel_that_takes_too_long_leaves_us_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.adapters.sockets.source.MOST", 0.0)
    source = Sockets()
    await source.detect()
    assert (source.source, source.reason) == ("blind", "the kernel did not show a socket of ours within 0.0 s")


async def test_accepts_are_counted_before_and_after_the_rest(in_a_thread: None) -> None:
    busy = True

    def calling(server: socket.socket) -> None:
        while busy:
            call(server)

    async with watching() as source:
        with listening() as server:
            caller = asyncio.create_task(asyncio.to_thread(calling, server))
            last, during = 0, 0
            try:
                async with asyncio.timeout(10):
                    while during < 3:
                        opens = (await source.read()).opens
                        assert opens is not None
                        assert last <= opens[0] <= opens[1]
                        last, during = opens[1], during + (opens[0] < opens[1])
            finally:
                busy = False
                await caller


async def test_nothing_is_read_before_it_was_found_out_what_works() -> None:
    source = Sockets()
    assert source.source == "blind"
    with pytest.raises(Unavailable, match="nothing was tried yet"):
        await source.read()
    with pytest.raises(Unavailable, match="nothing was tried yet"):
        await source.listeners()
    source.close()


# -- what /proc has --------------------------------------------------------------------------------------------------


def test_the_next_best_shows_connections_and_listeners_alone() -> None:
    with connected("::", "127.0.0.1") as pair:
        here = one(tuple(procfs.table().sockets), pair.here)
        assert here == Socket(here.id, "127.0.0.1", pair.here[0], "127.0.0.1", pair.here[1])
        assert one(tuple(procfs.table().sockets), pair.here).id == here.id
        assert one(tuple(procfs.table().sockets), pair.there).id != here.id
        pair.client.shutdown(socket.SHUT_WR)
        assert one(tuple(procfs.table().sockets), pair.here).half
        assert Listener("::", pair.here[0], 0) in procfs.table().listeners


# -- gateways --------------------------------------------------------------------------------------------------------


def word(address: str) -> str:
    """An IPv4 address as /proc/net/route spells it."""
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"


ROUTES = f"""Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	{word("10.244.1.1")}	0003	0	0	0	00000000	0	0	0
eth1	00000000	{word("10.9.0.1")}	0003	0	0	100	00000000	0	0	0
eth0	{word("10.244.0.0")}	{word("10.244.1.7")}	0003	0	0	0	{word("255.255.0.0")}	0	0	0
eth0	00000000	{word("10.244.1.9")}	0003	0	0	0	{word("128.0.0.0")}	0	0	0
tun0	00000000	00000000	0001	0	0	0	00000000	0	0	0
"""
ZERO, FAR = "0" * 32, "fd00" + "0" * 28
ROUTES6 = f"""{ZERO} 00 {ZERO} 00 {FAR[:-1]}1 00000400 00000003 00000000 00000003 eth0
{ZERO} 00 {ZERO} 00 fe80{"0" * 27}1 00000400 00000003 00000000 00000003 eth0
{FAR} 40 {ZERO} 00 {FAR[:-1]}2 00000100 00000001 00000000 00000001 eth0
{ZERO} 08 {ZERO} 00 {FAR[:-1]}3 00000100 00000001 00000000 00000001 eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200 lo
"""


@pytest.mark.parametrize(
    ("route", "ipv6_route", "gateways"),
    [
        (ROUTES, ROUTES6, {"10.244.1.1", "10.9.0.1", "fd00::1", "fe80::1"}),
        (ROUTES, None, {"10.244.1.1", "10.9.0.1"}),
        (None, ROUTES6, {"fd00::1", "fe80::1"}),
        (None, None, set()),
        ("", "", set()),
        (
            "eth0 00000000\neth0 zz zz 0 0 0 0 zz\n" + "f" * 99,
            f"{ZERO} 00 {ZERO} 00 abcd\n{ZERO}\nzz 00 zz 00 zz\n",
            set(),
        ),
        ("eth0 00000000 1FFFFFFFF 0003 0 0 0 00000000\n", "", set()),
    ],
)
def test_default_gateways(tmp_path: Path, route: str | None, ipv6_route: str | None, gateways: set[str]) -> None:
    (tmp_path / "net").mkdir()
    for name, text in (("route", route), ("ipv6_route", ipv6_route)):
        if text is not None:
            (tmp_path / "net" / name).write_text(text)
    assert default_gateways(str(tmp_path)) == gateways


def test_the_default_gateways_of_this_machine_are_addresses() -> None:
    for address in default_gateways():
        socket.getaddrinfo(address, None, flags=socket.AI_NUMERICHOST)
