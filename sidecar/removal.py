"""One instance on its way out of Nacos: the roads tried, in the app first and then from outside.

Laws of this file
- No clock and no I/O: `now` is an argument, effects are wishes, results come back as events.
- An acknowledgement is not a proof. A road is judged by what the nodes list (evidence.py); the next one is taken when
  this one fails at once, or is still contradicted 3 s after its acknowledgement.
- A write goes to one node; whether it is tried again, where and when, is decided here and nowhere else.

A removal lives from the trigger to the end of the lease and changes its goal on the way: OUT while the app that is
drained lives, CLEAN once it has exited, BACK when the lease is given back. OUT may fall back from proved to listed.
Where the app has ended by itself it is GONE from the start, and never disabled: its restart would be born so.

What the app does when asked differs by its version: a true removal, an `enabled=false` of its own, or nothing
(rollout-baseline.md section 3). So after such a road the unfiltered record is read: absent means removed, disabled
means a residue, which is then claimed with our mark and cared for like that of our own road. Why `enabled=false` needs
care: it is the one remote operation that works on every kind of instance, and it outlives the instance by 60 s
(nacos-measured.md sections 2 and 4).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from .evidence import READ_PERIOD, WATCH_PERIOD, Evidence, Node
from .registration import OPENAPI, Instance, Publisher, Record, Road


LOOK_PERIOD = 10.0  # the unfiltered record, to know when it was last there and what its weight is
READ_TIMEOUT = 2.0
WRITE_TIMEOUT = 5.0  # without a Raft leader the first answer takes 4.8 s
FIRST_LOOK_TIMEOUT = 0.5
SNAPSHOT_AGE = 1.0  # an older snapshot is read afresh: operators and canary tools act right before a stop
PATIENCE = 3.0  # a removal is in flight between nodes for 1-2.3 s
IN_FLIGHT = 1.0  # an edit within 0.46 s after an instance left answers 200 and leaves a record that never expires
STABLE = 7.0  # a beat brought a removed instance back after 1.8-5.7 s
BEATS_LATE = 2.0
ELECTION = 20.0  # a leader election answers 500 for up to 17 s
PAUSE_LEAST, PAUSE_MOST = 0.25, 2.0  # between two tries of a write
PAUSE_REJECTED = 5.0  # a refusal changes only when somebody changes something
ACK_TO_CLEAN = 2.5  # a cluster is clean 1-2.3 s after an acknowledged write
SWEEP_WITHIN = 45.0  # Nacos' expiry mark lives 60 s; a later write would never expire
NOTHING = "nothing to clean"
TOO_LATE = "left to expire: seen last too long ago to be touched safely"
BACK_PERIOD = 0.5
BACK_CONFIRM = 0.7  # an enabling write is visible after 0.55-0.65 s
BACK_WITHIN = 75.0  # 60 s of sticky record plus a slow start; after that the idle survey keeps the duty


PUSH = "push"  # a subscription of ours, among the nodes: a reader like them, but not one to write to


class Goal(StrEnum):
    """What is wanted of the instance."""

    OUT = "out"
    CLEAN = "clean"
    BACK = "back"
    GONE = "gone"  # its app ended by itself: what beats kept alive is deleted, the rest is seen to go


class Fate(StrEnum):
    """What an inside road has made of the instance, by the unfiltered record."""

    REMOVED = "removed"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Read:
    """Read the consumers' view on one node."""

    instance: Instance
    node: str
    attempt: int
    fresh: bool  # on a new connection, so that a balancer may choose another node
    timeout: float = READ_TIMEOUT


@dataclass(frozen=True, slots=True)
class Look:
    """Read the unfiltered record on all nodes at once; the first node that has it decides."""

    instance: Instance
    attempt: int
    timeout: float = READ_TIMEOUT


@dataclass(frozen=True, slots=True)
class Disable:
    """Take the instance out by `enabled=false`, through one node, with our mark on the record."""

    instance: Instance
    node: str
    weight: float
    mark: str
    attempt: int
    timeout: float = WRITE_TIMEOUT


