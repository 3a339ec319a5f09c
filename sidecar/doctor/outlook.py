"""The rehearsal for eyes: a line per check, and what a drain would do now."""

from collections.abc import Iterable, Sequence

from .budget import PROOF, usual
from .checks import Check, Verdict, listed
from .doors import is_open, ladder
from .findings import Findings


MARKS = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.FAILING: "FAILING", Verdict.UNKNOWN: "unknown"}
INDENT = " " * 9
NEEDED = frozenset({"plan", "nodes", "login", "identity", "instance", "permission"})  # without them nothing is proved


def text(checks: Sequence[Check], findings: Findings) -> str:
    """All of it."""
    lines = []
    for each in checks:
        lines.append(f"{MARKS[each.verdict]:<8} {each.name:<18} {each.detail}")
        if each.next_step and each.verdict is not Verdict.OK:
            lines.append(f"{INDENT}{'':<18} -> {each.next_step}")
    return "\n".join([*lines, "", outlook(checks, findings)])


def outlook(checks: Iterable[Check], f: Findings) -> str:
    """What a drain would do now: its roads in order, about how long, and where it is cut."""
    plan = f.drain.rules.plan
    late = max(0.0, plan.budget)
    if not f.drain.registers:
        return "A drain now: nothing to take out; the app is released at once."
    if f.lease is None or not f.lease.removals:
        return f"A drain now could take nothing out, and would release the app after {late:g} s at the latest."
    wrong = [each.name for each in checks if each.verdict in {Verdict.FAILING, Verdict.UNKNOWN} and each.name in NEEDED]
    if wrong:
        return (
            f"A drain now would be unproven ({listed(wrong)}, see above), and release the app after {late:g} s at most."
        )
    tried = ladder(f)
    roads = ", then ".join(road.name for road in tried if is_open(f, road) or not road.inside)
    closed = listed(road.name for road in tried if road.inside and not is_open(f, road))
    skipped = f" ({closed}: not open, left at once)" if closed else ""
    least = f.drain.rules.quiet.floor if f.sees_callers else plan.cap
    released = _span(usual(plan, least), usual(plan, plan.cap))
    unseen = "" if f.sees_callers else " as they cannot be seen"
    cut = f", where SETTLE has {plan.settle:g} s of {plan.cap:g} s" if plan.settle < plan.cap else ""
    return (
        f"A drain now: {roads}{skipped}; proof in about {PROOF:g} s, callers {_span(least, plan.cap)}{unseen}; "
        f"the app is released after about {released}, after {late:g} s at the latest{cut}."
    )


def _span(least: float, most: float) -> str:
    return f"{least:g} s" if least == most else f"{least:g}-{most:g} s"
