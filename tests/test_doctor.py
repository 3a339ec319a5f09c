"""The rehearsal: what each fault is called, whom it names, and that it asks without changing anything."""

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from contract.backends import real_backend
from rig.clients import GrpcApp
from rig.openapi import Observer, Operator
from rig.records import Instance as RealInstance
from rig.servers import NacosServer

from sidecar.adapters.nacos_push.link import installed
from sidecar.adapters.sockets import Sockets
from sidecar.composition import assemble
from sidecar.demo.double import Access, Dialect, Double, Service
from sidecar.demo.double import Instance as Registered
from sidecar.doctor.checks import Check, Verdict, check, listed, together
from sidecar.doctor.checks import Remark as Said
from sidecar.doctor.findings import Findings, Sight, Trouble
from sidecar.doctor.nacos import loses_threshold
from sidecar.doctor.outlook import outlook, text
from sidecar.doctor.pod import may_signal, traffic
from sidecar.doctor.preflight import Preflight
from sidecar.doctor.rehearsal import JUDGES, judge, rehearse
from sidecar.drain import Drain, Rules
from sidecar.lease import State, Trigger
from sidecar.plan import Plan, fit
from sidecar.registration import Service as Named
from sidecar.runner import Runner
from sidecar.settings import load
from sidecar.settle import Rule, Settle
from sidecar.wire import Watched as Noted
from sidecar.wishes import Triggered


ROOT = Path(__file__).parents[1]
IP = "127.0.0.1"
SHOP = Service("shop")
CONNECTION = "1700000000000_127.0.0.1_40000"  # as a gRPC client's id looks
MARK = {"nacos-drain": "2026-01-31T12:00:00Z/pod-7"}
NAMES = (
    "plan",
    "nodes",
    "login",
    "identity",
    "instance",
    "permission",
    "app",
    "traffic",
    "actuator",
    "dubbo",
    "release",
    "protect_threshold",
    "door",
    "push",
)
OK, WARNING, FAILING, UNKNOWN = Verdict
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up or to make a PID namespace")


@dataclass
class Stage:
    """A shop whose app listens and is registered; `settings` are without their prefix."""

    double: Double
    listener: socket.socket
    settings: dict[str, str]
    findings: Findings | None = None
    extra: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The app's."""
        return int(self.listener.getsockname()[1])

    @property
    def env(self) -> dict[str, str]:
        """The environment of a sidecar."""
        return {f"NACOS_DRAIN_{name}": value for name, value in self.settings.items() if value}

    def register(self, connection: str = CONNECTION, *, port: int = 0, **more: Any) -> None:
        """The app registers, or again."""
        instance = Registered(IP, port or self.port, grpc=True, **more)
        self.double.naming.register(SHOP, connection, instance)

    def also_listen(self) -> int:
        """The app, or somebody beside it, on another port."""
        self.extra.append(socket.create_server((IP, 0)))
        return int(self.extra[-1].getsockname()[1])

    async def doctor(self, **settings: str) -> dict[str, Check]:
        """Every check by its name."""
        self.settings |= settings
        loaded = load(self.env)
        parts = assemble(replace(loaded, settings=replace(loaded.settings, push_watch=False)))
        try:
            self.findings = await rehearse(parts, loaded)
        finally:
            await parts.close()
        return {each.name: each for each in judge(self.findings)}


@asynccontextmanager
async def stage(dialect: Dialect = "3.1", *, registered: bool = True, **options: Any) -> AsyncIterator[Stage]:
    async with Double(dialect, push_delay=0.0, **options) as double:
        with socket.create_server((IP, 0)) as listener:
            made = Stage(double, listener, {})
            made.settings = {
                "NACOS_SERVER_ADDR": double.url,
                "NACOS_SERVICE": "shop",
                "NACOS_IP": IP,
                "NACOS_PORT": str(made.port),
                "NACOS_USERNAME": "nacos",
                "NACOS_PASSWORD": "nacos",
                "GRACE_PERIOD": "120",
                "TOKEN": "secret-token",
            }
            if registered:
                made.register()
            try:
                yield made
            finally:
                for each in made.extra:
                    each.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind((IP, 0))
        return int(probe.getsockname()[1])


# -- all is well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["2.2", "3.1"])
async def test_all_is_well_and_nothing_was_written(dialect: Dialect) -> None:
    async with stage(dialect) as s:
        checks = await s.doctor()
        assert {name: c.verdict for name, c in checks.items()} == dict.fromkeys(NAMES, OK), checks
        assert [c.next_step for c in checks.values()] == [""] * len(NAMES)
        assert f"{s.double.address} {'2.2.4' if dialect == '2.2' else '3.1.0'}" in checks["nodes"].detail
        assert "listed, weight 1; held by the app's gRPC connection" in checks["instance"].detail
        assert f"listens on {s.port}, process {os.getpid()}" in checks["app"].detail
        writes = [(r.method, r.params.get("port")) for r in s.double.log if r.method not in {"GET", "POST"}]
        assert writes == ([("PATCH", "1")] if dialect == "2.2" else [])
        assert s.double.naming.record("shop", IP, s.port) is None
        assert s.double.naming.record("shop", IP, 1) is None
        (probe,) = [r for r in s.double.log if r.params.get("port") == "1"]
        assert (probe.params["serviceName"], probe.params["ip"]) == ("shop", IP)


async def test_what_a_drain_would_do_now_is_told_at_the_end() -> None:
    async with stage() as s:
        checks = await s.doctor()
        assert s.findings is not None
        said = text([*checks.values()], s.findings).splitlines()
        assert [line.split()[:2] for line in said[: len(NAMES)]] == [["ok", name] for name in NAMES]
        assert said[-1] == (
            "A drain now: openapi; proof in about 1 s, callers 3-40 s; the app is released after about 4-41 s, "
            "after 107 s at the latest."
        )
        checks = await s.doctor(GRACE_PERIOD="30")
        said = text([*checks.values()], s.findings).splitlines()
        assert "where SETTLE has 13 s of 40 s" in said[-1]
        assert said[0].startswith("warning  plan ")
        assert said[1].strip().startswith("-> raise terminationGracePeriodSeconds and NACOS_DRAIN_GRACE_PERIOD to 53 s")


# -- faults ----------------------------------------------------------------------------------------------------------

Prepare = Callable[[Stage], object]
Expected = tuple[Verdict, str, str]  # the verdict, and what the detail and the next step say
Row = tuple[Dialect, Prepare, dict[str, str], dict[str, Expected]]
NOTHING: Prepare = lambda _: None  # noqa: E731  a table's word


def fault(kind: Any, on: str = "", **more: Any) -> Prepare:
    return lambda s: s.double.faults.set(kind, on, **more)


def marked(s: Stage) -> None:
    s.double.naming.put(SHOP, Registered(IP, s.port, enabled=False, metadata=MARK))


def readers(s: Stage) -> None:
    s.double.access.readers.add("nacos")


def registered_with_another_port(s: Stage) -> None:
    s.double.naming.deregister(SHOP, CONNECTION)
    s.register(port=s.also_listen())


def gone(s: Stage) -> None:
    s.listener.close()
    s.double.naming.deregister(SHOP, CONNECTION)


def batch(s: Stage) -> None:
    s.double.naming.deregister(SHOP, CONNECTION)
    pair = (Registered(IP, s.port, grpc=True), Registered(IP, s.also_listen(), grpc=True))
    s.double.naming.register(SHOP, CONNECTION, *pair, batch=True)


def two_candidates(s: Stage) -> None:
    s.register("1700000000001_127.0.0.1_40001", port=s.also_listen())


