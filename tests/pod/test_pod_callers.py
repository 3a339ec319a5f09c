"""Pods whose callers are seen: by a real sidecar, on real sockets, in a network namespace for each pod.

What a caller does is chosen so that the look-back is short: whoever calls within it three times has a known rhythm.
"""

import asyncio
import re
import shutil
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trustme
from needs import lacking
from pod.alone import alone
from pod.callers import Caller, calling
from pod.scene import NODE, SHOP, Scene, scene

from sidecar.drain import SAMPLE_DRAINING, VANISHED_FOR
from sidecar.settle import NOBODY


pytestmark = pytest.mark.long

PROGRAMS = Path(__file__).parents[1] / "programs"
FLOOR = QUIET = 3.0
FACTOR = 3
BUSY = 1.5  # seconds that a busy machine may cost
LOOK_BACK, LONG_LOOK_BACK, SHORTEST_LOOK_BACK = 10.0, 20.0, 3.0
CAP, LONG_CAP = 10.0, 40.0
GRACE = 90
PINGED = 2.0  # seconds between two of them: so that none is missed in what a caller owes
PROBED = 17.0  # seconds after which probes are known for what they are
CONSUMER, OTHER, MESH, SCRAPER, GATEWAY = "127.1.0.1", "127.1.0.2", "127.0.0.6", "127.9.0.1", "10.9.0.1"
WITHOUT_NETLINK = (sys.executable, str(PROGRAMS / "confined.py"), "no-netlink")
WITHOUT_PROC_NET = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc/$$/net && exec "$@"', "sh")
NEW_PID_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

_starting = threading.BoundedSemaphore(3)  # each start takes a second of a core


@asynccontextmanager
async def pod(
    *more: str,
    under: tuple[str, ...] = (),
    host: str = "",
    actuator: bool = False,
    look_back: float = LOOK_BACK,
    cap: float = CAP,
    **env: str,
) -> AsyncIterator[Scene]:
    """A pod with an app that answers, on `host` if not on the pod's address; `more` are options of it.

    `under` is what the sidecar is started by, `env` are settings of it; `actuator`: it is told of the app's.
    """

    def prepare(made: Scene) -> None:
        app, sidecar = made.pod.containers["app"], made.pod.containers["sidecar"]
        serve = (sys.executable, "-I", "-S", str(PROGRAMS / "serving_app.py"))
        app.spec = replace(app.spec, argv=(*serve, "--listen", f"{host or made.ip}:{made.app_port}", *more))
        url = f"http://{made.ip}:{made.app_port}/actuator"
        told = {"NACOS_DRAIN_ACTUATOR_URL": url} if actuator else {}
        sidecar.spec = replace(sidecar.spec, argv=(*under, *sidecar.spec.argv), env={**sidecar.spec.env, **told})
        made.double.naming.register_grpc(SHOP, made.ip, made.app_port, connection="app")

    settings = {"SETTLE_LOOK_BACK": f"{look_back}s", "CONSUMER_CACHE": f"{cap - 5}s", "NODE_IP": NODE, **env}
    async with AsyncExitStack() as stack:
        with _starting:
            made = await stack.enter_async_context(
                scene(settings, grace=GRACE, registered=False, restart=False, prepare=prepare)
            )
        yield made


