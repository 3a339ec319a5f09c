"""`inject` and its way back, on manifests as people have them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_examples import NEWEST, files, refusal

from sidecar.manifests.checking import check
from sidecar.manifests.documents import Unreadable
from sidecar.manifests.findings import Severity
from sidecar.manifests.injecting import Wanted, inject, uninject


ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((Path(__file__).parent / "manifests").iterdir())
EXAMPLES = [ROOT / "examples/kubernetes" / name for name in files()]
RULES = sorted((ROOT / "tests/check/rules").glob("*/*.yaml"))
NATIVE = Wanted("registry.example.com/nacos-drain:0.1.0", "nacos-0.nacos:8848,nacos-1.nacos:8848", "5b1f0c9ad6e24d0f")
ORDINARY = Wanted(NATIVE.image, NATIVE.servers, NATIVE.token, service="orders", login="nacos-login", kubernetes=25)

each_kind = pytest.mark.parametrize("wanted", [NATIVE, ORDINARY], ids=["native", "ordinary"])
each_file = pytest.mark.parametrize(
    "path", [*MANIFESTS, *EXAMPLES, *RULES], ids=lambda path: f"{path.parent.name}-{path.name}"
)
each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.name))


@each_kind
@each_file
def test_what_was_written_is_taken_out_again_byte_for_byte(path: Path, wanted: Wanted) -> None:
    data = path.read_bytes()
    injected = inject(data, "f", wanted)
    assert uninject(injected.text.encode(), "f").text.encode() == data


@each_kind
@each_file
def test_twice_is_once(path: Path, wanted: Wanted) -> None:
    once = inject(path.read_bytes(), "f", wanted).text
    assert inject(once.encode(), "f", wanted).text == once


@each_kind
@each_manifest
def test_what_is_written_passes_check(path: Path, wanted: Wanted) -> None:
    injected = inject(path.read_bytes(), "f", wanted)
    if path.name == "windows.yaml" and not wanted.native:
        assert "would keep the Job running" in injected.notes[0]
        return
    assert injected.left == 0
    assert injected.text.encode() != path.read_bytes()
    checked = check([("f", injected.text.encode())], wanted.kubernetes or 29)
    accepted = {"drain-endpoint-open"} if not wanted.sends_token else set()
    if path.name == "written.yaml" and not wanted.native:
        accepted.add("mesh-proxy-exits-first")  # an ordinary proxy: how long it drains is the mesh's to say
    told = {each.rule for each in checked.findings if each.severity is not Severity.INFO} - accepted
    assert told == set()


@each_manifest
def test_what_is_written_kubernetes_accepts_and_nothing_else_has_changed(path: Path) -> None:
    data = path.read_bytes()
    before = list(yaml.safe_load_all(data))
    after = list(yaml.safe_load_all(inject(data, "f", NATIVE).text))
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        if other["apiVersion"] not in {"v1", "argoproj.io/v1alpha1"}:
            other["metadata"].pop("status", None)
            assert not refusal(other, NEWEST)
        assert {key: value for key, value in one.items() if key not in {"spec", "items"}} == {
            key: value for key, value in other.items() if key not in {"spec", "items"}
        }
    lines = data.decode().splitlines()
    kept = inject(data, "f", NATIVE).text.splitlines()
    lost = [line for line in lines if line not in kept]
    assert len(lost) <= 12, "a hook, a grace period, or annotations on one line"


def test_only_those_that_have_to_do_with_nacos_are_changed() -> None:
    data = next(path for path in MANIFESTS if path.name == "list.yaml").read_bytes()
    assert inject(data, "f", NATIVE).notes == (
        "f: Deployment cart: changed",
        "f: Rollout pay: changed",
        "f: Deployment redis: left alone: nothing in it has to do with Nacos; --name says that it is meant",
    )
    assert [note.endswith("changed") for note in inject(data, "f", NATIVE, ("redis",)).notes] == [False, False, True]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("{containers: [{name: a}]}", "the pod's spec is not written as an indented block"),
        ("\n  containers: [{name: a}]", "containers is not written as an indented block"),
        ("\n  hostNetwork: true\n  containers:\n  - name: a", "it uses its node's network"),
        ("\n  initContainers: []\n  containers:\n  - name: a", "initContainers is not written as an indented block"),
        ("\n  containers:\n  - {name: a}", "container a is not written as an indented block"),
        (
            "\n  containers:\n  - name: a\n    lifecycle: {postStart: {exec: {command: [a]}}}",
            "lifecycle has a postStart",
        ),
        ("\n  containers:\n  - lifecycle: {}\n    name: a", "lifecycle is the container's first key"),
        ("\n  <<: *a\n  containers:\n  - name: a", "the pod's spec takes things in from elsewhere (<<)"),
        ("\n  containers:\n  - *c", "0 is an alias of something else"),
    ],
)
def test_what_it_does_not_understand_is_left_alone_and_told(spec: str, why: str) -> None:
    anchors = "x: {a: &a {dnsPolicy: None}, c: &c {name: a}}\n"
    data = f"{anchors}kind: Pod\nmetadata:\n  name: a\nspec: {spec}\n".encode()
    injected = inject(data, "f", NATIVE)
    assert (injected.text.encode(), injected.left) == (data, 1)
    assert why in injected.notes[0]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_becomes_of_a_manifest_it_comes_back(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([path.read_bytes() for path in MANIFESTS]))
    lines = source.split(b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "comment", "blank", "strange"])):
            case "drop":
                del lines[index : index + 1]
            case "comment":
                lines.insert(index, b"    # between")
            case "blank":
                lines.insert(index, b"  ")
            case _:
                key, colon, _rest = lines[index].partition(b":")
                values = [b" {}", b" []", b" null", b"", b" 5", b" x", b" &a [1]", b" 'x'  # c"]
                lines[index] = key + colon + data.draw(st.sampled_from(values))
        lines = lines or [b""]
    mutated = b"\n".join(lines)
    try:
        injected = inject(mutated, "f", NATIVE)
    except Unreadable:
        return
    assert uninject(injected.text.encode(), "f").text.encode() == mutated
    assert inject(injected.text.encode(), "f", NATIVE).text == injected.text


# -- as it is typed --------------------------------------------------------------------------------------------------


def run(*arguments: str, given: bytes = b"") -> tuple[int, bytes, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "inject", *arguments],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    return done.returncode, done.stdout, done.stderr.decode()


RANCHER = next(path for path in MANIFESTS if path.name == "rancher.yaml")


def test_a_pipe_there_and_back() -> None:
    code, out, err = run("--nacos", "nacos:8848", "-", given=RANCHER.read_bytes())
    assert (code, err) == (0, "<stdin>: Deployment shop: changed\n")
    assert run("--uninject", "-", given=out)[:2] == (0, RANCHER.read_bytes())


def test_a_diff_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(RANCHER.read_bytes())
    code, out, _ = run("--nacos", "nacos:8848", "--diff", str(path))
    assert code == 0
    assert b"\n-      terminationGracePeriodSeconds: 30\n" in out
    assert b"\n+      terminationGracePeriodSeconds: 120\n" in out
    assert path.read_bytes() == RANCHER.read_bytes()


def test_files_are_changed_where_they_are(tmp_path: Path) -> None:
    for path in MANIFESTS:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert run("--nacos", "nacos:8848", "--write", str(tmp_path))[0] == 0
    assert all((tmp_path / path.name).read_bytes() != path.read_bytes() for path in MANIFESTS)
    assert run("--uninject", "--write", str(tmp_path))[0] == 0
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in MANIFESTS)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """By a stand-in for the one call, as root may write every file."""
    (tmp_path / "f.yaml").write_bytes(RANCHER.read_bytes())
    code = "from sidecar.__main__ import main; import pathlib; pathlib.Path.write_bytes = refuse; main()"
    refuse = "def refuse(*_): raise PermissionError(13, 'Permission denied')"
    done = subprocess.run(
        [sys.executable, "-c", f"{refuse}\n{code}", "inject", "--nacos", "n:1", "--write", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"f.yaml: cannot be written (Permission denied)\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        ((), b"", "inject: which files?"),
        (("-",), b"", "inject: --nacos is missing"),
        (("--nacos", "n:1", "--write", "-"), b"", "inject: --write needs files"),
        (("--nacos", "n:1", str(RANCHER.parent)), b"", "inject: 6 files, and one output"),
        (("--nacos", "n:1", "-"), b"a: [", "<stdin>:2: no YAML"),
        (("--nacos", "n:1", "--kubernetes-version", "2", "-"), b"", "--kubernetes-version 2: no version"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: tuple[str, ...], given: bytes, told: str) -> None:
    code, out, err = run(*arguments, given=given)
    assert (code, out) == (2, b"")
    assert told in err
    assert err.count("\n") == 1
