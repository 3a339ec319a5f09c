"""How a run's settings come together, and how everything that is wrong with them is said at once.

A wrong setting shows during a rollout: told one by one, each fault would cost a restart. typed-settings' own loading
knows only the process' environment, and its complaints name no variable but repeat the value, a secret's too; so this
part is ours.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

from typed_settings.dict_utils import set_path

from sidecar.lease import Release
from sidecar.plan import fit
from sidecar.settings.declaration import PREFIX, NacosSettings, Option, Settings, declared
from sidecar.settings.values import Kind, duration_text


GRACE_PERIOD_KUBERNETES = 30.0  # a pod that says nothing
GRACE_PERIOD_DOCKER = 10.0  # `docker stop`, `docker compose down`

_NAMED = ("nacos.username", "nacos.password")
_SIGNED = ("nacos.access_key", "nacos.secret_key")
_PAIRS = (_NAMED, _SIGNED, ("actuator_username", "actuator_password"))

# What the kubelet sets for Services named nacos-drain or nacos-drain-…, docker's old links included.
# …_PORT may be a setting of ours (a Service nacos-drain-nacos makes NACOS_DRAIN_NACOS_PORT): there the value decides.
_LINK = re.compile(
    r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*"
    r"|[A-Z0-9_]+_PORT=(tcp|udp|sctp)://.*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Fault:
    """One wrong setting, under the name by which it was set."""

    name: str
    value_shown: str
    problem: str
    valid: str

    def __str__(self) -> str:
        given = f"{self.name}={self.value_shown}" if self.value_shown else self.name
        return f"{given}: {self.problem}. Valid: {self.valid}"


class SettingsError(Exception):
    """All that is wrong with the settings."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        count = "1 setting is" if len(faults) == 1 else f"{len(faults)} settings are"
        super().__init__("\n  ".join([f"{count} wrong:", *map(str, faults)]))


@dataclass(frozen=True)
class Loaded:
    """The settings, what to warn about, and whether we are in a pod."""

    settings: Settings
    warnings: list[str]
    kubernetes: bool

    @property
    def grace_period(self) -> float:
        """The grace period to reckon with."""
        if self.settings.grace_period is not None:
            return self.settings.grace_period
        return GRACE_PERIOD_KUBERNETES if self.kubernetes else GRACE_PERIOD_DOCKER


@dataclass(frozen=True)
class _Given:
    """A value as it was given, and the name it was given by."""

    name: str
    text: str
    kind: Kind

    def fault(self, problem: str, valid: str = "") -> Fault:
        return Fault(self.name, self.kind.shown(self.text), problem, valid or self.kind.valid)


def load(
    environ: Mapping[str, str], flags: Mapping[str, object] = MappingProxyType({}), *, need_nacos: bool = True
) -> Loaded:
    """Read all settings, or raise SettingsError with all faults.

    `flags` are what a command decorated with `options()` is called with; they go before variables. What is None, empty
    or blank was not given. `need_nacos=False` is for what asks neither Nacos nor the app, like `plan`.
    """
    given: dict[str, _Given] = {}
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    if strange := flags.keys() - {option.keyword for option in declared() if option.flag}:
        raise TypeError(f"no such flags: {sorted(strange)}")
    for option in declared():
        value = _given(option, environ, flags)
        if value is None:
            continue
        given[option.path] = value
        try:
            set_path(values, option.path, value.kind.parse(value.text))
        except ValueError as error:
            faults.append(value.fault(str(error)))
        if option.file_variable and value.name == option.variable and _text(environ, option.file_variable):
            faults.append(value.fault(f"set together with {option.file_variable}"))
    faults += [*_missing(given, need_nacos=need_nacos), *_two_logins(given), *_beyond_the_cap(given, values)]
    if need_nacos:
        faults += [*_idle(given, values), *_unsubscribed(given, values)]
    if faults:
        raise SettingsError(faults)
    settings = Settings(nacos=NacosSettings(**values.pop("nacos", {})), **values)
    warnings = [
        *_strangers(environ),
        *_open_to_all(settings),
        *_untrusting(settings),
        *_ignored(settings),
        *_lacking(given.values()),
    ]
    return Loaded(settings, warnings, kubernetes=bool(environ.get("KUBERNETES_SERVICE_HOST")))


def _given(option: Option, environ: Mapping[str, str], flags: Mapping[str, object]) -> _Given | None:
    flag = flags.get(option.keyword)
    if option.flag and flag is not None and str(flag).strip():
        return _Given(option.flag, str(flag).strip(), option.kind)
    if text := _text(environ, option.variable):
        # A blank may belong to a password.
        return _Given(option.variable, text if option.file_variable else text.strip(), option.kind)
    if option.file_variable and option.kind.file and (path := _text(environ, option.file_variable)):
        return _Given(option.file_variable, path, option.kind.file)
    return None


def _text(environ: Mapping[str, str], variable: str) -> str:
    """A variable's value; blank ones and service links are not set by anybody."""
    text = environ.get(variable, "")
    return "" if not text.strip() or _LINK.fullmatch(f"{variable}={text}") else text


def _missing(given: Mapping[str, _Given], *, need_nacos: bool) -> Iterator[Fault]:
    """What a setting needs beside it. Nothing at all is right too: the app's actuator can tell it all."""
    because = {}
    if need_nacos and "nacos.service" in given and "actuator_url" not in given:
        because["nacos.server_addr"] = (
            f", but {given['nacos.service'].name} is, and without {PREFIX}ACTUATOR_URL nobody tells it"
        )
    for pair in _PAIRS:
        for one, other in (pair, pair[::-1]):
            if one in given:
                because[other] = f", but {given[one].name} is"
    for option in declared():
        if option.path in because and option.path not in given:
            yield Fault(option.variable, "", f"not set{because[option.path]}", option.kind.valid)


