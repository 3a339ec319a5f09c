"""Other people's files: what can be read is, and what cannot is told in one line."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.manifests.checking import check
from sidecar.manifests.documents import Unreadable, read
from sidecar.manifests.telling import as_json, text


ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.y*ml"))
FOLK = (Path(__file__).parent / "rules/sleep-exceeds-grace/bad.yaml").read_bytes()
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + level, 98 + level, b", ".join([b"*%c" % (97 + level)] * 10)) for level in range(8)
)


def lines(data: bytes) -> list[tuple[str, int]]:
    return [(each.rule, each.line) for each in check([("f", data)]).findings]


@pytest.mark.parametrize(
    "data",
    [
        FOLK.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + FOLK,
        b"---\n# nothing here\n---\n" + FOLK + b"---\n",
        b"%YAML 1.1\n---\n" + FOLK,
    ],
    ids=["CRLF", "BOM", "empty documents", "directive"],
)
def test_however_it_is_written_the_same_is_found(data: bytes) -> None:
    assert [rule for rule, _ in lines(data)] == ["sleep-exceeds-grace"]


def test_a_list_holds_what_a_stream_does() -> None:
    listed = b"apiVersion: v1\nkind: List\nitems:\n- " + FOLK.replace(b"\n", b"\n  ").rstrip() + b"\n"
    assert lines(listed) == [("sleep-exceeds-grace", lines(FOLK)[0][1] + 3)]


@pytest.mark.parametrize(
    ("kind", "nesting"),
    [
        ("StatefulSet", ("spec", "template")),
        ("DaemonSet", ("spec", "template")),
        ("Job", ("spec", "template")),
        ("CronJob", ("spec", "jobTemplate", "spec", "template")),
        ("Rollout", ("spec", "template")),
        ("CloneSet", ("spec", "template")),
        ("Pod", ()),
    ],
)
def test_every_kind_that_makes_pods_is_looked_at(kind: str, nesting: tuple[str, ...]) -> None:
    spec = '{containers: [{name: shop, lifecycle: {preStop: {exec: {command: [sleep, "40"]}}}}]}'
    inside = f"{{spec: {spec}}}"
    for key in reversed(nesting):
        inside = f"{{{key}: {inside}}}"
    flow = f"{{kind: {kind}, {inside[1:]}".encode()
    assert [rule for rule, _ in lines(flow)] == ["sleep-exceeds-grace"]


def test_an_anchor_and_a_merge_are_followed_and_the_line_is_where_the_text_is() -> None:
    data = b"""kind: Pod
x-hook: &hook
  lifecycle:
    preStop:
      exec: {command: [sleep, "40"]}
spec:
  containers:
    - <<: *hook
      name: shop
"""
    assert lines(data) == [("sleep-exceeds-grace", 4)]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a:\n\tb: 1\n", "f:2: is indented with a tab"),
        (b"a: {{ .Values.x }}\n", "f:1: a key that is no text; or a template"),
        (b"{{- if .x }}\na: b\n{{- end }}\n", "f:1: is a template: render it first"),
        (b"a: 1\na: 2\n", "f:2: the key 'a' is here a second time"),
        (b"a: &x [*x]\n", "f:1: an anchor holds an alias of itself"),
        (BOMB, "its aliases unfold to more than 1,000,000 values"),
        (b"[" * 150 + b"]" * 150, "f:1: is nested deeper than 100 levels"),
        (b"a: b: c\n", "f:1: no YAML: mapping values are not allowed"),
        (b"a: [1, 2\nb: 3\n", "f:2: no YAML: "),
        (b"a: *nobody\n", "f:1: no YAML: found undefined alias"),
        (b"a: !!python/object:os.system x\n", "f:1: no YAML: could not determine a constructor"),
        (b"a: 2020-99-99\n", "f: no YAML that Kubernetes would read: month must be in 1..12"),
        ("a: ä\n".encode("latin-1"), "f:1: is not UTF-8 (byte 0xe4)"),
        ("a: b\n".encode("utf-16"), "f: is UTF-16, and Kubernetes reads UTF-8"),
        (b"a: b\n\0\n", "f:2: has a NUL in it"),
        (b"a: \x07\n", "f: no YAML: "),
        (b"? [a, b]\n: c\n", "f:1: a key that is no text"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(data: bytes, told: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(data, "f")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ten_thousand_documents_are_looked_at() -> None:
    checked = check([("f", b"---\n".join([b"{kind: Service, metadata: {name: a}}\n"] * 9_999 + [FOLK]))])
    assert (checked.pods, checked.others) == (1, {"Service": 9_999})
    assert checked.findings[0].line == 9_999 * 2 + lines(FOLK)[0][1]


STRANGE = [
    each.encode() if isinstance(each, str) else each
    for each in (
        *(
            "null",
            "[]",
            "{}",
            "-1",
            "1e400",
            ".nan",
            ".inf",
            "9" * 30,
            "true",
            "'x'",
            "*a",
            "&a ",
            "\t",
            "\r\n",
            "!!set",
        ),
        *("? ", "<<: ", ": ", "- ", b"\xff", "%", "|", "{{ x }}", "2020-99-99", "0x", "12:30:45", "$(A)", "\u2028"),
    )
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_becomes_of_a_manifest_there_is_an_answer(data: st.DataObject) -> None:
    sources = [path.read_bytes() for path in EXAMPLES] + [FOLK]
    text_ = data.draw(st.sampled_from(sources))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text_)))
        end = min(len(text_), start + data.draw(st.integers(0, 40)))
        text_ = text_[:start] + data.draw(st.sampled_from(STRANGE)) + text_[end:]
    checked = check([("f", text_)], 29)
    assert text(checked, all_=True)
    assert as_json(checked)["schema"] == 1
    for each in checked.unreadable:
        assert "\n" not in str(each)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_of_another_type_is_borne(data: st.DataObject) -> None:
    """As before, but what stands behind a key changes, so that it is read and the rules see it."""
    source = data.draw(st.sampled_from([path.read_bytes() for path in EXAMPLES] + [FOLK])).split(b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(source) - 1))
        key, colon, _ = source[index].partition(b":")
        if colon:
            values = [
                b"7",
                b"text",
                b"[1, a, null]",
                b"{a: {b: 1}}",
                b"null",
                b"1.5",
                b"true",
                b"-3",
                b"1e400",
                b".nan",
            ]
            source[index] = key + b": " + data.draw(st.sampled_from(values))
    checked = check([("f", b"\n".join(source))], 29)
    assert text(checked, all_=True)


@pytest.mark.parametrize(
    "value", ["9" * 400, "9" * 30, ".nan", ".inf", "-5", "1.5", "'9%'", "'9999999999999999999999%'"]
)
@pytest.mark.parametrize("rule", ["max-unavailable", "grace-too-small", "hook-port-mismatch", "app-liveness-grace"])
def test_a_number_that_nobody_means_is_borne(rule: str, value: str) -> None:
    source = (Path(__file__).parent / "rules" / rule / "bad.yaml").read_text()
    for number in ("100%", "45", "8080", " 20", " 2"):
        checked = check([("f", source.replace(number, f" {value}").encode())])
        assert text(checked, all_=True)


def test_what_a_script_says_of_a_login_is_not_repeated() -> None:
    secret = b"curl 'http://admin:hunter2@localhost/x?password=hunter2&b=1' && sleep 40"
    folk = FOLK.replace(b"curl http://localhost:8080/actuator/nacos-deregister && sleep 40", secret)
    shown = text(check([("f", folk)]), all_=True)
    assert "http://…@localhost/x?password=…&b=1" in shown
    assert "hunter2" not in shown
