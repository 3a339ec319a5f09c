"""A pocket world for the drain: no loop, no sleeps; time is a number that the test moves.

It reconciles like the runner (what is wanted and not running is started, what is no longer wanted is dropped with its
result, what takes longer than its timeout fails) and plays everything outside: Nacos nodes, and an app in a container.
"""

from dataclasses import replace

from sidecar import removal
from sidecar.drain import Drain, Rules
from sidecar.lease import App, Lease, Life, Port, State, Trigger
from sidecar.plan import fit
from sidecar.registration import Identity, Instance, Publisher, Record, Service
from sidecar.removal import Absent, Acknowledged, Delete, Disable, Enable, Found, Look, Offline, Online, Read, Sweep
from sidecar.removal import Failed as NotDone
from sidecar.settle import Settle
from sidecar.traffic import Listener, Reading, Socket
from sidecar.wishes import (
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


BIRTH = 1000.0
STICKY = 60.0  # how long Nacos keeps what was written to an instance that is gone
BUSY = 400  # answers at one moment; more is a loop that never sleeps
SHOP = Instance(Service("shop"), "10.0.0.7", 8080)


def rules(grace: float = 30.0, cache: float = 0.0, **changes: object) -> Rules:
    """A sidecar of one service with one port."""
    plain = Rules(fit(grace, None, cache), (SHOP.service,), ports=frozenset({SHOP.port}), addresses=(SHOP.ip,))
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names fields by keyword


class Pocket:
    """One sidecar, its app, and the Nacos nodes."""

    def __init__(
        self, rules: Rules, *, nodes: tuple[str, ...] = ("a", "b"), visible: bool = True, watches: bool = False
    ) -> None:
        self.now = BIRTH
        self.names = tuple((name, True) for name in nodes)
        self.visible = visible
        self.faults: dict[str, str] = {}  # node: hang, fail, refuse, reject
        self.lagging: dict[str, Record | None] = {}  # node: what it goes on showing to consumers
        self.downs: frozenset[str] = frozenset()
        self.record: Record | None = None
        self.left: tuple[Record, float] | None = None  # what an instance that is gone left behind, and since when
        self.lives = 0
        self.life: Life | None = None
        self.port = Port.CLOSED
        self.unseeable = False  # the kernel's tables cannot be read
        self.hung = False
        self.obeys = True  # signals
        self.comes_back = False  # a container that exits is started again
        self.triggers = 0
        self.manners = "removes"  # what the app does when it is asked: removes, disables, ignores, refuses
        self.publisher = Publisher.GRPC
        self.identity: Identity | None = None
        self.wrote: list[tuple[float, str]] = []
        self.last_read: dict[str, bool] = {}  # per node: whether the newest answer listed us
        self.asked: dict[str, list[float]] = {}  # by peer: when it sent its requests
        self.answered: dict[str, tuple[int, float]] = {}  # how many of them, and when the newest one was
        settle = Settle(BIRTH, rules.quiet, "netlink" if watches else "blind")
        self.drain = Drain(rules, BIRTH, settle, nodes=self.names, survey_at=BIRTH, peek_at=BIRTH, sample_at=BIRTH)
        self.running: dict[Effect, float] = {}
        self.start()
        self.register()
        self.take(Tick())

    @property
    def lease(self) -> Lease:
        """The newest lease."""
        assert self.drain.lease is not None
        return self.drain.lease

    def stands(self) -> State:
        """Where the lease stands. A method: a type checker takes an attribute to be what it was a line ago."""
        return self.drain.state

    # -- the app -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new run of the app: it listens, and registers in its own time."""
        self.lives += 1
        pid = 100 + self.lives if self.visible else None
        self.life = Life(frozenset({self.lives}), pid, float(self.lives) if self.visible else None)
        self.port, self.hung = Port.OPEN, False

    def register(self) -> None:
        """Within a minute an instance inherits what was written to the one before it on the same address."""
        if self.record is not None:
            return
        fresh = Record(SHOP)
        if self.left is not None and self.now < self.left[1] + STICKY:
            fresh = replace(fresh, enabled=self.left[0].enabled, mark=self.left[0].mark)
        self.record, self.left = fresh, None

    def unregister(self) -> None:
        """The connection is closed, or beats have run out."""
        if self.record is not None:
            self.left = (self.record, self.now)
        self.record = None

    def exit(self) -> None:
        """The process is gone; its registration goes by itself, later."""
        self.life, self.port = None, Port.CLOSED

    # -- the sidecar ---------------------------------------------------------------------------------------------------

    def trigger(self, trigger: Trigger = Trigger.HOOK) -> None:
        """Somebody asks for a drain."""
        self.triggers += 1
        self.take(Triggered(trigger, f"d{self.triggers}", f"mark/{self.triggers}", self.names))

    def ask(self, *, resume: bool) -> None:
        """`/resume` or `/release`."""
        self.take(Asked(resume))

    def take(self, event: Event) -> None:
        """An event reaches the core, as in the runner."""
        self.drain = self.drain.step(event, self.now)
        wanted = self.drain.wanted(self.now)
        self.running = {e: t for e, t in self.running.items() if e in wanted}
        for effect in wanted:
            self.running.setdefault(effect, self.now)

    def finish(self, effect: Effect, event: Event) -> None:
        """An effect that is still wanted has a result."""
        del self.running[effect]
        if isinstance(effect, Read) and isinstance(event, Found):
            self.last_read[effect.node] = event.record is not None
        self.take(event)

    def fail(self, effect: Effect, error: str = "no answer", *, again: bool = True, refused: bool = False) -> None:
        """An effect comes to nothing."""
        if isinstance(effect, removal.Effect):
            self.finish(effect, NotDone(effect, error, again=again, refused=refused))
        else:
            self.finish(effect, Failed(effect, error))

    def answer(self, effect: Effect) -> bool:
        """The world answers one effect, if it answers at all."""
        node = getattr(effect, "node", None)
        fault = self.faults.get(node, "") if node is not None else ""
        if fault == "hang":
            return False
        if fault:
            self.fail(effect, fault, again=fault != "reject", refused=fault == "refuse")
            return True
        event = self._outcome(effect)
        if event is not None:
            self.finish(effect, event)
        return event is not None

    def _outcome(self, effect: Effect) -> Event | None:  # noqa: PLR0912  one line for each kind
        answering = [name for name, _ in self.names if not self.faults.get(name)]
        match effect:
            case Read(_, node):
                shown = self.lagging.get(node, self.record)
                return Found(effect, shown if shown is not None and shown.enabled else None)
            case Look():
                return Found(effect, self.record) if answering else NotDone(effect, "no answer")
            case Survey():
                records = () if self.record is None else (self.record,)
                return Surveyed(effect, records, nodes=self.names) if answering else Failed(effect, "no answer")
            case Peek():
                if self.unseeable:
                    return Peeked(effect, App())
                ports = frozenset({SHOP.port} if self.port is Port.OPEN else ())
                return Peeked(effect, App(self.port, self.life if ports else None, ports))
            case Sample():
                return Sampled(effect, self.reading())
            case Knock():
                return Knocked(effect, self.hung)
            case AwaitExit(life):
                return None if self.life == life else Exited(effect)
            case Roster():
                return Rostered(effect, self.downs)
            case Signal():
                if self.obeys or effect.kill:
                    self.exit()
                return Signalled(effect)
            case Disable() | Enable() | Sweep() | Delete():
                return self.written(effect)
            case Offline() | Online() | Identify() | Inquire() | Shutdown():
                return self.inside(effect)

    def call(self, peer: str, *, answered: bool) -> None:
        """Somebody sends a request to the app, on the one connection that he keeps."""
        self.asked.setdefault(peer, []).append(self.now)
        if answered:
            self.answered[peer] = len(self.asked[peer]), self.now

    def reading(self) -> Reading:
        """What the kernel shows."""
        sockets = []
        for number, (peer, times) in enumerate(self.asked.items()):
            count, spoke = self.answered.get(peer, (0, times[0]))
            sizes = (200 * len(times), 400 * count, len(times))
            sockets.append(Socket(number, SHOP.ip, SHOP.port, peer, 40000, *sizes, heard=times[-1], spoke=spoke))
        door = Listener("::", SHOP.port, 1)
        return Reading(self.now, tuple(sockets), (), (door,), (len(sockets), len(sockets)))

    def inside(self, effect: Offline | Online | Identify | Inquire | Shutdown) -> Event:
        """The app answers, in one of the ways that are found in the field."""
        if self.life is None and not isinstance(effect, Inquire):
            refused = NotDone(effect, "refused", refused=True) if isinstance(effect, Offline | Online) else None
            return refused or Failed(effect, "refused")  # type: ignore[arg-type]  # what is left is the pod's
        match effect:
            case Identify():
                return Identified(effect, self.identity)
            case Inquire():
                return Told(effect, self.publisher)
            case Shutdown():
                if self.obeys:
                    self.exit()
                return Signalled(effect)
            case Offline():
                self.wrote.append((self.now, "offline"))
                if self.manners == "removes":
                    self.record = None
                elif self.manners == "disables" and self.record is not None:
                    self.record = replace(self.record, enabled=False)
                elif self.manners == "refuses":
                    return NotDone(effect, "404: not exposed", again=False)
                return Acknowledged(effect)
            case Online():
                self.wrote.append((self.now, "online"))
                if self.life is not None:
                    self.register()
                return Acknowledged(effect)

    def written(self, effect: Disable | Enable | Sweep | Delete) -> Event:
        """A write lands; what comes back."""
        self.wrote.append((self.now, type(effect).__name__.lower()))
        if isinstance(effect, Sweep):
            if self.record is not None:  # a new life has registered in between: it inherits
                self.record = replace(self.record, enabled=True, mark="")
            swept, self.left = self.left, None
            return Acknowledged(effect) if swept or self.record else Absent(effect)
        if isinstance(effect, Delete):  # says yes to everybody
            if self.publisher is Publisher.BEAT:
                self.unregister()
            return Acknowledged(effect)
        if self.record is None:
            return Absent(effect)
        off = isinstance(effect, Disable)
        self.record = replace(self.record, enabled=not off, mark=effect.mark if isinstance(effect, Disable) else "")
        return Acknowledged(effect)

    def settle_down(self) -> None:
        """Everything that can be answered now is."""
        if self.comes_back and self.life is None:
            self.unregister()
            self.start()
            self.register()
        answers = 0
        while any(self.answer(effect) for effect in list(self.running) if effect in self.running):
            answers += 1
            assert answers < BUSY, f"never sleeps: {sorted(map(repr, self.running))}"

    def sleep(self, seconds: float, *, cooperative: bool = True) -> None:
        """Time passes; the sidecar wakes whenever it asked to, and what takes too long fails."""
        until = self.now + seconds
        while True:
            if cooperative:
                self.settle_down()
            moments = [t + e.timeout for e, t in self.running.items() if e.timeout is not None]
            wake = self.drain.wake(self.now)
            assert wake is None or wake > self.now
            then = min([*moments, *([] if wake is None else [wake])], default=until)
            self.now = min(max(then, self.now), until)
            for effect, since in list(self.running.items()):
                late = effect.timeout is not None and since + effect.timeout <= self.now
                if late and effect in self.running:
                    self.fail(effect)
            self.take(Tick())
            if self.now >= until:
                if cooperative:
                    self.settle_down()
                return

    def sleep_until(self, *states: State, within: float) -> None:
        """Time passes in a world that answers everything, until the lease stands there."""
        until = self.now + within
        self.settle_down()
        while self.drain.state not in states:
            assert self.now < until, f"still {self.drain.state} after {within} s"
            wake = self.drain.wake(self.now)
            assert wake is not None or self.running
            self.sleep(min(until, wake if wake is not None else until) - self.now)
