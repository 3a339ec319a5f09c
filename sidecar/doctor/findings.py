"""What a rehearsal has read. Plain values: nothing in here asks anybody."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.drain import Drain
from sidecar.lease import Lease
from sidecar.registration import Record, Service
from sidecar.settings import Headers, Loaded, Secret, SecretUnreadable, Settings
from sidecar.traffic import BLIND


@dataclass(frozen=True, slots=True)
class Trouble:
    """A question that brought no answer, or one against us."""

    text: str
    rejected: bool = False  # a verdict: another try needs a change first


@dataclass(frozen=True, slots=True)
class View:
    """What one node holds of a service at this pod's addresses."""

    records: tuple[Record, ...]
    listed: bool  # whether consumers are shown ours; else it took the unfiltered view


@dataclass(frozen=True, slots=True)
class Sight:
    """How callers are seen."""

    source: str  # netlink, procfs or blind
    reason: str  # why it is that source, and what would help


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is judged.

    `drain` is what the sidecar knows, `lease` the drain that a hook would start now. A mapping lacks what was not
    asked; None is a question that was not asked either.
    """

    loaded: Loaded
    drain: Drain
    lease: Lease | None
    nodes: tuple[tuple[str, bool], ...] = ()  # name, required
    one_address: bool = False
    versions: Mapping[str, str | Trouble] = field(default_factory=dict)
    down: frozenset[str] = frozenset()  # by the word of a node that answers
    logins: Mapping[str, Trouble | None] = field(default_factory=dict)  # of nodes that answered
    views: Mapping[tuple[str, Service], View | Trouble] = field(default_factory=dict)
    services: Mapping[Service, float | Trouble | None] = field(default_factory=dict)  # protectThreshold; None: unknown
    permission: bool | Trouble | None = None
    exposed: Mapping[str, str] | Trouble | None = None
    dubbo: bool | Trouble | None = None
    traffic: Sight | Trouble | None = None
    starting: bool = False  # the app may not be up yet: what is not there is no fault

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.loaded.settings

    @property
    def answering(self) -> tuple[str, ...]:
        """The nodes that told their version."""
        return tuple(name for name, told in self.versions.items() if isinstance(told, str))

    @property
    def sees_callers(self) -> bool:
        """Whether SETTLE may end before its cap."""
        return isinstance(self.traffic, Sight) and self.traffic.source != BLIND

    @property
    def actuator(self) -> bool:
        """Whether Spring's actuator is in use."""
        return self.drain.rules.actuator


def unreadable(*secrets: Secret | Headers | None) -> str:
    """Why one of them cannot be read; empty when all can."""
    for secret in secrets:
        try:
            _ = secret.read() if secret is not None else None
        except SecretUnreadable as error:
            return str(error)
    return ""
