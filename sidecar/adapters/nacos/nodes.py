"""The servers of one registry: the configured ones, and those that they name as members."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sidecar.ports import Unavailable

from .answers import Member
from .dialects import Dialect


@dataclass
class Node:
    """One server, as far as it is known."""

    name: str
    url: str
    configured: bool
    dialect: Dialect | None = None
    answered: bool = False  # to this process, ever
    well: bool = True  # its last exchange brought an answer

    @property
    def context_path(self) -> str:
        """For messages: the most frequent thing that is wrong about an address."""
        return urlsplit(self.url).path or "/"


def name_of(url: str) -> str:
    """The name under which logs and reports speak of a node: host and port, as member lists have it."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


class Nodes:
    """Who may be asked, and who must be clean."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._all = {name_of(url): Node(name_of(url), url.rstrip("/"), configured=True) for url in urls}
        self._left: dict[str, Node] = {}
        self._aliases: dict[str, str] = {}  # a member's address: the configured node that it is
        self._members = 0

    def __iter__(self) -> Iterator[Node]:
        return iter((*self._all.values(),))

    def __getitem__(self, name: str) -> Node:
        """By name; a call that was under way when its node left the member list still finds it."""
        if found := self._all.get(name) or self._left.get(name):
            return found
        raise Unavailable(f"{name} is none of the Nacos servers in use") if self._all else self.nobody

    @property
    def nobody(self) -> Unavailable:
        """Why nothing can be asked yet."""
        return Unavailable(
            "no Nacos server is known yet: set NACOS_DRAIN_NACOS_SERVER_ADDR, or let the app's actuator tell it"
        )

    @property
    def by_health(self) -> list[Node]:
        """For what any node can tell: first those whose last exchange went well."""
        return sorted(self, key=lambda node: not node.well)

    @property
    def required(self) -> tuple[tuple[str, bool], ...]:
        """Name and whether it is required."""
        return tuple((node.name, node.configured or node.answered) for node in self)

    @property
    def one_address(self) -> bool:
        """One configured address, and nothing proves that a single node stands behind it."""
        configured = sum(node.configured for node in self)
        others = any(node.answered and not node.configured for node in self)
        return configured == 1 and self._members != 1 and not others

    def discovered(self, members: Iterable[Member], addresses: Mapping[str, str]) -> None:
        """Add members not known yet, and drop discovered ones that have left: pods come back under other addresses.

        A member that is a configured node by another name is no other node: `nacos-0.nacos` calls itself by its ip, or
        by its whole name. `addresses` are the configured names that stand for one ip:port.
        """
        told = [member.address for member in members]
        self._members = len(told)
        self._aliases = {name: alias for name in told if (alias := self._alias(name, addresses)) is not None}
        names = [name for name in told if name not in self._aliases]
        for node in self:
            if not node.configured and node.name not in names:
                self._left[node.name] = self._all.pop(node.name)
        first = next(iter(self))
        parts = urlsplit(first.url)
        for name in names if len(told) > 1 else ():
            if name not in self._all:
                node = Node(name, f"{parts.scheme}://{name}{parts.path}", configured=False)
                self._all[name] = self._left.pop(name, node)

    def known_as(self, member: str) -> str:
        """The name of the node that a member list calls so."""
        return self._aliases.get(member, member)

    def _alias(self, member: str, addresses: Mapping[str, str]) -> str | None:
        host, _, port = member.rpartition(":")
        for node in self:
            own, _, own_port = node.name.rpartition(":")
            whole = own_port == port and not own[:1].isdigit() and host.startswith(f"{own}.")
            if node.configured and node.name != member and (whole or addresses.get(node.name) == member):
                return node.name
        return None
