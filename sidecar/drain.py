"""The drain of one pod: its phases, its budget and its lease, over the removals and the quiet rule.

Laws of this file
- No clock and no I/O. `step(event, now)` takes in what happened, `wanted(now)` says what should be under way,
  `wake(now)` says when to ask again by itself. The runner reconciles and decides nothing.
- The release is never later than the deadline, whatever breaks; `gone` is never said without readings.
- A drain is a lease, not a latch: a pod may live on after its hook (liveness restart, false alarm), so every way out
  of here leads either to the end of this process or back to ARMED with the instance online.

    ARMED --trigger--> DRAINING --release--> RELEASED --app exited, we are stopped--> ENDED
      ^                    |                    |
      |                 /resume     new life, lease expired, /resume
      +---- RESTORING <----+--------------------+

Writes happen only for the life that is drained; a listing after its exit is somebody else's and is restored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from . import removal
from .evidence import Node, View
from .lease import App, Lease, Life, Outcome, Port, Release, Residue, State, Trigger, Why
from .plan import ASSUMED_APP_STOP, Plan, fit
from .registration import OPENAPI, Identity, Instance, Publisher, Record, Road, Service
from .removal import Goal, Offline, Online, Removal
from .settle import Rule, Settle, Verdict
from .traffic import BLIND, Reading
from .wire import Watched, Wire
from .wishes import (
    Answer,
    Asked,
    AwaitExit,
    Effect,
    Event,
    Exited,
    Failed,
    Identified,
    Identify,
    Inquire,
    Knock,
    Knocked,
    Left,
    OwnEffect,
    Peek,
    Peeked,
    Roster,
    Rostered,
    Sample,
    Sampled,
    Shutdown,
    Signal,
    Signalled,
    Survey,
    Surveyed,
    Tick,
    Told,
    Triggered,
)


SURVEY_PERIOD = 30.0  # a fleet of 1,500 pods must not load Nacos
SURVEY_EAGER, SURVEY_STARTING = 1.0, 5.0  # until the instance is first seen: readiness hangs on it
EAGER_FOR, STARTING_FOR = 120.0, 900.0
# A look costs up to 12 ms: the kernel walks its whole table of sockets. While idle it only has to be there in time for
# the app's start; at the trigger it is looked at afresh.
PEEK_STARTING, PEEK_IDLE, PEEK_PERIOD = 2.0, 15.0, 0.25
VANISHED_FOR = 2.0  # an invisible app whose listener is closed for so long has exited
STARTUP_HOLD = 3.0  # a sidecar that restarts in the middle of a drain is asked again within this time
LEASE_SLACK = 5.0
UNDO_BEFORE_END = 3.0
LEAVING = 10.0  # what a person who pressed Ctrl-C waits for the instance to be back
LAST_WORD = 1.0  # our own exit comes so long before the grace period ends
EVIDENCE_AFTER_EXIT = 5.0
OLD_LIFE = 60.0
ROSTER_PERIOD = 2.0
SAMPLE_PERIOD, SAMPLE_DRAINING = 1.0, 0.5  # a second of a caller's rhythm is as fine as an idle sidecar can afford
HEALTH_FIRST = 0.5  # a deregistering endpoint may make the app refuse traffic, and its health would say so
DUBBO = "dubbo"  # the road for what Dubbo has registered
DUBBO_NAMES = ("providers:", "consumers:")  # how it names the services of its interfaces


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings decide, as plain values."""

    plan: Plan
    services: tuple[Service, ...]
    ports: frozenset[int] = frozenset()  # registered ports; empty: whatever this pod listens on
    app_ports: frozenset[int] = frozenset()  # where the app listens; empty: the registered ones
    addresses: tuple[str, ...] = ()
    release: Release = Release.HOOK
    kubernetes: bool = False
    residue: Residue = Residue.OURS
    kill: bool = False
    init: bool = False  # we have started the app: what stops us stops it after the drain, and its end is ours
    roads: tuple[Road, ...] = ()  # by which the app itself may be asked, in this order
    actuator: bool = False  # whether the app can be asked who it is
    app_stop_assumed: bool = False  # APP_STOP is not set: a longer wait that is built into the app counts
    jitter: float = 1.0  # of the survey's period, so that a fleet does not ask in step
    quiet: Rule = Rule()  # noqa: RUF009  frozen, so sharing it is harmless
    watched: Watched = Watched()  # noqa: RUF009  likewise
    singles: frozenset[str] = frozenset()  # addresses that stand for one caller, by the user's word


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a lease is not given back."""

    reason: str
    for_good: bool = False  # nothing that this sidecar can do would help


@dataclass(frozen=True, slots=True)
class Known:
    """An instance of ours as the surveys know it."""

    record: Record
    at: float
    was_enabled: bool = False  # in this app life
    seen: bool = True  # in a list, or disabled: what a proof may build on
    by: str = ""  # the node that showed it
    publisher: Publisher | None = None  # None: not asked yet in this app life


@dataclass(frozen=True, slots=True)
class Drain:
    """Everything the sidecar knows and wants."""

    rules: Rules
    born: float
    settle: Settle
    state: State = State.ARMED
    nodes: tuple[tuple[str, bool], ...] = ()
    known: Mapping[Instance, Known] = field(default_factory=dict)
    app: App = App()  # noqa: RUF009  frozen, so sharing it is harmless
    last_life: Life | None = None
    opened_at: float | None = None  # since when the app listens without a break, as far as we looked
    ready: bool = False
    ambiguous: tuple[Instance, ...] = ()
    trouble: str = ""  # why the newest survey failed
    survey_at: float = 0.0
    surveys: int = 0
    identity: Identity | None = None
    identify_at: float = 0.0
    identifies: int = 0
    unidentified: str = ""  # why the app has not told who it is
    peek_at: float = 0.0
    peeks: int = 0
    looked: bool = False  # the kernel has shown the app's ports once
    roster_at: float = 0.0
    rosters: int = 0
    wire: Wire = Wire()  # noqa: RUF009  frozen, so sharing it is harmless
    sample_at: float = 0.0
    samples: int = 0
    sampled_ports: frozenset[int] = frozenset()  # whose callers were watched: until the app tells its port, all of them
    lease: Lease | None = None
    restoring: tuple[Removal, ...] = ()
    restore_reason: str = ""
    restore_until: float | None = None
    stop: bool = False  # this process was told to stop

    # -- wishes ----------------------------------------------------------------------------------------------------

    def wanted(self, now: float) -> Mapping[Effect, None]:
        """What should be under way now, the urgent first: requests to Nacos, in the order of the services named."""
        return dict.fromkeys(self._wanted(now))

    def _wanted(self, now: float) -> Iterator[Effect]:
        if self.state is State.ENDED:
            return
        lease = self._running
        if lease is not None:
            held = self._held(lease, now)
            for r in lease.removals:
                wanted = r.wanted(now, may_write=self._may_write(lease))
                yield from (e for e in wanted if not (held and isinstance(e, Offline)))
            if lease.exited_at is None:
                yield from self._about_the_app(lease, now)
            if self.roster_at <= now and any(n.refused and not n.down for r in lease.removals for n in r.nodes):
                yield Roster(self.rosters)
        if self.state is State.RESTORING:
            for r in self.restoring:
                yield from r.wanted(now, may_write=True)
        yield from self._looks(now)
        if self.state is State.ARMED:
            yield from self._idle(now)

    @property
    def _running(self) -> Lease | None:
        """The lease, while it runs."""
        return self.lease if self.state in {State.DRAINING, State.RELEASED} else None

    @property
    def watches(self) -> bool:
        """Whether callers can be seen at all."""
        return self.settle.source != BLIND

    @property
    def _asks_who(self) -> bool:
        """Whether it is of interest who the app is: ahead of a drain, or in one that does not know what to take out."""
        lease = self._running
        return self.rules.actuator and (self.state is State.ARMED or (lease is not None and lease.unaware))

    def _looks(self, now: float) -> Iterator[Effect]:
        """What is to be known of the app all the time."""
        if self.peek_at <= now:
            yield Peek(self.app_ports, self.peeks)
        if self.watches and self.sample_at <= now:
            yield Sample(self.samples)
        if self._asks_who and self.identify_at <= now:
            yield Identify(self.app.ports, self.identifies)

    def _idle(self, now: float) -> Iterator[Effect]:
        """What keeps the trigger from having to ask first."""
        if self.survey_at <= now and self.services:
            yield Survey(self.services[self.surveys % len(self.services)], self.surveys)
        stranger = next((k for k in self.known.values() if k.publisher is None and k.by), None)
        if stranger is not None:
            yield Inquire(stranger.record.instance, stranger.by)

    def _held(self, lease: Lease, now: float) -> bool:
        """Whether the app is not asked to leave yet, as it is being asked for its health."""
        return self.rules.actuator and not lease.knocked and now < lease.started + HEALTH_FIRST

    def _about_the_app(self, lease: Lease, now: float) -> Iterator[Effect]:
        if not lease.knocked and lease.released_at is None and self.app.port is not Port.CLOSED:
            yield Knock(self.app_ports)
        if lease.life is not None and lease.life.pid is not None:
            yield AwaitExit(lease.life)
        release = lease.release(self.rules.release)
        if release is not Release.HOOK and lease.stopping and lease.released_at is not None:
            if lease.signalled_at is None and lease.signal_error is None:
                yield Signal(lease.life, kill=False) if release is Release.SIGNAL else Shutdown()
            elif self.rules.kill and lease.killed_at is None and now >= self._kill_at(lease):
                yield Signal(lease.life, kill=True)

    def _kill_at(self, lease: Lease) -> float:
        return (lease.signalled_at or lease.released_at or lease.started) + lease.plan.app_stop

    def _may_write(self, lease: Lease) -> bool:
        """Only the life that is drained may be written to: what comes after it is a new one."""
        return lease.exited_at is None and (lease.life is not None or self.app.port is Port.UNKNOWN)

    def wake(self, now: float) -> float | None:
        """The next moment at which something changes by itself."""
        return min((t for t in self._moments(now) if t > now), default=None)

    def _moments(self, now: float) -> Iterator[float]:
        yield self.peek_at
        if self.watches:
            yield self.sample_at
        if self._asks_who:
            yield self.identify_at
        if self.state is State.ARMED:
            yield self.survey_at
            yield self.born + STARTUP_HOLD
            yield self.born + OLD_LIFE
        for r in self.restoring:
            yield from r.wake()
        if self.restore_until is not None:
            yield self.restore_until
        if self._running is not None:
            yield from self._moments_of(self._running, now)

    def _moments_of(self, lease: Lease, now: float) -> Iterator[float]:
        for r in lease.removals:
            yield from r.wake()
        if lease.stable_at is not None:
            yield lease.stable_at
        yield from (lease.proof_limit, lease.deadline, lease.settle_end(now), lease.grace_end, self.roster_at)
        yield lease.started + HEALTH_FIRST
        yield lease.started + removal.FIRST_LOOK_TIMEOUT
        yield from (lease.grace_end + LEASE_SLACK, lease.grace_end - UNDO_BEFORE_END, lease.grace_end - LAST_WORD)
        clock = lease.clock(now)
        if clock is not None:
            yield clock + self.settle.rule.floor
        if lease.closed_at is not None:
            yield lease.closed_at + VANISHED_FOR
        if lease.exited_at is not None:
            yield lease.exited_at + EVIDENCE_AFTER_EXIT
        if lease.sigterm_at is not None:
            yield lease.sigterm_at + VANISHED_FOR
            yield lease.started + removal.WRITE_TIMEOUT
        if lease.released_at is not None:
            yield self._kill_at(lease)

    # -- what happened ---------------------------------------------------------------------------------------------

    def step(self, event: Event, now: float) -> "Drain":
        """Take an event in, then let every consequence follow."""
        return self.take(event, now).advance(now)

    def take(self, event: Event, now: float) -> "Drain":
        """Take an event in. What follows from it, and from others of the same moment, is up to `advance`."""
        match event:
            case Triggered():
                return self._triggered(event, now)
            case Asked(resume):
                return self._resumed(now) if resume else self._hurry()
            case Left():
                return self._left(now)
            case Tick() if self._running is None and not self.restoring:
                return self
            case Tick():
                return replace(
                    self,
                    lease=self._each(lambda r: r.tick(now)),
                    restoring=tuple(r.tick(now) for r in self.restoring),
                )
            case _:
                return self._heard(event, now)

    def _heard(self, event: Answer, now: float) -> "Drain":
        """Something that was wanted has come to an end."""
        match event:
            case Surveyed():
                return self._surveyed(event, now)
            case Identified():
                return self._identified(event, now)
            case Told(effect, publisher):
                return self._told(effect.instance, publisher)
            case Peeked(_, app):
                return self._peeked(app, now)
            case Sampled(_, reading):
                return self._sampled(reading, now)
            case Rostered(_, down):
                return replace(self._rostered(now), lease=self._each(lambda r: _lose_all(r, down)))
            case Knocked(_, hung, ill):
                return self._knocked(now, hung=hung, ill=ill)
            case Exited():
                return self._with(exited_at=now)
            case Signalled(effect):
                kill = isinstance(effect, Signal) and effect.kill
                return self._with(killed_at=now) if kill else self._with(signalled_at=now)
            case Failed(effect, error):
                return self._failed(effect, error, now)
            case _:
                return self._about(event, now)

    def _about(self, event: removal.Event, now: float) -> "Drain":
        """Something about one instance, or an answer of the app, which is about all that asked it."""

        def take(removals: tuple[Removal, ...]) -> tuple[Removal, ...]:
            changed = list(removals)
            for nth in _concerned(event.effect, removals, now):
                changed[nth] = changed[nth].step(event, now)
            return tuple(changed)

        lease = self._running
        taken = replace(self, restoring=take(self.restoring))
        return taken if lease is None else replace(taken, lease=replace(lease, removals=take(lease.removals)))

    def wants(self, effect: Effect, now: float) -> bool:
        """Whether this is still wanted; the answer to anything else is of no interest."""
        if not isinstance(effect, removal.Effect):
            return effect in self._wanted(now)
        lease = self._running
        removals = self.restoring if lease is None else lease.removals
        may = lease is None or self._may_write(lease)
        concerned = _concerned(effect, removals, now)
        return any(effect in removals[nth].wanted(now, may_write=may) for nth in concerned)

    def _each(self, change: Callable[[Removal], Removal]) -> Lease | None:
        lease = self._running
        return self.lease if lease is None else replace(lease, removals=tuple(map(change, lease.removals)))

    def _with(self, **changes: object) -> "Drain":
        assert self.lease is not None  # noqa: S101  effects of a lease end with it
        return replace(self, lease=replace(self.lease, **changes))  # type: ignore[arg-type]  # mypy knows no **kwargs of replace

    def _failed(self, effect: OwnEffect, error: str, now: float) -> "Drain":
        match effect:
            case Survey():
                return replace(self, trouble=error)._next_survey(now)
            case Identify():
                return replace(self, unidentified=error)._next_identify(now)
            case Inquire(instance):
                return self._told(instance, Publisher.UNKNOWN)
            case Peek():
                return self._peeked(App(), now)
            case Knock():
                return self._with(knocked=True)
            case Signal(kill=True):
                return self._with(killed_at=now, signal_error=error)
            case Signal() | Shutdown():
                return self._with(signal_error=error)
            case Roster():
                return self._rostered(now)
            case Sample():
                return replace(self, settle=self.settle.lost(now, error))._next_sample(now)
            case AwaitExit(life):  # not ours to watch: its listener tells, as where no process is visible
                return self._with(life=replace(life, pid=None, started=None))

    def _knocked(self, now: float, *, hung: bool, ill: bool) -> "Drain":
        """An app that was asked to leave may refuse traffic from then on: its health is no illness any more."""
        lease = self.lease
        assert lease is not None  # noqa: S101  effects of a lease end with it
        held = self._held(lease, now)
        ill = ill and (held or not any(r.was_asked(now) for r in lease.removals))
        knocked = self._with(knocked=True, hung=hung, ill=ill)
        if not (hung or ill):
            return knocked
        because = str(Why.HUNG if hung else Why.ILL)
        return replace(knocked, lease=knocked._each(lambda r: r.skip_inside(now, because, held=held)))

    def _rostered(self, now: float) -> "Drain":
        return replace(self, rosters=self.rosters + 1, roster_at=now + ROSTER_PERIOD)

    def _sampled(self, reading: Reading, now: float) -> "Drain":
        ports = self.app_ports
        if not ports and self.rules.init:  # others may listen on this machine; what listens below us is ours
            ports = self.app.ports or self.sampled_ports
        settle, wire = self.settle, self.wire
        if ports != self.sampled_ports:
            settle, wire = settle.anew(reading.at), wire.anew()
        wire, seen = wire.take(reading, ports)
        settle = settle.observe(seen.calls, reading.at, doubt=seen.doubt)
        if seen.missed:
            settle = settle.lost(reading.at, seen.missed)
        return replace(self, wire=wire, settle=settle, sampled_ports=ports)._next_sample(now)

    def _next_sample(self, now: float) -> "Drain":
        at = now + (SAMPLE_DRAINING if self.state is State.DRAINING else SAMPLE_PERIOD)
        clock = self.lease.clock(now) if self.state is State.DRAINING and self.lease is not None else None
        floor = inf if clock is None else clock + self.settle.rule.floor
        return replace(self, samples=self.samples + 1, sample_at=min(at, floor) if now < floor else at)

    @property
    def looks_elsewhere(self) -> bool:
        """Nacos lists it, but nobody ever listened on its ports here: it is registered with another port."""
        return self.looked and self.last_life is None and any(k.record.enabled for k in self.known.values())

    # -- armed -----------------------------------------------------------------------------------------------------

    @property
    def itself(self) -> Instance | None:
        """What the app says that it is registered as."""
        return self.identity.instance if self.identity is not None else None

    @property
    def app_ports(self) -> frozenset[int]:
        """Where the app listens, as set, or as it says; none: nobody has said."""
        told = self.itself
        return self.rules.app_ports or self.rules.ports or (frozenset({told.port}) if told is not None else frozenset())

    @property
    def services(self) -> tuple[Service, ...]:
        """What the app is registered as: as set, else as it says itself."""
        told = self.itself
        return self.rules.services or ((told.service,) if told is not None else ())

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it may be registered: this pod's addresses, or the one that it says."""
        told = self.itself
        return tuple(dict.fromkeys((*((told.ip,) if told is not None else ()), *self.rules.addresses)))

    def publisher(self, instance: Instance) -> Publisher | None:
        """Who holds it: by Nacos' list, or where that does not tell, by the app's own word; None: not asked yet."""
        known = self.known.get(instance)
        listed = known.publisher if known is not None else None
        if listed in {None, Publisher.UNKNOWN} and self.identity is not None and self.itself == instance:
            return listed if self.identity.publisher is Publisher.UNKNOWN else self.identity.publisher
        return listed

    @property
    def registers(self) -> bool:
        """Whether there is, or will be, anything of this app in Nacos."""
        return bool(self.rules.services) or self.identity is None or self.identity.registers

    def claim(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """The records that are ours: a port of the app. A guess only where nobody else listens on this address."""
        return tuple(r for r in records if r.instance.port in self._registered_ports(r.instance.service))

    def _registered_ports(self, service: Service) -> frozenset[int]:
        """The ports that may be ours in Nacos: set, or told by the app, else the only one on which anybody listens."""
        told = self.itself
        if told is not None and told.service == service and not self.rules.ports:
            return frozenset({told.port})
        alone = self.app.ports if len(self.app.ports) == 1 else frozenset()
        return self.rules.ports or self.rules.app_ports or alone

    def _identified(self, event: Identified, now: float) -> "Drain":
        identity = event.identity
        if identity is None:
            why = (
                "the app's actuator shows neither our starter's nacos-deregister nor nacosdiscovery: expose one, "
                "or set NACOS_DRAIN_NACOS_SERVICE"
            )
            return replace(self, unidentified=why)._next_identify(now)
        starting = identity.instance is None and identity.registers
        if starting and self.identity is not None:  # its next life has not registered yet; its name is the same
            identity = replace(identity, instance=self.identity.instance)
        told = replace(self, identity=identity, unidentified="", nodes=event.nodes or self.nodes)
        if identity != self.identity:
            told = replace(told, survey_at=now)
        if self.rules.app_stop_assumed:
            plan = self.rules.plan
            stop = max(ASSUMED_APP_STOP, identity.stop_wait or 0.0)
            fitted = fit(plan.grace_period, None, plan.consumer_cache, assumed=stop)
            told = replace(told, rules=replace(self.rules, plan=fitted))
        if not identity.registers and not self.rules.services:
            told = replace(told, ready=True)
        return told._aware(event, now)._next_identify(now, starting=starting)

    def _aware(self, event: Identified, now: float) -> "Drain":
        """A drain that began before the app had told who it is knows now what to take out."""
        lease = self._running
        if lease is None or not lease.unaware:
            return self
        if not self.registers:
            return self._with(nothing=True)
        removals = self._removals(lease.trigger, lease.mark, event.nodes, now, one_address=event.one_address)
        return self._with(removals=removals)

    def _next_identify(self, now: float, *, starting: bool = False) -> "Drain":
        """Eagerly until the app has told; after that only when it is another life."""
        known = self.identity is not None and not self.unidentified and not starting
        eager = SURVEY_EAGER if now - self.born < EAGER_FOR or self.lease else SURVEY_PERIOD * self.rules.jitter
        return replace(self, identifies=self.identifies + 1, identify_at=inf if known else now + eager)

    def _told(self, instance: Instance, publisher: Publisher) -> "Drain":
        known = self.known.get(instance)
        if known is None:
            return self
        return replace(self, known={**self.known, instance: replace(known, publisher=publisher)})

    def _surveyed(self, event: Surveyed, now: float) -> "Drain":
        mine, service = self.claim(event.records), event.effect.service
        listening = tuple(r.instance for r in event.records if r.instance.port in self.app.ports)
        others = {i: k for i, k in self.known.items() if i.service != service or not mine}
        before = self.known
        fresh = {
            r.instance: Known(
                r,
                now,
                was_enabled=r.enabled or (r.instance in before and before[r.instance].was_enabled),
                seen=event.listed or not r.enabled,
                by=event.node,
                publisher=before[r.instance].publisher if r.instance in before else None,
            )
            for r in mine
        }
        ambiguous = () if mine else listening
        surveyed = replace(self, known={**others, **fresh}, ambiguous=ambiguous, nodes=event.nodes, trouble="")
        return surveyed._next_survey(now, absent=not event.listed)

    def _next_survey(self, now: float, *, absent: bool = False) -> "Drain":
        seen = {i.service for i, k in self.known.items() if k.record.enabled or not k.record.mark}
        ready = self.ready or all(s in seen for s in self.services)
        if ready:
            period = SURVEY_PERIOD * (2 if absent else 1) * self.rules.jitter  # an absent one costs two reads
        elif (self.surveys + 1) % len(self.services):
            period = 0.0  # every service once, then a pause
        else:
            age = now - self.born
            starting = SURVEY_STARTING if age < STARTING_FOR else 2 * SURVEY_PERIOD
            period = SURVEY_EAGER if age < EAGER_FOR else starting * self.rules.jitter
        return replace(self, ready=ready, surveys=self.surveys + 1, survey_at=now + period)

    def _peeked(self, app: App, now: float) -> "Drain":
        looked = self.looked or app.port is not Port.UNKNOWN
        if app.port is Port.CLOSED and self.looks_elsewhere:
            app = replace(app, port=Port.UNKNOWN)
        idle = PEEK_IDLE if app.port is Port.OPEN else PEEK_STARTING
        period = idle if self.state is State.ARMED else PEEK_PERIOD
        seen = replace(self, app=app, looked=looked, peeks=self.peeks + 1, peek_at=now + period)
        if app.life is not None:
            if self.last_life is not None and not self.last_life.same(app.life):
                forgotten = {i: replace(k, was_enabled=False, publisher=None) for i, k in self.known.items()}
                seen = replace(seen, known=forgotten, identify_at=now)
            seen = replace(seen, last_life=app.life)
        opened_at = (self.opened_at if self.opened_at is not None else now) if app.port is Port.OPEN else None
        old = app.age is not None and app.age > OLD_LIFE and self.peeks == 0
        watched = opened_at is not None and opened_at < self.born + STARTUP_HOLD and now > opened_at + OLD_LIFE
        seen = replace(seen, opened_at=opened_at, ready=self.ready or old or watched)
        if self._running is None:
            return seen
        return seen._about_life(app, now)

    def _about_life(self, app: App, now: float) -> "Drain":
        """Whether the life that is drained is still there."""
        lease = self.lease
        assert lease is not None  # noqa: S101  asked by the caller
        first = not lease.peeked
        if app.port is Port.OPEN and app.life is not None:
            unmet = lease.life is None and self.state is State.DRAINING  # it was still starting
            if lease.exited_at is None and (first or unmet):
                return self._with(peeked=True, life=app.life, closed_at=None)
            if lease.exited_at is None and not lease.drains(app.life) and not lease.passes_on:
                return self._with(exited_at=now)
            return self._with(closed_at=None)
        if app.port is Port.CLOSED:
            return self._with(peeked=True, closed_at=lease.closed_at if lease.closed_at is not None else now)
        return self._with(peeked=True)

    # -- triggers --------------------------------------------------------------------------------------------------

    def _triggered(self, event: Triggered, now: float) -> "Drain":
        if self.state is State.ENDED:
            return self
        if event.trigger is Trigger.EXIT:
            return self._departed(event, now)
        stopped = event.trigger in {Trigger.SIGTERM, Trigger.SIGINT}
        told = replace(self, stop=self.stop or stopped, nodes=event.nodes)
        lease = self.lease
        over = lease is None or (lease.final_at is not None and lease.exited_at is not None)
        if stopped and self.stop and self.state is State.RESTORING:
            return self  # told twice: the drain is being undone, and there is no time for another
        if self.state in {State.ARMED, State.RESTORING} or over:
            return told._start(event, now)
        assert lease is not None  # noqa: S101  else it is over
        if stopped and lease.sigterm_at is None:
            return told._with(sigterm_at=now)
        if event.trigger is Trigger.HOOK:
            return told._with(hook_at=now)
        return told

    def _departed(self, event: Triggered, now: float) -> "Drain":
        """The app that we have started has ended: in a drain, or by itself."""
        told = replace(self, stop=True, nodes=event.nodes)
        lease = self._running
        if lease is not None:
            return told._with(exited_at=now if lease.exited_at is None else lease.exited_at, exit_code=event.code)
        if not self.known:
            return told._end(now)
        started = told._start(event, now)._with(exited_at=now, exit_code=event.code)
        taken = {r.instance: r for r in self.restoring if r.touched(now)}  # by a drain that was being undone
        sweep = self.rules.residue is not Residue.NEVER

        def left(removal_: Removal) -> Removal:
            ours = taken.get(removal_.instance)
            return removal_.depart(now) if ours is None else ours.clean_up(now, sweep=sweep)

        return replace(started, lease=started._each(left))

    def _start(self, event: Triggered, now: float) -> "Drain":
        if self.lease is not None and self.lease.exited_at is not None and self.stop and self.state is State.RELEASED:
            return self  # the drained app is gone and nothing came after it: nothing to drain, only to end
        removals = self._removals(event.trigger, event.mark, event.nodes, now, one_address=event.one_address)
        stopped = event.trigger in {Trigger.SIGTERM, Trigger.SIGINT}
        lease = Lease(
            event.id,
            event.trigger,
            now,
            self.rules.plan,
            removals,
            self.app.life if self.app.port is Port.OPEN else None,
            sigterm_at=now if stopped else None,
            hook_at=now if event.trigger is Trigger.HOOK else None,
            elsewhere=self.looks_elsewhere,
            nothing=not self.registers,
            mark=event.mark,
            init=self.rules.init,
        )
        return replace(
            self,
            state=State.DRAINING,
            lease=lease,
            restoring=(),
            restore_until=None,
            settle=self.settle.freeze(now),
            sample_at=min(self.sample_at, now + SAMPLE_DRAINING),
            peek_at=now,
            roster_at=now,
        )

    def _removals(
        self, trigger: Trigger, mark: str, nodes: tuple[tuple[str, bool], ...], now: float, *, one_address: bool
    ) -> tuple[Removal, ...]:
        return tuple(
            Removal.begin(
                instance,
                nodes,
                now,
                record=known.record if known else None,
                record_at=known.at if known else None,
                seen=known.seen if known else False,
                by=known.by if known else "",
                mark=mark,
                roads=self._ladder(instance, trigger),
                publisher=self.publisher(instance) or Publisher.UNKNOWN,
                one_address=one_address,
            )
            for instance, known in self._targets()
        )

    def _targets(self) -> Iterator[tuple[Instance, Known | None]]:
        """What is to be taken out: what the surveys know; of a service never seen, every key that could be ours."""
        for service in self.services:
            known = [(i, k) for i, k in self.known.items() if i.service == service]
            yield from known
            if not known:
                ports = sorted(self._registered_ports(service))
                yield from ((Instance(service, a, p), None) for a in self.addresses for p in ports)

    def _ladder(self, instance: Instance, trigger: Trigger) -> tuple[Road, ...]:
        """The roads for one instance, in the app first.

        Only a hook stands for a stop of the app: after a person's drain, or where perhaps only this sidecar is being
        stopped, the app has to come back without a restart.
        """
        dubbo = [r for r in self._inside if r.name == DUBBO]
        others = [r for r in self._inside if r.name != DUBBO]
        inside = dubbo if dubbo and (not others or self._is_dubbo(instance)) else others
        return (*(r for r in inside if r.undoable or trigger is Trigger.HOOK), OPENAPI)

    @property
    def _inside(self) -> tuple[Road, ...]:
        """The roads in the app. What it tells of one itself, such as that it leads back, is better than a guess."""
        told = {road.name: road for road in self.identity.roads} if self.identity is not None else {}
        return tuple(told.get(road.name, road) for road in self.rules.roads)

    def _is_dubbo(self, instance: Instance) -> bool:
        """Whether it is Dubbo's: by its name, or because the actuator speaks of another one."""
        told = self.itself
        return instance.service.name.startswith(DUBBO_NAMES) or (told is not None and told != instance)

    def _left(self, now: float) -> "Drain":
        leaving = replace(self, stop=True)
        if self.state is State.RESTORING and not self.stop:
            return replace(leaving, restore_until=now + LEAVING)
        lease = self.lease
        if self.stop or self.state is State.ARMED or lease is None or lease.exited_at is not None:
            return leaving._end(now)  # nothing is out because of us, or it was asked for twice
        return replace(leaving._give_back(lease, Outcome.ABORTED, "left", now), restore_until=now + LEAVING)

    def _hurry(self) -> "Drain":
        return self._with(release_asked=True) if self.state is State.DRAINING else self

    @property
    def refuses_resume(self) -> Refusal | None:
        """Why the lease cannot be given back now; None when it can."""
        lease = self.lease
        if self.state in {State.ARMED, State.RESTORING} or lease is None:
            return None
        if self.stop:
            return Refusal("this sidecar was told to stop")
        if lease.signalled_at is not None:
            return Refusal("the app was told to stop")
        if lease.exited_at is not None:
            return Refusal("the drained app has exited; its next life is put online by itself")
        if not all(r.undoable for r in lease.removals):
            return Refusal("only a restart of the app registers it again", for_good=True)
        return None

    def _resumed(self, now: float) -> "Drain":
        lease = self._running
        if lease is None or self.refuses_resume:
            return self
        return self._give_back(lease, Outcome.ABORTED, "resume", now)

    def _give_back(self, lease: Lease, outcome: Outcome, reason: str, now: float) -> "Drain":
        return self._with(forced=outcome, final_at=now)._restore(lease.removals, reason, now)

    def _restore(self, removals: Iterable[Removal], reason: str, now: float) -> "Drain":
        new_life = reason in {"new_life", "startup"}
        if new_life and self.rules.residue is Residue.NEVER:
            back: tuple[Removal, ...] = ()
        else:
            adopt = new_life and self.rules.residue is Residue.BORN
            back = tuple(
                r.bring_back(now, adopt=adopt, same_life=not new_life)
                for r in removals
                if adopt or reason == "startup" or (r.left_behind(now) if new_life else r.touched(now))
            )
        return replace(
            self,
            state=State.RESTORING,
            restoring=back,
            restore_reason=reason,
            restore_until=self.lease.grace_end - LAST_WORD / 2 if self.stop and self.lease else None,
            settle=self.settle.thaw(now),
        )

    # -- consequences ----------------------------------------------------------------------------------------------

    def advance(self, now: float) -> "Drain":
        """Follow every consequence until nothing changes."""
        before, after = self, self._consequence(now)
        while after is not before:
            before, after = after, after._consequence(now)
        return after

    def _consequence(self, now: float) -> "Drain":
        """One transition, or self."""
        match self.state:
            case State.ARMED:
                return self._armed(now)
            case State.DRAINING:
                return self._draining(now)
            case State.RELEASED:
                return self._released(now)
            case State.RESTORING:
                return self._restored(now)
            case State.ENDED:
                return self

    def _armed(self, now: float) -> "Drain":
        if now < self.born + STARTUP_HOLD or self.app.port is not Port.OPEN or self.rules.residue is Residue.NEVER:
            return self
        born = self.rules.residue is Residue.BORN
        left = [  # a mark on an enabled record: somebody has enabled it in the console, and it would stay for good
            k for k in self.known.values() if k.record.mark or (not k.record.enabled and born and not k.was_enabled)
        ]
        if not left:
            return self
        removals = tuple(
            Removal(k.record.instance, tuple(Node(n, r) for n, r in self.nodes), record=k.record, record_at=k.at)
            for k in left
        )
        return self._restore(removals, "startup", now)

    def _milestones(self, now: float) -> "Drain":
        """Note when what was reached; self when nothing is new."""
        lease = self.lease
        assert lease is not None  # noqa: S101  asked by the caller
        dealt = bool(lease.removals) and all(r.dealt for r in lease.removals)
        if lease.dealt_at is None and dealt:
            return self._with(dealt_at=now)
        if lease.proved != (lease.proved_at is not None):
            nodes = {n.name for r in lease.counted for n in r.nodes if r.view(n) is View.GONE}
            return self._with(proved_at=now if lease.proved else None, proved_on=len(nodes))
        gone = lease.closed_at is not None and now >= lease.closed_at + VANISHED_FOR
        invisible = (lease.life is None or lease.life.pid is None) and not lease.passes_on
        if lease.exited_at is None and gone and invisible:
            return self._with(exited_at=now)
        return self

    def _draining(self, now: float) -> "Drain":
        noted = self._milestones(now)
        if noted is not self:
            return noted
        lease = self.lease
        assert lease is not None  # noqa: S101  DRAINING has a lease
        end, clock = lease.settle_end(now), lease.clock(now)
        verdict = None
        if clock is not None and (lease.proved or now >= end):
            verdict = self.settle.verdict(clock, end, now)
        why = self._why(lease, verdict, now)
        if why is None:
            return self
        final = self.settle.verdict(clock if clock is not None else now, now, now) if verdict is None else verdict
        released = self._with(
            released_at=now, why=why, verdict=final, proved_at_release=lease.proved, settled_from=clock
        )
        return replace(released, state=State.RELEASED)

    def _why(self, lease: Lease, verdict: Verdict | None, now: float) -> Why | None:
        """What lets the app go now, if anything does."""
        if lease.release_asked:
            return Why.ASKED
        if lease.trigger is Trigger.EXIT:  # nobody waits for a release, so the phases tell what was found
            found = lease.proved or now >= lease.started + EVIDENCE_AFTER_EXIT
            return Why.VANISHED if found or now >= lease.deadline else None
        gone = lease.exited_at is not None or (lease.peeked and self.app.port is Port.CLOSED)
        unasked = lease.life is None and not any(r.seen or r.absent for r in lease.removals)
        if gone and not (unasked and now < lease.started + removal.FIRST_LOOK_TIMEOUT):
            return Why.VANISHED
        if now >= lease.deadline:
            return Why.DEADLINE
        if lease.nothing:
            return Why.NOTHING
        if lease.skips_settle and lease.knocked and (lease.proved or now >= lease.proof_limit):
            return Why.HUNG if lease.hung else Why.ILL if lease.ill else Why.UNHEALTHY
        stable = lease.stable_at is None or now >= lease.stable_at
        return Why.SETTLED if verdict is not None and verdict.done and stable else None

    def _released(self, now: float) -> "Drain":
        noted = self._milestones(now)
        if noted is not self:
            return noted
        lease = self.lease
        assert lease is not None  # noqa: S101  RELEASED has a lease
        if lease.exited_at is not None:
            return self._after_exit(lease, now)
        if lease.final_at is None and now >= lease.grace_end - (LAST_WORD if self.stop else 0):
            return self._with(final_at=now)
        listens = self.app.port is not Port.CLOSED
        if not self.stop:
            expired = now >= lease.grace_end + LEASE_SLACK and listens and lease.signalled_at is None
            return self._give_back(lease, Outcome.LEASE_EXPIRED, "lease_expired", now) if expired else self
        alone = lease.hook_at is None and lease.release(self.rules.release) is Release.HOOK
        written = lease.dealt_at is not None or now >= lease.started + removal.WRITE_TIMEOUT
        if alone and listens and written and not self.rules.kubernetes:
            return self._end(now)  # our exit is the release: whoever stops us stops the app next
        if alone and listens and now >= lease.grace_end - UNDO_BEFORE_END:
            return self._with(final_at=now)._restore(lease.removals, "sidecar_stopped", now)
        return self._end(now) if now >= self._last_moment(lease) else self

    def _last_moment(self, lease: Lease) -> float:
        """When this process, told to stop, has to be gone."""
        told = lease.sigterm_at if lease.sigterm_at is not None else lease.started
        last = max(lease.grace_end - LAST_WORD, told + VANISHED_FOR)
        if lease.init and lease.exited_at is not None:  # whoever waits for its exit code has waited for long enough
            return min(last, lease.exited_at + EVIDENCE_AFTER_EXIT)
        return last

    def _after_exit(self, lease: Lease, now: float) -> "Drain":
        if any(r.goal is Goal.OUT for r in lease.removals):
            never = self.rules.residue is Residue.NEVER
            return replace(self, lease=self._each(lambda r: r.clean_up(now, sweep=not never)))
        another = self.app.port is Port.OPEN and not lease.drains(self.app.life)
        if another and not (lease.init and self.stop):  # the command has ended, so a look that sees it is an old one
            return self._with(final_at=lease.final_at or now)._restore(lease.removals, "new_life", now)
        if lease.cleaned_at is None and all(r.ending is not None for r in lease.removals):
            return self._with(cleaned_at=now)
        exited_at = lease.exited_at if lease.exited_at is not None else now
        known = lease.proved or not lease.all_seen or now >= exited_at + EVIDENCE_AFTER_EXIT
        over = now >= (self._last_moment(lease) if self.stop else lease.grace_end)
        if lease.final_at is None and ((lease.cleaned_at is not None and known) or over):
            return self._with(final_at=now)
        return self._end(now) if self.stop and lease.final_at is not None else self

    def _restored(self, now: float) -> "Drain":
        waiting = any(r.ending is None for r in self.restoring)
        if waiting and (self.restore_until is None or now < self.restore_until):
            return self
        if self.stop:
            return self._end(now)
        back = {r.instance: r.record for r in self.restoring}
        known = {i: k for i, k in self.known.items() if i not in back or ((r := back[i]) is not None and r.enabled)}
        for instance in known.keys() & back.keys():
            record = back[instance]
            known[instance] = replace(known[instance], record=record, at=now) if record else known[instance]
        return replace(self, state=State.ARMED, restore_until=None, survey_at=now, known=known)

    def _end(self, now: float) -> "Drain":
        ended = self._with(final_at=now) if self.lease is not None and self.lease.final_at is None else self
        return replace(ended, state=State.ENDED)


def _concerned(effect: removal.Effect, removals: tuple[Removal, ...], now: float) -> Iterator[int]:
    """Which of these an effect is about: one instance, or all that want the app to be asked."""
    if isinstance(effect, Offline | Online):
        return (nth for nth, r in enumerate(removals) if effect in r.wanted(now, may_write=True))
    return (nth for nth, r in enumerate(removals) if r.instance == effect.instance)


def _lose_all(removal_: Removal, down: frozenset[str]) -> Removal:
    for name in down:
        removal_ = removal_.lose(name)
    return removal_
