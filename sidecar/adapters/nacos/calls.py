"""What is asked, in a dialect's words. Always with the exact key: what a write omits is reset to a default."""

import json
from dataclasses import dataclass, field

from sidecar.ports import NotThere
from sidecar.registration import Instance, Service

from .answers import MARK
from .dialects import V1_INSTANCE, Dialect


ALL_ON_ONE_PAGE = {"pageNo": "1", "pageSize": "100000"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request below a node's context path."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)


def read(dialect: Dialect, service: Service) -> Call:
    """The consumers' view, unhealthy instances included: those are called too."""
    cluster = {dialect.cluster_key: service.cluster}
    return Call("GET", dialect.read, {**_service(service), **cluster, "healthyOnly": "false"})


def look(dialect: Dialect, service: Service) -> Call:
    """The unfiltered view."""
    page = {} if dialect.envelope else ALL_ON_ONE_PAGE
    return Call("GET", dialect.look, {**_service(service), "clusterName": service.cluster, **page})


def edit(dialect: Dialect, instance: Instance, *, weight: float, enabled: bool, mark: str) -> Call:
    """Switch a present instance on or off, and say in its record that it was us."""
    marked = {"metadata": json.dumps({MARK: mark}, separators=(",", ":"))} if dialect.marks else {}
    return Call(*dialect.write, {**_state(instance, weight=weight, enabled=enabled), **marked})


def sweep(dialect: Dialect, instance: Instance, *, weight: float) -> Call:
    """Enable the record of an absent instance. It takes the metadata along, and so our mark."""
    if dialect.sweep is None:
        raise NotThere
    return Call(*dialect.sweep, _state(instance, weight=weight, enabled=True))


def delete(_: Dialect, instance: Instance) -> Call:
    """Delete what beats kept alive. Only this call is routed to the node that keeps it, on every generation.

    The others say yes on any node, and it is back after 4 s (nacos-measured.md section 3).
    """
    return Call("DELETE", V1_INSTANCE, {**_key(instance), "ephemeral": "true"})


def probe(dialect: Dialect, instance: Instance) -> Call:
    """Ask for what only a writer may, of our own address on a port that nobody has: nothing can come of it."""
    return Call(*dialect.probe, {**_key(instance), "port": "1"})


def service(dialect: Dialect, service: Service) -> Call:
    """Ask for what is set for the whole service."""
    return Call("GET", dialect.service, _service(service))


def publishers(dialect: Dialect, service: Service, *, ip: str = "", port: int | None = None) -> Call:
    """Ask which clients registered an instance. 2.x takes no address for "none", and finds nothing then."""
    only = ({"ip": ip} if ip else {}) | ({"port": str(port)} if port is not None else {})
    return Call("GET", dialect.publishers, {**_service(service), **only})


def published(dialect: Dialect, client: str) -> Call:
    """Ask what a client registered."""
    return Call("GET", dialect.published, {"clientId": client})


def members(dialect: Dialect) -> Call:
    """The cluster as a node sees it."""
    return Call("GET", dialect.members)


def _service(service: Service) -> dict[str, str]:
    return {
        "serviceName": service.name,
        "groupName": service.group,
        "namespaceId": service.namespace or "public",
    }


def _key(instance: Instance) -> dict[str, str]:
    return {
        **_service(instance.service),
        "clusterName": instance.service.cluster,
        "ip": instance.ip,
        "port": str(instance.port),
    }


def _state(instance: Instance, *, weight: float, enabled: bool) -> dict[str, str]:
    return {
        **_key(instance),
        "weight": repr(weight),
        "enabled": str(enabled).lower(),
    }
