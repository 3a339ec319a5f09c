"""What a pod is made of: whichever object it comes from, and whatever of it was left out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from sidecar.lease import Release
from sidecar.manifests.documents import Document
from sidecar.manifests.hooking import Hook, shell
from sidecar.manifests.places import Path, Place
from sidecar.manifests.spring import Application, Properties
from sidecar.plan import ASSUMED_APP_STOP, Plan, fit
from sidecar.settings import Fault, Listen, Loaded, Settings, SettingsError, load


GRACE_DEFAULT = 30.0  # Kubernetes'
PREFIX = "NACOS_DRAIN_"
PROXIES = frozenset({"istio-proxy", "linkerd-proxy", "envoy", "cloud-sql-proxy", "dapr", "daprd"})

_TO_TEMPLATE: Mapping[str, Path] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_FIELDS = {
    "status.hostIP": "192.0.2.1",
    "status.hostIPs": "192.0.2.1",
    "status.podIP": "192.0.2.2",
    "metadata.name": "pod",
}
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_REFERENCE = re.compile(r"\$\(([A-Za-z_][\w.-]*)\)")
_UNKNOWN = "not-in-this-file"  # what a Secret holds, say


@dataclass(frozen=True)
class Object:
    """One object of Kubernetes, in the stream itself or in a List."""

    document: Document
    place: Place

    @property
    def kind(self) -> str:
        """Deployment, Service, …; empty when this is no object."""
        return self.place["kind"].text

    @property
    def name(self) -> str:
        """Its name, as far as it has one before a cluster has made one up."""
        meta = self.place["metadata"]
        return meta["name"].text or f"{meta['generateName'].text}…"

    @property
    def namespace(self) -> str:
        """Its namespace; empty for the one that kubectl is told."""
        return self.place.at("metadata", "namespace").text


@dataclass(frozen=True)
class Container:
    """One container of a pod, an init container or a plain one."""

    place: Place
    init: bool

    @property
    def name(self) -> str:
        """Its name."""
        return self.place["name"].text

    @property
    def native(self) -> bool:
        """Whether it is a native sidecar."""
        return self.init and self.place["restartPolicy"].text == "Always"

    @property
    def command(self) -> list[str]:
        """What it runs, where the manifest says so."""
        return [*self.place["command"].words, *self.place["args"].words]

    @cached_property
    def hook(self) -> Hook:
        """Its preStop hook."""
        return Hook(self.place.at("lifecycle", "preStop"))

    @property
    def names(self) -> set[str]:
        """The variables that are set on it."""
        return {each["name"].text for each in self.place["env"]}

    def variable(self, name: str) -> Place:
        """Where a variable is set; the container's env where it is not."""
        return next((each for each in self.place["env"] if each["name"].text == name), self.place["env"])

    @property
    def image(self) -> str:
        """The last part of its image's name, without its tag."""
        return re.split(r"[:@]", self.place["image"].text.rpartition("/")[2])[0]

    @property
    def is_ours(self) -> bool:
        """Whether it is nacos-drain, or has it as its entrypoint."""
        program = any(word.rpartition("/")[2] == "nacos-drain" for word in self.command)
        return self.image == "nacos-drain" or program or any(name.startswith(PREFIX) for name in self.names)

    @property
    def wraps(self) -> bool:
        """Whether nacos-drain is the entrypoint of something else."""
        words = shell(self.command).split() or self.command
        return any(one.rpartition("/")[2] == "nacos-drain" and other == "run" for one, other in pairwise(words))


