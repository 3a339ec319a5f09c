"""The state of a service as pushes tell it, judged; and the spellings of addresses."""

from ipaddress import IPv6Address, ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sidecar.registration import Instance, Record, Service


MARK = "nacos-drain"  # the metadata key of our ownership mark

Key = tuple[str, str]  # group and name of a service
T = TypeVar("T")


def record_of(row: Any, key: Key, namespace: str) -> Record:
    """One row of a push as a record; raises what Python raises where it is no such row."""
    metadata = row.get("metadata") or {}
    service = Service(key[1], key[0], namespace, str(row.get("clusterName") or "DEFAULT"))
    return Record(
        Instance(service, of_kind(row["ip"], str), int(str(row["port"]))),
        enabled=of_kind(row["enabled"], bool),
        weight=float(str(row.get("weight", 1.0))),
        healthy=of_kind(row.get("healthy", True), bool),
        ephemeral=of_kind(row.get("ephemeral", True), bool),
        mark=str(metadata.get(MARK) or ""),
    )


def of_kind(value: object, kind: type[T]) -> T:
    """The value, if it is of this kind; raises TypeError."""
    if isinstance(value, kind):
        return value
    raise TypeError(value)


def name_of(server: str) -> str:
    """Host and port, as logs and reports name a node."""
    return urlsplit(server).netloc.rpartition("@")[2].lower()


def canonical(text: str) -> str:
    """One spelling per address; Spring Cloud Alibaba registers IPv6 in brackets. What is none is a host name."""
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def place_of(text: str) -> tuple[str, int | None]:
    """An ip without a port, or an ip:port."""
    host, _, port = text.rpartition(":")
    if host and port.isdigit() and (":" not in host or host.endswith("]")):
        return canonical(host), int(port)
    return canonical(text), None
