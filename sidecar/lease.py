"""One drain, from its trigger to its end: what is known of it, and what follows from that.

A record without behaviour of its own: `drain.py` changes it, `report.py` tells it. No clock and no I/O here either.
A *life* is one run of the app: its process where we can see it, else the inodes of its listening sockets.
"""

from dataclasses import dataclass
from enum import StrEnum

from .plan import Plan
from .removal import ACK_TO_CLEAN, Removal
from .settle import Verdict


class State(StrEnum):
    """Where the lease stands."""

    ARMED = "armed"
    DRAINING = "draining"
    RELEASED = "released"
    RESTORING = "restoring"
    ENDED = "ended"


class Trigger(StrEnum):
    """What started a drain."""

    HOOK = "hook"
    MANUAL = "manual"  # a person, not a stop: uses only roads that can be undone, and signals nobody
    SIGTERM = "sigterm"
    SIGINT = "sigint"
    EXIT = "exit"  # the app has ended by itself, and we are its init: what it left in Nacos is looked after


class Release(StrEnum):
    """How the app learns that it may stop."""

    HOOK = "hook"  # the answer to preStop
    SIGNAL = "signal"
    ACTUATOR = "actuator"  # POST /actuator/shutdown


class Residue(StrEnum):
    """Whose `enabled=false` is cleared when a live app is found disabled."""

    OURS = "ours"
    BORN = "born"  # also a record that was disabled before this app life was first seen: what a folk hook leaves
    NEVER = "never"


class Port(StrEnum):
    """The app's listening ports, as the kernel shows them."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """How a drain ended."""

    DRAINED = "drained"
    UNPROVEN = "unproven"
    NEVER_SEEN = "never_seen"
    CAPPED = "capped"
    ABORTED = "aborted"
    LEASE_EXPIRED = "lease_expired"
    NOTHING_REGISTERED = "nothing_registered"


class Why(StrEnum):
    """What let the app go."""

    SETTLED = "settled"
    DEADLINE = "deadline"
    ASKED = "release asked for"
    VANISHED = "the app is gone"
    HUNG = "the app is hung"
    UNHEALTHY = "Nacos lists the app as unhealthy"
    ILL = "the app's health endpoint says that it is down"
    NOTHING = "nothing is registered"


@dataclass(frozen=True, slots=True)
class Life:
    """One run of the app. Equal when it is the same process, or, where none is visible, when a socket is shared."""

    sockets: frozenset[int]  # inodes of its listening sockets
    pid: int | None = None
    started: float | None = None  # of the process, seconds since the boot: a pid alone may be reused

    def same(self, other: "Life | None") -> bool:
        """Whether both are the same run."""
        if other is None:
            return False
        process = self.pid is not None and (self.pid, self.started) == (other.pid, other.started)
        return process or bool(self.sockets & other.sockets)


@dataclass(frozen=True, slots=True)
class App:
    """One look at the app's ports."""

    port: Port = Port.UNKNOWN
    life: Life | None = None
    ports: frozenset[int] = frozenset()
    age: float | None = None  # seconds its process runs; None where it is not visible


