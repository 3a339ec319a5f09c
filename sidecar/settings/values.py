"""How values are written: one parser per kind of setting, beside the words for what it accepts.

A parser's ValueError is read by somebody in a hurry, and by everybody who can read the log: it says what is wrong, and
never repeats what may be a credential.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from typed_settings.converters import to_bool

from sidecar.settings.addresses import (
    HIGHEST_PORT,
    actuator,
    address,
    endpoint,
    host_port,
    listen,
    networks,
    peers,
    servers,
)
from sidecar.settings.credentials import Headers, Secret, SecretUnreadable, unreadable
from sidecar.settings.written import entries, shown, shown_url, word
from sidecar.settle import Rule


_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_SHORTEST_LOOK_BACK = 3.0  # a rhythm is three requests, and one a second is seen
_LONGEST_LOOK_BACK = Rule().memory  # who called before is forgotten


def duration(text: str) -> float:
    """Read `40s`, `1m30s`, `500ms` or plain seconds."""
    seconds = math.inf
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif text and (match := _DURATION.fullmatch(text)):
        # Summed up in milliseconds, so that whatever duration_text() wrote comes back to the last bit.
        numbers = zip(match.groups(default="0"), _UNITS_MS.values(), strict=True)
        seconds = sum(float(number) * unit for number, unit in numbers) / 1000
    if not math.isfinite(seconds):
        raise ValueError("not a duration")
    return seconds


def duration_text(seconds: float) -> str:
    """Write a duration as it can be set, to the millisecond."""
    rest = round(seconds * 1000)
    text = ""
    for name, unit in _UNITS_MS.items():
        number, rest = divmod(rest, unit)
        text += f"{number}{name}" if number else ""
    return text or "0s"


def _look_back(text: str) -> float:
    seconds = duration(text)
    if seconds < _SHORTEST_LOOK_BACK:
        raise ValueError("too short for a rhythm to be known")
    if seconds > _LONGEST_LOOK_BACK:
        raise ValueError("longer than callers are remembered")
    return seconds


def _factor(text: str) -> float:
    """Read a plain number. Below 1, a caller would be taken to be gone within a pause that it has made before."""
    number = float(text) if re.fullmatch(_NUMBER, text) else math.nan
    if not math.isfinite(number):
        raise ValueError("not a number")
    if number < 1:
        raise ValueError("less than 1")
    return number


def _ports(text: str) -> tuple[int, ...]:
    parts = entries(text)
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,5}", part) or not 1 <= int(part) <= HIGHEST_PORT:
            raise ValueError(f"{shown(part)} is not a port")
    return tuple(dict.fromkeys(map(int, parts)))


def _namespace(text: str) -> str:
    # One and the same: its id is "" in the API and "public" in the console.
    return "" if text == "public" else word(text)


def _services(text: str) -> tuple[str, ...]:
    parts = entries(text)
    for part in parts:
        if "@@" in word(part):
            raise ValueError(f"{shown(part)} names a group, which goes into NACOS_DRAIN_NACOS_GROUP")
    return tuple(parts)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {shown(str(error))}") from None
    return text


def _switch(text: str) -> bool:
    try:
        return to_bool(text)
    except ValueError:
        raise ValueError("neither true nor false") from None


def _nothing(_text: str) -> str:
    return ""


@dataclass(frozen=True)
class Kind:
    """How a value is written: its parser, and the words for what that accepts.

    One with a `file` is a secret: masked, without a flag, and its variable has a twin of that kind for a file's path.
    `lacks` tells why a named file is of no use at the moment. That is never a fault: it may come later, and no outside
    trouble may stop `serve`.
    """

    name: str
    valid: str
    parse: Callable[[str], object]
    text: Callable[[Any], str] = str  # a default, as it would be set
    shown: Callable[[str], str] = shown  # what was given, as it may be repeated
    file: "Kind | None" = None
    lacks: Callable[[str], str] = _nothing


def choice(values: type[StrEnum]) -> Kind:
    """One of a few words, in either case."""
    words = {value.lower(): value for value in values}

    def parse(text: str) -> StrEnum:
        if text.lower() not in words:
            raise ValueError("not one of these")
        return words[text.lower()]

    return Kind("|".join(values), ", ".join(values), parse)


def _secret_kind(name: str, what: str, read: type[Secret | Headers]) -> Kind:
    """A secret, and its twin: read once at the start too, so that a wrong path is told before it is needed."""

    def lacks(path: str) -> str:
        try:
            read(file=path).read()
        except SecretUnreadable as error:
            return str(error)
        return ""

    twin = Kind("path", "the path of a file", lambda path: read(file=path), lacks=lacks)
    valid = f"{what}, or a file's path under this name with _FILE behind it"
    return Kind(name, valid, read, shown=lambda _: "***", file=twin)


def _no_authorities(path: str) -> str:
    """Tell a missing file, and the usual mistake: a key, or a certificate in DER."""
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        return unreadable(path, error)
    return "" if re.search(rb"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----", data) else f"no PEM certificate in {path}"


SECONDS = Kind("duration", "seconds, or units as in 40s, 1m30s, 500ms; not negative", duration, duration_text)
LOOK_BACK = Kind(
    "duration",
    f"{duration_text(_SHORTEST_LOOK_BACK)} to {duration_text(_LONGEST_LOOK_BACK)}, as 300, 5m, 1m30s",
    _look_back,
    duration_text,
)
FACTOR = Kind("number", "1 or more, as 3 or 2.5", _factor, "{:g}".format)
SECRET = _secret_kind("secret", "any text", Secret)
HEADERS = _secret_kind("headers", r"'Name: value', more of them on lines of their own or with \n between", Headers)
CA_FILE = Kind("path", "the path of a PEM file", str, lacks=_no_authorities)
PORTS = Kind("ports", "1 to 65535, several with commas", _ports)
ADDRESS = Kind("address", "one IPv4 or IPv6 address", address)
PEERS = Kind("addresses", "IPv4 or IPv6 addresses, several with commas", peers)
NETWORKS = Kind("networks", "10.0.0.0/8, fd00::/8 or one address, several with commas", networks)
LISTEN = Kind("host:port", ":19081, 0.0.0.0:19081, [::]:19081, 127.0.0.1:0", listen)
HOST_PORT = Kind("host:port", "127.0.0.1:22222, [::1]:22222", host_port, shown=shown_url)
NAME = Kind("name", "a name without spaces", word)
NAMESPACE = Kind("name", "a namespace id", _namespace, lambda value: value or "public")
SERVICES = Kind("names", "bare service names, several with commas", _services)
SERVERS = Kind(
    "addresses",
    "host, host:port, [IPv6]:port or http(s)://host:port/path, several with commas",
    servers,
    shown=shown_url,
)
ACTUATOR = Kind(
    "url",
    "host:port or http(s)://host:port/path; without a path /actuator, and / for none",
    actuator,
    shown=shown_url,
)
ENDPOINT = Kind("url", "nacos-deregister, or http(s)://host:port/path", endpoint, shown=shown_url)
PATTERN = Kind("pattern", "a Python regular expression", _pattern)
SWITCH = Kind("switch", "true or false", _switch, lambda value: str(value).lower())
