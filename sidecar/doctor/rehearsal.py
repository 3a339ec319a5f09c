"""Asks everything once, each question within its own time and all together within a bound, and changes nothing.

What belongs to the drain is decided by the drain: the answers are told to a `Drain` as the runner tells them, and the
rehearsed trigger is a step of the same machine. So the instances, their roads and the plan are those of the real one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from sidecar import wishes
from sidecar.drain import Drain, Rules
from sidecar.lease import Lease, Residue, State, Trigger
from sidecar.ports import Answering, App, Exposing, NotThere, Rehearsing, Traffic
from sidecar.registration import Instance, Publisher, Service
from sidecar.settings import Loaded
from sidecar.settle import Settle

from . import doors, nacos, pod, registered
from .asking import of_any, of_each, plain, within
from .checks import Check
from .findings import Findings, Sight, Trouble, View


# Seconds. One behind the other they stay below WHOLE, and the program's start below the 15 s that are promised.
APP, IDENTITY, VERSION, LOGIN, MEMBERS, READ, HOLDER, DOOR, SIGHT = 1.5, 2.5, 2.0, 1.6, 2.2, 2.5, 1.0, 3.0, 2.0
WHOLE = 13.5
MOST_ASKED = 20  # instances whose holder is asked for: a pod may hold hundreds

JUDGES: tuple[Callable[[Findings], Check], ...] = (
    pod.plan,
    nacos.nodes,
    nacos.login,
    registered.identity,
    registered.instance,
    nacos.permission,
    pod.app,
    pod.traffic,
    doors.actuator,
    doors.dubbo,
    pod.release,
    nacos.protect_threshold,
    pod.door,
    pod.push,
)


class Parts(Protocol):
    """What is examined."""

    @property
    def rules(self) -> Rules:
        """What the settings decide."""

    @property
    def registry(self) -> Rehearsing:
        """Nacos."""

    @property
    def app(self) -> App:
        """The app."""

    @property
    def actuator(self) -> Exposing | None:
        """Its actuator."""

    @property
    def dubbo(self) -> Answering | None:
        """Its QoS port."""

    @property
    def traffic(self) -> Traffic:
        """The connections of its callers."""


@dataclass
class Known:
    """What does not have to be asked twice in one life of a sidecar."""

    versions: dict[str, str] = field(default_factory=dict)
    services: dict[Service, float] = field(default_factory=dict)
    permitted: bool = False


def judge(findings: Findings) -> tuple[Check, ...]:
    """Every check, in the order in which they depend on one another."""
    return tuple(each(findings) for each in JUDGES)


async def rehearse(parts: Parts, loaded: Loaded) -> Findings:
    """Ask everything, as a process of its own that knows nothing yet."""
    return await _Rehearsal(parts, loaded, Known(), None).findings(probe=True)


async def examine(parts: Parts, loaded: Loaded, drain: Drain, known: Known, *, probe: bool) -> Findings:
    """Ask what a sidecar that knows its instance does not know anyway; `probe`: also whether we may write."""
    return await _Rehearsal(parts, loaded, known, drain).findings(probe=probe)


class _Rehearsal:
    """One run."""

    def __init__(self, parts: Parts, loaded: Loaded, known: Known, drain: Drain | None) -> None:
        self._parts = parts
        self._known = known
        self._now = asyncio.get_running_loop().time()
        self._alone = drain is None
        registry, rules = parts.registry, parts.rules
        fresh = Drain(replace(rules, residue=Residue.NEVER), self._now, Settle(since=self._now), nodes=registry.nodes())
        self._found = Findings(loaded, drain if drain is not None else fresh, None)

    async def findings(self, *, probe: bool) -> Findings:
        """Run; what has not come to an end by then was not asked."""
        try:
            async with asyncio.timeout(WHOLE):
                await self._run(probe=probe)
        except TimeoutError:
            pass
        return replace(self._found, lease=self._lease())

    async def _run(self, *, probe: bool) -> None:
        early = asyncio.create_task(self._versions()) if self._parts.registry.nodes() else None
        try:
            if self._alone:
                await self._meet()
            self._note(lease=self._lease())
            async with asyncio.TaskGroup() as group:
                group.create_task(self._doors())
                group.create_task(self._nacos(early, probe=probe))
        finally:
            if early is not None:
                early.cancel()
                await asyncio.gather(early, return_exceptions=True)

    def _note(self, **changes: object) -> None:
        self._found = replace(self._found, **changes)  # type: ignore[arg-type]  # mypy knows no **kwargs of replace

    def _tell(self, event: wishes.Event) -> None:
        self._note(drain=self._found.drain.step(event, self._now))

    def _lease(self) -> Lease | None:
        """The drain that a hook would start now."""
        drain, registry = self._found.drain, self._parts.registry
        if drain.state is not State.ARMED:
            return None
        hook = wishes.Triggered(Trigger.HOOK, "rehearsal", "rehearsal", registry.nodes(), registry.one_address)
        return drain.step(hook, self._now).lease

    # -- the app -----------------------------------------------------------------------------------------------------

    async def _meet(self) -> None:
        """Look at the app, and hear from it who it is."""
        ports = self._found.drain.app_ports
        await self._peek(ports)
        actuator = self._parts.actuator
        if actuator is None or not self._parts.rules.actuator:
            return
        identify = wishes.Identify(self._found.drain.app.ports, 0)
        identity = await within(IDENTITY, actuator.identity, identify.ports)
        if isinstance(identity, Trouble):
            self._tell(wishes.Failed(identify, identity.text))
            return
        if identity is not None and identity.servers:
            self._parts.registry.aim(identity.servers)
        self._tell(wishes.Identified(identify, identity))
        if self._found.drain.app_ports != ports:
            await self._peek(self._found.drain.app_ports)

    async def _peek(self, ports: frozenset[int]) -> None:
        peek = wishes.Peek(ports, 0)
        seen = await within(APP, self._parts.app.look, ports)
        self._tell(wishes.Failed(peek, seen.text) if isinstance(seen, Trouble) else wishes.Peeked(peek, seen))

    async def _doors(self) -> None:
        """What can be told without Nacos: by the app's own doors, and by the kernel."""
        await asyncio.gather(self._exposed(), self._qos(), self._sight())

    async def _exposed(self) -> None:
        actuator = self._parts.actuator
        if actuator is not None and self._parts.rules.actuator:
            self._note(exposed=await within(DOOR, actuator.exposed))

    async def _qos(self) -> None:
        if self._parts.dubbo is not None:
            told = await within(DOOR, self._parts.dubbo.answers)
            self._note(dubbo=told if isinstance(told, Trouble) else True)

    async def _sight(self) -> None:
        """How callers are seen. A sidecar has begun with that question, so its answer stands."""
        traffic = self._parts.traffic
        told = await within(SIGHT, traffic.detect) if self._alone else None
        self._note(traffic=told if isinstance(told, Trouble) else Sight(traffic.source, traffic.reason))

    # -- Nacos -------------------------------------------------------------------------------------------------------

    async def _nacos(self, early: asyncio.Task[None] | None, *, probe: bool) -> None:
        await (early if early is not None else self._versions())
        answering = self._found.answering
        if answering:
            logins = await of_each(answering, lambda node: within(LOGIN, self._parts.registry.login, node))
            self._note(logins=logins)
            if self._alone:
                await within(MEMBERS, self._parts.registry.refresh)
            await self._versions()
        if any(isinstance(told, Trouble) for told in self._found.versions.values()) and self._found.answering:
            down = await within(MEMBERS, self._parts.registry.down)
            self._note(down=frozenset() if isinstance(down, Trouble) else down)
        registry = self._parts.registry
        self._note(nodes=registry.nodes(), one_address=registry.one_address)
        if self._found.answering:
            if self._alone:
                await self._views()
            self._note(lease=self._lease())
            await asyncio.gather(self._holders(), self._thresholds(), self._permission(probe=probe))

    async def _versions(self) -> None:
        """Ask the nodes that have not told theirs."""
        nodes = self._parts.registry.nodes()
        told: dict[str, str | Trouble] = {
            name: self._known.versions[name] for name, _ in nodes if name in self._known.versions
        }
        asked = [name for name, _ in nodes if name not in told and name not in self._found.versions]
        told |= await of_each(asked, lambda node: within(VERSION, self._parts.registry.server, node))
        told = {name: version if isinstance(version, Trouble) else plain(version) for name, version in told.items()}
        self._known.versions |= {name: version for name, version in told.items() if isinstance(version, str)}
        self._note(nodes=nodes, versions={**self._found.versions, **told}, one_address=self._parts.registry.one_address)

    async def _views(self) -> None:
        """What each node shows its consumers, and where that is nothing of ours, what it holds."""
        keys = [(node, service) for node in self._found.answering for service in self._found.drain.services]
        views = await of_each(keys, lambda key: within(READ, self._view, *key))
        self._note(views=views)
        nodes = self._parts.registry.nodes()
        told = [(key, view) for key, view in views.items() if isinstance(view, View)]
        for (node, service), view in sorted(told, key=lambda row: row[1].listed):  # who lists it has the last word
            self._tell(wishes.Surveyed(wishes.Survey(service, 0), view.records, node, view.listed, nodes))
        failed = [view.text for view in views.values() if isinstance(view, Trouble)]
        if failed and not told:
            self._tell(wishes.Failed(wishes.Survey(keys[0][1], 0), failed[0]))

    async def _view(self, node: str, service: Service) -> View:
        registry, drain = self._parts.registry, self._found.drain
        records = await registry.read(node, service, drain.addresses, fresh=False)
        if drain.claim(records):
            return View(records, listed=True)
        return View(await registry.look(node, service, drain.addresses), listed=False)

    async def _holders(self) -> None:
        """Who holds the instances, for what their records outlive."""
        strangers = [k for k in self._found.drain.known.values() if k.publisher is None and k.by][:MOST_ASKED]
        if not self._alone:  # the sidecar asks by itself
            return

        async def ask(instance: Instance, node: str) -> Publisher:
            told = await within(HOLDER, self._parts.registry.publisher, node, instance)
            return Publisher.UNKNOWN if isinstance(told, Trouble) else told

        asked = [wishes.Inquire(k.record.instance, k.by) for k in strangers]
        for inquiry, told in zip(asked, await asyncio.gather(*(ask(i.instance, i.node) for i in asked)), strict=True):
            self._tell(wishes.Told(inquiry, told))

    async def _thresholds(self) -> None:
        """What is set for the services: where a drain could spoil it, or where nothing of us was found."""
        drain, versions = self._found.drain, self._found.versions.values()
        spoils = any(nacos.loses_threshold(told) for told in versions if isinstance(told, str))
        seen = {instance.service for instance in drain.known}
        asked = [s for s in drain.services if spoils or s not in seen]
        told: dict[Service, float | Trouble | None] = {s: t for s, t in self._known.services.items() if s in asked}
        told |= await of_each([s for s in asked if s not in told], self._threshold)
        self._known.services |= {s: value for s, value in told.items() if isinstance(value, float)}
        self._note(services=told)

    async def _threshold(self, service: Service) -> float | Trouble | None:
        async def ask(node: str) -> float | None:
            try:
                return await self._parts.registry.threshold(node, service)
            except NotThere:
                return None

        return await of_any(self._found.answering, lambda node: within(READ, ask, node))

    async def _permission(self, *, probe: bool) -> None:
        """Whether we may write, by a question that can change nothing."""
        if self._known.permitted:
            self._note(permission=True)
        lease = self._found.lease
        if self._known.permitted or not probe or lease is None or not lease.removals:
            return
        instance = lease.removals[0].instance
        told = await of_any(
            self._found.answering, lambda node: within(READ, self._parts.registry.permitted, node, instance)
        )
        self._known.permitted = told is None
        self._note(permission=told if told is not None else True)
