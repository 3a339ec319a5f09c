"""What is registered in Nacos: the words that the core, the ports and the adapters share.

Plain values without behaviour; Nacos' own terms. Parsed at the edge, so nothing in here is raw. The keys are named
tuples: a pod may hold hundreds of instances, and what is wanted for each of them is looked up by its key all the time.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


BEAT = 5.0  # seconds between the beats of an HTTP client that says nothing else


class Service(NamedTuple):
    """A service as Nacos keys it. The namespace is an id, not a name; empty is `public`."""

    name: str
    group: str = "DEFAULT_GROUP"
    namespace: str = ""
    cluster: str = "DEFAULT"

    def __str__(self) -> str:
        return f"{self.namespace or 'public'}/{self.group}/{self.name}/{self.cluster}"


class Instance(NamedTuple):
    """The key of one registration."""

    service: Service
    ip: str
    port: int

    @property
    def address(self) -> str:
        """The ip and port as one would write them in a URL."""
        bare = self.ip.strip("[]")  # Spring Cloud Alibaba registers IPv6 with its brackets
        return f"[{bare}]:{self.port}" if ":" in bare else f"{bare}:{self.port}"

    def __str__(self) -> str:
        return f"{self.service} {self.address}"


class Publisher(StrEnum):
    """Who holds an instance in the registry: that decides what brings it back, and what its record outlives."""

    GRPC = "grpc"  # its connection; gone with it
    BATCH = "batch"  # a connection that registered several instances of one service: edits never expire
    BEAT = "beat"  # HTTP beats: a beat registers again what was removed
    PERSISTENT = "persistent"  # nobody: it stays
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Record:
    """What Nacos holds of an instance, parsed at the edge."""

    instance: Instance
    enabled: bool = True
    weight: float = 1.0
    healthy: bool = True
    ephemeral: bool = True
    mark: str = ""  # our metadata: who disabled it and when; empty when nobody of us did
    beat: float = BEAT  # seconds between its beats, if it beats


@dataclass(frozen=True, slots=True)
class Road:
    """A way out of Nacos. An undoable one can be undone without restarting the app."""

    name: str
    undoable: bool
    inside: bool = False  # the app itself is asked; else Nacos is


OPENAPI = Road("openapi", undoable=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the app itself says of its registration."""

    instance: Instance | None  # None: not registered yet, or never
    registers: bool = True  # False: told not to (`registerEnabled=false`)
    servers: tuple[str, ...] = ()  # the Nacos URLs it uses, completed as NACOS_SERVER_ADDR is
    stop_wait: float | None = None  # its built-in wait between deregistering and stopping, seconds
    source: str = ""  # who told: for people
    starter: bool = False  # our starter told: its own endpoint truly removes it, and brings it back
    roads: tuple[Road, ...] = ()  # the app's own, where it tells more of them than the settings do
    publisher: Publisher = Publisher.UNKNOWN
    client: str = ""  # the version of its Nacos client, where it tells
