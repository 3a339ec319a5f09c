"""The README's generated parts say what the program says. Run this file as a program to write them anew."""

import re
from pathlib import Path

from sidecar.cli import timetable
from sidecar.plan import fit
from sidecar.settings import describe
from sidecar.settle import Rule


README = Path(__file__).resolve().parents[1] / "README.md"


def settings_table() -> str:
    """Every setting that is no file variant, from its declaration."""
    rows = ["| variable | default | |", "|---|---|---|"]
    docs = {doc.name: doc for doc in describe()}
    secrets = [name for name in docs if f"{name}_FILE" in docs]
    for name, doc in docs.items():
        if name.removesuffix("_FILE") not in secrets or name in secrets:
            default = f"`{doc.default}`" if doc.default else doc.why
            rows.append(f"| `{name}` | {default} | {doc.help} |")
    rows.append("")
    each = [f"`{name.removeprefix('NACOS_DRAIN_')}`" for name in secrets]
    rows.append(
        f"{', '.join(each[:-1])} and {each[-1]} have no flag, and can be given as a file with the suffix `_FILE`."
    )
    return "\n".join(rows)


def plan_example() -> str:
    """The plan of the manifest above it."""
    return f"```\n$ nacos-drain plan --grace-period 120\n{timetable(fit(120, None, 35), Rule())}\n```"


PARTS = {"settings": settings_table, "plan": plan_example}


def part(name: str, text: str) -> str:
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)\n?<!-- {name}:end -->", text, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_readme_says_what_the_program_says() -> None:
    text = README.read_text()
    for name, written in PARTS.items():
        assert part(name, text) == written(), f"run: python tests/test_readme.py ({name} has changed)"


if __name__ == "__main__":
    text = README.read_text()
    for name, written in PARTS.items():
        whole = f"<!-- {name}:begin -->\n{written()}\n<!-- {name}:end -->"
        text = re.sub(rf"<!-- {name}:begin -->.*?<!-- {name}:end -->", lambda _: whole, text, flags=re.DOTALL)  # noqa: B023  used in this turn
    README.write_text(text)
