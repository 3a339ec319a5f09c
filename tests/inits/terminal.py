"""A terminal whose other end is ours."""

import fcntl
import os
import pty
import struct
import termios


class Terminal:
    """What somebody sits before. The slave is closed by who starts a program on it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Pull at the window's edge; the kernel tells the group in the foreground."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def foreground(self) -> int:
        """The process group in the foreground, as it is numbered here."""
        return os.tcgetpgrp(self.master)
