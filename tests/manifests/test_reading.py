"""What a manifest says is obeyed or refused: a play that passes a line over in silence would prove nothing about it."""

from pathlib import Path
from typing import Any

import pytest
from kubelet import HttpGet
from manifests.fields import UnmodelledError
from manifests.place import Place
from manifests.plays import DIRECTLY, FORMS, SECRETS, deployment, images
from manifests.reading import PodSpec, read


SETTINGS = {"NACOS_DRAIN_SETTLE_LOOK_BACK": "10s"}


def reading(manifest: dict[str, Any], folder: Path) -> PodSpec:
    place = Place("sandbox", "192.0.2.7", "192.0.2.1", folder, "pod=x", images(*DIRECTLY), SETTINGS, SECRETS)
    return read(manifest, place)


@pytest.mark.parametrize("folder", sorted({form.folder for form in FORMS.values()}))
def test_every_line_of_the_examples_is_obeyed(folder: str, tmp_path: Path) -> None:
    assert reading(deployment(folder), tmp_path).grace == 120


def test_a_native_sidecar_is_read_to_the_last_line(tmp_path: Path) -> None:
    made = reading(deployment("01-native-sidecar"), tmp_path)
    sidecar, app = made.containers
    assert sidecar.native_sidecar
    assert sidecar.startup_probe == HttpGet("/livez", 19081)
    assert sidecar.env["NACOS_DRAIN_NODE_IP"] == "192.0.2.1"
    assert sidecar.env["NACOS_DRAIN_NACOS_USERNAME"] == "nacos"
    assert sidecar.env["NACOS_DRAIN_SETTLE_LOOK_BACK"] == "10s"
    assert {"--read-only", "--cap-drop=ALL", "no-new-privileges", "65532:65532", "--memory=128m"} <= {*sidecar.options}
    assert not app.native_sidecar
    assert isinstance(app.pre_stop, HttpGet)
    assert app.pre_stop.headers == {"X-Drain-Token": sidecar.env["NACOS_DRAIN_TOKEN"]}
    assert "NACOS_DRAIN_SETTLE_LOOK_BACK" not in app.env
    assert (app.options[app.options.index("--entrypoint") + 1], *app.argv) == ("java", "-cp", "/app", "Shop")
    assert [(probe.kind, probe.period, probe.delay) for probe in made.probes] == [
        ("readiness", 2, 0),
        ("readiness", 5, 0),
        ("liveness", 10, 60),
    ]


@pytest.mark.parametrize(
    ("container", "line"),
    [
        ("initContainers", {"restartPolicy": None}),
        ("containers", {"stdin": True}),
        ("containers", {"args": ["--port=$(PORT)"]}),
        ("containers", {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}),
        ("containers", {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}),
        ("containers", {"readinessProbe": {"tcpSocket": {"port": 8080}}}),
        ("containers", {"securityContext": {"capabilities": {"add": ["KILL"]}}}),
        ("containers", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        ("containers", {"resources": {"limits": {"cpu": "1"}}}),
        ("containers", {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "c"}}}]}),
    ],
)
def test_what_is_not_modelled_is_refused(container: str, line: dict[str, Any], tmp_path: Path) -> None:
    manifest = deployment("01-native-sidecar")
    manifest["spec"]["template"]["spec"][container][0].update(line)
    with pytest.raises((UnmodelledError, KeyError)):
        reading(manifest, tmp_path)


def test_so_is_what_is_not_modelled_of_the_pod(tmp_path: Path) -> None:
    manifest = deployment("01-native-sidecar")
    manifest["spec"]["template"]["spec"]["hostNetwork"] = True
    with pytest.raises(UnmodelledError, match="hostNetwork"):
        reading(manifest, tmp_path)
