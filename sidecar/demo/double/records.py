"""The things a registry keeps: services, instances, what was written over them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Service:
    """A service, as every call has to name it: a wrong group or namespace is another service."""

    name: str
    group: str = "DEFAULT_GROUP"
    namespace: str = "public"

    @property
    def grouped(self) -> str:
        """The form that appears in answers and error texts."""
        return f"{self.group}@@{self.name}"


@dataclass(frozen=True)
class Instance:
    """One instance, as published by its client or as listed."""

    ip: str
    port: int
    cluster: str = "DEFAULT"
    weight: float = 1.0
    enabled: bool = True
    healthy: bool = True
    ephemeral: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    grpc: bool = False

    @property
    def key(self) -> tuple[str, int, str]:
        """What a record is filed under; note the cluster."""
        return (self.ip, self.port, self.cluster)


@dataclass
class Overlay:
    """What an operator (or we) wrote over an instance; `expires` is set once the instance left."""

    enabled: bool = True
    weight: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires: float | None = None


@dataclass
class Publication:
    """What one client published for one service; beats are counted from `beaten`."""

    instances: tuple[Instance, ...]
    beaten: float | None = None
    batch: bool = False


@dataclass(frozen=True)
class Change:
    """What a partial write names; the rest stays."""

    enabled: bool | None = None
    weight: float | None = None
    metadata: Mapping[str, str] | None = None

    def over(self, former: "Overlay | Instance") -> tuple[bool, float, Mapping[str, str]]:
        """Give enabled, weight and metadata after this change."""
        return (
            former.enabled if self.enabled is None else self.enabled,
            former.weight if self.weight is None else self.weight,
            former.metadata if self.metadata is None else self.metadata,
        )


class WrongKindError(Exception):
    """An ephemeral registration in a persistent service, or the reverse; 1.x does not mind."""

    def __init__(self, service: Service, *, persistent: bool) -> None:
        kinds = ("ephemeral", "persistent") if persistent else ("persistent", "ephemeral")
        super().__init__(
            f"Current service {service.grouped} is {kinds[0]} service, can't register {kinds[1]} instance."
        )
