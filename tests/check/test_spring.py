"""An app's application.yml, as Spring Boot would read it in its pod."""

import re
from collections.abc import Mapping

import pytest

from sidecar.manifests.checking import Checked, check
from sidecar.manifests.documents import read
from sidecar.manifests.spring import Properties, applications, milliseconds, source


APP, PROD = "application.yml", "application-prod.yml"
ACTIVE, ON = "SPRING_PROFILES_ACTIVE", "spring.config.activate.on-profile"
POD = b"""kind: Pod
metadata: {name: shop}
spec:
  terminationGracePeriodSeconds: 75
  containers:
    - name: shop
      lifecycle: {preStop: {exec: {command: [sh, -c, "curl -f localhost; curl http://localhost:8080/actuator/nacos-deregister; sleep 40"]}}}
"""  # noqa: E501  a hook is one line


def properties(
    files: Mapping[str, str], variables: Mapping[str, str | None] | None = None, command: str = ""
) -> Properties:
    sources = [source(each) for name, text in files.items() for each in read(text.encode(), f"conf/{name}")]
    (app,) = applications([each for each in sources if each is not None])
    return Properties(app, variables or {}, command)


@pytest.mark.parametrize(
    ("files", "variables", "command", "value"),
    [
        ({APP: "a: {b-c: 1}"}, {}, "", "1"),
        ({APP: "a.bC: 1"}, {}, "", "1"),
        ({APP: "a: {b-c: 1}", "bootstrap.yml": "a: {b-c: 2}"}, {}, "", "1"),
        ({APP: "a: {b-c: 1}", PROD: "a: {b-c: 2}"}, {}, "", "1"),
        ({PROD: "a: {b-c: 2}", APP: "{spring.profiles.active: prod, a: {b-c: 1}}"}, {}, "", "2"),
        ({APP: "a: {b-c: 1}", PROD: "a: {b-c: 2}"}, {ACTIVE: "prod"}, "", "2"),
        ({APP: f"a: {{b-c: 1}}\n---\n{ON}: prod\na: {{b-c: 2}}"}, {}, "-Dspring.profiles.active=prod", "2"),
        ({APP: f"a: {{b-c: 1}}\n---\n{ON}: '!prod'\na: {{b-c: 2}}"}, {}, "--spring.profiles.active=prod", "1"),
        ({APP: "a: {b-c: 1}\n---\nspring.profiles: dev, prod & eu\na: {b-c: 2}"}, {ACTIVE: "prod,eu"}, "", "2"),
        ({PROD: "a: {b-c: 2}", "application-y.yml": "a: {b-c: 3}"}, {ACTIVE: "y,prod"}, "", "2"),
        ({APP: "a: {b-c: 1}"}, {"A_BC": "2"}, "", "2"),
        ({APP: "a: {b-c: 1}"}, {"A_BC": "2"}, "java -jar app.jar --a.b-c=3", "3"),
        ({APP: "a: {b-c: 1}"}, {"JAVA_TOOL_OPTIONS": "-Da.b-c=4"}, "", "4"),
        ({APP: "a: {b-c: 1}"}, {"A_BC": None}, "", None),
        ({APP: "a: {b-c: '${X:5}'}"}, {}, "", "5"),
        ({APP: "a: {b-c: '${X:${Y:6}}'}"}, {"Y": "7"}, "", "7"),
        ({APP: "a: {b-c: '${X}'}"}, {}, "", None),
        ({APP: "a: {b-c: '${X:5}'}"}, {"X": None}, "", None),
        ({APP: "a: {b-c: '${X}'}"}, {"X": "${X}"}, "", None),
        ({APP: "a: {b-c: [x, y]}"}, {}, "", "x,y"),
    ],
)
def test_the_last_word_is_who_spring_takes_for_it(
    files: Mapping[str, str], variables: Mapping[str, str | None], command: str, value: str | None
) -> None:
    told = properties(files, variables, command).get("a.b-c")
    assert told is not None
    assert told.text == value


@pytest.mark.parametrize(
    ("text", "found"),
    [("30s", 30e3), ("PT30S", 30e3), ("1500", 1500), ("2 m", 12e4), ("1.5s", 1500), ("soon", None), ("", None)],
)
def test_durations_are_springs(text: str, found: float | None) -> None:
    assert milliseconds(text) == found


def rules(checked: Checked) -> list[str]:
    return [each.rule for each in checked.findings if each.rule.startswith("spring") and each.severity != "info"]


def test_the_list_of_a_profile_replaces_the_one_that_had_the_endpoint() -> None:
    """What is told stands where it is to be mended, and names the list that has no effect any more."""
    base = b"spring.profiles.active: prod\nmanagement.endpoints.web.exposure.include: [health, nacos-deregister]\n"
    prod = b"management:\n  endpoints.web.exposure.include: health\n"
    checked = check([("pod.yaml", POD), ("c/application.yml", base), ("c/application-prod.yml", prod)])
    (finding,) = [each for each in checked.findings if each.rule == "spring-endpoint-hidden"]
    assert (finding.file, finding.line) == ("c/application-prod.yml", 2)
    assert finding.what == (
        "the hook of shop asks /actuator/nacos-deregister, and application-prod.yml:2 exposes only health "
        "(active: prod); it replaces application.yml:2, which has nacos-deregister"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"spring.application.name: shop\n", ["spring-endpoint-hidden"]),
        (b"management.endpoints.web.exposure.include: '*'\n", []),
        (b"management.endpoints.web.exposure: {include: '*', exclude: nacos-deregister}\n", ["spring-endpoint-hidden"]),
        (b"management.endpoints.web.exposure.include: ${EXPOSED}\n", []),
        (b"management.endpoints.web: {base-path: /manage, exposure.include: health}\n", []),
        (b"{management.endpoints.web.exposure.include: '*', server.port: 9000}\n", ["spring-management-port"]),
        (b"{management.endpoints.web.exposure.include: '*', server.port: 9000, management.server.port: 8080}\n", []),
        (b"{management.endpoints.web.exposure.include: '*', server: {shutdown: immediate}}\n", ["spring-shutdown"]),
        (
            b"management.endpoints.web.exposure.include: '*'\nserver.shutdown: graceful\n"  # noqa: ISC004  one file
            b"spring.lifecycle.timeout-per-shutdown-phase: 40s\n",
            ["spring-phase-timeout"],
        ),
        (b"{management.endpoints.web.exposure.include: '*', server.shutdown: graceful}\n", []),
        (b"[1, 2]\n", ["spring-endpoint-hidden"]),
    ],
)
def test_the_hook_is_held_to_what_the_app_has(text: bytes, found: list[str]) -> None:
    assert rules(check([("pod.yaml", POD), ("application.yml", text)])) == found


def test_files_that_belong_to_nobody_are_told() -> None:
    other = POD.replace(b"shop", b"cart")
    checked = check([("a", POD), ("b", other), ("x/application.yml", b"spring.application.name: orders\n")])
    assert (rules(checked), checked.homeless) == ([], ("x",))
    named = check([("a", POD), ("b", other), ("x/application.yml", b"spring.application.name: cart\n")])
    assert [each.object for each in named.findings if each.rule == "spring-endpoint-hidden"] == ["Pod cart"]
    assert named.homeless == ()


def test_a_config_map_with_a_broken_file_is_told_with_its_line() -> None:
    config = b"kind: ConfigMap\ndata:\n  application.yml: |\n    a: 1\n    b: [\n"
    checked = check([("f", config)])
    (told,) = map(str, checked.unreadable)
    assert re.fullmatch(r"f:[56]: application\.yml in this ConfigMap: no YAML: .*", told)
