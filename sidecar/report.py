"""The report of a drain: one record that feeds the hook's answer, `/status`, the log and the termination message.

Pure, and honest by construction: every sentence here is derived from the lease, and the lease holds only what was read.
Shape and names are contracts.md's, schema 1.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .evidence import View
from .lease import Lease, Outcome, Release, Trigger, Why
from .registration import Publisher
from .removal import Fate, Removal
from .settle import Clause, Settle, Verdict


MOST_ROWS = 10  # keeps the hook's answer under the 10 KiB at which a kubelet stops reading


BARS = {
    Clause.BLIND: "callers cannot be observed (blind)",
    Clause.YOUNG: "this sidecar has not watched for long enough to know its callers",
    Clause.RHYTHM: "a caller whose rhythm is not known",
    Clause.IN_FLIGHT: "a request is still being answered",
    Clause.DOUBT: "connections of which it was not known yet whether they are calls",
}


class Phase(StrEnum):
    """The stages of a drain, in the order in which a person sees them."""

    DEREGISTER = "DEREGISTER"
    VERIFY = "VERIFY"
    SETTLE = "SETTLE"
    RELEASE = "RELEASE"
    AWAIT_EXIT = "AWAIT_EXIT"
    CLEANUP = "CLEANUP"


class Ending(StrEnum):
    """How a phase ended."""

    MET = "met"
    EXPIRED = "expired"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """One phase that is over."""

    phase: Phase
    outcome: Ending
    seconds: float
    detail: str

    def as_json(self) -> dict[str, object]:
        """As it stands in the report."""
        return {
            "phase": self.phase.value,
            "outcome": self.outcome.value,
            "seconds": round(self.seconds, 3),
            "detail": self.detail,
        }


def phases(lease: Lease, release: Release, now: float) -> tuple[PhaseReport, ...]:
    """Every phase of the drain that is over by now, in order. A drain that has ended does not go on expiring.

    `release` is what is configured.
    """
    return tuple(_phases(lease, release, now if lease.final_at is None else min(now, lease.final_at)))


def _phases(lease: Lease, release: Release, now: float) -> Iterator[PhaseReport]:
    released = lease.released_at
    limit = min(lease.proof_limit, now if released is None else released)
    over = released is not None or now >= lease.proof_limit
    first = _deregister(lease, limit, over=over)
    if first is None:
        return
    yield first
    second = _verify(lease, lease.started + first.seconds, limit, over=over)
    if second is None:
        return
    yield second
    if released is None:
        return
    yield _settle(lease, released)
    third = _release(lease, release, released)
    if third is None:
        return
    yield third
    if lease.exited_at is None:
        if lease.final_at is not None:
            yield PhaseReport(
                Phase.AWAIT_EXIT, Ending.EXPIRED, lease.final_at - released, "the app was not seen to exit"
            )
        return
    code = "" if lease.exit_code is None else f" with code {lease.exit_code}"
    yield PhaseReport(Phase.AWAIT_EXIT, Ending.MET, max(0.0, lease.exited_at - released), f"the app has exited{code}")
    if lease.cleaned_at is not None:
        yield PhaseReport(
            Phase.CLEANUP, Ending.MET, max(0.0, lease.cleaned_at - lease.exited_at), _cleanup(lease.removals)
        )
    elif lease.final_at is not None:
        seconds = max(0.0, lease.final_at - lease.exited_at)
        yield PhaseReport(Phase.CLEANUP, Ending.EXPIRED, seconds, "what the road left behind expires by itself")


def _deregister(lease: Lease, limit: float, *, over: bool) -> PhaseReport | None:
    if lease.nothing and not lease.removals:
        return PhaseReport(Phase.DEREGISTER, Ending.SKIPPED, 0.0, "the app is told not to register in Nacos")
    if not lease.removals:
        detail = "nothing could be looked for: set NACOS_DRAIN_NACOS_PORT (several ports listen here, or none)"
        return PhaseReport(Phase.DEREGISTER, Ending.FAILED, 0.0, detail)
    if lease.trigger is Trigger.EXIT:
        return PhaseReport(Phase.DEREGISTER, Ending.SKIPPED, 0.0, "the app has ended by itself: nothing is disabled")
    errors = [r.error for r in lease.removals if r.error]
    dealt, released = lease.dealt_at, lease.released_at
    if dealt is not None and (released is None or dealt <= released or lease.proved_by_us):
        seconds = dealt - lease.started
        acked = [r for r in lease.removals if r.acked_at is not None]
        if acked:
            roads = ", ".join(sorted({r.taken.name for r in acked if r.taken is not None}))
            return PhaseReport(Phase.DEREGISTER, Ending.MET, seconds, f"acknowledged by the road {roads}")
        spared = any(r.spared for r in lease.removals)
        detail = "disabled by somebody else already" if spared else "no node has the instance: nothing was written"
        return PhaseReport(Phase.DEREGISTER, Ending.SKIPPED, seconds, detail)
    if not over:
        return None
    rejected = any(r.rejected for r in lease.removals)
    detail = errors[0] if errors else "no answer to the write yet; it is tried on"
    return PhaseReport(
        Phase.DEREGISTER, Ending.FAILED if rejected else Ending.EXPIRED, max(0.0, limit - lease.started), detail
    )


def _verify(lease: Lease, since: float, limit: float, *, over: bool) -> PhaseReport | None:
    if lease.proved_at is not None and lease.proved_by_us:
        nodes = lease.proved_on
        one = any(r.one_address for r in lease.removals)
        where = ">= 1 node of ?" if one else f"{nodes} node{'s' if nodes != 1 else ''}"
        return PhaseReport(Phase.VERIFY, Ending.MET, max(0.0, lease.proved_at - since), f"gone on {where}")
    if not over:
        return None
    if lease.outcome is Outcome.NOTHING_REGISTERED:
        return PhaseReport(Phase.VERIFY, Ending.SKIPPED, 0.0, "nothing is registered")
    return PhaseReport(Phase.VERIFY, Ending.EXPIRED, max(0.0, limit - since), _doubts(lease.counted))


def _doubts(removals: Sequence[Removal]) -> str:
    """Which nodes stand between us and a proof."""
    named: dict[View, set[str]] = {}
    for r in removals:
        for node in r.nodes:
            if node.required and r.view(node) is not View.GONE:
                named.setdefault(r.view(node), set()).add(node.name)
    words = {
        View.LISTED: "still listed by",
        View.UNKNOWN: "no answer from",
        View.NEVER_SEEN: "never seen present (check namespace, group, service, cluster, ip and port) by",
        View.DOWN: "down",
    }
    if not removals:
        return "nothing could be looked for"
    parts = [f"{words[view]} {', '.join(sorted(names))}" for view, names in sorted(named.items())]
    return "; ".join(parts) or "not clean often enough yet"


def _settle(lease: Lease, released: float) -> PhaseReport:
    clock = lease.settled_from
    seconds = 0.0 if clock is None else max(0.0, released - clock)
    if lease.why in {Why.VANISHED, Why.HUNG, Why.UNHEALTHY, Why.ILL, Why.NOTHING, Why.ASKED}:
        return PhaseReport(Phase.SETTLE, Ending.SKIPPED, seconds, str(lease.why))
    verdict = lease.verdict
    if verdict is not None and verdict.done and verdict.clause in {Clause.FLOOR, Clause.QUIET}:
        return PhaseReport(Phase.SETTLE, Ending.MET, seconds, _ended(verdict, clock))
    detail = "the hook's deadline came first" if lease.why is Why.DEADLINE else "waited for the cap"
    reasons = []
    if verdict is not None and verdict.callers:
        reasons.append(f"calling: {', '.join(caller.peer for caller in verdict.callers[:3])}")
    if verdict is not None and verdict.barred is not None:
        reasons.append(verdict.why or BARS.get(verdict.barred, str(verdict.barred)))
    return PhaseReport(Phase.SETTLE, Ending.EXPIRED, seconds, ": ".join(filter(None, (detail, "; ".join(reasons)))))


def _ended(verdict: Verdict, clock: float | None) -> str:
    """What the quiet rule was met by, and how long the last caller took."""
    if verdict.last is None:
        return f"{verdict.clause.value}: nobody is known to call"
    peer, at, owed = verdict.last
    silent = f"{peer} has been silent for the {owed:.1f} s that it owed"
    if clock is None or at <= clock:
        return f"{verdict.clause.value}: no call after the list was clean, and {silent}"
    return f"{verdict.clause.value}: the last call came {at - clock:.1f} s after the list was clean, and {silent}"


def _release(lease: Lease, configured: Release, released: float) -> PhaseReport | None:
    release = lease.release(configured)
    asked = lease.hook_at is not None or lease.trigger is Trigger.MANUAL
    answered = PhaseReport(Phase.RELEASE, Ending.MET, 0.0, f"{'hook answered' if asked else 'released'}: {lease.why}")
    if release is Release.HOOK:
        return answered
    if lease.signal_error is not None:
        return PhaseReport(Phase.RELEASE, Ending.FAILED, 0.0, lease.signal_error)
    if lease.signalled_at is not None:
        told = "SIGTERM sent to the app" if release is Release.SIGNAL else "the app's shutdown endpoint was called"
        if lease.passes_on:
            told = "what we were told was passed on to the app"
        return PhaseReport(Phase.RELEASE, Ending.MET, lease.signalled_at - released, told)
    if lease.exited_at is not None or lease.final_at is not None:
        return PhaseReport(Phase.RELEASE, Ending.SKIPPED, 0.0, "no signal was needed")
    told_later = lease.sigterm_at is not None and lease.sigterm_at >= released
    return answered if configured is Release.HOOK and told_later else None  # what was said is not taken back


def _cleanup(removals: Sequence[Removal]) -> str:
    return "; ".join(sorted({r.ending for r in removals if r.ending})) or "nothing to clean"


def report(
    lease: Lease, settle: Settle, release: Release, now: float, wall: Callable[[float], str]
) -> dict[str, object]:
    """The whole report. `wall` turns a loop time into an RFC 3339 one: wall-clock time stands only in `*_at`."""
    ended = lease.final_at is not None

    def at(moment: float | None) -> str | None:
        return None if moment is None else wall(moment)

    worst = sorted(lease.counted, key=lambda r: (r.proved, r.seen))
    callers = lease.verdict.callers if lease.verdict else () if ended else settle.callers
    notes = list(dict.fromkeys(_notes(lease)))
    answer: dict[str, object] = {
        "schema": 1,
        "id": lease.id,
        "final": ended,
        "trigger": lease.trigger.value,
        "state": "ended" if ended else "released" if lease.released_at is not None else "draining",
        "outcome": lease.outcome.value,
        "proved_gone": lease.proved,
        "started_at": at(lease.started),
        "released_at": at(lease.released_at),
        "ended_at": at(lease.final_at),
        "plan": lease.plan.as_json(),
        "phases": [p.as_json() for p in phases(lease, release, now)],
        "instances": [_instance(r, at) for r in worst[:MOST_ROWS]],
        "callers": [caller.as_json() for caller in callers[:MOST_ROWS]],
        "traffic_source": settle.source,
        "notes": notes[:MOST_ROWS],
    }
    omitted = {
        "instances": len(worst) - MOST_ROWS,
        "callers": len(callers) - MOST_ROWS,
        "notes": len(notes) - MOST_ROWS,
    }
    answer["omitted"] = {name: n for name, n in omitted.items() if n > 0}
    return answer


def _instance(r: Removal, at: Callable[[float | None], str | None]) -> dict[str, object]:
    nodes = sorted(r.nodes, key=lambda n: r.view(n) is View.GONE)
    shown: dict[str, object] = {
        "service": r.instance.service.name,
        "group": r.instance.service.group,
        "namespace": r.instance.service.namespace or "public",
        "cluster": r.instance.service.cluster,
        "ip": r.instance.ip,
        "port": r.instance.port,
        "road": r.taken.name if r.taken is not None else None,
        "undoable": r.undoable,
        "residue": _residue(r),
        "remaining": sum(1 for n in r.nodes if r.view(n) is View.LISTED),
        "nodes": [{"node": n.name, "view": r.view(n).value, "at": at(n.at)} for n in nodes[:MOST_ROWS]],
    }
    if len(nodes) > MOST_ROWS:
        shown["omitted"] = len(nodes) - MOST_ROWS
    return shown


def _residue(r: Removal) -> str:
    """What stays in Nacos because of this drain, as far as it was read."""
    if r.residue:
        return r.ending or "enabled=false, marked as ours"
    if r.fate is Fate.DISABLED:
        return "enabled=false by the app's own road, not yet marked as ours"
    if r.asked is not None and r.fate is None:
        return "unknown: the record was not read after the app's own road"
    return "none"


def _notes(lease: Lease) -> Iterator[str]:
    """What a person should know besides; each with the next step where there is one."""
    if not lease.plan.fits:
        yield (
            f"the grace period is {lease.plan.shortfall:g} s too short for a drain; "
            "raise terminationGracePeriodSeconds and NACOS_DRAIN_GRACE_PERIOD"
        )
    for r in lease.removals:
        name = f"{r.instance.service.name} {r.instance.address}"
        if r.spared:
            yield f"{name}: disabled by somebody else before the drain; nothing was written"
        if r.returns:
            yield f"{name}: listed again {r.returns} time(s) after it was gone"
        if r.error:
            yield f"{name}: {r.error}"
        yield from r.given_up
        if r.residue and r.publisher is Publisher.BATCH:
            yield f"{name}: registered in a batch, so Nacos never forgets its edits; it is enabled when its app is back"
        yield from (n.error for n in r.nodes if n.error)
        yield from (f"{n.name} is down by the word of another node: left out" for n in r.nodes if n.down)
    if any(r.one_address for r in lease.removals):
        yield "one Nacos address and no member list: the proof covers >= 1 node of ?"
    left = lease.final_at is not None and lease.exited_at is None and lease.forced is None
    if left and any(r.residue for r in lease.removals):
        yield (
            "the app was not seen to exit and its instance is disabled with our mark: it is enabled again by a sidecar "
            "that starts beside it, or in the Nacos console"
        )
    if lease.elsewhere:
        yield "nobody listens on the registered port here, so the app's exit cannot be seen: set NACOS_DRAIN_APP_PORTS"
    if lease.hook_at is None and lease.sigterm_at is not None and not lease.init:
        yield "no preStop hook reached this sidecar"
    if lease.signal_error:
        yield f"the app was not told to stop: {lease.signal_error}"


def shrunk(told: dict[str, object], limit: int) -> dict[str, object]:
    """Drop the mildest rows of the longest list until the JSON fits; `omitted` counts them."""
    omitted = told.get("omitted")
    dropped: dict[str, int] = dict(omitted) if isinstance(omitted, dict) else {}
    small = {**told, "omitted": dropped}
    while len(json.dumps(small)) > limit:
        lists = {k: v for k, v in small.items() if isinstance(v, list) and v and k != "phases"}
        if not lists:
            break
        longest = max(lists, key=lambda k: len(json.dumps(lists[k])))
        small[longest] = lists[longest][:-1]
        dropped[longest] = dropped.get(longest, 0) + 1
    return small
