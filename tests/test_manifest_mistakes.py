"""The rules for a pod can be broken: each mistake that somebody may make in copying an example is noticed."""

import copy
from collections.abc import Callable

import pod_rules
import pytest
from kubernetes_examples import (
    DUBBO,
    EXAMPLES,
    FIRST,
    ORDINARY,
    SIGNAL,
    WRAPPER,
    Manifest,
    container,
    declared,
    deployment,
    minor,
    pod,
)


def variable(manifest: Manifest, name: str, value: str) -> list[Manifest]:
    env: list[Manifest] = container(manifest, "nacos-drain")["env"]
    env[:] = [each for each in env if each["name"] != name] + ([{"name": name, "value": value}] if value else [])
    return env


def ours(manifest: Manifest) -> Manifest:
    return container(manifest, "nacos-drain")


def hook(manifest: Manifest) -> Manifest:
    found: Manifest = container(manifest, "shop")["lifecycle"]["preStop"]["httpGet"]
    return found


Break = Callable[[Manifest], object]
MISTAKES: list[tuple[str, str, Break]] = [
    (FIRST, "GRACE_PERIOD is 120", lambda m: pod(m).update(terminationGracePeriodSeconds=60)),
    (FIRST, "GRACE_PERIOD is 120", lambda m: pod(m).pop("terminationGracePeriodSeconds")),
    (FIRST, "do not cover a 35 s cache", lambda m: variable(m, "NACOS_DRAIN_APP_STOP", "90s")),
    (FIRST, "nacos-drain listens on 19081", lambda m: hook(m).update(port=8080)),
    (FIRST, "nacos-drain listens on 19090", lambda m: variable(m, "NACOS_DRAIN_LISTEN", ":19090")),
    (FIRST, "the hook asks /", lambda m: hook(m).update(path="/")),
    (FIRST, "the hook asks 127.0.0.1", lambda m: hook(m).update(host="127.0.0.1")),
    (FIRST, "listens on loopback", lambda m: variable(m, "NACOS_DRAIN_LISTEN", "127.0.0.1:19081")),
    (FIRST, "a hook on nacos-drain itself", lambda m: ours(m).update(lifecycle=deployment_hook())),
    (FIRST, "no preStop.httpGet", lambda m: container(m, "shop").pop("lifecycle")),
    (FIRST, "token is not the sidecar's", lambda m: hook(m).pop("httpHeaders")),
    (FIRST, "token is not the sidecar's", lambda m: variable(m, "NACOS_DRAIN_TOKEN", "another")),
    (FIRST, "is not a setting", lambda m: variable(m, "NACOS_DRAIN_GRACE", "120")),
    (FIRST, "NACOS_PORT", lambda m: variable(m, "NACOS_DRAIN_NACOS_PORT", "http")),
    (FIRST, "without NODE_IP", lambda m: variable(m, "NACOS_DRAIN_NODE_IP", "")),
    (FIRST, "never ends", lambda m: ours(m).pop("restartPolicy")),
    (FIRST, "no startupProbe", lambda m: ours(m).pop("startupProbe")),
    (FIRST, "no readinessProbe", lambda m: ours(m).pop("readinessProbe")),
    (FIRST, "no readinessProbe", lambda m: ours(m)["readinessProbe"]["httpGet"].update(path="/livez")),
    (FIRST, "no readinessProbe", lambda m: ours(m)["readinessProbe"]["httpGet"].update(port=8080)),
    (FIRST, "in the middle of a drain", lambda m: ours(m).update(livenessProbe=ours(m)["startupProbe"])),
    (FIRST, "no port named drain", lambda m: ours(m).pop("ports")),
    (FIRST, "shop: requests for cpu", lambda m: container(m, "shop")["resources"].pop("requests")),
    (FIRST, "nacos-drain: a CPU limit", lambda m: ours(m)["resources"]["limits"].update(cpu="50m")),
    (FIRST, "nacos-drain: other resources", lambda m: ours(m)["resources"]["limits"].update(memory="32Mi")),
    (FIRST, "maxUnavailable 0", lambda m: m["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1)),
    (FIRST, "type RollingUpdate", lambda m: m["spec"]["strategy"].update(type="Recreate")),
    (FIRST, "no minReadySeconds", lambda m: m["spec"].pop("minReadySeconds")),
    (FIRST, "a token for the API server", lambda m: pod(m).pop("automountServiceAccountToken")),
    (FIRST, "nacos-drain: runAsNonRoot", lambda m: pod(m)["securityContext"].pop("runAsNonRoot")),
    (FIRST, "shop: seccompProfile", lambda m: pod(m)["securityContext"].pop("seccompProfile")),
    (FIRST, "shop: a numeric runAsUser", lambda m: container(m, "shop")["securityContext"].pop("runAsUser")),
    (FIRST, "shop: capabilities", lambda m: container(m, "shop")["securityContext"].pop("capabilities")),
    (FIRST, "escalation", lambda m: ours(m)["securityContext"].update(allowPrivilegeEscalation=True)),
    (FIRST, "readOnlyRoot", lambda m: ours(m)["securityContext"].pop("readOnlyRootFilesystem")),
    (FIRST, "hostNetwork", lambda m: pod(m).update(hostNetwork=True)),
    (ORDINARY, "restartPolicy is for init", lambda m: ours(m).update(restartPolicy="Always")),
    (
        ORDINARY,
        "kubelets before 1.26",
        lambda m: (
            variable(m, "NACOS_DRAIN_TOKEN", "secret"),
            hook(m).update(httpHeaders=[{"name": "X-Drain-Token", "value": "secret"}]),
        ),
    ),
    (WRAPPER, "a hook beside", lambda m: container(m, "shop").update(lifecycle=deployment_hook())),
    (WRAPPER, "entrypoint is not", lambda m: container(m, "shop").pop("command")),
    (SIGNAL, "takes shareProcessNamespace", lambda m: pod(m).pop("shareProcessNamespace")),
    (SIGNAL, "takes its runAsUser", lambda m: ours(m)["securityContext"].update(runAsUser=65532)),
    (SIGNAL, "takes a token", lambda m: (variable(m, "NACOS_DRAIN_TOKEN", ""), hook(m).pop("httpHeaders"))),
    (DUBBO, "_FILE", lambda m: ours(m).pop("volumeMounts")),
]


def deployment_hook() -> Manifest:
    found: Manifest = container(deployment(FIRST), "shop")["lifecycle"]
    return found


@pytest.mark.parametrize(("name", "expected", "breaks"), MISTAKES, ids=[f"{i}-{m[1]}" for i, m in enumerate(MISTAKES)])
def test_each_mistake_is_noticed(name: str, expected: str, breaks: Break) -> None:
    wrong = copy.deepcopy(deployment(name))
    breaks(wrong)
    oldest = minor(declared((EXAMPLES / name).read_text()))
    assert any(expected.lower() in said.lower() for said in pod_rules.complaints(wrong, config={}, oldest=oldest))
