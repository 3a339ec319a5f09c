"""One request as the handlers see it, and the node that was asked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.demo.double.answers import Answer, Dialect, WrongError, result, text
from sidecar.demo.double.naming import Naming, View
from sidecar.demo.double.records import Instance, Service


VERSIONS: dict[Dialect, str] = {"1.4": "1.4.8", "2.2": "2.2.4", "3.1": "3.1.0"}


@dataclass
class Node:
    """One server of a cluster, as its handlers see it."""

    dialect: Dialect
    naming: Naming
    view: View
    secured: frozenset[str] = frozenset()
    console: bool = True
    address: str = ""


class Call:
    """One request's parameters, with the defaults every API shares."""

    def __init__(self, node: Node, family: str, params: Mapping[str, str]) -> None:
        self.node = node
        self.naming = node.naming
        self.view = node.view
        self.family = family
        self._params = params

    def optional(self, *names: str, default: str = "") -> str:
        """Take the first that is not blank."""
        found = (self._params.get(name, "").strip() for name in names)
        return next((each for each in found if each), default)

    def sent(self, name: str) -> bool:
        """Tell whether it is there at all, blank or not."""
        return name in self._params

    def required(self, name: str, kind: str = "String") -> str:
        """Take it or refuse, in the family's words."""
        if value := self.optional(name):
            return value
        message = f"Required parameter '{name}' type {kind} is not present"
        if self.family == "v1":
            message = f"Param '{name}' is required."
        raise WrongError(HTTPStatus.BAD_REQUEST, 10000, message)

    def flag(self, *names: str, default: bool) -> bool:
        """Read a Java boolean: anything but true is false."""
        value = self.optional(*names)
        return value.lower() == "true" if value else default

    def number(self, name: str) -> int:
        """Read a required number."""
        return int(self.required(name, "Integer"))

    @property
    def service(self) -> Service:
        """The service; only v1 takes `group@@name` apart."""
        name = self.required("serviceName")
        group = self.optional("groupName", default="DEFAULT_GROUP")
        if self.family == "v1" and "@@" in name:
            group, name = name.split("@@", 1)
        return Service(name, group, self.optional("namespaceId", default="public"))

    @property
    def key(self) -> tuple[str, int, str]:
        """The address and cluster an instance is known by."""
        names = ("clusterName", "cluster") if self.family == "v1" else ("clusterName",)
        return (
            self.required("ip"),
            self.number("port"),
            self.optional(*names, default="DEFAULT"),
        )

    @property
    def metadata(self) -> dict[str, str] | None:
        """Metadata as JSON or as `k=v,k=v`; None when it was not sent."""
        sent = self.optional("metadata")
        if not sent:
            return None
        if sent.startswith("{"):
            return {str(name): str(value) for name, value in json.loads(sent).items()}
        return dict(pair.split("=", 1) for pair in sent.split(","))

    @property
    def instance(self) -> Instance:
        """The instance as a full write describes it: what is omitted takes its default."""
        ip, port, cluster = self.key
        return Instance(
            ip,
            port,
            cluster,
            weight=float(self.optional("weight", default="1")),
            enabled=self.flag("enabled", "enable", default=True),
            healthy=self.flag("healthy", default=True),
            ephemeral=self.flag("ephemeral", default=True),
            metadata=self.metadata or {},
        )

    def ok(self) -> Answer:
        """Say what a write says, whether or not it did anything."""
        return text(HTTPStatus.OK, "ok") if self.family == "v1" else result("ok")
