"""A Nacos behind TLS, with an authority that no system knows. On the double; each fault has its own message."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from contract.shop import APP, Client, client, requests, shop

from sidecar.demo.double import Double
from sidecar.http import Http
from sidecar.ports import Unavailable
from sidecar.registration import Record


SETTING = "NACOS_DRAIN_NACOS_CA_FILE"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server(authority: trustme.CA, name: str = "127.0.0.1", **options: Any) -> ssl.SSLContext:
    """What a server needs that is called so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


@asynccontextmanager
async def behind(tls: ssl.SSLContext, ca_file: str | None, *, name: str = "") -> AsyncIterator[tuple[Double, Client]]:
    """A shop that is called by this name, and a client that believes the file."""
    http = Http(ca_file=ca_file, ca_setting=SETTING)
    async with shop("2.2", tls=tls, auth="all") as double:
        url = double.url.replace("127.0.0.1", name) if name else double.url
        async with client(url, http=http) as nacos:
            yield double, nacos


async def refusal(nacos: Client) -> str:
    """Why nothing works: the same for all calls, and never a refused connection, which would mean that it is down."""
    with pytest.raises(Unavailable) as read:
        await nacos.read()
    with pytest.raises(Unavailable) as write:
        await nacos.disable()
    assert str(read.value) == str(write.value)
    assert str(read.value).startswith(f"{nacos.node}: ")
    assert not read.value.refused
    assert "?" not in str(read.value).removesuffix("?")  # no URL, and so no query
    return str(read.value).removeprefix(f"{nacos.node}: ")


async def test_with_its_authority_it_is_spoken_to_as_any_other(authority: trustme.CA, ca_file: str) -> None:
    async with behind(server(authority), ca_file) as (double, nacos):
        await nacos.nacos.refresh()
        assert await nacos.read() == (Record(APP),)
        assert await nacos.nacos.read(nacos.node, APP.service, [APP.ip], fresh=True) == (Record(APP),)
        await nacos.disable()
        assert double.access.logins == 1
    async with behind(server(authority, "localhost"), ca_file, name="localhost") as (_, nacos):
        assert await nacos.read() == (Record(APP),)


async def test_a_file_may_hold_several_authorities_and_come_later(authority: trustme.CA, tmp_path: Path) -> None:
    """A volume that is mounted after our start, and the old and the new authority side by side."""
    path = tmp_path / "ca.pem"
    async with behind(server(authority), str(path)) as (_, nacos):
        assert "No such file" in await refusal(nacos)
        path.write_bytes(trustme.CA().cert_pem.bytes() + authority.cert_pem.bytes())
        assert await nacos.read() == (Record(APP),)


async def test_what_no_authority_of_the_system_signed_names_the_setting(authority: trustme.CA) -> None:
    async with behind(server(authority), None) as (double, nacos):
        assert await refusal(nacos) == (
            f"TLS failed: no authority of this system has signed the server's certificate: set {SETTING} to its own"
        )
        assert not double.log


async def test_the_wrong_authority_names_the_file_and_the_setting(authority: trustme.CA, ca_file: str) -> None:
    async with behind(server(trustme.CA()), ca_file) as (double, nacos):
        assert await refusal(nacos) == (
            f"TLS failed: the server's certificate is not signed by the authorities in {ca_file}: check {SETTING}"
        )
        assert requests(double, "/auth/") == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "it holds no certificates in PEM"),
        (b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00", "it holds no certificates in PEM"),  # DER
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it holds no certificates in PEM"),
        (b"folder", "Is a directory"),
    ],
    ids=["missing", "empty", "der", "broken", "folder"],
)
async def test_a_file_that_cannot_be_used_is_told_with_its_setting(
    authority: trustme.CA, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content == b"folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    async with behind(server(authority), str(path)) as (_, nacos):
        assert await refusal(nacos) == f"the CA file {path} cannot be used: {reason}: check {SETTING}"


async def test_a_private_key_is_no_authority(authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    authority.private_key_pem.write_to_path(str(path))
    async with behind(server(authority), str(path)) as (_, nacos):
        assert "it holds no certificates in PEM" in await refusal(nacos)


@pytest.mark.parametrize(
    ("name", "asked"), [("nacos.example", ""), ("127.0.0.1", "localhost"), ("localhost", "127.0.0.1")]
)
async def test_a_certificate_for_another_name_says_which_one_was_wanted(
    authority: trustme.CA, ca_file: str, name: str, asked: str
) -> None:
    async with behind(server(authority, name), ca_file, name=asked) as (_, nacos):
        said = await refusal(nacos)
        assert said.startswith("TLS failed: the server's certificate is for another name (")
        assert f"not valid for '{asked or '127.0.0.1'}')" in said
        assert SETTING not in said  # it is not the file's fault


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (NOW - 9 * DAY, NOW - DAY, "the server's certificate, or its authority's, has expired"),
        (NOW + DAY, NOW + 9 * DAY, "the server's certificate is not valid yet: is the clock right here?"),
    ],
)
async def test_a_certificate_has_its_time(
    authority: trustme.CA, ca_file: str, start: datetime, end: datetime, told: str
) -> None:
    async with behind(server(authority, not_before=start, not_after=end), ca_file) as (_, nacos):
        assert await refusal(nacos) == f"TLS failed: {told}"


async def test_a_port_that_speaks_no_tls_is_told_as_one(ca_file: str) -> None:
    http = Http(ca_file=ca_file, ca_setting=SETTING)
    async with shop() as double, client(double.url.replace("http:", "https:"), http=http) as nacos:
        assert await refusal(nacos) == "TLS failed: the other side does not answer as TLS: is it https there at all?"


async def test_a_port_that_speaks_tls_only_is_no_nacos(authority: trustme.CA) -> None:
    async with shop(tls=server(authority)) as double, client(double.url.replace("https:", "http:")) as nacos:
        with pytest.raises(Unavailable):
            await nacos.read()


async def test_without_the_name_of_a_setting_none_is_made_up(authority: trustme.CA, tmp_path: Path) -> None:
    path = str(tmp_path / "ca.pem")
    for ca_file, told in (
        (None, "TLS failed: no authority of this system has signed the server's certificate"),
        (path, f"the CA file {path} cannot be used: No such file or directory"),
    ):
        http = Http(ca_file=ca_file)
        async with shop(tls=server(authority)) as double, client(double.url, http=http) as nacos:
            assert await refusal(nacos) == told
