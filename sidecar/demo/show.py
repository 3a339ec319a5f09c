"""What a person sees of the demo: lines, on a terminal with rich (extra `tui`) a live board, at the end a table.

With `--json` stdout belongs to the last line, so the rest goes to stderr, and only when somebody looks at it.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO


WIDTHS = (14, 10, 10, 12)
HEADS = ("way", "requests", "failed", "seconds")
FRAME = 0.25


@dataclass(frozen=True)
class Result:
    """One way of rolling the provider, as it went."""

    way: str
    requests: int
    failed: int
    seconds: float
    """From the beginning of a replica's termination to its exit, the slower one's."""
    kinds: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        return f"{self.way}: {self.failed} of {self.requests} requests failed{f' ({kinds})' if kinds else ''}"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """A row of the table."""
        return self.way, str(self.requests), str(self.failed), f"{self.seconds:.1f}"


@dataclass
class Board:
    """What is going on at the moment."""

    title: str = "starting"
    requests: int = 0
    failed: int = 0
    pods: dict[str, str] = field(default_factory=dict)
    """Each replica and what it is doing."""


class Screen:
    """Plain lines, with the seconds since the start."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._started = asyncio.get_running_loop().time()

    def say(self, text: str) -> None:
        """Tell one thing that happened."""
        self.put(f"{asyncio.get_running_loop().time() - self._started:5.1f} s  {text}")

    def put(self, text: str) -> None:
        """Write a line."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def refresh(self, board: Board) -> None:
        """Show the board; lines have none."""

    def conclude(self, results: Sequence[Result], remarks: Sequence[str]) -> None:
        """Show the table, and what to know about it."""
        rows = [HEADS, *(result.cells for result in results)]
        self.put("")
        for row in rows:
            numbers = (cell.rjust(width) for cell, width in zip(row[1:], WIDTHS[1:], strict=True))
            self.put(row[0].ljust(WIDTHS[0]) + "".join(numbers))
        self.put("")
        for remark in remarks:
            self.put(remark)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the terminal as it was."""


class Silent(Screen):
    """For programs."""

    def put(self, text: str) -> None:
        """Say nothing."""

    def conclude(self, results: Sequence[Result], remarks: Sequence[str]) -> None:
        """Say nothing."""


class Live(Screen):
    """A board that is drawn again and again, below the lines."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console  # noqa: PLC0415  the extra may not be installed
        from rich.live import Live as Area  # noqa: PLC0415

        self._console = Console(file=stream, highlight=False)
        self._area = Area(console=self._console, auto_refresh=False, transient=True)

    def put(self, text: str) -> None:
        """Write a line above the board."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(text), soft_wrap=True)

    def refresh(self, board: Board) -> None:
        """Draw the board."""
        from rich.panel import Panel  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table.grid(padding=(0, 2))
        for pod, doing in board.pods.items():
            table.add_row(Text(pod, "bold"), doing)
        failed = Text(f"{board.failed} failed", "bold red" if board.failed else "bold green")
        counts = Text.assemble(f"{board.requests} requests, ", failed)
        framed = Panel(table, title=board.title, subtitle=counts, title_align="left", subtitle_align="left")
        self._area.update(framed, refresh=True)

    def conclude(self, results: Sequence[Result], remarks: Sequence[str]) -> None:
        """Show the table, and what to know about it."""
        from rich.table import Table  # noqa: PLC0415

        self._area.stop()
        table = Table(HEADS[0])
        for head in HEADS[1:]:
            table.add_column(head, justify="right")
        for result in results:
            way, requests, failed, seconds = result.cells
            table.add_row(way, requests, f"[bold {'red' if result.failed else 'green'}]{failed}", seconds)
        self._console.print(table)
        for remark in remarks:
            self.put(remark)

    def __enter__(self) -> Self:
        """Take a part of the terminal."""
        self._area.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give it back."""
        self._area.stop()


def screen(*, as_json: bool) -> Screen:
    """What suits where we are."""
    stream = sys.stderr if as_json else sys.stdout
    if stream.isatty():
        with contextlib.suppress(ImportError):
            return Live(stream)
        return Screen(stream)
    return Silent(stream) if as_json else Screen(stream)


def as_line(results: Sequence[Result], look_back: float) -> str:
    """The results for programs."""
    ways = {
        result.way: {"requests": result.requests, "failed": result.failed, "seconds": round(result.seconds, 3)}
        for result in results
    }
    return json.dumps({"ways": ways, "settle_look_back": look_back})
