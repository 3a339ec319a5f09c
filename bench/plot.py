"""`bench/results/settle.svg`: safety and speed of each way to wait, from settle.json. Needs matplotlib."""

import json
from math import log
from statistics import mean
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .tables import OURS, RESULTS, early, percent


SLOWEST, FASTEST = 0.005, 200.0  # requests/s
PANELS = {"push": "consumers that follow Nacos' pushes", "cached": "consumers with a 35 s cache"}
HEIGHT = 0.6  # of a row; in it a cell stands the higher, the busier its busiest peer is


class Grade(NamedTuple):
    """How safe a way to wait is in a cell, and how that looks."""

    at_most: float  # share of too-early drains
    words: str
    colour: str
    mark: str


GRADES = (
    Grade(0.005, "too early in at most 0.5 % of a cell's drains", "#0b7a55", "o"),
    Grade(0.1, "in up to 10 %", "#e08e0b", "^"),
    Grade(1.0, "in more", "#c0392b", "X"),
)
STYLE = {
    "svg.hashsalt": "nacos-drain",  # the same file from the same numbers
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


def draw(found: dict[str, Any]) -> plt.Figure:
    """One panel per kind of consumer, one row per way to wait, one mark per cell."""
    mpl.rcParams.update(STYLE)
    methods = list(found["cells"][0]["methods"])
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axes, (kind, title) in zip(panels, PANELS.items(), strict=True):
        cells = [cell for cell in found["cells"] if cell["cell"].endswith(kind)]
        for row, method in enumerate(methods):
            _row(axes, row, method, cells)
        axes.set_title(f"{title} ({len(cells)} cells)", fontsize=10, loc="left")
        axes.set_xlim(0, 48)
        axes.set_xticks(range(0, 41, 5))
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.text(47.5, -0.85, "too early", ha="right", va="center", fontsize=9, color="#444444")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.4, -1.1)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
    figure.supxlabel(
        "seconds from the clean list to the release: a cell's median, and a line to its 95th percentile;\n"
        "in a row, the cells of busier callers stand higher",
        fontsize=9,
    )
    handles = [
        plt.Line2D([], [], linestyle="", marker=each.mark, color=each.colour, markersize=7, label=each.words)
        for each in GRADES
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(GRADES), frameon=False, fontsize=9)
    return figure


def _row(axes: Axes, row: int, method: str, cells: list[dict[str, Any]]) -> None:
    safer = -1.0
    for grade in GRADES:
        mine = [cell for cell in cells if safer < early(cell, method) <= grade.at_most]
        safer = grade.at_most
        if not mine:
            continue
        medians, p95s = ([cell["methods"][method][which] for cell in mine] for which in ("median", "p95"))
        heights = [row + HEIGHT * (0.5 - _busy(cell)) for cell in mine]
        axes.hlines(heights, medians, p95s, color=grade.colour, alpha=0.25, linewidth=1)
        axes.scatter(medians, heights, s=26, c=grade.colour, marker=grade.mark, alpha=0.75, linewidths=0)
    share = mean(early(cell, method) for cell in cells)
    weight = "bold" if method == OURS else "normal"
    axes.text(47.5, row, percent(share), ha="right", va="center", fontsize=9, weight=weight)


def _busy(cell: dict[str, Any]) -> float:
    """0: the slowest; 1: the fastest."""
    return log(max(cell["rates"]) / SLOWEST) / log(FASTEST / SLOWEST)


if __name__ == "__main__":
    drawn = draw(json.loads((RESULTS / "settle.json").read_text()))
    drawn.savefig(RESULTS / "settle.svg", metadata={"Date": None})
