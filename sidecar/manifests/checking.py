"""Looks at everything that was given, pod by pod, and leaves out what its annotation says is known."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sidecar.manifests.documents import Unreadable, read
from sidecar.manifests.findings import Finding, Severity, Told
from sidecar.manifests.pods import Object, Pod, mounts, objects, pods
from sidecar.manifests.rules import RULES
from sidecar.manifests.spring import Application, Source, applications, source, within


IGNORE = "nacos-drain/check-ignore"
KNOWN = frozenset(rule.id for rule in RULES)


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it. A pod is `passed` over when nothing in it has to do with Nacos or a hook."""

    findings: tuple[Finding, ...]
    unreadable: tuple[Unreadable, ...]
    pods: int
    passed: int
    others: dict[str, int]  # objects that make no pods, by kind; documents that are no object under ""
    ignored: int = 0
    homeless: tuple[str, ...] = ()  # Spring files that belong to no pod we know of

    def worst(self) -> Severity | None:
        """The worst severity that was found."""
        return min((each.severity for each in self.findings), key=lambda each: each.rank, default=None)


def check(files: Iterable[tuple[str, bytes]], kubernetes: int | None = None) -> Checked:
    """Look at all files together: a Service or a NetworkPolicy in one tells of the pods of another."""
    given: list[Object] = []
    sources: list[Source] = []
    unreadable = []
    for name, data in files:
        try:
            documents = read(data, name)
        except Unreadable as error:
            unreadable.append(error)
            continue
        springs = [source(each) for each in documents]
        sources += [each for each in springs if each is not None]
        given += objects([each for each, spring in zip(documents, springs, strict=True) if spring is None])
    apps = applications(sources)
    for each in given:
        if each.kind == "ConfigMap":
            try:
                apps += [inside] if (inside := within(each.place, each.document)) else []
            except Unreadable as error:
                unreadable.append(error)
    found = pods(given, kubernetes)
    makers = {id(each.object) for each in found}
    others: dict[str, int] = {}
    for each in given:
        if id(each) not in makers:
            others[each.kind] = others.get(each.kind, 0) + 1
    concerned = [pod for pod in found if pod.concerned]
    if apps:
        owners = [(pod, _application(pod, apps, alone=len(concerned) == 1)) for pod in concerned]
        concerned = [replace(pod, application=app) for pod, app in owners]
        homes = {id(app) for _, app in owners}
    else:
        homes = set()
    homeless = [each.where for each in apps if id(each) not in homes]
    told = [finding for pod in concerned for finding in _look(pod)]
    kept = [finding for finding, ignored in told if not ignored]
    return Checked(
        tuple(kept),
        tuple(unreadable),
        len(concerned),
        len(found) - len(concerned),
        others,
        len(told) - len(kept),
        tuple(homeless),
    )


def _application(pod: Pod, apps: list[Application], *, alone: bool) -> Application | None:
    """The files of a pod's app: in a ConfigMap that it mounts, or under its name; the only ones, for the only pod."""
    names = {
        pod.object.name,
        *(each.name for each in pod.apps),
        pod.environment.variables.get("NACOS_DRAIN_NACOS_SERVICE"),
    }
    for each in apps:
        if (each.config and mounts(pod, each.config)) or (not each.config and each.name in names):
            return each
    files = [each for each in apps if not each.config]
    return files[0] if alone and len(files) == 1 else None


def _look(pod: Pod) -> list[tuple[Finding, bool]]:
    ignored = {word for word in re.split(r"[\s,]+", pod.annotations.get(IGNORE, "")) if word}
    found = []
    for rule in RULES:
        for told in rule.look(pod):
            finding = _finding(pod, rule.id, told.severity or rule.severity, rule.why, told)
            found.append((finding, rule.id in ignored))
    for word in sorted(ignored - KNOWN):
        place = pod.template.at("metadata", "annotations", IGNORE)
        told = Told(place, f"{IGNORE} names {word}, which is no rule", "`nacos-drain check --rules` lists them")
        why = "A name that is misspelt ignores nothing."
        found.append((_finding(pod, "ignore-unknown", Severity.WARNING, why, told), False))
    return found


def _finding(pod: Pod, rule: str, severity: Severity, why: str, told: Told) -> Finding:
    document = told.document or pod.object.document
    return Finding(
        rule=rule,
        severity=severity,
        file=document.file,
        line=document.line(told.at.path),
        object=f"{pod.object.kind} {pod.object.name}",
        path=told.at.path,
        what=told.what,
        why=why,
        fix=told.fix,
        story=told.story,
    )
