"""Hosts, ports and URLs, each completed to the one form that its user needs.

Credentials in an address are refused before it is taken apart: a password may hold commas, colons and slashes.
"""

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from sidecar.settings.written import entries, shown, word


HIGHEST_PORT = 65535
NACOS_PORT = 8848
NACOS_CONTEXT_PATH = "/nacos"
ACTUATOR_PATH = "/actuator"

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+")
_LACKS_SCHEME = re.compile(r"//.*|[^/]*:[0-9]+(/.*)?")
_MAPPED = 96  # bits before an IPv4 address that is written in IPv6


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


def address(text: str) -> str:
    """Check one IP address."""
    try:
        ip_address(text)
    except ValueError:
        raise ValueError("not an IP address") from None
    return text  # as it was written: Nacos compares strings, and Java writes IPv6 uncompressed


def peers(text: str) -> tuple[str, ...]:
    """Read the addresses of callers, each as the kernel's sockets show it: IPv4 in IPv6 is folded."""
    return tuple(dict.fromkeys(map(_peer, _zoneless(text))))


def _peer(part: str) -> str:
    try:
        found = ip_address(part)
    except ValueError:
        raise ValueError(f"{shown(part)} is not an IP address") from None
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    if found.is_unspecified or found.is_multicast:
        raise ValueError(f"nobody calls from {shown(part)}")
    return str(found)


def networks(text: str) -> tuple[str, ...]:
    """Read networks of callers, IPv4 in IPv6 folded; an address is a network of one."""
    return tuple(dict.fromkeys(map(_network, _zoneless(text))))


def _network(part: str) -> str:
    """Check one. Bits behind the prefix are refused: dropped, they would make one caller a network of many."""
    try:
        found = ip_interface(part)
    except ValueError:
        raise ValueError(f"{shown(part)} is neither a network nor an IP address") from None
    network: IPv4Network | IPv6Network = found.network
    if found.ip != network.network_address:
        raise ValueError(f"{shown(part)} has bits behind its prefix: write {network}, or {found.ip} for that one alone")
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        network = IPv4Network((mapped, network.prefixlen - _MAPPED))
    if network.prefixlen == 0:
        raise ValueError(f"{shown(part)} is everybody, and nobody would be waited for")
    return str(network)


def _zoneless(text: str) -> list[str]:
    parts = entries(text)
    for part in parts:
        if "%" in part:
            raise ValueError(f"{shown(part)} has a zone, which the kernel's sockets do not show")
    return parts


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


def listen(text: str) -> Listen:
    """Read where to listen; the host may be missing, and port 0 is any free one."""
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > HIGHEST_PORT:
        raise ValueError("not host:port")
    host = match["v6"] or match["host"]
    try:
        host = host and _host(host, bracketed=bool(match["v6"])).strip("[]")
    except ValueError:
        raise ValueError(f"{shown(host)} is not a host") from None
    return Listen(host, int(match["port"]))


def host_port(text: str) -> str:
    """Read where somebody else listens, as it goes into a URL."""
    try:
        there = listen(text)
    except ValueError:
        raise ValueError("not host:port") from None  # its own complaint repeats what may be a credential here
    if not there.host or not there.port:
        raise ValueError("not host:port")
    return str(there)


def _url(text: str) -> tuple[SplitResult, str]:
    """Take an http(s) URL apart, one without a scheme too: all of it, and its host as it goes into a URL."""
    try:
        # Checked before, as urlsplit drops tabs and newlines without a word.
        url = urlsplit(word(text if "://" in text else f"http://{text}"))
        host = _host(url.hostname or "", bracketed="[" in url.netloc)
        port = url.port
    except ValueError:
        raise ValueError("not an address") from None
    if url.scheme not in {"http", "https"}:
        raise ValueError("neither http nor https")
    if port == 0:
        raise ValueError("not an address")
    return url, host


def _server(part: str) -> str:
    """Complete one address to the URL that every API path is appended to."""
    try:
        url, host = _url(part)
    except ValueError as error:
        raise ValueError(f"{shown(part)} is {error}") from None
    path = url.path.rstrip("/") or NACOS_CONTEXT_PATH
    if not _PATH.fullmatch(path):
        raise ValueError(f"{shown(part)} is not an address")
    return f"{url.scheme}://{host}:{url.port or NACOS_PORT}{path}"


def servers(text: str) -> tuple[str, ...]:
    """Read the addresses of Nacos; the same one counts once however it is written."""
    _bare(text, "NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD")
    return tuple(dict.fromkeys(map(_server, entries(text))))


def actuator(text: str) -> str:
    """Complete the actuator's address to what every endpoint's `/name` is appended to."""
    _bare(text, "NACOS_DRAIN_ACTUATOR_USERNAME and NACOS_DRAIN_ACTUATOR_PASSWORD")
    url, host = _url(text)
    if url.port is None and "://" not in text:
        raise ValueError("an address without a port")
    path = url.path.rstrip("/")
    if path and not _PATH.fullmatch(path):
        raise ValueError("not an address")
    # Spring's base path may be "/" on a management port: a slash alone says so, nothing means the default.
    return f"{url.scheme}://{_with_port(url, host)}{path if url.path else ACTUATOR_PATH}"


def endpoint(text: str) -> str:
    """Read a URL, or what comes behind the actuator's: that begins with a slash then."""
    word(text)
    where, query, rest = text.partition("?")
    if "#" in text:
        raise ValueError("a fragment, which is never sent")
    if "://" in where:
        if "@" in where:
            raise ValueError("credentials go into NACOS_DRAIN_DEREGISTER_HEADERS")
        url, host = _url(where)
        where, path = f"{url.scheme}://{_with_port(url, host)}{url.path}", url.path
    else:
        if _LACKS_SCHEME.fullmatch(where):
            raise ValueError("a URL without http:// or https:// before it")
        where = path = f"/{where.removeprefix('/')}"
        if f"{path}/".startswith(f"{ACTUATOR_PATH}/"):
            raise ValueError("it is appended to the actuator's URL, so it begins behind /actuator")
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("has . or .. in its path")
    return where + query + rest


def _with_port(url: SplitResult, host: str) -> str:
    return host if url.port is None else f"{host}:{url.port}"


def _bare(text: str, where: str) -> None:
    """Check that an address has nothing before its host or behind its path."""
    if "@" in text:
        raise ValueError(f"credentials go into {where}")
    if re.search(r"[?#]", text):
        raise ValueError("an address with a query or a fragment")