@asynccontextmanager
async def pod_with_tls() -> AsyncIterator[tuple[Scene, Caller]]:
    """A pod whose app has a key, and a caller that trusts its certificate."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with authority.issue_cert("shop").private_key_and_cert_chain_pem.tempfile() as pem:
        async with pod("--tls", pem) as s:
            yield s, Caller(s, CONSUMER, trusting)


# -- drains ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drained:
    """A drain, as whoever asked for it saw it."""

    answered: float  # loop time
    report: dict[str, Any]

    @property
    def settle(self) -> dict[str, Any]:
        """The phase that is of interest here."""
        (found,) = [each for each in self.report["phases"] if each["phase"] == "SETTLE"]
        return dict(found)

    def assert_released(self, newest: Caller, owed: float = QUIET, late: float = 0.0) -> None:
        """Assert that the wait ended as soon as the last one to call had been silent for so long.

        `late`: by so much a pause may have seemed longer than it was.
        """
        assert not newest.waiting
        assert (self.settle["outcome"], self.settle["detail"][:6]) == ("met", "quiet:"), self.settle
        clean = self.answered - self.settle["seconds"]
        due = max(clean + FLOOR, newest.answered + owed)
        latest = max(due, newest.answered + FACTOR * (newest.paused + late)) + SAMPLE_DRAINING + BUSY
        assert due - 0.1 <= self.answered <= latest, f"{self.answered - due:.2f} s late: {self.settle}"

    def assert_capped(self, *reasons: str) -> None:
        """Assert that it waited for the cap, and says why."""
        assert self.settle["outcome"] == "expired", self.settle
        assert self.settle["seconds"] == pytest.approx(CAP, abs=BUSY)
        assert self.settle["detail"].startswith("waited for the cap: ")
        for reason in reasons:
            assert reason in self.settle["detail"]

    def assert_still_calling(self, peer: str) -> None:
        """Assert that it waited for the cap in vain, and says for whom."""
        self.assert_capped(f"calling: {peer}")
        assert self.report["outcome"] == "capped"
        assert [row["peer"] for row in self.report["callers"]] == [peer]


async def drain(s: Scene) -> Drained:
    """Ask for a drain, and wait for the app's release."""
    _, report = await s.hook()
    return Drained(asyncio.get_running_loop().time(), report)


async def drain_until_it_stops(s: Scene, caller: Caller, *, after: float = 0.5) -> Drained:
    """Drain, and let the caller learn of it so long after Nacos has."""
    drained = asyncio.create_task(drain(s))
    await s.until("unlisted")
    await asyncio.sleep(after)
    caller.stopped.set()
    return await drained


async def watch(seconds: float = LOOK_BACK) -> None:
    """Let the sidecar be so old, and a bit more."""
    await asyncio.sleep(seconds + 1)


# -- callers that stop -----------------------------------------------------------------------------------------------


async def assert_waited_for(s: Scene, caller: Caller, gap: float, late: float = 0.0) -> None:
    """It calls once more, which is later than most would wait, and is waited for by its own measure."""
    drained = asyncio.create_task(drain(s))
    await s.until("unlisted")
    await caller.until_answered(caller.answers + 1)
    caller.stopped.set()
    (await drained).assert_released(caller, FACTOR * gap, late)


@alone
async def test_a_call_in_5_s_holds_over_a_kept_connection() -> None:
    async with pod(look_back=LONG_LOOK_BACK, cap=LONG_CAP) as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.kept(5)):
            await watch(LONG_LOOK_BACK)
            await assert_waited_for(s, caller, 5)


@alone
async def test_a_call_in_5_s_holds_over_a_connection_of_its_own() -> None:
    async with pod(look_back=LONG_LOOK_BACK, cap=LONG_CAP) as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.anew(5)):
            await watch(LONG_LOOK_BACK)
            await assert_waited_for(s, caller, 5, late=1.0)  # a busy kernel tells of an end a reading later


@alone
async def test_a_call_in_6_s_holds_beside_a_busy_caller() -> None:
    async with pod(look_back=LONG_LOOK_BACK, cap=LONG_CAP) as s:
        rare, busy = Caller(s, CONSUMER), Caller(s, OTHER)
        async with calling(rare.kept(6), busy.anew(0.05)):
            await watch(LONG_LOOK_BACK)
            busy.stopped.set()
            await assert_waited_for(s, rare, 6)


@alone
async def test_where_nobody_ever_called_the_floor_is_enough() -> None:
    async with pod(look_back=SHORTEST_LOOK_BACK) as s:
        await watch(NOBODY * SHORTEST_LOOK_BACK)
        drained = await drain(s)
        assert drained.settle["outcome"] == "met"
        assert drained.settle["detail"] == "floor: nobody is known to call"
        assert FLOOR <= drained.settle["seconds"] < FLOOR + BUSY
        assert (drained.report["outcome"], drained.report["callers"]) == ("drained", [])


@alone
async def test_a_busy_caller_costs_the_floor_and_the_quiet() -> None:
    async with pod() as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.kept(0.02)):
            await watch()
            (await drain_until_it_stops(s, caller, after=0.1)).assert_released(caller)


