"""A value in a document, and the way to it. What is not there, or of another type, reads as nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


Path = tuple[str | int, ...]

_MOST = 2**63  # what Kubernetes can hold
_PLAIN = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere in a document. Manifests are other people's: no step of the way has to exist."""

    value: Any
    path: Path = ()

    def __getitem__(self, key: str | int) -> "Place":
        match self.value:
            case Mapping() as fields:
                found = fields.get(key)
            case list() as items if isinstance(key, int) and key < len(items):
                found = items[key]
            case _:
                found = None
        return Place(found, (*self.path, key))

    def __iter__(self) -> Iterator["Place"]:
        """The items, of a list."""
        for index in range(len(self.value) if isinstance(self.value, list) else 0):
            yield self[index]

    def at(self, *path: str | int) -> "Place":
        """Several steps at once."""
        found = self
        for key in path:
            found = found[key]
        return found

    @property
    def there(self) -> bool:
        """Whether there is anything: `key:` with nothing behind it is nothing."""
        return self.value is not None

    @property
    def text(self) -> str:
        """A text; empty when it is none."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def number(self) -> float | None:
        """A number; None when it is none, or none that anybody means: .nan, a hundred digits."""
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return self.value if number and abs(self.value) <= _MOST else None

    @property
    def true(self) -> bool:
        """Whether it is `true`, and not a text that says so."""
        return self.value is True

    @property
    def fields(self) -> dict[str, Any]:
        """A mapping's, by text keys only; empty when it is none."""
        if not isinstance(self.value, Mapping):
            return {}
        return {key: value for key, value in self.value.items() if isinstance(key, str)}

    @property
    def words(self) -> list[str]:
        """The texts of a list; numbers and the like as a shell would see them."""
        return [each.text or str(each.value) for each in self if each.there]

    def __str__(self) -> str:
        return dotted(self.path)


def whole(text: str) -> int | None:
    """The whole number that a text is; None when it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def dotted(path: Path) -> str:
    """A way as people write it: spec.containers[0].env."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PLAIN.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f'["{key}"]'
    return text or "."
