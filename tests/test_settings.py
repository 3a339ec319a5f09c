"""Settings as users write them: by variable, by file and by flag, rightly and wrongly."""

import dataclasses
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sidecar.settings import (
    Fault,
    Listen,
    Loaded,
    LogFormat,
    LogLevel,
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


PREFIX = "NACOS_DRAIN_"
NEEDED = {"NACOS_DRAIN_NACOS_SERVER_ADDR": "nacos", "NACOS_DRAIN_NACOS_SERVICE": "orders"}
CANARY = "c4n4ry/+Pass word,:@?#ü"


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


@pytest.mark.parametrize(
    "written",
    [
        "soon", "-1", "-1s", "+1", "nan", "inf", "infinity", "1e3", "1_000", "40S", "40 s", "1m 30s", "30s1m", "s", "m",
        "ms", "1,5", ".5", "5.", "1d", "PT40S", "0x10", "٤", "9" * 400, "9" * 400 + "s", "40s\n40s", "40;",
    ],
)  # fmt: skip
def test_anything_else_is_no_duration(written: str) -> None:
    assert fault("GRACE_PERIOD", written).problem == "not a duration"
    assert fault("CONSUMER_CACHE", written).problem == "not a duration"


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
        ("LOG_FORMAT", "json", LogFormat.JSON),
        ("LOG_FORMAT", "console", LogFormat.CONSOLE),
        ("LOG_LEVEL", "DEBUG", LogLevel.DEBUG),
    ],
)
def test_the_sidecar_itself(name: str, written: str, value: object) -> None:
    assert getattr(loaded(**{name: written}).settings, name.lower()) == value


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
        ("RELEASE", "actuator", "not in this version"),
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
    ],
)
def test_a_wrong_value_is_named_shown_and_answered_with_a_right_one(name: str, written: str, problem: str) -> None:
    wrong = fault(name, written)
    assert (wrong.name, wrong.value_shown, wrong.problem) == (PREFIX + name, repr(written), problem)
    assert wrong.valid


def test_a_choice_lists_its_words() -> None:
    assert fault("LOG_FORMAT", "text").valid == "auto, json, console"


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
        ),
        grace_period=None,
        listen=Listen("", 19081),
        token=None,
        release=Release.HOOK,
        app_ports=(),
        app_stop=None,
        app_process=None,
        app_kill=False,
        consumer_cache=35.0,
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
    everything = {row.name: blank for row in describe()} | {"NACOS_DRAIN_PUSH_WATCH": blank, "NACOS_DRAIN_OOPS": blank}
    assert load(everything | NEEDED) == load(NEEDED)
    assert load(NEEDED, dict.fromkeys(["grace_period", "listen"], blank)) == load(NEEDED)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().app_kill = True  # type: ignore[misc]  # what is tested


# --- what belongs together


def test_nacos_has_to_be_named() -> None:
    assert [(wrong.name, wrong.value_shown, wrong.problem) for wrong in faults({})] == [
        ("NACOS_DRAIN_NACOS_SERVER_ADDR", "", "not set"),
        ("NACOS_DRAIN_NACOS_SERVICE", "", "not set"),
    ]


def test_a_plan_needs_no_nacos_but_right_settings() -> None:
    assert load({}, need_nacos=False).settings == Settings()
    assert [wrong.name for wrong in faults({"NACOS_DRAIN_NACOS_PORT": "x"}, need_nacos=False)] == [
        "NACOS_DRAIN_NACOS_PORT"
    ]


@pytest.mark.parametrize("how", ["", "_FILE"])
@pytest.mark.parametrize(("one", "other"), [("USERNAME", "PASSWORD"), ("PASSWORD", "USERNAME")])
def test_a_user_needs_a_password_and_a_password_a_user(one: str, other: str, how: str) -> None:
    [wrong] = faults(NEEDED | {f"NACOS_DRAIN_NACOS_{one}{how}": "x"})
    assert wrong.name == f"NACOS_DRAIN_NACOS_{other}"
    assert wrong.problem == f"not set, but NACOS_DRAIN_NACOS_{one}{how} is"


@pytest.mark.parametrize("name", ["TOKEN", "NACOS_USERNAME", "NACOS_PASSWORD"])
def test_a_secret_comes_from_one_place(name: str) -> None:
    both = {PREFIX + name: CANARY, f"{PREFIX}{name}_FILE": "/run/secret"}
    pair = {"NACOS_DRAIN_NACOS_USERNAME": "u", "NACOS_DRAIN_NACOS_PASSWORD": "p"}
    [wrong] = faults(NEEDED | pair | both)
    assert (wrong.name, wrong.value_shown) == (PREFIX + name, "***")
    assert wrong.problem == f"set together with NACOS_DRAIN_{name}_FILE"


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
def test_a_signal_on_anybodys_word_is_warned_about(listen: str, token: str, *, warned: bool) -> None:
    warning = (
        "NACOS_DRAIN_RELEASE=signal without NACOS_DRAIN_TOKEN: only loopback may drain,"
        f" although NACOS_DRAIN_LISTEN={listen} is open to others"
    )
    assert loaded(RELEASE="signal", LISTEN=listen, TOKEN=token).warnings == [warning] * warned
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


