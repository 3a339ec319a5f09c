"""A manifest's pod, read as a kubelet reads it, as containers of docker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubelet import DockerContainer, Exec, HttpGet
from manifests.fields import Fields, UnmodelledError
from manifests.place import Image, Place


# A pod has them from the service of the API server, whoever made it.
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
OURS = "NACOS_DRAIN_"
UNITS = {"Ki": "k", "Mi": "m", "Gi": "g"}  # Kubernetes' names of what docker counts in, too


@dataclass(frozen=True)
class Probe:
    """A probe that goes on for as long as its container does: a startup probe is the emulator's."""

    container: str
    kind: str  # readiness or liveness
    action: HttpGet
    period: float
    delay: float  # seconds from the container's start to the first


@dataclass
class PodSpec:
    """What a kubelet needs to play it."""

    containers: list[DockerContainer] = field(default_factory=list)  # in the order in which they start
    probes: list[Probe] = field(default_factory=list)
    grace: int = 30


def read(manifest: Mapping[str, Any], place: Place) -> PodSpec:
    """Read a Deployment's pod, for the place where it is to be played."""
    made = PodSpec()
    with Fields("spec", manifest["spec"]["template"]["spec"]) as spec:
        made.grace = spec.take("terminationGracePeriodSeconds", made.grace)
        reader = _Reader(place, spec)
        for each in spec.each("initContainers"):
            if each.only("restartPolicy", "Always") is None:
                raise UnmodelledError(f"{each.where}: nothing here waits for an init container's end")
            reader.container(each, made, native=True)
        for each in spec.each("containers"):
            reader.container(each, made, native=False)
    return made


class _Reader:
    """What the containers of one pod have in common."""

    def __init__(self, place: Place, pod: Fields) -> None:
        self._place = place
        self._pid = ("--pid", f"container:{place.sandbox}") if pod.take("shareProcessNamespace") else ()
        self._security = pod.take("securityContext") or {}
        self._volumes = {}
        for each in pod.each("volumes"):
            with each, each.inner("emptyDir") as volume:
                volume.ignore("medium", "sizeLimit")  # what is in them is small
                name = each.take("name")
                self._volumes[name] = place.volume(name)

    def container(self, given: Fields, pod: PodSpec, *, native: bool) -> None:
        """Add one to the pod."""
        with given:
            name = given.take("name")
            ports = {port["name"]: port["containerPort"] for port in given.take("ports") or [] if "name" in port}
            with given.inner("lifecycle") as lifecycle:
                pre_stop = _handler(lifecycle.inner("preStop"), ports)
            startup = _probe(given, "startup", name, ports)
            probes = (_probe(given, kind, name, ports) for kind in ("readiness", "liveness"))
            pod.probes.extend(probe for probe in probes if probe is not None)
            image, entrypoint, arguments = self._command(given)
            made = DockerContainer(
                name=name,
                argv=arguments,
                env=self._env(given),
                pre_stop=pre_stop,
                native_sidecar=native,
                startup_probe=None if startup is None else startup.action,
                image=image.name,
                options=(*entrypoint, *self._options(given, name)),
            )
        pod.containers.append(made)

    def _command(self, given: Fields) -> tuple[Image, tuple[str, ...], tuple[str, ...]]:
        """The image, docker's option for the entrypoint, and the arguments: another entrypoint takes the CMD away."""
        image = self._place.images[given.take("image")]
        command, args = given.take("command") or (), given.take("args") or ()
        for part in (*command, *args):
            _plain(given.where, part)
        entrypoint = tuple(command or image.entrypoint)
        option = ("--entrypoint", entrypoint[0]) if entrypoint else ()
        return image, option, (*entrypoint[1:], *args)

    def _env(self, given: Fields) -> dict[str, str]:
        env = dict(KUBERNETES)
        for each in given.each("env"):
            with each:
                env[each.take("name")] = self._value(each)
        return {**env, **self._place.settings} if any(name.startswith(OURS) for name in env) else env

    def _value(self, variable: Fields) -> str:
        if "valueFrom" not in variable:
            return _plain(variable.where, str(variable.take("value", "")))
        with variable.inner("valueFrom") as source:
            if "fieldRef" in source:
                with source.inner("fieldRef") as reference:
                    return self._place.told(reference.take("fieldPath"))
            with source.inner("secretKeyRef") as reference:
                return self._place.secret(reference.take("name"), reference.take("key"))

    def _options(self, given: Fields, name: str) -> list[str]:
        options = [*self._place.options, *self._pid]
        options += _security(
            Fields(f"{given.where}.securityContext", self._security | given.take("securityContext", {}))
        )
        with given.inner("resources") as resources:
            resources.ignore("requests")  # nobody else is on this node
            options += _limits(resources.inner("limits"))
        for each in given.each("volumeMounts"):
            with each:
                mode = ":ro" if each.take("readOnly") else ""
                options.append(f"--volume={self._volumes[each.take('name')]}:{each.take('mountPath')}{mode}")
        given.only("terminationMessagePolicy", "File", "FallbackToLogsOnError")
        options.append(f"--volume={self._place.termination_log(name)}:/dev/termination-log")
        return [*options, "--no-healthcheck"]  # that is docker's and not a kubelet's


