"""Whole pods: a real app process, a real sidecar process, a kubelet that stops them, and a Nacos double of their own.

A scenario is a coroutine; test_pod.py runs them side by side, since a drain is mostly waiting. They share the machine's
network, which pods do not: each has an address and ports of its own.
"""

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from kubelet import Container, HttpGet, Pod

from sidecar.demo.double import Double, Overlay, Service


PROGRAM = Path(__file__).parents[1] / "programs" / "registered_app.py"
NODE = "127.0.0.2"  # where a kubelet calls from
KUBELET = {"User-Agent": "kube-lifecycle/1.32"}
SHOP = Service("shop")
PUSH = 0.1  # seconds that the double's lists are late
SLACK = 4.0  # seconds that a busy machine may cost
SHORT, LONG = 7, 30  # grace periods: one whose budget is a proof and little more, one that has the whole SETTLE
APP_STOP = 1
BUDGET = SHORT - APP_STOP - 3
CAP = 5  # of SETTLE, with CONSUMER_CACHE=0; these sidecars are too young to know their callers, and wait for it

_numbers = itertools.count(1)
_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on at any address: a sidecar tells its app by the port alone."""
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in _ports:
            _ports.add(port)
            return port


@dataclass
class Scene:
    """One pod, and what a test asks about it."""

    double: Double
    http: aiohttp.ClientSession
    kubelet: aiohttp.ClientSession
    ip: str
    app_port: int
    port: int
    voice: tuple[str, str] = ("sidecar", "stdout")  # the container that tells of drains, and where
    pod: Pod = field(init=False)

    # -- the sidecar -----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the sidecar listens; from here a test is exact loopback."""
        return f"http://{self.ip}:{self.port}"

    async def ask(self, method: str, path: str, token: str = "", *, node: bool = False) -> tuple[int, Any]:
        """One request from 127.0.0.1, or from where kubelets call; JSON is parsed."""
        headers = {"X-Drain-Token": token} if token else {}
        client = self.kubelet if node else self.http
        async with client.request(method, self.url + path, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def hook(self, token: str = "") -> tuple[int, Any]:
        """A hook of which, unlike a kubelet, we read the answer."""
        return await self.ask("GET", "/drain", token, node=True)

    async def metrics(self) -> str:
        """What /metrics says."""
        _, text = await self.ask("GET", "/metrics")
        return str(text)

    async def status(self) -> dict[str, Any]:
        """What /status says."""
        code, body = await self.ask("GET", "/status")
        assert code == 200
        assert isinstance(body, dict)
        return body

    async def report(self) -> dict[str, Any]:
        """The newest report."""
        report = (await self.status())["report"]
        assert isinstance(report, dict)
        return report

    async def until_app_seen(self) -> None:
        """Wait until the sidecar has looked at the app; idle it does so every 5 s."""
        async with asyncio.timeout(15):
            while (await self.status())["app"]["port"] != "open":  # noqa: ASYNC110  another process
                await asyncio.sleep(0.1)

    async def until_state(self, state: str, within: float = 10.0) -> None:
        """Wait until the lease is in this state."""
        async with asyncio.timeout(within):
            while (await self.status())["state"] != state:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.05)

    # -- what it said ----------------------------------------------------------------------------------------------

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged; each line has to be JSON, and a sidecar writes nothing to stderr."""
        container, stream = self.voice
        complaints = self.pod.timeline.text("sidecar", "stderr")
        assert complaints == "", complaints
        return [json.loads(line) for line in self.pod.timeline.text(container, stream).splitlines()]

    @property
    def events(self) -> list[str]:
        """The names of the logged events of drains."""
        return [line["event"] for line in self.log if line["event"].startswith("drain.")]

    def told(self, event: str, nth: int = -1) -> dict[str, Any]:
        """The nth log line of an event, the last one by default."""
        found = [line for line in self.log if line["event"] == event]
        assert found, f"no {event} in\n{self.pod.timeline}"
        return found[nth]

    async def said(self, event: str, *, nth: int = 0, within: float = 20.0) -> float:
        """Wait until an event is logged; the seconds from T0 to it."""
        container, _ = self.voice
        return (await self.pod.timeline.printed(container, f'"event": "{event}"', nth=nth, within=within)).seconds

    # -- Nacos -----------------------------------------------------------------------------------------------------

    @property
    def listed(self) -> bool:
        """Whether a consumer would be told this instance."""
        return any((x.ip, x.port) == (self.ip, self.app_port) and x.enabled for x in self.double.view.hosts(SHOP))

    @property
    def record(self) -> Overlay | None:
        """What was written over the instance, if anything is left of it."""
        return self.double.naming.record(SHOP, self.ip, self.app_port)

    @property
    def mark(self) -> str:
        """Our mark in the record."""
        return str(self.record.metadata.get("nacos-drain", "")) if self.record else ""

    @property
    def disabled(self) -> bool:
        """Whether the record says enabled=false."""
        return self.record is not None and not self.record.enabled

    async def until(self, what: str, within: float = 8.0) -> None:
        """Wait until `listed`, `unlisted`, `disabled` or `enabled`."""
        wanted = not what.startswith("un") and what != "enabled"
        name = {"unlisted": "listed", "enabled": "disabled"}.get(what, what)
        try:
            async with asyncio.timeout(within):
                while getattr(self, name) is not wanted:  # noqa: ASYNC110  a push nobody announces
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not {what} within {within} s:\n{self.pod.timeline}") from None


def assert_about(seconds: float, expected: float, *, early: float = 0.1) -> None:
    """Assert a time that is hardly ever early, and late only by what a busy machine costs."""
    assert expected - early <= seconds <= expected + SLACK


async def command(*arguments: str, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Run `nacos-drain` beside the pods: its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *arguments),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def settings(scene: Scene, more: Mapping[str, str], *, kubernetes: bool) -> dict[str, str]:
    """The sidecar's environment; an empty value takes a default away."""
    ours = {
        "NACOS_SERVICE": "shop",
        "NACOS_IP": scene.ip,
        "NACOS_PORT": str(scene.app_port),
        "NODE_IP": NODE,
        "NACOS_USERNAME": "nacos",
        "NACOS_PASSWORD": "nacos",
        "LISTEN": f"{scene.ip}:{scene.port}",
        "CONSUMER_CACHE": "0",
        "APP_STOP": str(APP_STOP),
        **more,
    }
    own = {f"NACOS_DRAIN_{name}": value for name, value in ours.items() if value}
    return {**own, "KUBERNETES_SERVICE_HOST": "10.0.0.1"} if kubernetes else own