@alone
async def test_20_calls_a_second_over_connections_of_their_own() -> None:
    async with pod(host="::") as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.anew(0.05)):
            await watch()
            drained = await drain_until_it_stops(s, caller, after=2)
            drained.assert_released(caller)
            assert re.fullmatch(
                rf"quiet: the last call came [12]\.\d s after the list was clean, and {CONSUMER} has been .*",
                drained.settle["detail"],
            )


@alone
async def test_a_long_request_holds_until_it_is_answered() -> None:
    async with pod() as s:
        busy, caller = Caller(s, OTHER), Caller(s, CONSUMER)
        async with calling(busy.kept(0.1), caller.kept(0.1)):
            await watch()
            caller.stopped.set()
            asking = asyncio.create_task(caller.once("/slow?seconds=5"))
            drained = await drain_until_it_stops(s, busy)
            await asking
            drained.assert_released(caller)


@alone
async def test_a_long_request_holds_over_a_kept_connection() -> None:
    async with pod() as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.kept(0.1, last="/slow?seconds=5")):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_released(caller)


# -- what is no call -------------------------------------------------------------------------------------------------


@alone
async def test_idle_pools_do_not_hold() -> None:
    async with pod() as s:
        caller, idle = Caller(s, CONSUMER), Caller(s, OTHER)
        async with calling(caller.kept(0.05, connections=20), idle.idle(5)):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_released(caller)


@alone
async def test_pings_do_not_hold() -> None:
    async with pod() as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.grpc(0.1, ping=PINGED)):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_released(caller)
            assert caller.pings > 5


@alone
async def test_heartbeats_do_not_hold() -> None:
    async with pod() as s:
        caller, silent = Caller(s, CONSUMER), Caller(s, OTHER)
        async with calling(caller.dubbo(0.1, heartbeat=PINGED), silent.dubbo(inf, heartbeat=PINGED)):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_released(caller)
            assert min(caller.pings, silent.pings) > 5


@alone
async def test_probes_do_not_hold() -> None:
    async with pod() as s:
        caller, kubelet = Caller(s, CONSUMER), Caller(s, NODE)
        probes = (kubelet.http_probe(1, "/ready"), kubelet.http_probe(2, "/live"), kubelet.tcp_probe(5))
        async with calling(caller.kept(0.1), *probes):
            await watch(PROBED)
            (await drain_until_it_stops(s, caller)).assert_released(caller)
            assert kubelet.answers > PROBED


@alone
async def test_our_own_calls_and_ignored_networks_do_not_hold() -> None:
    async with pod(actuator=True, IGNORE_NETWORKS="127.9.0.0/16") as s:
        caller, scraper = Caller(s, CONSUMER), Caller(s, SCRAPER)
        async with calling(caller.kept(0.1), scraper.kept(0.5), scraper.anew(1)):
            await watch()
            drained = await drain_until_it_stops(s, caller)
            drained.assert_released(caller)
            assert drained.report["instances"][0]["road"] == "openapi"


@alone
async def test_a_crowd_that_is_one_caller_by_the_users_word() -> None:
    async with pod(SINGLE_PEERS=MESH) as s:
        caller = Caller(s, MESH)
        async with calling(caller.anew(0.1)):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_released(caller)


# -- TLS makes no difference -----------------------------------------------------------------------------------------


@alone
async def test_tls_over_a_kept_connection() -> None:
    async with pod_with_tls() as (s, caller), calling(caller.kept(0.05, last="/slow?seconds=5")):
        await watch()
        (await drain_until_it_stops(s, caller)).assert_released(caller)


@alone
async def test_tls_over_connections_of_their_own() -> None:
    async with pod_with_tls() as (s, caller), calling(caller.anew(0.1)):
        await watch()
        (await drain_until_it_stops(s, caller)).assert_released(caller)


@alone
async def test_tls_and_pings() -> None:
    async with pod_with_tls() as (s, caller), calling(caller.grpc(0.1, ping=PINGED)):
        await watch()
        (await drain_until_it_stops(s, caller)).assert_released(caller)


@alone
async def test_tls_of_a_caller_that_goes_on() -> None:
    async with pod_with_tls() as (s, caller), calling(caller.anew(0.1)):
        await watch()
        (await drain(s)).assert_still_calling(CONSUMER)


