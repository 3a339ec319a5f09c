"""The default gateways of the pod's network namespace: whoever calls from there may be the node itself."""

import sys
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop


def default_gateways(proc: str = "/proc") -> frozenset[str]:
    """Their addresses, as far as the kernel shows them: none where nothing can be read."""
    found = [_ipv4(row) for row in _rows(proc, "route")] + [_ipv6(row) for row in _rows(proc, "ipv6_route")]
    return frozenset(gateway for gateway in found if gateway)


def _rows(proc: str, name: str) -> list[list[str]]:
    try:
        return [line.split() for line in (Path(proc) / "net" / name).read_text().splitlines()]
    except OSError:
        return []


def _ipv4(row: list[str]) -> str:
    """The gateway of a default route: interface, destination, gateway, four numbers, mask; in the machine's order."""
    try:
        destination, gateway, mask = (int(row[i], 16).to_bytes(4, sys.byteorder) for i in (1, 2, 7))
    except (ValueError, IndexError, OverflowError):
        return ""  # the headline, for one
    default = not any(destination) and not any(mask)
    return inet_ntop(AF_INET, gateway) if default and any(gateway) else ""


def _ipv6(row: list[str]) -> str:
    """The gateway of a default route: destination, its prefix length, source, its length, gateway."""
    try:
        destination, prefix, gateway = (bytes.fromhex(row[i]) for i in (0, 1, 4))
        default = not any(destination) and not any(prefix)
        return inet_ntop(AF_INET6, gateway) if default and any(gateway) else ""
    except (ValueError, IndexError):
        return ""
