"""`nacos-drain check` as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


RULES = Path(__file__).parent / "rules"
BAD = str(RULES / "sleep-exceeds-grace/bad.yaml")
WARNS = str(RULES / "folk-remedy/bad.yaml")
INFORMS = str(RULES / "hook-missing/good.yaml")


def run(
    *arguments: str, given: bytes = b"", code: str = "from sidecar.__main__ import main; main()"
) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'nacos-drain'; {code}", "check", *arguments],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("file", "fail_on", "code"),
    [
        (BAD, "error", 1),
        (BAD, "never", 0),
        (WARNS, "error", 0),
        (WARNS, "warning", 1),
        (INFORMS, "warning", 0),
        (INFORMS, "info", 1),
    ],
)
def test_it_fails_for_what_is_as_bad_as_it_was_told(file: str, fail_on: str, code: int) -> None:
    assert run("--fail-on", fail_on, file)[0] == code


def test_what_is_piped_in_is_looked_at() -> None:
    code, out, _ = run("-", given=Path(BAD).read_bytes())
    assert code == 1
    assert "<stdin>:19: error: the hook of shop sleeps 40 s" in out


def test_a_folder_is_looked_at_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.yml").write_bytes(Path(BAD).read_bytes())
    (tmp_path / "b.yaml").write_text("kind: Service\n")
    (tmp_path / "notes.txt").write_text("{{")
    code, out, err = run(str(tmp_path))
    assert (code, err) == (1, "")
    assert "1 pod checked: 1 error, 0 warnings\nmakes no pods: 1 Service\n" in out


def test_programs_get_all_of_it() -> None:
    code, out, _ = run("--json", BAD)
    found = json.loads(out)
    assert code == 1
    assert found["findings"][0].items() >= {"id": "sleep-exceeds-grace", "severity": "error", "line": 19}.items()
    assert [(each["at"]) for each in found["findings"][0]["story"]][-2:] == [32, 32]


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        ((), b"", "check: which files?"),
        (("nowhere.yaml",), b"", "nowhere.yaml: cannot be read (No such file or directory)"),
        (("--kubernetes-version", "newest", "-"), b"", "--kubernetes-version newest: no version of Kubernetes"),
        (("-",), b"kind: Service\n", "nothing in there makes pods"),
        (("-",), b"", "nothing in there makes pods"),
        (("-",), b"a: [\n", "<stdin>:2: no YAML"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: tuple[str, ...], given: bytes, told: str) -> None:
    code, _, err = run(*arguments, given=given)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_read_does_not_hide_what_the_others_say() -> None:
    code, out, err = run("-", BAD, given=b"a: [\n")
    assert code == 2
    assert "sleep-exceeds-grace" in out
    assert err.startswith("<stdin>:2: no YAML")


@pytest.mark.parametrize("version", ["1.25", "v1.25.3+k3s1"])
def test_the_version_decides_what_the_kubelet_does(version: str) -> None:
    assert "token-old-kubelet" in run("--kubernetes-version", version, INFORMS)[1]
    assert "token-old-kubelet" not in run("--kubernetes-version", "1.30", INFORMS)[1]


def test_an_annotation_accepts_a_finding_and_the_count_tells(tmp_path: Path) -> None:
    accepted = "    metadata:\n      annotations: {nacos-drain/check-ignore: sleep-exceeds-grace}\n"
    text = Path(BAD).read_text().replace("    metadata:\n", accepted)
    code, out, _ = run("-", given=text.encode())
    assert (code, out) == (0, "1 pod checked: 0 errors, 0 warnings, 1 ignored by annotation\n")


def test_a_pod_that_has_nothing_to_do_with_us_is_passed_over() -> None:
    code, out, _ = run("-", given=b"{kind: Pod, spec: {containers: [{name: redis}]}}")
    assert code == 0
    assert out.endswith("passed over: 1 pod without nacos-drain, Nacos or a hook\n")


def test_the_rules_are_listed() -> None:
    code, out, _ = run("--rules")
    assert code == 0
    assert len(out.splitlines()) >= 40


def test_without_the_extra_it_tells_what_to_install() -> None:
    code, _, err = run("-", code="sys.modules['yaml'] = None; from sidecar.__main__ import main; main()")
    assert code == 2
    assert "pip install 'nacos-drain[manifests]'" in err
