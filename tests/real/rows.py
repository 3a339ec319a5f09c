"""The fault table: one drain per row, by a real sidecar on a real Nacos, watched by somebody who is not us.

A row is a coroutine over a `Case`. What the sidecar says of its drain goes into `docs/faults.md`, and only after the
watcher has agreed: it reads every node's list by itself, and has its pushes, from the trigger to the end.

Rows of one server run at the same time, under names and addresses of their own.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import aiohttp
from contract.actuators import ScriptedApp, scripted_app
from rig.clients import BeatApp, GrpcApp, PersistentApp, Subscriber
from rig.cluster import NacosCluster
from rig.openapi import Observer, Operator, Witness
from rig.records import Host, Instance
from rig.servers import NacosServer
from stage import Stage


Kind = Literal["gRPC", "HTTP beat", "persistent", "gRPC batch", "scripted app"]
OUT = Path(__file__).parents[2] / ".rig" / "faults"
KUBELET = {"User-Agent": "kube-lifecycle/1.32"}
LISTENER = (
    "import socket,time; s=socket.create_server(('{ip}', {port})); print('listening', flush=True); time.sleep(900)"
)
MARK = "nacos-drain"
MARKED, NOTHING = "disabled, marked as ours", "nothing: the next app is listed at once"

AT_ONCE = 12  # rows; each starts two processes

_numbers = itertools.count(1)


def free_port() -> int:
    """Free at every address: a sidecar tells its app by the port alone, and here all pods share one network."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    kind: str
    server: str
    road: str
    proved: float | None  # seconds from the trigger to the proof; None: never
    released: float  # seconds from the trigger to the answer of the hook
    outcome: str
    left: str  # what was left behind, as the watcher read it

    @property
    def key(self) -> str:
        """Which line it is."""
        return f"{self.fault} | {self.kind} | {self.server}"

    def save(self) -> None:
        """Keep it for the table."""
        OUT.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in self.key)
        (OUT / f"{name}.json").write_text(json.dumps(asdict(self), indent=1))


@dataclass
class Yard:
    """A server or a cluster, and what the rows on it share: a client process costs a second of a core."""

    server: NacosServer | NacosCluster
    registrar: GrpcApp
    subscriber: Subscriber
    witness: Witness
    observer: Observer
    operator: Operator

    @property
    def nodes(self) -> Sequence[NacosServer]:
        """All of them."""
        return self.server.nodes if isinstance(self.server, NacosCluster) else (self.server,)

    @property
    def address(self) -> str:
        """Of its first, or only, node."""
        return self.nodes[0].address

    @property
    def name(self) -> str:
        """As the table calls it."""
        return f"{self.server.version}{' x 3' if isinstance(self.server, NacosCluster) else ''}"


@asynccontextmanager
async def yard(server: NacosServer | NacosCluster, *, home: NacosServer | None = None) -> AsyncIterator[Yard]:
    """Everything at one server; of a cluster the registrar and the subscriber are at `home`."""
    nodes = server.nodes if isinstance(server, NacosCluster) else (server,)
    at = home or nodes[0]
    async with AsyncExitStack() as stack:
        registrar, subscriber = GrpcApp(at), Subscriber(at)
        await asyncio.gather(stack.enter_async_context(registrar), stack.enter_async_context(subscriber))
        witness = await stack.enter_async_context(Witness(nodes))
        observer = await stack.enter_async_context(Observer(at))
        operator = await stack.enter_async_context(Operator(at))
        yield Yard(server, registrar, subscriber, witness, observer, operator)


@dataclass
class Seen:
    """One look of the watcher."""

    at: float
    listed: dict[str, bool | None]