@dataclass(frozen=True)
class Pod:
    """A pod as it will be made, and the objects that were given beside it."""

    object: Object
    template: Place  # of the pod: metadata and spec
    beside: tuple[Object, ...]
    kubernetes: int | None  # the minor version, where it was told
    application: Application | None = None  # its application.yml, where one was given

    @property
    def spec(self) -> Place:
        """The pod's spec."""
        return self.template["spec"]

    @property
    def owner(self) -> Place:
        """The object's spec: replicas, strategy."""
        return self.object.place["spec"]

    @cached_property
    def containers(self) -> list[Container]:
        """All of them, in the order in which they start."""
        return [
            *(Container(each, init=True) for each in self.spec["initContainers"]),
            *(Container(each, init=False) for each in self.spec["containers"]),
        ]

    @cached_property
    def ours(self) -> Container | None:
        """Ours."""
        return next((each for each in self.containers if each.is_ours), None)

    @property
    def wrapped(self) -> bool:
        """Whether nacos-drain is the app's entrypoint, and there is no sidecar."""
        return self.ours is not None and not self.ours.init and self.ours.wraps

    @cached_property
    def apps(self) -> list[Container]:
        """Those that are somebody's app: no init container, no proxy of a mesh, and not the sidecar."""
        return [
            each
            for each in self.containers
            if not each.init and each.name not in PROXIES and (each is not self.ours or self.wrapped)
        ]

    @cached_property
    def app(self) -> Container | None:
        """The one that is in Nacos: ours wraps it, or it has the hook, or it is the first."""
        if self.wrapped:
            return self.ours
        return next((each for each in self.apps if each.hook.there), next(iter(self.apps), None))

    @property
    def grace(self) -> float:
        """The grace period, in seconds."""
        told = self.spec["terminationGracePeriodSeconds"].number
        return GRACE_DEFAULT if told is None else told

    @cached_property
    def annotations(self) -> dict[str, str]:
        """The pod's, and for what it does not say those of its object."""
        found: dict[str, str] = {}
        for place in (self.object.place, self.template):
            fields = place.at("metadata", "annotations").fields
            found |= {name: text for name, text in fields.items() if isinstance(text, str)}
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """The pod's labels."""
        fields = self.template.at("metadata", "labels").fields
        return {name: text for name, text in fields.items() if isinstance(text, str)}

    def others(self, kind: str) -> Iterator[Object]:
        """What was given beside it, in its namespace."""
        for each in self.beside:
            if each.kind == kind and each.namespace in {self.object.namespace, ""}:
                yield each

    @cached_property
    def concerned(self) -> bool:
        """Whether it has to do with us: nacos-drain, Nacos, or a hook of any kind."""
        if self.ours is not None or any(each.hook.there for each in self.containers):
            return True
        words = (word for each in self.containers for word in (*each.names, *each.command, *each.hook.script.split()))
        return any("nacos" in word.lower() for word in (*words, *self.annotations))

    # -- the settings of ours ------------------------------------------------------------------------------------------

    @cached_property
    def environment(self) -> "Environment":
        """The variables of ours, as a kubelet would set them."""
        return Environment() if self.ours is None else _environment(self, self.ours)

    @cached_property
    def _loaded(self) -> tuple[Loaded | None, list[Fault]]:
        variables = self.environment.variables
        try:
            return load({**variables, "KUBERNETES_SERVICE_HOST": "192.0.2.3"}), []
        except SettingsError as error:
            # What is not in this file cannot be wrong in it, and where anything may be set nothing is missing.
            faults = [
                each
                for each in error.faults
                if each.name not in self.environment.unknown
                and not (self.environment.open and each.name not in variables)
            ]
            return None, faults

    @property
    def loaded(self) -> Loaded | None:
        """The settings, where they can be read and are right."""
        return self._loaded[0]

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with them."""
        return self._loaded[1]

    @property
    def settings(self) -> Settings:
        """The settings; what they are by default where they are wrong."""
        return self.loaded.settings if self.loaded is not None else Settings()

    @property
    def port(self) -> int:
        """Where nacos-drain listens."""
        listen: Listen = self.settings.listen
        return listen.port

    @property
    def signals(self) -> bool:
        """Whether the sidecar ends the app itself."""
        return self.ours is not None and self.settings.release is Release.SIGNAL

    def plan(self, grace: float | None = None, stop: float | None = None) -> Plan:
        """How the grace period is divided; or another one, or with another time for the app's stop."""
        wanted = self.settings.app_stop if stop is None else stop
        return fit(self.grace if grace is None else grace, wanted, self.settings.consumer_cache)

    @cached_property
    def spring(self) -> Properties | None:
        """The properties of the app, where its files were given."""
        if self.application is None or self.app is None:
            return None
        variables: dict[str, str | None] = {}
        for each in self.app.place["envFrom"]:
            found = _config(self, each.at("configMapRef", "name").text) or {}
            variables |= {each["prefix"].text + name: str(value) for name, value in found.items()}
        for each in self.app.place["env"]:
            elsewhere = each["valueFrom"]
            variables[each["name"].text] = _elsewhere(self, elsewhere) if elsewhere.there else each["value"].text
        return Properties(self.application, variables, " ".join(self.app.command))

    @property
    def app_stop(self) -> float:
        """What the app is thought to need to stop, in seconds."""
        return self.settings.app_stop if self.settings.app_stop is not None else ASSUMED_APP_STOP


