"""What others' tools say of examples/kubernetes: kube-score, kustomize and promtool (`make judges`)."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pod_rules
import pytest
import yaml
from kubernetes_examples import (
    BESIDE,
    DEPLOYMENTS,
    EXAMPLES,
    FIRST,
    NEWEST,
    OVERLAY,
    Manifest,
    container,
    declared,
    deployment,
    manifests,
    minor,
    pod,
    refusal,
    tool,
)


# What kube-score calls critical and we leave as it is.
IGNORED = {
    "container-image-pull-policy": "pulled once, and no registry is needed to start",
    "container-ephemeral-storage-request-and-limit": "they write logs, and an emptyDir with a limit",
}


# Probes are judged only where a Service leads to the pod.
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: http}]}
"""


def score(text: str) -> subprocess.CompletedProcess[str]:
    """kube-score's word on it; a CPU limit is what we do not want."""
    ignored = [part for name in IGNORED for part in ("--ignore-test", name)]
    told = ("--ignore-container-cpu-limit", "--kubernetes-version", "v1.29", "--output-format", "ci")
    done = tool("kube-score", "score", *told, *ignored, "-", given=text)
    assert "apps/v1/Deployment" in done.stdout, done.stderr
    return done


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_kube_score_finds_nothing_critical(name: str) -> None:
    disruption, policy = BESIDE.read_text().split("---")
    own = (EXAMPLES / name).with_name("network-policy.yaml")
    if own.exists():
        policy = own.read_text()
    done = score("\n---\n".join([(EXAMPLES / name).read_text(), disruption, policy, SERVICE]))
    assert done.returncode == 0, done.stdout
    assert "[CRITICAL]" not in done.stdout


def test_kube_score_can_find_something() -> None:
    assert "NetworkPolicy" in score((EXAMPLES / FIRST).read_text()).stdout
    wrong = deployment(FIRST)
    container(wrong, "shop")["securityContext"]["readOnlyRootFilesystem"] = False
    assert score(yaml.safe_dump(wrong)).returncode == 1


def built(folder: Path) -> Iterator[Manifest]:
    done = tool("kustomize", "build", OVERLAY, folder=folder)
    assert done.returncode == 0, done.stderr
    yield from (each for each in yaml.safe_load_all(done.stdout) if each)


def test_kustomize_makes_a_whole_deployment() -> None:
    made = {each["kind"]: each for each in built(EXAMPLES)}
    config = made["ConfigMap"]
    for each in made.values():
        for version in ("1.29", NEWEST):
            assert not refusal(each, version)
    complete = made["Deployment"]
    known = {config["metadata"]["name"]: config["data"]}
    assert pod_rules.complaints(complete, config=known, oldest=29) == []
    assert [each["name"] for each in pod(complete)["containers"]] == ["web"]
    assert minor(declared((EXAMPLES / "07-kustomize/base/deployment.yaml").read_text())) == 25
    done = score(yaml.safe_dump_all([*made.values(), *yaml.safe_load_all(BESIDE.read_text())]))
    assert done.returncode == 0, done.stdout


def test_kustomize_leaves_alone_what_has_no_label(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "07-kustomize", tmp_path / "07-kustomize")
    base = tmp_path / "07-kustomize/base/deployment.yaml"
    base.write_text(base.read_text().replace(", nacos-drain: enabled", ""))
    assert next(each for each in built(tmp_path) if each["kind"] == "Deployment") == yaml.safe_load(base.read_text())


def test_kustomize_puts_an_ordinary_sidecar_beside_the_hook_and_not_below_it(tmp_path: Path) -> None:
    """The variant for older clusters that the page tells of: what is added to a list comes first, and is no app."""
    shutil.copytree(EXAMPLES / "07-kustomize", tmp_path / "07-kustomize")
    sidecar = tmp_path / "07-kustomize/component/sidecar.yaml"
    text = (
        sidecar.read_text().replace("initContainers:", "containers:").replace("          restartPolicy: Always\n", "")
    )
    sidecar.write_text(text)
    made = {each["kind"]: each for each in built(tmp_path)}
    known = {made["ConfigMap"]["metadata"]["name"]: made["ConfigMap"]["data"]}
    assert pod_rules.complaints(made["Deployment"], config=known, oldest=26) == []
    assert [each["name"] for each in pod(made["Deployment"])["containers"]] == ["nacos-drain", "web"]
    assert not refusal(made["Deployment"], "1.25")


def alerts() -> Manifest:
    """Each rule of rules.yaml by its name."""
    return {
        rule["alert"]: rule for group in manifests("10-prometheus/rules.yaml")[0]["groups"] for rule in group["rules"]
    }


def test_the_alerts_do_what_their_tests_say() -> None:
    folder = EXAMPLES / "10-prometheus"
    for arguments in (("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")):
        done = tool("promtool", *arguments, folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    assert manifests("10-prometheus/prometheusrule.yaml")[0]["spec"] == manifests("10-prometheus/rules.yaml")[0]


# What may be wrong in an expression: it forgets what was there before, or fires for too many or too few.
MUTATIONS = {"offset 10m": "offset 1m", "unless on": "and on", "and on": "or on", "== 0": ">= 0"}


def promtools_word_on(rules: Manifest, folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(EXAMPLES / "10-prometheus/rules-test.yaml", folder)
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": list(rules.values())}]}))
    return tool("promtool", "test", "rules", "rules-test.yaml", folder=folder)


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_that_is_missing_is_noticed(alert: str, tmp_path: Path) -> None:
    assert promtools_word_on(alerts(), tmp_path).returncode == 0
    done = promtools_word_on({name: rule for name, rule in alerts().items() if name != alert}, tmp_path)
    assert "FAILED" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("alert", "said"), [(name, said) for name, rule in alerts().items() for said in MUTATIONS if said in rule["expr"]]
)
def test_an_alert_that_is_wrong_is_noticed(alert: str, said: str, tmp_path: Path) -> None:
    wrong = alerts()
    wrong[alert]["expr"] = wrong[alert]["expr"].replace(said, MUTATIONS[said])
    done = promtools_word_on(wrong, tmp_path)
    assert "FAILED" in done.stdout + done.stderr


def test_every_metric_of_an_alert_is_one_of_ours_or_named() -> None:
    from sidecar.telemetry import Metrics  # noqa: PLC0415  its registry is what is asked

    ours = {sample for family in Metrics().registry.collect() for sample in (family.name, f"{family.name}_total")}
    others = {"kube_pod_init_container_status_ready", "kube_pod_container_status_ready"}
    expressions = " ".join(
        rule["expr"] for group in manifests("10-prometheus/rules.yaml")[0]["groups"] for rule in group["rules"]
    )
    used = set(re.findall(r"\b((?:nacos_drain|kube)_\w+)", expressions))
    assert used - others <= ours
    assert used - ours == others


def test_promtool_accepts_the_scrape_config(tmp_path: Path) -> None:
    """Debian's promtool is built without Kubernetes' discovery: another one stands for it, and the rest is the same."""
    config = manifests("10-prometheus/scrape-config.yaml")[0]
    for job in config["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["static_configs"] = [{"targets": ["127.0.0.1:19081"]}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    done = tool("promtool", "check", "config", "prometheus.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
