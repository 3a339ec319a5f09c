"""What is registered and what Nacos shows of it, in the words all parts of the rig share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Instance:
    """What an app registers. Salt the service: Nacos remembers an address for 60 s and longer."""

    service: str
    port: int
    ip: str = "127.0.0.1"
    group: str = "DEFAULT_GROUP"
    namespace: str = "public"
    cluster: str = "DEFAULT"
    weight: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Its ip:port."""
        return f"{self.ip}:{self.port}"

    @property
    def service_query(self) -> dict[str, str]:
        """The service in Nacos' HTTP words."""
        return {
            "serviceName": self.service,
            "groupName": self.group,
            "namespaceId": self.namespace,
        }

    @property
    def query(self) -> dict[str, str]:
        """The record's key in Nacos' HTTP words."""
        return self.service_query | {
            "ip": self.ip,
            "port": str(self.port),
            "clusterName": self.cluster,
        }


@dataclass(frozen=True)
class Host:
    """An instance as Nacos shows it."""

    ip: str
    port: int
    cluster: str
    enabled: bool
    healthy: bool
    ephemeral: bool
    weight: float
    metadata: Mapping[str, str]

    @property
    def address(self) -> str:
        """Its ip:port."""
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class Push:
    """What a subscriber was told, and when."""

    at: float
    service: str
    group: str
    hosts: tuple[Host, ...]

    @property
    def addresses(self) -> set[str]:
        """Everybody in it, as ip:port."""
        return {host.address for host in self.hosts}


def hosts(rows: list[dict[str, Any]]) -> tuple[Host, ...]:
    """Read what lists, catalogs and pushes of all versions have in common."""
    return tuple(
        Host(
            ip=row["ip"],
            port=row["port"],
            cluster=row["clusterName"],
            enabled=row["enabled"],
            healthy=row["healthy"],
            ephemeral=row["ephemeral"],
            weight=row["weight"],
            metadata=row["metadata"],
        )
        for row in rows
    )
