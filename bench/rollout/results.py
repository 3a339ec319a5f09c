"""One JSON line per repetition, so that a run that was cut short goes on where it ended."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .outcome import Outcome


class Key(NamedTuple):
    """What repetitions have in common."""

    nacos: str
    generation: str
    way: str
    cell: str


class Results:
    """A file of lines; every line that was ever written stays, the invalid ones too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lines: list[Outcome] = []
        if path.exists():
            self._lines = [json.loads(line) for line in path.read_text().splitlines()]

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._lines)

    def add(self, key: Key, told: Outcome) -> Outcome:
        """Keep a repetition, to the thousandth of a second."""
        line: Outcome = json.loads(json.dumps(key._asdict() | told), parse_float=lambda text: round(float(text), 3))
        self._lines.append(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def valid(self, key: Key) -> list[Outcome]:
        """The repetitions that count."""
        return [line for line in self._lines if _key(line) == key and not line["invalid"]]

    def settings(self) -> list[tuple[str, str]]:
        """The servers and generations there are, by their versions."""
        return sorted({(line["nacos"], line["generation"]) for line in self._lines})


def _key(line: Outcome) -> Key:
    return Key(*(line[name] for name in Key._fields))