@dataclass
class Case:
    """One app, its sidecar, and the watcher."""

    yard: Yard
    kind: Kind
    instance: Instance
    port: int  # where the app listens
    drain_port: int
    http: aiohttp.ClientSession
    stack: AsyncExitStack
    env: dict[str, str] = field(default_factory=dict)
    app: asyncio.subprocess.Process | None = None
    sidecar: asyncio.subprocess.Process | None = None
    registered: Any = None
    started: float = 0.0
    hook: asyncio.Task[dict[str, Any]] | None = None
    answered: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    second_life: bool = False
    finished: float = 0.0  # when the final report was read
    expects_return: bool = False  # the row itself brings the instance back while it is out

    # -- the app -------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """The app's container starts: it listens."""
        program = LISTENER.format(ip=self.instance.ip, port=self.port)
        self.app = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c", program), stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert self.app.stdout is not None
        assert await self.app.stdout.readline() == b"listening\n"

    async def register(self) -> None:
        """The app registers, as its kind does."""
        match self.kind:
            case "gRPC":
                await self.yard.registrar.register(self.instance)
            case "gRPC batch":
                other = replace(self.instance, port=1)
                await self.yard.registrar.register_batch(self.instance, other)
            case "persistent" if self.registered is not None:
                await self.registered.register()
            case "HTTP beat" | "persistent":
                made = BeatApp if self.kind == "HTTP beat" else PersistentApp
                node = self.yard.nodes[0]
                self.registered = await self.stack.enter_async_context(made(node, self.instance))
            case "scripted app":  # the first run does so itself; its successor is played by the shared client
                await self.yard.registrar.register(self.instance)

    async def unregister(self) -> None:
        """The app's end takes its registration along, but not a persistent one."""
        match self.kind:
            case "scripted app" if not self.second_life:
                pass  # its connection ends with its process
            case "gRPC" | "gRPC batch" | "scripted app":
                await self.yard.registrar.deregister(self.instance)
            case "HTTP beat":
                await self.registered.deregister()
            case _:
                pass

    async def exit(self) -> None:
        """The app's process ends, and so does what it registered."""
        assert self.app is not None
        with contextlib.suppress(ProcessLookupError):
            self.app.kill()
        await self.app.wait()
        await self.unregister()

    async def start_scripted(self, generation: str, **options: Any) -> ScriptedApp:
        """The app's container is one with an actuator, which registers by itself."""
        node = self.yard.nodes[0]
        made = await self.stack.enter_async_context(scripted_app(nacos=node, generation=generation, **options))
        self.instance, self.port, self.app = made.instance, made.port, made.process
        await self.yard.subscriber.subscribe(self.instance.service)
        await self.serve(ACTUATOR_URL=made.url)
        await self.ready()
        return made

    # -- the sidecar ---------------------------------------------------------------------------------------------------

    async def serve(self, **env: str) -> None:
        """A sidecar starts beside the app."""
        server = self.yard.server
        addresses = server.addresses if isinstance(server, NacosCluster) else server.address
        names = {
            "NACOS_SERVER_ADDR": addresses,
            "NACOS_SERVICE": self.instance.service,
            "NACOS_IP": self.instance.ip,
            "NACOS_PORT": str(self.instance.port),
            "NACOS_USERNAME": server.username or "",
            "NACOS_PASSWORD": server.password or "",
            "APP_PORTS": str(self.port),
            "LISTEN": f"{self.instance.ip}:{self.drain_port}",
            "GRACE_PERIOD": "40",
            "APP_STOP": "2",
            "CONSUMER_CACHE": "0",
            "LOG_FORMAT": "json",
            **self.env,
            **env,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NACOS_DRAIN_")}
        kubernetes = {} if names.pop("KUBERNETES", "") else {"KUBERNETES_SERVICE_HOST": "test"}
        ours = {f"NACOS_DRAIN_{name}": value for name, value in names.items() if value}
        self.sidecar = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "serve"),
            env={**inherited, **kubernetes, **ours},
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=1 << 20,
        )
        reading = asyncio.create_task(self._read(self.sidecar))
        self.stack.callback(reading.cancel)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(json.loads(line))

    async def kill_sidecar(self) -> None:
        """The sidecar dies without a word."""
        assert self.sidecar is not None
        with contextlib.suppress(ProcessLookupError):
            self.sidecar.kill()
        await self.sidecar.wait()

    def url(self, path: str) -> str:
        """Where the sidecar listens."""
        return f"http://{self.instance.ip}:{self.drain_port}{path}"

    async def status(self) -> dict[str, Any]:
        """What it says of itself."""
        async with self.http.get(self.url("/status")) as answer:
            told: dict[str, Any] = await answer.json()
            return told

    async def ready(self) -> None:
        """The sidecar has seen the instance."""
        await self.until(self._is_ready, "the sidecar is ready", within=30)

    async def _is_ready(self) -> bool:
        async with self.http.get(self.url("/readyz")) as answer:
            return answer.status == 200

    async def until(self, true: Callable[[], Awaitable[bool]], what: str, within: float = 15.0) -> None:
        """Wait for something in another process."""
        try:
            async with asyncio.timeout(within):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        if await true():
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.instance}: waited {within} s until {what}\n{self.told()}") from None

    def told(self) -> str:
        """The sidecar's log, for a failure."""
        return "\n".join(json.dumps(line)[:400] for line in self.log[-40:])

    async def start(self, **env: str) -> None:
        """The usual beginning: an app that listens and is listed, and a sidecar that has seen it."""
        await self.listen()
        await self.register()
        await self.serve(**env)
        await self.ready()

    async def answers(self) -> bool:
        """The sidecar answers at all."""
        async with self.http.get(self.url("/livez")) as answer:
            return answer.status == 200

    async def sees_app(self) -> bool:
        """The sidecar has looked at the app."""
        return bool((await self.status())["app"]["port"] == "open")

    async def is_verified(self) -> bool:
        """The sidecar says that it is proved."""
        report = (await self.status())["report"]
        return bool(report and report["proved_gone"])

    async def is_draining(self) -> bool:
        """The sidecar has taken the trigger."""
        return bool((await self.status())["state"] == "draining")

    async def is_out(self) -> bool:
        """No consumer is shown the instance."""
        return not await self.yard.observer.is_listed(self.instance)

    async def weighs_nine(self) -> bool:
        """The record has the weight that the operator gave it."""
        record = await self.record()
        return record is not None and record.weight == 9.0

    async def is_unhealthy(self) -> bool:
        """Nacos has missed beats."""
        record = await self.record()
        return record is not None and not record.healthy

    async def fill(self) -> None:
        """Connect until the app's queue is full: a stopped process still has its kernel accept for it."""
        loop = asyncio.get_running_loop()
        while True:
            connection = socket.socket()
            connection.setblocking(False)
            self.stack.callback(connection.close)
            try:
                async with asyncio.timeout(0.3):
                    await loop.sock_connect(connection, (self.instance.ip, self.port))
            except TimeoutError:
                return

    # -- the drain -----------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """The drain begins now, and the watcher begins to look."""
        self.started = asyncio.get_running_loop().time()
        watching = asyncio.create_task(self._watch())
        self.stack.callback(watching.cancel)

    def trigger(self) -> None:
        """A kubelet calls the hook."""
        self.watch()
        self.hook = asyncio.create_task(self._hook())
        self.hook.add_done_callback(lambda hook: hook.cancelled() or hook.exception())  # a row may kill the sidecar

    async def _hook(self) -> dict[str, Any]:
        async with self.http.get(self.url("/drain"), headers=KUBELET) as answer:
            told: dict[str, Any] = await answer.json()
        self.answered = asyncio.get_running_loop().time()
        return told

    async def _watch(self) -> None:
        while True:
            listed = await self.yard.witness.listed(self.instance)
            self.seen.append(Seen(asyncio.get_running_loop().time(), listed))
            await asyncio.sleep(0.1)

    async def released(self, within: float = 60.0) -> dict[str, Any]:
        """The hook's answer."""
        assert self.hook is not None
        async with asyncio.timeout(within):
            return await self.hook

    async def final(self, within: float = 60.0) -> dict[str, Any]:
        """The whole story, once it is known."""
        told: dict[str, Any] = {}

        async def final() -> bool:
            told.update((await self.status())["report"])
            return bool(told["final"])

        await self.until(final, "the report is final", within)
        self.finished = asyncio.get_running_loop().time()
        return told

    async def drained(self) -> dict[str, Any]:
        """The usual story: the hook, its answer, the app's end, the final report."""
        self.trigger()
        await self.released()
        await self.exit()
        return await self.final()

    # -- the watcher ---------------------------------------------------------------------------------------------------

    def agree(self, told: dict[str, Any], *, until: float | None = None) -> float | None:
        """Check every claim of the report with what the watcher saw; returns the seconds to the proof."""
        phases = {phase["phase"]: phase for phase in told["phases"]}
        met = phases.get("VERIFY", {}).get("outcome") == "met"
        proved = phases["DEREGISTER"]["seconds"] + phases["VERIFY"]["seconds"] if met else None
        end = until if until is not None else (self.finished or self.answered)
        since = self.started + (proved or 0.0) + 0.05  # its last reading, and ours, are answered a little later
        if told["proved_gone"] and proved is not None and not self.expects_return:
            wrong = [look for look in self.seen if since < look.at < end and True in look.listed.values()]
            assert not wrong, f"said to be gone {proved} s after the trigger, but listed: {wrong[:3]}\n{self.told()}"
            watched = [look for look in self.seen if since < look.at < end and False in look.listed.values()]
            assert watched or end - since < 0.5, f"nobody watched from {since} to {end}"
            newest = [push for push in self.yard.subscriber.pushes if push.service.endswith(self.instance.service)]
            assert newest, "the subscriber was never told of the service"
            told_last = [push for push in newest if push.at <= end][-1]
            assert self.instance.address not in told_last.addresses, f"its consumers were told otherwise: {told_last}"
        for row in told["instances"] if until is None else ():  # else the last reading is older than our last look
            for node in row["nodes"]:
                if node["view"] == "listed":
                    assert self.seen[-1].listed.get(node["node"]) is not False
        return proved

    async def record(self) -> Host | None:
        """What the registry holds of the instance."""
        return await self.yard.observer.record(self.instance)

    async def successor(self, within: float = 3.0) -> str:
        """What the next app on this address meets, when no sidecar helps it."""
        await self.kill_sidecar()
        if self.kind == "persistent":
            record = await self.record()
            return describe(record)
        await self.yard.registrar.register(self.instance)
        try:
            await self.yard.observer.until(self.instance, listed=True, within=within)
        except AssertionError:
            return f"the next app is not listed: {describe(await self.record())}"
        finally:
            await self.yard.registrar.deregister(self.instance)
        return NOTHING


