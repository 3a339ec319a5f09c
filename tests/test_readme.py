"""What README.md and docs/ have from the program is what it says now. Run this file as a program to write it anew."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from timetable_picture import DEFAULT_GRACE, picture

from sidecar.cli import timetable
from sidecar.plan import fit
from sidecar.settings import describe
from sidecar.settings.declaration import Option, declared
from sidecar.settle import Rule


ROOT = Path(__file__).resolve().parents[1]

TOUCHED = (  # the settings that most people need, in the order of the README
    "nacos.server_addr",
    "nacos.namespace",
    "nacos.group",
    "nacos.service",
    "nacos.port",
    "nacos.username",
    "nacos.password",
    "actuator_url",
    "grace_period",
    "app_stop",
    "consumer_cache",
    "node_ip",
    "ignore_networks",
    "token",
)

GROUPS = {  # the subjects of docs/settings.md; every setting belongs to one
    "nacos": (
        "nacos.server_addr",
        "nacos.namespace",
        "nacos.group",
        "nacos.service",
        "nacos.cluster",
        "nacos.ip",
        "nacos.port",
    ),
    "login": (
        "nacos.username",
        "nacos.password",
        "nacos.access_key",
        "nacos.secret_key",
        "nacos.ca_file",
        "borrow_credentials",
    ),
    "time": ("grace_period", "app_stop", "consumer_cache"),
    "release": ("release", "app_ports", "app_process", "app_kill"),
    "callers": (
        "node_ip",
        "ignore_networks",
        "single_peers",
        "settle_floor",
        "settle_quiet",
        "settle_factor",
        "settle_look_back",
    ),
    "inside": (
        "actuator_url",
        "actuator_username",
        "actuator_password",
        "actuator_ca_file",
        "deregister_url",
        "deregister_method",
        "deregister_body",
        "deregister_undo",
        "deregister_headers",
        "dubbo_qos",
    ),
    "proof": ("push_watch", "clear_residue"),
    "access": ("listen", "token", "loopback_open"),
    "log": ("log_format", "log_level"),
}

OPTIONS = {option.path: option for option in declared()}


def default(option: Option) -> str:
    """The default as it would be set, or what unset means."""
    return option.why if option.default in {None, ()} else f"`{option.kind.text(option.default)}`"


def touched() -> str:
    """The settings of the README."""
    rows = ["| variable | default | |", "|---|---|---|"]
    rows += [f"| `{OPTIONS[path].variable}` | {default(OPTIONS[path])} | {OPTIONS[path].help} |" for path in TOUCHED]
    return "\n".join(rows)


def group(name: str) -> Callable[[], str]:
    """Give what writes one subject's table."""

    def table() -> str:
        rows = ["| variable and flag | default | what it says | valid |", "|---|---|---|---|"]
        for option in (OPTIONS[path] for path in GROUPS[name]):
            second = f"`{option.flag}`" if option.flag else f"`{option.file_variable}`"
            unset = default(option)
            why = unset if unset == option.why else f"{unset}: {option.why}"
            rows.append(f"| `{option.variable}`<br>{second} | {why} | {option.help} | {option.kind.valid} |")
        return "\n".join(rows)

    return table


def secrets() -> str:
    """Which settings are secrets."""
    each = [f"`{doc.name.removesuffix('_FILE')}`" for doc in describe() if doc.name.removesuffix("_FILE") in SECRETS]
    names = list(dict.fromkeys(each))
    return f"{', '.join(names[:-1])} and {names[-1]}."


SECRETS = {option.variable for option in declared() if option.file_variable}


def plan_example() -> str:
    """The plan of the manifest above it."""
    return f"```\n$ nacos-drain plan --grace-period 120\n{timetable(fit(120, None, 35), Rule())}\n```"


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"settings": touched, "plan": plan_example},
    "docs/settings.md": {"secrets": secrets, **{f"settings-{name}": group(name) for name in GROUPS}},
}
FILES: dict[str, Callable[[], str]] = {"docs/timetable.svg": picture}


def part(name: str, text: str) -> str:
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)\n?<!-- {name}:end -->", text, re.DOTALL)
    assert found is not None, name
    return found.group(1)


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, parts in PARTS.items() for name in parts])
def test_the_pages_say_what_the_program_says(page: str, name: str) -> None:
    told = part(name, (ROOT / page).read_text())
    assert told == PARTS[page][name](), f"run: python tests/test_readme.py ({page}, {name} has changed)"


@pytest.mark.parametrize("file", FILES)
def test_the_pictures_are_what_is_drawn_now(file: str) -> None:
    assert (ROOT / file).read_text() == FILES[file](), f"run: python tests/test_readme.py ({file} has changed)"


def test_every_setting_has_its_place_in_the_reference() -> None:
    assert sorted(path for paths in GROUPS.values() for path in paths) == sorted(OPTIONS)


def test_the_numbers_in_the_text_are_those_of_the_plan() -> None:
    plan = fit(DEFAULT_GRACE, None, 35)
    words = f"SETTLE gets {plan.settle:g} s of {plan.cap:g} s. {plan.grace_needed:g} s cover a 35 s cache"
    assert words in (ROOT / "docs/how-it-works.md").read_text()


def main() -> None:
    """Write every generated part."""
    for page, parts in PARTS.items():
        text = (ROOT / page).read_text()
        for name, written in parts.items():
            head, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
            _, end, tail = rest.partition(f"<!-- {name}:end -->")
            if not end:
                raise SystemExit(f"{page} has no place for {name}")
            text = f"{head}{begin}{written()}\n{end}{tail}"
        (ROOT / page).write_text(text)
    for file, drawn in FILES.items():
        (ROOT / file).write_text(drawn())


if __name__ == "__main__":
    main()