UNASKED = (UNKNOWN, "no Nacos server answers", "see nodes")
AFTER_NODES = dict.fromkeys(("login", "permission", "protect_threshold"), UNASKED) | {"instance": UNASKED}
FAULTS: dict[str, Row] = {
    "node down": (
        "3.1",
        lambda s: s.settings.update(NACOS_SERVER_ADDR=f"{s.double.url},{IP}:{closed_port()}"),
        {},
        {"nodes": (FAILING, r":\d+: cannot connect .*; .* 3\.1\.0", "correct NACOS_DRAIN_NACOS_SERVER_ADDR")},
    ),
    "all down": (
        "3.1",
        lambda s: s.settings.update(NACOS_SERVER_ADDR=f"{IP}:{closed_port()}"),
        {},
        {"nodes": (FAILING, "cannot connect", "NACOS_DRAIN_NACOS_SERVER_ADDR"), **AFTER_NODES},
    ),
    "hang": ("3.1", fault("hang"), {}, {"nodes": (FAILING, "no answer within 2 s", "start it"), **AFTER_NODES}),
    "no Nacos": (
        "3.1",
        NOTHING,
        {"NACOS_SERVER_ADDR": "CONTEXT"},
        {"nodes": (FAILING, "does not answer as a Nacos server below /wrong", "NACOS_SERVER_ADDR"), **AFTER_NODES},
    ),
    "member list not allowed": (
        "3.1",
        fault("forbid", "cluster/node"),
        {},
        {"nodes": (WARNING, "a drain proves >= 1 node of ?", "name every node in NACOS_DRAIN_NACOS_SERVER_ADDR")},
    ),
    "wrong password": (
        "3.1",
        NOTHING,
        {"NACOS_PASSWORD": "wrong"},
        {
            "login": (FAILING, "refuses the login", "NACOS_DRAIN_NACOS_PASSWORD"),
            "permission": (UNKNOWN, "cannot be asked without a login", "see login"),
        },
    ),
    "wrong password where nobody asks for one": (
        "2.2",
        NOTHING,
        {"NACOS_PASSWORD": "wrong"},
        {"login": (WARNING, "this Nacos lets anybody write", "leave NACOS_DRAIN_NACOS_USERNAME")},
    ),
    "the login hangs": (
        "3.1",
        fault("hang", "logins"),
        {},
        {
            "login": (UNKNOWN, "has not answered the login within 1.5 s|no answer within 1.6 s", "try again"),
            "permission": (UNKNOWN, "without a login", "see login"),
        },
    ),
    "no credentials": (
        "3.1",
        NOTHING,
        {"NACOS_USERNAME": "", "NACOS_PASSWORD": ""},
        {"permission": (FAILING, "403 without credentials", "set NACOS_DRAIN_NACOS_USERNAME .*namespace public")},
    ),
    "read-only user": (
        "3.1",
        readers,
        {},
        {"permission": (FAILING, "403 after a login", "ask Nacos' administrator .* write in the namespace public")},
    ),
    "the probe is not answered": (
        "2.2",
        fault("unavailable", "writes"),
        {},
        {"permission": (UNKNOWN, "answers 503", "when Nacos is well")},
    ),
    "wrong namespace": (
        "3.1",
        NOTHING,
        {"NACOS_NAMESPACE": "staging"},
        {"instance": (FAILING, "staging/.*: Nacos knows no such service", "NACOS_DRAIN_NACOS_NAMESPACE .its id")},
    ),
    "wrong group": (
        "2.2",
        NOTHING,
        {"NACOS_GROUP": "blue"},
        {"instance": (FAILING, "knows no such service", "NACOS_DRAIN_NACOS_GROUP")},
    ),
    "wrong service": (
        "3.1",
        NOTHING,
        {"NACOS_SERVICE": "shoop"},
        {"instance": (FAILING, "shoop.*knows no such service", "check NACOS_DRAIN_NACOS_SERVICE")},
    ),
    "wrong address": (
        "3.1",
        NOTHING,
        {"NACOS_IP": "127.0.0.99"},
        {"instance": (FAILING, r"nothing of this pod is registered \(127.0.0.99\)", "NACOS_DRAIN_NACOS_IP")},
    ),
    "registered with another port": (
        "3.1",
        registered_with_another_port,
        {},
        {"instance": (FAILING, r"registered from here with another port: 127.0.0.1:\d+", "NACOS_DRAIN_NACOS_PORT")},
    ),
    "the lists are refused": (
        "3.1",
        fault("garbage", "instance/list"),
        {},
        {"instance": (UNKNOWN, "no JSON", "when Nacos is well")},
    ),
    "disabled by an operator": (
        "3.1",
        lambda s: s.double.naming.disable_as_operator("shop", IP, s.port),
        {},
        {"instance": (WARNING, "disabled, and not by us", "CLEAR_RESIDUE=born")},
    ),
    "disabled by an operator, with CLEAR_RESIDUE=born": (
        "3.1",
        lambda s: s.double.naming.disable_as_operator("shop", IP, s.port),
        {"CLEAR_RESIDUE": "born"},
        {"instance": (WARNING, "disabled, and not by us", "has to enable it; a drain writes nothing there$")},
    ),
    "disabled by us": (
        "2.2",
        marked,
        {},
        {"instance": (WARNING, r"disabled by a drain of ours \(2026-01-31T12:00:00Z/pod-7\)", "nacos-drain status")},
    ),
    "disabled by us, and nobody is to undo it": (
        "3.1",
        marked,
        {"CLEAR_RESIDUE": "never"},
        {"instance": (FAILING, "disabled by a drain of ours", "enable it in the Nacos console")},
    ),
    "held, and shown to nobody": (
        "3.1",
        fault("blank", "client/ns/instance/list"),
        {},
        {"instance": (FAILING, "Nacos holds it, but shows it to no consumer", "NACOS_DRAIN_NACOS_CLUSTER")},
    ),
    "unhealthy": (
        "3.1",
        lambda s: s.register(healthy=False),
        {},
        {"instance": (FAILING, "listed, but unhealthy", "look at the app")},
    ),
    "batch": (
        "2.2",
        batch,
        {},
        {"instance": (WARNING, "in a batch: Nacos never forgets", "open a road in the app")},
    ),
    "two candidates": (
        "3.1",
        two_candidates,
        {"NACOS_PORT": ""},
        {
            "instance": (FAILING, r"several instances could be ours: .*:\d+, .*:\d+", "set NACOS_DRAIN_NACOS_PORT"),
            "identity": (FAILING, "which is registered is not known", "set NACOS_DRAIN_NACOS_PORT"),
            "permission": (UNKNOWN, "not asked yet", "settle identity first"),
        },
    ),
    "nothing listens": (
        "3.1",
        gone,
        {},
        {
            "app": (FAILING, r"nobody listens on \d+", "start the app"),
            "instance": (FAILING, "nothing of this pod", "start the app"),
        },
    ),
    "listed, and nobody listens": (
        "3.1",
        lambda s: s.settings.update(APP_PORTS=str(closed_port())),
        {},
        {"app": (WARNING, "Nacos lists the app, but nobody listens on", "NACOS_DRAIN_APP_PORTS")},
    ),
    "threshold on 2.2": (
        "2.2",
        lambda s: s.double.naming.thresholds.update({SHOP: 0.8}),
        {},
        {"protect_threshold": (WARNING, "protectThreshold 0.8", "upgrade Nacos to 2.5.0")},
    ),
    "threshold on 3.1": (
        "3.1",
        lambda s: s.double.naming.thresholds.update({SHOP: 0.8}),
        {},
        {"protect_threshold": (OK, "keep what is set", "")},
    ),
    "threshold cannot be read": (
        "2.2",
        fault("garbage", "/ns/service"),
        {},
        {"protect_threshold": (UNKNOWN, "no JSON", "read the service")},
    ),
    "plan does not fit": (
        "3.1",
        NOTHING,
        {"GRACE_PERIOD": "15"},
        {"plan": (FAILING, "budget 9 s of 15 s", "5 s are missing. With a grace period of 20 s it fits")},
    ),
    "plan is cut": (
        "3.1",
        NOTHING,
        {"GRACE_PERIOD": "30"},
        {"plan": (WARNING, "SETTLE 13 s of at most 40 s: cut", "NACOS_DRAIN_GRACE_PERIOD to 53 s")},
    ),
    "no cache to cover": (
        "3.1",
        NOTHING,
        {"CONSUMER_CACHE": "0"},
        {"plan": (OK, "35 s is not covered, NACOS_DRAIN_CONSUMER_CACHE being 0 s", "")},
    ),
    "QoS refused": (
        "3.1",
        lambda s: s.settings.update(DUBBO_QOS=f"{IP}:{closed_port()}"),
        {},
        {"dubbo": (FAILING, "qos-enable=true", "NACOS_DRAIN_DUBBO_QOS")},
    ),
    "no token": (
        "3.1",
        NOTHING,
        {"TOKEN": ""},
        {"door": (WARNING, "whoever calls himself a kubelet", "set NACOS_DRAIN_TOKEN, or close the port")},
    ),
    "no token, on loopback": (
        "3.1",
        NOTHING,
        {"TOKEN": "", "LISTEN": "127.0.0.1:19081"},
        {"door": (OK, "only loopback reaches", "")},
    ),
    "no token, and a signal": (
        "3.1",
        NOTHING,
        {"TOKEN": "", "RELEASE": "signal"},
        {
            "door": (WARNING, "RELEASE=signal only loopback may drain", "X-Drain-Token"),
            "release": (OK, "we may signal it", ""),
        },
    ),
    "token unreadable": (
        "3.1",
        NOTHING,
        {"TOKEN": "", "TOKEN_FILE": "/nowhere/token"},
        {"door": (FAILING, "cannot read /nowhere/token", "NACOS_DRAIN_TOKEN_FILE")},
    ),
    "password unreadable": (
        "3.1",
        NOTHING,
        {"NACOS_PASSWORD": "", "NACOS_PASSWORD_FILE": "/nowhere/password"},
        {"login": (FAILING, "cannot read /nowhere/password", "mount that file")},
    ),
    "signed": (
        "3.1",
        lambda s: s.double.access.keys.update(key="hidden"),
        {"NACOS_USERNAME": "", "NACOS_PASSWORD": "", "NACOS_ACCESS_KEY": "key", "NACOS_SECRET_KEY": "hidden"},
        {"login": (OK, "requests are signed", "")},
    ),
    "signed with the wrong key": (
        "3.1",
        lambda s: s.double.access.keys.update(key="hidden"),
        {"NACOS_USERNAME": "", "NACOS_PASSWORD": "", "NACOS_ACCESS_KEY": "key", "NACOS_SECRET_KEY": "other"},
        {"permission": (FAILING, "403 to a signed request", "the keys in NACOS_DRAIN_NACOS_ACCESS_KEY")},
    ),
    "push watch": (
        "3.1",
        NOTHING,
        {"PUSH_WATCH": "true"},
        {
            "push": (OK, "subscribes as a consumer", "")
            if installed()
            else (FAILING, "its extra is not installed", r"pip install nacos-drain\[grpc\]")
        },
    ),
}


