"""What Nacos says, judged: success, absence, lists. Whatever is none of these is no verdict.

The danger is one-sided. A list misread as empty is a false proof that an app is gone, so every body that is not exactly
a list raises: half a body, an error in a 200, a web page, rows of another shape.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import Any, TypeVar

from sidecar.http import Answer
from sidecar.ports import Unavailable
from sidecar.registration import BEAT, Instance, Record, Service

from .dialects import Dialect


T = TypeVar("T")

MARK = "nacos-drain"  # the metadata key of our ownership mark

# Nacos' own words for "there is no such instance", whole: an Ingress says 'no service' too.
_ABSENT = re.compile(
    r"no matched ip found!"
    r"|no ips found for cluster .+ in service .+"
    r"|instance not found"
    r"|service not found, namespace: .+"
    r"|(service|cluster) .+ is not found!"
    r"|no service .+ found!",
    re.DOTALL,
)
LONGEST_BEAT = 600.0  # seconds; what is said to be longer, or none, is not believed
_MAY_BE_ABSENT = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR})


@dataclass(frozen=True, slots=True)
class Member:
    """A row of the member list."""

    address: str
    down: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """A row of the publisher list: a client, and one instance that it registered."""

    client: str
    ip: str  # empty: the server does not look into batches (2.2.4)
    port: int
    cluster: str  # empty: not told (2.2.4)


def absent(answer: Answer) -> bool:
    """Whether Nacos itself says that there is no such instance, service or cluster."""
    return answer.status in _MAY_BE_ABSENT and _ABSENT.fullmatch(_words(answer)) is not None


def _words(answer: Answer) -> str:
    """The message: bare, as `caused: …;` (1.x), or the data of a result object (3.x)."""
    text = answer.text.strip()
    if not text.startswith("{"):
        return text.removeprefix("caused: ").removesuffix(";")
    try:
        body = _object(answer)
    except Unavailable:
        return ""
    return str(body.get("data")) if "code" in body else ""


def told(answer: Answer) -> str:
    """What to quote of a refusal: of an object its message, of a web page nothing."""
    text = answer.text.strip()
    if text.startswith("<"):
        return "a web page"
    if text.startswith("{"):
        try:
            body = _object(answer)
        except Unavailable:
            return text
        return str(body.get("data") or body.get("message") or body.get("error") or text)
    return text or "an empty body"


def wrote(answer: Answer, dialect: Dialect) -> None:
    """A write has worked only when the body says so; 3.x has been seen to answer 200 with nothing."""
    if dialect.envelope and answer.body:
        _data(answer)
    elif dialect.envelope or answer.text.strip() != "ok":
        raise Unavailable("answers a write with 200 but without Nacos' success in the body")


def deleted(answer: Answer, _: Dialect) -> None:
    """The old API's word, whoever speaks it."""
    if answer.text.strip() != "ok":
        raise Unavailable("answers a DELETE with 200 but without Nacos' ok in the body")


