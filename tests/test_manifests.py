"""The manifests of examples/kubernetes are valid, and free of the mistakes that we know of."""

import json
import re

import pod_rules
import pytest
import yaml
from kubernetes_examples import (
    DEPLOYMENTS,
    DUBBO,
    EXAMPLES,
    FIRST,
    NEWEST,
    NO_MANIFESTS,
    OPERATORS,
    REPOSITORY,
    VERSIONS,
    WRAPPER,
    container,
    declared,
    deployment,
    files,
    manifests,
    minor,
    refusal,
)

from sidecar.plan import fit
from sidecar.settings import duration


# -- schemas -----------------------------------------------------------------------------------------------------------


def nothing_at(manifest: object, where: str = "") -> list[str]:
    """Where a key or a line has no value: the schemas let it pass, and it is never meant."""
    if isinstance(manifest, dict):
        return [path for key, value in manifest.items() for path in nothing_at(value, f"{where}.{key}")]
    if isinstance(manifest, list):
        return [path for index, value in enumerate(manifest) for path in nothing_at(value, f"{where}[{index}]")]
    return [where] if manifest is None else []


@pytest.mark.parametrize("name", [name for name in files() if name not in NO_MANIFESTS])
def test_every_version_that_a_file_is_for_accepts_it(name: str) -> None:
    oldest = declared((EXAMPLES / name).read_text())
    for each in manifests(name):
        assert nothing_at(each) == []
        if each["kind"] in OPERATORS:
            assert each["apiVersion"] == "monitoring.coreos.com/v1"
            continue
        for version in VERSIONS:
            if minor(version) >= minor(oldest):
                assert not refusal(each, version), version


