"""Writes nacos-drain into a manifest, and takes it out again.

What is written is a sidecar, the hook, the grace period and one annotation, which holds what was there before. Each pod
is only changed when taking it out of the result gives the original back, byte for byte: else it is left alone.
"""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import yaml

from sidecar.manifests.access import HEADERS
from sidecar.manifests.documents import Unreadable, read
from sidecar.manifests.places import Path
from sidecar.manifests.pods import Pod, objects, pods
from sidecar.manifests.sidecars import NATIVE
from sidecar.manifests.splicing import Entry, Obscure, Text, block, column, empty, entry, first_line, last_line
from sidecar.manifests.times import covers
from sidecar.plan import fit


MARK = "nacos-drain/injected"
PORT = 19081
GRACE = 120  # what the examples have: a 35 s cache, and an app that takes its time
_GRACE_KEY = "terminationGracePeriodSeconds"
_USER = 65532  # the image's


@dataclass(frozen=True)
class Wanted:
    """What is to be written."""

    image: str
    servers: str
    token: str
    service: str = ""  # empty: the object's name
    login: str = ""  # a Secret with username and password
    kubernetes: int | None = None  # None: new enough for a native sidecar

    @property
    def native(self) -> bool:
        """Whether the sidecar is a native one."""
        return self.kubernetes is None or self.kubernetes >= NATIVE

    @property
    def sends_token(self) -> bool:
        """Whether the kubelet sends a header."""
        return self.kubernetes is None or self.kubernetes >= HEADERS


@dataclass(frozen=True)
class Injected:
    """The text afterwards, and what became of each pod: a line each, and how many were not understood."""

    text: str
    notes: tuple[str, ...]
    left: int


def inject(data: bytes, file: str, wanted: Wanted, names: tuple[str, ...] = ()) -> Injected:
    """Write nacos-drain into the pods of these names; without names where Nacos is used, or into the only one.

    Raises Unreadable.
    """
    return _each(data, file, lambda pod, found: _chosen(pod, found, names), lambda text, pod: _add(text, pod, wanted))


def uninject(data: bytes, file: str, names: tuple[str, ...] = ()) -> Injected:
    """Take out what `inject` has written, and put back what it has replaced.

    Raises Unreadable.
    """
    return _each(data, file, lambda pod, _: "" if not names or pod.object.name in names else "not asked for", _remove)