def assert_told(checks: dict[str, Check], expected: dict[str, Expected]) -> None:
    """What is expected is told, and nothing else is wrong that does not follow from it."""
    for name, (verdict, detail, step) in expected.items():
        found = checks[name]
        assert found.verdict is verdict, found
        assert re.search(detail, found.detail), found
        assert re.search(step, found.next_step), found
        assert bool(found.next_step) is (verdict is not OK), found
    for found in checks.values():
        assert "\n" not in found.detail + found.next_step


SLOW = {"the login hangs", "hang"}  # they take the doctor's patience


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in SLOW else n for n in FAULTS])
async def test_a_fault_has_a_name_and_a_next_step(name: str) -> None:
    dialect, prepare, settings, expected = FAULTS[name]
    async with stage(dialect) as s:
        prepare(s)
        if settings.get("NACOS_SERVER_ADDR") == "CONTEXT":
            settings = {"NACOS_SERVER_ADDR": f"http://{s.double.address}/wrong"}
        checks = await s.doctor(**settings)
        assert_told(checks, expected)
        blamed = [c for c in checks.values() if c.verdict is FAILING]
        assert {c.name for c in blamed} == {n for n, (verdict, _, _) in expected.items() if verdict is FAILING}
        record = s.double.naming.record("shop", IP, s.port) if s.listener.fileno() >= 0 else None
        assert record is None or record.enabled is False  # what the fault has made of it


# -- who is calling --------------------------------------------------------------------------------------------------


def watching(
    sight: Sight | Trouble | None, *nodes: str, kubernetes: bool = False, plan: Plan | None = None, **rule: Any
) -> Findings:
    """What a rehearsal has found of a shop that one drain would take out, seen in this way."""
    env = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"} if kubernetes else {}
    rules = Rules(
        plan or fit(120, None, 35),
        (Named("shop"),),
        frozenset({8080}),
        addresses=("10.0.0.7",),
        quiet=Rule(**rule),
        watched=Noted(nodes=frozenset(nodes)),
    )
    drain = Drain(rules, 0.0, Settle(since=0.0))
    hook = Triggered(Trigger.HOOK, "rehearsal", "rehearsal", (("nacos:8848", True),))
    return Findings(load(env), drain, drain.step(hook, 0.0).lease, traffic=sight)


NETLINK = Sight("netlink", "")
SEEN = (
    "callers are seen in the kernel's sockets; a sidecar that has watched for less than 5m waits until the cap of 40 s"
)
UNKNOWN_NODE = "the node's address is not known, so the kubelet's probes would count as calls; callers are seen"
NODE_STEP = "set NACOS_DRAIN_NODE_IP: env valueFrom fieldRef status.hostIP"
ALLOW = "seccomp profile RuntimeDefault, or one that allows AF_NETLINK sockets; gVisor has none"
SIGHTS: list[tuple[Findings, Expected]] = [
    (watching(NETLINK), (OK, f"^{SEEN}$", "^$")),
    (
        watching(NETLINK, look_back=20.0, plan=fit(120, None, 0)),
        (OK, "less than 20s waits until the cap of 5 s$", "^$"),
    ),
    (watching(NETLINK, kubernetes=True), (WARNING, UNKNOWN_NODE, NODE_STEP)),
    (watching(NETLINK, "169.254.1.1", "fe80::1", kubernetes=True), (WARNING, UNKNOWN_NODE, NODE_STEP)),
    (watching(NETLINK, "169.254.1.1", "192.168.0.3", kubernetes=True), (OK, f"^{SEEN}$", "^$")),
    (watching(NETLINK, "fd00::1", kubernetes=True), (OK, f"^{SEEN}$", "^$")),
    (
        watching(Sight("netlink", "nobody counts the accepts"), kubernetes=True),
        (
            WARNING,
            r"^some calls may be missed \(nobody counts the accepts\): a drain waits until the cap of 40",
            "/proc$",
        ),
    ),
    (
        watching(Sight("procfs", "netlink is denied"), kubernetes=True),
        (
            WARNING,
            r"not their use \(netlink is denied\): who keeps one open is waited for until the cap of 40 s$",
            ALLOW,
        ),
    ),
    (
        watching(Sight("blind", "no such family"), kubernetes=True, plan=fit(120, None, 0)),
        (WARNING, r"^callers cannot be seen \(no such family\): SETTLE always lasts until the cap of 5 s$", ALLOW),
    ),
    (watching(Trouble("no answer within 2 s")), (UNKNOWN, "^no answer within 2 s$", "nacos-drain status --json")),
    (watching(None), (UNKNOWN, "^not asked$", "nacos-drain status --json")),
]


