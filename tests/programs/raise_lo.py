"""Bring loopback up, as root, and become a program: a new network namespace has it down.

python raise_lo.py PROGRAM ARGUMENT…
"""

import fcntl
import os
import socket
import struct
import sys


SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def raise_lo() -> None:
    """Bring it up in the network namespace of this thread."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


if __name__ == "__main__":
    raise_lo()
    os.execvp(sys.argv[1], sys.argv[1:])
