"""One result: what was looked at, what was read, and what to do about it. Shape and names are public (contracts.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


LONGEST = 600  # characters of a line that somebody has to read
MOST_NAMED = 4


class Verdict(StrEnum):
    """What a reading means for the next drain."""

    OK = "ok"
    WARNING = "warning"  # it works, and something is worth knowing
    FAILING = "failing"
    UNKNOWN = "unknown"  # could not be read; never good news


SEVERITY = {
    verdict: rank for rank, verdict in enumerate((Verdict.OK, Verdict.WARNING, Verdict.UNKNOWN, Verdict.FAILING))
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a rehearsal."""

    name: str
    verdict: Verdict
    detail: str  # what was read
    next_step: str = ""  # what to do, naming the setting or the person; empty when nothing is

    def as_json(self) -> dict[str, str | None]:
        """As `doctor --json` and `/status` show it."""
        return {
            "check": self.name,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "next_step": self.next_step or None,
        }


@dataclass(frozen=True, slots=True)
class Remark:
    """What there is to say of one of several things that a check is about."""

    verdict: Verdict
    detail: str
    next_step: str = ""


def check(name: str, verdict: Verdict, detail: str, next_step: str = "") -> Check:
    """Make a result of one line each, whatever was quoted in it."""
    return Check(name, verdict, _line(detail), _line(next_step))


def together(name: str, remarks: Iterable[Remark]) -> Check:
    """One result about several things: as bad as the worst, which is named first and whose next step is told."""
    ranked = sorted(remarks, key=lambda remark: -SEVERITY[remark.verdict])
    worst = ranked[0]
    details = [remark.detail for remark in ranked]
    return check(name, worst.verdict, listed(details, "; "), worst.next_step)


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """The first few, and how many more there are."""
    all_ = list(dict.fromkeys(names))
    more = len(all_) - MOST_NAMED
    return separator.join(all_[:MOST_NAMED]) + (f"{separator}and {more} more" if more > 0 else "")


def bad(checks: Iterable[Check]) -> bool:
    """Whether anything is failing, or could not be read."""
    return any(each.verdict in {Verdict.FAILING, Verdict.UNKNOWN} for each in checks)


def _line(text: str) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"
