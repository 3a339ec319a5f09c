"""What registering, removing and editing do, and what they merely claim to do.

Each says ok to far more than it did: that is the point of having them here as measured.
"""

import json
from http import HTTPStatus
from typing import Any

from sidecar.demo.double.answers import Answer, WrongError, plain, result
from sidecar.demo.double.calls import Call
from sidecar.demo.double.reads import listed
from sidecar.demo.double.records import Change, Instance


def register(call: Call) -> Answer:
    """Register over HTTP, as a 1.x client or a script does."""
    service, instance = call.service, call.instance
    call.naming.register(service, call.naming.http_client(instance), instance)
    return call.ok()


def deregister(call: Call) -> Answer:
    """Remove what was registered over HTTP; for a gRPC instance a no-op that says ok."""
    service, instance = call.service, call.instance
    call.naming.deregister(service, call.naming.http_client(instance))
    return call.ok()


def put(call: Call) -> Answer:
    """Write everything; only 2.x and 3.x look whether the service exists, none for the instance."""
    service, instance = call.service, call.instance
    if call.naming.sticky and not call.naming.knows(service):
        shown = (
            f"Service{{namespace='{service.namespace}', group='{service.group}',"
            f" name='{service.name}', ephemeral={str(instance.ephemeral).lower()}, revision=0}}"
        )
        message = f"service not found, namespace: {service.namespace}, service: {shown}"
        raise WrongError(HTTPStatus.BAD_REQUEST, 21004, message)
    call.naming.put(service, instance)
    return call.ok()


def patch(call: Call) -> Answer:
    """Write a part of an instance that is listed."""
    service, key = call.service, call.key
    if call.naming.sticky:
        listed(call, service, key)
    elif key not in {each.key for each in call.naming.merged(service)}:
        raise WrongError(HTTPStatus.BAD_REQUEST, 21003, "instance not found")
    weight, enabled = call.optional("weight"), call.optional("enabled")
    change = Change(
        enabled.lower() == "true" if enabled else None,
        float(weight) if weight else None,
        call.metadata,
    )
    call.naming.patch(service, key, change)
    return call.ok()


def partial(call: Call) -> Answer:
    """Write a part, says 3.x; but what its form omits is filled in with defaults first."""
    service, key, full = call.service, call.key, call.instance
    listed(call, service, key)
    call.naming.patch(service, key, Change(full.enabled, full.weight, call.metadata))
    return call.ok()


def service(call: Call) -> Answer:
    """Set the threshold of a service."""
    found = call.service
    if not call.naming.knows(found):
        raise WrongError(HTTPStatus.BAD_REQUEST, 21008, f"service {found.grouped} not found!")
    call.naming.thresholds[found] = float(call.optional("protectThreshold", default="0"))
    return call.ok()


def beat(call: Call) -> Answer:
    """Take a beat; one with a body brings a removed instance back."""
    sent = call.optional("beat")
    instance = _beating(json.loads(sent), call) if sent else Instance(*call.key)
    known = call.naming.beat(call.service, instance, complete=bool(sent))
    said = {"clientBeatInterval": 5000, "code": 10200 if known else 20404}
    return plain(said | {"lightBeatEnabled": True})


def _beating(sent: dict[str, Any], call: Call) -> Instance:
    return Instance(
        sent["ip"],
        int(sent["port"]),
        sent.get("cluster") or call.optional("clusterName", "cluster", default="DEFAULT"),
        weight=float(sent.get("weight") or 1.0),
        metadata=sent.get("metadata") or {},
    )


def client_register(call: Call) -> Answer:
    """Register or beat by the 3.x client API; a beat for an unknown instance says so."""
    if not call.flag("heartBeat", default=False):
        return register(call)
    if call.naming.beat(call.service, call.instance, complete=False):
        return call.ok()
    return result(None, code=21003)
