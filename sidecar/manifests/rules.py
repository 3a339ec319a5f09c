"""All rules, in the order in which a reader would ask: does the hook arrive, is there time, does the sidecar live."""

from sidecar.manifests import access, boot, configured, hooks, meshes, rollouts, security, sidecars, signals, times


RULES = tuple(
    rule
    for module in (hooks, times, sidecars, signals, boot, access, meshes, rollouts, security, configured)
    for rule in module.RULES
)