@dataclass(frozen=True)
class Environment:
    """Variables with our prefix. `unknown` are those whose value is elsewhere; `open`: there may be more of them."""

    variables: dict[str, str] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    open: bool = False


def _environment(pod: Pod, container: Container) -> Environment:
    found: dict[str, str] = {}
    unknown: set[str] = set()
    more = False
    for each in container.place["envFrom"]:
        data = _config(pod, each.at("configMapRef", "name").text)
        if data is None:
            more = True
            continue
        found |= {each["prefix"].text + name: str(value) for name, value in data.items()}
    for each in container.place["env"]:
        name, value = each["name"].text, each["value"]
        if each["valueFrom"].there:
            text = _elsewhere(pod, each["valueFrom"])
            if text is None:
                unknown.add(name)
            found[name] = _UNKNOWN if text is None else text
        else:
            found[name] = _REFERENCE.sub(lambda match: found.get(match[1], match[0]), value.text)
            if any(match in unknown for match in _REFERENCE.findall(value.text)):
                unknown.add(name)
    ours = {name: text for name, text in found.items() if name.startswith(PREFIX)}
    return Environment(ours, frozenset(unknown), more)


def _config(pod: Pod, name: str) -> dict[str, str] | None:
    """What a ConfigMap holds, if it was given too."""
    for each in pod.others("ConfigMap"):
        if name and each.name == name:
            return each.place["data"].fields
    return None


def _elsewhere(pod: Pod, source: Place) -> str | None:
    """A variable's value that is not written beside it; None where only a cluster knows."""
    config = source["configMapKeyRef"]
    if config.there:
        data = _config(pod, config["name"].text)
        if data is not None and isinstance(text := data.get(config["key"].text), str):
            return text
    where = source.at("fieldRef", "fieldPath").text
    if keyed := _KEYED.fullmatch(where):
        return (pod.labels if keyed[1] == "labels" else pod.annotations).get(keyed[2])
    return _FIELDS.get(where)


def mounts(pod: Pod, name: str) -> bool:
    """Whether it has a ConfigMap as a volume."""
    return any(each.at("configMap", "name").text == name for each in pod.spec["volumes"])


# -- finding them --------------------------------------------------------------------------------------------------


def objects(documents: list[Document]) -> Iterator[Object]:
    """All objects, those in Lists too."""
    for document in documents:
        yield from _unlisted(document, document.root)


def _unlisted(document: Document, place: Place) -> Iterator[Object]:
    if place["kind"].text.endswith("List") and isinstance(place["items"].value, list):
        for each in place["items"]:
            yield from _unlisted(document, each)
    else:
        yield Object(document, place)


def pods(given: list[Object], kubernetes: int | None = None) -> list[Pod]:
    """The pods that these objects make. Whatever has a template with containers makes pods, known or not."""
    beside = tuple(each for each in given if each.kind in {"Service", "NetworkPolicy", "ConfigMap", "Namespace"})
    found = []
    for each in given:
        template = each.place.at(*_TO_TEMPLATE.get(each.kind, ("spec", "template")))
        if each.kind and isinstance(template.at("spec", "containers").value, list):
            found.append(Pod(each, template, beside, kubernetes))
    return found