def members(answer: Answer) -> tuple[Member, ...]:
    """Read a member list; its rows are alike in all versions."""
    rows: Any = _object(answer).get("data")
    try:
        return tuple(Member(row["address"].lower(), row.get("state") == "DOWN") for row in rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable("sends a member list that is none") from error


def threshold(answer: Answer, dialect: Dialect) -> float:
    """The protectThreshold of a service."""
    said: Any = _data(answer) if dialect.envelope else _object(answer)
    try:
        return float(str(said["protectThreshold"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable("describes a service without its protectThreshold") from error


def publishers(answer: Answer) -> tuple[Holding, ...]:
    """Read a publisher list; it has an envelope on 2.x as well."""
    rows: Any = _data(answer)
    try:
        return tuple(
            Holding(
                str(row["clientId"]),
                str(row["ip"] or ""),
                int(str(row["port"])),
                str(row.get("clusterName") or row.get("cluster") or ""),
            )
            for row in rows
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable("sends a list of publishers that is none") from error


def published(answer: Answer, service: Service) -> int:
    """How many instances of a service a client has registered."""
    rows: Any = _data(answer)
    wanted = (service.namespace or "public", service.group, service.name)
    try:
        return sum((row["namespace"], row["group"], row["serviceName"]) == wanted for row in rows)
    except (KeyError, TypeError) as error:
        raise Unavailable("sends a list of what a client published that is none") from error


def token(answer: Answer) -> tuple[str, float]:
    """The token of a login, and for how many seconds it is good."""
    try:
        body = _object(answer)
        found, ttl = body["accessToken"], float(str(body["tokenTtl"]))
    except (KeyError, ValueError) as error:
        raise Unavailable("answers the login with something that is no token") from error
    if not isinstance(found, str) or not found.isascii() or not found.isprintable():
        raise Unavailable(
            "answers the login with something that is no token"
        )  # and would break the header it goes into
    return found, ttl


def listed(
    answer: Answer, dialect: Dialect, key: str, service: Service, addresses: Iterable[str]
) -> tuple[Record, ...]:
    """The records on these addresses."""
    wanted = tuple(addresses)
    if _says_no(answer.body, dialect, key, wanted):
        return ()
    rows = _data(answer) if dialect.envelope else _object(answer).get(key)
    if not isinstance(rows, list):
        raise Unavailable("answers with something that is no list of instances")
    plain = frozenset(map(_plain, wanted))
    found = (_record(row, service, plain) for row in rows)
    return tuple(record for record in found if record is not None)


def _says_no(body: bytes, dialect: Dialect, key: str, addresses: tuple[str, ...]) -> bool:
    """Whether this is a whole list of instances without our address, found without parsing megabytes of it.

    Whole: its braces match, which nothing that was cut off does. IPv6 has too many spellings to search for.
    """
    if any(":" in address or address.encode() in body for address in addresses):
        return False
    whole = body[:1] == b"{" and body.count(b"{") == body.count(b"}")
    rows = f'"{key}":[]'.encode() in body or (f'"{key}":[{{'.encode() in body and b'"ip":"' in body)
    return whole and rows and (not dialect.envelope or b'"code":0,' in body)


def _record(row: Any, service: Service, addresses: frozenset[str]) -> Record | None:
    """One row as a record, None when it is somebody else's."""
    try:
        row, ip = _of(row, dict), _of(row["ip"], str)
        if _plain(ip) not in addresses:
            return None
        if str(row.get("clusterName") or service.cluster) != service.cluster:
            return None
        metadata = row.get("metadata") or {}
        return Record(
            Instance(service, ip, int(str(row["port"]))),
            enabled=_of(row["enabled"], bool),
            weight=float(str(row.get("weight", 1.0))),
            healthy=_of(row.get("healthy", True), bool),
            ephemeral=_of(row.get("ephemeral", True), bool),
            mark=str(metadata.get(MARK) or ""),
            beat=_beat(row.get("instanceHeartBeatInterval")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unavailable("sends a list with a row that is no instance") from error


def _beat(sent: object) -> float:
    """Seconds between beats. Who says nothing, or nonsense, beats as clients do by default."""
    if isinstance(sent, bool) or not isinstance(sent, int | float):
        return BEAT
    return sent / 1000 if 0 < sent <= LONGEST_BEAT * 1000 else BEAT


def same(one: str, other: str) -> bool:
    """Whether two spellings are one address; what is no address is a host name."""
    return _plain(one) == _plain(other)


def _plain(address: str) -> str:
    """The one spelling of an address that is compared: only IPv6 has several.

    Spring Cloud Alibaba registers it in brackets; a dual-stack socket names an IPv4 address in IPv6.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or parsed)


def _of(value: object, kind: type[T]) -> T:
    if isinstance(value, kind):
        return value
    raise TypeError(value)


def _object(answer: Answer) -> dict[str, Any]:
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise Unavailable("answers with something that is no JSON") from error
    if not isinstance(body, dict):
        raise Unavailable("answers with JSON that is no object")
    return body


def _data(answer: Answer) -> object:
    """What is in the envelope; a 200 may well carry another code than 0."""
    body = _object(answer)
    if body.get("code") != 0:
        raise Unavailable(f"answers {answer.status} with code {body.get('code')}: {body.get('message')}")
    return body.get("data")
