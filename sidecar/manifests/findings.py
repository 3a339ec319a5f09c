"""What a rule is, and what it finds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sidecar.manifests.places import Path, Place


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.manifests.documents import Document
    from sidecar.manifests.pods import Pod


class Severity(StrEnum):
    """How much it matters, the worst first."""

    ERROR = "error"  # a stop of this pod loses requests, or the pod never starts
    WARNING = "warning"  # it may, under conditions that no manifest shows
    INFO = "info"  # worth knowing

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Told:
    """What a rule says of one pod: where, what is there, and what to write instead."""

    at: Place
    what: str
    fix: str
    story: tuple[tuple[float, str], ...] = ()  # seconds after the stop began, and what happens then
    severity: Severity | None = None  # where it is not the rule's
    document: "Document | None" = None  # where it is not the pod's


@dataclass(frozen=True, slots=True)
class Rule:
    """One mistake. `why` is what it does to a release, whatever the manifest."""

    id: str
    severity: Severity
    why: str
    look: "Callable[[Pod], Iterator[Told]]"


class Rules(list[Rule]):
    """The rules of one module, in the order in which they stand there."""

    def rule(
        self, id_: str, severity: Severity, why: str
    ) -> "Callable[[Callable[[Pod], Iterator[Told]]], Callable[[Pod], Iterator[Told]]]":
        """Make a function the look of a rule."""

        def decorate(look: "Callable[[Pod], Iterator[Told]]") -> "Callable[[Pod], Iterator[Told]]":
            self.append(Rule(id_, severity, why, look))
            return look

        return decorate


@dataclass(frozen=True, slots=True)
class Finding:
    """What was told, with all that a reader needs to find the place."""

    rule: str
    severity: Severity
    file: str
    line: int
    object: str  # Deployment shop
    path: Path
    what: str
    why: str
    fix: str
    story: tuple[tuple[float, str], ...] = ()
