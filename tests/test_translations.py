"""A Chinese page says what its English one says: nobody who changes the one reads the other.

Words cannot be compared, so all that is no word is: blocks, code, names, numbers, links. Run this file as a program to
carry the numbers of generated blocks over.
"""
# ruff: noqa: RUF001  full-width commas are what Chinese has

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from os.path import relpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node


ROOT = Path(__file__).resolve().parents[1]

# What somebody who reads Chinese must not miss. The rest is for those who work on nacos-drain itself.
ENGLISH = [
    "README.md",
    "docs/check.md",
    "docs/consumers.md",
    "docs/faq.md",
    "docs/how-it-works.md",
    "docs/inject.md",
    "docs/nacos.md",
    "docs/run.md",
    "docs/settings.md",
    "docs/troubleshooting.md",
    "examples/compose/README.md",
    "examples/java-image/README.md",
    "examples/kubernetes/README.md",
    "examples/kubernetes/01-native-sidecar/README.md",
    "examples/kubernetes/02-ordinary-sidecar/README.md",
    "examples/kubernetes/03-wrapper/README.md",
    "examples/kubernetes/04-signal/README.md",
    "examples/kubernetes/05-spring-cloud/README.md",
    "examples/kubernetes/06-dubbo/README.md",
    "examples/kubernetes/07-kustomize/README.md",
    "examples/kubernetes/08-mesh/README.md",
    "examples/kubernetes/09-rancher/README.md",
    "examples/kubernetes/10-prometheus/README.md",
    "examples/spring-boot-starter/README.md",
    "examples/spring-cloud/README.md",
]

PARSER = MarkdownIt("commonmark").enable("table")
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])-?(?!\d+ 月)\d+(?:\.\d+)*")  # English has words for months
COMMENT = re.compile(r"((?:^|\s)(?:#|//)\s)(.*)$", re.MULTILINE)
GENERATED = re.compile(r"(<!-- (?P<name>[\w-]+):begin -->\n)(?P<body>.*?)(?=<!-- (?P=name):end -->)", re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
ENGLISH_WORD = re.compile(r"(?<![\w-])[a-z]{2,}(?![\w-])")

HAN = "[\u3400-\u9fff]"
STYLE = {
    "a space is missing between Chinese and Latin": re.compile(rf"{HAN}[A-Za-z0-9]|[A-Za-z0-9%]{HAN}"),
    "half-width punctuation beside Chinese": re.compile(rf"{HAN} ?[,;:!?()]|[,;:!?()] ?{HAN}|{HAN}\.(?:\s|$)"),
    "a line break inside Chinese shows as a space": re.compile(rf"{HAN}\n{HAN}"),
    "emphasis that Markdown does not see": re.compile(r"\*"),
}

Section = tuple[str, list[Node]]


def sections(text: str) -> list[Section]:
    """Each heading with what stands below it; comments are no part of it."""
    parts: list[Section] = []
    for node in Node(PARSER.parse(text)).children:
        if node.type == "heading":
            parts.append((words(node.children[0]), [node]))
        elif not (node.type == "html_block" and node.content.lstrip().startswith("<!--")):
            parts = parts or [("before the first heading", [])]
            parts[-1][1].append(node)
    return parts


def outline(node: Node) -> str:
    """A block in words, as far as its translation has to be the same."""
    match node.type:
        case "bullet_list" | "ordered_list":
            items = [", ".join(outline(block) for block in item.children) for item in node.children]
            return f"{node.type} of {len(items)} ({'; '.join(items)})"
        case "table":
            rows = [row for part in node.children for row in part.children]
            return f"table of {len(rows)} rows and {len(rows[0].children)} columns"
        case "fence":
            return f"code {node.info}".strip()
        case "heading":
            return node.tag
        case "blockquote":
            return f"quote ({', '.join(outline(block) for block in node.children)})"
        case _:
            return node.type


def leaves(node: Node) -> Iterator[Node]:
    """The pieces of text and code in a block, in their order."""
    if node.type in {"inline", "fence", "code_block", "html_block"}:
        yield node
    else:
        for child in node.children:
            yield from leaves(child)


def words(inline: Node, code: str | None = None) -> str:
    """The text of a piece; `code` stands for a code span."""
    text = ""
    for node in inline.walk():
        if node.type == "code_inline":
            text += node.content if code is None else code
        elif node.type == "text":
            text += node.content
        elif node.type in {"softbreak", "hardbreak"}:
            text += "\n"
    return text


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text)


