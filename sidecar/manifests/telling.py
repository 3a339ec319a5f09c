"""What was found, for eyes and for programs."""

import textwrap

from sidecar.manifests.checking import Checked
from sidecar.manifests.findings import Finding, Severity
from sidecar.manifests.places import dotted
from sidecar.manifests.rules import RULES


WIDTH = 110
_LABEL = 6


def text(checked: Checked, *, all_: bool) -> str:
    """The findings, the worst first in each file, and what was looked at. Infos only where `all_` is asked for."""
    shown = [each for each in checked.findings if all_ or each.severity is not Severity.INFO]
    parts = [_finding(each) for each in sorted(shown, key=lambda each: (each.file, each.severity.rank, each.line))]
    return "\n\n".join([*parts, _summary(checked, hidden=len(checked.findings) - len(shown))])


def _finding(finding: Finding) -> str:
    head = f"{finding.file}:{finding.line}: {finding.severity}: {finding.what} [{finding.rule}]"
    lines = [*textwrap.wrap(head, WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")]
    lines += [f"  at   {finding.object}, {dotted(finding.path)}"]
    lines += _labelled("why", finding.why)
    lines += _labelled("fix", finding.fix)
    if finding.story:
        lines += ["  when this pod is deleted:", *(_row(at, what) for at, what in finding.story)]
    return "\n".join(lines)


def _labelled(label: str, words: str) -> list[str]:
    first = f"  {label:<5}"
    return textwrap.wrap(
        words,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _row(at: float, what: str) -> str:
    return f"  {at:6.1f} s  {what}"


def _summary(checked: Checked, *, hidden: int) -> str:
    counts = [
        _count(sum(each.severity is severity for each in checked.findings), str(severity))
        for severity in (Severity.ERROR, Severity.WARNING)
    ]
    line = f"{_count(checked.pods, 'pod')} checked: {', '.join(counts)}"
    if hidden:
        line += f", {_count(hidden, 'info')} (--all shows them)"
    if checked.ignored:
        line += f", {checked.ignored} ignored by annotation"
    lines = [line]
    if checked.passed:
        lines.append(f"passed over: {_count(checked.passed, 'pod')} without nacos-drain, Nacos or a hook")
    if checked.homeless:
        lines.append(f"Spring files without a pod of that name: {', '.join(checked.homeless)}")
    if others := ", ".join(f"{number} {kind}" for kind, number in sorted(checked.others.items()) if kind):
        lines.append(f"makes no pods: {others}")
    if strays := checked.others.get(""):
        lines.append(f"no Kubernetes object: {_count(strays, 'document')} without a kind")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def as_json(checked: Checked) -> dict[str, object]:
    """All of it, infos too."""
    return {
        "schema": 1,
        "findings": [
            {
                "id": each.rule,
                "severity": str(each.severity),
                "file": each.file,
                "line": each.line,
                "object": each.object,
                "path": dotted(each.path),
                "what": each.what,
                "why": each.why,
                "fix": each.fix,
                "story": [{"at": at, "what": what} for at, what in each.story],
            }
            for each in checked.findings
        ],
        "unreadable": [{"file": each.file, "line": each.line, "why": each.why} for each in checked.unreadable],
        "pods": checked.pods,
        "passed_over": checked.passed,
        "ignored": checked.ignored,
        "homeless": [*checked.homeless],
    }


def rules() -> str:
    """All rules, for `--rules`."""
    return "\n".join(f"{rule.id:<31} {rule.severity:<8} {rule.why}" for rule in RULES)
