"""Run a program where a seccomp profile denies netlink, as a hardened pod's may.

python without_netlink.py PROGRAM ARGUMENT…
"""

import ctypes
import os
import struct
import sys
from errno import EPERM


PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SYS_SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
AF_NETLINK = 16
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | EPERM
NUMBER, FAMILY = 0, 16  # where they are in a seccomp_data: the system call's number, and its first argument

PROGRAM = struct.pack(
    "=" + "HBBI" * 6,
    *(0x20, 0, 0, NUMBER),  # load
    *(0x15, 0, 3, SYS_SOCKET),  # equal?
    *(0x20, 0, 0, FAMILY),
    *(0x15, 0, 1, AF_NETLINK),
    *(0x06, 0, 0, REFUSE),  # return
    *(0x06, 0, 0, ALLOW),
)


def main() -> None:
    """Give netlink up for good, then become the program."""
    kept = ctypes.create_string_buffer(PROGRAM)
    profile = ctypes.create_string_buffer(struct.pack("@HP", 6, ctypes.addressof(kept)))
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    for option, *values in ((PR_SET_NO_NEW_PRIVS, 1, none), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, profile)):
        if libc.prctl(option, *values, none, none):
            sys.exit(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
