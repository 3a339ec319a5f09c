"""The table: what is asked of an init, and what each of the three is known to do.

A row is a coroutine over a `Case`: it plays a behaviour with a real init and says in a few words what came of it. These
words are compared with those that stand here, for each init; where they differ, the reason stands beside them.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from inits.running import Case
from inits.subjects import NAMES, Name, Place, Target


Play = Callable[[Case], Awaitable[str]]
EVERYWHERE = (Place.FIRST, Place.OTHER)
EITHER = (Target.GROUP, Target.SINGLE)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    chapter: str
    behaviour: str
    play: Play
    outcomes: Mapping[Name, str]
    why: str
    places: tuple[Place, ...]
    targets: tuple[Target, ...]
    marks: tuple[str, ...]

    @property
    def cases(self) -> list[Case]:
        """Everyone and everywhere it is asked."""
        return [Case(name, place, target) for name in NAMES for place in self.places for target in self.targets]

    def key(self, case: Case) -> str:
        """What to call one play of it."""
        return f"{self.behaviour} / {case.name} / {case.place} / {case.target}"


ROWS: list[Row] = []


def title(module: ModuleType) -> str:
    """The chapter of a module's rows: the first line that it says of itself."""
    return (module.__doc__ or "").partition("\n")[0].rstrip(".")


def behaviour(
    words: str,
    outcome: str = "",
    *,
    ours: str = "",
    tini: str = "",
    dumb_init: str = "",
    why: str = "",
    places: tuple[Place, ...] = EVERYWHERE,
    targets: tuple[Target, ...] = (Target.GROUP,),
    marks: tuple[str, ...] = (),
) -> Callable[[Play], Play]:
    """Enter a behaviour: what all of them do, or what one does instead, and then why."""

    def enter(play: Play) -> Play:
        outcomes: dict[Name, str] = {
            "nacos-drain": ours or outcome,
            "tini": tini or outcome,
            "dumb-init": dumb_init or outcome,
        }
        assert all(outcomes.values()), words
        assert (len(set(outcomes.values())) > 1) == bool(why), f"{words}: a difference needs a reason, and only that"
        row = Row(title(sys.modules[play.__module__]), words, play, outcomes, why, places, targets, marks)
        above = next((place for place, each in enumerate(ROWS) if each.play is play), len(ROWS))
        ROWS.insert(above, row)  # of several decorators the last is entered first
        return play

    return enter
