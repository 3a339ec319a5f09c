"""How values are written: one parser per kind of setting, beside the words for what it accepts.

A parser's ValueError is read by somebody in a hurry, and by everybody who can read the log: it says what is wrong, and
never repeats what may be a credential.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from typed_settings.converters import to_bool


NACOS_PORT = 8848
NACOS_CONTEXT_PATH = "/nacos"

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_CONTEXT_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+")
_HIGHEST_PORT = 65535
_SHOWN_AT_MOST = 80  # a value is shown to be recognised; a whole file, set by mistake, is no message


class SecretUnreadable(Exception):
    """A secret's file cannot be read at the moment. Names the file, never what is in it."""


class Secret:
    """A credential that shows itself to nobody by accident.

    One in a file is read anew each time: mounted secrets are rotated under us, and a file that is missing when we start
    may be there when it is needed.
    """

    __slots__ = ("_file", "_value")

    def __init__(self, value: str = "", *, file: str | None = None) -> None:
        self._value = value
        self._file = file

    def read(self) -> str:
        """Give the secret as it is now, without the one newline that editors and `echo` put behind it."""
        text = self._value if self._file is None else self._from(self._file)
        return text.removesuffix("\n").removesuffix("\r")

    @staticmethod
    def _from(file: str) -> str:
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            raise SecretUnreadable(f"cannot read {file}: {error.strerror}") from None
        except ValueError:
            raise SecretUnreadable(f"cannot read {file}: not a usable path") from None
        text = data.decode(errors="replace")  # a strict decoder's exception would carry the bytes
        if "\N{REPLACEMENT CHARACTER}" in text:
            raise SecretUnreadable(f"cannot read {file}: not UTF-8 text")
        if not text.strip():
            raise SecretUnreadable(f"cannot read {file}: it is empty")  # an empty token is matched by sending none
        return text

    def __repr__(self) -> str:
        return "***"


class Listen(NamedTuple):
    """Where the HTTP server listens. No host: on every address, IPv6 and IPv4."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this network namespace can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def shown(text: str) -> str:
    """Quote a value: enough of it to be recognised, its control characters harmless in a log."""
    return repr(text if len(text) <= _SHOWN_AT_MOST else text[:_SHOWN_AT_MOST] + "…")


def shown_url(text: str) -> str:
    """Quote an address, unless any of it may be a credential: where one would end nobody can tell."""
    return "***" if re.search(r"[@?#]", text) else shown(text)


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


def _parts(text: str) -> list[str]:
    """Split at commas; an entry said twice counts once, or each of its requests would be sent twice."""
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise ValueError("an empty list")
    return parts


def _ports(text: str) -> tuple[int, ...]:
    parts = _parts(text)
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,5}", part) or not 1 <= int(part) <= _HIGHEST_PORT:
            raise ValueError(f"{shown(part)} is not a port")
    return tuple(dict.fromkeys(map(int, parts)))


def _name(text: str) -> str:
    if not text.isprintable() or re.search(r"\s", text):
        raise ValueError("has a space or a control character in it")
    return text


def _namespace(text: str) -> str:
    # One and the same: its id is "" in the API and "public" in the console.
    return "" if text == "public" else _name(text)


def _services(text: str) -> tuple[str, ...]:
    parts = _parts(text)
    for part in parts:
        if "@@" in _name(part):
            raise ValueError(f"{shown(part)} names a group, which goes into NACOS_DRAIN_NACOS_GROUP")
    return tuple(parts)


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError("not an IP address") from None
    return text  # as it was written: Nacos compares strings, and Java writes IPv6 uncompressed


def _host(text: str, *, bracketed: bool) -> str:
    """Check a host; IPv6 has to be in brackets, or its last group would be taken for a port."""
    if bracketed:
        if "%" in text:
            raise ValueError("a zone means nothing to anybody else")
        return f"[{IPv6Address(text)}]"
    if re.fullmatch(r"[0-9.]+", text):
        return str(ip_address(text))
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("not a host name")
    return text.lower()


def _listen(text: str) -> Listen:
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        raise ValueError("not host:port")
    host = match["v6"] or match["host"]
    try:
        host = host and _host(host, bracketed=bool(match["v6"])).strip("[]")
    except ValueError:
        raise ValueError(f"{shown(host)} is not a host") from None
    return Listen(host, int(match["port"]))


def _server(part: str) -> str:
    """Complete one address to the URL that every API path is appended to."""
    try:
        # Checked before, as urlsplit drops tabs and newlines without a word.
        url = urlsplit(_name(part if "://" in part else f"http://{part}"))
        host = _host(url.hostname or "", bracketed="[" in url.netloc)
        port = NACOS_PORT if url.port is None else url.port
    except ValueError:
        raise ValueError(f"{shown(part)} is not a server address") from None
    path = url.path.rstrip("/") or NACOS_CONTEXT_PATH
    if url.scheme not in {"http", "https"}:
        raise ValueError(f"{shown(part)} is neither http nor https")
    if port == 0 or not _CONTEXT_PATH.fullmatch(path):
        raise ValueError(f"{shown(part)} is not a server address")
    return f"{url.scheme}://{host}:{port}{path}"


def _servers(text: str) -> tuple[str, ...]:
    # Before anything is taken apart: a password may hold commas, colons and slashes.
    if "@" in text:
        raise ValueError("credentials go into NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD")
    if re.search(r"[?#]", text):
        raise ValueError("an address with a query or a fragment")
    return tuple(dict.fromkeys(map(_server, _parts(text))))


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


@dataclass(frozen=True)
class Kind:
    """How a value is written: its parser, and the words for what that accepts."""

    name: str
    valid: str
    parse: Callable[[str], object]
    text: Callable[[Any], str] = str  # a default, as it would be set
    shown: Callable[[str], str] = shown  # what was given, as it may be repeated


def choice(values: type[StrEnum], *, later: str = "") -> Kind:
    """One of a few words; `later` is one that a coming version will know."""

    def parse(text: str) -> StrEnum:
        if text.lower() == later:
            raise ValueError("not in this version")
        if text.lower() not in set(values):
            raise ValueError("not one of these")
        return values(text.lower())

    return Kind("|".join(values), ", ".join(values), parse)


def _masked(_text: str) -> str:
    return "***"


SECONDS = Kind("duration", "seconds, or units as in 40s, 1m30s, 500ms; not negative", duration, duration_text)
SECRET = Kind("secret", "any text, or a file's path under this name with _FILE behind it", Secret, shown=_masked)
SECRET_FILE = Kind("path", "the path of a file", lambda text: Secret(file=text))
PORTS = Kind("ports", "1 to 65535, several with commas", _ports)
ADDRESS = Kind("address", "one IPv4 or IPv6 address", _address)
LISTEN = Kind("host:port", ":19081, 0.0.0.0:19081, [::]:19081, 127.0.0.1:0", _listen)
NAME = Kind("name", "a name without spaces", _name)
NAMESPACE = Kind("name", "a namespace id", _namespace, lambda value: value or "public")
SERVICES = Kind("names", "bare service names, several with commas", _services)
SERVERS = Kind(
    "addresses",
    "host, host:port, [IPv6]:port or http(s)://host:port/path, several with commas",
    _servers,
    shown=shown_url,
)
PATTERN = Kind("pattern", "a Python regular expression", _pattern)
SWITCH = Kind("switch", "true or false", _switch, lambda value: str(value).lower())
