"""The pages hold together: their links lead somewhere, and what they name as ours exists and is worded so."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.doctor.rehearsal import JUDGES
from sidecar.settings import describe


ROOT = Path(__file__).resolve().parents[1]
BUILT = {"build", "target"}  # what make and Maven leave in a folder of ours


def _pages(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not _foreign(entry.name):
            yield from _pages(entry)
        elif entry.suffix == ".md":
            yield entry


def _foreign(name: str) -> bool:
    """Whether it is no folder of the repository: environments, rigs and caches have dots, builds have names."""
    return (name.startswith(".") and name != ".ci") or name in BUILT


PAGES = list(_pages(ROOT))
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?)[ #]*$", re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def text(page: Path) -> str:
    return page.read_text()


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    found: list[str] = []
    for heading in HEADING.findall(FENCE.sub("", text(page))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        again = found.count(slug)
        found.append(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def dead(page: Path) -> Iterator[str]:
    """The links of a page that lead nowhere."""
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text(page)))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            yield target
        elif anchor and anchor not in anchors(there):
            yield f"{target} (no such heading)"


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dead(page)) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`!\n[a](#one-two) [b](#one-three) [c](none.md) [d](page.md#one-two)\n```\n# No heading\n```\n"
    )
    (tmp_path / "other.md").write_text("[e](page.md#no-heading)\n")
    assert list(dead(page)) == ["#one-three (no such heading)", "none.md"]
    assert list(dead(tmp_path / "other.md")) == ["page.md#no-heading (no such heading)"]


@each_page
def test_no_generated_block_is_left_empty(page: Path) -> None:
    assert not re.search(r":begin -->\s*<!-- [\w-]+:end -->", text(page))


# -- names -----------------------------------------------------------------------------------------------------------

VARIABLES = {doc.name for doc in describe()}
NOT_OURS = {  # what a page names because it is none of our settings
    "NACOS_DRAIN_PORT",  # Kubernetes' own link to a Service called nacos-drain
    "NACOS_DRAIN_SERVICE_HOST",
}
COMMANDS = {*main.commands, "run"}


def _targets() -> set[str]:
    made = re.findall(r"^([A-Za-z0-9.-]+(?: [a-z.-]+)*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {name for names in made for name in names.split()}


@each_page
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bNACOS_DRAIN_[A-Z0-9_]+", text(page)))
    families = {name for name in named if name.endswith("_") and any(each.startswith(name) for each in VARIABLES)}
    assert named - VARIABLES - NOT_OURS - families == set()


def code(page: Path) -> Iterator[str]:
    """The lines of a page that are meant to be typed."""
    for fence in FENCE.finditer(text(page)):
        yield from fence.group().splitlines()[1:-1]
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text(page)))


@each_page
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    said = [words for line in code(page) for words in re.findall(r"(?:^|&& )make ((?:[a-z][a-z-]*(?: |$))+)", line)]
    assert {name for words in said for name in words.split()} - _targets() == set()


@each_page
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    said = [name for line in code(page) for name in re.findall(r"(?:^|&& |-- |/bin/)nacos-drain ([a-z]+)\b", line)]
    assert set(said) - COMMANDS == set()


def test_names_that_do_not_exist_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`NACOS_DRAIN_GRACE` `make nothing` and\n`nacos-drain drian`\n")
    for judge in (
        test_every_setting_that_a_page_names_exists,
        test_every_make_target_that_a_page_names_exists,
        test_every_command_that_a_page_names_exists,
    ):
        with pytest.raises(AssertionError):
            judge(page)


# -- words -----------------------------------------------------------------------------------------------------------

TROUBLE = ROOT / "docs/troubleshooting.md"
SEEN_TABLES = ("| seen behind it |", "| seen in the notes |")


@cache
def printed() -> tuple[str, ...]:
    """Every text in the program, with … where a value comes in."""
    found = []
    for file in (ROOT / "sidecar").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{[^}]*\}", "…", node.value))
    return tuple(found)


def quoted(page: str) -> list[str]:
    """What the page says that one sees: behind **Seen**, and in the first column of two kinds of tables."""
    lines, table = [], False
    for paragraph in re.findall(r"\*\*Seen\*\*: ((?:`[^`]+`(?:, |,\n)?)+)", page):
        lines += re.findall(r"`([^`]+)`", paragraph)
    for line in page.splitlines():
        table = line.startswith(SEEN_TABLES) or (table and line.startswith("|"))
        first = line.split(" | ")[0]
        if table and first.startswith("| `"):
            lines += re.findall(r"`([^`]+)`", first)
    return lines


def is_printed(words: str) -> bool:
    return any(words.strip("… ") in text for text in printed())


def test_what_troubleshooting_quotes_is_printed_so() -> None:
    told = quoted(TROUBLE.read_text())
    assert len(told) > 25
    assert [words for words in told if not is_printed(words)] == []
    assert not is_printed("waited for the moon")


def test_troubleshooting_has_every_line_of_the_doctor() -> None:
    lines = TROUBLE.read_text().partition("## The lines of `doctor`")[2]
    assert re.findall(r"^\| `([a-z_]+)` \|", lines, re.MULTILINE) == [judge.__name__ for judge in JUDGES]
