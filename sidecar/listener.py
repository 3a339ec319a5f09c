"""The listening socket, without a server: it is bound before anything heavy is imported.

A kubelet that calls between bind and serve waits in the kernel's backlog instead of being refused, and a refused hook
would be an un-drained stop.
"""

import errno
import socket


NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})  # the kernel, or this namespace, has none
BACKLOG = 128


def bind(host: str, port: int) -> socket.socket:
    """The listening socket; no host means both families, or IPv4 where there is no IPv6. Raises OSError."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return _listening(family, host, port)
    try:
        return _listening(socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno not in NO_IPV6:
            raise
        return _listening(socket.AF_INET, "0.0.0.0", port)  # noqa: S104  the kubelet calls the pod's address


def _listening(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)  # noqa: FBT003  the standard library's signature
    return sock