def spans(inline: Node) -> set[str]:
    return {node.content for node in inline.walk() if node.type == "code_inline"}


def targets(inline: Node, kind: str) -> list[str]:
    name = {"link": "href", "image": "src"}[kind]
    return [unquote(str(node.attrs[name])) for node in inline.walk() if node.type == kind]


def lost(english: list[str], chinese: list[str]) -> str:
    """What one has and the other has not, each as often as it does."""
    here, there = Counter(english) - Counter(chinese), Counter(chinese) - Counter(english)
    return f"only in English: {sorted(here.elements())}, only in Chinese: {sorted(there.elements())}"


def piece_differences(english: Node, chinese: Node, link: Callable[[str], str]) -> Iterator[str]:
    """What a translator may not change inside one piece of text or code; `link` tells where a link has to lead."""
    if english.type != "inline":
        bare = [COMMENT.sub(r"\1", node.content) for node in (english, chinese)]
        if bare[0] != bare[1]:
            lines = zip_longest(bare[0].splitlines(), bare[1].splitlines())
            here, there = next((a, b) for a, b in lines if a != b)
            yield f"code: {here!r} has become {there!r}"
        notes = [
            [number for found in COMMENT.finditer(node.content) for number in numbers(found[2])]
            for node in (english, chinese)
        ]
        if Counter(notes[0]) != Counter(notes[1]):
            yield f"numbers in comments, {lost(*notes)}"
        return
    here, there = words(english, " "), words(chinese, " ")
    if Counter(numbers(here)) != Counter(numbers(there)):
        yield f"numbers, {lost(numbers(here), numbers(there))}"
    if spans(english) != spans(chinese):
        yield f"code spans, {lost(list(spans(english)), list(spans(chinese)))}"
    if here == there and len(ENGLISH_WORD.findall(here)) > 4:
        yield "not translated"
    expected = [link(target) for target in targets(english, "link")]
    if Counter(expected) != Counter(targets(chinese, "link")):
        yield f"links, {lost(expected, targets(chinese, 'link'))}"
    if targets(english, "image") != targets(chinese, "image"):
        yield f"images, {lost(targets(english, 'image'), targets(chinese, 'image'))}"


def differences(english: str, chinese: str, link: Callable[[str], str] = str) -> list[str]:
    """What a translation has lost or changed, with its section; empty where it holds."""
    found: list[str] = []
    for here, there in zip_longest(sections(english), sections(chinese)):
        if here is None or there is None:
            return [*found, f"only one has a section {(here or there)[0]!r}"]
        name = f"{here[0]} / {there[0]}"
        outlines = [[outline(node) for node in section] for _, section in (here, there)]
        if outlines[0] != outlines[1]:
            a, b = next((a, b) for a, b in zip_longest(*outlines) if a != b)
            found.append(f"{name}: where English has {a or 'nothing'}, Chinese has {b or 'nothing'}")
            continue
        pieces = [[leaf for node in section for leaf in leaves(node)] for _, section in (here, there)]
        for a, b in zip(*pieces, strict=True):
            about = (words(b) if b.type == "inline" else b.content).strip()[:40]
            found += [f"{name}: {what} (in {about!r})" for what in piece_differences(a, b, link)]
    return found


def style(chinese: str) -> list[str]:
    """What looks wrong to somebody who reads it."""
    found = []
    for name, section in sections(chinese):
        for leaf in (leaf for node in section for leaf in leaves(node) if leaf.type == "inline"):
            text = words(leaf, "x")
            found += [
                f"{name}: {what}, {hit[0]!r} in {text[max(0, hit.start() - 12) : hit.end() + 12]!r}"
                for what, pattern in STYLE.items()
                for hit in pattern.finditer(text)
            ]
    return found


