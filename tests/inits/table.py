"""docs/inits.md, written from the rows of this folder: `python -m inits.table`, with tests/ in the PYTHONPATH."""

from collections.abc import Sequence
from pathlib import Path

from inits import rows_births, rows_doors, rows_endings, rows_orphans, rows_signals, rows_terminals
from inits.rows import ROWS, Row, title
from inits.subjects import NAMES, Place, Target


# Imported: they enter their rows.
CHAPTERS = (rows_signals, rows_endings, rows_births, rows_orphans, rows_terminals, rows_doors)
PAGE = Path(__file__).parents[2] / "docs" / "inits.md"
HEAD = """<!-- written by `python -m inits.table` from the rows in tests/inits; change those, not this page -->

# As an init: nacos-drain, tini and dumb-init

`nacos-drain run -- COMMAND` as a container's entrypoint takes the place of an init as tini or dumb-init is one, and
drains before the command hears that it has to stop. What it owes to the command, and to whoever started it, is the
same.

Each line is played with the three of them by `tests/inits`, with real processes, and is compared with what stands here:
where one does something else than the others, this page says so and why, and a test fails when it is no longer so.

- **as**: `PID 1` of a PID namespace, as in a container; `not PID 1`: a process as any other, as under
  `docker run --init`, in a pod with a shared PID namespace, or on a laptop; nothing: played in both places.
- Signals go to the process group of the command, which is what nacos-drain and dumb-init do by themselves and tini with
  `-g`; **single**: to the command alone (`--single`, `--single-child`, tini without `-g`).
- tini is called with `-s` where it is not PID 1; nacos-drain needs no such option to adopt orphans.
- tini 0.19.0 and dumb-init 1.2.5 as Debian 12 has them. Where a line does not say otherwise there is no time for a
  drain: SIGTERM and SIGINT go on to the command as soon as nacos-drain has loaded that part of itself.

Its limit: CPython needs some 30 ms from its exec to our first line, a program in C 1 ms. A signal that comes before is
treated as that of any process before it has handlers. PID 1 does not see it; another process ends by it, and the
command has not been started then.
"""
COLUMNS = ("behaviour", "as", *NAMES, "why they differ")


def render(rows: Sequence[Row]) -> str:
    """The page."""
    parts = [HEAD]
    for module in CHAPTERS:
        chapter = title(module)
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in rows if row.chapter == chapter)]
        parts.append(f"\n## {chapter}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "".join(parts)


def cells(row: Row) -> tuple[str, ...]:
    """A line of it."""
    where = [place for place in row.places if len(row.places) < len(Place)]
    to = ["single"] * (row.targets == (Target.SINGLE,)) + ["group or single"] * (len(row.targets) == len(Target))
    ours = row.outcomes["nacos-drain"]
    others = ["the same" if row.outcomes[name] == ours else row.outcomes[name] for name in NAMES[1:]]
    return (row.behaviour, ", ".join([*where, *to]), ours, *others, row.why)


def main() -> None:
    """Write it."""
    PAGE.write_text(render(ROWS))
    print(f"{PAGE}: {len(ROWS)} rows")  # noqa: T201  a command's output


if __name__ == "__main__":
    main()
