"""The examples for Kubernetes, as the tests read them."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import yaml
from needs import lacking


REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples/kubernetes"
BESIDE = EXAMPLES / "beside-it.yaml"
OVERLAY = "07-kustomize/overlay"
NEWEST = str(kubernetes_validate.latest_version())
VERSIONS = ("1.25", "1.29", NEWEST)

# What kustomize, promtool and Spring read. Each of them has a test of its own.
NO_MANIFESTS = {
    "05-spring-cloud/application.yml",
    "06-dubbo/application.yml",
    "07-kustomize/base/kustomization.yaml",
    "07-kustomize/component/kustomization.yaml",
    "07-kustomize/component/sidecar.yaml",
    "07-kustomize/component/hook.yaml",
    "07-kustomize/overlay/kustomization.yaml",
    "10-prometheus/rules.yaml",
    "10-prometheus/rules-test.yaml",
    "10-prometheus/scrape-config.yaml",
}
OPERATORS = {"PodMonitor", "PrometheusRule"}  # custom resources: Kubernetes has no schema of them

Manifest = dict[str, Any]


def files() -> list[str]:
    return sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.y*ml"))


def manifests(name: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all((EXAMPLES / name).read_text()) if each]


def declared(text: str) -> str:
    """The first Kubernetes that a file is for, as its first line tells the reader."""
    found = re.match(r"# Kubernetes (1\.\d+) or newer", text)
    assert found, "the first line is to say: # Kubernetes 1.x or newer"
    return found.group(1)


def minor(version: str) -> int:
    return int(version.split(".")[1])


def refusal(manifest: Manifest, version: str) -> str:
    """Why a Kubernetes would refuse it, or nothing."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def tool(name: str, *arguments: str, given: str = "", folder: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    """One of the judges (`make judges`)."""
    program = shutil.which(name, path=f"{REPOSITORY}/.rig/bin{os.pathsep}{os.environ['PATH']}")
    if program is None:
        lacking(f"needs {name}: make judges")
    return subprocess.run([program, *arguments], input=given, cwd=folder, capture_output=True, text=True, check=False)


def deployment(name: str) -> Manifest:
    return next(each for each in manifests(name) if each["kind"] == "Deployment")


DEPLOYMENTS = [  # with nacos-drain in them: the one of 07's base gets it from kustomize
    name for name in files() if re.match(r"0[1-689]", name) and name not in NO_MANIFESTS and "policy" not in name
]
FIRST = "01-native-sidecar/deployment.yaml"
ORDINARY, WRAPPER, SIGNAL, DUBBO = (
    f"{folder}/deployment.yaml" for folder in ("02-ordinary-sidecar", "03-wrapper", "04-signal", "06-dubbo")
)


def container(manifest: Manifest, name: str) -> Manifest:
    spec = manifest["spec"]["template"]["spec"]
    found: Manifest = next(c for c in [*spec.get("initContainers", ()), *spec["containers"]] if c["name"] == name)
    return found


def pod(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found
