"""`bench/results/settle.md`: what the simulation found, for readers. Made from settle.json alone.

python -m bench.tables  # again, after a change of the words
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from .cells import BUSY_PEER


RESULTS = Path(__file__).resolve().parent / "results"
Found = dict[str, Any]
OURS = "nacos-drain"

HEAD = """\
# The quiet rule against callers whose last request is known

`make simulate` drove `sidecar/settle.py` through {cells} cells, {drains:,} drains in all: floor {floor:g} s,
quiet {quiet:g} s, factor {factor:g}, look-back {look_back:g} s, cap 40 s; one sample per second, two after the trigger.
"""

WORLD = """\
A drain is *too early* when any request arrived after the release; the share in brackets is the one-sided 95 % upper
bound (Clopper and Pearson). SETTLE counts from the clean Nacos list to the release. Sleeps count from the trigger, as
hooks do, which is 0.56 to 0.93 s before. Consumers do what was measured: those that follow pushes stop between 0.46 s
before and 0.15 s after the list is clean, cached ones each within 35 s of it.

A name is shape, requests/s of each peer at this pod, peers, consumers; `50+0.02` is a busy peer beside a rare one.
*poisson*: at random. *periodic*: a schedule, and 2 % off it at most. *bursty*: 2 to 10 requests 10 to 50 ms apart
(nearer above 8/s), then a pause of random length, every tenth ten times as long. *diurnal*: at random, at a rate that
swings by 90 % in a day of 20 min.

Every sidecar is exactly one look-back old, and its trigger falls on the border between two halves of its memory: it
knows as little as a sidecar may that does not wait for the cap anyhow. Every drain can be played again alone:
`python -m bench.simulation --replay CELL NUMBER`.
"""

BOUNDS = """\
## What has to hold

- Too early, upper bound: at most 0.15 % in every poisson and periodic cell, 1.2 % in every bursty and diurnal one.
- Where every peer calls 10 times a second or more, at night too: a median SETTLE of at most 4.5 s for push consumers,
  and for cached ones at most 5 s after the last call. Bursty peers are left out of this one: see "Busy callers".
"""

BUSY = """\
## Busy callers

All cells whose peers call 10 times a second or more on average; medians in seconds. At night a diurnal peer calls a
tenth as often, so that only those with 200/s are busy at any time. A bursty peer is silent between its bursts, and its
longest silences are real ones: at 10/s ten seconds and more, so that three times that is near the cap; at 50/s some
3 s; at 200/s less than 1 s, and it is let go like any other. For all of them the bounds on too-early drains hold.
"""

STUDY = """\
## Where the defaults come from

One number changed at a time; too early, and the median SETTLE in seconds. {drains:,} drains each.
"""

CHOICE = """\
Factor: with 1, some drains of a hundred are too early wherever calls come at random. With 2 hardly any are, but where
the rate changes (diurnal) still nearly as many as may be. 3 is the first with room to spare; 4 only waits longer.
Look-back: 60 s do not know a rare caller beside a busy one. Quiet: 1 to 5 s make no difference to safety here, as all
pauses of these callers are in their rhythms. 3 s are for a pause that is in no rhythm, like a caller's full garbage
collection; 5 s would cost each drain of busy callers two more.
"""

AGES = """\
## Older sidecars

The same cells by the age of the sidecar; {drains:,} drains each. An older one knows longer silences.
"""

UNSEEN = """\
## Nobody seen so far