def difference(name: str, data: bytes, result: Injected) -> str:
    """What has changed, as `diff -u` tells it."""
    before, after = (text.splitlines(keepends=True) for text in (data.decode(), result.text))
    rows = difflib.unified_diff(before, after, name, name)
    return "".join(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n" for row in rows)


def _each(
    data: bytes, file: str, left_out: Callable[[Pod, list[Pod]], str], change: Callable[[str, Pod], str]
) -> Injected:
    text, notes, left = data.decode(), [], 0
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(bom)
    count = len(pods(list(objects(read(text.encode(), file)))))
    for index in range(count):
        # Read anew each time: the marks have moved.
        found = pods(list(objects(read(text.encode(), file))))
        pod = found[index]
        name = f"{pod.object.kind} {pod.object.name}"
        if why := left_out(pod, found):
            notes.append(f"{file}: {name}: left alone: {why}")
            continue
        try:
            changed = change(text, pod)
        except Obscure as error:
            notes.append(f"{file}: {name}: left alone: {error}")
            left += 1
            continue
        notes.append(f"{file}: {name}: {'changed' if changed != text else 'nothing to do'}")
        text = changed
    return Injected(bom + text, tuple(notes), left)


def _chosen(pod: Pod, found: list[Pod], names: tuple[str, ...]) -> str:
    """Why a pod is not to be changed; empty when it is."""
    if names:
        return "" if pod.object.name in names else "not asked for (--name)"
    if pod.concerned or len(found) == 1:
        return ""
    return "nothing in it has to do with Nacos; --name says that it is meant"


# -- putting in ----------------------------------------------------------------------------------------------------


def _add(text: str, pod: Pod, wanted: Wanted) -> str:
    if pod.ours is not None:
        return text
    if pod.spec["hostNetwork"].true:
        raise Obscure("it uses its node's network, where everybody reaches the drain's port")
    if not wanted.native and pod.object.kind in {"Job", "CronJob"}:
        raise Obscure("an ordinary sidecar would keep the Job running for ever: it takes Kubernetes 1.29")
    if pod.app is None:
        raise Obscure("it has no container that could be the app")
    lines = Text.of(text)
    was: dict[str, Any] = {}
    spec = _node(pod, pod.spec.path)
    _grace(lines, pod, spec, was)
    _sidecar(lines, pod, spec, wanted, was)
    _hook(lines, pod, wanted, was)
    _annotate(lines, pod, wanted, was)
    changed = lines.spliced()
    try:
        again = _same(changed, pod)
    except Unreadable:
        again = None
    if again is None or again.ours is None or _remove(changed, again) != text:
        raise Obscure("it is written in a way in which the change could not be undone exactly")
    return changed


def _same(text: str, pod: Pod) -> Pod | None:
    """The same pod in a changed text."""
    for each in pods(list(objects(read(text.encode(), pod.object.document.file)))):
        if (each.object.kind, each.object.name, each.object.place.path) == (
            pod.object.kind,
            pod.object.name,
            pod.object.place.path,
        ) and abs(each.object.document.top - pod.object.document.top) == 0:
            return each
    return None


def _node(pod: Pod, path: Path) -> yaml.Node:
    """The node at a place; Obscure where the way leads through an alias."""
    node = pod.object.document.node
    for key in path:
        if isinstance(key, int) and isinstance(node, yaml.SequenceNode):
            below: yaml.Node = node.value[key]
            holder: yaml.Node = node
        else:
            found = entry(node, str(key))
            if found is None:
                raise Obscure(f"{key} comes from elsewhere (<<)")
            holder, below = found
        if below.start_mark.line < holder.start_mark.line:
            raise Obscure(f"{key} is an alias of something else")
        node = below
    return node


def _grace(lines: Text, pod: Pod, spec: yaml.Node, was: dict[str, Any]) -> None:
    """Long enough for a drain; one that is stays."""
    if covers(fit(pod.grace, None, 35.0)):
        return
    found = entry(block(spec, "the pod's spec"), _GRACE_KEY)
    if found is None:
        holder = block(spec, "the pod's spec")
        at = last_line(lines, holder, holder)
        lines.insert(at, [f"{' ' * column(holder)}{_GRACE_KEY}: {GRACE}"])
        was["grace"] = None
        return
    _, value = found
    if not isinstance(value, yaml.ScalarNode) or value.start_mark.line != value.end_mark.line or empty(value):
        raise Obscure(f"{_GRACE_KEY} is no number")
    was["grace"] = _over(lines, value, str(GRACE))


def _over(lines: Text, value: yaml.Node, new: str) -> str:
    """Write over a scalar on its line; what it was."""
    number, start, end = first_line(value), value.start_mark.column, value.end_mark.column
    line = lines.lines[number].rstrip("\r\n")
    lines.replace(number, number, [line[:start] + new + line[end:]])
    return line[start:end]


def _sidecar(lines: Text, pod: Pod, spec: yaml.Node, wanted: Wanted, was: dict[str, Any]) -> None:
    holder = block(spec, "the pod's spec")
    containers = block(_node(pod, (*pod.spec.path, "containers")), "containers")
    dash = column(containers)
    item = _item(pod, wanted, " " * dash)
    if not wanted.native:
        lines.insert(last_line(lines, containers, containers), item)
        return
    found = entry(holder, "initContainers")
    if found is None:
        key = " " * column(holder) + "initContainers:"
        lines.insert(last_line(lines, holder, holder), [key, *item])
        was["init"] = None
        return
    init = block(_node(pod, (*pod.spec.path, "initContainers")), "initContainers")
    item = _item(pod, wanted, " " * column(init))
    lines.insert(last_line(lines, init, init), item)


def _item(pod: Pod, wanted: Wanted, indent: str) -> list[str]:
    """The container, as in examples/kubernetes/01 and 02."""
    grace = ceil(pod.grace) if covers(fit(pod.grace, None, 35.0)) else GRACE
    variables = {
        "GRACE_PERIOD": _quoted(str(grace)),
        "NACOS_SERVER_ADDR": _quoted(wanted.servers),
        "NACOS_SERVICE": _quoted(wanted.service or pod.object.name),
    }
    ports = [each["containerPort"].number for each in pod.app.place["ports"]] if pod.app is not None else []
    if len(ports) == 1 and ports[0] is not None:
        variables["NACOS_PORT"] = _quoted(f"{ports[0]:g}")
    body = [
        "- name: nacos-drain",
        f"  image: {_quoted(wanted.image)}",
        *(["  restartPolicy: Always"] if wanted.native else []),
        "  env:",
        *(f"    - {{name: NACOS_DRAIN_{name}, value: {value}}}" for name, value in variables.items()),
    ]
    if wanted.login:
        variable = "    - {{name: NACOS_DRAIN_NACOS_{}, valueFrom: {{secretKeyRef: {{name: {}, key: {}}}}}}}"
        body += [variable.format(key.upper(), _quoted(wanted.login), key) for key in ("username", "password")]
    body.append("    - {name: NACOS_DRAIN_NODE_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}")
    if wanted.sends_token:
        body.append(f"    - {{name: NACOS_DRAIN_TOKEN, value: {_quoted(wanted.token)}}}")
    body += [
        "  ports:",
        f"    - {{containerPort: {PORT}, name: drain}}",
        "  startupProbe:",
        f"    httpGet: {{path: /livez, port: {PORT}}}",
        "    periodSeconds: 1",
        "    failureThreshold: 30",
        "  readinessProbe:",
        f"    httpGet: {{path: /readyz, port: {PORT}}}",
        "    periodSeconds: 2",
        "  resources:",
        "    requests: {cpu: 20m, memory: 64Mi}",
        "    limits: {memory: 128Mi}",
        "  securityContext:",
        "    runAsNonRoot: true",
        f"    runAsUser: {_USER}",
        f"    runAsGroup: {_USER}",
        "    seccompProfile: {type: RuntimeDefault}",
        "    allowPrivilegeEscalation: false",
        "    readOnlyRootFilesystem: true",
        "    capabilities: {drop: [ALL]}",
    ]
    return [indent + line for line in body]


def _quoted(text: str) -> str:
    """As YAML takes it for a text whatever is in it: JSON is YAML."""
    return json.dumps(text, ensure_ascii=False)


def _hook(lines: Text, pod: Pod, wanted: Wanted, was: dict[str, Any]) -> None:
    if pod.app is None:
        raise Obscure("it has no app")
    app = block(_node(pod, pod.app.place.path), f"container {pod.app.name}")
    indent = " " * column(app)
    hook = ["preStop:", "  httpGet:", "    path: /drain", f"    port: {PORT}"]
    if wanted.sends_token:
        hook.append(f"    httpHeaders: [{{name: X-Drain-Token, value: {_quoted(wanted.token)}}}]")
    whole = [f"{indent}lifecycle:", *(f"{indent}  {line}" for line in hook)]
    found = entry(app, "lifecycle")
    if found is None:
        lines.insert(last_line(lines, app, app), whole)
        was["lifecycle"] = None
        return
    key, value = found
    if value.start_mark.line < key.start_mark.line:
        raise Obscure("lifecycle is an alias of something else")
    if not isinstance(value, yaml.MappingNode) or value.flow_style or not value.value:
        if pod.app.place.at("lifecycle", "postStart").there:
            raise Obscure("lifecycle has a postStart and is written on one line")
        if first_line(key) == first_line(app):
            raise Obscure("lifecycle is the container's first key")
        first, last = first_line(key), last_line(lines, key, value)
        was["lifecycle"] = lines.raw(first, last)
        lines.replace(first, last, whole)
        return
    inner = " " * column(value)
    told = entry(value, "preStop")
    if told is None:
        lines.insert(last_line(lines, key, value), [inner + line for line in hook])
        was["preStop"] = None
        return
    first, last = first_line(told[0]), last_line(lines, *told)
    was["preStop"] = lines.raw(first, last)
    lines.replace(first, last, [inner + line for line in hook])


def _annotate(lines: Text, pod: Pod, wanted: Wanted, was: dict[str, Any]) -> None:
    more = _of_a_mesh(pod, native=wanted.native)
    template = block(_node(pod, pod.template.path), "the pod's template")
    indent = " " * column(template)
    was["annotations"] = sorted(more)
    meta = entry(template, "metadata")
    if meta is None:
        was["made"] = "metadata"
        start = [f"{indent}metadata:", f"{indent}  annotations:"]
        lines.insert(last_line(lines, template, template), [*start, *_annotations(more, was, f"{indent}    ")])
        return
    holder = block(_node(pod, (*pod.template.path, "metadata")), "the pod's metadata")
    inner = " " * column(holder)
    found = entry(holder, "annotations")
    if found is None:
        was["made"] = "annotations"
        end = last_line(lines, holder, holder)
        lines.insert(end, [f"{inner}annotations:", *_annotations(more, was, f"{inner}  ")])
        return
    key, value = found
    if empty(value):
        lines.insert(first_line(key), _annotations(more, was, f"{inner}  "))
        return
    if isinstance(value, yaml.MappingNode) and value.flow_style:
        _unfold(lines, pod, found, more, was)
        return
    place = block(_node(pod, (*pod.template.path, "metadata", "annotations")), "the pod's annotations")
    lines.insert(last_line(lines, key, place), _annotations(more, was, " " * column(place)))


def _unfold(lines: Text, pod: Pod, found: Entry, more: dict[str, str], was: dict[str, Any]) -> None:
    """Annotations that are written on one line: one each, and the line as it was is kept."""
    key, value = found
    indent = " " * int(key.start_mark.column)
    texts = pod.template.at("metadata", "annotations").fields
    if not all(isinstance(text, str) for text in texts.values()) or first_line(value) != first_line(key):
        raise Obscure("the pod's annotations are not texts")
    first, last = first_line(key), last_line(lines, key, value)
    was["flow"] = lines.raw(first, last)
    rows = [f"{indent}  {_quoted(name)}: {_quoted(text)}" for name, text in texts.items()]
    lines.replace(first, last, [f"{indent}annotations:", *rows, *_annotations(more, was, f"{indent}  ")])


def _annotations(more: dict[str, str], was: dict[str, Any], indent: str) -> list[str]:
    held = json.dumps(was, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    rows = [f"{name}: {_quoted(text)}" for name, text in sorted(more.items())]
    quoted = held.replace("'", "''")
    return [indent + row for row in [*rows, f"{MARK}: '{quoted}'"]]


def _of_a_mesh(pod: Pod, *, native: bool) -> dict[str, str]:
    """What lets the kubelet's request past a mesh's proxy, where the pod says that it is in one."""
    wanted: dict[str, str] = {}
    if pod.labels.get("sidecar.istio.io/inject", pod.annotations.get("sidecar.istio.io/inject")) == "true":
        wanted["traffic.sidecar.istio.io/excludeInboundPorts"] = str(PORT)
        if native:
            wanted["sidecar.istio.io/nativeSidecar"] = "true"
    if pod.annotations.get("linkerd.io/inject") == "enabled":
        wanted["config.linkerd.io/skip-inbound-ports"] = str(PORT)
        if native:
            wanted["config.beta.linkerd.io/proxy-enable-native-sidecar"] = "true"
    return {name: text for name, text in wanted.items() if name not in pod.annotations}


# -- taking out ----------------------------------------------------------------------------------------------------


def _remove(text: str, pod: Pod) -> str:
    held = pod.template.at("metadata", "annotations", MARK).text
    if not held:
        return text
    try:
        was = json.loads(held)
    except ValueError:
        was = None
    if not isinstance(was, dict) or pod.ours is None or pod.app is None:
        raise Obscure(f"the annotation {MARK} was changed")
    lines = Text.of(text)
    spec = _node(pod, pod.spec.path)
    if "grace" in was:
        key, value = _found(spec, _GRACE_KEY)
        if was["grace"] is None:
            _cut(lines, key, value)
        else:
            _over(lines, value, str(was["grace"]))
    if "init" in was and len(pod.spec["initContainers"].value) == 1:
        _cut(lines, *_found(spec, "initContainers"))
    else:
        item = _node(pod, pod.ours.place.path)
        _cut(lines, item, item)
    app = _node(pod, pod.app.place.path)
    for name, holder in (("lifecycle", app), ("preStop", None)):
        if name in was:
            key, value = _found(holder if holder is not None else _found(app, "lifecycle")[1], name)
            _cut(lines, key, value, was[name])
    _unannotate(lines, pod, was)
    return lines.spliced()


def _unannotate(lines: Text, pod: Pod, was: dict[str, Any]) -> None:
    meta = _node(pod, (*pod.template.path, "metadata"))
    key, annotations = _found(meta, "annotations")
    ours = {MARK, *(name for name in was.get("annotations", ()) if isinstance(name, str))}
    only = {name.value for name, _ in annotations.value} <= ours
    if "flow" in was:
        _cut(lines, key, annotations, was["flow"])
    elif was.get("made") == "metadata" and only and len(meta.value) == 1:
        _cut(lines, *_found(_node(pod, pod.template.path), "metadata"))
    elif was.get("made") and only:
        _cut(lines, key, annotations)
    else:
        for name, value in annotations.value:
            if name.value in ours:
                _cut(lines, name, value)


def _found(mapping: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node]:
    found = entry(mapping, key)
    if found is None:
        raise Obscure(f"{key} is gone since inject wrote it")
    return found


def _cut(lines: Text, key: yaml.Node, value: yaml.Node, back: object = None) -> None:
    """Take out an entry or an item, or put back the lines that stood there."""
    raw = [] if back is None else [line.rstrip("\r") for line in str(back).split("\n")]
    lines.replace(first_line(key), last_line(lines, key, value), raw)
