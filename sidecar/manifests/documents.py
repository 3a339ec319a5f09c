"""Reads a stream of YAML documents and remembers where each value stood.

PyYAML's C loader does the work, and YAML 1.1 as Kubernetes' own reader does. What is ours is to say in one line why a
file cannot be read, and to refuse what would read as something else than it looks like: a key written twice, an anchor
within itself, a few aliases that unfold to millions of values.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from sidecar.manifests.places import Path, Place


DEEPEST = 100  # levels; a pod has about fifteen
MOST = 1_000_000  # values of a document, with its aliases unfolded

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MERGE = "tag:yaml.org,2002:merge"
# Helm and its like, before they are rendered: `{{ … }}` is a mapping within a mapping to YAML.
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")

# The C loader has no types; without libyaml the Python one does the same, slower.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """Why a file is no YAML, with the line where one is known."""

    def __init__(self, file: str, line: int | None, why: str) -> None:
        self.file, self.line, self.why = file, line, why
        super().__init__(f"{file}:{line}: {why}" if line else f"{file}: {why}")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file."""

    file: str
    root: Place
    node: yaml.Node
    offset: int = 0  # lines before it, where it is a text within another document

    @property
    def top(self) -> int:
        """The line on which it begins."""
        return int(self.node.start_mark.line) + 1 + self.offset

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest thing around it that is there."""
        node, line = self.node, self.top
        for key in path:
            step = _step(node, key)
            if step is None:
                return line
            line, node = step[0] + self.offset, step[1]
        return line


def read(data: bytes, file: str) -> list[Document]:
    """All documents that hold anything.

    Raises Unreadable.
    """
    text = _text(data, file)
    loader = _Loader(text)
    found = []
    try:
        while loader.check_node():
            node = loader.get_node()
            _weigh(node, file)
            value = loader.construct_document(node)
            if value is not None:
                found.append(Document(file, Place(value), node))
    except yaml.MarkedYAMLError as error:
        raise _explained(error, text, file) from None
    except yaml.YAMLError as error:  # a reader's: it has no mark
        raise Unreadable(file, None, f"no YAML: {' '.join(str(error).split())}") from None
    except (ValueError, TypeError, OverflowError) as error:  # 2020-99-99, or a key that is a list
        raise Unreadable(file, None, f"no YAML that Kubernetes would read: {error}") from None
    finally:
        loader.dispose()
    return found


def _text(data: bytes, file: str) -> str:
    if data.startswith(_UTF16):
        raise Unreadable(file, None, "is UTF-16, and Kubernetes reads UTF-8: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(file, line, f"is not UTF-8 (byte 0x{data[error.start]:02x}): save it as UTF-8") from None
    if (at := text.find("\0")) >= 0:
        raise Unreadable(file, text.count("\n", 0, at) + 1, "has a NUL in it: this is no text")
    return text


def _explained(error: yaml.MarkedYAMLError, text: str, file: str) -> Unreadable:
    """The parser's complaint, or the cause behind it where that is a common one."""
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark is not None else None
    lines = text.splitlines()
    shown = lines[number - 1] if number is not None and number <= len(lines) else ""
    for near in range(max(0, (number or 1) - 3), min(len(lines), number or 0)):
        if _TEMPLATE.search(lines[near]):
            return Unreadable(
                file, near + 1, "is a template: render it first (helm template …) and give what comes out"
            )
    if "\t" in shown[: len(shown) - len(shown.lstrip())]:
        return Unreadable(file, number, "is indented with a tab, which YAML does not allow: use spaces")
    # Of what the parser says, only its problem: the context repeats the place.
    problem = " ".join((error.problem or str(error)).split())
    return Unreadable(file, number, f"no YAML: {problem}")


def _weigh(root: yaml.Node, file: str) -> None:
    """Refuse what does not end, or not soon; and keys that are there twice, of which a reader sees only one."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        line = int(node.start_mark.line) + 1
        if (known := sizes.get(id(node))) is not None:
            return known
        if id(node) in open_:
            raise Unreadable(file, line, "an anchor holds an alias of itself: this never ends")
        if depth > DEEPEST:
            raise Unreadable(file, line, f"is nested deeper than {DEEPEST} levels: this is no manifest")
        if isinstance(node, yaml.ScalarNode):
            return 1
        open_.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                total += size(value, depth + 1)
                if not isinstance(key, yaml.ScalarNode):
                    where = int(key.start_mark.line) + 1
                    template = "a key that is no text; or a template: render that first (helm template …)"
                    raise Unreadable(file, where, template)
                if key.value in seen and key.tag != _MERGE:
                    where = int(key.start_mark.line) + 1
                    raise Unreadable(
                        file, where, f"the key {key.value!r} is here a second time: only one of them counts"
                    )
                seen.add(key.value)
        else:
            for each in node.value:
                total += size(each, depth + 1)
        if total > MOST:
            raise Unreadable(file, line, f"its aliases unfold to more than {MOST:,} values: this is no manifest")
        open_.discard(id(node))
        sizes[id(node)] = total
        return total

    size(root, 0)


def _step(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    """One step down: the line of the key (or item), and what is there; the constructor has resolved `<<`."""
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        item: yaml.Node = node.value[key]
        return int(item.start_mark.line) + 1, item
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return int(name.start_mark.line) + 1, value
    return None
