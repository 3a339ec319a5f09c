"""Signed requests, as for Aliyun MSE. On the double, which checks them by itself, and against what the SDK signs."""

import asyncio
import json
import os
from base64 import b64decode
from http import HTTPStatus
from pathlib import Path

import pytest
from contract.echo import ECHOES, echo, told_twice
from contract.shop import ALL, APP, IP, LISTS, PASSWORD, SHOP, USER, client, pair, requests, shop
from needs import lacking
from rig.build import RigUnavailableError
from rig.clients import PYTHON, find_client

from sidecar.adapters.nacos import Nacos, name_of
from sidecar.adapters.nacos.signing import signed
from sidecar.demo.double import Access, Dialect, Double
from sidecar.http import Http
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Record


KEYS = ("LTAI5tExampleKey+1", "s3cr3t/Ke%y with+all?of&it=ö")
SIGNER = Path(__file__).with_name("signer.py")
VARIABLES = "NACOS_DRAIN_NACOS_ACCESS_KEY and NACOS_DRAIN_NACOS_SECRET_KEY"


def access() -> Access:
    """A registry that knows the keys and no user."""
    return Access({}, keys=dict([KEYS]))


# -- what is signed


@pytest.mark.parametrize(
    ("keys", "grouped", "data", "signature"),
    [
        # Each checked with `printf DATA | openssl dgst -sha1 -hmac KEY -binary | base64`.
        (("ak", "sk"), "DEFAULT_GROUP@@shop", "1700000000123@@DEFAULT_GROUP@@shop", "KoxGuxkfHke49z9Ck9rPU3Wbvvw="),
        (("ak", "sk"), "", "1700000000123", "Eum4BXZBhgaYXJPL3bBiBkFTmu0="),
        (
            KEYS,
            "a group@@providers:a.B:1.0:",
            "1700000000123@@a group@@providers:a.B:1.0:",
            "/8Wd5WecBj5/wpvXvFVehaMWhuA=",
        ),
    ],
)
def test_a_known_answer(keys: tuple[str, str], grouped: str, data: str, signature: str) -> None:
    assert signed(*keys, grouped, at=1700000000.1239) == {"ak": keys[0], "data": data, "signature": signature}


@pytest.mark.real
@pytest.mark.parametrize(("group", "service"), [("DEFAULT_GROUP", "shop"), ("a group", "providers:a.B:1.0:ö")])
async def test_the_official_client_signs_alike(group: str, service: str) -> None:
    try:
        find_client()
    except RigUnavailableError as missing:
        lacking(str(missing))
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, SIGNER, *KEYS, group, service),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},  # its packages' deprecations, not ours
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    theirs = json.loads(out)
    at = int(theirs["data"].split("@@")[0]) / 1000
    ours = signed(*KEYS, f"{group}@@{service}", at=at + 0.0001)
    assert ours == {name: theirs[name] for name in ("ak", "data", "signature")}


# -- every call


@pytest.mark.parametrize("dialect", ["1.4", "2.2", "3.1"])
async def test_every_call_is_signed(dialect: Dialect) -> None:
    """Housekeeping too; only who a server is, which everybody is told, is asked for without."""
    async with (
        Double(dialect, access=access(), auth="all") as double,
        client(double.url, user=None, keys=KEYS) as nacos,
    ):
        await nacos.nacos.refresh()
        for call in LISTS:
            assert await call(nacos) == ()
        with pytest.raises(NotThere):
            await nacos.disable()
        await nacos.nacos.permitted(nacos.node, APP)
        with pytest.raises(NotThere):
            await nacos.nacos.threshold(nacos.node, SHOP)
        await nacos.nacos.publisher(nacos.node, APP)
        assert await nacos.nacos.down() == frozenset()
        await nacos.nacos.login(nacos.node)  # nothing to log in with, nothing to complain about
        assert all(entry.status != HTTPStatus.FORBIDDEN for entry in double.log)
        assert all("signature" in entry.params for entry in double.log if "/state" not in entry.path)
        assert requests(double, "/auth/") == 0


