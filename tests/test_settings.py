"""Settings as users write them: by variable, by file and by flag, rightly and wrongly."""

import dataclasses
from base64 import b64encode
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecar.settings import (
    Fault,
    Headers,
    Listen,
    Loaded,
    LogFormat,
    LogLevel,
    Method,
    NacosSettings,
    Release,
    Residue,
    Secret,
    SecretUnreadable,
    SettingDoc,
    Settings,
    SettingsError,
    describe,
    duration,
    duration_text,
    load,
    options,
)
from sidecar.settle import Rule


PREFIX = "NACOS_DRAIN_"
NEEDED = {"NACOS_DRAIN_NACOS_SERVER_ADDR": "nacos", "NACOS_DRAIN_NACOS_SERVICE": "orders"}
INSIDE = {"ACTUATOR_URL": "127.0.0.1:9081"}
PLAIN_SECRETS = (
    "NACOS_USERNAME", "NACOS_PASSWORD", "NACOS_ACCESS_KEY", "NACOS_SECRET_KEY", "TOKEN", "ACTUATOR_USERNAME",
    "ACTUATOR_PASSWORD", "DEREGISTER_BODY", "DEREGISTER_UNDO",
)  # fmt: skip
SECRETS = (*PLAIN_SECRETS, "DEREGISTER_HEADERS")
PAIRS = [
    ("NACOS_USERNAME", "NACOS_PASSWORD"),
    ("NACOS_ACCESS_KEY", "NACOS_SECRET_KEY"),
    ("ACTUATOR_USERNAME", "ACTUATOR_PASSWORD"),
]
CANARY = "c4n4ry/+Pass word,:@?#ü"
CANARY_HEADER = "X-Token: c4n4ry/+Pass word,:@?#"


def loaded(**variables: str) -> Loaded:
    """Load what a sidecar needs, and these."""
    return load(NEEDED | {PREFIX + name: value for name, value in variables.items()})


def faults(environ: dict[str, str], flags: dict[str, object] | None = None, **how: bool) -> list[Fault]:
    with pytest.raises(SettingsError) as caught:
        load(environ, flags or {}, **how)
    return caught.value.faults


def fault(name: str, value: str) -> Fault:
    [only] = faults(NEEDED | {PREFIX + name: value})
    return only


# --- what is written, and what it means


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0), ("40", 40), ("2.5", 2.5), ("40s", 40), ("1m", 60), ("1m30s", 90), ("500ms", 0.5), ("0s", 0),
        ("1h", 3600), ("1h1m1s1ms", 3661.001), ("1.5s", 1.5), ("0.5m", 30), ("90m", 5400), ("1m500ms", 60.5),
        (" 40s ", 40),
    ],
)  # fmt: skip
def test_durations_are_seconds_or_units(written: str, seconds: float) -> None:
    assert loaded(GRACE_PERIOD=written).settings.grace_period == seconds
    assert loaded(APP_STOP=written).settings.app_stop == seconds
    assert loaded(CONSUMER_CACHE=written).settings.consumer_cache == seconds
    assert loaded(SETTLE_QUIET=written).settings.settle_quiet == seconds
    assert loaded(SETTLE_FLOOR=written, CONSUMER_CACHE="2h").settings.settle_floor == seconds


@pytest.mark.parametrize(
    "written",
    [
        "soon", "-1", "-1s", "+1", "nan", "inf", "infinity", "1e3", "1_000", "40S", "40 s", "1m 30s", "30s1m", "s", "m",
        "ms", "1,5", ".5", "5.", "1d", "PT40S", "0x10", "٤", "9" * 400, "9" * 400 + "s", "40s\n40s", "40;",
    ],
)  # fmt: skip
def test_anything_else_is_no_duration(written: str) -> None:
    assert fault("GRACE_PERIOD", written).problem == "not a duration"
    for name in ("CONSUMER_CACHE", "SETTLE_FLOOR", "SETTLE_QUIET", "SETTLE_LOOK_BACK"):
        assert fault(name, written).problem == "not a duration"


@given(st.integers(min_value=0, max_value=10**12))
def test_a_written_duration_is_read_back_to_the_last_bit(milliseconds: int) -> None:
    assert duration(duration_text(milliseconds / 1000)) == milliseconds / 1000


@given(st.floats(min_value=0, max_value=10**9))
def test_plain_seconds_are_read_as_python_writes_them(seconds: float) -> None:
    assert duration(f"{seconds:.9f}") == float(f"{seconds:.9f}")
    assert duration(duration_text(seconds)) == pytest.approx(seconds, abs=0.0005)


@given(st.text())
def test_a_duration_is_a_finite_number_or_a_complaint(text: str) -> None:
    try:
        assert 0 <= duration(text) < float("inf")
    except ValueError as error:
        assert str(error) == "not a duration"  # noqa: PT017 - either is right


def test_durations_are_written_short() -> None:
    written = [duration_text(seconds) for seconds in (0, 0.5, 35, 60, 90, 3600, 3661.5)]
    assert written == ["0s", "500ms", "35s", "1m", "1m30s", "1h", "1h1m1s500ms"]


SERVERS = [
    ("nacos", "http://nacos:8848/nacos"),
    ("Nacos.Example.COM.", None),
    ("Nacos.Example.COM", "http://nacos.example.com:8848/nacos"),
    ("nacos_1", "http://nacos_1:8848/nacos"),
    ("10.0.0.1", "http://10.0.0.1:8848/nacos"),
    ("10.0.0.1:80", "http://10.0.0.1:80/nacos"),
    ("10.0.0.1:8848/nacos", "http://10.0.0.1:8848/nacos"),
    ("10.0.0.1/registry", "http://10.0.0.1:8848/registry"),
    ("[::1]", "http://[::1]:8848/nacos"),
    ("[2001:DB8:0::1]:9", "http://[2001:db8::1]:9/nacos"),
    ("http://10.0.0.1", "http://10.0.0.1:8848/nacos"),
    ("http://10.0.0.1:8848/", "http://10.0.0.1:8848/nacos"),
    ("http://10.0.0.1:8848/nacos/", "http://10.0.0.1:8848/nacos"),
    ("HTTPS://[::1]:443/a/b-c_d~e.f", "https://[::1]:443/a/b-c_d~e.f"),
    ("https://nacos", "https://nacos:8848/nacos"),
    ("::1", None),
    ("2001:db8::1:8848", None),
    ("[::1", None),
    ("[10.0.0.1]", None),
    ("[fe80::1%eth0]", None),
    ("10.0.0.256", None),
    ("10.0.0", None),
    ("nacos:0", None),
    ("nacos:65536", None),
    ("nacos:http", None),
    ("nacos:8848:8848", None),
    ("-nacos", None),
    ("na cos", None),
    ("na\tcos", None),
    ("nacos;nacos2", None),
    ("http://", None),
    ("http:///nacos", None),
    ("tcp://10.0.0.1:8848", None),
    ("ftp://10.0.0.1", None),
    ("nacos/../admin", None),
    ("nacos/./x", None),
    ("nacos/a%2fb", None),
    ("nacos//x", None),
    ("nacos?x=1", None),
    ("nacos#x", None),
    (",", None),
]


@pytest.mark.parametrize(("written", "url"), SERVERS)
def test_a_server_address_becomes_a_base_url(written: str, url: str | None) -> None:
    if url is None:
        assert fault("NACOS_SERVER_ADDR", written).name == "NACOS_DRAIN_NACOS_SERVER_ADDR"
    else:
        assert loaded(NACOS_SERVER_ADDR=written).settings.nacos.server_addr == (url,)


