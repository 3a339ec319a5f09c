"""One budget: how the pod's grace period is divided among the phases of a drain.

Pure arithmetic. A plan is data, so it can be printed by `plan`, put into the report and tested as a property;
nothing else in the project adds up seconds of its own. The numbers and the formula are contracts.md's.
"""

from dataclasses import dataclass
from math import ceil


MARGIN = 3.0  # between the hook's deadline and the app's SIGTERM allowance: kubelet rounding and a loaded node
SETTLE_SLACK = 5.0  # on top of the consumers' cache: push delay, clock of the cache, a request in flight
PROOF_LEAST, PROOF_MOST = 4.0, 25.0  # a normal proof takes 0.6-2.3 s; a leader election up to 20 s
SHORTEST_BUDGET = 7.0  # proof plus the floor of SETTLE; less is no drain
ASSUMED_APP_STOP = 10.0
HURRIED_APP_STOP = 3.0
SPRING_CACHE = 35.0  # Spring Cloud LoadBalancer's default
COVERS_SPRING_CACHE = SPRING_CACHE + 1.0  # the last call was seen 34.8 s after the list was clean


@dataclass(frozen=True, slots=True)
class Plan:
    """The fitted timetable; every value in seconds, every moment counted from the trigger."""

    grace_period: float
    app_stop: float
    consumer_cache: float
    budget: float  # the hook's deadline
    proof: float  # DEREGISTER and VERIFY together
    settle: float  # what SETTLE gets at least, if it needs it
    cap: float  # what SETTLE takes at most
    shortfall: float  # seconds missing for the shortest drain that makes sense; 0 when it fits
    app_stop_wanted: float  # what the app gets once there is time for a drain

    @property
    def fits(self) -> bool:
        """Whether there is time for a drain at all."""
        return self.shortfall == 0

    @property
    def covers_spring_cache(self) -> bool:
        """Whether a consumer that uses its list for 35 s has forgotten us by the release."""
        return self.settle >= COVERS_SPRING_CACHE

    @property
    def grace_needed(self) -> float | None:
        """The grace period that would cover a 35 s cache; None when CONSUMER_CACHE, not time, is what limits."""
        if self.cap < COVERS_SPRING_CACHE:
            return None
        needed = PROOF_LEAST + COVERS_SPRING_CACHE + self.app_stop_wanted + MARGIN
        return float(ceil(needed))  # Kubernetes takes whole seconds

    def as_json(self) -> dict[str, object]:
        """The plan as `plan --json`, the report and `/status` show it."""
        return {
            "grace_period": self.grace_period,
            "app_stop": self.app_stop,
            "margin": MARGIN,
            "consumer_cache": self.consumer_cache,
            "budget": self.budget,
            "proof": self.proof,
            "settle": self.settle,
            "cap": self.cap,
            "fits": self.fits,
            "covers_35s_cache": self.covers_spring_cache,
            "grace_needed": self.grace_needed,
        }


def fit(
    grace_period: float, app_stop: float | None, consumer_cache: float, *, assumed: float = ASSUMED_APP_STOP
) -> Plan:
    """Divide the grace period. An app_stop of None is `assumed`, and gives way when there is no time for a drain."""
    cap = consumer_cache + SETTLE_SLACK
    wanted = assumed if app_stop is None else app_stop
    stop = wanted
    budget = grace_period - stop - MARGIN
    shortfall = max(0.0, SHORTEST_BUDGET - budget)
    if shortfall:
        if app_stop is None:
            stop = HURRIED_APP_STOP
            budget = grace_period - stop - MARGIN
        proof = min(PROOF_LEAST, max(0.0, budget))
        settle = min(cap, max(0.0, budget - proof))
    else:
        proof = min(PROOF_MOST, max(PROOF_LEAST, budget - cap))
        settle = max(0.0, min(cap, budget - proof))
    return Plan(grace_period, stop, consumer_cache, budget, proof, settle, cap, shortfall, wanted)