# -- gateways --------------------------------------------------------------------------------------------------------


async def gateway() -> str:
    """Give this network a default gateway; returns its address, from which one can call."""
    if shutil.which("ip") is None:
        lacking("needs iproute2, to have a default gateway")
    commands = (f"route add default via {GATEWAY} dev lo onlink", f"address add {GATEWAY}/32 dev lo")
    for command in commands:
        process = await asyncio.create_subprocess_exec("ip", *command.split())
        assert await process.wait() == 0
    return GATEWAY


@alone
async def test_probes_through_the_gateway_do_not_hold() -> None:
    kubelets = await gateway()
    async with pod(NODE_IP="") as s:
        caller, kubelet = Caller(s, CONSUMER), Caller(s, kubelets)
        async with calling(caller.kept(0.1), kubelet.http_probe(1, "/ready"), kubelet.tcp_probe(5)):
            await watch(PROBED)
            (await drain_until_it_stops(s, caller)).assert_released(caller)


@alone
async def test_calls_through_the_gateway_hold() -> None:
    everybody = await gateway()
    async with pod(NODE_IP="") as s:
        caller, kubelet = Caller(s, everybody), Caller(s, everybody)
        async with calling(caller.kept(0.3), kubelet.http_probe(1, "/ready")):
            await watch(PROBED)
            (await drain_until_it_stops(s, caller)).assert_capped("many callers may be behind")


# -- callers that go on ----------------------------------------------------------------------------------------------


@alone
async def test_whoever_is_still_calling_at_the_cap_is_named_everywhere() -> None:
    async with pod() as s:
        caller, quick = Caller(s, CONSUMER), Caller(s, OTHER)
        async with calling(caller.anew(0.05), quick.kept(0.1)):
            await watch()
            metrics = await s.metrics()
            assert 'nacos_drain_peers{rhythm="known"} 2.0' in metrics
            assert 'nacos_drain_peers{rhythm="unknown"} 0.0' in metrics
            assert 'nacos_drain_traffic_source{source="netlink"} 1.0' in metrics
            traffic = (await s.status())["traffic"]
            assert (traffic["source"], traffic["reason"], traffic["missed"]) == ("netlink", None, None)
            assert traffic["rhythms"] == {"known": 2, "unknown": 0, "many": 0}
            assert {row["peer"] for row in traffic["callers"]} == {CONSUMER, OTHER}

            (await drain_until_it_stops(s, quick)).assert_still_calling(CONSUMER)
            caller.stopped.set()
            (row,) = (await s.report())["callers"]
            assert row["last_seen_s"] < SAMPLE_DRAINING + BUSY
            assert row["rhythm_s"] < BUSY
        s.double.naming.close_connection("app")
        await s.pod.containers["app"].stop(5)
        await s.said("drain.finished")
        finished = s.told("drain.finished")
        assert (finished["outcome"], finished["callers"]) == ("capped", [row])


@alone
async def test_kept_connections_that_go_on() -> None:
    async with pod() as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.kept(0.05, connections=3)):
            await watch()
            (await drain(s)).assert_still_calling(CONSUMER)


@alone
async def test_streams_hold() -> None:
    async with pod() as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.stream(0.5)):
            await watch()
            (await drain(s)).assert_still_calling(CONSUMER)


@alone
async def test_a_mesh_holds_when_it_has_stopped() -> None:
    async with pod() as s:
        caller = Caller(s, MESH)
        async with calling(caller.anew(0.05)):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_capped("many callers may be behind")


@alone
async def test_a_mesh_holds() -> None:
    async with pod() as s:
        caller = Caller(s, MESH)
        async with calling(caller.kept(0.05)):
            await watch()
            (await drain(s)).assert_still_calling(MESH)


@alone
async def test_calls_of_the_node_hold_over_a_kept_connection() -> None:
    async with pod() as s:
        caller, kubelet = Caller(s, NODE), Caller(s, NODE)
        async with calling(caller.kept(0.5), kubelet.http_probe(1, "/ready")):
            await watch(PROBED)
            (await drain(s)).assert_still_calling(NODE)


