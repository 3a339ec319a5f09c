"""The three inits that are compared, and where they stand."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Literal


class Place(StrEnum):
    """What an init is to the kernel."""

    FIRST = "PID 1"
    OTHER = "not PID 1"


class Target(StrEnum):
    """Whom it passes signals to."""

    GROUP = "group"
    SINGLE = "single"


Name = Literal["nacos-drain", "tini", "dumb-init"]
NAMES: tuple[Name, ...] = ("nacos-drain", "tini", "dumb-init")
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
GRACE_PERIOD, APP_STOP = 10, 7  # seconds: nothing is left for a drain, so its release is immediate
LONG = {"NACOS_DRAIN_GRACE_PERIOD": "60", "NACOS_DRAIN_APP_STOP": "5"}  # time for a drain: with no Nacos it takes 50 s


@dataclass(frozen=True)
class Options:
    """What an init may be asked for, by those of them that can."""

    rewrite: tuple[tuple[int, int], ...] = ()
    remap: tuple[tuple[int, int], ...] = ()
    server: bool = False


def argv(name: Name, place: Place, target: Target, options: Options) -> list[str]:
    """How this init is called. What it has no option for is asked for nevertheless, and refused by itself."""
    single = target is Target.SINGLE
    rewrites = [f"{a}:{b}" for a, b in options.rewrite]
    match name:
        case "nacos-drain":
            flags = ["--single"] * single + ["--no-server"] * (not options.server)
            flags += [word for each in rewrites for word in ("--rewrite", each)]
            flags += [word for a, b in options.remap for word in ("--remap", f"{a}:{b}")]
            return [sys.executable, "-m", "sidecar", "run", *flags, "--"]
        case "tini":
            flags = ["-g"] * (not single) + ["-s"] * (place is Place.OTHER)
            flags += [word for each in rewrites for word in ("-r", each)]
            flags += [word for a, b in options.remap for word in ("-e", str(a) if b == 0 else f"{a}:{b}")]
            return ["tini", *flags, "--"]
        case "dumb-init":
            flags = ["--single-child"] * single
            flags += [word for each in rewrites for word in ("--rewrite", each)]
            flags += [word for a, b in options.remap for word in ("--remap", f"{a}:{b}")]
            return ["dumb-init", *flags, "--"]


def settings(listen: str) -> Mapping[str, str]:
    """The settings of ours, which it needs although there is no Nacos; the others have them in theirs too."""
    ours = {
        "NACOS_SERVER_ADDR": "127.0.0.1:1",
        "NACOS_SERVICE": "none",
        "GRACE_PERIOD": str(GRACE_PERIOD),
        "APP_STOP": str(APP_STOP),
        "LISTEN": listen,
    }
    return {f"NACOS_DRAIN_{name}": value for name, value in ours.items()}


@cache
def missing(name: Name, place: Place) -> str:
    """What this machine lacks for an init in a place; empty when it has everything."""
    if name != "nacos-drain" and not shutil.which(name):
        return f"needs {name} (the Debian package of this name)"
    if place is Place.FIRST and not _may_make_namespaces():
        return "needs the right to make a PID namespace, as root has it"
    return ""


@cache
def _may_make_namespaces() -> bool:
    if not shutil.which(NAMESPACE[0]):
        return False
    return not subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
