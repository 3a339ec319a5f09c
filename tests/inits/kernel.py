"""What /proc tells of processes. Some of the things asked here are gone while they are read: that is an answer too."""

import signal
from pathlib import Path


PROC = Path("/proc")
STOPPED, ZOMBIE = "T", "Z"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may contain anything; none where there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(pid: int) -> str:
    """Its state as one letter; empty when it is gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def name(pid: int) -> str:
    """The program that it executes."""
    return status(pid, "Name")


def alive(pid: int) -> bool:
    """Whether it runs, or could."""
    return state(pid) not in ("", ZOMBIE)


def children(pid: int, only: str = "") -> list[int]:
    """Its children, in the order of their numbers; of one state alone, or all that live."""
    found = []
    for each in PROC.iterdir():
        if each.name.isdigit():
            fields = _stat(int(each.name))
            if fields and int(fields[1]) == pid and (fields[0] == only if only else fields[0] != ZOMBIE):
                found.append(int(each.name))
    return sorted(found)


def status(pid: int, field: str) -> str:
    """A field of /proc/PID/status; empty when the process is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:")), "")


def signals(mask: str) -> set[int]:
    """The signals of a mask as /proc/PID/status writes it."""
    bits = int(mask or "0", 16)
    # The others are glibc's own, which its posix_spawn, and so make, lets a process be born with ignored.
    return {number for number in signal.valid_signals() if bits >> (number - 1) & 1}


def pending(pid: int) -> set[int]:
    """The signals that a process has not taken yet."""
    return signals(status(pid, "ShdPnd"))


def blocked(pid: int) -> set[int]:
    """The signals that its main thread blocks."""
    return signals(status(pid, "SigBlk"))


def marked(mark: bytes) -> list[int]:
    """The processes whose environment has this line."""
    found = []
    for each in PROC.iterdir():
        if each.name.isdigit():
            try:
                environ = (each / "environ").read_bytes()
            except (OSError, ProcessLookupError):
                continue
            if mark in environ.split(b"\0") and alive(int(each.name)):
                found.append(int(each.name))
    return found
