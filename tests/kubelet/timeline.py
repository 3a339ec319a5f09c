"""What happened to a pod, in order, with its seconds, as the measured timelines are written down."""

import asyncio
import copy
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar


T = TypeVar("T")
SHOWN = 100  # what a failed test shows of a long story


class Event(NamedTuple):
    """One thing the kubelet did or saw; times before T0 are negative."""

    seconds: float
    container: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        """Look like a line of the research notes."""
        detail = f"({self.detail})" if self.detail else ""
        return f"{self.seconds:+9.3f}  {self.container:<12} {self.name}{detail}"


class Line(NamedTuple):
    """One line a container wrote."""

    seconds: float
    container: str
    stream: str
    text: str

    def __str__(self) -> str:
        """Look like an event, so that both can be read together."""
        return f"{self.seconds:+9.3f}  {self.container:<12} {self.stream}: {self.text}"


class Timeline:
    """Events and output lines of one pod, in loop time, counted from T0."""

    def __init__(self) -> None:
        self._t0 = asyncio.get_running_loop().time()
        self._events: list[Event] = []
        self._lines: list[Line] = []
        self._changed = asyncio.Event()

    def begin(self) -> None:
        """Make now T0: the kubelet has just decided to stop something."""
        self._t0 = asyncio.get_running_loop().time()

    def kept(self) -> Self:
        """Return the same story, counted from this T0 when there is another one."""
        return copy.copy(self)

    def record(self, container: str, name: str, detail: str = "") -> None:
        """Add an event that happens now."""
        now = asyncio.get_running_loop().time()
        self._events.append(Event(now, container, name, detail))
        self._wake()

    def output(self, container: str, stream: str, text: str) -> None:
        """Add a line of output that arrives now."""
        now = asyncio.get_running_loop().time()
        self._lines.append(Line(now, container, stream, text))
        self._wake()

    @property
    def now(self) -> float:
        """Seconds since T0."""
        return asyncio.get_running_loop().time() - self._t0

    @property
    def events(self) -> list[Event]:
        """Everything that happened so far, by seconds since T0."""
        return [event._replace(seconds=event.seconds - self._t0) for event in self._events]

    @property
    def lines(self) -> list[Line]:
        """Everything the containers wrote so far, by seconds since T0."""
        return [line._replace(seconds=line.seconds - self._t0) for line in self._lines]

    def text(self, container: str, stream: str | None = None) -> str:
        """Return what one container wrote, both streams as they came unless one is named."""
        return "\n".join(
            line.text for line in self._lines if line.container == container and stream in (None, line.stream)
        )

    def all(self, container: str, name: str) -> list[Event]:
        """Return every event of that name; empty when it did not happen."""
        return [e for e in self.events if (e.container, e.name) == (container, name)]

    def event(self, container: str, name: str, nth: int = 0) -> Event:
        """Return the nth event of that name (-1: the last), which must have happened."""
        found = self.all(container, name)
        try:
            return found[nth]
        except IndexError:
            raise AssertionError(f"{container}: no {name} number {nth} in\n{self}") from None

    def at(self, container: str, name: str, nth: int = 0) -> float:
        """Return the seconds from T0 to the nth event of that name, which must have happened."""
        return self.event(container, name, nth).seconds

    def assert_order(self, *expected: tuple[str, str]) -> None:
        """Assert that these (container, event) pairs happened in this order, others in between."""
        rest = iter(self.events)
        for pair in expected:
            if not any((event.container, event.name) == pair for event in rest):
                raise AssertionError(f"{pair} not found in its place of {expected} in\n{self}")

    def assert_never(self, container: str, name: str) -> None:
        """Assert that something has not happened to a container."""
        if self.all(container, name):
            raise AssertionError(f"{container}: {name} must not happen, but did in\n{self}")

    async def seen(self, container: str, name: str, *, nth: int = 0, within: float = 10) -> Event:
        """Wait for the nth event of that name, and return it."""

        def look() -> Event | None:
            found = self.all(container, name)
            return found[nth] if len(found) > nth else None

        return await self._until(look, f"{container}: {name} number {nth}", within)

    async def printed(self, container: str, text: str, *, nth: int = 0, within: float = 10) -> Line:
        """Wait for the nth line of a container that contains a text, and return it."""

        def look() -> Line | None:
            found = [e for e in self.lines if e.container == container and text in e.text]
            return found[nth] if len(found) > nth else None

        return await self._until(look, f"{container}: line {nth} with {text!r}", within)

    async def _until(self, look: Callable[[], T | None], what: str, within: float) -> T:
        try:
            async with asyncio.timeout(within):
                while (found := look()) is None:
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what} not seen within {within} s in\n{self}") from None
        return found

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def __str__(self) -> str:
        """Show events and output together, for the message of a failed test."""
        together: list[Event | Line] = [*self.events, *self.lines]
        together.sort(key=lambda entry: entry.seconds)
        omitted = max(0, len(together) - SHOWN)
        first = [f"({omitted} earlier ones left out)"] if omitted else []
        return "\n".join([*first, *map(str, together[omitted:])])
