"""Who sees which instances: consumers without the disabled ones, operators with them."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from sidecar.demo.double.answers import Answer, WrongError, plain, result, text
from sidecar.demo.double.calls import Call
from sidecar.demo.double.records import Instance, Publication, Service


def listed(call: Call, service: Service, key: tuple[str, int, str]) -> Instance:
    """Find it in this node's list: what its last push said, not what is true by now."""
    hosts = call.view.hosts(service)
    if not hosts:
        message = f"no ips found for cluster {key[2]} in service {service.grouped}"
        raise WrongError(HTTPStatus.NOT_FOUND, 20004, message)
    for each in hosts:
        if each.key == key:
            return each
    raise WrongError(HTTPStatus.NOT_FOUND, 20004, "no matched ip found!")


def _host(call: Call, service: Service, found: Instance) -> dict[str, Any]:
    shown = {
        "instanceId": f"{found.ip}#{found.port}#{found.cluster}#{service.grouped}",
        "ip": found.ip,
        "port": found.port,
        "weight": found.weight,
        "healthy": found.healthy,
        "enabled": found.enabled,
        "ephemeral": found.ephemeral,
        "clusterName": found.cluster,
        "serviceName": service.grouped,
        "metadata": dict(found.metadata),
        "instanceHeartBeatInterval": int(found.metadata.get("preserved.heart.beat.interval", 5000)),
        "instanceHeartBeatTimeOut": 15000,
        "ipDeleteTimeout": 30000,
    }
    if found.grpc and call.node.dialect == "2.2":
        del shown["instanceId"]
    return shown


def _consumers(call: Call, clusters: str) -> list[dict[str, Any]]:
    """List what consumers get: never a disabled instance, unhealthy and weightless ones too."""
    service = call.service
    wanted = {each for each in clusters.split(",") if each}
    healthy_only = call.family != "v3" and call.flag("healthyOnly", default=False)
    return [
        _host(call, service, each)
        for each in call.view.hosts(service)
        if each.enabled and (not wanted or each.cluster in wanted) and (each.healthy or not healthy_only)
    ]


def _service_info(call: Call, clusters: str) -> dict[str, Any]:
    service, old = call.service, call.node.dialect == "1.4"
    return {
        "name": service.grouped,
        **({"dom": service.grouped} if old else {"groupName": service.group}),
        "clusters": clusters,
        "cacheMillis": 10000,
        "hosts": _consumers(call, clusters),
        "lastRefTime": int(datetime.now(UTC).timestamp() * 1000),
        "checksum": "",
        "allIps" if call.node.dialect == "3.1" else "allIPs": False,
        "reachProtectionThreshold": False,
        "valid": True,
    }


def v1_list(call: Call) -> Answer:
    """Answer consumers of 1.x, 2.x and 3.x."""
    return plain(_service_info(call, call.optional("clusters")))


def v2_list(call: Call) -> Answer:
    """Answer the same in an envelope."""
    return result(_service_info(call, call.optional("clusterName")))


def v3_client_list(call: Call) -> Answer:
    """Answer consumers of 3.x, to whom no cluster means the one called DEFAULT."""
    return result(_consumers(call, call.optional("clusterName", default="DEFAULT")))


def _unfiltered(call: Call, cluster: str) -> list[dict[str, Any]]:
    service = call.service
    missing = HTTPStatus.NOT_FOUND if call.naming.sticky else HTTPStatus.INTERNAL_SERVER_ERROR
    if not call.naming.knows(service):
        raise WrongError(missing, 30000, f"service {service.grouped} is not found!")
    if call.naming.sticky and cluster not in call.view.clusters(service):
        raise WrongError(missing, 30000, f"cluster {cluster} is not found!")
    hosts = call.view.hosts(service)
    return [_host(call, service, each) for each in hosts if each.cluster == cluster]


def v1_catalog(call: Call) -> Answer:
    """Answer the console of 1.x and 2.x: disabled ones too, one cluster, by page."""
    cluster = call.required("clusterName")
    page, size = call.number("pageNo"), call.number("pageSize")
    found = _unfiltered(call, cluster)
    start = max(0, (page - 1) * size)
    return plain({"list": found[start : page * size], "count": len(found)})


