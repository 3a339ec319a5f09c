"""Rules of access: who may start a drain, and whether the kubelet can."""

from collections.abc import Iterator

from sidecar.manifests.findings import Rules, Severity, Told
from sidecar.manifests.places import Place
from sidecar.manifests.pods import Object, Pod


RULES = Rules()

HEADERS = 26  # the first minor version whose kubelet sends a hook's headers
_SAMPLES = ("replace-me", "changeme", "change-me", "secret", "token", "password", "drain")
_TOKENS = ("NACOS_DRAIN_TOKEN", "NACOS_DRAIN_TOKEN_FILE")


def _token(pod: Pod) -> Place | None:
    """Where our token is set; None where it is not."""
    if pod.ours is None:
        return None
    for name in _TOKENS:
        if name in pod.environment.variables:
            return pod.ours.variable(name)
    return None


def _sent(pod: Pod) -> Place | None:
    """The token that the hook sends."""
    for each in pod.app.hook.http["httpHeaders"] if pod.app is not None else ():
        if each["name"].text.lower() == "x-drain-token":
            return each["value"]
    return None


def _asks(pod: Pod) -> bool:
    return pod.ours is not None and not pod.wrapped and pod.app is not None and pod.app.hook.http.there


@RULES.rule(
    "hook-token-mismatch",
    Severity.ERROR,
    "A hook whose token is not nacos-drain's is refused, and the kubelet sends SIGTERM at once.",
)
def _mismatch(pod: Pod) -> Iterator[Told]:
    if not _asks(pod) or pod.app is None:
        return
    mine, sent = _token(pod), _sent(pod)
    known = pod.environment.variables.get("NACOS_DRAIN_TOKEN")
    if mine is not None and sent is None:
        fix = "httpHeaders: [{name: X-Drain-Token, value: …}], the same text as NACOS_DRAIN_TOKEN"
        yield Told(pod.app.hook.http, "nacos-drain has a token, and the hook sends none", fix)
    elif sent is not None and known and "NACOS_DRAIN_TOKEN" not in pod.environment.unknown and sent.text != known:
        yield Told(sent, "the hook's token is another one than NACOS_DRAIN_TOKEN", "the same text in both")


@RULES.rule(
    "drain-endpoint-open",
    Severity.WARNING,
    "Whoever can pass for a kubelet can take the app out of Nacos.",
)
def _open(pod: Pod) -> Iterator[Told]:
    if pod.ours is None or pod.wrapped or pod.environment.open or _token(pod) is not None:
        return
    if not any(_selects(each, pod) for each in pod.others("NetworkPolicy")):
        fix = "NACOS_DRAIN_TOKEN and the header X-Drain-Token; or a NetworkPolicy that closes the port, given here too"
        yield Told(pod.ours.place, f"no token, and no NetworkPolicy for port {pod.port}", fix)


def _selects(policy: Object, pod: Pod) -> bool:
    selector = policy.place.at("spec", "podSelector", "matchLabels").fields
    return all(pod.labels.get(name) == text for name, text in selector.items())


@RULES.rule(
    "token-sample",
    Severity.WARNING,
    "Everybody knows the text of an example.",
)
def _sample(pod: Pod) -> Iterator[Told]:
    known = pod.environment.variables.get("NACOS_DRAIN_TOKEN", "")
    place = _token(pod)
    if place is not None and known.lower().startswith(_SAMPLES) and "NACOS_DRAIN_TOKEN" not in pod.environment.unknown:
        yield Told(
            place, "the token is the one of an example", "what `openssl rand -hex 16` prints, here and in the hook"
        )


@RULES.rule(
    "token-old-kubelet",
    Severity.ERROR,
    "Kubelets before 1.26 do not send a hook's headers, and nacos-drain refuses a hook without its token.",
)
def _old(pod: Pod) -> Iterator[Told]:
    sent = _sent(pod)
    if _asks(pod) and sent is not None and pod.kubernetes is not None and pod.kubernetes < HEADERS:
        fix = "no token, and a NetworkPolicy that closes the port"
        yield Told(sent, f"a token in a header on Kubernetes 1.{pod.kubernetes}", fix)


@RULES.rule(
    "https-hook",
    Severity.WARNING,
    "nacos-drain speaks HTTP. The kubelet tries again without TLS and tells an event; before 1.26 it never tried TLS.",
)
def _https(pod: Pod) -> Iterator[Told]:
    if _asks(pod) and pod.app is not None and pod.app.hook.http["scheme"].text.upper() == "HTTPS":
        yield Told(pod.app.hook.http["scheme"], "the hook asks by HTTPS", "delete `scheme`")


@RULES.rule(
    "hostip-allowlist",
    Severity.WARNING,
    "With most networks the kubelet's requests come from the node's bridge or gateway, not from status.hostIP, and "
    "other callers may come from there too.",
)
def _host_ip(pod: Pod) -> Iterator[Told]:
    for each in pod.ours.place["env"] if pod.ours is not None else ():
        name = each["name"].text
        if name in {"NACOS_DRAIN_IGNORE_NETWORKS", "NACOS_DRAIN_SINGLE_PEERS"} and each.at(
            "valueFrom", "fieldRef", "fieldPath"
        ).text.startswith("status.hostIP"):
            yield Told(each, f"{name} is status.hostIP", "NACOS_DRAIN_NODE_IP is what that address is for")


@RULES.rule(
    "drain-port-in-service",
    Severity.WARNING,
    "Through a Service everybody in the cluster reaches the port that takes the app out.",
)
def _service(pod: Pod) -> Iterator[Told]:
    if pod.ours is None:
        return
    names = {each["name"].text for each in pod.ours.place["ports"] if each["containerPort"].number == pod.port}
    for service in pod.others("Service"):
        selector = service.place.at("spec", "selector").fields
        if not selector or any(pod.labels.get(name) != text for name, text in selector.items()):
            continue
        for port in service.place.at("spec", "ports"):
            target = port["targetPort"] if port["targetPort"].there else port["port"]
            if target.number == pod.port or (target.text and target.text in names):
                yield Told(pod.ours.place, f"Service {service.name} has a way to port {pod.port}", "take it out there")


@RULES.rule(
    "host-network",
    Severity.ERROR,
    "Everybody who reaches the node reaches the drain's port, and a second such pod on the node cannot listen.",
)
def _host_network(pod: Pod) -> Iterator[Told]:
    if pod.ours is not None and pod.spec["hostNetwork"].true:
        yield Told(pod.spec["hostNetwork"], "the pod uses its node's network", "delete hostNetwork")