@asynccontextmanager
async def opening(double: Double | None = None, **about: Any) -> AsyncIterator[Scene]:
    """A scene before its pod: a Nacos, a place on the network, and who asks; `about` are fields of it."""
    number = next(_numbers)
    nacos = double or Double("3.1", push_delay=PUSH)
    ip = f"127.77.{number // 250}.{number % 250 + 1}"
    await nacos.start()
    try:
        node = aiohttp.TCPConnector(local_addr=(NODE, 0))
        async with aiohttp.ClientSession() as http, aiohttp.ClientSession(connector=node, headers=KUBELET) as kubelet:
            yield Scene(nacos, http, kubelet, ip, free_port(), free_port(), **about)
    finally:
        await nacos.stop()


@asynccontextmanager
async def scene(
    env: Mapping[str, str] | None = None,
    *,
    double: Double | None = None,
    app: tuple[str, ...] = (),
    hook: str | None = "/drain",
    headers: Mapping[str, str] | None = None,
    native: bool = False,
    grace: int = SHORT,
    old_kubelet: bool = False,
    registered: bool = True,
    ready: bool = True,
    kubernetes: bool = True,
    restart: bool = True,
    prepare: Callable[[Scene], object] = lambda _: None,
    context_path: str = "/nacos",
) -> AsyncIterator[Scene]:
    """A running pod; `env` are settings without their prefix, `app` more options of the app."""
    async with opening(double) as made:
        publish = ("--nacos", made.double.address) if registered else ()
        program = (sys.executable, "-I", "-S", str(PROGRAM), "--listen", f"{made.ip}:{made.app_port}", *publish, *app)
        target = None if hook is None else HttpGet(hook, made.port, headers or {})
        probe = HttpGet("/livez", made.port)
        where = {"NACOS_SERVER_ADDR": f"http://{made.double.address}{context_path}", "GRACE_PERIOD": str(grace)}
        environ = settings(made, {**where, **(env or {})}, kubernetes=kubernetes)
        serve = (sys.executable, "-m", "sidecar", "serve")
        made.pod = pod = Pod(
            Container("app", program, pre_stop=target),
            Container("sidecar", serve, environ, native_sidecar=native, startup_probe=probe),
            ip=made.ip,
            node_ip=NODE,
            termination_grace_period_seconds=grace,
            old_kubelet=old_kubelet,
            restart_policy="Always" if restart else "Never",
        )
        prepare(made)
        async with pod:
            await pod.timeline.printed("app", "registered" if registered else "listening")
            if ready:
                await made.said("registry.ready")
            yield made