ACTUATORS = [
    ("127.0.0.1:9081", "http://127.0.0.1:9081/actuator"),
    ("app:9081", "http://app:9081/actuator"),
    ("App:9081/manage", "http://app:9081/manage"),
    ("[::1]:9081", "http://[::1]:9081/actuator"),
    ("http://127.0.0.1:9081", "http://127.0.0.1:9081/actuator"),
    ("http://127.0.0.1:9081/", "http://127.0.0.1:9081"),
    ("127.0.0.1:9081/", "http://127.0.0.1:9081"),
    ("http://127.0.0.1:9081/actuator", "http://127.0.0.1:9081/actuator"),
    ("http://127.0.0.1:9081/actuator/", "http://127.0.0.1:9081/actuator"),
    ("HTTPS://App:9443/a/b-c_d~e.f", "https://app:9443/a/b-c_d~e.f"),
    ("https://app", "https://app/actuator"),
    ("http://app/actuator", "http://app/actuator"),
    ("app", "an address without a port"),
    ("127.0.0.1/actuator", "an address without a port"),
    ("9081", "not an address"),
    (":9081", "not an address"),
    ("app:0", "not an address"),
    ("app:65536", "not an address"),
    ("::1:9081", "not an address"),
    ("http://app/a b", "not an address"),
    ("http://app/a\tb", "not an address"),
    ("http://app/../env", "not an address"),
    ("http://app//env", "not an address"),
    ("http://app/%61", "not an address"),
    ("http://a:1,http://b:2", "not an address"),
    ("unix:///run/app", "not an address"),
    ("tcp://app:9081", "neither http nor https"),
]


@pytest.mark.parametrize(("written", "meant"), ACTUATORS)
def test_an_actuator_becomes_a_base_url(written: str, meant: str) -> None:
    if meant.startswith("http"):
        assert loaded(ACTUATOR_URL=written).settings.actuator_url == meant
    else:
        wrong = fault("ACTUATOR_URL", written)
        assert (wrong.value_shown, wrong.problem) == (repr(written), meant)


@pytest.mark.parametrize(("written", "_"), [row for row in ACTUATORS if row[1].startswith("http")])
def test_a_completed_actuator_stays_as_it_is(written: str, _: str) -> None:
    once = loaded(ACTUATOR_URL=written).settings.actuator_url
    assert once is not None
    root = "/" * (once.count("/") == 2)  # nothing behind the host would get the default path
    assert loaded(ACTUATOR_URL=once + root).settings.actuator_url == once


@pytest.mark.parametrize(
    ("name", "written", "problem"),
    [
        (
            "ACTUATOR_URL",
            "http://u:p/w@app:1",
            "credentials go into NACOS_DRAIN_ACTUATOR_USERNAME and NACOS_DRAIN_ACTUATOR_PASSWORD",
        ),
        ("ACTUATOR_URL", "http://app:1/actuator?a=b", "an address with a query or a fragment"),
        ("ACTUATOR_URL", "http://app:1/actuator#a", "an address with a query or a fragment"),
        ("DUBBO_QOS", "password@app:1", "not host:port"),
        ("DEREGISTER_URL", "http://u:p@app:1/out", "credentials go into NACOS_DRAIN_DEREGISTER_HEADERS"),
        ("DEREGISTER_URL", "http://u:p?w@app:1/out", "not an address"),
        ("DEREGISTER_URL", "out?a=b c", "has a space or a control character in it"),
        ("DEREGISTER_URL", "out#a", "a fragment, which is never sent"),
    ],
)
def test_an_address_that_may_hold_a_credential_is_not_repeated(name: str, written: str, problem: str) -> None:
    [wrong] = faults(NEEDED | {"NACOS_DRAIN_ACTUATOR_URL": "app:1", PREFIX + name: written})
    assert (wrong.value_shown, wrong.problem) == ("***", problem)


ENDPOINTS = [
    ("nacos-deregister", "/nacos-deregister"),
    ("/nacos-deregister", "/nacos-deregister"),
    ("a/b/", "/a/b/"),
    ("/service-registry?status=DOWN", "/service-registry?status=DOWN"),
    ("out?service=DEFAULT_GROUP@@orders&to=http://x/..", "/out?service=DEFAULT_GROUP@@orders&to=http://x/.."),
    ("http://127.0.0.1:8080/out", "http://127.0.0.1:8080/out"),
    ("HTTP://App:8080/Out/?a=B", "http://app:8080/Out/?a=B"),
    ("https://[::1]/ops/%6fut;v=1", "https://[::1]/ops/%6fut;v=1"),
    ("https://app", "https://app"),
    ("127.0.0.1:8080/out", "a URL without http:// or https:// before it"),
    ("app:8080", "a URL without http:// or https:// before it"),
    ("//app/out", "a URL without http:// or https:// before it"),
    ("/actuator/nacos-deregister", "it is appended to the actuator's URL, so it begins behind /actuator"),
    ("actuator", "it is appended to the actuator's URL, so it begins behind /actuator"),
    ("../env", "has . or .. in its path"),
    ("http://app/a/./b", "has . or .. in its path"),
    ("http:///out", "not an address"),
    ("http://app:x/out", "not an address"),
    ("ftp://app/out", "neither http nor https"),
]


@pytest.mark.parametrize(("written", "meant"), ENDPOINTS)
def test_what_deregisters_is_a_url_or_a_path_below_the_actuator(written: str, meant: str) -> None:
    if meant.startswith(("http", "/")):
        assert loaded(**INSIDE, DEREGISTER_URL=written).settings.deregister_url == meant
    else:
        [wrong] = faults(NEEDED | {"NACOS_DRAIN_ACTUATOR_URL": "app:1", "NACOS_DRAIN_DEREGISTER_URL": written})
        assert (wrong.value_shown, wrong.problem) == (repr(written), meant)


def test_the_same_server_counts_once_however_it_is_written() -> None:
    addresses = loaded(NACOS_SERVER_ADDR=" a:8848 , http://A/nacos/,, [::1]:1,a ").settings.nacos.server_addr
    assert addresses == ("http://a:8848/nacos", "http://[::1]:1/nacos")


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("NACOS_NAMESPACE", "public", ""),
        ("NACOS_NAMESPACE", "6cd4-dev", "6cd4-dev"),
        ("NACOS_GROUP", "ORDERS:v1", "ORDERS:v1"),
        ("NACOS_CLUSTER", "hz", "hz"),
        ("NACOS_SERVICE", "a, b,a", ("a", "b")),
        ("NACOS_SERVICE", "providers:com.acme.Order:1.0:", ("providers:com.acme.Order:1.0:",)),
        ("NACOS_IP", "10.0.0.7", "10.0.0.7"),
        ("NACOS_IP", "2001:DB8:0:0:0:0:0:1", "2001:DB8:0:0:0:0:0:1"),
        ("NACOS_PORT", "8080", (8080,)),
        ("NACOS_PORT", "1, 65535,1", (1, 65535)),
    ],
)
def test_identity_in_nacos(name: str, written: str, value: object) -> None:
    assert getattr(loaded(**{name: written}).settings.nacos, name.removeprefix("NACOS_").lower()) == value


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("LISTEN", ":19081", Listen("", 19081)),
        ("LISTEN", "0.0.0.0:80", Listen("0.0.0.0", 80)),
        ("LISTEN", "[::]:80", Listen("::", 80)),
        ("LISTEN", "127.0.0.1:0", Listen("127.0.0.1", 0)),
        ("LISTEN", "localhost:65535", Listen("localhost", 65535)),
        ("RELEASE", "signal", Release.SIGNAL),
        ("RELEASE", "HOOK", Release.HOOK),
        ("APP_PORTS", "8080,9090", (8080, 9090)),
        ("APP_PROCESS", r"java .*-jar /app\.jar", r"java .*-jar /app\.jar"),
        ("APP_PROCESS", "-DAPP_SERVICE_HOST=a -DAPP_PORT=tcp://b", "-DAPP_SERVICE_HOST=a -DAPP_PORT=tcp://b"),
        ("APP_KILL", "true", True),
        ("APP_KILL", "Yes", True),
        ("APP_KILL", "0", False),
        ("LOOPBACK_OPEN", "on", True),
        ("CLEAR_RESIDUE", "born", Residue.BORN),
        ("CLEAR_RESIDUE", "never", Residue.NEVER),
        ("RELEASE", "actuator", Release.ACTUATOR),
        ("DEREGISTER_METHOD", "put", Method.PUT),
        ("DEREGISTER_METHOD", "Delete", Method.DELETE),
        ("DUBBO_QOS", "127.0.0.1:22222", "127.0.0.1:22222"),
        ("DUBBO_QOS", "[0::1]:22222", "[::1]:22222"),
        ("DUBBO_QOS", "LocalHost:1", "localhost:1"),
        ("BORROW_CREDENTIALS", "true", True),
        ("PUSH_WATCH", "on", True),
        ("LOG_FORMAT", "json", LogFormat.JSON),
        ("LOG_FORMAT", "console", LogFormat.CONSOLE),
        ("LOG_LEVEL", "DEBUG", LogLevel.DEBUG),
    ],
)
def test_the_sidecar_itself(name: str, written: str, value: object) -> None:
    assert getattr(loaded(**INSIDE, **{name: written}).settings, name.lower()) == value


