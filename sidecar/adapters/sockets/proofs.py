"""What works here, proved on sockets of our own.

An empty list proves nothing: where netlink is half there, it looks like a pod without callers.
"""

import os
import socket
from collections.abc import Callable

from sidecar.ports import Unavailable
from sidecar.traffic import Listener

from .events import Events


CONNECT = 0.2  # seconds to be connected with ourselves
PATIENCE = 0.5  # and for the kernel to tell of that connection's end, which mostly takes it 7 µs


def listening() -> socket.socket:
    """A listening socket on loopback. Raises OSError where there is none to be had."""
    try:
        return _listening(socket.AF_INET, "127.0.0.1")
    except OSError:
        return _listening(socket.AF_INET6, "::1")


def _listening(family: socket.AddressFamily, host: str) -> socket.socket:
    found = socket.socket(family)
    try:
        found.settimeout(CONNECT)
        found.bind((host, 0))
        found.listen()
    except OSError:
        found.close()
        raise
    return found


def why_unseen(ours: socket.socket, listed: Callable[[], list[Listener]], *, inode: bool) -> str:
    """Why our listening socket is not in a list of them; empty when it is."""
    host, port = ours.getsockname()[:2]
    expected = Listener(host, port, os.fstat(ours.fileno()).st_ino if inode else 0)
    try:
        return "" if expected in listed() else f"our own listening socket {host}:{port} is not in the list"
    except Unavailable as error:
        return str(error)


def why_untold(ours: socket.socket, events: Events, clock: Callable[[], float]) -> str:
    """Why we are not told of a connection that is closed; empty when we are. Takes events, whose they may be."""
    there = ours.getsockname()
    try:
        with socket.socket(ours.family) as client:
            client.settimeout(CONNECT)
            client.connect(there)
            accepted, here = ours.accept()
            accepted.close()
    except OSError as error:
        return f"it cannot be tried on a connection of our own: {error.strerror or error}"
    ends = {(there[1], here[1]), (here[1], there[1])}
    late = clock() + PATIENCE
    while ends and events.wait(late - clock()):
        closed, _ = events.take(events.gather())
        ends -= {(x.port, x.peer_port) for x in closed}
    return "the kernel did not tell that a connection of our own was closed" if ends else ""