def test_the_readmes_manifest_is_accepted() -> None:
    blocks = re.findall(r"```yaml\n(apiVersion: apps/v1\n.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        for version in ("1.29", NEWEST):
            assert not refusal(yaml.safe_load(block), version)


def test_the_readmes_manifest_leaves_out_only_what_the_drain_does_not_need() -> None:
    """It is there to be read at a glance. What it lacks is what 01 adds to it, and no word of ours about the drain."""
    block = re.search(r"```yaml\n(apiVersion: apps/v1\n.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert block
    assert pod_rules.complaints(yaml.safe_load(block.group(1)), config={}, oldest=29) == [
        "no minReadySeconds",
        "a token for the API server that nobody needs",
        "no port named drain, by which Prometheus finds it",
        "no readinessProbe: a rollout goes on before Nacos lists the new pod",
        "shop: requests for cpu and memory and a limit for memory",
        "nacos-drain: a numeric runAsUser",
        "nacos-drain: seccompProfile RuntimeDefault",
        "shop: runAsNonRoot",
        "shop: a numeric runAsUser",
        "shop: seccompProfile RuntimeDefault",
        "shop: capabilities: drop ALL",
        "shop: allowPrivilegeEscalation: false",
        "shop: readOnlyRootFilesystem",
    ]


def test_a_line_with_nothing_but_a_comment_is_noticed() -> None:
    assert nothing_at(yaml.safe_load("ports:\n  - {port: 1}\n  - # another\n")) == [".ports[1]"]


def test_an_old_version_refuses_a_native_sidecar() -> None:
    assert "restartPolicy" in refusal(deployment(FIRST), "1.25")
    assert "terminationGraceSeconds" in refusal(
        {**deployment(FIRST), "spec": {**deployment(FIRST)["spec"], "terminationGraceSeconds": 120}}, NEWEST
    )


def test_nothing_is_passed_over() -> None:
    assert set(files()) >= NO_MANIFESTS
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert {name.split("/")[0] for name in DEPLOYMENTS} == folders - {"07-kustomize", "10-prometheus"}
    index = (EXAMPLES / "README.md").read_text()
    for folder in folders:
        assert f"({folder}/README.md)" in index
        assert (EXAMPLES / folder / "README.md").is_file()


# -- our own rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_no_rule_is_broken(name: str) -> None:
    oldest = minor(declared((EXAMPLES / name).read_text()))
    assert pod_rules.complaints(deployment(name), config={}, oldest=oldest) == []


# -- what the app has to say too ---------------------------------------------------------------------------------------


def settings(name: str) -> dict[str, str]:
    return dict(pod_rules.read(deployment(name), {}).environ)


def test_springs_own_settings_fit_the_manifest() -> None:
    told = settings("05-spring-cloud/deployment.yaml")
    app = manifests("05-spring-cloud/application.yml")[0]
    assert f":{app['management']['server']['port']}/actuator" in told["NACOS_DRAIN_ACTUATOR_URL"]
    assert "nacos-deregister" in app["management"]["endpoints"]["web"]["exposure"]["include"].split(",")
    phase = app["spring"]["lifecycle"]["timeout-per-shutdown-phase"]
    assert duration(told["NACOS_DRAIN_APP_STOP"]) >= duration(phase) + 5
    env = {
        each["name"]: each["value"] for each in container(deployment("05-spring-cloud/deployment.yaml"), "shop")["env"]
    }
    assert env == {"SERVER_SHUTDOWN": app["server"]["shutdown"], "SPRING_LIFECYCLE_TIMEOUT_PER_SHUTDOWN_PHASE": phase}
    nacos = {name for name in told if name.startswith("NACOS_DRAIN_NACOS_")}
    assert nacos == {"NACOS_DRAIN_NACOS_USERNAME", "NACOS_DRAIN_NACOS_PASSWORD"}


def test_dubbos_own_settings_fit_the_manifest() -> None:
    told, app = settings(DUBBO), manifests("06-dubbo/application.yml")[0]["dubbo"]["application"]
    assert told["NACOS_DRAIN_DUBBO_QOS"] == f"127.0.0.1:{app['qos-port']}"
    assert app["name"] in told["NACOS_DRAIN_NACOS_SERVICE"].split(",")
    shown = {str(each["containerPort"]) for each in container(deployment(DUBBO), "shop")["ports"]}
    assert set(told["NACOS_DRAIN_NACOS_PORT"].split(",")) == shown


def test_the_proxies_let_the_hook_through_and_outlive_the_drain() -> None:
    for name, inbound in (
        ("08-mesh/istio.yaml", "traffic.sidecar.istio.io/excludeInboundPorts"),
        ("08-mesh/linkerd.yaml", "config.linkerd.io/skip-inbound-ports"),
    ):
        notes = deployment(name)["spec"]["template"]["metadata"]["annotations"]
        assert notes[inbound] == str(hook_port(name))
        assert all(isinstance(text, str) for text in notes.values())
    istio = deployment("08-mesh/istio.yaml")["spec"]["template"]["metadata"]["annotations"]
    waits = duration(yaml.safe_load(istio["proxy.istio.io/config"])["terminationDrainDuration"])
    plan = fit(120, None, 35)
    assert plan.budget + plan.app_stop <= waits <= plan.grace_period


def test_a_meshed_caller_gets_past_the_network_policy() -> None:
    """Linkerd rewrites the port of what goes from one proxy to another; metrics and the hook are for few."""
    everybody, scraper = manifests("08-mesh/network-policy.yaml")[0]["spec"]["ingress"]
    assert ("from" in everybody, "from" in scraper) == (False, True)
    assert {each["port"] for each in everybody["ports"]} == {8080, 4143}
    assert hook_port("08-mesh/linkerd.yaml") in {each["port"] for each in scraper["ports"]}


def hook_port(name: str) -> int:
    port: int = container(deployment(name), "shop")["lifecycle"]["preStop"]["httpGet"]["port"]
    return port


def test_the_wrappers_image_starts_what_its_manifest_starts() -> None:
    lines = (EXAMPLES / "03-wrapper/Dockerfile").read_text().splitlines()
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if line and line[0] != "#"}
    app = container(deployment(WRAPPER), "shop")
    assert (json.loads(said["ENTRYPOINT"]), json.loads(said["CMD"])) == (app["command"], app["args"])