async def test_an_app_goes_out_and_back_with_keys_alone() -> None:
    async with pair("2.2", access=access(), auth="all", user=None, keys=KEYS) as (double, nacos):
        await nacos.disable()
        record = double.naming.record("shop", APP.ip, APP.port)
        assert record is not None
        assert not record.enabled
        await nacos.enable()
        assert record is not double.naming.record("shop", APP.ip, APP.port)


async def test_who_has_a_password_and_keys_logs_in_and_signs() -> None:
    """As the official client does: each of its plugins adds what it has, and the server takes what it knows."""
    both = Access({USER: PASSWORD}, keys=dict([KEYS]))
    async with pair(access=both, auth="all", keys=KEYS) as (double, nacos):
        await nacos.look()
        assert both.logins == 1
        assert "signature" in double.log[-1].params
    passwords = Access({USER: PASSWORD})
    async with pair(access=passwords, auth="all", keys=KEYS) as (_, nacos):
        assert len(await nacos.look()) == 1
    async with pair("2.2", access=access(), auth="all", keys=KEYS) as (double, nacos):
        for _ in range(3):
            assert len(await nacos.look()) == 1
        assert requests(double, "/auth/") == 1  # MSE has no such user; that is no reason to ask at each call


# -- refused


@pytest.mark.parametrize("keys", [("nobody-by-that-name", KEYS[1]), (KEYS[0], "another secret")])
@pytest.mark.parametrize("user", [None, USER])
async def test_keys_that_are_refused_are_told_with_the_settings_to_look_at(
    keys: tuple[str, str], user: str | None
) -> None:
    async with shop("2.2", access=access(), auth="all") as double, client(double.url, user=user, keys=keys) as nacos:
        for call in ALL:
            with pytest.raises(Rejected, match=rf"403 to a signed request: invalid signature.*; check {VARIABLES}"):
                await call(nacos)
        assert nacos.result == "rejected"


async def test_keys_that_may_only_read_are_told_so_before_the_day() -> None:
    async with pair("2.2", access=access(), auth="all", user=None, keys=KEYS) as (double, nacos):
        double.access.readers.add(KEYS[0])
        assert len(await nacos.look()) == 1
        with pytest.raises(Rejected, match="403 to a signed request: authorization failed!"):
            await nacos.nacos.permitted(nacos.node, APP)


async def test_keys_are_read_at_each_use() -> None:
    """Mounted late, and rotated while we run."""
    known: list[tuple[str, str]] = []

    def read() -> tuple[str, str]:
        if not known:
            raise Unavailable("cannot read /run/secrets/key: No such file or directory")
        return known[-1]

    async with shop("2.2", access=access(), auth="all") as double:
        http = Http()
        nacos = Nacos(http, [double.url], keys=read)
        node = name_of(double.url)
        with pytest.raises(Unavailable, match="cannot read /run/secrets/key"):
            await nacos.read(node, SHOP, [IP], fresh=False)
        known.append((KEYS[0], "the one before"))
        with pytest.raises(Rejected):
            await nacos.read(node, SHOP, [IP], fresh=False)
        known.append(KEYS)
        assert await nacos.read(node, SHOP, [IP], fresh=False) == (Record(APP),)
        await http.close()


# -- nothing of it in anything that is said


@pytest.mark.parametrize("form", ECHOES)
@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 502])
async def test_nothing_that_is_said_holds_our_keys_or_signatures(status: int, form: str) -> None:
    async with echo(status, form, login=False) as (url, heard), client(url, user=None, keys=KEYS) as nacos:
        said = await told_twice(nacos)
        assert len(heard.signatures) >= 10
        assert all(len(b64decode(each)) == 20 for each in heard.signatures)
        assert not said.has(*KEYS, *heard.signatures)


async def test_a_message_cut_short_is_masked_before_it_is_cut() -> None:
    """Half a signature is a signature to somebody who has the other half."""
    async with echo(200, "json", login=False) as (url, heard), client(url, user=None, keys=KEYS) as nacos:
        said = await told_twice(nacos)
        for signature in heard.signatures:
            assert not [text for text in said.texts if signature[:8] in text]
