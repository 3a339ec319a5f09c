"""Reads a mapping of a manifest to its last key.

A line of an example that a play passes over in silence would not be tested, and nobody would know.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


# No scheduler, no API server and no second node are here, and every image is on this machine.
ELSEWHERE = frozenset(
    {
        "affinity",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "imagePullPolicy",
        "imagePullSecrets",
        "nodeSelector",
        "priorityClassName",
        "serviceAccountName",
        "tolerations",
        "topologySpreadConstraints",
    }
)


class UnmodelledError(Exception):
    """A manifest says something that no play obeys."""


class Fields:
    """A mapping; leaving its context with a key unread is an error."""

    def __init__(self, where: str, given: Mapping[str, Any]) -> None:
        self.where = where
        self._left = dict(given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None and (left := self._left.keys() - ELSEWHERE):
            raise UnmodelledError(f"{self.where}: nothing here obeys {', '.join(sorted(left))}")

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, default: Any = None) -> Any:
        """Read a value."""
        return self._left.pop(name, default)

    def only(self, name: str, *known: Any) -> Any:
        """Read a value of which only these are obeyed; None if it is not there."""
        value = self.take(name)
        if value is not None and value not in known:
            raise UnmodelledError(f"{self.where}.{name}: nothing here obeys {value!r}")
        return value

    def inner(self, name: str) -> "Fields":
        """Read a mapping, an empty one if it is not there."""
        return Fields(f"{self.where}.{name}", self.take(name) or {})

    def each(self, name: str) -> "list[Fields]":
        """Read a list of mappings."""
        return [Fields(f"{self.where}.{name}[{number}]", one) for number, one in enumerate(self.take(name) or [])]

    def ignore(self, *names: str) -> None:
        """Pass over what nothing here can obey, for a reason that stands beside the call."""
        for name in names:
            self.take(name)