def v3_admin_list(call: Call) -> Answer:
    """Answer operators of 3.x: disabled ones too."""
    found = _unfiltered(call, call.optional("clusterName", default="DEFAULT"))
    if call.flag("healthyOnly", default=False):
        found = [each for each in found if each["healthy"]]
    return result(found)


def v1_detail(call: Call) -> Answer:
    """Answer for one instance, without telling whether it is enabled."""
    service, key = call.service, call.key
    if not call.naming.sticky:
        _old_detail(call, service, key)
    host = _host(call, service, listed(call, service, key))
    names = ("ip", "port", "clusterName", "weight", "healthy", "instanceId", "metadata")
    return plain({"service": service.grouped} | {name: host.get(name) for name in names})


def _old_detail(call: Call, service: Service, key: tuple[str, int, str]) -> None:
    """Refuse as 1.4 does: everything absent is a server error there."""
    if not call.naming.knows(service):
        raise WrongError(500, 30000, f"no service {service.grouped} found!")
    if key not in {each.key for each in call.view.hosts(service)}:
        raise WrongError(500, 30000, "no matched ip found!")


def v3_detail(call: Call) -> Answer:
    """Answer operators of 3.x for one instance."""
    service = call.service
    return result(_host(call, service, listed(call, service, call.key)))


def publishers(call: Call) -> Answer:
    """Tell which client owns an address: a connection, or `ip:port#true`."""
    rows = [
        (client, *spot)
        for client, found in call.naming.publishers(call.service).items()
        for spot in _spots(call, found)
    ]
    if call.node.dialect == "3.1":
        ip, port = call.optional("ip"), call.optional("port")
        return result(
            [
                {"clientId": client, "ip": its, "port": at, "clusterName": cluster}
                for client, its, at, cluster in rows
                if ip in {"", its} and port in {"", str(at)}
            ]
        )
    asked = (call.optional("ip") if call.sent("ip") else None, call.optional("port"))
    return result(
        [
            {"clientId": client, "ip": its, "port": at}
            for client, its, at, _ in rows
            if (its, str(at)) == asked  # measured: what is not asked for is asked to be nothing
        ]
    )


def published(call: Call) -> Answer:
    """Tell what a client registered."""
    client = call.required("clientId")
    found = call.naming.published(client)
    if not found:
        message = f"clientId [ {client} ] not exist"
        if call.node.dialect == "2.2":
            return text(HTTPStatus.NOT_FOUND, message)
        raise WrongError(HTTPStatus.NOT_FOUND, 20004, message)
    rows = [(service, spot) for service, each in found.items() for spot in _spots(call, each)]
    if call.node.dialect == "2.2":
        return result(
            [
                {"namespace": service.namespace, "group": service.group, "serviceName": service.name}
                | {"registeredInstance": {"ip": ip, "port": port, "cluster": cluster}}
                for service, (ip, port, cluster) in rows
            ]
        )
    return result(
        [
            {"namespaceId": service.namespace, "groupName": service.group, "serviceName": service.name}
            | {"publisherInfo": {"clientId": None, "ip": ip, "port": port, "clusterName": cluster}}
            | {"subscriberInfo": None}
            for service, (ip, port, cluster) in rows
        ]
    )


def _spots(call: Call, found: Publication) -> list[tuple[str | None, int, str | None]]:
    """What a publication shows of its instances; 2.2.4 does not look into a batch."""
    if found.batch and call.node.dialect == "2.2":
        return [(None, 0, None)]
    return [(each.ip, each.port, each.cluster) for each in found.instances]


def service(call: Call) -> Answer:
    """Tell what is set for a service."""
    found = call.service
    if not call.naming.knows(found):
        if not call.naming.sticky:  # not measured
            raise WrongError(HTTPStatus.INTERNAL_SERVER_ERROR, 30000, f"service {found.grouped} is not found!")
        message = f"service not found, namespace: {found.namespace}, serviceName: {found.grouped}"
        raise WrongError(HTTPStatus.BAD_REQUEST, 21008, message)
    shown: dict[str, Any] = {
        "namespaceId": found.namespace,
        "groupName": found.group,
        "metadata": {},
        "protectThreshold": call.naming.thresholds.get(found, 0.0),
    }
    if call.family == "v1":
        return plain(shown | {"name": found.name, "selector": {"type": "none"}, "clusters": []})
    return result(shown | {"serviceName": found.name, "clusterMap": {}, "ephemeral": True})
