"""What can be set: each field with its meaning and the reason for its default, once.

typed-settings walks the fields and names the variables; the flags and the rows of the reference follow from the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from typed_settings.cls_utils import deep_options
from typed_settings.constants import METADATA_KEY
from typed_settings.loaders import EnvLoader

from sidecar.lease import Release, Residue
from sidecar.settings.addresses import Listen
from sidecar.settings.credentials import Headers, Secret
from sidecar.settings.values import (
    ACTUATOR,
    ADDRESS,
    CA_FILE,
    ENDPOINT,
    FACTOR,
    HEADERS,
    HOST_PORT,
    LISTEN,
    LOOK_BACK,
    NAME,
    NAMESPACE,
    NETWORKS,
    PATTERN,
    PEERS,
    PORTS,
    SECONDS,
    SECRET,
    SERVERS,
    SERVICES,
    SWITCH,
    Kind,
    choice,
)
from sidecar.settle import Rule


PREFIX = "NACOS_DRAIN_"

_RULE = Rule()  # its numbers rest on a simulation, and stand in one place

_Command = TypeVar("_Command", bound=Callable[..., Any])


class LogFormat(StrEnum):
    """What a log line looks like."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Method(StrEnum):
    """What a request may be, where the app decides what it understands."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


def _about(kind: Kind, text: str, why: str) -> dict[str, object]:
    """What a declaration says besides name, type and default; `why` is the default's reason."""
    return {METADATA_KEY: {"kind": kind, "help": text, "why": why}}


@dataclass(frozen=True)
class NacosSettings:
    """Where Nacos is, and as what the app is registered there."""

    server_addr: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            SERVERS,
            "The Nacos servers; without a port 8848 (https too: write :443), without a path /nacos.",
            "unset: the app's actuator tells them",
        ),
    )
    namespace: str = field(
        default="",
        metadata=_about(NAMESPACE, "The namespace's id, which is not its name.", "Nacos' own default"),
    )
    group: str = field(
        default="DEFAULT_GROUP",
        metadata=_about(NAME, "The group of all services named here.", "Nacos' own default"),
    )
    service: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            SERVICES,
            "The services that the app is registered as.",
            "unset: the app's actuator tells them",
        ),
    )
    cluster: str = field(
        default="DEFAULT",
        metadata=_about(NAME, "The cluster, inside the service, of the app's instances.", "Nacos' own default"),
    )
    ip: str | None = field(
        default=None,
        metadata=_about(ADDRESS, "The address that the app is registered with.", "unset: any of this pod's"),
    )
    port: tuple[int, ...] = field(
        default=(),
        metadata=_about(PORTS, "The ports that the app is registered with.", "unset: the app's ports"),
    )
    username: Secret | None = field(default=None, metadata=_about(SECRET, "The Nacos user.", "unset: no login"))
    password: Secret | None = field(default=None, metadata=_about(SECRET, "That user's password.", "unset: no login"))
    access_key: Secret | None = field(
        default=None,
        metadata=_about(SECRET, "The access key, where Nacos wants signed requests (Aliyun MSE).", "unset: no signing"),
    )
    secret_key: Secret | None = field(
        default=None, metadata=_about(SECRET, "The secret key that belongs to it.", "unset: no signing")
    )
    ca_file: str | None = field(
        default=None,
        metadata=_about(
            CA_FILE, "A PEM file: the authorities to believe for https servers.", "unset: those of the system"
        ),
    )