@pytest.mark.parametrize(("findings", "expected"), SIGHTS)
def test_how_callers_are_seen_is_told(findings: Findings, expected: Expected) -> None:
    assert_told({"traffic": traffic(findings)}, {"traffic": expected})


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (watching(NETLINK), "callers 3-40 s; the app is released after about 4-41 s, after 107 s at the latest."),
        (watching(Sight("procfs", "")), "callers 3-40 s; the app is released after about 4-41 s, after"),
        (
            watching(Sight("blind", "")),
            "callers 40 s as they cannot be seen; the app is released after about 41 s, after",
        ),
        (watching(None), "callers 40 s as they cannot be seen; the app is released after about 41 s, after"),
        (watching(NETLINK, floor=9.0), "callers 9-40 s; the app is released after about 10-41 s, after"),
        (
            watching(NETLINK, floor=5.0, plan=fit(120, None, 0)),
            "callers 5 s; the app is released after about 6 s, after",
        ),
        (
            watching(NETLINK, plan=fit(30, None, 35)),
            "callers 3-40 s; the app is released after about 4-17 s, after 17 s at the latest, where SETTLE has 13 s",
        ),
        (watching(NETLINK, plan=fit(14, 8, 35)), "the app is released after about 3 s, after 3 s at the latest, where"),
    ],
)
def test_the_last_line_promises_no_more_than_can_be_seen(findings: Findings, said: str) -> None:
    assert outlook((), findings).startswith("A drain now: openapi; proof in about 1 s, ")
    assert said in outlook((), findings)


# -- several nodes ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def second(s: Stage, dialect: Dialect = "3.1", **options: Any) -> AsyncIterator[Double]:
    """Another node of the stage's cluster."""
    shared = {"naming": s.double.naming, "access": s.double.access}
    async with Double(dialect, **{**shared, "push_delay": 0.0, **options}) as node:
        yield node


async def test_two_nodes_are_found_by_one_address() -> None:
    async with stage() as s, second(s) as node:
        checks = await s.doctor()
        assert checks["nodes"].verdict is OK
        assert node.address in checks["nodes"].detail
        assert s.double.address in checks["nodes"].detail


async def test_two_nodes_of_two_versions() -> None:
    async with stage("2.2") as s, second(s, "3.1") as node:
        checks = await s.doctor(NACOS_SERVER_ADDR=f"{s.double.url},{node.url}")
        assert_told(checks, {"nodes": (WARNING, "several versions: 2.2.4, 3.1.0", "finish the upgrade")})
        assert checks["instance"].verdict is OK


async def test_a_node_that_does_not_list_it_is_named() -> None:
    async with stage() as s, second(s) as node:
        assert node.view.hosts(SHOP)  # it holds it
        node.faults.set("blank", "client/ns/instance/list")
        checks = await s.doctor(NACOS_SERVER_ADDR=f"{s.double.url},{node.url}")
        assert_told(checks, {"instance": (WARNING, f"listed, but not at {node.address}$", "does not follow")})


async def test_a_member_that_is_not_reachable_is_worth_knowing() -> None:
    async with stage() as s:
        s.double.naming.members[f"{IP}:{closed_port()}"] = "UP"
        checks = await s.doctor()
        assert_told(checks, {"nodes": (WARNING, "known from the member list only", "network to every member")})


async def test_a_node_that_is_down_by_the_others_word_is_left_out() -> None:
    async with stage() as s:
        down = f"{IP}:{closed_port()}"
        s.double.naming.members[down] = "DOWN"
        checks = await s.doctor(NACOS_SERVER_ADDR=f"{s.double.url},{down}")
        assert_told(checks, {"nodes": (WARNING, f"{down}: cannot connect.*DOWN by another", "leaves it out")})


# -- the app's own doors ---------------------------------------------------------------------------------------------

LOGIN = ("actuator-user", "actuator-pass")
ROADS = ("nacos-deregister", "serviceregistry")
STARTER = ("health", "nacos-deregister", "nacos-deregister/registration")


@dataclass
class Actuator:
    """An app's actuator on a port of its own; a status for an endpoint breaks it, `hang` too."""

    stage: Stage
    open: tuple[str, ...] = ("health", "nacosdiscovery", *ROADS)
    broken: dict[str, int | str] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    echo: bool = False
    url: str = ""
    methods: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/actuator/")
        self.methods.append((request.method, name))
        what = self.broken.get(name, self.broken.get("*", 200 if name in self.open else 404))
        if what == "hang":
            await asyncio.Event().wait()
        echoed = {"headers": dict(request.headers), "body": await request.text(), "password": "canary-of-the-app"}
        if what != 200:
            return web.json_response(echoed, status=int(what))
        if name == "nacos-deregister/registration":
            told = {
                "service": "shop",
                "group": "DEFAULT_GROUP",
                "namespace": "",
                "cluster": "DEFAULT",
                "ip": IP,
                "port": self.stage.port,
                "ephemeral": True,
                "registerEnabled": True,
                "state": "UP",
                "serverAddr": self.stage.double.address,
                "nacosClient": "2.4.2",
                **self.properties,
            }
            return web.json_response({**told, **(echoed if self.echo else {})})
        if name == "nacosdiscovery":
            told = {
                "service": "shop",
                "group": "DEFAULT_GROUP",
                "namespace": "",
                "clusterName": "DEFAULT",
                "ip": IP,
                "port": self.stage.port,
                "serverAddr": self.stage.double.address,
                "username": "canary-user-of-the-app",
                "password": "canary-of-the-app",
                "registerEnabled": True,
                **self.properties,
            }
            return web.json_response({"NacosDiscoveryProperties": told, **(echoed if self.echo else {})})
        return web.json_response(echoed if self.echo else {"status": "UP"})