@pytest.mark.parametrize(
    ("name", "written", "problem"),
    [
        ("NACOS_NAMESPACE", "a b", "has a space or a control character in it"),
        ("NACOS_GROUP", "a\x1bb", "has a space or a control character in it"),
        (
            "NACOS_SERVICE",
            "DEFAULT_GROUP@@a",
            "'DEFAULT_GROUP@@a' names a group, which goes into NACOS_DRAIN_NACOS_GROUP",
        ),
        ("NACOS_SERVICE", ",", "an empty list"),
        ("NACOS_IP", "10.0.0.300", "not an IP address"),
        ("NACOS_IP", "10.0.0.1,10.0.0.2", "not an IP address"),
        ("NACOS_IP", "[::1]", "not an IP address"),
        ("NACOS_IP", "orders-0.local", "not an IP address"),
        ("NACOS_PORT", "8080,0", "'0' is not a port"),
        ("NACOS_PORT", "65536", "'65536' is not a port"),
        ("APP_PORTS", "http", "'http' is not a port"),
        ("APP_PORTS", "-1", "'-1' is not a port"),
        ("APP_PORTS", "8080-8090", "'8080-8090' is not a port"),
        ("APP_PORTS", "٨٠", "'٨٠' is not a port"),
        ("LISTEN", "19081", "not host:port"),
        ("LISTEN", ":65536", "not host:port"),
        ("LISTEN", "::1:19081", "not host:port"),
        ("LISTEN", "127.0.0.1", "not host:port"),
        ("LISTEN", "tcp://0.0.0.0:19081", "not host:port"),
        ("LISTEN", "*:19081", "'*' is not a host"),
        ("LISTEN", "[10.0.0.1]:1", "'10.0.0.1' is not a host"),
        ("LISTEN", "1.2.3:1", "'1.2.3' is not a host"),
        ("RELEASE", "sigterm", "not one of these"),
        (
            "APP_PROCESS",
            "java (",
            "not a regular expression: 'missing ), unterminated subpattern at position 5'",
        ),
        ("APP_PROCESS", "a{99999999999999}", "not a regular expression: 'the repetition number is too large'"),
        ("APP_PROCESS", "(?<\x1b", "not a regular expression: 'unknown extension ?<\\x1b at position 1'"),
        ("APP_KILL", "maybe", "neither true nor false"),
        ("CLEAR_RESIDUE", "mine", "not one of these"),
        ("LOOPBACK_OPEN", "2", "neither true nor false"),
        ("LOG_FORMAT", "text", "not one of these"),
        ("LOG_LEVEL", "trace", "not one of these"),
        ("DEREGISTER_METHOD", "HEAD", "not one of these"),
        ("DUBBO_QOS", "22222", "not host:port"),
        ("DUBBO_QOS", ":22222", "not host:port"),
        ("DUBBO_QOS", "127.0.0.1:0", "not host:port"),
        ("DUBBO_QOS", "http://127.0.0.1:22222", "not host:port"),
        ("BORROW_CREDENTIALS", "maybe", "neither true nor false"),
        ("PUSH_WATCH", "nacos", "neither true nor false"),
    ],
)
def test_a_wrong_value_is_named_shown_and_answered_with_a_right_one(name: str, written: str, problem: str) -> None:
    [wrong] = faults(NEEDED | {"NACOS_DRAIN_ACTUATOR_URL": "app:1", PREFIX + name: written})
    assert (wrong.name, wrong.value_shown, wrong.problem) == (PREFIX + name, repr(written), problem)
    assert wrong.valid


def test_a_choice_lists_its_words() -> None:
    assert fault("LOG_FORMAT", "text").valid == "auto, json, console"
    assert fault("RELEASE", "sigterm").valid == "hook, signal, actuator"


# --- the quiet rule


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("3", ""),
        ("20s", ""),
        ("1h", ""),
        ("60m", ""),
        ("0", "too short for a rhythm to be known"),
        ("2999ms", "too short for a rhythm to be known"),
        ("3600.5", "longer than callers are remembered"),
        ("1h1ms", "longer than callers are remembered"),
    ],
)
def test_the_look_back_is_long_enough_for_a_rhythm_and_no_longer_than_the_memory(written: str, problem: str) -> None:
    if not problem:
        assert loaded(SETTLE_LOOK_BACK=written).settings.settle_look_back == duration(written)
        return
    wrong = fault("SETTLE_LOOK_BACK", written)
    assert (wrong.value_shown, wrong.problem, wrong.valid) == (repr(written), problem, "3s to 1h, as 300, 5m, 1m30s")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("1", ""),
        ("1.0", ""),
        ("2.5", ""),
        ("100", ""),
        ("0.99", "less than 1"),
        ("0", "less than 1"),
        *(
            (text, "not a number")
            for text in ("-3", "+3", "nan", "inf", "1e3", "3x", "3s", ".5", "1_0", "٣", "9" * 400)
        ),
    ],
)
def test_the_factor_is_a_plain_number_and_at_least_1(written: str, problem: str) -> None:
    if not problem:
        assert loaded(SETTLE_FACTOR=written).settings.settle_factor == float(written)
    else:
        assert fault("SETTLE_FACTOR", written).problem == problem


def test_the_rule_has_the_cores_numbers_unless_they_are_set() -> None:
    assert Settings().settle_rule == Rule()
    settings = loaded(SETTLE_FLOOR="1", SETTLE_QUIET="2", SETTLE_FACTOR="4", SETTLE_LOOK_BACK="20s").settings
    assert settings.settle_rule == Rule(floor=1, quiet=2, factor=4, look_back=20)


@pytest.mark.parametrize(
    ("floor", "cache", "cap"),
    [("5s", "0", ""), ("40", "35", ""), ("5001ms", "0", "5s"), ("40.5", "", "40s"), ("2m", "1m30s", "1m35s")],
)
def test_a_floor_above_the_cap_is_refused(floor: str, cache: str, cap: str) -> None:
    environ = {"NACOS_DRAIN_SETTLE_FLOOR": floor, "NACOS_DRAIN_CONSUMER_CACHE": cache}
    if not cap:
        assert load(environ, need_nacos=False).settings.settle_floor == duration(floor)
        return
    [wrong] = faults(environ, need_nacos=False)
    assert (wrong.name, wrong.value_shown) == ("NACOS_DRAIN_SETTLE_FLOOR", repr(floor))
    assert wrong.problem == f"longer than the cap of {cap}, at which SETTLE ends whatever is seen"
    assert wrong.valid == f"at most {cap}, or a longer NACOS_DRAIN_CONSUMER_CACHE"


def test_a_floor_is_not_compared_with_a_wrong_cache() -> None:
    environ = {"NACOS_DRAIN_SETTLE_FLOOR": "2m", "NACOS_DRAIN_CONSUMER_CACHE": "long"}
    assert [wrong.name for wrong in faults(environ, need_nacos=False)] == ["NACOS_DRAIN_CONSUMER_CACHE"]


