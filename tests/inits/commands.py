"""The commands that inits are given here."""

import sys
from pathlib import Path


PROGRAMS = Path(__file__).parents[1] / "programs"
PYTHON = (sys.executable, "-I", "-S")  # starts in 15 ms
HEARER = (*PYTHON, str(PROGRAMS / "hearer.py"))
ORPHANS = (*PYTHON, str(PROGRAMS / "orphans.py"))
INHERITOR = (*PYTHON, str(PROGRAMS / "inheritor.py"))
AT_TERMINAL = (*PYTHON, str(PROGRAMS / "at_terminal.py"))


def shell(script: str) -> tuple[str, ...]:
    """A few words of shell."""
    return ("sh", "-c", script)