def describe(record: Host | None) -> str:
    """A record in the words of the table."""
    if record is None:
        return "nothing"
    mark = record.metadata.get(MARK)
    state = "enabled" if record.enabled else "disabled"
    return f"{state}, {'marked as ours' if mark else 'unmarked'}"


@asynccontextmanager
async def case(yard_: Yard, kind: Kind, **env: str) -> AsyncIterator[Case]:
    """A case yet to start, with names that no other has."""
    ip = f"127.0.40.{next(_numbers)}"
    instance = Instance(f"fault-{uuid4().hex[:8]}", free_port(), ip=ip, weight=3.0)
    async with AsyncExitStack() as stack:
        local = aiohttp.TCPConnector(local_addr=("127.0.0.1", 0))  # who may do everything without a token
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=local))
        await yard_.subscriber.subscribe(instance.service)
        # Nacos connects to a persistent instance, so that one has a listener of its own
        port = free_port() if kind == "persistent" else instance.port
        made = Case(yard_, kind, instance, port, free_port(), http, stack, env=env)
        try:
            yield made
        finally:
            for process in (made.sidecar, made.app):
                if process is not None and process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()


# -- running them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What a scenario found out."""

    report: dict[str, Any]
    left: str
    proved: float | None

    @property
    def road(self) -> str | None:
        """By which road the first instance went."""
        taken: str | None = self.report["instances"][0]["road"]
        return taken