@dataclass(frozen=True, slots=True)
class Enable:
    """Put a live, disabled instance online again and empty our mark."""

    instance: Instance
    node: str
    weight: float
    attempt: int
    timeout: float = WRITE_TIMEOUT


@dataclass(frozen=True, slots=True)
class Sweep:
    """Enable the record that a gone instance left, so that the next one on this address is not born disabled."""

    instance: Instance
    node: str
    weight: float
    attempt: int
    timeout: float = WRITE_TIMEOUT


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the record of an app that has stopped. Only what beats kept alive goes by that (nacos-measured.md 2)."""

    instance: Instance
    node: str
    attempt: int
    timeout: float = WRITE_TIMEOUT


@dataclass(frozen=True, slots=True)
class Offline:
    """Ask the app itself to leave Nacos. It may be registered several times: one call is for all of them."""

    road: str
    attempt: int
    timeout: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Online:
    """Ask the app itself to register again."""

    road: str
    attempt: int
    timeout: float = WRITE_TIMEOUT


Write = Disable | Enable | Sweep | Delete | Offline | Online
Effect = Read | Look | Write


@dataclass(frozen=True, slots=True)
class Found:
    """A read or a look ended: the record, or None where every node that answered shows none."""

    effect: Read | Look
    record: Record | None
    node: str = ""  # of a look: the one that had the record


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write was answered with success, by Nacos or by the app. No proof of anything."""

    effect: Write


@dataclass(frozen=True, slots=True)
class Absent:
    """A write was answered with Nacos' own 'no such instance'; nothing was written."""

    effect: Disable | Enable | Sweep | Delete


@dataclass(frozen=True, slots=True)
class Failed:
    """An effect came to nothing."""

    effect: Effect
    error: str
    again: bool = True  # worth another try, or not until somebody changes something
    refused: bool = False  # nobody listens there


Event = Found | Acknowledged | Absent | Failed