@dataclass(frozen=True)
class Settings:
    """All that a sidecar can be told."""

    nacos: NacosSettings = field(default_factory=NacosSettings)
    grace_period: float | None = field(
        default=None,
        metadata=_about(
            SECONDS,
            "The pod's terminationGracePeriodSeconds, or docker's stop timeout.",
            "unset: 30s under Kubernetes, else 10s: what each of them gives by itself",
        ),
    )
    listen: Listen = field(
        default=Listen("", 19081),
        metadata=_about(
            LISTEN,
            "Where to serve HTTP; without a host on every address, IPv6 and IPv4.",
            "the kubelet calls the pod's address, so it cannot be loopback",
        ),
    )
    token: Secret | None = field(
        default=None,
        metadata=_about(
            SECRET,
            "What X-Drain-Token has to say in an acting request.",
            "unset: loopback may do everything, and a kubelet may drain",
        ),
    )
    release: Release = field(
        default=Release.HOOK,
        metadata=_about(
            choice(Release),
            "How the app is let go: by the answer to its preStop hook, a signal from us, or its actuator's shutdown.",
            "the app is sent its SIGTERM when the hook is answered, with no further permission",
        ),
    )
    app_ports: tuple[int, ...] = field(
        default=(),
        metadata=_about(PORTS, "The ports that the app serves.", "unset: those that it is registered with"),
    )
    app_stop: float | None = field(
        default=None,
        metadata=_about(
            SECONDS,
            "What the app needs from SIGTERM to its exit.",
            "unset: 10s, less (down to 3s) where the grace period is too short for that",
        ),
    )
    app_process: str | None = field(
        default=None,
        metadata=_about(
            PATTERN,
            "Found in the app's command line: the process to signal where the port's owner cannot be seen.",
            "unset: only the owner of the app's port is ever signalled",
        ),
    )
    app_kill: bool = field(
        default=False,
        metadata=_about(
            SWITCH,
            "With RELEASE=signal: SIGKILL an app that has not exited APP_STOP after its SIGTERM.",
            "the kubelet does so anyway at the end of the grace period",
        ),
    )
    actuator_url: str | None = field(
        default=None,
        metadata=_about(
            ACTUATOR,
            "The app's actuator; without a path /actuator (a base path of / is written as the slash).",
            "unset: looked for on the app's ports, unless NACOS_SERVICE says how it is registered",
        ),
    )
    actuator_username: Secret | None = field(
        default=None, metadata=_about(SECRET, "The actuator's user, by HTTP basic.", "unset: no login")
    )
    actuator_password: Secret | None = field(
        default=None, metadata=_about(SECRET, "That user's password.", "unset: no login")
    )
    actuator_ca_file: str | None = field(
        default=None,
        metadata=_about(
            CA_FILE, "A PEM file: the authorities to believe for an https actuator.", "unset: those of the system"
        ),
    )
    deregister_url: str | None = field(
        default=None,
        metadata=_about(
            ENDPOINT,
            "What takes the app out of Nacos from inside: a path below the actuator, or a URL of its own.",
            "unset: nacos-deregister below the actuator, as most call it",
        ),
    )
    deregister_method: Method = field(
        default=Method.POST,
        metadata=_about(choice(Method), "The method of that request.", "it changes something"),
    )
    deregister_body: Secret | None = field(
        default=None, metadata=_about(SECRET, "The body of that request.", "unset: no body")
    )
    deregister_undo: Secret | None = field(
        default=None,
        metadata=_about(
            SECRET,
            "The body with which that request brings the app back.",
            "unset: known where our starter answers; else only a restart of the app does",
        ),
    )
    deregister_headers: Headers | None = field(
        default=None,
        metadata=_about(
            HEADERS,
            r"Headers of that request: `Name: value`, one a line, or with `\n` written between them.",
            "unset: none of yours",
        ),
    )
    dubbo_qos: str | None = field(
        default=None,
        metadata=_about(
            HOST_PORT,
            "Dubbo's QoS port, as 127.0.0.1:22222: takes all services of the app out, and back.",
            "unset: no Dubbo is asked",
        ),
    )
    borrow_credentials: bool = field(
        default=False,
        metadata=_about(
            SWITCH,
            "Where no login to Nacos is set, use the one that the app's actuator shows in nacosdiscovery.",
            "the app's login is not ours to take unasked",
        ),
    )
    push_watch: bool = field(
        default=False,
        metadata=_about(
            SWITCH,
            "Also subscribe as a consumer does, and count what is pushed in the proof (needs the extra grpc).",
            "reading every node proves it without a gRPC client",
        ),
    )
    consumer_cache: float = field(
        default=35.0,
        metadata=_about(
            SECONDS,
            "How long consumers may use a stale list; 0 where all of them follow Nacos' pushes.",
            "the cache of Spring Cloud LoadBalancer; Ribbon's is 30s",
        ),
    )
    settle_floor: float = field(
        default=_RULE.floor,
        metadata=_about(
            SECONDS,
            "How long SETTLE takes at least, from the moment at which Nacos is clean.",
            "consumers that are pushed to stop within 0.2s; the rest is slack",
        ),
    )
    settle_quiet: float = field(
        default=_RULE.quiet,
        metadata=_about(
            SECONDS, "How long each caller has to be silent at least.", "a busy caller may pause for a second or two"
        ),
    )
    settle_factor: float = field(
        default=_RULE.factor,
        metadata=_about(
            FACTOR,
            "How many times its own longest pause each caller has to be silent.",
            "the next pause may be longer than any that was seen",
        ),
    )
    settle_look_back: float = field(
        default=_RULE.look_back,
        metadata=_about(
            LOOK_BACK,
            "How long callers have to be watched: who made fewer than 3 calls in it is waited for until the cap.",
            "so that one call in 100s is enough to be known",
        ),
    )
    single_peers: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            PEERS,
            "Addresses that are one caller each, though they are loopback, a gateway, the node or a mesh's proxy.",
            "unset: those stand for many, and are waited for until the cap",
        ),
    )
    ignore_networks: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            NETWORKS,
            "Networks or addresses whose connections are no calls: a Prometheus, an agent.",
            "unset: everybody counts",
        ),
    )
    node_ip: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            PEERS,
            "The node's addresses, from status.hostIP: what the kubelet probes with is told from calls.",
            "unset: only the default gateway's probes are",
        ),
    )
    clear_residue: Residue = field(
        default=Residue.OURS,
        metadata=_about(
            choice(Residue),
            "Which enabled=false is undone on a live app: a drain's own; born: also what a preStop script left; none.",
            "what an operator has disabled is theirs to enable",
        ),
    )
    loopback_open: bool = field(
        default=False,
        metadata=_about(
            SWITCH,
            "Let loopback act without the token.",
            "with hostNetwork, loopback is everybody on the node",
        ),
    )
    log_format: LogFormat = field(
        default=LogFormat.AUTO,
        metadata=_about(choice(LogFormat), "What a log line looks like.", "console on a terminal, else JSON"),
    )
    log_level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=_about(choice(LogLevel), "The least that is logged.", "a whole drain in a few lines"),
    )

    @property
    def settle_rule(self) -> Rule:
        """When callers have stopped: the numbers of the quiet rule."""
        return replace(
            _RULE,
            floor=self.settle_floor,
            quiet=self.settle_quiet,
            factor=self.settle_factor,
            look_back=self.settle_look_back,
        )