def _security(context: Fields) -> list[str]:
    """What the pod says and the container overrides."""
    with context:
        context.only("runAsNonRoot", True)  # test_image_contents.py holds our image to it
        user, group = context.take("runAsUser"), context.take("runAsGroup")
        escalates = context.take("allowPrivilegeEscalation", True)
        options = [] if escalates else ["--security-opt", "no-new-privileges"]
        if user is not None:
            options += ["--user", str(user) if group is None else f"{user}:{group}"]
        if context.take("readOnlyRootFilesystem"):
            options.append("--read-only")
        with context.inner("capabilities") as capabilities:
            options += [f"--cap-drop={name}" for name in capabilities.take("drop", [])]
        with context.inner("seccompProfile") as profile:
            profile.only("type", "RuntimeDefault")  # docker's own, which is what it gives by itself
    return options


def _limits(limits: Fields) -> list[str]:
    with limits:
        memory = limits.take("memory")
        if memory is None:
            return []
        number, unit = memory[:-2], memory[-2:]
        return [f"--memory={number}{UNITS[unit]}", f"--memory-swap={number}{UNITS[unit]}"]


def _probe(given: Fields, kind: str, container: str, ports: Mapping[str, int]) -> Probe | None:
    if f"{kind}Probe" not in given:
        return None
    with given.inner(f"{kind}Probe") as probe:
        action = _http_get(probe.inner("httpGet"), ports)
        # When a container is given up, a test says; and one answer is enough for every probe here.
        probe.ignore("failureThreshold", "timeoutSeconds")
        return Probe(container, kind, action, probe.take("periodSeconds", 10), probe.take("initialDelaySeconds", 0))


def _handler(given: Fields, ports: Mapping[str, int]) -> HttpGet | Exec | None:
    with given:
        if "httpGet" in given:
            return _http_get(given.inner("httpGet"), ports)
        if "exec" in given:
            with given.inner("exec") as program:
                return Exec(program.take("command"))
        return None


def _http_get(given: Fields, ports: Mapping[str, int]) -> HttpGet:
    with given:
        port = given.take("port")
        given.only("scheme", "HTTP")
        headers = {header["name"]: header["value"] for header in given.take("httpHeaders") or []}
        return HttpGet(given.take("path"), ports[port] if isinstance(port, str) else port, headers, given.take("host"))


def _plain(where: str, text: str) -> str:
    """A text that a kubelet puts nothing into."""
    if "$(" in text:
        raise UnmodelledError(f"{where}: nothing here replaces {text!r}")
    return text
