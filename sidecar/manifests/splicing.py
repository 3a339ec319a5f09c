"""Changes a text by whole lines at the places that the parser marked. Nothing is ever written out by a YAML library.

All lines that are not asked for stay as they are, byte for byte: comments, quotes, order, line ends.
"""

import re
from dataclasses import dataclass, field

import yaml


# What YAML 1.1 takes for the end of a line; str.splitlines knows more of them, and the marks would be off.
_LINE = re.compile("[^\r\n\x85\u2028\u2029]*(?:\r\n|[\r\n\x85\u2028\u2029])|[^\r\n\x85\u2028\u2029]+$")

Entry = tuple[yaml.Node, yaml.Node]


class Obscure(Exception):
    """A place that is written in a way that we do not change."""


@dataclass
class Text:
    """The lines of a file, and what is to be done to them."""

    lines: list[str]
    newline: str
    _edits: list[tuple[int, int, list[str]]] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> "Text":
        """Take a text apart."""
        return cls(_LINE.findall(text), "\r\n" if "\r\n" in text else "\n")

    def insert(self, after: int, lines: list[str]) -> None:
        """Put lines behind a line (by its number, from 0)."""
        self._edits.append((after + 1, after + 1, lines))

    def replace(self, first: int, last: int, lines: list[str]) -> None:
        """Put lines in the place of others, both ends included."""
        self._edits.append((first, last + 1, lines))

    def raw(self, first: int, last: int) -> str:
        """Lines as they are, without the end of the last one."""
        return "".join(self.lines[first : last + 1]).rstrip("\r\n")

    def spliced(self) -> str:
        """The text with all edits. What had no newline at its end has none afterwards."""
        bare = bool(self.lines) and not self.lines[-1].endswith(("\n", "\r"))
        lines = [*self.lines]
        if bare:
            lines[-1] += self.newline
        # From the end, so that numbers stay true. What ends an inner block stands before what ends one around it.
        for start, end, new in sorted(self._edits, key=_order, reverse=True):
            lines[start:end] = [line + self.newline for line in new]
        text = "".join(lines)
        return text[: -len(self.newline)] if bare else text


def _order(edit: tuple[int, int, list[str]]) -> tuple[int, bool, int]:
    start, end, new = edit
    indent = len(new[0]) - len(new[0].lstrip()) if new else 0
    return start, end > start, -indent


def entry(mapping: yaml.Node, key: str) -> Entry | None:
    """A key of a mapping with its value."""
    if isinstance(mapping, yaml.MappingNode):
        for name, value in mapping.value:
            if name.value == key:
                return name, value
    return None


def block(node: yaml.Node, what: str) -> yaml.CollectionNode:
    """A mapping or list in block style, with something in it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        raise Obscure(f"{what} is not written as an indented block")
    if isinstance(node, yaml.MappingNode) and any(key.start_mark.line < node.start_mark.line for key, _ in node.value):
        raise Obscure(f"{what} takes things in from elsewhere (<<)")  # the constructor has put them into the node
    return node


def empty(node: yaml.Node) -> bool:
    """Whether there is nothing behind a key."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null" and not node.value


def column(node: yaml.CollectionNode) -> int:
    """Where the keys of a block mapping, or the dashes of a block list, stand."""
    first = node.value[0][0] if isinstance(node, yaml.MappingNode) else node
    return int(first.start_mark.column)


def first_line(node: yaml.Node) -> int:
    """The line on which it begins."""
    return int(node.start_mark.line)


def last_line(text: Text, holder: yaml.Node, node: yaml.Node) -> int:
    """The line on which a value ends; `holder` is its key, or itself for an item.

    A parser's mark of the end of a block is where the next thing begins, behind blank lines and comments.
    """
    if node.start_mark.line < holder.start_mark.line or empty(node):
        return first_line(holder)  # an alias: what it stands for is elsewhere
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        if isinstance(node, yaml.MappingNode):
            return max(last_line(text, key, value) for key, value in node.value)
        return max(last_line(text, item, item) for item in node.value)
    line = int(node.end_mark.line)
    if isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"} and node.end_mark.column == 0:
        line -= 1
        while line > first_line(node) and not text.lines[line].strip():
            line -= 1
    return min(line, len(text.lines) - 1)
