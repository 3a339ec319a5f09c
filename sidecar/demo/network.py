"""Addresses for the demo's pods: one loopback address each, as pods have one each.

All of them share this machine's network namespace, which pods do not. A sidecar tells its app by the port, whatever
the address, so here every pod has a port of its own as well, and one that nobody else listens on.
"""

import errno
import random
import socket
from dataclasses import dataclass


SIDECAR_PORT = 19081
POD_PORTS = range(18_100, 30_000)  # below the ports that the kernel gives to outgoing connections
KUBELET, REGISTRY, FIRST_POD, FIRST_CONSUMER = 1, 2, 11, 101
ATTEMPTS = 20


class NoRoom(Exception):
    """There are no addresses to be had; the message says what to do."""


@dataclass(frozen=True)
class Network:
    """A quiet corner of 127.0.0.0/8."""

    prefix: str
    first_port: int
    sidecar_port: int = SIDECAR_PORT

    def _host(self, number: int) -> str:
        return f"{self.prefix}.{number}"

    @property
    def kubelet(self) -> str:
        """Where hooks are called from: not from the pod's own address, and not from 127.0.0.1."""
        return self._host(KUBELET)

    @property
    def registry(self) -> str:
        """Where the double listens, on a port of its choice."""
        return f"{self._host(REGISTRY)}:0"

    def pod(self, number: int) -> tuple[str, int]:
        """The address and the app's port of a pod; they count from 0."""
        return self._host(FIRST_POD + number), self.first_port + number

    def consumers(self, count: int) -> list[str]:
        """Their source addresses."""
        return [self._host(FIRST_CONSUMER + number) for number in range(count)]


def find(pods: int) -> Network:
    """Look for a corner in which nothing listens; several demos may run at once. Raises NoRoom."""
    refused = ""
    for attempt in range(ATTEMPTS):
        first = random.choice(POD_PORTS[: -pods - 1])  # noqa: S311  no secret
        # Where somebody listens on the usual port of every address, another one does as well.
        usual = attempt < ATTEMPTS // 2
        prefix = f"127.83.{random.randrange(1, 255)}"  # noqa: S311  no secret
        network = Network(prefix, first, SIDECAR_PORT if usual else first + pods)
        try:
            for number in range(pods):
                host, port = network.pod(number)
                _try("", port)
                _try(host, network.sidecar_port)
        except OSError as error:
            refused = f"{error.filename}: {error.strerror}"
            if error.errno == errno.EADDRNOTAVAIL:
                break
        else:
            return network
    raise NoRoom(
        f"no addresses for the demo's pods ({refused}). It wants all of 127.0.0.0/8 to be loopback, as on Linux, "
        f"and free ports from {POD_PORTS.start} on. Elsewhere run it in a Linux container."
    )


def _try(host: str, port: int) -> None:
    """Bind as a server would; no host is every address, where any listener on the port is in the way."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no listener
        try:
            probe.bind((host, port))
        except OSError as error:
            error.filename = f"{host}:{port}"
            raise
