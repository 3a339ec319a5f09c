"""Looks at everything that was given, pod by pod, and leaves out what its annotation says is known."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.manifests.documents import Unreadable, read
from sidecar.manifests.findings import Finding, Severity, Told
from sidecar.manifests.pods import Object, Pod, objects, pods
from sidecar.manifests.rules import RULES


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

    def worst(self) -> Severity | None:
        """The worst severity that was found."""
        return min((each.severity for each in self.findings), key=lambda each: each.rank, default=None)


def check(files: Iterable[tuple[str, bytes]], kubernetes: int | None = None) -> Checked:
    """Look at all files together: a Service or a NetworkPolicy in one tells of the pods of another."""
    given: list[Object] = []
    unreadable = []
    for name, data in files:
        try:
            given += objects(read(data, name))
        except Unreadable as error:
            unreadable.append(error)
    found = pods(given, kubernetes)
    makers = {id(each.object) for each in found}
    others: dict[str, int] = {}
    for each in given:
        if id(each) not in makers:
            others[each.kind] = others.get(each.kind, 0) + 1
    concerned = [pod for pod in found if pod.concerned]
    told = [finding for pod in concerned for finding in _look(pod)]
    kept = [finding for finding, ignored in told if not ignored]
    return Checked(
        tuple(kept), tuple(unreadable), len(concerned), len(found) - len(concerned), others, len(told) - len(kept)
    )


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
    document = pod.object.document
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