@asynccontextmanager
async def actuator(s: Stage, **options: Any) -> AsyncIterator[Actuator]:
    made = Actuator(s, **options)
    app = web.Application()
    app.router.add_route("*", "/actuator/{name:.+}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, IP, 0).start()
        made.url = f"http://{IP}:{runner.addresses[0][1]}/actuator"
        s.settings["ACTUATOR_URL"] = made.url
        yield made
    finally:
        await runner.cleanup()


async def test_an_actuator_tells_everything_and_opens_the_roads() -> None:
    async with stage() as s, actuator(s) as app:
        for name in ("NACOS_SERVER_ADDR", "NACOS_SERVICE", "NACOS_IP", "NACOS_PORT"):
            s.settings[name] = ""
        checks = await s.doctor()
        assert {name: c.verdict for name, c in checks.items()} == dict.fromkeys(NAMES, OK), checks
        assert "(service: by the app's actuator" in checks["identity"].detail
        assert "; roads: nacos-deregister, then serviceregistry, then openapi" in checks["actuator"].detail
        assert s.findings is not None
        said = outlook(judge(s.findings), s.findings)
        assert said.startswith("A drain now: nacos-deregister, then serviceregistry, then openapi; ")
        acting = {(method, name) for method, name in app.methods if name in {"nacos-deregister", "shutdown"}}
        assert acting == {("OPTIONS", "nacos-deregister"), ("OPTIONS", "shutdown")}
        assert not [name for method, name in app.methods if method not in {"GET", "OPTIONS"}]


async def test_a_road_that_is_not_open_is_skipped() -> None:
    async with stage() as s, actuator(s, open=("nacosdiscovery", "serviceregistry")):
        checks = await s.doctor()
        assert checks["actuator"].verdict is OK
        assert "nacos-deregister not exposed (404)" in checks["actuator"].detail
        assert s.findings is not None
        assert outlook(judge(s.findings), s.findings).startswith(
            "A drain now: serviceregistry, then openapi (nacos-deregister: not open, left at once)"
        )


async def test_a_built_in_wait_counts_in_the_plan() -> None:
    async with stage() as s, actuator(s, properties={"gracefulShutdownWaitTime": 40_000}):
        checks = await s.doctor(GRACE_PERIOD="60")
        assert_told(checks, {"plan": (WARNING, "the drain has 17 s", "GRACE_PERIOD to 83 s")})


PROPERTY = "spring.cloud.nacos.discovery.graceful-shutdown-wait-time=0"


@pytest.mark.parametrize(
    ("properties", "settings", "expected"),
    [
        ({}, {}, (OK, "^((?!built-in).)*$", "")),
        ({"gracefulShutdownWaitTime": 0}, {}, (OK, "^((?!built-in).)*$", "")),
        (
            {"gracefulShutdownWaitTime": 10_000},
            {},
            (OK, f"wait of 10 s .* is counted; .* so {PROPERTY} in the app", ""),
        ),
        ({"gracefulShutdownWaitTime": 10_000}, {"APP_STOP": "15s"}, (OK, "wait of 10 s .* is counted", "")),
        (
            {"gracefulShutdownWaitTime": 10_000},
            {"APP_STOP": "5s"},
            (
                WARNING,
                "APP_STOP is 5 s, which is less than the app's built-in wait of 10 s",
                f"set {PROPERTY} in the app",
            ),
        ),
        (  # Spring Cloud Alibaba 2025.0
            {"gracefulShutdownWaitTime": 10_000, "nacosClient": "3.0.3"},
            {"APP_STOP": "5s"},
            (OK, "10 s .* lost on SIGTERM with nacos-client 3.0.3, and works by POST /actuator/shutdown.*no harm", ""),
        ),
        (
            {"gracefulShutdownWaitTime": 10_000, "nacosClient": "3.0.3"},
            {"APP_STOP": "5s", "RELEASE": "actuator"},
            (WARNING, "less than the app's built-in wait", PROPERTY),
        ),
        (
            {"gracefulShutdownWaitTime": 10_000, "nacosClient": "3.1.1"},
            {},
            (OK, "wait of 10 s .* is counted", ""),
        ),
    ],
)
async def test_a_built_in_wait_is_told_with_what_saves_it(
    properties: dict[str, Any], settings: dict[str, str], expected: Expected
) -> None:
    async with stage() as s, actuator(s, open=STARTER, properties=properties):
        assert_told(await s.doctor(**settings), {"plan": expected})


async def test_the_starter_is_all_that_has_to_be_exposed() -> None:
    async with stage() as s, actuator(s, open=STARTER) as app:
        for name in ("NACOS_SERVER_ADDR", "NACOS_SERVICE", "NACOS_IP", "NACOS_PORT"):
            s.settings[name] = ""
        checks = await s.doctor()
        assert {name: c.verdict for name, c in checks.items()} == dict.fromkeys(NAMES, OK), checks
        assert "GET /actuator/nacos-deregister/registration" in checks["identity"].detail
        assert "; roads: nacos-deregister, then openapi" in checks["actuator"].detail
        assert "nacos-deregister exposed (our starter)" in checks["actuator"].detail
        assert "500" not in checks["actuator"].detail
        assert {m for m, name in app.methods if name == "nacos-deregister"} == {"OPTIONS"}


async def test_with_the_starter_nacos_need_not_let_us_write() -> None:
    async with stage("3.1") as s, actuator(s, open=STARTER):
        step = "for the road behind it, openapi: set NACOS_DRAIN_NACOS_USERNAME"
        expected = (WARNING, "403 without credentials.*our starter's nacos-deregister, which goes first", step)
        assert_told(await s.doctor(NACOS_USERNAME="", NACOS_PASSWORD=""), {"permission": expected})


async def test_beside_the_starter_nobody_needs_the_endpoint_that_shows_a_password() -> None:
    async with stage() as s, actuator(s, open=(*STARTER, "nacosdiscovery")):
        expected = (
            WARNING,
            "shows the app's Nacos password in clear",
            "take nacosdiscovery out of management.endpoints",
        )
        assert_told(await s.doctor(), {"actuator": expected})
        checks = await s.doctor(NACOS_USERNAME="", NACOS_PASSWORD="", BORROW_CREDENTIALS="true")
        assert checks["actuator"].verdict is OK, "here somebody does"


@pytest.mark.parametrize(
    ("dialect", "roads", "settings", "expected"),
    [
        ("3.1", ROADS, {}, (OK, "nacos-deregister, serviceregistry may answer 500 .*before 2025.*openapi does it", "")),
        ("3.1", ROADS[1:], {}, (OK, "openapi; serviceregistry may answer 500", "")),
        (
            "3.1",
            ROADS,
            {"NACOS_PASSWORD": "wrong"},
            (WARNING, "may answer 500", "put our starter .*or set NACOS_DRAIN_"),
        ),
        ("2.2", ROADS, {}, (OK, "^((?!500).)*$", "")),
        ("3.1", (), {}, (WARNING, "^((?!500).)*$", "exposure")),
    ],
)
async def test_what_nacos_3_refuses_to_old_apps_is_told_ahead(
    dialect: Dialect, roads: tuple[str, ...], settings: dict[str, str], expected: Expected
) -> None:
    """Only what nobody needs to try: a POST there would take the app out."""
    async with stage(dialect, auth="all") as s, actuator(s, open=("health", "nacosdiscovery", *roads)):
        verdict, detail, step = expected
        found = (await s.doctor(**settings))["actuator"]
        assert found.verdict is verdict, found
        assert re.search(detail, found.detail), found
        assert re.search(step, found.next_step), found


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"DEREGISTER_BODY": "status=DOWN"}, "a body that is not JSON"),
        ({"DEREGISTER_HEADERS": "Content-Type: application/x-www-form-urlencoded"}, "a content type that is not JSON"),
        ({"DEREGISTER_URL": "/serviceregistry?status=DOWN"}, "a query without a content type"),
        ({"DEREGISTER_BODY": '{"status": "DOWN"}'}, ""),
        ({"DEREGISTER_BODY": "x", "DEREGISTER_HEADERS": "Content-Type: application/json"}, ""),
        (
            {"DEREGISTER_URL": "/serviceregistry?status=DOWN", "DEREGISTER_HEADERS": "content-type: application/json"},
            "",
        ),
        ({"DEREGISTER_URL": "http://127.0.0.1:1/offline", "DEREGISTER_BODY": "status=DOWN"}, ""),
    ],
)
async def test_a_415_can_be_told_ahead(settings: dict[str, str], detail: str) -> None:
    async with stage("2.2") as s, actuator(s):
        found = (await s.doctor(**settings))["actuator"]
        assert (found.verdict is WARNING) is bool(detail), found
        assert ("415" in found.detail) is bool(detail)
        assert detail in found.detail


async def test_an_app_that_does_not_register_has_nothing_to_drain() -> None:
    async with stage(registered=False) as s, actuator(s, properties={"registerEnabled": False}):
        for name in ("NACOS_SERVICE", "NACOS_IP", "NACOS_PORT"):
            s.settings[name] = ""
        checks = await s.doctor()
        assert_told(
            checks,
            {
                "identity": (OK, "registerEnabled=false", ""),
                "instance": (OK, "nothing is registered, and nothing is meant to be", ""),
                "permission": (OK, "nothing has to be written", ""),
            },
        )
        assert not [c for c in checks.values() if c.verdict is FAILING]
        assert s.findings is not None
        said = outlook(judge(s.findings), s.findings)
        assert said == "A drain now: nothing to take out; the app is released at once."