Scenario = Callable[[Case], Awaitable[Told]]


@dataclass(frozen=True)
class Fault:
    """A scenario, and where it is played."""

    name: str  # as the table says it
    kinds: tuple[Kind, ...]
    scenario: Scenario
    servers: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    soak: bool = False  # takes its time


FAULTS: list[Fault] = []
BOTH = ("2.2.4", "3.1.0")


def fault(
    name: str, *kinds: Kind, servers: tuple[str, ...] = BOTH, soak: bool = False, **env: str
) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into the table; `env` are settings of its sidecar without their prefix."""

    def enter(scenario: Scenario) -> Scenario:
        FAULTS.append(Fault(name, kinds or ("gRPC",), scenario, servers, tuple(env.items()), soak))
        return scenario

    return enter


def save(name: str, c: Case, told: Told) -> None:
    """Keep a row for the table. What would disable the next app for good is no row but a failure."""
    assert "next app is not listed" not in told.left, f"{name}: {told.left}\n{c.told()}"
    roads = {row["road"] or "none" for row in told.report["instances"]} or {"none"}
    proved = None if told.proved is None else round(told.proved, 1)
    released = round(c.answered - c.started, 1)
    outcome = told.report["outcome"]
    Row(name, c.kind, c.yard.name, ", ".join(sorted(roads)), proved, released, outcome, told.left).save()


def staged(yard_: Yard, rows: Sequence[tuple[Fault, Kind]], at_once: int = AT_ONCE) -> Stage[tuple[str, Kind], None]:
    """A stage for rows of one yard."""

    async def play(fault_: Fault, kind: Kind) -> None:
        async with case(yard_, kind, **dict(fault_.env)) as made:
            save(fault_.name, made, await fault_.scenario(made))

    return Stage({(each.name, kind): partial(play, each, kind) for each, kind in rows}, at_once)
