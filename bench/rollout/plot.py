"""Two pictures of rollout.jsonl: what each way costs, and who was called around a removal. Needs matplotlib.

.venv-plot/bin/python -m bench.rollout.plot
"""

import json
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.plot import STYLE
from bench.tables import RESULTS


Line = dict[str, Any]

OURS = ("starter", "openapi", "entrypoint")
NAMES = {
    "sigterm": "SIGTERM only",
    "graceful": "server.shutdown=graceful",
    "folk": "deregister && sleep 40",
    "fixed-45": "enabled=false, sleep 45",
    "starter": "nacos-drain, starter",
    "openapi": "nacos-drain, OpenAPI",
    "entrypoint": "nacos-drain, entrypoint",
}
CELLS = {"push": "gateways that follow pushes", "cached": "a gateway with a 35 s cache"}
GOOD, BAD, NEUTRAL, OLD, NEW = "#0b7a55", "#c0392b", "#8a8a8a", "#e08e0b", "#9db7d5"
STORIES = ("sigterm", "folk", "starter")
UNTIL = 50.0  # seconds of the timelines


def costs(lines: list[Line]) -> plt.Figure:
    """Failed requests over seconds until SIGTERM, a mark per repetition."""
    servers = sorted({line["nacos"] for line in lines})
    figure, panels = plt.subplots(
        len(CELLS), len(servers), figsize=(9, 5.4), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for row, (cell, words) in zip(panels, CELLS.items(), strict=True):
        for axes, server in zip(row, servers, strict=True):
            _cost(axes, [line for line in lines if (line["cell"], line["nacos"]) == (cell, server)])
            axes.set_title(f"Nacos {server}: {words}", fontsize=10, loc="left")
    figure.supxlabel("seconds from the termination to SIGTERM", fontsize=9)
    return figure


def _cost(axes: Axes, lines: list[Line]) -> None:
    for nth, way in enumerate(NAMES):
        mine = [line for line in lines if line["way"] == way]
        seconds = [line["hook"] or 0.0 for line in mine]
        failed = [line["failed"] for line in mine]
        axes.scatter(seconds, [nth] * len(mine), s=30, c=[BAD if count else GOOD for count in failed], zorder=3)
        if mine:
            told = " / ".join(map(str, failed))
            axes.text(64, nth, told, ha="right", va="center", fontsize=9, color=BAD if any(failed) else GOOD)
    axes.set_yticks(range(len(NAMES)), NAMES.values())
    axes.set_ylim(len(NAMES) - 0.5, -1.2)
    axes.set_xlim(-1.5, 65)
    axes.set_xticks(range(0, 51, 10))
    axes.text(64, -0.85, "failed requests", ha="right", va="center", fontsize=9, color="#444444")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)


def timelines(lines: list[Line], server: str) -> plt.Figure:
    """Requests a second to the old replica and to the others, and those in vain, of one repetition of each way."""
    figure, panels = plt.subplots(len(STORIES), 1, figsize=(9, 5.4), sharex=True, sharey=True, layout="constrained")
    for axes, way in zip(panels, STORIES, strict=True):  # of several repetitions the one with the longest tail
        wanted = (server, "cached", way)
        mine = [line for line in lines if (line["nacos"], line["cell"], line["way"]) == wanted]
        if mine:
            _story(axes, max(mine, key=lambda line: line["consumers"]["cached"]["last_call"]))
        axes.set_title(NAMES[way], fontsize=10, loc="left")
    panels[-1].set_xlabel("seconds from the termination", fontsize=9)
    figure.supylabel("requests a second", fontsize=9)
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=colour, label=words)
        for colour, words in ((NEW, "to the other replicas"), (OLD, "to the one that goes"), (BAD, "failed"))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _story(axes: Axes, line: Line) -> None:
    told = line["timeline"]
    width = told["bin"]
    others, old, failed = (
        [count / width for count in told[name][:-1]] for name in ("others", "old", "failed")
    )  # the last bin is cut
    at = [told["from"] + nth * width for nth in range(len(old))]
    axes.bar(at, others, width, align="edge", color=NEW)
    axes.bar(at, old, width, align="edge", bottom=others, color=OLD)
    axes.bar(at, [-count for count in failed], width, align="edge", color=BAD)
    marks = {"Nacos' list is clean": line["clean"], "SIGTERM": line["sigterm"], "exit": line["exit"]}
    _mark(axes, marks.items())
    axes.set_xlim(told["from"], UNTIL)
    axes.set_ylim(-45, 105)
    axes.set_yticks([0, 30, 60])


def _mark(axes: Axes, marks: Iterable[tuple[str, float | None]]) -> None:
    """Name each moment; those that fall together stand in one line."""
    shown: dict[float, list[str]] = {}
    for words, moment in marks:
        if moment is not None:
            near = next((other for other in shown if abs(other - moment) < 1.0), moment)
            shown.setdefault(near, []).append(words)
    for moment, names in shown.items():
        axes.axvline(moment, color="#444444", linewidth=0.8)
        axes.text(moment + 0.3, 0.97, ", ".join(names), fontsize=8, va="top", transform=axes.get_xaxis_transform())


if __name__ == "__main__":
    mpl.rcParams.update(STYLE)
    every = [json.loads(line) for line in (RESULTS / "rollout.jsonl").read_text().splitlines()]
    fair = [line for line in every if not line["invalid"]]
    for name, figure in {"rollout": costs(fair), "rollout-timeline": timelines(fair, "2.2.4")}.items():
        figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
