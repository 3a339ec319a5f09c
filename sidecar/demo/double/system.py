"""What a server tells about itself and its cluster."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from sidecar.demo.double.answers import Answer, plain, result, text
from sidecar.demo.double.calls import VERSIONS, Call


def old_state(call: Call) -> Answer:
    """Tell the version, as 1.x and 2.x do to anybody."""
    version = VERSIONS[call.node.dialect]
    alone = "standalone" if len(call.naming.members) <= 1 else "cluster"
    if call.node.dialect == "1.4":
        return plain({"version": version, "standalone_mode": alone, "function_mode": None})
    return plain(
        {
            "auth_enabled": str(bool(call.node.secured)).lower(),
            "auth_admin_request": "false",
            "startup_mode": alone,
            "version": version,
        }
    )


def state(call: Call) -> Answer:
    """Tell the version, as 3.x does to anybody."""
    return result(
        {
            "auth_enabled": str(bool(call.node.secured)).lower(),
            "auth_admin_request": "false",
            "startup_mode": "standalone" if len(call.naming.members) <= 1 else "cluster",
            "version": VERSIONS[call.node.dialect],
            "server_port": call.node.address.rpartition(":")[2],
        }
    )


def _members(call: Call) -> Iterable[dict[str, Any]]:
    members = call.naming.members
    raft = {"leader": next(iter(members), ""), "raftGroupMember": list(members), "term": 1}
    for address, condition in members.items():
        ip, _, port = address.rpartition(":")
        extend: dict[str, Any] = {"lastRefreshTime": 0, "raftPort": str(int(port) - 1000)}
        extend["raftMetaData"] = {"metaDataMap": {"naming_instance_metadata": raft}}
        if call.node.dialect != "1.4":
            extend["version"] = VERSIONS[call.node.dialect]
        row = {"ip": ip, "port": int(port), "state": condition, "extendInfo": extend}
        if condition == call.optional("state", default=condition).upper():
            yield row | {"address": address, "failAccessCnt": 0}


def v1_nodes(call: Call) -> Answer:
    """List the members, as 1.x and 2.x do; their 200 is in the code as well."""
    return plain({"code": 200, "message": None, "data": list(_members(call))})


def nodes(call: Call) -> Answer:
    """List the members, as v2 and v3 do."""
    return result(list(_members(call)))


def operator_servers(call: Call) -> Answer:
    """List the members, as only 1.x does."""
    return plain({"servers": list(_members(call))})


def metrics(call: Call) -> Answer:
    """Say that the naming module is up."""
    up: dict[str, Any] = {"status": "UP"}
    if call.node.dialect == "1.4":
        up["serviceCount"] = 0
    return plain(up) if call.family == "v1" else result(up)


def ready(call: Call) -> Answer:
    """Say that the server is ready."""
    return text(HTTPStatus.OK, "OK") if call.family == "v1" else result("ok")
