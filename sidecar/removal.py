"""One instance on its way out of Nacos: the roads tried, and the evidence of every node.

Laws of this file
- No clock and no I/O: `now` is an argument, effects are wishes, results come back as events.
- An acknowledgement is not a proof. Only readings are, and only for a key that was once seen present.
- Unknown is not zero: a node that did not answer is neither clean nor listed.
- A write goes to one node; whether it is tried again, where and when, is decided here and nowhere else.

A removal lives from the trigger to the end of the lease and changes its goal on the way: OUT while the app that is
drained lives, CLEAN once it has exited, BACK when the lease is given back. OUT may fall back from proved to listed.
Why `enabled=false` needs all this: it is the one remote operation that works on every kind of instance, and it
outlives the instance by 60 s (nacos-measured.md sections 2 and 4).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from .registration import OPENAPI, Instance, Record, Road


READ_PERIOD = 0.25  # while a proof is sought
WATCH_PERIOD = 2.0  # once it is found
LOOK_PERIOD = 10.0  # the unfiltered record, to know when it was last there and what its weight is
ROUNDS, ROUNDS_BEHIND_ONE_ADDRESS = 2, 4
READ_TIMEOUT = 2.0
WRITE_TIMEOUT = 5.0  # without a Raft leader the first answer takes 4.8 s
FIRST_LOOK_TIMEOUT = 0.5
SNAPSHOT_AGE = 5.0  # an older snapshot is read afresh before the write
PATIENCE = 3.0  # a removal is in flight between nodes for 1-2.3 s
ELECTION = 20.0  # a leader election answers 500 for up to 17 s
PAUSE_LEAST, PAUSE_MOST = 0.25, 2.0  # between two tries of a write
PAUSE_REJECTED = 5.0  # a refusal changes only when somebody changes something
ACK_TO_CLEAN = 2.5  # a cluster is clean 1-2.3 s after an acknowledged write
SWEEP_WITHIN = 45.0  # Nacos' expiry mark lives 60 s; a later write would never expire
TOO_LATE = "left to expire: seen last too long ago to be touched safely"
BACK_PERIOD = 0.5
BACK_CONFIRM = 0.7  # an enabling write is visible after 0.55-0.65 s
BACK_WITHIN = 75.0  # 60 s of sticky record plus a slow start; after that the idle survey keeps the duty


class Goal(StrEnum):
    """What is wanted of the instance."""

    OUT = "out"
    CLEAN = "clean"
    BACK = "back"


class View(StrEnum):
    """What one node is known to show its consumers."""

    GONE = "gone"  # was seen present by the same query, and is not there now
    LISTED = "listed"
    NEVER_SEEN = "never_seen"  # not there, and never was as far as we know: perhaps the wrong key
    UNKNOWN = "unknown"
    DOWN = "down"  # refuses, and a node that answers says so too


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
    """Take the instance out by a road, through one node, leaving our mark where the road leaves a record."""

    instance: Instance
    road: str
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


Effect = Read | Look | Disable | Enable | Sweep


@dataclass(frozen=True, slots=True)
class Found:
    """A read or a look ended: the record, or None where every node that answered shows none."""

    effect: Read | Look
    record: Record | None
    node: str = ""  # of a look: the one that had the record


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write was answered with Nacos' own success. No proof of anything."""

    effect: Disable | Enable | Sweep


@dataclass(frozen=True, slots=True)
class Absent:
    """A write was answered with Nacos' own 'no such instance'; nothing was written."""

    effect: Disable | Enable | Sweep


@dataclass(frozen=True, slots=True)
class Failed:
    """An effect came to nothing."""

    effect: Effect
    error: str
    again: bool = True  # worth another try, or not until somebody changes something
    refused: bool = False  # nobody listens there


Event = Found | Acknowledged | Absent | Failed