ADDRESSES = [
    ("10.0.0.7", ("10.0.0.7",)),
    (" 10.0.0.7 ,, 127.0.0.6,10.0.0.7", ("10.0.0.7", "127.0.0.6")),
    ("10.0.0.7,FD00:0::0001", ("10.0.0.7", "fd00::1")),  # as status.hostIPs tells them, and as the kernel shows them
    ("::ffff:10.0.0.7,10.0.0.7", ("10.0.0.7",)),
    ("0:0:0:0:0:FFFF:7F00:0006", ("127.0.0.6",)),
    ("::1", ("::1",)),
    ("node-1", "'node-1' is not an IP address"),
    ("10.0.0.7,10.0.0.300", "'10.0.0.300' is not an IP address"),
    ("10.0.0.0/8", "'10.0.0.0/8' is not an IP address"),
    ("10.0.0.07", "'10.0.0.07' is not an IP address"),
    ("[::1]", "'[::1]' is not an IP address"),
    ("10.0.0.7:80", "'10.0.0.7:80' is not an IP address"),
    ("fe80::1%eth0", "'fe80::1%eth0' has a zone, which the kernel's sockets do not show"),
    ("0.0.0.0", "nobody calls from '0.0.0.0'"),
    ("::", "nobody calls from '::'"),
    ("::ffff:0.0.0.0", "nobody calls from '::ffff:0.0.0.0'"),
    ("224.0.0.1", "nobody calls from '224.0.0.1'"),
    (",", "an empty list"),
]


@pytest.mark.parametrize("name", ["SINGLE_PEERS", "NODE_IP"])
@pytest.mark.parametrize(("written", "meant"), ADDRESSES)
def test_callers_are_named_as_the_kernel_shows_them(name: str, written: str, meant: str | tuple[str, ...]) -> None:
    if isinstance(meant, tuple):
        assert getattr(loaded(**{name: written}).settings, name.lower()) == meant
    else:
        wrong = fault(name, written)
        assert (wrong.value_shown, wrong.problem) == (repr(written), meant)
        assert wrong.valid == "IPv4 or IPv6 addresses, several with commas"


NETWORKS = [
    ("10.0.0.0/8", ("10.0.0.0/8",)),
    ("10.0.0.0/255.0.0.0, 10.0.0.0/8,fd00::/8", ("10.0.0.0/8", "fd00::/8")),
    ("10.0.0.7", ("10.0.0.7/32",)),
    ("FD00::0001", ("fd00::1/128",)),
    ("::ffff:10.0.0.0/104", ("10.0.0.0/8",)),
    ("::ffff:10.0.0.7", ("10.0.0.7/32",)),
    ("::/96", ("::/96",)),
    ("0.0.0.0/1,128.0.0.0/1", ("0.0.0.0/1", "128.0.0.0/1")),
    ("10.0.0.7/8", "'10.0.0.7/8' has bits behind its prefix: write 10.0.0.0/8, or 10.0.0.7 for that one alone"),
    ("fd00::1/8", "'fd00::1/8' has bits behind its prefix: write fd00::/8, or fd00::1 for that one alone"),
    ("0.0.0.0/0", "'0.0.0.0/0' is everybody, and nobody would be waited for"),
    ("::/0", "'::/0' is everybody, and nobody would be waited for"),
    ("::ffff:0:0/96", "'::ffff:0:0/96' is everybody, and nobody would be waited for"),
    ("10.0.0.0/33", "'10.0.0.0/33' is neither a network nor an IP address"),
    ("10.0.0.0/", "'10.0.0.0/' is neither a network nor an IP address"),
    ("10/8", "'10/8' is neither a network nor an IP address"),
    ("10.0.0.0-10.0.0.9", "'10.0.0.0-10.0.0.9' is neither a network nor an IP address"),
    ("monitoring", "'monitoring' is neither a network nor an IP address"),
    ("fe80::%eth0/64", "'fe80::%eth0/64' has a zone, which the kernel's sockets do not show"),
    (",", "an empty list"),
]


@pytest.mark.parametrize(("written", "meant"), NETWORKS)
def test_networks_are_named_whole(written: str, meant: str | tuple[str, ...]) -> None:
    if isinstance(meant, tuple):
        assert loaded(IGNORE_NETWORKS=written).settings.ignore_networks == meant
    else:
        wrong = fault("IGNORE_NETWORKS", written)
        assert (wrong.value_shown, wrong.problem) == (repr(written), meant)


@given(st.ip_addresses(), st.integers(min_value=1, max_value=128))
def test_a_network_that_loads_is_the_one_that_was_written(address: IPv4Address | IPv6Address, prefix: int) -> None:
    whole = ip_network((address, min(prefix, address.max_prefixlen)), strict=False)
    [text] = loaded(IGNORE_NETWORKS=str(whole)).settings.ignore_networks
    mapped = whole.network_address.ipv4_mapped if isinstance(whole, IPv6Network) else None
    if mapped is None or whole.prefixlen < 96:
        assert ip_network(text) == whole
    else:
        assert ip_network(text) == IPv4Network((mapped, whole.prefixlen - 96))


def test_a_caller_that_is_single_and_ignored_is_warned_about() -> None:
    ignored = {"IGNORE_NETWORKS": "10.0.0.0/16, fd00::/8"}
    assert loaded(**ignored, SINGLE_PEERS="10.1.0.1,::1", NODE_IP="10.0.0.1").warnings == []
    assert loaded(**ignored, SINGLE_PEERS="10.1.0.1,10.0.0.6").warnings == [
        "NACOS_DRAIN_SINGLE_PEERS has no effect on 10.0.0.6: NACOS_DRAIN_IGNORE_NETWORKS has 10.0.0.0/16"
    ]