How often it would be too early to believe, after so long, that nobody calls because nobody has; {drains:,} drains each.
No rule can know a caller that never came. So with nobody in its memory, a sidecar waits for the cap until it has
watched for twelve look-backs.
"""


def page(found: Found) -> str:
    """The whole page."""
    cells: list[Found] = found["cells"]
    return "\n".join(
        [
            HEAD.format(cells=len(cells), drains=sum(cell["drains"] for cell in cells), **found["rule"]),
            WORLD,
            BOUNDS,
            *_verdict(found["wrong"]),
            *_methods(cells),
            "## Every cell",
            "",
            *_cells(cells),
            BUSY,
            *_busy(cells),
            *_grid(STUDY, found["study"]),
            CHOICE,
            *_grid(AGES, {f"{int(age) // 60} min": row for age, row in found["ages"].items()}),
            *_unseen(found["unseen"]),
        ]
    )


def _verdict(wrong: Sequence[str]) -> Iterable[str]:
    if not wrong:
        yield "All of it holds.\n"
        return
    yield "**It does not hold:**\n"
    yield from (f"- {each}" for each in wrong)
    yield ""


def _methods(cells: Sequence[Found]) -> Iterable[str]:
    rows = []
    for method in cells[0]["methods"]:
        shares = [early(cell, method) for cell in cells]
        waits = [cell["methods"][method]["median"] for cell in cells]
        worst = max(shares)
        rows.append(
            (
                method,
                percent(mean(shares)),
                f"{percent(worst)} ({cells[shares.index(worst)]['cell']})" if worst else "0 %",
                f"{min(waits):.1f} to {max(waits):.1f}",
            )
        )
    yield from _table(("over all cells", "too early, mean", "the worst cell", "median SETTLE of a cell, s"), rows)


def early(cell: Found, method: str = OURS) -> float:
    """The share of drains that let the app go too early."""
    return float(cell["methods"][method]["early"] / cell["drains"])


def _cells(cells: Sequence[Found]) -> Iterable[str]:
    rivals = [method for method in cells[0]["methods"] if method != OURS]
    head = ("cell", "too early", "SETTLE, s: median", "p95", "after the last call, s", "at the cap", *rivals)
    rows = []
    for cell in cells:
        ours = cell["methods"][OURS]
        rows.append(
            (
                cell["cell"],
                f"{ours['early']} of {cell['drains']:,} (≤ {percent(ours['upper'])})",
                f"{ours['median']:.1f}",
                f"{ours['p95']:.1f}",
                "none came" if cell["after_last"] is None else f"{cell['after_last']:.1f}",
                f"{cell['clauses'].get('cap', 0) / cell['drains']:.0%}".replace("%", " %"),
                *(percent(early(cell, method)) for method in rivals),
            )
        )
    yield "Of the rivals: their share of too-early drains.\n"
    yield from _table(head, rows)


def _busy(cells: Sequence[Found]) -> Iterable[str]:
    yield from _table(
        ("cell", "SETTLE", "after the last call"),
        [
            (cell["cell"], f"{cell['methods'][OURS]['median']:.1f}", f"{cell['after_last']:.1f}")
            for cell in cells
            if min(cell["rates"]) >= BUSY_PEER
        ],
    )


def _grid(text: str, rows: dict[str, list[Found]]) -> Iterable[str]:
    first = next(iter(rows.values()))
    yield text.format(drains=first[0]["drains"])
    shown = [
        (name, *(f"{percent(early(cell))}, {cell['methods'][OURS]['median']:.1f}" for cell in row))
        for name, row in rows.items()
    ]
    yield from _table(("", *(cell["cell"] for cell in first)), shown)


def _unseen(unseen: Found) -> Iterable[str]:
    drains = unseen["drains"]
    yield UNSEEN.format(drains=drains)
    ages = [f"{int(age) // 60} min" for age in next(iter(unseen["early"].values()))]
    rows = [(name, *(percent(count / drains) for count in counts.values())) for name, counts in unseen["early"].items()]
    yield from _table(("cell", *ages), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def percent(share: float) -> str:
    """Short; `0 %` is nothing at all and `100 %` everything."""
    if share in {0.0, 1.0}:
        return f"{share:.0%}".replace("%", " %")
    return (f"{share:.2%}" if share < 0.1 else f"{min(share, 0.999):.1%}").replace("%", " %")  # noqa: PLR2004  short


if __name__ == "__main__":
    (RESULTS / "settle.md").write_text(page(json.loads((RESULTS / "settle.json").read_text())))
