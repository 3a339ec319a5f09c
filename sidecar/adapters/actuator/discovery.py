"""How the app is registered, by its own word: our starter's, else by the properties of its Spring Cloud Alibaba.

The shape of `nacosdiscovery` is the same from 2021 to 2025.1 (rollout-baseline.md section 3). Whatever has another one
is no verdict: half an identity would be drained in the wrong group and proved where nobody looks.
"""

import json
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from sidecar.ports import Unavailable
from sidecar.registration import Identity, Instance, Publisher, Service


NACOS_PORT = 8848
NACOS_CONTEXT_PATH = "/nacos"
HIGHEST_PORT = 65535

_SERVER = re.compile(
    r"(?:(https?)://)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(/[\w./~-]*)?", re.IGNORECASE | re.ASCII
)
STATES = frozenset({"STARTING", "UP", "DOWN", "DISABLED"})  # of the starter: that it is one of these tells it apart

_VERSION = re.compile(r"(\d{1,4})\.\d[\w.+-]{0,40}", re.ASCII)
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_ISO = re.compile(rf"PT(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?", re.IGNORECASE)
_SUFFIXED = re.compile(rf"{_NUMBER}(ms|s|m|h)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def registration(body: bytes, source: str) -> Identity:
    """Read the answer of our starter. Raises Unavailable when it is somebody else's."""
    told = _json(body)
    if not isinstance(told, dict) or told.get("state") not in STATES:
        raise Unavailable("answers with JSON that is not our starter's")
    client = _VERSION.fullmatch(_text(told, "nacosClient"))
    registers = told.get("registerEnabled") is not False
    return Identity(
        _instance(told, _text(told, "cluster")) if registers else None,
        registers=registers,
        servers=_servers(_text(told, "serverAddr"), _text(told, "contextPath")),
        stop_wait=_seconds(told.get("gracefulShutdownWaitTime")),
        source=source,
        starter=True,
        publisher=_publisher(told.get("ephemeral"), int(client[1]) if client else 0),
        client=client[0] if client else "",
    )


def _publisher(ephemeral: object, major: int) -> Publisher:
    """Who holds it: clients have registered over a connection since 2.0, and beaten over HTTP before."""
    if ephemeral is False:
        return Publisher.PERSISTENT
    if ephemeral is not True or major == 0:
        return Publisher.UNKNOWN
    return Publisher.BEAT if major == 1 else Publisher.GRPC


@dataclass(frozen=True, slots=True)
class Discovery:
    """What `nacosdiscovery` told. The login is the app's own at Nacos, and shows itself to nobody by accident."""

    identity: Identity
    credentials: tuple[str, str] | None = field(repr=False)


def discovery(body: bytes, source: str) -> Discovery:
    """Read its answer. Raises Unavailable, without a word of the body, when it is not this endpoint's."""
    properties = _properties(body)
    more = properties.get("nacosProperties")
    more = more if isinstance(more, dict) else {}
    registers = properties.get("registerEnabled") is not False
    identity = Identity(
        _instance(properties, _text(properties, "clusterName")) if registers else None,
        registers=registers,
        servers=_servers(_text(properties, "serverAddr"), _text(more, "contextPath")),
        stop_wait=_seconds(properties.get("gracefulShutdownWaitTime")),
        source=source,
    )
    username, password = _text(properties, "username"), _text(properties, "password")
    return Discovery(identity, (username, password) if username and password else None)


def _json(body: bytes) -> object:
    try:
        told: object = json.loads(body)
    except (ValueError, RecursionError):
        page = body.lstrip().startswith(b"<")
        raise Unavailable(f"answers with {'a web page' if page else 'something that is no JSON'}") from None
    return told


def _properties(body: bytes) -> dict[str, Any]:
    told = _json(body)
    properties = told.get("NacosDiscoveryProperties") if isinstance(told, dict) else None
    if not isinstance(properties, dict):
        raise Unavailable("answers with JSON that has no NacosDiscoveryProperties")
    return properties


def _text(properties: dict[str, Any], name: str) -> str:
    """A property that is text; those that were not set are empty or null."""
    value = properties.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unavailable(f"has a {name} that is no text")
    return value.strip()


def _instance(properties: dict[str, Any], cluster: str) -> Instance | None:
    """The registration; None while the port is -1, which it is until the app has registered."""
    port = properties.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or port > HIGHEST_PORT:
        raise Unavailable("has a port that is none")
    name, ip = _text(properties, "service"), _text(properties, "ip")
    if port <= 0:
        return None
    if not name or not ip:
        raise Unavailable(f"names no {'ip' if name else 'service'}")
    namespace = _text(properties, "namespace")
    service = Service(
        name,
        _text(properties, "group") or "DEFAULT_GROUP",
        "" if namespace == "public" else namespace,
        cluster or "DEFAULT",  # "" from 2023.0.1 on, while Nacos has it in DEFAULT
    )
    return Instance(service, ip, port)


def _servers(addresses: str, context_path: str) -> tuple[str, ...]:
    """The URLs that every API path is appended to; empty where the app finds its servers another way."""
    path = "/" + context_path.strip("/") if context_path.strip("/") else NACOS_CONTEXT_PATH
    entries = (_server(entry.strip(), path) for entry in re.split(r"[,;]", addresses))
    return tuple(dict.fromkeys(entry for entry in entries if entry is not None))


def _server(entry: str, context_path: str) -> str | None:
    """Complete one address as NACOS_SERVER_ADDR is; None for what is no address."""
    match = _SERVER.fullmatch(entry)
    if match is None:
        return None
    scheme, host, port, path = match.groups()
    if not 1 <= int(port or NACOS_PORT) <= HIGHEST_PORT:
        return None
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    path = (path or "").rstrip("/") or context_path
    return f"{(scheme or 'http').lower()}://{host.lower()}:{port or NACOS_PORT}{path}"


def _seconds(value: object) -> float | None:
    """The built-in wait: milliseconds (an Integer in 2023.0.3.4), or a duration's text; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000 if 0 <= value < float("inf") else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if match := _SUFFIXED.fullmatch(text):
        return float(match[1]) * _SECONDS[(match[2] or "ms").lower()]
    if (match := _ISO.fullmatch(text)) and any(match.groups()):
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    return None
