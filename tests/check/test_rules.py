"""Each rule: a manifest with the mistake, what is told of it word for word, and one that is right.

`python tests/check/test_rules.py` writes the texts anew, for a reader to compare with git.
"""

import re
from pathlib import Path

import pytest

from sidecar.manifests.checking import KNOWN, Checked, check
from sidecar.manifests.telling import text


FOLDER = Path(__file__).parent / "rules"
RULES = sorted(KNOWN | {"ignore-unknown"})


def looked_at(rule: str, name: str) -> Checked:
    """A first line `# Kubernetes 1.N` is the version that it is for."""
    data = (FOLDER / rule / name).read_bytes()
    version = re.match(rb"# Kubernetes 1\.(\d+)\n", data)
    return check([(name, data)], int(version[1]) if version else None)


def told(rule: str) -> str:
    return text(looked_at(rule, "bad.yaml"), all_=True) + "\n"


def test_every_rule_has_a_manifest_and_no_manifest_is_without_a_rule() -> None:
    assert sorted(each.name for each in FOLDER.iterdir()) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_its_mistake_and_tells_it_in_these_words(rule: str) -> None:
    checked = looked_at(rule, "bad.yaml")
    assert rule in {each.rule for each in checked.findings}
    assert told(rule) == (FOLDER / rule / "bad.txt").read_text()


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_nothing_where_nothing_is_wrong(rule: str) -> None:
    checked = looked_at(rule, "good.yaml")
    assert not checked.unreadable
    assert checked.pods
    assert rule not in {each.rule for each in checked.findings}


if __name__ == "__main__":
    for each in RULES:
        (FOLDER / each / "bad.txt").write_text(told(each))
