"""What the drain needs from outside, as narrow protocols, and the two ways in which it may fail.

An adapter translates; it never decides. Whether and when something is tried again is the core's business, which is why
both errors say only whether another try is worth it.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from .lease import App as AppSeen
from .lease import Life
from .registration import Identity, Instance, Publisher, Record, Service
from .traffic import Reading


class Unavailable(Exception):
    """No verdict: refused, timed out, a server in trouble, an answer that is not Nacos' own. Worth another try."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Rejected(Exception):
    """A verdict against us: not allowed, wrong password, wrong parameters. Another try needs a change first."""


class NotThere(Exception):
    """Nacos' own 'no such instance' as the answer to a write. Nothing was written."""


class Registry(Protocol):
    """Where the app is registered. Every call goes to one node, once; node names are those of `nodes()`."""

    @property
    def one_address(self) -> bool:
        """Whether a single address may stand for several nodes."""

    def nodes(self) -> tuple[tuple[str, bool], ...]:
        """The nodes known by now: (name, required). Required: configured, or answered once in this process."""

    async def refresh(self) -> None:
        """Housekeeping while idle: renew the login at 80 % of its life, the member list every 5 minutes."""

    async def read(self, node: str, service: Service, addresses: Iterable[str], *, fresh: bool) -> tuple[Record, ...]:
        """The consumers' view: the records of the service on these addresses. Disabled ones are not in it."""

    async def look(self, node: str, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        """The unfiltered view, disabled records included."""

    async def disable(self, node: str, instance: Instance, *, weight: float, mark: str) -> None:
        """Write `enabled=false` with our mark. Idempotent. Raises NotThere when the instance is absent."""

    async def enable(self, node: str, instance: Instance, *, weight: float) -> None:
        """Write `enabled=true` on a live instance and empty our mark. Idempotent. Raises NotThere."""

    async def sweep(self, node: str, instance: Instance, *, weight: float) -> None:
        """Enable the record of an instance that is gone. Only while Nacos' expiry mark stands. Raises NotThere."""

    async def delete(self, node: str, instance: Instance) -> None:
        """Delete an instance that was kept alive by beats. Says yes and does nothing for any other. Idempotent."""

    async def publisher(self, node: str, instance: Instance) -> Publisher:
        """Who holds it in the registry; UNKNOWN where this generation of servers does not tell."""

    def aim(self, servers: Iterable[str]) -> None:
        """Use these servers. Only where none were configured: the app has told which ones it uses."""

    async def down(self) -> frozenset[str]:
        """The nodes that a node which answers lists as DOWN."""

    async def close(self) -> None:
        """Close every connection."""


class App(Protocol):
    """The app beside us."""

    async def look(self, ports: frozenset[int]) -> AppSeen:
        """Its listening sockets on these ports (none: all but our own). Never connects."""

    async def hung(self, ports: frozenset[int]) -> bool:
        """Whether a TCP connect is not accepted within 1 s. A refused one is not hung."""

    async def exited(self, life: Life) -> None:
        """Return when this process is gone and its sockets are closed."""

    async def signal(self, life: Life | None, *, kill: bool) -> None:
        """SIGTERM, or SIGKILL, to the app's process. Raises Rejected when it may not or must not be signalled."""


class Inside(Protocol):
    """The app's own way out of Nacos and back, by the name of a road.

    An answer is the app's word, not a proof. Raises Rejected for what will not work the next time either (no such
    endpoint, not allowed), Unavailable for the rest.
    """

    async def offline(self, road: str) -> None:
        """Ask the app to leave Nacos. Idempotent."""

    async def online(self, road: str) -> None:
        """Ask the app to register again. Idempotent."""


class Actuator(Inside, Protocol):
    """What Spring Boot's actuator tells besides."""

    async def identity(self, ports: frozenset[int]) -> Identity | None:
        """How the app is registered, by its own word; None where it does not tell that.

        Without a configured URL it is looked for on these ports, where the app listens.
        """

    async def healthy(self) -> bool | None:
        """Whether its health endpoint is content; None where it has none for us."""

    async def shutdown(self) -> None:
        """Ask the app to stop. Raises Rejected where the endpoint is not open."""


class Traffic(Protocol):
    """The connections of the pod's network namespace, as the kernel shows them."""

    @property
    def source(self) -> str:
        """How they are seen: netlink, procfs (that they are there, and no more), or blind."""

    @property
    def reason(self) -> str:
        """Why it is that source, and what would help, for people; empty where nothing is missing."""

    async def detect(self) -> None:
        """Find out which source works here. Once, before anything else; never raises."""

    async def read(self) -> Reading:
        """Look once. Raises Unavailable."""

    def close(self) -> None:
        """Look no more."""


class Watch(Protocol):
    """A subscription such as a consumer has: one more reader for the proof."""

    def subscribe(self, service: Service) -> None:
        """Have the service's pushes from now on. Idempotent, returns at once."""

    async def read(self, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        """What the newest push shows on these addresses.

        Raises Unavailable while the connection is lost, or before the first push.
        """

    async def close(self) -> None:
        """End the subscription."""


# -- what a rehearsal asks besides; nothing of it changes anything -----------------------------------------------------


class Rehearsing(Registry, Protocol):
    """A registry that can be asked ahead."""

    async def server(self, node: str) -> str:
        """The version of a node."""

    async def login(self, node: str) -> None:
        """Be logged in; raises what a node said to that. Returns at once where there is nobody to log in."""

    async def permitted(self, node: str, instance: Instance) -> None:
        """Whether we may write where this instance is. Writes nothing, and raises Rejected when we may not."""

    async def threshold(self, node: str, service: Service) -> float:
        """The service's protectThreshold, from 0 to 1. Raises NotThere where nobody knows the service."""


class Exposing(Actuator, Protocol):
    """An actuator that can be asked what is open."""

    async def exposed(self) -> Mapping[str, str]:
        """What a harmless request to each endpoint says, for people; it begins with `exposed` where one is open."""


class Answering(Protocol):
    """A door that tells whether it would obey."""

    async def answers(self) -> None:
        """Return when it would. Raises Rejected or Unavailable with the next step."""
