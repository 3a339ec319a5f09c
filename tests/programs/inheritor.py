"""What a process was born with, as JSON: for comparing. The environment as the kernel has it, not as Python sees it.

python -I -S inheritor.py ARGUMENT…
"""

import json
import os
import re
import resource
import sys
from pathlib import Path


SELF = Path("/proc/self")
LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})


def kind(number: str) -> str:
    """What a descriptor leads to; which pipe, or which nameless file, differs from run to run."""
    return re.sub(r"[0-9]+", "N", str((SELF / "fd" / number).readlink()))


def flags(number: str) -> str:
    """Its flags, as O_NONBLOCK, which whoever shares it would feel."""
    lines = (SELF / "fdinfo" / number).read_text().splitlines()
    return next(line for line in lines if line.startswith("flags"))


status = dict(line.partition(":\t")[::2] for line in (SELF / "status").read_text().splitlines())
files = [each.name for each in list((SELF / "fd").iterdir()) if each.is_symlink()]  # without the look itself
told = {
    "arguments": (SELF / "cmdline").read_bytes().hex(),
    "environment": (SELF / "environ").read_bytes().hex(),
    "folder": str(Path.cwd()),
    "umask": status["Umask"],
    "files": {number: [kind(number), flags(number)] for number in sorted(files)},
    "limits": [resource.getrlimit(limit) for limit in LIMITS],
    "niceness": os.nice(0),
    "users and groups": [status["Uid"], status["Gid"], status["Groups"]],
    "capabilities": [status[each] for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")],
}
json.dump(told, sys.stdout)
