"""Logging in, being refused, and keeping quiet about it. On the double: the published 2.2.4 has no auth module."""

import asyncio
from http import HTTPStatus

import pytest
from contract.echo import ECHOES, echo, told_twice
from contract.shop import ALL, APP, IP, LISTS, MODERN, PASSWORD, SHOP, USER, client, pair, requests, shop

from sidecar.adapters.nacos import Nacos, name_of
from sidecar.demo.double import Access, Dialect, Double
from sidecar.http import Http
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Record


VARIABLES = "NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"


# -- who we are


@pytest.mark.parametrize(("dialect", "auth"), [("2.2", "all"), ("3.1", "admin"), ("3.1", "all"), ("1.4", "all")])
async def test_a_login_comes_before_the_first_call_and_is_kept(dialect: Dialect, auth: str) -> None:
    access = Access({USER: PASSWORD})
    async with Double(dialect, access=access, auth=auth) as double, client(double.url) as nacos:  # type: ignore[arg-type]  # one of Auth
        for call in LISTS:
            assert await call(nacos) == ()
        with pytest.raises(NotThere):
            await nacos.disable()
        assert access.logins == 1
        assert all(entry.status != HTTPStatus.FORBIDDEN for entry in double.log)


async def test_logins_of_calls_at_once_are_one() -> None:
    async with shop(auth="all") as double, client(double.url) as nacos:
        several = ([IP, f"10.9.0.{n}"] for n in range(2, 10))  # else they were one call
        reads = (nacos.nacos.read(nacos.node, SHOP, addresses, fresh=False) for addresses in several)
        assert await asyncio.gather(*reads) == [(Record(APP),)] * 8
        assert double.access.logins == 1


@pytest.mark.parametrize("dialect", MODERN)
@pytest.mark.parametrize("lose", ["expire", "revoke"])
async def test_a_lost_token_costs_one_login_and_one_repeat(dialect: Dialect, lose: str) -> None:
    async with pair(dialect, auth="all") as (double, nacos):
        before = double.access.logins
        getattr(double.access, lose)()
        looks = (nacos.nacos.look(nacos.node, SHOP, [IP, f"10.9.0.{n}"]) for n in range(2, 6))
        assert await asyncio.gather(*looks) == [(Record(APP),)] * 4
        assert double.access.logins == before + 1


async def test_a_user_who_may_not_write_is_no_reason_to_log_in_again_and_again() -> None:
    """403 is the same for both, and a fleet of sidecars that all log in is a load."""
    async with pair() as (double, nacos):
        double.access.readers.add(USER)
        before = double.access.logins
        for _ in range(5):
            with pytest.raises(Rejected, match="403 after a login: Code: 403, Message: authorization failed!"):
                await nacos.disable()
        assert double.access.logins <= before + 1
        assert len(await nacos.look()) == 1


@pytest.mark.parametrize(("dialect", "status"), [("2.2", 403), ("3.1", 500)])
async def test_a_wrong_password_is_tried_once_in_a_while(dialect: Dialect, status: int) -> None:
    async with shop(dialect, auth="all") as double, client(double.url, password="wrong") as nacos:
        for call in ALL:
            with pytest.raises(Rejected, match=f"refuses the login .it answers {status}.: check {VARIABLES}"):
                await call(nacos)
        assert requests(double, "/auth/") == 1
        assert nacos.result == "rejected"


@pytest.mark.parametrize("dialect", MODERN)
async def test_without_credentials_a_403_names_what_to_set(dialect: Dialect) -> None:
    async with shop(dialect, auth="all") as double, client(double.url, user=None) as nacos:
        for call in ALL:
            with pytest.raises(Rejected, match=f"403 without credentials: set {VARIABLES}"):
                await call(nacos)


async def test_a_login_that_is_in_trouble_is_worth_another_try() -> None:
    async with shop(auth="all") as double, client(double.url) as nacos:
        double.faults.set("unavailable", "logins")
        with pytest.raises(Unavailable, match="answers 503 to the login"):
            await nacos.read()


@pytest.mark.parametrize(
    "body", ["<html>welcome</html>", "{}", "[]", '{"accessToken":"a"}', '{"accessToken":"a\\nb","tokenTtl":1}']
)
async def test_a_login_without_a_usable_token_is_none(body: str) -> None:
    async with shop(auth="all") as double, client(double.url) as nacos:
        double.faults.set("status", "logins", status=200, body=body)
        with pytest.raises(Unavailable, match=r"the login at .* failed"):
            await nacos.read()


async def test_a_server_without_a_login_is_read_all_the_same() -> None:
    """Credentials that are set everywhere, and the published 2.2.4 without its auth module."""
    async with pair("2.2", console=False) as (double, nacos):
        await nacos.disable()
        assert requests(double, "/auth/") == 1


async def test_a_password_file_that_cannot_be_read_is_told_and_read_again() -> None:
    """Secrets are mounted late, and rotated."""
    secrets: list[tuple[str, str]] = []

    def read() -> tuple[str, str]:
        if not secrets:
            raise Unavailable("cannot read /run/secrets/nacos: No such file or directory")
        return secrets[0]

    async with shop(auth="all") as double:
        http = Http()
        nacos = Nacos(http, [double.url], credentials=read)
        node = name_of(double.url)
        with pytest.raises(Unavailable, match="cannot read /run/secrets/nacos"):
            await nacos.read(node, SHOP, [IP], fresh=False)
        secrets.append((USER, PASSWORD))
        again = Nacos(http, [double.url], credentials=read)
        assert len(await again.read(node, SHOP, [IP], fresh=False)) == 1
        await http.close()


# -- nothing of it in anything that is said


@pytest.mark.parametrize("login", [True, False], ids=["logged-in", "not"])
@pytest.mark.parametrize("form", ECHOES)
@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 500, 502])
async def test_nothing_that_is_said_holds_our_credentials(status: int, form: str, *, login: bool) -> None:
    """Some proxies answer with what they were sent."""
    async with echo(status, form, login=login) as (url, heard), client(url) as nacos:
        said = await told_twice(nacos)
        assert bool(heard.tokens) is login
        assert not said.has(USER, PASSWORD, *heard.tokens)


async def test_what_is_quoted_is_quoted_for_a_person() -> None:
    """Masking must not eat the message itself."""
    async with pair() as (double, nacos):
        body = f"upstream connect error\n  for {USER}, token ends with abc"
        double.faults.set("status", "writes", status=502, body=body)
        with pytest.raises(Unavailable, match=r"answers 502: upstream connect error for \*\*\*, token ends with abc$"):
            await nacos.disable()


async def test_a_login_that_takes_longer_than_a_call_may_wait_is_there_for_the_next_one() -> None:
    """A busy Nacos takes seconds for a password's hash: giving up each time would never get in."""
    async with shop(auth="all") as double, client(double.url) as nacos:
        double.faults.set("slow", "logins", seconds=3.5)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(Unavailable, match=r"has not answered the login within 1\.5 s"):
            await nacos.read()
        assert await nacos.read() == (Record(APP),)
        assert loop.time() - begun < 5.0
        assert requests(double, "login") == 1
