"""What the nodes of Nacos have shown of one instance, and when that is a proof.

Laws of this file
- Absence counts only for a key that was once seen present: a wrong namespace, group or cluster answers 200 with an
  empty list everywhere.
- Unknown is not zero: a node that did not answer is neither clean nor listed.
- A proof is two clean readings in a row on every node that owes them, a quarter of a second apart: one node, or one
  moment, was seen clean for 2-4 s before a removal was undone (nacos-measured.md section 3).

A proof may be lost again; the readings go on until nobody can care any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from .registration import Instance, Record


READ_PERIOD = 0.25  # while a proof is sought
WATCH_PERIOD = 2.0  # once it is found
ROUNDS, ROUNDS_BEHIND_ONE_ADDRESS = 2, 4


class View(StrEnum):
    """What one node is known to show its consumers."""

    GONE = "gone"  # was seen present by the same query, and is not there now
    LISTED = "listed"
    NEVER_SEEN = "never_seen"  # not there, and never was as far as we know: perhaps the wrong key
    UNKNOWN = "unknown"
    DOWN = "down"  # refuses, and a node that answers says so too


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
class Evidence:
    """The readings of one instance. Times are the loop's, in seconds."""

    instance: Instance
    nodes: tuple[Node, ...]
    one_address: bool = False  # a balancer or a headless name may stand before several nodes
    record: Record | None = None
    record_at: float | None = None  # when any read last showed it
    seen: bool = False
    clean_at: float | None = None
    proved_at: float | None = None
    returns: int = 0  # how often it was listed again after it had been proved gone

    @property
    def rounds(self) -> int:
        """Clean readings that each node owes."""
        return ROUNDS_BEHIND_ONE_ADDRESS if self.one_address else ROUNDS

    @property
    def proved(self) -> bool:
        """Gone, shown by readings, and not contradicted since."""
        return self.proved_at is not None

    @property
    def absent(self) -> bool:
        """Whether every required node has answered, and none has it."""
        return not self.seen and all(node.present is False for node in self.nodes if node.required)

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

    def node(self, name: str) -> Node:
        """The evidence of this node."""
        return next(n for n in self.nodes if n.name == name)

    def _owing(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.required and not node.down)

    def was_clean(self, name: str) -> bool:
        """Whether this node's newest readings say that it is out.

        Behind one address may stand a node that is ahead and one that is behind: a short run is no evidence there.
        """
        return self.node(name).streak >= (self.rounds if self.one_address else 1)

    def shown(self, name: str, record: Record | None, now: float) -> Self:
        """A node has answered: the record, or None where it lists none."""
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
        after = known._with(
            name,
            lambda n: replace(
                n,
                required=True,
                present=record is not None,
                at=now,
                streak=0 if record is not None else n.streak + 1,
                refused=False,
                down=False,
                reads=n.reads + 1,
                due=max(n.due + period, now),
                error=None,
            ),
        )
        if record is not None and self.proved:  # back to the short period on every node
            hurried = tuple(replace(n, due=min(n.due, now + READ_PERIOD)) for n in after.nodes)
            after = replace(after, nodes=hurried)
        return after

    def silent(self, name: str, error: str, now: float, *, refused: bool) -> Self:
        """A node has not answered."""
        period = WATCH_PERIOD if self.proved else READ_PERIOD
        return self._with(
            name,
            lambda n: replace(
                n,
                present=None,
                streak=0,
                failed=True,
                refused=refused,
                down=n.down and refused,
                reads=n.reads + 1,
                due=max(n.due + period, now),
                error=error,
            ),
        )

    def lose(self, name: str) -> Self:
        """A node that answers says that this one is DOWN. It counts only where the node refuses us as well."""
        return self._with(name, lambda n: replace(n, down=n.refused))

    def judged(self, now: float) -> Self:
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

    def _with(self, name: str, change: Callable[[Node], Node]) -> Self:
        return replace(self, nodes=tuple(change(n) if n.name == name else n for n in self.nodes))
