"""What a test needs and may not find on a laptop."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest


PROGRAMS = Path(__file__).parent / "programs"


def lacking(reason: str) -> NoReturn:
    """Skip this test, or fail it in CI, where nothing may be missing."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    raise AssertionError


def told_in_a_network_of_its_own(program: str, *arguments: str) -> dict[str, Any]:
    """What one of our programs prints where nobody else's connections are: in a network namespace of its own."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        lacking("needs the right to make a network namespace")
    there = ("unshare", "--net", sys.executable, str(PROGRAMS / "raise_lo.py"))
    done = subprocess.run(
        [*there, sys.executable, str(PROGRAMS / program), *arguments],
        env={**os.environ, "PYTHONPATH": str(PROGRAMS.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
