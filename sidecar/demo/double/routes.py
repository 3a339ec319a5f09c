"""The Nacos HTTP API by server version: which call exists, and who may make it.

A table, so that "3.x does not have this any more" is an absence somebody can see.
Facts: 1.4.8, 2.2.4 (2.5.1 alike) and 3.1.0 (3.0.3 alike), as measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.demo.double import reads, system, writes
from sidecar.demo.double.access import Right
from sidecar.demo.double.answers import Answer, Dialect, WrongError, gone, spring, wrong
from sidecar.demo.double.calls import Call
from sidecar.demo.double.records import WrongKindError


@dataclass(frozen=True)
class Route:
    """What answers, and who may ask."""

    handler: Callable[[Call], Answer]
    right: Right = "open"


_V1_CLIENTS = {
    "POST /v1/ns/instance": Route(writes.register, "client:write"),
    "DELETE /v1/ns/instance": Route(writes.deregister, "client:write"),
    "PUT /v1/ns/instance/beat": Route(writes.beat, "client:write"),
    "GET /v1/ns/instance/list": Route(reads.v1_list, "client:read"),
    "GET /v1/ns/operator/metrics": Route(system.metrics),
}
_V1 = _V1_CLIENTS | {
    "PUT /v1/ns/instance": Route(writes.put, "client:write"),
    "PATCH /v1/ns/instance": Route(writes.patch, "client:write"),
    "GET /v1/ns/instance": Route(reads.v1_detail, "client:read"),
    "GET /v1/ns/catalog/instances": Route(reads.v1_catalog, "client:read"),
    "GET /v1/ns/service": Route(reads.service, "client:read"),
    "PUT /v1/ns/service": Route(writes.service, "client:write"),
    "GET /v1/core/cluster/nodes": Route(system.v1_nodes, "client:read"),
}
CONSOLE = {
    "GET /v1/console/server/state": Route(system.old_state),
    "GET /v1/console/health/readiness": Route(system.ready),
    "GET /v1/console/health/liveness": Route(system.ready),
}
ROUTES: dict[Dialect, dict[str, Route]] = {
    "1.4": _V1 | {"GET /v1/ns/operator/servers": Route(system.operator_servers)},
    "2.2": _V1
    | {
        "POST /v2/ns/instance": Route(writes.register, "client:write"),
        "DELETE /v2/ns/instance": Route(writes.deregister, "client:write"),
        "PUT /v2/ns/instance": Route(writes.put, "client:write"),
        "GET /v2/ns/instance/list": Route(reads.v2_list, "client:read"),
        "GET /v2/ns/client/service/publisher/list": Route(reads.publishers, "client:read"),
        "GET /v2/ns/client/publish/list": Route(reads.published, "client:read"),
        "GET /v2/core/cluster/node/list": Route(system.nodes, "client:read"),
    },
    "3.1": _V1_CLIENTS
    | {
        "POST /v3/client/ns/instance": Route(writes.client_register, "client:write"),
        "DELETE /v3/client/ns/instance": Route(writes.deregister, "client:write"),
        "GET /v3/client/ns/instance/list": Route(reads.v3_client_list, "client:read"),
        "POST /v3/admin/ns/instance": Route(writes.register, "admin:write"),
        "DELETE /v3/admin/ns/instance": Route(writes.deregister, "admin:write"),
        "PUT /v3/admin/ns/instance": Route(writes.put, "admin:write"),
        "PUT /v3/admin/ns/instance/partial": Route(writes.partial, "admin:write"),
        "GET /v3/admin/ns/instance": Route(reads.v3_detail, "admin:write"),
        "GET /v3/admin/ns/instance/list": Route(reads.v3_admin_list, "admin:read"),
        "GET /v3/admin/ns/client/service/publisher/list": Route(reads.publishers, "admin:read"),
        "GET /v3/admin/ns/client/publish/list": Route(reads.published, "admin:read"),
        "GET /v3/admin/ns/service": Route(reads.service, "admin:read"),
        "PUT /v3/admin/ns/service": Route(writes.service, "admin:write"),
        "GET /v3/admin/ns/ops/metrics": Route(system.metrics, "admin:read"),
        "GET /v3/admin/core/cluster/node/list": Route(system.nodes, "admin:write"),
        "GET /v3/admin/core/state": Route(system.state),
        "GET /v3/admin/core/state/readiness": Route(system.ready),
        "GET /v3/admin/core/state/liveness": Route(system.ready),
    },
}

# What 3.x switched off, and what it names instead; measured for PATCH, the rest from its code.
GONE = {
    "PATCH /v1/ns/instance": "PUT ${contextPath:nacos}/v3/admin/ns/instance/partial",
    "PUT /v1/ns/instance": "PUT ${contextPath:nacos}/v3/admin/ns/instance",
    "GET /v1/ns/instance": "GET ${contextPath:nacos}/v3/admin/ns/instance",
    "GET /v1/ns/catalog/instances": "GET ${contextPath:nacos}/v3/console/ns/instance/list",
    "GET /v1/ns/service": "GET ${contextPath:nacos}/v3/admin/ns/service",
    "PUT /v1/ns/service": "PUT ${contextPath:nacos}/v3/admin/ns/service",
    "GET /v1/core/cluster/nodes": "GET ${contextPath:nacos}/v3/admin/core/cluster/node/list",
    "GET /v1/console/server/state": "GET ${contextPath:nacos}/v3/console/server/state",
    "GET /v1/console/health/readiness": "GET ${contextPath:nacos}/v3/console/health/readiness",
    "GET /v1/console/health/liveness": "GET ${contextPath:nacos}/v3/console/health/liveness",
}


def logins(dialect: Dialect, *, console: bool) -> set[str]:
    """Where to log in; a 2.x server without its console has no auth module either."""
    if dialect == "3.1":
        return {"/v3/auth/user/login", "/v1/auth/login", "/v1/auth/users/login"}
    return {"/v1/auth/login", "/v1/auth/users/login"} if console else set()


def find(dialect: Dialect, spot: str, *, console: bool) -> Route | None:
    """Find what answers `METHOD /path`."""
    if spot in CONSOLE:
        return CONSOLE[spot] if console and dialect != "3.1" else None
    return ROUTES[dialect].get(spot)


def perform(route: Route, call: Call, path: str) -> Answer:
    """Let it answer, and word its refusals."""
    try:
        return route.handler(call)
    except WrongError as error:
        return wrong(call.node.dialect, call.family, error)
    except WrongKindError as error:  # the status is from the code, the body not measured
        refused = WrongError(HTTPStatus.BAD_REQUEST, 30000, str(error))
        return wrong(call.node.dialect, call.family, refused)
    except ValueError as error:  # a number that is none; not measured
        return spring(HTTPStatus.BAD_REQUEST, str(error), path)


def missing(dialect: Dialect, method: str, inside: str, path: str, *, console: bool) -> Answer:
    """Say that there is no such call: gone, not implemented, or never heard of."""
    spot = f"{method} {inside}"
    if dialect == "3.1" and spot in GONE and (console or spot not in CONSOLE):
        return gone(GONE[spot], path, "admin" if inside in {"/v1/ns/instance", "/v1/ns/service"} else "console")
    if dialect == "3.1" and inside.startswith(("/v2/ns/", "/v2/core/")):
        instead = inside.replace("/v2/", "/v3/admin/", 1)
        return gone(f"{method} ${{contextPath:nacos}}{instead}", path, "admin")
    if inside.startswith("/v1/ns/"):
        return spring(HTTPStatus.NOT_IMPLEMENTED, f"no such api:{method}:{path}", path)
    new = f"No endpoint {method} {path}."
    return spring(HTTPStatus.NOT_FOUND, new if dialect == "3.1" else "No message available", path)