def _unsubscribed(given: Mapping[str, _Given], values: Mapping[str, Any]) -> Iterator[Fault]:
    """A subscription is made at the start, before the app can have told which servers it uses."""
    if values.get("push_watch") and "nacos.server_addr" not in given:
        yield given["push_watch"].fault(f"needs {PREFIX}NACOS_SERVER_ADDR", "set that too, or leave it unset")


def _beyond_the_cap(given: Mapping[str, _Given], values: Mapping[str, Any]) -> Iterator[Fault]:
    """Who asks for a longer SETTLE than its cap would not get it."""
    if "consumer_cache" in given and "consumer_cache" not in values:
        return  # wrong itself: there is no cap to compare with
    cap = fit(0.0, None, values.get("consumer_cache", Settings.consumer_cache)).cap
    if values.get("settle_floor", 0.0) > cap:
        problem = f"longer than the cap of {duration_text(cap)}, at which SETTLE ends whatever is seen"
        valid = f"at most {duration_text(cap)}, or a longer {PREFIX}CONSUMER_CACHE"
        yield given["settle_floor"].fault(problem, valid)


def _two_logins(given: Mapping[str, _Given]) -> Iterator[Fault]:
    """A server checks one kind, and the other would be sent for nothing, or fail at each renewal."""
    named, signed = ([given[path] for path in pair if path in given] for pair in (_NAMED, _SIGNED))
    if named and signed:
        problem = f"set together with {named[0].name}, but a Nacos server checks only one kind of login"
        yield signed[0].fault(problem, "a user with a password, or an access key with its secret key")


def _idle(given: Mapping[str, _Given], values: Mapping[str, Any]) -> Iterator[Fault]:
    """What would have no effect, beside what else is set; told, as somebody believes that it has one."""
    if "nacos.service" not in given:
        problem = f"describes {PREFIX}NACOS_SERVICE, and has no effect without it: the app tells its own"
        for path in ("nacos.namespace", "nacos.group", "nacos.cluster"):
            if path in given:
                yield given[path].fault(problem, f"set {PREFIX}NACOS_SERVICE too, or leave it unset")
    elif "actuator_url" not in given:
        problem = (
            f"needs an actuator, but {PREFIX}ACTUATOR_URL is not set,"
            f" and with {given['nacos.service'].name} none is looked for"
        )
        for path in _needing_actuator(given, values):
            yield given[path].fault(problem, f"set {PREFIX}ACTUATOR_URL too, or leave it unset")


def _needing_actuator(given: Mapping[str, _Given], values: Mapping[str, Any]) -> Iterator[str]:
    if values.get("release") is Release.ACTUATOR:
        yield "release"
    yield from (path for path in ("actuator_username", "actuator_password", "actuator_ca_file") if path in given)
    if "deregister_url" not in given:
        details = ("deregister_method", "deregister_body", "deregister_undo", "deregister_headers")
        yield from (path for path in details if path in given)
    elif values.get("deregister_url", "").startswith("/"):
        yield "deregister_url"
    if values.get("borrow_credentials"):
        yield "borrow_credentials"


def _strangers(environ: Mapping[str, str]) -> Iterator[str]:
    """What has our prefix and is no setting: typos."""
    known = [name for option in declared() for name in (option.variable, option.file_variable) if name]
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in known or not _text(environ, variable):
            continue
        # Compared without the prefix, which alone would make any two names similar. The value is not shown:
        # it may be a password under a mistyped name.
        names = [name.removeprefix(PREFIX) for name in known]
        near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1, cutoff=0.5)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        yield f"{variable} is not a setting{hint}"


def _open_to_all(settings: Settings) -> Iterator[str]:
    release = settings.release
    if release is not Release.HOOK and settings.token is None and not settings.listen.loopback:
        yield (
            f"{PREFIX}RELEASE={release} without {PREFIX}TOKEN: only loopback may drain,"
            f" although {PREFIX}LISTEN={settings.listen} is open to others"
        )


def _untrusting(settings: Settings) -> Iterator[str]:
    """Authorities, and nobody who shows a certificate: https:// was forgotten before an address."""
    nacos = settings.nacos
    inside = tuple(url for url in (settings.actuator_url, settings.deregister_url) if url)
    for name, file, urls, where in (
        ("NACOS_CA_FILE", nacos.ca_file, nacos.server_addr, "NACOS_SERVER_ADDR"),
        ("ACTUATOR_CA_FILE", settings.actuator_ca_file, inside, "ACTUATOR_URL"),
    ):
        if file and urls and not any(url.startswith("https:") for url in urls):
            yield f"{PREFIX}{name} has no effect: nothing in {PREFIX}{where} is https"


def _ignored(settings: Settings) -> Iterator[str]:
    for network in map(ip_network, settings.ignore_networks):
        if hidden := [peer for peer in settings.single_peers if ip_address(peer) in network]:
            yield f"{PREFIX}SINGLE_PEERS has no effect on {hidden[0]}: {PREFIX}IGNORE_NETWORKS has {network}"


def _lacking(given: Iterable[_Given]) -> Iterator[str]:
    """What is not there now, but may come."""
    for value in given:
        if why := value.kind.lacks(value.text):
            yield f"{value.name}: {why}"