CLOSED_ACTUATORS: dict[str, tuple[dict[str, int | str], dict[str, Expected]]] = {
    "401": (
        {"*": 401},
        {
            "actuator": (FAILING, r"protected \(401\)", "set or correct NACOS_DRAIN_ACTUATOR_USERNAME"),
            "identity": (FAILING, "asks for a login", "nacosdiscovery"),
        },
    ),
    "404": (
        {"*": 404},
        {
            "actuator": (FAILING, r"not exposed \(404\)", "check NACOS_DRAIN_ACTUATOR_URL"),
            "identity": (FAILING, "shows neither our starter.*nor nacosdiscovery", "set NACOS_DRAIN_NACOS_SERVER_ADDR"),
        },
    ),
    "another profile": (  # the usual reason: health is what Boot exposes by itself
        {"nacosdiscovery": 404, "nacos-deregister": 404, "serviceregistry": 404},
        {
            "actuator": (WARNING, "^health exposed, nacosdiscovery not exposed", "a profile's value replaces the"),
            "identity": (FAILING, "shows neither", r"exposure.include \(a profile's value replaces the default one's"),
        },
    ),
    "no road": (
        {"nacos-deregister": 404, "serviceregistry": 404},
        {
            "actuator": (
                WARNING,
                "roads: openapi$",
                r"nacos-deregister .* management.endpoints.web.exposure.include \(a profile's value replaces",
            )
        },
    ),
    "protected roads": (
        {"nacos-deregister": 403, "serviceregistry": 401},
        {"actuator": (WARNING, r"protected \(403\)", "NACOS_DRAIN_ACTUATOR_USERNAME")},
    ),
    "hangs": (
        {"*": "hang"},
        {
            "actuator": (FAILING, "no answer within 3 s", "is the app up"),
            "identity": (FAILING, "no answer within 2.5 s", "nacosdiscovery"),
        },
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "hangs" else ()) for name in CLOSED_ACTUATORS]
)
async def test_an_actuator_that_is_closed(name: str) -> None:
    broken, expected = CLOSED_ACTUATORS[name]
    async with stage() as s, actuator(s, broken=broken):
        s.settings["NACOS_SERVICE"] = ""
        checks = await s.doctor()
        assert_told(checks, expected)
        if "identity" in expected:
            assert checks["instance"].verdict is checks["permission"].verdict is UNKNOWN


async def test_with_a_service_set_a_closed_actuator_costs_only_its_roads() -> None:
    async with stage() as s, actuator(s, broken={"*": 401}):
        checks = await s.doctor()
        assert {n for n, c in checks.items() if c.verdict is not OK} == {"actuator"}
        s.settings["ACTUATOR_URL"] = f"http://{IP}:{closed_port()}/actuator"
        checks = await s.doctor()
        assert_told(checks, {"actuator": (FAILING, "cannot connect", "Check NACOS_DRAIN_ACTUATOR_URL")})


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"shutdown": 200}, (OK, "which is exposed", "")),
        ({}, (FAILING, r"not exposed \(404\)", "let the app expose shutdown")),
        ({"shutdown": 401}, (FAILING, r"protected \(401\)", "NACOS_DRAIN_ACTUATOR_USERNAME")),
        pytest.param({"*": "hang"}, (UNKNOWN, "does not answer", "see actuator"), marks=pytest.mark.long),
    ],
)
async def test_release_by_the_actuator_needs_its_shutdown(broken: dict[str, int | str], expected: Expected) -> None:
    async with stage() as s, actuator(s, broken=broken):
        assert_told(await s.doctor(RELEASE="actuator"), {"release": expected})