@dataclass(frozen=True)
class Option:
    """A declared field, under the names that users know it by."""

    path: str
    variable: str
    default: Any
    kind: Kind
    help: str
    why: str

    @property
    def keyword(self) -> str:
        """What click calls the flag's value."""
        return self.path.replace(".", "_")

    @property
    def flag(self) -> str | None:
        """The flag; a secret has none, as every process of the node can read the arguments of every other."""
        return None if self.kind.file else "--" + self.keyword.replace("_", "-")

    @property
    def file_variable(self) -> str | None:
        """The variable for the path of a secret's file."""
        return f"{self.variable}_FILE" if self.kind.file else None


@cache  # typed-settings parses our source for docstrings on each walk: some 20 ms
def declared() -> tuple[Option, ...]:
    """Walk the declaration."""
    names = EnvLoader(PREFIX)
    return tuple(
        Option(
            info.path,
            names.get_envvar(info),
            info.default,
            info.metadata["kind"],
            info.metadata["help"],
            info.metadata["why"],
        )
        for info in deep_options(Settings)
    )


@dataclass(frozen=True)
class SettingDoc:
    """One row of the reference; `default` is empty where `why` says what unset means."""

    name: str
    flag: str | None
    type: str
    default: str
    help: str
    why: str


def describe() -> list[SettingDoc]:
    """The rows of the reference, in the declaration's order."""
    rows = []
    for option in declared():
        default = "" if option.default in {None, ()} else option.kind.text(option.default)
        rows.append(SettingDoc(option.variable, option.flag, option.kind.name, default, option.help, option.why))
        if option.file_variable and option.kind.file:
            text, why = f"A file to read {option.variable} from.", "read again at each use: it may be rotated"
            rows.append(SettingDoc(option.file_variable, None, option.kind.file.name, "", text, why))
    return rows


def options(command: _Command) -> _Command:
    """Decorate a click command with a flag for every setting that is no secret.

    Their values arrive as keyword arguments, as typed (None: not given), for `load()` to judge together with the
    variables. With click's own types, and with typed-settings' click_options(), the first fault would be the last to be
    reported; the latter also gives secrets a flag.
    """
    import click  # noqa: PLC0415 - reading settings takes no command line

    for doc in reversed(describe()):
        if doc.flag is None:
            continue
        switch = doc.type == SWITCH.name
        default = f"default {doc.default} ({doc.why})" if doc.default else doc.why
        command = click.option(
            f"{doc.flag}/--no-{doc.flag.removeprefix('--')}" if switch else doc.flag,
            default=None,
            metavar=None if switch else doc.type if "|" in doc.type else doc.type.upper(),
            help=f"{doc.help} [{default}; {doc.name}]",
        )(command)
    return command
