"""docs/faults.md, written from what the tests of this folder found. `make faults` runs this after them.

Rows that were not played this time, those of `make soak` mostly, stay as they were found the last time.
"""

import json
from pathlib import Path

from real import rows_inside, rows_outside, rows_restarts, test_cluster_drains
from real.rows import FAULTS, OUT, Row


DOCS = Path(__file__).parents[2] / "docs"
KEPT, PAGE = DOCS / "faults.json", DOCS / "faults.md"
SOURCES = (rows_inside, rows_outside, rows_restarts, test_cluster_drains)  # imported: they enter their rows
HEAD = """<!-- written by `make faults` from what the tests found; change the tests, not this page -->

# What can go wrong, and what is left behind

Each line is one drain: a real sidecar process, a real Nacos, and a fault. `make test-real` plays it again (`make soak`
those that take a minute, and the cluster of 3.1.0), and fails when a line of this page would be a lie: an observer that
is not ours reads every node's list from the trigger to the end, a gRPC subscriber has the pushes, and no report may say
*gone* while either of them shows the instance.

- **kind**: how the app is registered. `scripted app` is a process that registers over gRPC for real, while its actuator
  answers as Spring Cloud Alibaba was measured to answer; real Spring Cloud apps come with their own examples.
- **road**: how it was taken out. `openapi` is `enabled=false` with our mark.
- **proved**, **released**: seconds from the trigger to the proof, and to the answer of the preStop hook. All of these
  drains have `CONSUMER_CACHE=0`, unless the row says otherwise, and sidecars younger than the look-back: SETTLE takes
  its 5 s.
- **left behind**: what the next app on the same address meets, with no sidecar beside it; or the record that stays.
- Two cores, one JVM per node, several rows at the same time: read the seconds as upper bounds.

| fault | kind | Nacos | road | proved | released | outcome | left behind |
|---|---|---|---|---|---|---|---|
"""


def order() -> dict[str, int]:
    """The faults as they are declared."""
    names = [each.name for each in FAULTS]
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def render(rows: list[Row]) -> str:
    """The page."""
    places = order()
    ordered = sorted(
        rows, key=lambda r: (" x " in r.server, places.get(r.fault, len(places)), r.fault, r.server, r.kind)
    )
    lines = [
        f"| {r.fault} | {r.kind} | {r.server} | {r.road} | {'never' if r.proved is None else f'{r.proved:.1f} s'} "
        f"| {r.released:.1f} s | {r.outcome} | {r.left} |"
        for r in ordered
    ]
    return HEAD + "\n".join(lines) + "\n"


def kept() -> list[Row]:
    """The rows of the last time."""
    return [Row(**row) for row in json.loads(KEPT.read_text())] if KEPT.is_file() else []


def main() -> None:
    """Merge what was found into what is kept, and write the page."""
    found = [Row(**json.loads(path.read_text())) for path in sorted(OUT.glob("*.json"))]
    rows = {row.key: row for row in (*kept(), *found)}
    DOCS.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps([vars(row) for _, row in sorted(rows.items())], indent=1) + "\n")
    PAGE.write_text(render(list(rows.values())))
    print(f"{PAGE}: {len(rows)} rows, {len(found)} of them new")  # noqa: T201  a command's output


if __name__ == "__main__":
    main()