@dataclass(frozen=True, slots=True)
class Node:
    """The evidence of one Nacos node about one instance."""

    name: str
    required: bool = True
    present: bool | None = None  # the last reading; None: it failed, or there was none yet
    at: float | None = None  # of the last reading that was answered
    streak: int = 0  # clean readings in a row
    failed: bool = False  # in this run
    refused: bool = False
    down: bool = False
    reads: int = 0
    due: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """One instance on its way out, and the evidence for it. Times are the loop's, in seconds."""

    instance: Instance
    nodes: tuple[Node, ...]
    roads: tuple[Road, ...] = (OPENAPI,)
    mark: str = ""
    one_address: bool = False  # a balancer or a headless name may stand before several nodes
    goal: Goal = Goal.OUT
    record: Record | None = None
    record_at: float | None = None  # when any read last showed it
    seen: bool = False
    unhealthy: bool = False  # by Nacos' own word, when the write was decided
    spared: bool = False  # disabled by somebody else: written to by nobody here
    look_at: float | None = None
    look_timeout: float = READ_TIMEOUT
    looks: int = 0
    decided: bool = False  # whether the first look, or a fresh snapshot, has settled what to write
    road: int = 0
    write_at: float | None = None
    writer: str = ""
    writes: int = 0
    failures: int = 0  # of writes, in a row
    failing_since: float | None = None
    rejected: bool = False
    error: str | None = None
    acked_at: float | None = None
    clean_at: float | None = None
    proved_at: float | None = None
    returns: int = 0  # how often it was listed again after it had been proved gone
    adopt: bool = False  # BACK also enables a disabled record without our mark
    until: float = 0.0  # of BACK
    doubt_until: float | None = None  # a disabling write was cut off: it may still land until then
    enabled_at: float | None = None  # when an enabling write of BACK was acknowledged
    ending: str | None = None  # how CLEAN or BACK ended

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def rounds(self) -> int:
        """Clean readings that each node owes."""
        return ROUNDS_BEHIND_ONE_ADDRESS if self.one_address else ROUNDS

    @property
    def proved(self) -> bool:
        """Gone, shown by readings, and not contradicted since."""
        return self.proved_at is not None

    @property
    def residue(self) -> bool:
        """Whether our `enabled=false` is, as far as we know, still in a record of Nacos."""
        return self.acked_at is not None or (
            self.record is not None and bool(self.record.mark) and not self.record.enabled
        )

    def touched(self, now: float) -> bool:
        """Whether a disabling write of ours may be in force: an answer that never came is no proof of the opposite."""
        return self.residue or (not self.spared and (self.writes > 0 or self._in_doubt(now) is not None))

    def _in_doubt(self, now: float) -> float | None:
        under_way = self.goal is Goal.OUT and self.write_at is not None and self.write_at <= now
        return now + WRITE_TIMEOUT if under_way else self.doubt_until

    @property
    def reading(self) -> bool:
        """Whether the consumers' view is still of interest: until it is proved, or a new life may begin."""
        return self.goal is Goal.OUT or (self.goal is Goal.CLEAN and not self.proved)

    @property
    def dealt(self) -> bool:
        """Whether its write was answered, or there is nothing to write: a node says so, and none says otherwise."""
        views = {node.present for node in self.nodes}
        idle = self.decided and self.write_at is None and False in views and True not in views
        return self.acked_at is not None or self.spared or idle

    @property
    def absent(self) -> bool:
        """Whether every required node has answered, and none has it."""
        return not self.seen and all(node.present is False for node in self.nodes if node.required)

    @property
    def undoable(self) -> bool:
        """Whether giving the lease back can bring the instance back."""
        return self.roads[self.road].undoable

    def view(self, node: Node) -> View:
        """What the report may say of one node."""
        if node.down:
            return View.DOWN
        match node.present:
            case None:
                return View.UNKNOWN
            case True:
                return View.LISTED
            case False:
                return View.GONE if self.seen else View.NEVER_SEEN

    def _owing(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.required and not node.down)

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
        one_address: bool = False,
        by: str = "",
    ) -> "Removal":
        """Start to take an instance out. `nodes` are (name, required); a record is what the last survey showed."""
        removal = cls(
            instance,
            tuple(Node(name, required, due=now) for name, required in nodes),
            roads,
            mark,
            one_address,
            record=record,
            record_at=record_at,
            seen=seen and record is not None,
        )
        if record is not None and record_at is not None and now - record_at <= SNAPSHOT_AGE:
            return replace(removal, look_at=now + LOOK_PERIOD)._decide(now, by)
        return replace(removal, look_at=now, look_timeout=FIRST_LOOK_TIMEOUT)

    def clean_up(self, now: float, *, sweep: bool = True) -> "Removal":
        """The drained app has exited: see whether the record it left can be made harmless. The reading goes on."""
        idle = replace(
            self,
            goal=Goal.CLEAN,
            write_at=None,
            look_at=None,
            failures=0,
            doubt_until=self._in_doubt(now),
            ending=None,
        )
        if not self.residue and idle.doubt_until is None:
            return replace(idle, ending="nothing to clean")
        if not sweep:
            return replace(idle, ending="left as it is, by CLEAR_RESIDUE=never")
        if self.record is not None and not self.record.ephemeral:
            return replace(idle, ending="a persistent instance stays disabled, marked as ours")
        return replace(idle, look_at=now, look_timeout=READ_TIMEOUT)

    def bring_back(self, now: float, *, adopt: bool = False) -> "Removal":
        """Give the lease back: enable the instance if it is disabled by us (or, with `adopt`, by anybody)."""
        return replace(
            self,
            goal=Goal.BACK,
            write_at=None,
            look_at=now,
            look_timeout=READ_TIMEOUT,
            failures=0,
            adopt=adopt,
            doubt_until=self._in_doubt(now),
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
                case Goal.OUT if may_write:
                    road = self.roads[self.road].name
                    yield Disable(self.instance, road, self.writer, weight, self.mark, self.writes)
                case Goal.OUT:
                    pass
                case Goal.CLEAN:
                    yield Sweep(self.instance, self.writer, weight, self.writes)
                case Goal.BACK:
                    yield Enable(self.instance, self.writer, weight, self.writes)

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
            case Acknowledged() | Absent():
                return replace(self, writes=self.writes + 1)._wrote(event, now)
            case Failed(Read() as effect):
                return self._unread(effect, event, now)
            case Failed(Look()):
                return replace(self, looks=self.looks + 1)._unseen(event, now)
            case Failed():
                return replace(self, writes=self.writes + 1)._unwritten(event, now)

    def tick(self, now: float) -> "Removal":
        """Let time pass."""
        if self.goal is Goal.BACK and self.ending is None and now >= self.until:
            return replace(self, ending="not registered again within 75 s; the idle survey goes on looking")
        return self

    def lose(self, node: str) -> "Removal":
        """A node that answers says that this one is DOWN. It counts only where the node refuses us as well."""
        return self._with(node, lambda n: replace(n, down=n.refused))

    def _with(self, name: str, change: Callable[[Node], Node]) -> "Removal":
        return replace(self, nodes=tuple(change(n) if n.name == name else n for n in self.nodes))

    def _read(self, effect: Read, record: Record | None, now: float) -> "Removal":
        node = next(n for n in self.nodes if n.name == effect.node)
        listed = record is not None
        # behind one address may stand a node that is ahead and one that is behind: a short run is no evidence
        was_clean = node.streak >= (self.rounds if self.one_address else 1)
        known = self
        if record is not None:
            known = replace(
                self,
                record=record,
                record_at=now,
                seen=True,
                clean_at=None,
                proved_at=None,
                returns=self.returns + self.proved,
            )
        period = WATCH_PERIOD if known.proved else READ_PERIOD
        answered = replace(
            node,
            required=True,
            present=listed,
            at=now,
            streak=0 if listed else node.streak + 1,
            refused=False,
            down=False,
            reads=node.reads + 1,
            due=max(node.due + period, now),
            error=None,
        )
        after = known._with(node.name, lambda _: answered)
        if not listed:
            return after._judge(now)
        if self.proved:  # back to the short period on every node
            after = replace(
                after,
                nodes=tuple(replace(n, due=min(n.due, now + READ_PERIOD)) for n in after.nodes),
            )
        return after._relisted(node.due, now, was_clean=was_clean, was_out=was_clean and self.clean_at is not None)

    def _relisted(self, read_at: float, now: float, *, was_clean: bool, was_out: bool) -> "Removal":
        """Decide whether being listed calls for another write: at once where it was out, else with some patience."""
        if self.write_at is not None or not self.decided or self.goal is not Goal.OUT:
            return self
        if self.spared:  # lists lag behind the operator who disabled it: only the record tells whether he took it back
            return replace(self, look_at=now)
        if self.acked_at is None or was_out:
            return self._schedule(now)
        if read_at >= self.acked_at + PATIENCE:
            return (self if was_clean else self._next_road())._schedule(now)
        return self

    def _judge(self, now: float) -> "Removal":
        """See whether the readings make a proof."""
        owing = tuple(self._owing())
        if not self.seen or not owing:
            return self
        judged = self
        if judged.clean_at is None and all(node.streak > 0 for node in owing):
            judged = replace(judged, clean_at=now)
        if judged.proved_at is None and all(node.streak >= self.rounds + node.failed for node in owing):
            slower = tuple(replace(node, due=node.due - READ_PERIOD + WATCH_PERIOD) for node in judged.nodes)
            judged = replace(judged, proved_at=now, nodes=slower)
        return judged

    def _unread(self, effect: Read, event: Failed, now: float) -> "Removal":
        period = WATCH_PERIOD if self.proved else READ_PERIOD
        return self._with(
            effect.node,
            lambda n: replace(
                n,
                present=None,
                streak=0,
                failed=True,
                refused=event.refused,
                reads=n.reads + 1,
                due=max(n.due + period, now),
                error=event.error,
            ),
        )

    def _decide(self, now: float, by: str = "") -> "Removal":
        """The snapshot is as fresh as it gets: write, by a node that answers, or leave an operator's decision alone."""
        record = self.record
        decided = replace(self, decided=True, unhealthy=record is not None and not record.healthy)
        if record is not None and not record.enabled and not record.mark:
            return replace(decided, spared=True)
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
                return known._decide(now, by)._judge(now)
            case Goal.OUT if self.spared and record is not None and record.enabled:
                return replace(known, spared=False)._schedule(now)
            case Goal.OUT:
                return replace(known, decided=True)._judge(now)
            case Goal.CLEAN:
                return known._swept_or_not(record, now)
            case Goal.BACK:
                return known._back_or_not(record, now)

    def _swept_or_not(self, record: Record | None, now: float) -> "Removal":
        if record is not None and not record.ephemeral:
            return replace(self, ending="a persistent instance stays disabled, marked as ours")
        if record is not None:
            return replace(self, look_at=now + READ_PERIOD)  # not yet gone: the connection closes, or beats run out
        if not self.touched(now):  # it was enabled by somebody before it went
            return replace(self, ending="nothing to clean")
        if self._too_late(now):
            return replace(self, ending=TOO_LATE)
        return replace(self._schedule(now), look_at=None)

    def _too_late(self, now: float) -> bool:
        """Whether a write might meet a record whose expiry mark is gone, and make it stay for good."""
        return self.record_at is None or now > self.record_at + SWEEP_WITHIN

    def _back_or_not(self, record: Record | None, now: float) -> "Removal":
        if record is None:
            return replace(self, look_at=now + BACK_PERIOD)
        cut_off = self.doubt_until is not None and now < self.doubt_until
        # a node may still show what was there before our acknowledged write
        behind = self.enabled_at is None and self.acked_at is not None and now < self.acked_at + ACK_TO_CLEAN
        if record.enabled and (cut_off or behind):
            return replace(self, look_at=now + BACK_PERIOD)
        if record.enabled:
            return replace(self, look_at=None, ending="online")
        if not (record.mark or self.acked_at is not None or self.doubt_until is not None or self.adopt):
            return replace(self, look_at=None, ending="disabled by somebody else, left alone")
        return replace(self._schedule(now), look_at=None)

    def _unseen(self, event: Failed, now: float) -> "Removal":
        error = replace(self, error=event.error, look_timeout=READ_TIMEOUT)
        if self.goal is Goal.CLEAN and self._too_late(now):
            return replace(error, ending=TOO_LATE)
        if self.goal is not Goal.OUT:
            return replace(error, look_at=now + BACK_PERIOD)
        later = replace(error, look_at=now + LOOK_PERIOD)
        if self.decided:
            return later
        if self.record is not None:
            return later._decide(now)  # the write goes out with the snapshot that we have
        return replace(later, decided=True)  # nothing is known: the first read that lists us calls for the write

    def _wrote(self, event: Acknowledged | Absent, now: float) -> "Removal":
        written = replace(self, write_at=None, failures=0, failing_since=None, rejected=False, error=None)
        match self.goal:
            case Goal.OUT if isinstance(event, Absent):
                return written
            case Goal.OUT:
                # a list that never showed it proves nothing; the record with our mark in it does
                return replace(written, acked_at=now, look_at=self.look_at if self.seen else now + BACK_CONFIRM)
            case Goal.CLEAN:
                return replace(
                    written,
                    ending="cleaned" if isinstance(event, Acknowledged) else "nothing was left",
                )
            case Goal.BACK:
                enabled = now if isinstance(event, Acknowledged) else self.enabled_at
                return replace(written, enabled_at=enabled, look_at=now + BACK_CONFIRM)

    def _unwritten(self, event: Failed, now: float) -> "Removal":
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
            failed, pause = failed._next_road(), PAUSE_REJECTED
        elif now - since >= ELECTION:
            failed, pause = failed._next_road(), PAUSE_MOST
        if self.goal is not Goal.OUT:  # look again first: the world may have moved on
            return replace(failed, write_at=None, look_at=now + pause)
        return failed._schedule(now + pause)

    def _next_road(self) -> "Removal":
        if self.road + 1 == len(self.roads):
            return self
        return replace(self, road=self.road + 1, failures=0, failing_since=None)

    def _schedule(self, at: float) -> "Removal":
        """Set the next write, on a node that is not known to be silent; each try goes to another one."""
        able = [n.name for n in self.nodes if n.error is None and not n.down] or [n.name for n in self.nodes]
        return replace(self, write_at=at, writer=able[self.writes % len(able)])
