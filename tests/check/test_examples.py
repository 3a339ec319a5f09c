"""What we give people to copy passes."""

import re
from pathlib import Path

import pytest
import yaml
from kubernetes_examples import BESIDE, EXAMPLES, NO_MANIFESTS, files

from sidecar.manifests.checking import Checked, check
from sidecar.manifests.findings import Severity
from sidecar.manifests.telling import text


REPOSITORY = EXAMPLES.parents[1]


def findings(checked: Checked) -> list[str]:
    """All but the infos, and but that the token is an example's: whoever copies it is to be told that."""
    assert not checked.unreadable
    return [
        f"{each.file}:{each.line} {each.rule}: {each.what}"
        for each in checked.findings
        if each.severity is not Severity.INFO and each.rule != "token-sample"
    ]


@pytest.mark.parametrize("name", [name for name in files() if name not in NO_MANIFESTS])
def test_an_example_passes_for_the_oldest_kubernetes_that_it_is_for(name: str) -> None:
    data = (EXAMPLES / name).read_bytes()
    oldest = re.match(rb"# Kubernetes 1\.(\d+)", data)
    assert oldest
    assert findings(check([(name, data), ("beside-it", BESIDE.read_bytes())], int(oldest[1]))) == []


def test_the_readmes_manifest_has_no_error() -> None:
    block = re.search(r"```yaml\n(apiVersion: apps/v1\n.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert block
    assert yaml.safe_load(block[1])
    checked = check([("README.md", block[1].encode())], 29)
    assert checked.pods == 1
    assert {each.rule for each in checked.findings if each.severity is Severity.ERROR} == set()


def test_the_whole_folder_can_be_given_at_once() -> None:
    checked = check([(name, (EXAMPLES / name).read_bytes()) for name in files()])
    assert checked.pods >= 10
    assert findings(checked) == []


def test_one_mistake_in_an_example_is_found() -> None:
    """Else all of the above would pass for a check that is asleep."""
    data = Path(EXAMPLES / "01-native-sidecar/deployment.yaml").read_bytes().replace(b"path: /drain", b"path: /drian")
    assert len(findings(check([("f", data)]))) == 1


@pytest.mark.parametrize("page", ["docs/check.md", "docs/check.zh-CN.md"])
def test_the_page_shows_what_is_printed(page: str) -> None:
    folk = (Path(__file__).parent / "rules/sleep-exceeds-grace/bad.yaml").read_bytes()
    shown = text(check([("deployment.yaml", folk)]), all_=False)
    assert f"```\n{shown}\n```" in (REPOSITORY / page).read_text()
