"""A small world on the loop's clock: Nacos nodes that lag and fail, and an app that lives and dies.

It knows the ports only, so it cannot cheat. What it does like the real Nacos is what the scenarios are about: a write
is visible on each node after its own lag, a record outlives its instance, a newborn on the same address inherits it.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from sidecar.drain import Rules
from sidecar.lease import App as Seen
from sidecar.lease import Life, Port, Release, Residue, Trigger
from sidecar.plan import fit
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Identity, Instance, Publisher, Record, Service
from sidecar.runner import Runner
from sidecar.settle import Rule
from sidecar.traffic import Listener, Reading, Socket
from sidecar.wire import Watched


SHOP = Instance(Service("shop"), "10.0.0.7", 8080)
LATENCY = 0.01
PUSH = 0.5
STICKY = 60.0
DEFAULTS, EVERYBODY = Rule(), Watched()


@dataclass
class Node:
    """One Nacos node: how late it is, and what is wrong with it."""

    lag: float = 0.0
    fault: str = ""  # hang, refuse, reject, unavailable
    on: str = ""  # only for this operation: read, look, write
    shows: dict[Instance, Record] = field(default_factory=dict)


class SimNacos:
    """A Registry over one truth and several late views of it."""

    one_address = False

    def __init__(self, **nodes: Node) -> None:
        self.named = nodes or {"a": Node()}
        self.records: dict[Instance, Record] = {}  # registered instances
        self.left: dict[Instance, Record] = {}  # overlays of instances that are gone
        self.marks: list[tuple[float, str, str]] = []
        self.trace: list[tuple[float, str]] = []
        self.downs: frozenset[str] = frozenset()
        self.holder = Publisher.GRPC
        self.aimed: tuple[str, ...] = ()

    # -- the world ---------------------------------------------------------------------------------

    def register(self, instance: Instance = SHOP, *, weight: float = 3.0, healthy: bool = True) -> None:
        """The app registers; within a minute of its going it inherits its old record."""
        old = self.left.pop(instance, None)
        record = Record(instance, weight=weight, healthy=healthy)
        self.records[instance] = record if old is None else replace(record, enabled=old.enabled, mark=old.mark)
        self._publish(instance)

    def deregister(self, instance: Instance = SHOP) -> None:
        """The app, or its closed connection, takes it away; an overlay stays for a minute."""
        record = self.records.pop(instance, None)
        if record is not None and (record.mark or not record.enabled):
            self.left[instance] = record
            self._loop.call_later(STICKY, self._expire, instance, record)
        self._publish(instance)

    def set_enabled(self, enabled: bool, instance: Instance = SHOP) -> None:
        """An operator's click in the console."""
        self.records[instance] = replace(self.records[instance], enabled=enabled)
        self._publish(instance)

    def listed(self, instance: Instance = SHOP) -> bool:
        """Whether any node shows it to consumers."""
        return any(instance in node.shows for node in self.named.values())

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _expire(self, instance: Instance, record: Record) -> None:
        if self.left.get(instance) is record:
            del self.left[instance]

    def _publish(self, instance: Instance) -> None:
        for node in self.named.values():
            self._loop.call_later(PUSH + node.lag, self._show, node, instance)

    def _show(self, node: Node, instance: Instance) -> None:
        record = self.records.get(instance)
        if record is not None and record.enabled:
            node.shows[instance] = record
        else:
            node.shows.pop(instance, None)

    # -- Registry ----------------------------------------------------------------------------------

    def nodes(self) -> tuple[tuple[str, bool], ...]:
        return tuple((name, True) for name in self.named)

    async def refresh(self) -> None:
        pass

    async def _call(self, name: str, op: str, what: str) -> Node:
        node = self.named[name]
        self.trace.append((round(self._loop.time() - self.began, 3), f"{what} {name}"))
        await asyncio.sleep(LATENCY)
        if node.fault and node.on in {"", op}:
            match node.fault:
                case "hang":
                    await asyncio.Event().wait()
                case "refuse":
                    raise Unavailable("cannot connect", refused=True)
                case "reject":
                    raise Rejected("403: not allowed")
                case _:
                    raise Unavailable("500: no leader")
        return node

    began = 0.0

    async def read(self, node: str, service: Service, addresses: Iterable[str], *, fresh: bool) -> tuple[Record, ...]:
        there = await self._call(node, "read", "read")
        return tuple(r for i, r in there.shows.items() if i.service == service and i.ip in addresses)

    async def look(self, node: str, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        await self._call(node, "look", "look")
        return tuple(r for i, r in self.records.items() if i.service == service and i.ip in addresses)

    async def _edit(self, node: str, what: str, instance: Instance, enabled: bool, weight: float, mark: str) -> None:
        await self._call(node, "write", what)
        if instance not in self.records:
            raise NotThere
        self.records[instance] = replace(self.records[instance], enabled=enabled, weight=weight, mark=mark)
        self._publish(instance)

    async def disable(self, node: str, instance: Instance, *, weight: float, mark: str) -> None:
        await self._edit(node, "disable", instance, enabled=False, weight=weight, mark=mark)

    async def enable(self, node: str, instance: Instance, *, weight: float) -> None:
        await self._edit(node, "enable", instance, enabled=True, weight=weight, mark="")

    async def sweep(self, node: str, instance: Instance, *, weight: float) -> None:
        await self._call(node, "write", "sweep")
        self.left.pop(instance, None)

    async def delete(self, node: str, instance: Instance) -> None:
        await self._call(node, "write", "delete")
        if self.holder is Publisher.BEAT:
            self.deregister(instance)

    async def publisher(self, node: str, instance: Instance) -> Publisher:
        return self.holder

    def aim(self, servers: Iterable[str]) -> None:
        self.aimed = tuple(servers)

    async def down(self) -> frozenset[str]:
        await asyncio.sleep(LATENCY)
        return self.downs

    async def close(self) -> None:
        pass


class SimDoor:
    """An app's own doors: its actuator, and the road that it opens. `manner` is what it does when it is asked."""

    def __init__(self, nacos: SimNacos, *instances: Instance, manner: str = "removes") -> None:
        self.nacos, self.instances, self.manner = nacos, instances or (SHOP,), manner
        self.calls: list[tuple[float, str]] = []
        self.health: bool | None = True
        self.slow_health = 0.0
        self.hangs = ""  # what is never answered: "offline", or "*" for all
        self.says: Identity | None = None
        self.stops = True
        self.app: SimApp | None = None

    async def _call(self, what: str) -> None:
        self.calls.append((round(asyncio.get_running_loop().time() - self.nacos.began, 3), what))
        await asyncio.sleep(LATENCY)
        if self.hangs == "*" or (self.hangs and what.startswith(self.hangs)):
            await asyncio.Event().wait()

    async def offline(self, road: str) -> None:
        await self._call(f"offline {road}")
        match self.manner:
            case "removes":
                for instance in self.instances:
                    self.nacos.deregister(instance)
            case "disables":
                for instance in self.instances:
                    self.nacos.set_enabled(False, instance)
            case "refuses":
                raise Rejected("the endpoint answers 404: expose it")
            case "breaks":
                raise Unavailable("the connection broke")
            case _:
                pass  # it answers, and does nothing

    async def online(self, road: str) -> None:
        await self._call(f"online {road}")
        for instance in self.instances:
            self.nacos.register(instance)

    async def identity(self, ports: frozenset[int]) -> Identity | None:
        await self._call("identity")
        return self.says

    async def healthy(self) -> bool | None:
        await self._call("health")
        await asyncio.sleep(self.slow_health)
        return self.health

    async def shutdown(self) -> None:
        await self._call("shutdown")
        if not self.stops:
            raise Rejected("the shutdown endpoint answers 404")
        assert self.app is not None
        self.app.exit()


class SimApp:
    """An App whose process may or may not be visible."""

    def __init__(self, *, visible: bool = True) -> None:
        self.visible = visible
        self.runs = 1
        self.ports = frozenset({8080})
        self.open = True
        self.alive = True
        self.hangs = False
        self.signals: list[tuple[float, str]] = []
        self.died = asyncio.Event()
        self.on_signal = self.exit

    @property
    def life(self) -> Life:
        pid = 100 + self.runs if self.visible else None
        return Life(frozenset({1000 + self.runs}), pid, float(self.runs) if pid else None)

    def close(self) -> None:
        """The port closes; the process is still there."""
        self.open = False

    def exit(self) -> None:
        self.open = self.alive = False
        self.died.set()

    def restart(self) -> None:
        """Another life on the same address."""
        self.runs += 1
        self.open = self.alive = True
        self.died = asyncio.Event()

    async def look(self, ports: frozenset[int]) -> Seen:
        if not self.open:
            return Seen(Port.CLOSED)
        return Seen(Port.OPEN, self.life, self.ports, 10.0 if self.visible else None)

    async def hung(self, ports: frozenset[int]) -> bool:
        await asyncio.sleep(1.0 if self.hangs else 0.0)
        return self.hangs

    async def exited(self, life: Life) -> None:
        if life == self.life and self.alive:
            await self.died.wait()

    async def signal(self, life: Life | None, *, kill: bool) -> None:
        self.signals.append((asyncio.get_running_loop().time(), "KILL" if kill else "TERM"))
        if kill:
            self.exit()
        else:
            self.on_signal()


@dataclass
class Caller:
    """Somebody who calls at a fixed rhythm from `start` to `end`; every answer comes `takes` seconds later."""

    peer: str
    every: float
    start: float = 0.0
    end: float = math.inf
    takes: float = 0.001
    lasts: float = 0.0  # how much longer its last answer takes
    kept: bool = True  # one connection for all requests, else one for each

    def requests(self, until: float) -> int:
        """How many were sent by now."""
        return max(0, math.floor((min(until, self.end) - self.start) / self.every + 1e-9) + 1)

    def answers(self, until: float) -> int:
        """How many were answered by now."""
        answered = self.requests(until - self.takes)
        return answered - (answered > 0 and until < self.answered_at(answered - 1))

    def answered_at(self, number: int) -> float:
        """When its nth request is answered."""
        last = self.end < math.inf and number == self.requests(self.end) - 1
        return self.sent_at(number) + self.takes + (self.lasts if last else 0.0)

    def sent_at(self, number: int) -> float:
        """When it sends its nth request; they count from 0."""
        return self.start + number * self.every


class SimTraffic:
    """A kernel's view of these callers. It keeps nothing: what a moment shows follows from the moment."""

    reason = ""

    def __init__(self, *callers: Caller, source: str = "netlink") -> None:
        self.source = source
        self.callers = list(callers)
        self.fails = False
        self.trouble = ""
        self.hidden = 0  # accepted connections that no reading shows
        self.read_at: list[float] = []

    async def detect(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def read(self) -> Reading:
        at = asyncio.get_running_loop().time()
        before = self.read_at[-1] if self.read_at else 0.0
        if self.fails:
            raise Unavailable("the kernel does not answer")
        self.read_at.append(at)
        shown: list[Socket] = []
        gone: list[Socket] = []
        opens = self.hidden
        for number, caller in enumerate(self.callers):
            sent = caller.requests(at)
            if caller.kept:
                answered = caller.answers(at)
                opens += 1
                spoke = caller.answered_at(answered - 1) if answered else 0.0
                heard = caller.sent_at(sent - 1) if sent else 0.0
                shown.append(self._socket(number, caller, sent, answered, heard, spoke))
                continue
            opens += sent
            for each in range(sent):
                heard, ended = caller.sent_at(each), caller.answered_at(each)
                id_ = 1_000_000 * (number + 1) + each
                if ended > at:
                    shown.append(self._socket(id_, caller, 1, 0, heard, heard))
                elif ended > before:
                    gone.append(self._socket(id_, caller, 1, 1, heard, ended))
        door = Listener("0.0.0.0", SHOP.port, 1001)
        return Reading(at, tuple(shown), tuple(gone), (door,), (opens, opens), trouble=self.trouble)

    def _socket(self, id_: int, caller: Caller, sent: int, answered: int, heard: float, spoke: float) -> Socket:
        received, answers = 200 * sent, 400 * answered
        return Socket(id_, SHOP.ip, SHOP.port, caller.peer, 40000, received, answers, sent, heard=heard, spoke=spoke)


def rules(
    grace: float = 120.0,
    *,
    app_stop: float | None = 10.0,
    cache: float = 35.0,
    kubernetes: bool = True,
    release: Release = Release.HOOK,
    residue: Residue = Residue.OURS,
    kill: bool = False,
    quiet: Rule = DEFAULTS,
    watched: Watched = EVERYBODY,
) -> Rules:
    """The settings of a scenario."""
    return Rules(
        fit(grace, app_stop, cache),
        (SHOP.service,),
        ports=frozenset({SHOP.port}),
        addresses=(SHOP.ip,),
        kubernetes=kubernetes,
        release=release,
        residue=residue,
        kill=kill,
        quiet=quiet,
        watched=watched,
    )


class World:
    """A runner among a SimNacos and a SimApp, with the clock set to zero at will."""

    def __init__(
        self,
        rules_: Rules,
        nacos: SimNacos,
        app: SimApp,
        door: SimDoor | None = None,
        traffic: SimTraffic | None = None,
    ) -> None:
        self.nacos, self.app = nacos, app
        if door is not None:
            door.app = app
        inside = {road.name: door for road in rules_.roads} if door is not None else {}
        self.runner = Runner(rules_, nacos, app, inside=inside, actuator=door, traffic=traffic, pod="pod-1")
        self.zero = 0.0

    def now(self) -> float:
        """Seconds since the last `mark_zero`, to the hundredth."""
        return round(asyncio.get_running_loop().time() - self.zero, 3)

    def mark_zero(self) -> None:
        self.zero = self.nacos.began = asyncio.get_running_loop().time()
        self.nacos.trace.clear()
        self.app.signals.clear()

    async def at(self, second: float) -> None:
        """Sleep on the virtual clock until this second."""
        await asyncio.sleep(self.zero + second - asyncio.get_running_loop().time())

    def report(self) -> dict[str, object]:
        told = self.runner.report()
        assert told is not None
        return told

    def phases(self) -> dict[str, str]:
        rows = self.report()["phases"]
        assert isinstance(rows, list)
        return {row["phase"]: row["outcome"] for row in rows}


WARM = 100.0  # a sidecar that has been idle for a while


@asynccontextmanager
async def world(
    rules_: Rules | None = None,
    nacos: SimNacos | None = None,
    app: SimApp | None = None,
    *,
    door: SimDoor | None = None,
    traffic: SimTraffic | None = None,
    registered: bool = True,
    warm: float = WARM,
) -> AsyncIterator[World]:
    nacos, app = nacos or SimNacos(), app or SimApp()
    if registered:
        nacos.register()
    made = World(rules_ or rules(), nacos, app, door, traffic)
    async with made.runner.running():
        await asyncio.sleep(warm)
        made.mark_zero()
        yield made


async def hook(w: World) -> float:
    """What a kubelet does; returns the second of the answer."""
    lease_id = w.runner.trigger(Trigger.HOOK)
    await w.runner.released(lease_id)
    return w.now()


async def ready(w: World, second: float) -> bool:
    await w.at(second)
    return w.runner.drain.ready
