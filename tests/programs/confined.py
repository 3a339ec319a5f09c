"""Run a program where a seccomp profile denies something, as a container's does.

python confined.py PROFILE PROGRAM ARGUMENT…
"""

import ctypes
import errno
import os
import platform
import struct
import sys


AF_NETLINK, AF_ALG, AF_VSOCK, SOL_NETLINK = 16, 38, 40, 270
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # the latter with an errno
CALLS = {
    "x86_64": {"socket": 41, "setsockopt": 54, "mount": 165, "unshare": 272, "keyctl": 250, "bpf": 321},
    "aarch64": {"socket": 198, "setsockopt": 208, "mount": 40, "unshare": 97, "keyctl": 219, "bpf": 280},
}

Denial = tuple[str, int, int, int]  # system call, which of its arguments, its value, errno


def every(call: str) -> Denial:
    """A denial of a call whatever its arguments."""
    return call, -1, 0, errno.EPERM


PROFILES: dict[str, tuple[Denial, ...]] = {
    # What containers are denied by default and what comes near: other families, and calls that need a capability.
    "runtime-default": (
        ("socket", 0, AF_ALG, errno.EAFNOSUPPORT),
        ("socket", 0, AF_VSOCK, errno.EPERM),
        *map(every, ("mount", "unshare", "keyctl", "bpf")),
    ),
    "no-netlink": (("socket", 0, AF_NETLINK, errno.EPERM),),
    "no-such-family": (("socket", 0, AF_NETLINK, errno.EAFNOSUPPORT),),
    "no-groups": (("setsockopt", 1, SOL_NETLINK, errno.EPERM),),
}


def confine(denials: tuple[Denial, ...]) -> None:
    """Have the kernel refuse these to this process from here on, by a real seccomp filter."""
    number = CALLS[platform.machine()]
    program = []
    for call, argument, value, error in denials:
        program += [(0x20, 0, 0, 0), (0x15, 0, 1 if argument < 0 else 3, number[call])]  # the call's number: this one?
        if argument >= 0:
            program += [(0x20, 0, 0, 16 + 8 * argument), (0x15, 0, 1, value)]  # the argument's lower half: this one?
        program += [(0x06, 0, 0, REFUSE | error)]
    program += [(0x06, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc, none = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    for option, *values in ((PR_SET_NO_NEW_PRIVS, 1, none), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_)):
        if libc.prctl(option, *values, none, none):
            raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    confine(PROFILES[sys.argv[1]])
    os.execvp(sys.argv[2], sys.argv[2:])