async def test_dubbo_that_would_obey_is_a_road() -> None:
    async def qos(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"As Provider side:\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(qos, IP, 0)
    async with stage() as s, server:
        checks = await s.doctor(DUBBO_QOS=f"{IP}:{server.sockets[0].getsockname()[1]}")
        assert checks["dubbo"].verdict is OK
        assert s.findings is not None
        assert outlook(judge(s.findings), s.findings).startswith("A drain now: dubbo, then openapi; ")


# -- bounds and processes --------------------------------------------------------------------------------------------


async def doctor(env: dict[str, str], *options: str, within: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """`nacos-drain doctor` as a process of its own."""
    made = await asyncio.create_subprocess_exec(
        *(*within, sys.executable, "-m", "sidecar", "doctor", *options),
        env={"PATH": os.environ["PATH"], **env},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await made.communicate()
    assert made.returncode is not None
    return made.returncode, out.decode(), err.decode()


@pytest.mark.long
async def test_whatever_hangs_it_ends_in_time() -> None:
    """Three nodes of which one answers, slowly, an actuator and a QoS port that accept and say nothing."""
    loop = asyncio.get_running_loop()
    async with stage() as s:
        port = s.also_listen()  # connects, and nobody is there
        s.double.faults.set("slow", seconds=1.4)
        hanging = {
            "ACTUATOR_URL": f"{IP}:{port}",
            "DUBBO_QOS": f"{IP}:{port}",
            "NACOS_SERVICE": "",
            "RELEASE": "actuator",
        }
        s.settings |= hanging | {"NACOS_SERVER_ADDR": f"{IP}:{port},{s.double.url},localhost:{port}"}
        begun = loop.time()
        checks = await s.doctor()
        assert loop.time() - begun < 14
    assert len(checks) == len(NAMES)
    for name in ("nodes", "identity", "actuator", "dubbo"):
        assert checks[name].verdict is FAILING, checks[name]
    for name in ("instance", "permission", "release"):
        assert checks[name].verdict is UNKNOWN, checks[name]


async def test_the_command_tells_programs_and_exits_by_the_verdict() -> None:
    async with stage() as s:
        well, failing, wrong = await asyncio.gather(
            doctor(s.env, "--json"),
            doctor({**s.env, "NACOS_DRAIN_NACOS_SERVICE": "shoop"}, "--json"),
            doctor({**s.env, "NACOS_DRAIN_GRACE_PERIOD": "soon"}),
        )
    assert (well[0], failing[0], wrong[0]) == (0, 1, 2)
    told = json.loads(well[1])
    assert (told["schema"], told["ok"]) == (1, True)
    assert [row["check"] for row in told["checks"]] == list(NAMES)
    assert {frozenset(row) for row in told["checks"]} == {frozenset({"check", "verdict", "detail", "next_step"})}
    assert {row["next_step"] for row in told["checks"]} == {None}
    told = json.loads(failing[1])
    assert told["ok"] is False
    assert [row["check"] for row in told["checks"] if row["verdict"] == "failing"] == ["instance"]
    assert "NACOS_DRAIN_GRACE_PERIOD='soon'" in wrong[2]
    assert not well[2] + failing[2] + wrong[1]


async def test_in_a_pod_that_knows_its_node_callers_are_seen() -> None:
    async with stage() as s:
        env = {**s.env, "NACOS_DRAIN_NODE_IP": "192.0.2.7", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
        code, out, _ = await doctor(env, "--json")
    rows = {row["check"]: row for row in json.loads(out)["checks"]}
    assert (code, rows["traffic"]["verdict"], rows["traffic"]["next_step"]) == (0, "ok", None)


async def test_where_netlink_is_denied_it_says_what_a_drain_loses_and_who_can_help() -> None:
    """By a seccomp profile, for real. The drain works all the same, so this is no reason to exit 1."""
    async with stage() as s:
        within = (sys.executable, str(ROOT / "tests/programs/confined.py"), "no-netlink")
        code, out, _ = await doctor(s.env, "--json", within=within)
    rows = {row["check"]: row for row in json.loads(out)["checks"]}
    assert code == 0
    assert {name: row["verdict"] for name, row in rows.items() if row["verdict"] != "ok"} == {"traffic": "warning"}
    assert rows["traffic"]["detail"].startswith("connections are seen, but not their use (netlink")
    assert rows["traffic"]["detail"].endswith(": who keeps one open is waited for until the cap of 40 s")
    assert "use the seccomp profile RuntimeDefault" in rows["traffic"]["next_step"]


@as_root
async def test_a_signal_needs_the_process_to_be_visible() -> None:
    """A pod without shareProcessNamespace: the sockets are there, the process behind them is not."""
    async with stage() as s:
        s.settings["RELEASE"] = "signal"
        _, out, _ = await doctor(s.env, "--json", within=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"))
    rows = {row["check"]: row for row in json.loads(out)["checks"]}
    assert rows["release"]["verdict"] == "failing"
    assert "set shareProcessNamespace: true and the same runAsUser" in rows["release"]["next_step"]
    assert rows["app"]["verdict"] == "ok"
    assert "its process is not visible" in rows["app"]["detail"]


@as_root
def test_who_may_signal_whom() -> None:
    code = "import os, sidecar.doctor.pod as pod; os.setuid(65534); print(pod.may_signal(int(os.environ['PID'])))"
    env = {"PATH": os.environ["PATH"], "PID": str(os.getpid())}
    said = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
    assert may_signal(os.getpid())
    assert may_signal(2**22 + 1)  # nobody: gone


# -- real servers ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def real_app(server: NacosServer) -> AsyncIterator[tuple[dict[str, str], RealInstance]]:
    """An app that listens and is registered over gRPC, and the sidecar's environment."""
    with socket.create_server((IP, 0)) as listener:
        instance = RealInstance(f"doctor-{secrets.token_hex(4)}", listener.getsockname()[1], ip=IP)
        async with GrpcApp(server) as app, Observer(server) as eye:
            await app.register(instance)
            await eye.until(instance, listed=True)
            env = {
                "NACOS_SERVER_ADDR": server.address,
                "NACOS_SERVICE": instance.service,
                "NACOS_IP": IP,
                "NACOS_PORT": str(instance.port),
                "NACOS_USERNAME": server.username or "",
                "NACOS_PASSWORD": server.password or "",
                "GRACE_PERIOD": "120",
                "TOKEN": "right",
            }
            yield {f"NACOS_DRAIN_{name}": value for name, value in env.items()}, instance
            record = await eye.record(instance)
            assert record is not None
            assert (record.enabled, dict(record.metadata)) == (True, {})


@pytest.mark.real
async def test_on_a_real_server_all_is_well(real_nacos: NacosServer) -> None:
    async with real_app(real_nacos) as (env, instance):
        code, out, err = await doctor(env, "--json")
        rows = {row["check"]: row for row in json.loads(out)["checks"]}
        assert {name: row["verdict"] for name, row in rows.items()} == dict.fromkeys(NAMES, "ok"), rows
        assert (code, err) == (0, "")
        assert f"{real_nacos.address} {real_nacos.version}" in rows["nodes"]["detail"]
        assert "held by the app's gRPC connection" in rows["instance"]["detail"]
        code, out, _ = await doctor({**env, "NACOS_DRAIN_NACOS_NAMESPACE": "nowhere"}, "--json")
        rows = {row["check"]: row for row in json.loads(out)["checks"]}
        assert (code, rows["instance"]["verdict"]) == (1, "failing")
        assert "Nacos knows no such service" in rows["instance"]["detail"]
        async with Operator(real_nacos) as operator, Observer(real_nacos) as eye:
            await operator.set_enabled(instance, enabled=False)
            await eye.until(instance, listed=False)
            code, out, _ = await doctor(env, "--json")
            rows = {row["check"]: row for row in json.loads(out)["checks"]}
            assert (code, rows["instance"]["verdict"]) == (0, "warning")
            assert "disabled, and not by us" in rows["instance"]["detail"]
            await operator.set_enabled(instance, enabled=True)
            await eye.until(instance, listed=True)


@pytest.mark.real
@pytest.mark.timeout(90, func_only=True)  # a real server reads users and their rights again every 15 s
async def test_on_a_real_server_a_reader_is_told_before_the_day(nacos3: NacosServer) -> None:
    async with AsyncExitStack() as stack, real_app(nacos3) as (env, _):
        backend = real_backend("real-3.1.0", nacos3, stack)
        await stack.enter_async_context(backend.operator)
        name, password = await backend.reader()
        code, out, _err = await doctor(
            {**env, "NACOS_DRAIN_NACOS_USERNAME": name, "NACOS_DRAIN_NACOS_PASSWORD": password}, "--json"
        )
        rows = {row["check"]: row for row in json.loads(out)["checks"]}
        assert (code, rows["permission"]["verdict"]) == (1, "failing")
        assert "answers 403 after a login" in rows["permission"]["detail"]
        assert "ask Nacos' administrator to let the user" in rows["permission"]["next_step"]
        assert [n for n, row in rows.items() if row["verdict"] in {"failing", "unknown"}] == ["permission"]


# -- secrets ---------------------------------------------------------------------------------------------------------

TOKEN = "canary/token+with=signs&more"
USER = "canary user@example"
PASSWORD = "canary:pass/word+ü&%"
HEADER = "canary-header-value"
BODY = '{"secret": "canary-body"}'


def spellings(hidden: Iterable[str]) -> set[str]:
    forms = {secret: {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]} for secret in hidden}
    return set().union(*forms.values()) | {b64encode(secret.encode()).decode() for secret in forms}


@pytest.mark.parametrize("keys", [False, True])
async def test_no_secret_is_in_what_it_says(keys: bool) -> None:
    """All of them are set, and a server and an actuator send back what they were sent."""
    access = Access({USER: PASSWORD}, keys={"canary-access-key": "canary-secret-key"})
    access.readers |= {USER, "canary-access-key"}
    async with stage(access=access, auth="all") as s, actuator(s, echo=True, broken={"serviceregistry": 500}):
        sent = ["canary-access-key"] if keys else [USER, PASSWORD]
        echo = f"denied: {' '.join([*spellings(sent), *access._tokens])}"
        s.double.faults.set("status", "admin/ns/instance", status=400, body=echo)
        s.double.faults.set("status", "core/state", status=200, body=json.dumps({"version": f"3.1 {sent[-1]}"}))
        s.settings |= {
            "TOKEN": TOKEN,
            "ACTUATOR_USERNAME": USER,
            "ACTUATOR_PASSWORD": PASSWORD,
            "DEREGISTER_BODY": BODY,
            "DEREGISTER_UNDO": BODY,
            "DEREGISTER_HEADERS": f"X-Canary: {HEADER}",
            "NACOS_SERVICE": "",
        }
        named = {"NACOS_USERNAME": USER, "NACOS_PASSWORD": PASSWORD}
        signed = {"NACOS_ACCESS_KEY": "canary-access-key", "NACOS_SECRET_KEY": "canary-secret-key"}
        s.settings |= dict.fromkeys(named, "") | (signed if keys else named)
        said = [*map(str, await asyncio.gather(doctor(s.env), doctor(s.env, "--json")))]
        assert "***" in said[0]  # somebody did try to repeat one
        checks = await s.doctor()
        said += [str(checks)]
        assert not {n for n, c in checks.items() if c.verdict is OK} >= set(NAMES)
        minted = list(access._tokens)
    for each in said:
        for spelling in spellings(
            [TOKEN, USER, PASSWORD, HEADER, BODY, "canary-secret-key", "canary-access-key", *minted]
        ):
            assert spelling not in each
        assert "canary-of-the-app" not in each
        assert "canary-body" not in each


# -- in serve --------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A runner with its preflight, and what that told."""

    runner: Runner
    preflight: Preflight
    traffic: Sockets
    told: list[tuple[dict[str, str], bool]]

    @property
    def verdicts(self) -> dict[str, str]:
        """Of the newest run."""
        return self.told[-1][0]

    async def runs(self, count: int) -> None:
        """Wait for so many runs."""
        await self.until(lambda: len(self.told) >= count)

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait for what another task does."""
        async with asyncio.timeout(10):
            while not (self.told and seen()):  # noqa: ASYNC110  another task
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(s: Stage, **options: Any) -> AsyncIterator[Watched]:
    loaded = load(s.env)
    parts = assemble(loaded)
    await parts.traffic.detect()
    doors = {"inside": parts.inside, "actuator": parts.actuator if parts.rules.actuator else None}
    runner = Runner(parts.rules, parts.registry, parts.app, traffic=parts.traffic, **doors)  # type: ignore[arg-type]  # as they are named
    told: list[tuple[dict[str, str], bool]] = []
    preflight = Preflight(
        parts,
        loaded,
        runner,
        lambda rows, bad: told.append(({str(r["check"]): str(r["verdict"]) for r in rows}, bad)),
        **options,
    )
    try:
        async with runner.running():
            task = asyncio.create_task(preflight.run())
            try:
                yield Watched(runner, preflight, parts.traffic, told)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    finally:
        await parts.close()


def probes(s: Stage) -> int:
    return sum(r.params.get("port") == "1" for r in s.double.log)


async def test_a_sidecar_checks_once_and_then_is_quiet() -> None:
    async with stage() as s, serving(s, period=0.05, probe_within=100.0) as w:
        await w.runs(1)
        assert w.told[0] == (dict.fromkeys(NAMES, "ok") | {"permission": "unknown"}, False)
        assert {row["at"] for row in w.preflight.rows} != {None}
        asked = len(s.double.log)
        await asyncio.sleep(0.5)  # ten periods
        assert len(w.told) == 1
        assert len(s.double.log) - asked <= 1  # who holds it, which is the runner's question
        assert probes(s) == 0


async def test_a_sidecar_does_not_try_again_how_callers_are_seen() -> None:
    async with stage() as s, serving(s) as w:
        w.traffic.reason = "as it was found at the start"
        await w.runs(1)
        (row,) = [row for row in w.preflight.rows if row["check"] == "traffic"]
    assert row["verdict"] == "warning"
    assert "(as it was found at the start)" in (row["detail"] or "")


async def test_the_right_to_write_is_asked_for_once() -> None:
    async with stage() as s, serving(s, period=0.05, probe_within=0.4) as w:
        await w.until(lambda: w.verdicts == dict.fromkeys(NAMES, "ok"))
        runs = len(w.told)
        assert runs <= 2  # one, where that moment came before the first
        await asyncio.sleep(0.3)
        assert len(w.told) == runs
        assert probes(s) == 1


async def test_what_is_wrong_is_looked_at_again_until_it_is_not() -> None:
    async with stage() as s:
        readers(s)
        async with serving(s, period=0.05, probe_within=0.0, probe_again=0.1) as w:
            await w.runs(3)
            assert w.verdicts["permission"] == "failing"
            assert w.told[-1][1] is True
            s.double.access.readers.clear()
            await w.until(lambda: w.verdicts["permission"] == "ok")
            before = len(w.told)
            versions = sum("core/state" in r.path for r in s.double.log)
            await asyncio.sleep(0.3)
            assert len(w.told) == before
            assert versions <= 2  # the runner's and ours: not again with every run


async def test_an_app_that_is_not_up_yet_is_no_fault() -> None:
    async with stage(registered=False) as s:
        port = s.port
        s.listener.close()
        async with serving(s, probe_within=100.0) as w:
            await w.runs(1)
            verdicts = w.verdicts
            assert (verdicts["app"], verdicts["instance"]) == ("unknown", "unknown")
            assert "failing" not in verdicts.values()
            with socket.create_server((IP, port)) as listener:
                s.listener = listener
                s.register()
                await w.runs(2)  # as soon as it is ready, not a period later
                assert w.verdicts["instance"] == "ok"


async def test_a_drain_is_neither_disturbed_nor_looked_at() -> None:
    """A node hangs, so a check is always under way; the trigger ends it, and none comes until the lease is back."""
    async with stage() as s, second(s) as node:
        s.settings["NACOS_SERVER_ADDR"] = f"{s.double.url},{node.url}"
        async with serving(s, period=0.05, probe_within=0.0) as w:
            await w.runs(1)
            node.faults.set("hang", "core/state")
            w.preflight._known.versions.clear()
            w.preflight._bad = True
            w.preflight._news.set()
            await w.until(lambda: any(r.fault == "hang" for r in node.log))
            asking = w.preflight._asking
            assert asking is not None
            assert not asking.done()
            w.runner.trigger(Trigger.MANUAL)
            with pytest.raises(asyncio.CancelledError):
                await asking
            runs, asked = len(w.told), sum(r.fault == "hang" for r in node.log)
            await asyncio.sleep(0.5)  # ten periods
            assert w.runner.drain.state is State.DRAINING
            assert len(w.told) == runs
            assert sum(r.fault == "hang" for r in node.log) == asked
            node.faults.clear()
            assert w.runner.resume() is None
            await w.runs(runs + 1)
            assert w.verdicts["nodes"] == "ok"


async def test_nothing_to_do_is_checked_at_once() -> None:
    async with stage(registered=False) as s, actuator(s, properties={"registerEnabled": False}):
        for name in ("NACOS_SERVICE", "NACOS_IP", "NACOS_PORT"):
            s.settings[name] = ""
        async with serving(s, probe_within=100.0) as w:
            await w.runs(1)
            assert w.verdicts["identity"] == w.verdicts["instance"] == "ok"


# -- words -----------------------------------------------------------------------------------------------------------


def test_the_names_are_public() -> None:
    assert tuple(judge.__name__ for judge in JUDGES) == NAMES


def test_one_of_many_is_as_bad_as_the_worst() -> None:
    many = [Said(OK, f"fine {n}") for n in range(9)] + [Said(UNKNOWN, "dark", "light"), Said(WARNING, "odd", "look")]
    made = together("several", many)
    assert made == Check("several", UNKNOWN, "dark; odd; fine 0; fine 1; and 7 more", "light")
    assert together("several", [*many, Said(FAILING, "broken", "mend")]).verdict is FAILING
    assert listed(["a", "b", "a"]) == "a, b"
    assert len(check("long", OK, "x\n" * 5000).detail) <= 600


@pytest.mark.parametrize(
    ("version", "loses"),
    [
        ("1.4.8", False),
        ("2.0.0", True),
        ("2.2.4", True),
        ("2.4.9", True),
        ("2.5.0", False),
        ("2.x", True),
        ("3.1.0", False),
    ],
)
def test_which_servers_lose_a_threshold(version: str, loses: bool) -> None:
    assert loses_threshold(version) is loses


async def test_what_would_fail_is_not_promised_in_the_last_line() -> None:
    async with stage() as s:
        await s.doctor(NACOS_SERVICE="another")
        assert s.findings is not None
        said = outlook(judge(s.findings), s.findings)
        assert said.startswith("A drain now would be unproven (instance, see above), and release the app ")
