"""What the drain wants done for the whole pod, and what came of it.

An effect is a wish with its own deadline; the runner performs it and hands back one event. What is wanted for a single
instance, and its events, are in removal.py.
"""

from dataclasses import dataclass

from . import removal
from .lease import App, Life, Trigger
from .registration import Identity, Instance, Publisher, Record, Service
from .traffic import Reading


KNOCK_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Survey:
    """The small read of an idle sidecar: what one node shows of one service."""

    service: Service
    turn: int
    timeout: float = 6.0


@dataclass(frozen=True, slots=True)
class Identify:
    """Ask the app how it is registered. Without a configured address it is looked for on these ports."""

    ports: frozenset[int]
    turn: int
    timeout: float = 3.0


@dataclass(frozen=True, slots=True)
class Inquire:
    """Ask who holds an instance in the registry."""

    instance: Instance
    node: str
    timeout: float = 3.0


@dataclass(frozen=True, slots=True)
class Peek:
    """Look at the app's listening sockets. No ports: all but our own."""

    ports: frozenset[int]
    turn: int
    timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Knock:
    """Ask whether the app still accepts a connection, and whether its health endpoint is content."""

    ports: frozenset[int]
    timeout: float = KNOCK_TIMEOUT + 0.5


@dataclass(frozen=True, slots=True)
class AwaitExit:
    """Wait for a visible process to be gone."""

    life: Life
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """Tell the app to stop, or make it."""

    life: Life | None
    kill: bool
    timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Ask the app to stop by itself."""

    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Roster:
    """Ask the nodes that answer which members are down."""

    turn: int
    timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Look at the connections of the pod: who is calling."""

    turn: int
    timeout: float = 2.0


OwnEffect = Survey | Identify | Inquire | Peek | Knock | AwaitExit | Signal | Shutdown | Roster | Sample
Effect = removal.Effect | OwnEffect


@dataclass(frozen=True, slots=True)
class Triggered:
    """Somebody asked for a drain. `mark` is what our disabling write leaves in the record."""

    trigger: Trigger
    id: str
    mark: str
    nodes: tuple[tuple[str, bool], ...]  # name, required
    one_address: bool = False
    code: int | None = None  # of the app's exit


@dataclass(frozen=True, slots=True)
class Asked:
    """`/release` or `/resume`."""

    resume: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A person at a terminal stops this sidecar, not the app: give back what was taken, and go."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """All records of a service on one of this pod's addresses, disabled ones too."""

    effect: Survey
    records: tuple[Record, ...]
    node: str = ""
    listed: bool = True  # whether consumers are shown it; else it took the unfiltered view
    nodes: tuple[tuple[str, bool], ...] = ()  # as the registry knows them by now: name, required


@dataclass(frozen=True, slots=True)
class Identified:
    """What the app said of its registration; None: it does not tell that."""

    effect: Identify
    identity: Identity | None
    nodes: tuple[tuple[str, bool], ...] = ()  # as the registry knows them by now
    one_address: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """Who holds an instance."""

    effect: Inquire
    publisher: Publisher


@dataclass(frozen=True, slots=True)
class Peeked:
    """What the kernel showed of the app."""

    effect: Peek
    app: App


@dataclass(frozen=True, slots=True)
class Knocked:
    """Whether a connection was accepted, a refused one not being hung; and whether the app calls itself ill."""

    effect: Knock
    hung: bool
    ill: bool = False


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone."""

    effect: AwaitExit


@dataclass(frozen=True, slots=True)
class Signalled:
    """The signal was delivered, or the shutdown was answered."""

    effect: Signal | Shutdown


@dataclass(frozen=True, slots=True)
class Rostered:
    """The nodes that a node which answers calls DOWN."""

    effect: Roster
    down: frozenset[str]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the kernel showed of the connections."""

    effect: Sample
    reading: Reading


@dataclass(frozen=True, slots=True)
class Failed:
    """One of the effects of this file came to nothing."""

    effect: OwnEffect
    error: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


OwnAnswer = Surveyed | Identified | Told | Peeked | Knocked | Exited | Signalled | Rostered | Sampled | Failed
Answer = removal.Event | OwnAnswer
Event = Answer | Triggered | Asked | Left | Tick
