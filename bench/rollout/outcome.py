"""What came of a replacement, as one JSON line; and whether the machine let it be a fair one."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

from .load import Request
from .roll import BEFORE, Roll
from .ways import WAYS


LATE, SLUGGISH = 0.25, 0.1  # seconds: the 99th percentile of the load's lateness, the median of fast requests
BIN, SHOWN_BEFORE = 0.5, 5.0  # seconds of the timeline's bins, and before the termination

Outcome = dict[str, Any]


def outcome(roll: Roll) -> Outcome:
    """The line; seconds from the beginning of the termination unless it says otherwise."""
    mine = [request for request in roll.requests if request.sent >= roll.old.began - BEFORE]
    at = roll.old.timeline
    exits = [event.seconds for event in at.all("app", "exit")]
    hook = [event.seconds for event in at.all("app", "hook-end") + at.all("app", "hook-failed")]
    report = roll.old.report or {}
    return {
        "way": roll.way.name,
        "cell": roll.cell.name,
        "warm_up": roll.cell.warm_up,
        "look_back": roll.cell.look_back if roll.way.ours else None,
        "requests": len(mine),
        "failed": sum(bool(request.failure) for request in mine),
        "failed_before": sum(bool(request.failure) for request in roll.requests) - sum(bool(r.failure) for r in mine),
        "kinds": Counter(request.failure for request in mine if request.failure),
        "consumers": {each.name: _consumer(roll, each.name, mine) for each in roll.cell.consumers},
        "hook": hook[0] if hook else roll.old.released,
        "sigterm": next((event.seconds for event in at.all("app", "sigterm")), None),
        "exit": exits[0] if exits else None,
        "exit_code": at.event("app", "exit").detail if exits else None,
        "killed": bool(at.all("app", "sigkill")),
        "clean": None if roll.old.clean is None else roll.old.clean - roll.old.began,
        "drain": {name: report[name] for name in ("outcome", "proved_gone", "callers", "notes", "phases")}
        if report
        else None,
        "timeline": _timeline(roll),
        "load_average": roll.load_average,
        "invalid": unfair(mine),
    }


def _consumer(roll: Roll, name: str, mine: Iterable[Request]) -> Outcome:
    own = [request for request in mine if request.consumer == name]
    to_old = [
        request.sent for request in roll.requests if (request.consumer, request.instance) == (name, roll.old.address)
    ]
    fast = [request.done - request.sent for request in own if not request.slow and not request.failure]
    return {
        "requests": len(own),
        "failed": sum(bool(request.failure) for request in own),
        "last_call": max(to_old) - roll.old.began if to_old else None,
        "longest_gap": max((b - a for a, b in pairwise(sorted(to_old))), default=None),
        "p50": median(fast) if fast else None,
    }


def _timeline(roll: Roll) -> dict[str, Any]:
    """How many requests were sent to the old replica, to the others, and in vain, per bin."""
    start = roll.old.began - SHOWN_BEFORE
    bins = int((roll.ended - start) / BIN) + 1
    told: dict[str, list[int]] = {name: [0] * bins for name in ("old", "others", "failed")}
    for request in roll.requests:
        if request.sent >= start:
            nth = int((request.sent - start) / BIN)
            told["old" if request.instance == roll.old.address else "others"][nth] += 1
            told["failed"][nth] += bool(request.failure)
    return {"from": -SHOWN_BEFORE, "bin": BIN, **told}


def unfair(mine: list[Request]) -> str:
    """Why a repetition says nothing about its way; empty when it counts."""
    late = [request.sent - request.due for request in mine]
    if len(late) > 1 and quantiles(late, n=100)[98] > LATE:
        return f"the load was late: {quantiles(late, n=100)[98]:.2f} s at the 99th percentile"
    fast = [request.done - request.sent for request in mine if not request.slow and not request.failure]
    if fast and median(fast) > SLUGGISH:
        return f"the machine was overloaded: the median of fast requests was {median(fast) * 1000:.0f} ms"
    return ""


def faults(told: Outcome) -> list[str]:
    """Where one of our own repetitions misses the bar, or what tells that the load shows nothing; empty if neither."""
    if not WAYS[told["way"]].ours:
        harmless = (told["way"], told["cell"]) == ("sigterm", "push") and not told["failed"]
        return ["nothing failed: this load would not show an error"] if harmless else []
    found = []
    drain = told["drain"] or {}
    if told["failed"]:
        found.append(f"{told['failed']} of {told['requests']} requests failed")
    if told.get("failed_before"):  # while nobody was being replaced: what the replacement before has left behind
        found.append(f"{told['failed_before']} requests failed before the termination")
    if not drain.get("proved_gone"):
        found.append("not proved gone")
    if told["killed"]:
        found.append("killed")
    hook, limit = told["hook"], hook_limit(told)
    if hook is None or hook > limit:
        found.append(f"the hook took {'for ever' if hook is None else f'{hook:.1f} s'}, at most {limit:.1f} s")
    return found


CAP, PUSHED = 40.0, 8.0


def hook_limit(told: Outcome) -> float:
    """What the hook may take: push consumers 8 s; cached ones what their last call and their rhythm want."""
    if told["cell"] in {"push", "defaults"}:
        return PUSHED
    if told["cell"] == "slow":  # whose rhythm allows no more than the cap
        return CAP + 5.0
    consumers = told["consumers"].values()
    last = max((each["last_call"] for each in consumers if each["last_call"] is not None), default=0.0)
    rhythms = [each.get("rhythm_s") or 0.0 for each in (told["drain"] or {}).get("callers", ())]
    return min(CAP + 5.0, max(0.0, last) + max(3.0, 3.0 * max(rhythms, default=0.0)) + 2.0)