@dataclass(frozen=True, slots=True)
class Removal(Evidence):
    """One instance on its way out, and the evidence for it. Times are the loop's, in seconds."""

    roads: tuple[Road, ...] = (OPENAPI,)
    mark: str = ""
    publisher: Publisher = Publisher.UNKNOWN
    goal: Goal = Goal.OUT
    unhealthy: bool = False  # by Nacos' own word, when the write was decided
    spared: bool = False  # disabled by somebody else: written to by nobody here
    look_at: float | None = None
    look_timeout: float = READ_TIMEOUT
    looks: int = 0
    decided: bool = False  # whether the first look, or a fresh snapshot, has settled what to write
    road: int = 0
    given_up: tuple[str, ...] = ()  # why each road before this one was left
    write_at: float | None = None
    writer: str = ""
    writes: int = 0  # answered or not, on any road
    edits: int = 0  # those of them that were our own `enabled=false`
    failures: int = 0  # of writes, in a row
    failing_since: float | None = None
    rejected: bool = False
    error: str | None = None
    acked_at: float | None = None
    taken: Road | None = None  # the road that was acknowledged last
    marked_at: float | None = None  # when our own `enabled=false` was acknowledged
    asked: Road | None = None  # an inside road that may have taken effect
    fate: Fate | None = None  # of the inside road; None: not read yet
    claiming: bool = False  # the app left `enabled=false`: our mark is being put on it
    adopt: bool = False  # BACK also enables a disabled record without our mark
    call_back: bool = False  # BACK may ask the app: it is the life that was asked to leave
    until: float = 0.0  # of BACK
    doubt_until: float | None = None  # a disabling write was cut off: it may still land until then
    enabled_at: float | None = None  # when an enabling write of BACK was acknowledged
    ending: str | None = None  # how CLEAN or BACK ended

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def inside(self) -> bool:
        """Whether the next write asks the app."""
        return self.roads[self.road].inside and not self.claiming

    @property
    def residue(self) -> bool:
        """Whether our `enabled=false` is, as far as we know, still in a record of Nacos."""
        marked = self.record is not None and bool(self.record.mark) and not self.record.enabled
        return self.marked_at is not None or (marked and self.fate is not Fate.REMOVED)

    @property
    def _fate_open(self) -> bool:
        """Whether the app has taken it out, and what that was is not read yet."""
        return self.taken is not None and self.taken.inside and self.fate is None

    def left_behind(self, now: float) -> bool:
        """Whether a record of Nacos may be disabled because of us: an answer that never came proves nothing."""
        if self.residue or (self.asked is not None and self.fate is not Fate.REMOVED):
            return True
        return not self.spared and (self.edits > 0 or self._in_doubt(now) is not None)

    def touched(self, now: float) -> bool:
        """Whether the instance may be out because of us."""
        return self.left_behind(now) or self._asked(now) is not None

    def _under_way(self, now: float) -> bool:
        return self.goal is Goal.OUT and self.write_at is not None and self.write_at <= now

    def _in_doubt(self, now: float) -> float | None:
        return now + WRITE_TIMEOUT if self._under_way(now) and not self.inside else self.doubt_until

    def _asked(self, now: float) -> Road | None:
        return self.roads[self.road] if self._under_way(now) and self.inside else self.asked

    @property
    def stable_at(self) -> float | None:
        """Until when a beat could bring it back, so that the app may not go yet; None where none could."""
        beats = self.publisher in {Publisher.BEAT, Publisher.UNKNOWN}
        if self.clean_at is None or self.asked is None or self.residue or not beats:
            return None  # our own `enabled=false` survives beats
        beat = self.record.beat if self.record is not None else 0.0
        return self.clean_at + max(STABLE, beat + BEATS_LATE)

    @property
    def reading(self) -> bool:
        """Whether the consumers' view is still of interest: until it is proved, or a new life may begin."""
        return self.goal is Goal.OUT or (self.goal in {Goal.CLEAN, Goal.GONE} and not self.proved)

    @property
    def dealt(self) -> bool:
        """Whether its write was answered, or there is nothing to write: a node says so, and none says otherwise."""
        views = {node.present for node in self.nodes}
        idle = self.decided and self.write_at is None and False in views and True not in views
        return self.acked_at is not None or self.spared or idle

    @property
    def undoable(self) -> bool:
        """Whether giving the lease back can bring the instance back."""
        if self.residue:
            return True
        road = self.taken or self.asked or self.roads[self.road]
        return road.undoable

    # -- beginnings ------------------------------------------------------------------------------------------------

    @classmethod
    def begin(  # the trigger's whole knowledge about one instance
        cls,
        instance: Instance,
        nodes: Iterable[tuple[str, bool]],
        now: float,
        *,
        record: Record | None,
        record_at: float | None,
        seen: bool = True,
        mark: str,
        roads: tuple[Road, ...] = (OPENAPI,),
        publisher: Publisher = Publisher.UNKNOWN,
        one_address: bool = False,
        by: str = "",
    ) -> "Removal":
        """Start to take an instance out. `nodes` are (name, required); a record is what the last survey showed."""
        removal = cls(
            instance,
            tuple(Node(name, required, due=now) for name, required in nodes),
            one_address,
            record,
            record_at,
            seen and record is not None,
            roads=roads,
            mark=mark,
            publisher=publisher,
        )
        if record is not None and record_at is not None and now - record_at <= SNAPSHOT_AGE:
            return replace(removal, look_at=now + LOOK_PERIOD)._decide(now, by)
        return replace(removal, look_at=now, look_timeout=FIRST_LOOK_TIMEOUT)

    def depart(self, now: float) -> "Removal":
        """Its app has ended by itself. What a connection holds goes with it; what is persistent is not ours to end."""
        left = replace(self, goal=Goal.GONE, decided=True, write_at=None, look_at=None)
        if self.publisher is Publisher.PERSISTENT or (self.record is not None and not self.record.ephemeral):
            return replace(left, ending="a persistent instance stays")
        if self.publisher in {Publisher.GRPC, Publisher.BATCH}:
            return replace(left, ending="its connection takes it along")
        return left._schedule(now)

    def clean_up(self, now: float, *, sweep: bool = True) -> "Removal":
        """The drained app has exited: see whether the record it left can be made harmless. The reading goes on."""
        idle = replace(
            self,
            goal=Goal.CLEAN,
            asked=self._asked(now),
            write_at=None,
            look_at=None,
            failures=0,
            doubt_until=self._in_doubt(now),
            ending=None,
        )
        if not self.residue and idle.doubt_until is None and self.fate is not Fate.DISABLED:
            unread = idle.asked is not None and self.fate is None
            return replace(idle, ending="not known: what the app's own road left was not read" if unread else NOTHING)
        if not sweep:
            return replace(idle, ending="left as it is, by CLEAR_RESIDUE=never")
        if self.record is not None and not self.record.ephemeral:
            return replace(idle, ending="a persistent instance stays disabled, marked as ours")
        return replace(idle, look_at=now, look_timeout=READ_TIMEOUT)

    def bring_back(self, now: float, *, adopt: bool = False, same_life: bool = True) -> "Removal":
        """Give the lease back: enable the instance if it is disabled by us (or, with `adopt`, by anybody).

        What the app took out itself only the same life is asked to bring back: a new one registers by itself.
        """
        return replace(
            self,
            goal=Goal.BACK,
            asked=self._asked(now),
            call_back=same_life,
            write_at=None,
            look_at=now,
            look_timeout=READ_TIMEOUT,
            failures=0,
            adopt=adopt,
            doubt_until=now + WRITE_TIMEOUT if self._under_way(now) else self.doubt_until,
            until=now + BACK_WITHIN,
            ending=None,
        )

    # -- wishes ----------------------------------------------------------------------------------------------------

    def wanted(self, now: float, *, may_write: bool) -> Iterator[Effect]:
        """What should be under way now. `may_write` is false once the life that is drained has exited."""
        if self.ending is None:
            yield from self._due(now, may_write=may_write)
        if self.reading:
            for node in self.nodes:
                if node.due <= now:
                    yield Read(self.instance, node.name, node.reads, fresh=self.one_address)

    def _due(self, now: float, *, may_write: bool) -> Iterator[Effect]:
        if self.look_at is not None and self.look_at <= now:
            yield Look(self.instance, self.looks, self.look_timeout)
        if self.write_at is not None and self.write_at <= now:
            weight = self.record.weight if self.record else 1.0
            match self.goal:
                case Goal.OUT if may_write and self.inside:
                    yield Offline(self.roads[self.road].name, self.writes)
                case Goal.OUT if may_write:
                    yield Disable(self.instance, self.writer, weight, self.mark, self.writes)
                case Goal.OUT:
                    pass
                case Goal.CLEAN:
                    yield Sweep(self.instance, self.writer, weight, self.writes)
                case Goal.BACK if self.asked is not None and self.fate is Fate.REMOVED:
                    yield Online(self.asked.name, self.writes)
                case Goal.BACK:
                    yield Enable(self.instance, self.writer, weight, self.writes)
                case Goal.GONE:
                    yield Delete(self.instance, self.writer, self.writes)

    def wake(self) -> Iterator[float]:
        """The moments at which the wishes change by themselves."""
        if self.reading:
            yield from (node.due for node in self.nodes)
        if self.ending is not None:
            return
        if self.look_at is not None:
            yield self.look_at
        if self.write_at is not None:
            yield self.write_at
        if self.goal is Goal.BACK:
            yield self.until

    # -- what the world told us ------------------------------------------------------------------------------------

    def step(self, event: Event, now: float) -> "Removal":
        """Take a result in. The runner never hands in a result that is no longer wanted."""
        match event:
            case Found(effect, record, node):
                if isinstance(effect, Read):
                    return self._read(effect, record, now)
                return replace(self, looks=self.looks + 1)._looked(record, now, node)
            case Acknowledged(effect) | Absent(effect):
                return self._counted(effect)._wrote(event, now)
            case Failed(Read() as effect):
                return self.silent(effect.node, event.error, now, refused=event.refused)
            case Failed(Look()):
                return replace(self, looks=self.looks + 1)._unseen(event, now)
            case Failed(effect):
                return self._counted(effect)._unwritten(event, now)

    def _counted(self, effect: Effect) -> "Removal":
        return replace(self, writes=self.writes + 1, edits=self.edits + isinstance(effect, Disable))

    def tick(self, now: float) -> "Removal":
        """Let time pass."""
        if self.goal is Goal.BACK and self.ending is None and now >= self.until:
            return replace(self, ending="not registered again within 75 s; the idle survey goes on looking")
        return self

    def was_asked(self, now: float) -> bool:
        """Whether the app has been asked to leave, or is being asked."""
        return self._asked(now) is not None

    def skip_inside(self, now: float, because: str, *, held: bool = False) -> "Removal":
        """The app is broken: ask Nacos instead, at once where it has not been asked (`held`), else when it is quiet."""
        if self.goal is not Goal.OUT or not self.inside or self.acked_at is not None:
            return self
        sent = self.write_at if self._under_way(now) and not held else None
        asked = self.asked if held else self._asked(now)
        passed = replace(self._left_road(because), asked=asked, road=len(self.roads) - 1)
        if self.write_at is None:
            return passed
        return passed._schedule(now if sent is None else max(now, sent + IN_FLIGHT))

    def _read(self, effect: Read, record: Record | None, now: float) -> "Removal":
        node, was_clean = self.node(effect.node), self.was_clean(effect.node)
        after = self.shown(effect.node, record, now)
        if record is None:
            return after.judged(now)._wonder(now)
        return after._relisted(node.due, now, was_clean=was_clean, was_out=was_clean and self.clean_at is not None)

    def _wonder(self, now: float) -> "Removal":
        """Once the lists are clean, see what the app's own road has done."""
        soon = self.look_at is not None and self.look_at <= now + WATCH_PERIOD
        if self.goal is not Goal.OUT or not self._fate_open or soon or self.clean_at is None:
            return self
        return replace(self, look_at=now)

    def _relisted(self, read_at: float, now: float, *, was_clean: bool, was_out: bool) -> "Removal":
        """Decide whether being listed calls for another write: at once where it was out, else with some patience."""
        if self.write_at is not None or not self.decided or self.goal is not Goal.OUT:
            return self
        if self.spared:  # lists lag behind the operator who disabled it: only the record tells whether he took it back
            return replace(self, look_at=now)
        if self.acked_at is None:
            return self._schedule(now)
        if was_out:  # what the app took out came back: nothing but our own write keeps it out
            return (self._next_road("listed again") if self.inside else self)._schedule(now)
        if read_at >= self.acked_at + PATIENCE:
            kept = was_clean and not self.inside
            return (self if kept else self._next_road(f"acknowledged, but listed {PATIENCE:g} s later"))._schedule(now)
        return self

    def _decide(self, now: float, by: str = "") -> "Removal":
        """The snapshot is as fresh as it gets: write, by a node that answers, or leave an operator's decision alone."""
        record = self.record
        decided = replace(self, decided=True, unhealthy=record is not None and not record.healthy)
        if record is not None and not record.enabled and not record.mark:
            return replace(decided, spared=True)
        if decided.unhealthy:  # consumers should leave it at once, and it may not hear us
            decided = replace(decided, road=len(self.roads) - 1)
        scheduled = decided._schedule(now)
        return replace(scheduled, writer=by) if by else scheduled

    def _looked(self, record: Record | None, now: float, by: str) -> "Removal":
        error = self.error if self.failing_since is not None else None  # a write's error stays until a write works
        known = replace(self, look_at=now + LOOK_PERIOD, look_timeout=READ_TIMEOUT, error=error)
        if record is not None:
            # a disabled record is in no list: seeing it here is what can be seen. An enabled one has to be listed too
            seen = self.seen or not record.enabled
            known = replace(known, record=record, record_at=now, seen=seen)
        match self.goal:
            case Goal.OUT if record is not None and not self.decided:
                return known._decide(now, by).judged(now)
            case Goal.OUT if self.spared and record is not None and record.enabled:
                return replace(known, spared=False)._schedule(now)
            case Goal.OUT:
                return replace(known, decided=True).judged(now)._revealed(record, now)
            case Goal.CLEAN:
                return known._swept_or_not(record, now)
            case Goal.BACK:
                return known._back_or_not(record, now)
            case Goal.GONE:
                return replace(known, ending=NOTHING) if record is None else known._schedule(now)

    def _revealed(self, record: Record | None, now: float) -> "Removal":
        """The record tells whether the app has removed or disabled the instance."""
        if not self._fate_open:
            return self
        if record is None:
            return replace(self, fate=Fate.REMOVED)
        if record.enabled:  # a node that is behind, or a road without effect: the lists will tell
            return replace(self, look_at=now + READ_PERIOD if self.clean_at is not None else self.look_at)
        revealed = replace(self, fate=Fate.DISABLED)
        return revealed if record.mark else replace(revealed, claiming=True)._schedule(now)

    def _swept_or_not(self, record: Record | None, now: float) -> "Removal":
        if record is not None and not record.ephemeral:
            return replace(self, ending="a persistent instance stays disabled, marked as ours")
        if record is not None:
            return replace(self, look_at=now + READ_PERIOD)  # not yet gone: the connection closes, or beats run out
        if not self.left_behind(now):  # it was enabled by somebody before it went
            return replace(self, ending=NOTHING)
        if self._too_late(now):
            return replace(self, ending=TOO_LATE)
        return replace(self._schedule(now), look_at=None)

    def _too_late(self, now: float) -> bool:
        """Whether a write might meet a record whose expiry mark is gone, and make it stay for good."""
        return self.record_at is None or now > self.record_at + SWEEP_WITHIN

    def _back_or_not(self, record: Record | None, now: float) -> "Removal":
        if record is None:
            return self._gone_or_not_yet(now)
        cut_off = self.doubt_until is not None and now < self.doubt_until
        # a node may still show what was there before our acknowledged write
        behind = self.enabled_at is None and self.acked_at is not None and now < self.acked_at + ACK_TO_CLEAN
        if record.enabled and (cut_off or behind):
            return replace(self, look_at=now + BACK_PERIOD)
        if record.enabled and not record.mark:
            return replace(self, look_at=None, ending="online")
        if not (record.mark or self.left_behind(now) or self.adopt):
            return replace(self, look_at=None, ending="disabled by somebody else, left alone")
        return replace(self._schedule(now), look_at=None, fate=Fate.DISABLED)

    def _gone_or_not_yet(self, now: float) -> "Removal":
        """Nothing is there: what the app took out itself it has to bring back; else it is only starting."""
        waiting = self.enabled_at is not None and now < self.enabled_at + PATIENCE
        if self.asked is None or not self.asked.undoable or not self.call_back or self.residue or waiting:
            return replace(self, look_at=now + BACK_PERIOD)
        return replace(self._schedule(now), look_at=None, fate=Fate.REMOVED)

    def _unseen(self, event: Failed, now: float) -> "Removal":
        error = replace(self, error=event.error, look_timeout=READ_TIMEOUT)
        if self.goal is Goal.CLEAN and self._too_late(now):
            return replace(error, ending=TOO_LATE)
        if self.goal is not Goal.OUT:
            return replace(error, look_at=now + BACK_PERIOD)
        later = replace(error, look_at=now + (WATCH_PERIOD if self._fate_open else LOOK_PERIOD))
        if self.decided:
            return later
        if self.record is not None:
            return later._decide(now)  # the write goes out with the snapshot that we have
        return replace(later, decided=True)  # nothing is known: the first read that lists us calls for the write

    def _wrote(self, event: Acknowledged | Absent, now: float) -> "Removal":
        written = replace(self, write_at=None, failures=0, failing_since=None, rejected=False, error=None)
        match self.goal:
            case Goal.OUT if isinstance(event, Absent):
                return replace(written, claiming=False)
            case Goal.OUT if isinstance(event.effect, Offline):
                road = self.roads[self.road]
                return replace(written, acked_at=now, taken=road, asked=road)._wonder(now)
            case Goal.OUT if self.claiming:
                return replace(written, marked_at=now, claiming=False)
            case Goal.OUT:
                # a list that never showed it proves nothing; the record with our mark in it does
                look_at = self.look_at if self.seen else now + BACK_CONFIRM
                return replace(written, acked_at=now, marked_at=now, taken=OPENAPI, look_at=look_at)
            case Goal.CLEAN:
                return replace(
                    written,
                    ending="cleaned" if isinstance(event, Acknowledged) else "nothing was left",
                )
            case Goal.BACK:
                enabled = now if isinstance(event, Acknowledged) else self.enabled_at
                return replace(written, enabled_at=enabled, look_at=now + BACK_CONFIRM)
            case Goal.GONE:
                return replace(written, ending="deleted: its app had stopped")

    def _unwritten(self, event: Failed, now: float) -> "Removal":
        if isinstance(event.effect, Offline):
            return self._deaf(event, now)
        since = now if self.failing_since is None else self.failing_since
        failed = replace(
            self,
            error=event.error,
            rejected=not event.again,
            failures=self.failures + 1,
            failing_since=since,
        )
        pause = min(PAUSE_MOST, PAUSE_LEAST * 2 ** min(self.failures, 3))  # a long outage makes the power too big
        if not event.again:
            pause = PAUSE_REJECTED
        elif now - since >= ELECTION:
            pause = PAUSE_MOST
        if self.goal is not Goal.OUT:  # look again first: the world may have moved on
            return replace(failed, write_at=None, look_at=now + pause)
        return failed._schedule(now + pause)

    def _deaf(self, event: Failed, now: float) -> "Removal":
        """The app has not done it, or has not said so."""
        maybe = event.again and not event.refused  # it may be at it all the same
        asked = self.roads[self.road] if maybe else self.asked
        if maybe and self.clean_at is not None:  # the lists are a better answer than the one that never came
            return replace(self, write_at=None, acked_at=now, taken=asked, asked=asked)._wonder(now)
        sent = self.write_at if self.write_at is not None else now
        return (
            replace(self, asked=asked)._next_road(event.error)._schedule(max(now, sent + IN_FLIGHT) if maybe else now)
        )

    def _next_road(self, because: str) -> "Removal":
        if self.road + 1 == len(self.roads):
            return self
        return replace(self._left_road(because), road=self.road + 1, failures=0, failing_since=None)

    def _left_road(self, because: str) -> "Removal":
        return replace(self, given_up=(*self.given_up, f"{self.roads[self.road].name}: {because}"))

    def _schedule(self, at: float) -> "Removal":
        """Set the next write, on a node that is not known to be silent; each try goes to another one."""
        servers = [n for n in self.nodes if n.name != PUSH]
        able = [n.name for n in servers if n.error is None and not n.down] or [n.name for n in servers]
        if not able:  # no server is known: only the app can be asked
            return replace(self, write_at=at if self.inside else None, writer="")
        return replace(self, write_at=at, writer=able[self.writes % len(able)])
