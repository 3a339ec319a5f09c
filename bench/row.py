"""What the bench measures, row by row."""

import os
import platform
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is rival / ours: above 1 we are better."""

    what: str
    unit: str
    ours: float | None
    rival: float | None
    rival_is: str
    bar: str
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the rival's figure is ours."""
        return None if not self.ours or self.rival is None else self.rival / self.ours


def machine() -> dict[str, object]:
    """What the figures were taken on; a loaded machine makes none of them."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": psutil.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def show(rows: list[Row]) -> str:
    """The table for eyes."""
    lines = [f"{'':<46} {'ours':>9} {'rival':>9} {'ratio':>7}   rival; bar; note"]
    for row in rows:
        ours, rival = ("-" if x is None else f"{x:.3g} {row.unit}" for x in (row.ours, row.rival))
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
        lines.append(f"{row.what:<46} {ours:>9} {rival:>9} {ratio:>7}   {row.rival_is}; {row.bar}; {row.note}")
    return "\n".join(lines)
