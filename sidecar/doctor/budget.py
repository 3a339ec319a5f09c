"""What to say of a plan: when the app is usually released, and what if it is cut, or does not fit."""

from sidecar.plan import SHORTEST_BUDGET, Plan


PROOF = 1.0  # seconds that a proof usually takes


def usual(plan: Plan, settle: float) -> float:
    """When the app is usually released, in seconds after the trigger, where SETTLE takes so long."""
    return min(max(0.0, plan.budget), PROOF + settle)


def cover(plan: Plan) -> str:
    """What would cover consumers that cache for 35 s."""
    if plan.grace_needed is None:
        return (
            f"NACOS_DRAIN_CONSUMER_CACHE is {plan.consumer_cache:g} s. Right where all consumers forget that soon "
            "(0: they follow Nacos' pushes); set it to 35s if any may not"
        )
    return (
        f"raise terminationGracePeriodSeconds and NACOS_DRAIN_GRACE_PERIOD to {plan.grace_needed:g} s, "
        "or set NACOS_DRAIN_CONSUMER_CACHE to what the consumers really use"
    )


def arithmetic(plan: Plan) -> str:
    """Why it does not fit, and what would."""
    assumed = plan.grace_period - plan.shortfall
    return (
        f"does not fit: a drain needs {SHORTEST_BUDGET:g} s before the app's stop and the margin of 3 s, and "
        f"{plan.shortfall:g} s are missing. With a grace period of {plan.grace_period + plan.shortfall:g} s it fits "
        f"(terminationGracePeriodSeconds, docker stop -t, compose stop_grace_period), or with less NACOS_DRAIN_APP_STOP"
        if assumed >= 0
        else f"does not fit: the grace period would have to be {plan.grace_period + plan.shortfall:g} s"
    )