@dataclass(frozen=True, slots=True)
class Lease:
    """One drain, from its trigger to its end. Times are the loop's; None means: not yet."""

    id: str
    trigger: Trigger
    started: float
    plan: Plan
    removals: tuple[Removal, ...]
    life: Life | None
    sigterm_at: float | None = None
    hook_at: float | None = None
    peeked: bool = False
    knocked: bool = False
    hung: bool = False
    ill: bool = False  # by its own health endpoint
    nothing: bool = False  # the app says that it does not register
    mark: str = ""  # what our disabling write leaves in the record
    init: bool = False  # we are the app's init, and what stops us stops it
    dealt_at: float | None = None  # every removal has an answer to its write, or needs none
    proved_at: float | None = None
    proved_on: int = 0  # nodes
    elsewhere: bool = False  # Nacos lists the instance with a port on which nobody listens here
    verdict: Verdict | None = None
    release_asked: bool = False
    released_at: float | None = None
    why: Why | None = None
    signalled_at: float | None = None
    killed_at: float | None = None
    signal_error: str | None = None
    closed_at: float | None = None
    exited_at: float | None = None
    exit_code: int | None = None  # where we are its init
    cleaned_at: float | None = None
    forced: Outcome | None = None  # aborted or expired
    final_at: float | None = None
    proved_at_release: bool = False
    settled_from: float | None = None  # SETTLE's clock, as it stood at the release

    @property
    def passes_on(self) -> bool:
        """Whether we are an init that was told to stop: the app hears the same, and nobody else knows when it ends."""
        return self.init and self.sigterm_at is not None

    def drains(self, life: Life | None) -> bool:
        """Whether this is the life that is drained, and no other one after it."""
        return self.life is not None and self.life.same(life)

    def release(self, configured: Release) -> Release:
        """How the app learns that it may stop."""
        return Release.SIGNAL if self.passes_on else configured

    @property
    def deadline(self) -> float:
        """When the app is released, whatever is known by then."""
        return self.started + max(0.0, self.plan.budget)

    @property
    def proof_limit(self) -> float:
        """When VERIFY gives up."""
        return self.started + self.plan.proof

    @property
    def grace_end(self) -> float:
        """When the kubelet would kill. A hook says best when the stop began: delivered again, it has the whole time."""
        began = self.hook_at if self.hook_at is not None else self.sigterm_at
        return (began if began is not None else self.started) + self.plan.grace_period

    @property
    def counted(self) -> tuple[Removal, ...]:
        """The removals that the proof needs: of a service whose instance was seen, only that."""
        if all(r.seen for r in self.removals):
            return self.removals
        seen = {r.instance.service for r in self.removals if r.seen}
        return tuple(r for r in self.removals if r.seen or r.instance.service not in seen)

    @property
    def all_seen(self) -> bool:
        """Whether every service has an instance that was seen present."""
        return bool(self.removals) and all(r.seen for r in self.counted)

    @property
    def proved(self) -> bool:
        """Gone, on every required node, by readings."""
        return self.all_seen and all(r.proved for r in self.counted)

    @property
    def proved_by_us(self) -> bool:
        """Whether there is a proof, and it is a merit of the drain.

        An app that is let go although no road was acknowledged leaves Nacos by itself when it exits. Only where it was
        gone first, or somebody asked, nobody waited for a proof, and it counts whenever it comes.
        """
        waited = self.released_at is not None and self.why not in {Why.VANISHED, Why.ASKED}
        taken = all(r.acked_at is not None for r in self.counted)
        return self.proved and (self.proved_at_release or taken or not waited)

    @property
    def unhealthy(self) -> bool:
        """Whether Nacos itself listed the instance as unhealthy at the trigger."""
        return any(r.unhealthy for r in self.counted)

    @property
    def stopping(self) -> bool:
        """Whether anything but a person's drain has asked for the app's end."""
        return self.hook_at is not None or self.sigterm_at is not None

    @property
    def skips_settle(self) -> bool:
        """A broken app is left at once: waiting would only keep its callers waiting."""
        return self.hung or self.ill or self.unhealthy

    @property
    def unaware(self) -> bool:
        """Whether nobody has told yet what there is to take out."""
        return not self.removals and not self.nothing and self.exited_at is None

    @property
    def stable_at(self) -> float | None:
        """Until when a beat could bring back what the app has taken out; None where none could."""
        return max((r.stable_at for r in self.counted if r.stable_at is not None), default=None)

    def clock(self, now: float) -> float | None:
        """When SETTLE's clock started: at the first clean round; without proof as late as is honest."""
        if self.all_seen and all(r.clean_at is not None for r in self.counted):
            return max(r.clean_at or 0.0 for r in self.counted)
        if now < self.proof_limit:
            return None
        acks = [r.acked_at for r in self.counted if r.acked_at is not None]
        return max(acks) + ACK_TO_CLEAN if acks and len(acks) == len(self.counted) else self.proof_limit

    def settle_end(self, now: float) -> float:
        """The latest moment of SETTLE: its cap, within the deadline."""
        clock = self.clock(now)
        return self.deadline if clock is None else min(clock + self.plan.cap, self.deadline)

    @property
    def outcome(self) -> Outcome:
        """What can be said of this drain now."""
        if self.forced is not None:
            return self.forced
        if self.nothing and not self.removals:
            return Outcome.NOTHING_REGISTERED
        if not self.all_seen:
            asked = bool(self.removals) and all(r.absent for r in self.removals)
            return Outcome.NOTHING_REGISTERED if asked and self.life is None else Outcome.NEVER_SEEN
        if not self.proved_by_us:
            return Outcome.UNPROVEN
        capped = self.verdict is not None and self.verdict.callers and self.why in {Why.SETTLED, Why.DEADLINE}
        return Outcome.CAPPED if capped else Outcome.DRAINED
