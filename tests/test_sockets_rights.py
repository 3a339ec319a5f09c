"""What a sidecar without any right sees of the traffic, and what is left where the kernel really denies it more.

Each look is a process of its own in a new network namespace, as the user of the image, with every capability dropped,
no-new-privileges, and perhaps a seccomp filter: see programs/sockets_look.py
and programs/confined.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import lacking


PROGRAMS = Path(__file__).parent / "programs"
LOOK, RAISE_LO, CONFINED = (
    [sys.executable, str(PROGRAMS / name)] for name in ("sockets_look.py", "raise_lo.py", "confined.py")
)
USER = "65532"
NO_RIGHTS = [
    *("setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"),
    *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
]
HIDE_PROC_NET = ["sh", "-c", 'mount -t tmpfs none /proc/$$/net && exec "$@"', "sh"]


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Skip where namespaces cannot be made, or fail where nothing may be missing."""
    tools = [tool for tool in ("unshare", "setpriv", "mount") if shutil.which(tool) is None]
    why = f"no {tools[0]} on the PATH" if tools else ""
    if not why and subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True).returncode:
        why = "needs the right to make namespaces"
    if why:
        lacking(why)


def look(profile: str = "", *, lo: bool = True, hide: bool = False) -> dict[str, Any]:
    """What it told."""
    command = [*NO_RIGHTS, *LOOK]
    if profile:
        command = [*CONFINED, profile, *command]
    if lo:
        command = [*RAISE_LO, *command]
    if hide:
        command = [*HIDE_PROC_NET, *command]
    done = subprocess.run(
        ["unshare", "--net", "--mount", *command],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["uid"] == int(USER)
    rights = told["status"]
    assert {int(rights[x], 16) for x in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2" if profile else "0")
    assert told["took"] < 1.5
    return told


@pytest.mark.parametrize("profile", ["", "runtime-default"])
def test_without_any_right_everything_is_seen(profile: str) -> None:
    told = look(profile)
    assert (told["source"], told["reason"], told["error"], told["trouble"]) == ("netlink", "", "", "")
    assert told["denied"] == {"netlink": "", "vsock": "EPERM" if profile else told["denied"]["vsock"]}
    assert (told["accepted"], told["closed"]) == (51, 51)  # the namespace is ours alone: to the last one
    assert (told["listening"], told["listener_inode"]) == (True, True)
    assert (told["open"]["received"], told["open"]["unread"], told["open"]["segments"]) == (100, 100, 1)
    assert told["open"]["heard"] is not None


def test_where_the_groups_are_denied_open_connections_are_seen_and_accepts_counted() -> None:
    told = look("no-groups")
    assert told["source"] == "netlink"
    assert told["reason"].startswith("connections shorter than a sample are not seen")
    assert "Operation not permitted (a seccomp profile" in told["reason"]
    assert (told["accepted"], told["closed"], told["error"]) == (51, 0, "")
    assert told["open"]["received"] == 100


def test_where_loopback_is_down_nothing_is_made_up() -> None:
    told = look(lo=False)
    assert told["source"] == "netlink"
    assert "it cannot be tried on a connection of our own: Network is unreachable" in told["reason"]
    assert told["error"] == "[Errno 101] Network is unreachable"


@pytest.mark.parametrize(
    ("profile", "code", "why"),
    [
        ("no-netlink", "EPERM", "netlink: Operation not permitted (a seccomp profile or SELinux denies it"),
        ("no-such-family", "EAFNOSUPPORT", "netlink: Address family not supported by protocol (a seccomp profile"),
    ],
)
def test_where_netlink_is_denied_connections_are_seen_alone(profile: str, code: str, why: str) -> None:
    told = look(profile)
    assert told["denied"]["netlink"] == code
    assert told["source"] == "procfs"
    assert told["reason"].startswith(why)
    assert (told["accepted"], told["closed"]) == (51, 1)  # the one that was there in a reading
    assert (told["listening"], told["listener_inode"]) == (True, False)
    assert (told["open"]["received"], told["open"]["heard"], told["open"]["half"]) == (0, None, False)
    assert (told["error"], told["trouble"]) == ("", "")


def test_where_proc_is_hidden_netlink_is_enough_but_nobody_counts() -> None:
    told = look(hide=True)
    assert told["source"] == "netlink"
    assert told["reason"].startswith("accepted connections are not counted: cannot read /proc/net/snmp")
    assert (told["accepted"], told["open"]["received"]) == (None, 100)
    assert "not counted" in told["trouble"]


def test_where_both_are_denied_we_are_blind_and_say_so() -> None:
    told = look("no-netlink", hide=True)
    assert told["source"] == "blind"
    assert "netlink: Operation not permitted" in told["reason"]
    assert "/proc/net/tcp" in told["reason"]
    assert told["error"] == f"the traffic cannot be watched: {told['reason']}"
