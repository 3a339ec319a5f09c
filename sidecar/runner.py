"""The reconciler: performs what the core wants against the ports, and tells it what happened.

It starts what is wanted and not running, cancels what is no longer wanted, and turns results into events. A result
of an effect that is no longer wanted never reaches the core. There is no policy here: an `if` about what to do belongs
into `drain.py`.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from . import removal, wishes
from .drain import Drain, Refusal, Rules
from .lease import Lease, State, Trigger
from .ports import Actuator, App, Inside, NotThere, Registry, Rejected, Traffic, Unavailable, Watch
from .registration import Record
from .report import report
from .settle import Settle
from .traffic import BLIND
from .wire import Wire
from .wishes import Effect, Event


MOST_AT_ONCE = 16  # requests to a node under way

Observer = Callable[[Drain, Drain, Event, float], None]


class Runner:
    """One sidecar's life around one Drain. Everything runs on the loop it is used in."""

    def __init__(
        self,
        rules: Rules,
        registry: Registry,
        app: App,
        *,
        inside: Mapping[str, Inside] | None = None,
        actuator: Actuator | None = None,
        watch: Watch | None = None,
        traffic: Traffic | None = None,
        pod: str = "",
    ) -> None:
        """Know the ports; `inside` are the app's own doors by the names of their roads. `traffic` has detected."""
        self._registry = registry
        self._app = app
        self._inside = inside or {}
        self._actuator = actuator
        self._watch = watch
        self._traffic = traffic
        self._pod = pod
        self._loop = asyncio.get_running_loop()
        now = self._now = self._loop.time()
        settle = Settle(
            since=now,
            rule=rules.quiet,
            source=BLIND if traffic is None else traffic.source,
            singles=rules.singles,
            nodes=rules.watched.nodes,
        )
        self.drain = Drain(
            rules,
            now,
            settle,
            nodes=registry.nodes(),
            wire=Wire(rules.watched),
            survey_at=now,
            peek_at=now,
            sample_at=now,
        )
        self.observers: list[Observer] = []
        self._running: dict[Effect, asyncio.Task[None]] = {}
        self._results: list[tuple[Effect, Event]] = []
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MOST_AT_ONCE))
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._open = False

    # -- asked from outside ----------------------------------------------------------------------------------------

    def trigger(self, trigger: Trigger, *, code: int | None = None) -> str:
        """Start a drain or join the one under way; returns its id. `code` is what the app has exited with."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        nodes, one = self._registry.nodes(), self._registry.one_address
        if self._watch is not None:
            nodes = (*nodes, (removal.PUSH, True))
        self._take(wishes.Triggered(trigger, uuid4().hex[:12], f"{stamp}/{self._pod}", nodes, one, code))
        return self.drain.lease.id if self.drain.lease is not None else ""

    def resume(self) -> Refusal | None:
        """Give the lease back; returns the reason when that is impossible."""
        refusal = self.drain.refuses_resume
        if refusal is None:
            self._take(wishes.Asked(resume=True))
        return refusal

    def release(self) -> bool:
        """End all waits; False when no drain is waiting."""
        if self.drain.state is not State.DRAINING:
            return False
        self._take(wishes.Asked(resume=False))
        return True

    def leave(self) -> None:
        """A person stops this sidecar: what it took is given back."""
        self._take(wishes.Left())

    async def released(self, lease_id: str) -> Lease | None:
        """Wait until the drain of this id lets the app go, or is given back."""
        last: Lease | None = None
        while True:
            lease, changed = self.drain.lease, self._changed
            if lease is None or lease.id != lease_id:
                return last
            last = lease
            if lease.released_at is not None or lease.forced is not None or self.drain.state is State.ENDED:
                return lease
            await changed.wait()

    async def draining(self, within: float) -> str | None:
        """Wait for a drain to be under way; returns its id, or None when there is none within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.drain.state not in {State.DRAINING, State.RELEASED}:
                    await self._changed.wait()
        return self.drain.lease.id if self.drain.lease is not None and self.drain.state is not State.ARMED else None

    def report(self, lease: Lease | None = None) -> dict[str, object] | None:
        """The report of this drain, or of the newest one."""
        told = lease if lease is not None else self.drain.lease
        if told is None:
            return None
        return report(told, self.drain.settle, self.drain.rules.release, self._loop.time(), self.wall)

    def wall(self, moment: float) -> str:
        """A loop time as RFC 3339."""
        then = datetime.now(UTC) - timedelta(seconds=self._loop.time() - moment)
        return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # -- the reconciler --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile as long as this is open."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._open = True
            self._take(wishes.Tick())
            try:
                yield
            finally:
                self._open = False
                if self._timer is not None:
                    self._timer.cancel()
                for task in self._running.values():
                    task.cancel()

    async def ended(self) -> None:
        """Wait until this process has nothing left to do."""
        while self.drain.state is not State.ENDED:
            await self._changed.wait()

    def _take(self, event: Event) -> None:
        """Take in what came from outside, after what came to an end before it."""
        self._digest()
        self._advance((event,))

    def _digest(self) -> None:
        """Take in the results that came in at the same moment, at the price of one.

        With hundreds of instances they come by the dozen. What an earlier one of them has made unwanted is dropped.
        """
        results, self._results = self._results, []
        ended = [(e, r) for e, r in results if self._running.pop(e, None) is not None]
        if ended and self._open:
            self._advance(tuple(result for _, result in ended))

    def _advance(self, events: tuple[Event, ...]) -> None:
        now = self._now = max(self._now, self._loop.time())
        told: tuple[Drain, Event] | None = None  # the state before the newest event that was taken in
        for event in events:
            if told is not None:
                if not self.drain.wants(event.effect, now):  # type: ignore[union-attr]  # several: all are results
                    continue
                self._tell(*told, now)
            told = self.drain, event
            self.drain = self.drain.take(event, now)
        self.drain = self.drain.advance(now)
        if told is not None:
            self._tell(*told, now)
        self._reconcile(now)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _tell(self, before: Drain, event: Event, now: float) -> None:
        for observer in self.observers:
            with contextlib.suppress(Exception):  # a full disk or a closed stdout must not stop a drain
                observer(before, self.drain, event, now)

    def _reconcile(self, now: float) -> None:
        if not self._open:
            return
        wanted = self.drain.wanted(now)
        for effect in [e for e in self._running if e not in wanted]:
            self._running.pop(effect).cancel()
        for effect in wanted:
            if effect not in self._running:
                self._running[effect] = self._group.create_task(self._carry_out(effect), name=type(effect).__name__)
        if self._timer is not None:
            self._timer.cancel()
        wake = self.drain.wake(now)
        self._timer = None if wake is None else self._loop.call_at(wake, self._tick, wake)

    def _tick(self, due: float) -> None:
        """Let time pass. A timer may fire a clock's resolution early; the core is told the time that was meant."""
        self._now = max(self._now, due)
        self._take(wishes.Tick())

    async def _carry_out(self, effect: Effect) -> None:
        event = await self._perform(effect)
        if self._running.get(effect) is asyncio.current_task():
            if not self._results:
                self._loop.call_soon(self._digest)
            self._results.append((effect, event))

    async def _perform(self, effect: Effect) -> Event:
        """Do one thing within its deadline; whatever goes wrong is an event, so that no failure stops the drain."""
        try:
            async with self._slot(effect), asyncio.timeout(effect.timeout):
                return await (self._out(effect) if isinstance(effect, removal.Effect) else self._here(effect))
        except NotThere:
            if isinstance(effect, removal.Disable | removal.Enable | removal.Sweep | removal.Delete):
                return removal.Absent(effect)
            return _failed(effect, "not there")
        except TimeoutError:
            return _failed(effect, f"no answer within {effect.timeout:g} s")
        except Rejected as error:
            return _failed(effect, str(error), again=False)
        except Unavailable as error:
            return _failed(effect, str(error), refused=error.refused)
        except Exception as error:  # noqa: BLE001  fail open: a bug in an adapter must not keep the app from its release
            return _failed(effect, f"internal error: {type(error).__name__}")

    def _slot(self, effect: Effect) -> contextlib.AbstractAsyncContextManager[None]:
        """A node's share of our attention. Waiting for it is not the node's fault, so no deadline runs meanwhile."""
        node = getattr(effect, "node", None)
        return contextlib.nullcontext() if node is None else self._slots[node]

    async def _out(self, effect: removal.Effect) -> Event:
        """Take one step for one instance: at Nacos, or through the app's own door."""
        match effect:
            case removal.Read(instance, removal.PUSH) if self._watch is not None:
                return removal.Found(
                    effect, _of(await self._watch.read(instance.service, [instance.address]), instance.port)
                )
            case removal.Read(instance, node):
                records = await self._registry.read(node, instance.service, [instance.ip], fresh=effect.fresh)
                return removal.Found(effect, _of(records, instance.port))
            case removal.Look():
                record, node = await self._look(effect)
                return removal.Found(effect, record, node)
            case removal.Disable(instance, node):
                await self._registry.disable(node, instance, weight=effect.weight, mark=effect.mark)
                return removal.Acknowledged(effect)
            case removal.Enable(instance, node):
                await self._registry.enable(node, instance, weight=effect.weight)
                return removal.Acknowledged(effect)
            case removal.Sweep(instance, node):
                await self._registry.sweep(node, instance, weight=effect.weight)
                return removal.Acknowledged(effect)
            case removal.Delete(instance, node):
                await self._registry.delete(node, instance)
                return removal.Acknowledged(effect)
            case removal.Offline(road):
                await self._door(road).offline(road)
                return removal.Acknowledged(effect)
            case removal.Online(road):
                await self._door(road).online(road)
                return removal.Acknowledged(effect)

    async def _here(self, effect: wishes.OwnEffect) -> Event:
        """Know, or do, what is about the whole pod."""
        match effect:
            case wishes.Survey():
                return await self._survey(effect)
            case wishes.Identify(ports):
                return await self._identify(effect, ports)
            case wishes.Inquire(instance, node):
                return wishes.Told(effect, await self._registry.publisher(node, instance))
            case wishes.Peek(ports):
                return wishes.Peeked(effect, await self._app.look(ports))
            case wishes.Sample():
                return wishes.Sampled(effect, await self._pod_traffic().read())
            case wishes.Knock(ports):
                hung, healthy = await asyncio.gather(self._app.hung(ports), self._healthy())
                return wishes.Knocked(effect, hung or healthy is None, ill=healthy is False)
            case wishes.AwaitExit(life):
                await self._app.exited(life)
                return wishes.Exited(effect)
            case wishes.Signal(life):
                await self._app.signal(life, kill=effect.kill)
                return wishes.Signalled(effect)
            case wishes.Shutdown():
                await self._app_actuator().shutdown()
                return wishes.Signalled(effect)
            case wishes.Roster():
                return wishes.Rostered(effect, await self._registry.down())

    def _door(self, road: str) -> Inside:
        door = self._inside.get(road)
        if door is None:
            raise Rejected(f"nothing is known of the road {road}")
        return door

    def _pod_traffic(self) -> Traffic:
        if self._traffic is None:
            raise Rejected("there is no traffic source")
        return self._traffic

    def _app_actuator(self) -> Actuator:
        if self._actuator is None:
            raise Rejected("no actuator is known: set NACOS_DRAIN_ACTUATOR_URL")
        return self._actuator

    async def _identify(self, effect: wishes.Identify, ports: frozenset[int]) -> Event:
        identity = await self._app_actuator().identity(ports)
        if identity is not None and identity.servers:
            self._registry.aim(identity.servers)
        return wishes.Identified(effect, identity, self._registry.nodes(), self._registry.one_address)

    async def _healthy(self) -> bool | None:
        """What the app says of its health; None: it does not answer in time. Without such an endpoint it is well."""
        if self._actuator is None:
            return True
        try:
            async with asyncio.timeout(wishes.KNOCK_TIMEOUT):
                return await self._actuator.healthy() is not False
        except TimeoutError:
            return None
        except (Unavailable, Rejected):
            return True

    async def _look(self, effect: removal.Look) -> tuple[Record | None, str]:
        """Ask all nodes at once. The first that has the record decides; absence needs every node that answers."""
        instance = effect.instance

        async def ask(node: str) -> tuple[Record | None, str]:
            return _of(await self._registry.look(node, instance.service, [instance.ip]), instance.port), node

        asked = [asyncio.ensure_future(ask(node)) for node, _ in self._registry.nodes()]
        problem: Exception = Unavailable("no Nacos node is known")
        answered = False
        try:
            async with asyncio.timeout(effect.timeout * 0.95):  # an answer of some nodes is an answer
                for done in asyncio.as_completed(asked):
                    try:
                        record, node = await done
                    except (Unavailable, Rejected) as error:
                        problem = error
                        continue
                    answered = True
                    if record is not None:
                        return record, node
        except TimeoutError:
            problem = Unavailable(f"no answer within {effect.timeout:g} s")
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not answered:
            raise problem
        return None, ""

    async def _survey(self, effect: wishes.Survey) -> Event:
        await self._registry.refresh()
        nodes = self._registry.nodes()
        if not nodes:
            raise Unavailable("no Nacos server is known: set NACOS_DRAIN_NACOS_SERVER_ADDR, or let the actuator tell")
        if self._watch is not None:
            self._watch.subscribe(effect.service)
        node = nodes[effect.turn % len(nodes)][0]
        addresses = self.drain.addresses
        records = await self._registry.read(node, effect.service, addresses, fresh=False)
        listed = bool(self.drain.claim(records))
        if not listed:
            records = await self._registry.look(node, effect.service, addresses)
        return wishes.Surveyed(effect, records, node, listed, self._registry.nodes())


def _of(records: tuple[Record, ...], port: int) -> Record | None:
    return next((r for r in records if r.instance.port == port), None)


def _failed(effect: Effect, error: str, *, again: bool = True, refused: bool = False) -> Event:
    if isinstance(effect, removal.Effect):
        return removal.Failed(effect, error, again=again, refused=refused)
    return wishes.Failed(effect, error)
