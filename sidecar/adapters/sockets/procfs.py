"""What /proc/net tells of TCP: how many connections were ever accepted, and, where netlink is denied, which are open.

There are neither counters nor times of a connection in it, and reading it takes 12 ms on a machine of 32 GiB.
"""

import os
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import psutil

from sidecar.ports import Unavailable
from sidecar.traffic import Listener, Socket


CONNECTED = {
    psutil.CONN_ESTABLISHED,
    psutil.CONN_FIN_WAIT1,
    psutil.CONN_FIN_WAIT2,
    psutil.CONN_CLOSE_WAIT,
    psutil.CONN_LAST_ACK,
    psutil.CONN_CLOSING,
}
SNMP = 16384  # bytes; it has 1,500
MAPPED = "::ffff:"  # what psutil writes before an IPv4 address inside IPv6


class Accepted:
    """How many connections this network namespace has ever accepted, on all its ports.

    The file stays open: it is read twice per sample, and to open it costs five times as much as to read it.
    """

    def __init__(self, proc: str) -> None:
        self._path = Path(proc) / "net" / "snmp"
        self._file: FileIO | None = None

    def count(self) -> int:
        """As of now. Raises Unavailable."""
        try:
            if self._file is None:
                self._file = FileIO(self._path)
            text = os.pread(self._file.fileno(), SNMP, 0)
        except OSError as error:
            raise Unavailable(f"cannot read {self._path}: {error.strerror}") from error
        try:
            names, values = (line.split() for line in text.splitlines() if line.startswith(b"Tcp:"))
            return int(values[names.index(b"PassiveOpens")])
        except (ValueError, IndexError) as error:
            raise Unavailable(f"{self._path} does not tell PassiveOpens") from error

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Table(NamedTuple):
    """What is there: connections without counters and times, listeners without their inodes."""

    sockets: list[Socket]
    listeners: list[Listener]


def table() -> Table:
    """Every connection and every listener. Raises Unavailable."""
    found = Table([], [])
    try:
        rows = psutil.net_connections(kind="tcp")
    except (OSError, RuntimeError, LookupError, ValueError, psutil.Error) as error:
        raise Unavailable(f"cannot read /proc/net/tcp: {error}") from error
    for row in rows:
        if row.laddr and row.status == psutil.CONN_LISTEN:
            found.listeners.append(Listener(_folded(row.laddr.ip), row.laddr.port, 0))
        elif row.laddr and row.raddr and row.status in CONNECTED:
            ends = (_folded(row.laddr.ip), row.laddr.port, _folded(row.raddr.ip), row.raddr.port)
            found.sockets.append(Socket(hash(ends), *ends, half=row.status != psutil.CONN_ESTABLISHED))
    return found


def _folded(address: str) -> str:
    return address.removeprefix(MAPPED) if "." in address else address