@alone
async def test_calls_of_the_node_hold_over_connections_of_their_own() -> None:
    async with pod() as s:
        caller, kubelet = Caller(s, NODE), Caller(s, NODE)
        async with calling(caller.anew(0.2, 1.7), kubelet.http_probe(1, "/ready")):
            await watch(PROBED)
            (await drain(s)).assert_still_calling(NODE)


@alone
async def test_calls_of_the_node_hold_when_they_have_stopped() -> None:
    async with pod() as s:
        caller = Caller(s, NODE)
        async with calling(caller.kept(0.2)):
            await watch()
            (await drain_until_it_stops(s, caller)).assert_capped("many callers may be behind")


# -- what is not known -----------------------------------------------------------------------------------------------


@alone
async def test_a_caller_seen_twice_holds() -> None:
    async with pod() as s:
        caller, busy = Caller(s, CONSUMER), Caller(s, OTHER)
        async with calling(busy.kept(0.1)):
            await caller.once()
            await caller.once()
            await watch()
            (await drain_until_it_stops(s, busy)).assert_capped("is not known")


@alone
async def test_a_young_sidecar_waits_for_the_cap() -> None:
    async with pod(SETTLE_LOOK_BACK="") as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.kept(0.1)):
            await watch(SHORTEST_LOOK_BACK)
            drained = await drain_until_it_stops(s, caller)
            drained.assert_capped("this sidecar has not watched for long enough to know its callers")


@alone
async def test_where_netlink_is_denied_connections_are_seen_and_no_calls() -> None:
    async with pod(under=WITHOUT_NETLINK) as s:
        kept, short = Caller(s, CONSUMER), Caller(s, OTHER)
        async with calling(kept.kept(0.1), short.anew(0.1)):
            await watch()
            assert 'nacos_drain_traffic_source{source="procfs"} 1.0' in await s.metrics()
            told = s.told("traffic.source")
            assert (told["source"], told["level"]) == ("procfs", "warning")
            assert "seccomp" in told["reason"]
            assert (await s.status())["traffic"]["reason"] == told["reason"]
            short.stopped.set()
            drained = await drain_until_it_stops(s, kept)
            drained.assert_capped(CONSUMER, "accepted but not seen")
            assert drained.report["traffic_source"] == "procfs"


@alone
async def test_where_nothing_can_be_seen_it_waits_for_the_cap() -> None:
    async with pod(under=(*WITHOUT_PROC_NET, *WITHOUT_NETLINK)) as s:
        caller = Caller(s, CONSUMER)
        async with calling(caller.kept(0.1)):
            await watch()
            assert 'nacos_drain_traffic_source{source="blind"} 1.0' in await s.metrics()
            told = s.told("traffic.source")
            assert (told["source"], told["level"]) == ("blind", "warning")
            assert "seccomp" in told["reason"]
            assert "/proc/net/tcp" in told["reason"]
            assert (await s.status())["traffic"]["reason"] == told["reason"]
            drained = await drain_until_it_stops(s, caller)
            drained.assert_capped("callers cannot be observed (blind)")
            assert drained.report["traffic_source"] == "blind"


@alone
async def test_an_app_without_a_visible_process_has_exited_when_its_listener_is_gone() -> None:
    """Both are seen by netlink alone: there is no /proc/net to read, and then no count of what was accepted either."""
    async with pod(under=(*NEW_PID_NAMESPACE, *WITHOUT_PROC_NET)) as s:
        await s.until_app_seen()
        app = (await s.status())["app"]
        assert (app["pid"], app["ports"]) == (None, [s.app_port])
        drained = await drain(s)
        drained.assert_capped("accepted connections are not counted: cannot read /proc/net/snmp")
        assert drained.report["traffic_source"] == "netlink"
        s.double.naming.close_connection("app")
        await s.pod.containers["app"].stop(5)
        await s.said("drain.finished")
        finished = s.told("drain.finished")
        assert finished["outcome"] == "drained"
        (exit_,) = [each for each in finished["phases"] if each["phase"] == "AWAIT_EXIT"]
        assert (exit_["outcome"], exit_["detail"]) == ("met", "the app has exited")
        assert exit_["seconds"] < VANISHED_FOR + BUSY