def anchors(text: str) -> list[str]:
    """The names that GitHub gives to the headings, in their order."""
    seen: Counter[str] = Counter()
    names = []
    for name, _ in sections(text):
        slug = re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")
        names.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return names


def sibling(page: Path) -> Path:
    return page.with_name(f"{page.stem}.zh-CN.md")


def where_to(page: Path) -> Callable[[str], str]:
    """Where a link of this page has to lead in its sibling."""

    def link(target: str) -> str:
        parts = urlsplit(target)
        if parts.scheme:
            return target
        file = (page.parent / parts.path).resolve() if parts.path else page
        file = file / "README.md" if file.is_dir() else file
        if file == sibling(page):
            return page.name
        other = sibling(file)
        if file.suffix != ".md" or not other.exists():
            return target
        path = relpath(other, page.parent) if parts.path else ""
        if not parts.fragment:
            return path
        names = dict(zip(anchors(file.read_text()), anchors(other.read_text()), strict=False))
        return f"{path}#{names.get(parts.fragment, parts.fragment)}"

    return link


def carried(english: str, chinese: str) -> str:
    """The Chinese page with the code and the numbers that the English one's generated blocks have now."""
    now = {found["name"]: found["body"] for found in GENERATED.finditer(english)}

    def block(found: re.Match[str]) -> str:
        body = now.get(found["name"], found["body"])
        if not FENCED.sub("", body).strip() or not found["body"].strip():
            return found[1] + body  # what a program prints is not translated; all else that is new waits for a person
        here, there = ([part.split("\n") for part in FENCED.split(each)] for each in (body, found["body"]))
        if [len(part) for part in here] != [len(part) for part in there]:
            return found[0]
        prose = ["\n".join(map(renumbered, *parts)) for parts in zip(here, there, strict=True)]
        code = FENCED.findall(body)
        return found[1] + "".join(part for pair in zip_longest(prose, code, fillvalue="") for part in pair)

    return GENERATED.sub(block, chinese)


def renumbered(english: str, chinese: str) -> str:
    values = iter(numbers(english))
    same = len(numbers(english)) == len(numbers(chinese))
    return NUMBER.sub(lambda _: next(values), chinese) if same else chinese


@pytest.mark.parametrize("name", ENGLISH)
def test_the_chinese_page_says_the_same(name: str) -> None:
    page = ROOT / name
    other = sibling(page)
    assert other.exists(), f"{name} has no {other.name}"
    english, chinese = page.read_text(), other.read_text()
    found = differences(english, chinese, where_to(page))
    assert not found, f"{other.relative_to(ROOT)} is not what {name} says:\n" + "\n".join(found)
    assert chinese == carried(english, chinese), "generated numbers stand in another order; run this file as a program"


@pytest.mark.parametrize("name", ENGLISH)
def test_the_chinese_page_reads_well_and_both_know_each_other(name: str) -> None:
    page = ROOT / name
    other = sibling(page)
    assert f"[中文]({other.name})" in "\n".join(page.read_text().split("\n")[:8]), (
        f"{name} does not link to {other.name}"
    )
    assert f"[English]({page.name})" in "\n".join(other.read_text().split("\n")[:8]), f"{other} does not link back"
    found = style(other.read_text())
    assert not found, f"{other.relative_to(ROOT)}:\n" + "\n".join(found)