# --- headers


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Authorization: Bearer abc", {"Authorization": "Bearer abc"}),
        ("A: 1\nB: 2", {"A": "1", "B": "2"}),
        ("A: 1\r\n\r\nB:2\t\r\n", {"A": "1", "B": "2"}),
        (r"A: 1\nB: 2", {"A": "1", "B": "2"}),
        (r"A: 1\r\nB: 2\n", {"A": "1", "B": "2"}),
        ('  A:   x:y;z="q", w  ', {"A": 'x:y;z="q", w'}),
        ("Content-Type: application/json; charset=utf-8", {"Content-Type": "application/json; charset=utf-8"}),
        ("X-A!#$%&'*+.^_`|~9: \\", {"X-A!#$%&'*+.^_`|~9": "\\"}),
    ],
)
def test_headers_are_one_a_line(written: str, meant: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_bytes(written.encode())
    for variable in ({"DEREGISTER_HEADERS": written}, {"DEREGISTER_HEADERS_FILE": str(file)}):
        headers = loaded(**INSIDE, **variable).settings.deregister_headers
        assert headers is not None
        assert headers.read() == meant


WRONG_HEADERS = [
    ("c4n4ry", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: 1\nc4n4ry", "line 2 is not 'Name: value' in plain ASCII"),
    ("A:", "line 1 is not 'Name: value' in plain ASCII"),
    (": c4n4ry", "line 1 is not 'Name: value' in plain ASCII"),
    ("A : c4n4ry", "line 1 is not 'Name: value' in plain ASCII"),
    ("A B: c4n4ry", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: c4n4ry\rB: 2", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: c4n4ry\x00", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: c4n4ry\x0bB: 2", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: c4n4ry\u2028B: 2", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: c4n4ryü", "line 1 is not 'Name: value' in plain ASCII"),
    ("A: 1\na: c4n4ry", "line 2 sets a header again"),
    (r"\n", "no header in it"),
    ("CONTENT-length: 4", "line 1 sets a header that frames the request, which is ours to do"),
    ("A: 1\n\nTransfer-Encoding: chunked", "line 3 sets a header that frames the request, which is ours to do"),
]


@pytest.mark.parametrize(("written", "problem"), WRONG_HEADERS)
def test_a_wrong_header_is_told_by_its_line_and_never_repeated(written: str, problem: str, tmp_path: Path) -> None:
    inside = {PREFIX + name: value for name, value in INSIDE.items()}
    [wrong] = faults(NEEDED | inside | {"NACOS_DRAIN_DEREGISTER_HEADERS": written})
    assert (wrong.value_shown, wrong.problem) == ("***", problem)
    assert wrong.valid.startswith("'Name: value', more of them on lines of their own")
    file = tmp_path / "headers"
    file.write_bytes(written.encode())
    result = loaded(**INSIDE, DEREGISTER_HEADERS_FILE=str(file))
    assert result.warnings == [f"NACOS_DRAIN_DEREGISTER_HEADERS_FILE: cannot use {file}: {problem}"]


def test_the_headers_of_a_file_are_read_and_checked_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    headers = Headers(file=str(file))
    with pytest.raises(SecretUnreadable, match="No such file"):
        headers.read()
    for token in ("first", "second"):
        file.write_text(f"X-Token: {token}\n")
        assert headers.read() == {"X-Token": token}
    file.write_text("X-Token second")
    with pytest.raises(SecretUnreadable, match="line 1 is not"):
        headers.read()


@given(st.text() | st.from_regex(r"(\A[A-Za-z-]{1,3}:[ -~]{0,5}(\n|\r|\\n)?){1,3}\Z"))
def test_no_header_brings_another_with_it(text: str) -> None:
    try:
        headers = Headers(text).read()
    except ValueError:
        return
    for name, value in headers.items():
        assert name
        assert value == value.strip() != ""
        assert (name + value).isascii()
        assert not set(name + value) & set("\r\n\0")
    assert Headers("\n".join(f"{name}: {value}" for name, value in headers.items())).read() == headers


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # re's, about sets like [[a]
@given(st.sampled_from(describe()), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_whatever_is_written_it_loads_or_the_complaint_names_it(row: SettingDoc, text: str) -> None:
    complaint = ""
    try:
        load(NEEDED | {row.name: text})
    except SettingsError as error:
        complaint = str(error)
    assert not complaint or row.name in complaint
    assert all(line.isprintable() for line in complaint.split("\n"))


# --- defaults


def test_defaults() -> None:
    assert loaded() == Loaded(
        Settings(nacos=NacosSettings(server_addr=("http://nacos:8848/nacos",), service=("orders",))),
        warnings=[],
        kubernetes=False,
    )
    assert Settings() == Settings(
        nacos=NacosSettings(
            server_addr=(),
            namespace="",
            group="DEFAULT_GROUP",
            service=(),
            cluster="DEFAULT",
            ip=None,
            port=(),
            username=None,
            password=None,
            access_key=None,
            secret_key=None,
            ca_file=None,
        ),
        grace_period=None,
        listen=Listen("", 19081),
        token=None,
        release=Release.HOOK,
        app_ports=(),
        app_stop=None,
        app_process=None,
        app_kill=False,
        actuator_url=None,
        actuator_username=None,
        actuator_password=None,
        actuator_ca_file=None,
        deregister_url=None,
        deregister_method=Method.POST,
        deregister_body=None,
        deregister_undo=None,
        deregister_headers=None,
        dubbo_qos=None,
        borrow_credentials=False,
        push_watch=False,
        consumer_cache=35.0,
        settle_floor=3.0,
        settle_quiet=3.0,
        settle_factor=3.0,
        settle_look_back=300.0,
        single_peers=(),
        ignore_networks=(),
        node_ip=(),
        clear_residue=Residue.OURS,
        loopback_open=False,
        log_format=LogFormat.AUTO,
        log_level=LogLevel.INFO,
    )


def test_the_platform_tells_the_grace_period_that_nobody_set() -> None:
    kubernetes = NEEDED | {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert (load(NEEDED).grace_period, load(kubernetes).grace_period) == (10, 30)
    assert load(kubernetes | {"NACOS_DRAIN_GRACE_PERIOD": "0"}).grace_period == 0
    assert load(kubernetes).kubernetes
    assert load(kubernetes).settings.grace_period is None


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_empty_means_unset(blank: str) -> None:
    everything = {row.name: blank for row in describe()} | {"NACOS_DRAIN_OOPS": blank}
    assert load(everything | NEEDED) == load(NEEDED)
    assert load(NEEDED, dict.fromkeys(["grace_period", "listen"], blank)) == load(NEEDED)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().app_kill = True  # type: ignore[misc]  # what is tested


# --- what belongs together


def test_an_actuator_that_can_be_found_tells_everything() -> None:
    assert load({}) == Loaded(Settings(), warnings=[], kubernetes=False)
    servers = load({"NACOS_DRAIN_NACOS_SERVER_ADDR": "nacos"}).settings.nacos
    assert servers == NacosSettings(server_addr=("http://nacos:8848/nacos",))
    found = {"RELEASE": "actuator", "BORROW_CREDENTIALS": "true", "DEREGISTER_URL": "out", "DEREGISTER_BODY": "{}"}
    found |= {"ACTUATOR_USERNAME": "u", "ACTUATOR_PASSWORD": "p", "NACOS_PORT": "8080", "LISTEN": "127.0.0.1:1"}
    assert load({PREFIX + name: value for name, value in found.items()}).warnings == []


@pytest.mark.parametrize(
    ("environ", "flags", "service"),
    [
        ({"NACOS_DRAIN_NACOS_SERVICE": "orders"}, {}, "NACOS_DRAIN_NACOS_SERVICE"),
        ({}, {"nacos_service": "orders"}, "--nacos-service"),
    ],
)
def test_a_service_needs_a_server(environ: dict[str, str], flags: dict[str, object], service: str) -> None:
    [wrong] = faults(environ, flags)
    assert (wrong.name, wrong.value_shown) == ("NACOS_DRAIN_NACOS_SERVER_ADDR", "")
    assert wrong.problem == (f"not set, but {service} is, and without NACOS_DRAIN_ACTUATOR_URL nobody tells it")
    told = load(environ | {"NACOS_DRAIN_ACTUATOR_URL": "app:1"}, flags).settings.nacos
    assert told == NacosSettings(service=("orders",))


@pytest.mark.parametrize("name", ["NAMESPACE", "GROUP", "CLUSTER"])
def test_what_describes_a_service_needs_one(name: str) -> None:
    [wrong] = faults({f"NACOS_DRAIN_NACOS_{name}": "x", "NACOS_DRAIN_NACOS_SERVER_ADDR": "nacos"})
    assert str(wrong) == (
        f"NACOS_DRAIN_NACOS_{name}='x': describes NACOS_DRAIN_NACOS_SERVICE, and has no effect without it: the app"
        " tells its own. Valid: set NACOS_DRAIN_NACOS_SERVICE too, or leave it unset"
    )
    [wrong] = faults({}, {f"nacos_{name.lower()}": "x"})
    assert wrong.name == f"--nacos-{name.lower()}"
    assert loaded(**{f"NACOS_{name}": "x"}).warnings == []


OF_AN_ACTUATOR = [
    ({"RELEASE": "actuator"}, ["RELEASE"]),
    ({"BORROW_CREDENTIALS": "true"}, ["BORROW_CREDENTIALS"]),
    ({"BORROW_CREDENTIALS": "false"}, []),
    ({"ACTUATOR_USERNAME": "u", "ACTUATOR_PASSWORD": "p"}, ["ACTUATOR_USERNAME", "ACTUATOR_PASSWORD"]),
    ({"ACTUATOR_CA_FILE": "/ca.pem"}, ["ACTUATOR_CA_FILE"]),
    ({"DEREGISTER_URL": "out"}, ["DEREGISTER_URL"]),
    ({"DEREGISTER_URL": "out", "DEREGISTER_BODY": "{}"}, ["DEREGISTER_URL"]),
    ({"DEREGISTER_URL": "http://app:1/out", "DEREGISTER_BODY": "{}", "DEREGISTER_METHOD": "GET"}, []),
    ({"DEREGISTER_METHOD": "GET", "DEREGISTER_HEADERS": "A: b"}, ["DEREGISTER_METHOD", "DEREGISTER_HEADERS"]),
    ({"DEREGISTER_BODY": "a", "DEREGISTER_UNDO": "b"}, ["DEREGISTER_BODY", "DEREGISTER_UNDO"]),
    ({"DUBBO_QOS": "127.0.0.1:22222", "PUSH_WATCH": "true"}, []),
]


@pytest.mark.parametrize(("variables", "names"), OF_AN_ACTUATOR)
def test_what_needs_an_actuator_is_refused_where_none_is_looked_for(
    variables: dict[str, str], names: list[str]
) -> None:
    environ = NEEDED | {PREFIX + name: value for name, value in variables.items()}
    if not names:
        assert load(environ).warnings == []
        return
    wrong = faults(environ)
    assert [each.name for each in wrong] == [PREFIX + name for name in names]
    for each in wrong:
        assert each.problem == (
            "needs an actuator, but NACOS_DRAIN_ACTUATOR_URL is not set,"
            " and with NACOS_DRAIN_NACOS_SERVICE none is looked for"
        )
        assert each.valid == "set NACOS_DRAIN_ACTUATOR_URL too, or leave it unset"
    for there in ({"NACOS_DRAIN_ACTUATOR_URL": "app:1"}, {"NACOS_DRAIN_NACOS_SERVICE": ""}):
        load(environ | there)


def test_a_wrong_value_that_needs_an_actuator_is_one_fault() -> None:
    assert [wrong.problem for wrong in faults(NEEDED | {"NACOS_DRAIN_DEREGISTER_URL": "../x"})] == [
        "has . or .. in its path"
    ]


def test_a_plan_needs_no_nacos_but_right_settings() -> None:
    assert load({}, need_nacos=False).settings == Settings()
    for alone in ({"NACOS_SERVICE": "orders", "RELEASE": "actuator"}, {"NACOS_GROUP": "g"}):
        load({PREFIX + name: value for name, value in alone.items()}, need_nacos=False)
    assert [wrong.name for wrong in faults({"NACOS_DRAIN_NACOS_PORT": "x"}, need_nacos=False)] == [
        "NACOS_DRAIN_NACOS_PORT"
    ]


@pytest.mark.parametrize("how", ["", "_FILE"])
@pytest.mark.parametrize(("one", "other"), [*PAIRS, *[pair[::-1] for pair in PAIRS]])
def test_half_a_login_is_none(one: str, other: str, how: str) -> None:
    [wrong] = faults({f"{PREFIX}{one}{how}": "x"})
    assert wrong.name == PREFIX + other
    assert wrong.problem == f"not set, but {PREFIX}{one}{how} is"


def test_a_server_checks_one_kind_of_login() -> None:
    user = {"NACOS_DRAIN_NACOS_USERNAME": CANARY, "NACOS_DRAIN_NACOS_PASSWORD": CANARY}
    key = {"NACOS_DRAIN_NACOS_ACCESS_KEY_FILE": "/run/key", "NACOS_DRAIN_NACOS_SECRET_KEY": CANARY}
    [wrong] = faults(NEEDED | user | key)
    assert (wrong.name, wrong.value_shown) == ("NACOS_DRAIN_NACOS_ACCESS_KEY_FILE", "'/run/key'")
    assert wrong.problem == (
        "set together with NACOS_DRAIN_NACOS_USERNAME, but a Nacos server checks only one kind of login"
    )
    assert wrong.valid == "a user with a password, or an access key with its secret key"


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_one_place(name: str) -> None:
    value = CANARY_HEADER if name == "DEREGISTER_HEADERS" else CANARY
    both = {PREFIX + name: value, f"{PREFIX}{name}_FILE": "/run/secret"}
    pair = next((pair for pair in PAIRS if name in pair), ())
    [wrong] = faults(dict.fromkeys([PREFIX + each for each in pair], "x") | both)
    assert (wrong.name, wrong.value_shown) == (PREFIX + name, "***")
    assert wrong.problem == f"set together with NACOS_DRAIN_{name}_FILE"


# --- whom to believe


@pytest.mark.parametrize(
    ("name", "where"), [("NACOS_CA_FILE", "NACOS_SERVER_ADDR"), ("ACTUATOR_CA_FILE", "ACTUATOR_URL")]
)
def test_authorities_may_come_later_but_a_wrong_file_is_told(name: str, where: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    variables = INSIDE | {name: str(file), where: "https://server:443"}
    contents = {
        None: f"cannot read {file}: No such file or directory",
        b"\x30\x82\x01": f"no PEM certificate in {file}",
        b"-----BEGIN PRIVATE KEY-----\n": f"no PEM certificate in {file}",
    }
    for content, reason in contents.items():
        if content is not None:
            file.write_bytes(content)
        result = loaded(**variables)
        assert result.warnings == [f"NACOS_DRAIN_{name}: {reason}"]
        assert str(file) in {result.settings.nacos.ca_file, result.settings.actuator_ca_file}
    for kind in (b"CERTIFICATE", b"TRUSTED CERTIFICATE", b"X509 CERTIFICATE"):
        file.write_bytes(b"# mine\n-----BEGIN " + kind + b"-----\n")
        assert loaded(**variables).warnings == []
    assert loaded(**variables | {where: "http://server:443"}).warnings == [
        f"NACOS_DRAIN_{name} has no effect: nothing in NACOS_DRAIN_{where} is https"
    ]


def test_authorities_are_for_whatever_is_https() -> None:
    file = str(Path(__file__).parent)
    told = f"NACOS_DRAIN_ACTUATOR_CA_FILE: cannot read {file}: Is a directory"
    own = loaded(**INSIDE, ACTUATOR_CA_FILE=file, DEREGISTER_URL="https://app/out")
    found = load({"NACOS_DRAIN_ACTUATOR_CA_FILE": file})
    mixed = loaded(NACOS_CA_FILE=file, NACOS_SERVER_ADDR="a,https://b")
    assert own.warnings == found.warnings == [told]
    assert mixed.warnings == [told.replace("ACTUATOR", "NACOS")]


@pytest.mark.parametrize(
    ("listen", "token", "warned"),
    [
        (":19081", "", True),
        ("0.0.0.0:19081", "", True),
        ("[::]:19081", "", True),
        ("10.0.0.1:19081", "", True),
        ("app:19081", "", True),
        ("127.0.0.1:19081", "", False),
        ("[::1]:19081", "", False),
        ("localhost:19081", "", False),
        (":19081", "t", False),
    ],
)
@pytest.mark.parametrize("release", ["signal", "actuator"])
def test_a_stop_on_anybodys_word_is_warned_about(listen: str, token: str, release: str, *, warned: bool) -> None:
    warning = (
        f"NACOS_DRAIN_RELEASE={release} without NACOS_DRAIN_TOKEN: only loopback may drain,"
        f" although NACOS_DRAIN_LISTEN={listen} is open to others"
    )
    assert loaded(**INSIDE, RELEASE=release, LISTEN=listen, TOKEN=token).warnings == [warning] * warned
    assert loaded(RELEASE="hook", LISTEN=listen, TOKEN=token).warnings == []


# --- names that are no settings


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("GRACEPERIOD", "GRACE_PERIOD"),
        ("GRACE", "GRACE_PERIOD"),
        ("SERVER_ADDR", "NACOS_SERVER_ADDR"),
        ("SERVICE", "NACOS_SERVICE"),
        ("NACOS_PASSWORT", "NACOS_PASSWORD"),
        ("TOKENFILE", "TOKEN_FILE"),
        ("nacos_ip", None),
        ("XYZ", None),
    ],
)
def test_an_unknown_name_warns_with_the_nearest_and_never_with_its_value(unknown: str, nearest: str | None) -> None:
    [warning] = loaded(**{unknown: CANARY}).warnings
    hint = f"; did you mean NACOS_DRAIN_{nearest}?" if nearest else ""
    assert warning == f"NACOS_DRAIN_{unknown} is not a setting{hint}"


def test_other_peoples_variables_are_theirs() -> None:
    others = {"PATH": "/bin", "NACOS_DRAINAGE": "1", "MY_NACOS_DRAIN_TOKEN": "1", "nacos_drain_token": "1"}
    assert load(NEEDED | others) == load(NEEDED)


@pytest.mark.parametrize("service", ["", "NACOS_", "NACOS_SERVICE_", "APP_", "GRACE_"])
def test_service_links_are_no_settings(service: str) -> None:
    """A Service named nacos-drain, nacos-drain-nacos, … puts all of these into every pod of its namespace."""
    prefix = PREFIX + service
    links = {
        f"{prefix}SERVICE_HOST": "10.96.0.7",
        f"{prefix}SERVICE_PORT": "8848",
        f"{prefix}SERVICE_PORT_HTTP_METRICS": "8848",
        f"{prefix}PORT": "tcp://10.96.0.7:8848",
        f"{prefix}PORT_8848_TCP": "tcp://10.96.0.7:8848",
        f"{prefix}PORT_8848_TCP_PROTO": "tcp",
        f"{prefix}PORT_8848_TCP_PORT": "8848",
        f"{prefix}PORT_8848_TCP_ADDR": "10.96.0.7",
        f"{prefix}PORT_53_UDP": "udp://10.96.0.7:53",
        f"{prefix}PORT_53_SCTP_ADDR": "10.96.0.7",
    }
    assert load(NEEDED | links) == load(NEEDED)


def test_a_links_value_under_a_name_that_no_service_makes_is_a_fault() -> None:
    assert fault("NACOS_SERVER_ADDR", "tcp://10.96.0.7:8848").problem == (
        "'tcp://10.96.0.7:8848' is neither http nor https"
    )


# --- flags


def test_a_flag_goes_before_its_variable() -> None:
    environ = NEEDED | {"NACOS_DRAIN_GRACE_PERIOD": "nonsense", "NACOS_DRAIN_APP_KILL": "true"}
    settings = load(environ, {"grace_period": "40s", "app_kill": False, "nacos_port": "8080,8081"}).settings
    assert (settings.grace_period, settings.app_kill, settings.nacos.port) == (40, False, (8080, 8081))


def test_a_flag_that_was_not_given_says_nothing() -> None:
    assert load(NEEDED | {"NACOS_DRAIN_APP_STOP": "5"}, {"app_stop": None}).settings.app_stop == 5


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    [wrong] = faults(NEEDED, {"app_ports": "http"})
    assert str(wrong) == "--app-ports='http': 'http' is not a port. Valid: 1 to 65535, several with commas"


@pytest.mark.parametrize(
    "keyword", ["token", "nacos_password", "deregister_body", "deregister_headers", "grace", "nacos.port"]
)
def test_a_keyword_that_is_no_flag_is_a_mistake_in_the_program(keyword: str) -> None:
    with pytest.raises(TypeError, match="no such flags"):
        load(NEEDED, {keyword: None})


def _command(environ: dict[str, str], results: list[Loaded]) -> click.Command:
    @click.command()
    @options
    def command(**flags: object) -> None:
        results.append(load(environ, flags))

    return command


def test_a_command_takes_every_setting_that_is_no_secret() -> None:
    results: list[Loaded] = []
    given = [
        "--nacos-server-addr=a,b:1", "--nacos-service=s", "--grace-period=1m", "--app-kill", "--no-loopback-open",
        "--release", "signal", "--listen", "127.0.0.1:0", "--nacos-ip", "10.0.0.1", "--log-level", "error",
        "--actuator-url", "app:9081", "--deregister-method=get", "--push-watch", "--dubbo-qos=127.0.0.1:22222",
    ]  # fmt: skip
    done = CliRunner().invoke(_command({"NACOS_DRAIN_LOOPBACK_OPEN": "true"}, results), given)
    assert done.exit_code == 0, done.output
    [result] = results
    assert result.settings == Settings(
        nacos=NacosSettings(server_addr=("http://a:8848/nacos", "http://b:1/nacos"), service=("s",), ip="10.0.0.1"),
        grace_period=60,
        app_kill=True,
        release=Release.SIGNAL,
        listen=Listen("127.0.0.1", 0),
        log_level=LogLevel.ERROR,
        actuator_url="http://app:9081/actuator",
        deregister_method=Method.GET,
        push_watch=True,
        dubbo_qos="127.0.0.1:22222",
    )


def test_the_help_of_a_command_is_the_declarations() -> None:
    output = CliRunner().invoke(_command({}, []), ["--help"], terminal_width=400).output
    words = " ".join(output.split())
    for row in describe():
        assert (f"{row.flag} " in words) == (row.flag is not None)
        assert row.flag is None or (row.help in words and f"; {row.name}]" in words)
    assert "password" not in words.lower()
    assert "token" not in words.lower().replace("without the token", "")


# --- the reference


def test_every_field_is_in_the_reference_once() -> None:
    fields = [name.name for name in dataclasses.fields(Settings) if name.name != "nacos"]
    fields += [f"nacos_{name.name}" for name in dataclasses.fields(NacosSettings)]
    rows = {row.name: row for row in describe()}
    secrets = {PREFIX + name for name in SECRETS}
    assert len(rows) == len(describe())
    assert rows.keys() == {PREFIX + name.upper() for name in fields} | {f"{name}_FILE" for name in secrets}
    assert {name for name, row in rows.items() if row.flag is None} == secrets | {f"{name}_FILE" for name in secrets}
    assert all(row.type and row.help.endswith(".") and row.why for row in rows.values())


def test_a_default_in_the_reference_can_be_set() -> None:
    defaults = {row.name: row.default for row in describe() if row.default}
    assert defaults["NACOS_DRAIN_CONSUMER_CACHE"] == "35s"
    assert load(defaults, need_nacos=False).settings == Settings()


# --- all at once


def test_everything_that_is_wrong_is_said_at_once() -> None:
    environ = {
        "NACOS_DRAIN_NACOS_SERVER_ADDR": f"http://nacos:{CANARY}@10.0.0.1:8848",
        "NACOS_DRAIN_NACOS_GROUP": "orders",
        "NACOS_DRAIN_NACOS_IP": "orders-0",
        "NACOS_DRAIN_NACOS_PASSWORD": CANARY,
        "NACOS_DRAIN_TOKEN": CANARY,
        "NACOS_DRAIN_TOKEN_FILE": "/run/token",
        "NACOS_DRAIN_GRACE_PERIOD": "2 minutes",
        "NACOS_DRAIN_NACOS_SECRET_KEY": CANARY,
        "NACOS_DRAIN_SETTLE_FLOOR": "1m",
        "NACOS_DRAIN_SETTLE_QUIET": "-3",
        "NACOS_DRAIN_SETTLE_FACTOR": "three",
        "NACOS_DRAIN_NODE_IP": "10.0.0.1, node-1",
        "NACOS_DRAIN_IGNORE_NETWORKS": "10.0.0.7/16",
        "NACOS_DRAIN_NACOS_PORT": "tcp://10.96.0.7:8848",
        "NACOS_DRAIN_OOPS": CANARY,
    }
    with pytest.raises(SettingsError) as caught:
        load(environ, {"release": "stop", "app_ports": "80,http"})
    credentials = "credentials go into NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"
    addresses = "host, host:port, [IPv6]:port or http(s)://host:port/path, several with commas"
    durations = "seconds, or units as in 40s, 1m30s, 500ms; not negative"
    login = "a user with a password, or an access key with its secret key"
    together = "set together with NACOS_DRAIN_NACOS_PASSWORD, but a Nacos server checks only one kind of login"
    service = "NACOS_DRAIN_NACOS_SERVICE"
    alone = f"describes {service}, and has no effect without it: the app tells its own"
    text = "any text, or a file's path under this name with _FILE behind it"
    bits = "'10.0.0.7/16' has bits behind its prefix: write 10.0.0.0/16, or 10.0.0.7 for that one alone"
    networks = "10.0.0.0/8, fd00::/8 or one address, several with commas"
    peers = "IPv4 or IPv6 addresses, several with commas"
    late = "longer than the cap of 40s, at which SETTLE ends whatever is seen"
    assert str(caught.value).split("\n") == [
        "15 settings are wrong:",
        f"  NACOS_DRAIN_NACOS_SERVER_ADDR=***: {credentials}. Valid: {addresses}",
        "  NACOS_DRAIN_NACOS_IP='orders-0': not an IP address. Valid: one IPv4 or IPv6 address",
        f"  NACOS_DRAIN_GRACE_PERIOD='2 minutes': not a duration. Valid: {durations}",
        f"  NACOS_DRAIN_TOKEN=***: set together with NACOS_DRAIN_TOKEN_FILE. Valid: {text}",
        "  --release='stop': not one of these. Valid: hook, signal, actuator",
        "  --app-ports='80,http': 'http' is not a port. Valid: 1 to 65535, several with commas",
        f"  NACOS_DRAIN_SETTLE_QUIET='-3': not a duration. Valid: {durations}",
        "  NACOS_DRAIN_SETTLE_FACTOR='three': not a number. Valid: 1 or more, as 3 or 2.5",
        f"  NACOS_DRAIN_IGNORE_NETWORKS='10.0.0.7/16': {bits}. Valid: {networks}",
        f"  NACOS_DRAIN_NODE_IP='10.0.0.1, node-1': 'node-1' is not an IP address. Valid: {peers}",
        f"  NACOS_DRAIN_NACOS_USERNAME: not set, but NACOS_DRAIN_NACOS_PASSWORD is. Valid: {text}",
        f"  NACOS_DRAIN_NACOS_ACCESS_KEY: not set, but NACOS_DRAIN_NACOS_SECRET_KEY is. Valid: {text}",
        f"  NACOS_DRAIN_NACOS_SECRET_KEY=***: {together}. Valid: {login}",
        f"  NACOS_DRAIN_SETTLE_FLOOR='1m': {late}. Valid: at most 40s, or a longer NACOS_DRAIN_CONSUMER_CACHE",
        f"  NACOS_DRAIN_NACOS_GROUP='orders': {alone}. Valid: set {service} too, or leave it unset",
    ]


def test_one_fault_is_one() -> None:
    with pytest.raises(SettingsError, match=r"^1 setting is wrong:\n  NACOS_DRAIN_NACOS_SERVER_ADDR: not set,"):
        load({"NACOS_DRAIN_NACOS_SERVICE": "a"})


def test_a_long_value_is_cut_and_control_characters_are_harmless() -> None:
    shown = fault("GRACE_PERIOD", "x" * 5000 + "\n").value_shown
    assert shown == repr("x" * 80 + "…")
    assert "\n" not in fault("GRACE_PERIOD", "1s\n\x1b[2J2s").value_shown


# --- secrets


def test_a_secret_is_read_and_shown_to_nobody() -> None:
    secret = loaded(TOKEN=CANARY).settings.token
    assert secret is not None
    assert secret.read() == CANARY
    assert {str(secret), repr(secret), f"{secret}", f"{secret!r}", f"{secret!s}"} == {"***"}
    assert not hasattr(secret, "__dict__")


def test_blanks_belong_to_a_secret_but_one_newline_at_its_end_does_not(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for written, meant in [(" t ", " t "), ("t\n", "t"), ("t\r\n", "t"), ("t\n\n", "t\n")]:
        file.write_bytes(written.encode())
        for variable in ({"TOKEN": written}, {"TOKEN_FILE": str(file)}):
            secret = loaded(**variable).settings.token
            assert secret is not None
            assert secret.read() == meant


def test_a_secrets_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    nacos = loaded(NACOS_USERNAME="u", NACOS_PASSWORD_FILE=str(file)).settings.nacos
    assert nacos.password is not None
    for text in ("first", "second"):
        file.write_text(text)
        assert nacos.password.read() == text


@pytest.mark.parametrize("name", SECRETS)
def test_an_unreadable_file_warns_and_stops_nothing(name: str, tmp_path: Path) -> None:
    pair = next((pair for pair in PAIRS if name in pair), ())
    there = {f"{each}_FILE": __file__ for each in pair}
    result = loaded(**INSIDE | there | {f"{name}_FILE": str(tmp_path / "none")})
    assert result.warnings == [f"NACOS_DRAIN_{name}_FILE: cannot read {tmp_path}/none: No such file or directory"]


def test_what_an_unreadable_file_says_is_its_name_and_never_its_content(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    contents = {b"": "it is empty", b"\n": "it is empty", CANARY.encode("latin-1"): "not UTF-8 text"}
    for content, reason in contents.items():
        file.write_bytes(content)
        with pytest.raises(SecretUnreadable) as caught:
            Secret(file=str(file)).read()
        assert str(caught.value) == f"cannot read {file}: {reason}"
        assert caught.value.__context__ is None
    for path, reason in {str(tmp_path): "Is a directory", "a\0b": "not a usable path"}.items():
        with pytest.raises(SecretUnreadable, match=reason):
            Secret(file=path).read()


def traces(secret: str) -> list[str]:
    """The forms in which a secret may slip into an output."""
    raw = secret.encode()
    forms = [secret, repr(secret)[1:-1], quote(secret), quote(secret, safe=""), b64encode(raw).decode(), raw.hex()]
    return [*forms, "c4n4ry", "Pass word"]


def test_no_message_and_no_repr_has_a_secret_in_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(CANARY)
    signed = ("NACOS_ACCESS_KEY", "NACOS_SECRET_KEY")
    from_variables = {name: CANARY for name in PLAIN_SECRETS if name not in signed} | INSIDE
    from_files = {f"{name}_FILE": str(file) for name in SECRETS if name not in signed} | INSIDE
    key = dict.fromkeys(signed, CANARY) | INSIDE | {"DEREGISTER_HEADERS": CANARY_HEADER}
    mistaken = {"NACOS_ACCESS_KEY": CANARY, "ACTUATOR_URL": f"http://u:{CANARY}@app/", "NACOS_PASS": CANARY}
    mistaken |= {"DEREGISTER_URL": f"http://u:{CANARY}@app/", "DUBBO_QOS": f"{CANARY}@app:1"}
    mistaken |= {"DEREGISTER_HEADERS": CANARY}
    said: list[str] = []
    for variables in (from_variables, from_files, key):
        result = loaded(**variables, NACOS_PASS=CANARY, RELEASE="signal")
        said += [repr(result), str(result), *result.warnings, repr(dataclasses.asdict(result.settings))]
    for address in (
        f"{CANARY}@nacos", f"http://u:{CANARY}@nacos", f"a,http://u:{CANARY}@nacos:8848/nacos,b",
        f"http://nacos/?password={CANARY}", f"nacos#{CANARY.replace('@', '')}",
    ):  # fmt: skip
        variables = from_variables | from_files | mistaken | {"NACOS_SERVER_ADDR": address}
        wrong = {PREFIX + name: value for name, value in variables.items()}
        with pytest.raises(SettingsError) as caught:
            load(wrong, {"grace_period": "x"})
        said += [str(caught.value), repr(caught.value), repr(caught.value.faults)]
    for text in said:
        assert not [trace for trace in traces(CANARY) if trace in text]


def test_the_check_for_secrets_would_find_one() -> None:
    assert traces(CANARY)[0] in f"so {CANARY} it is"
    assert Secret(CANARY).read() == CANARY


def test_a_subscription_needs_to_know_its_servers_from_the_start() -> None:
    with pytest.raises(SettingsError, match="PUSH_WATCH='true': needs NACOS_DRAIN_NACOS_SERVER_ADDR"):
        load({"NACOS_DRAIN_PUSH_WATCH": "true"})
    assert load({"NACOS_DRAIN_PUSH_WATCH": "true", "NACOS_DRAIN_NACOS_SERVER_ADDR": "nacos"}).settings.push_watch