@pytest.mark.parametrize(
    "name",
    [
        "ACTUATOR_URL", "NACOS_ACCESS_KEY", "NACOS_SECRET_KEY", "SETTLE_FLOOR", "SETTLE_QUIET", "SETTLE_FACTOR",
        "SETTLE_LOOK_BACK", "SINGLE_PEERS", "IGNORE_NETWORKS", "NODE_IP", "PUSH_WATCH",
        "NACOS_ACCESS_KEY_FILE", "NACOS_SECRET_KEY_FILE",
    ],
)  # fmt: skip
def test_a_promised_name_is_refused_until_it_works(name: str) -> None:
    wrong = fault(name, "5")
    assert (wrong.name, wrong.problem) == (PREFIX + name, "not in this version")
    assert wrong.value_shown == ("***" if "KEY" in name else "'5'")


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


@pytest.mark.parametrize("keyword", ["token", "nacos_password", "grace", "nacos.port"])
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
    secrets = {"NACOS_DRAIN_TOKEN", "NACOS_DRAIN_NACOS_USERNAME", "NACOS_DRAIN_NACOS_PASSWORD"}
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
        "NACOS_DRAIN_NACOS_IP": "orders-0",
        "NACOS_DRAIN_NACOS_PASSWORD": CANARY,
        "NACOS_DRAIN_TOKEN": CANARY,
        "NACOS_DRAIN_TOKEN_FILE": "/run/token",
        "NACOS_DRAIN_GRACE_PERIOD": "2 minutes",
        "NACOS_DRAIN_NACOS_SECRET_KEY": CANARY,
        "NACOS_DRAIN_SETTLE_QUIET": "3",
        "NACOS_DRAIN_NACOS_PORT": "tcp://10.96.0.7:8848",
        "NACOS_DRAIN_OOPS": CANARY,
    }
    with pytest.raises(SettingsError) as caught:
        load(environ, {"release": "actuator", "app_ports": "80,http"})
    credentials = "credentials go into NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"
    addresses = "host, host:port, [IPv6]:port or http(s)://host:port/path, several with commas"
    durations = "seconds, or units as in 40s, 1m30s, 500ms; not negative"
    text = "any text, or a file's path under this name with _FILE behind it"
    assert str(caught.value).split("\n") == [
        "10 settings are wrong:",
        f"  NACOS_DRAIN_NACOS_SERVER_ADDR=***: {credentials}. Valid: {addresses}",
        "  NACOS_DRAIN_NACOS_IP='orders-0': not an IP address. Valid: one IPv4 or IPv6 address",
        f"  NACOS_DRAIN_GRACE_PERIOD='2 minutes': not a duration. Valid: {durations}",
        f"  NACOS_DRAIN_TOKEN=***: set together with NACOS_DRAIN_TOKEN_FILE. Valid: {text}",
        "  --release='actuator': not in this version. Valid: hook, signal",
        "  --app-ports='80,http': 'http' is not a port. Valid: 1 to 65535, several with commas",
        "  NACOS_DRAIN_NACOS_SERVICE: not set. Valid: bare service names, several with commas",
        f"  NACOS_DRAIN_NACOS_USERNAME: not set, but NACOS_DRAIN_NACOS_PASSWORD is. Valid: {text}",
        "  NACOS_DRAIN_NACOS_SECRET_KEY=***: not in this version. Valid: leave it unset",
        "  NACOS_DRAIN_SETTLE_QUIET='3': not in this version. Valid: leave it unset",
    ]


def test_one_fault_is_one() -> None:
    with pytest.raises(SettingsError, match=r"^1 setting is wrong:\n  NACOS_DRAIN_NACOS_SERVICE: not set\."):
        load({"NACOS_DRAIN_NACOS_SERVER_ADDR": "a"})


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


@pytest.mark.parametrize("name", ["TOKEN", "NACOS_USERNAME", "NACOS_PASSWORD"])
def test_an_unreadable_file_warns_and_stops_nothing(name: str, tmp_path: Path) -> None:
    pair = {"NACOS_USERNAME_FILE": __file__, "NACOS_PASSWORD_FILE": __file__}
    result = loaded(**pair | {f"{name}_FILE": str(tmp_path / "none")})
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
    from_variables = {"TOKEN": CANARY, "NACOS_USERNAME": CANARY, "NACOS_PASSWORD": CANARY}
    from_files = {f"{name}_FILE": str(file) for name in from_variables}
    mistaken = {"NACOS_ACCESS_KEY": CANARY, "ACTUATOR_URL": f"http://u:{CANARY}@app/", "NACOS_PASS": CANARY}
    said: list[str] = []
    for variables in (from_variables, from_files):
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