def test_no_chinese_page_is_forgotten_here() -> None:
    pages = [*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").rglob("*.zh-CN.md"), *(ROOT / "examples").rglob("*.zh-CN.md")]
    assert {page.relative_to(ROOT) for page in pages} == {sibling(Path(name)) for name in ENGLISH}


HERE = """# A title

Waits for `SETTLE`, 3 s of [all](other.md#part) 41 s, whatever else is going on there.

- one
- two

| a | b |
|---|---|
| `x` | 5 s |

```sh
sleep 40   # for 40 s
```
"""
THERE = """# 标题

等待 `SETTLE`，[全部](other.md#part) 41 秒里的 3 秒。

- 一
- 二

| 甲 | 乙 |
|---|---|
| `x` | 5 秒 |

```sh
sleep 40   # 等 40 秒
```
"""
SPOILT = {
    "a number": ("3 秒。", "4 秒。", "only in English: ['3'], only in Chinese: ['4']"),
    "a number in a table": ("5 秒", "6 秒", "only in English: ['5'], only in Chinese: ['6']"),
    "a number in a comment": ("等 40 秒", "等 4 秒", "numbers in comments"),
    "a code span": ("`SETTLE`", "SETTLE", "only in English: ['SETTLE'], only in Chinese: []"),
    "another code span": ("`x`", "`y`", "only in English: ['x'], only in Chinese: ['y']"),
    "a bullet": ("- 二\n", "", "bullet_list of 2"),
    "a row": ("| `x` | 5 秒 |\n", "", "table of 2 rows"),
    "a column": ("| 甲 | 乙 |\n|---|---|\n| `x` | 5 秒 |", "| 甲 |\n|---|\n| `x` 5 秒 |", "2 columns"),
    "code": ("sleep 40 ", "sleep 30 ", "'sleep 40   # ' has become 'sleep 30   # '"),
    "a language": ("```sh", "```yaml", "code sh"),
    "a link": ("other.md#part", "other.md", "other.md#part"),
    "a heading's level": ("# 标题", "## 标题", "where English has h1"),
    "a section": ("- 一", "## 多\n\n- 一", "Chinese has nothing"),
    "a translation": (THERE.split("\n")[2], HERE.split("\n")[2], "not translated"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_change_of_the_meaning_is_found(what: str) -> None:
    right, wrong, told = SPOILT[what]
    assert differences(HERE, THERE) == []
    assert right in THERE
    found = differences(HERE, THERE.replace(right, wrong))
    assert any(told in each for each in found), found
    assert all("标题" in each or "'多'" in each for each in found), "a message names its section"


@pytest.mark.parametrize(
    "wrong", ["等待SETTLE。", "等待 41秒。", "等待, 然后", "等待\n然后", "等待**“全部”**之后", "用`x`写"]
)
def test_what_looks_wrong_is_found(wrong: str) -> None:
    assert style(THERE) == []
    assert len(style(f"# 标题\n\n{wrong}\n")) >= 1


def test_a_link_leads_to_the_chinese_page_and_its_heading() -> None:
    link = where_to(ROOT / "CHANGELOG.md")
    assert link("docs/consumers.md#what-to-set") == "docs/consumers.zh-CN.md#改什么"
    assert link("docs/consumers.md#nowhere") == "docs/consumers.zh-CN.md#nowhere", "which tests/test_pages.py finds"
    assert link("docs/inits.md#how-it-ends") == "docs/inits.md#how-it-ends"
    assert link("https://nacos.io") == "https://nacos.io"
    assert where_to(ROOT / "docs/consumers.md")("consumers.zh-CN.md") == "consumers.md"


def test_generated_numbers_are_carried_over() -> None:
    page = "<!-- t:begin -->\n{}\n```\nat {} s\n```\n<!-- t:end -->\n{}"
    english = page.format("7 of 8 failed", 2, 3)
    assert carried(english, page.format("5 个失败，共 6 个", 1, 4)) == page.format("7 个失败，共 8 个", 2, 4)
    turned = page.format("共 8 个，7 个失败", 2, 4)
    assert carried(english, turned) != turned, "so that an order which cannot be carried over is noticed"
    printed = "<!-- t:begin -->\n{}<!-- t:end -->"
    timeline = printed.format("```text\n0 s  now\n```\n\n```text\n1 s  then\n```\n")
    assert carried(timeline, printed.format("")) == timeline, "a new one of code alone is copied"
    assert carried(page.format("7 of 8 failed in 9 s", 2, 3), turned) == turned, "other numbers are left to a person"


if __name__ == "__main__":
    for page in map(ROOT.joinpath, ENGLISH):
        sibling(page).write_text(carried(page.read_text(), sibling(page).read_text()))
