"""Credentials of every kind go through a whole run, its failures and the command line, and appear in no output."""

import asyncio
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, quote_plus

import pytest
from pod.scene import PUSH, Scene, command, scene
from pod.together import side_by_side

from sidecar.demo.double import Access, Double


pytestmark = pytest.mark.long


TOKEN = "canary/token+with=signs&more"
USER = "canary user@example"
PASSWORD = "canary:pass/word+ü&%"


def spellings(secret: str) -> Iterator[str]:
    """The ways in which it could turn up."""
    data = secret.encode()
    yield from (b64encode(data).decode(), urlsafe_b64encode(data).decode())
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1])


def assert_no_canary(outputs: list[str], minted: list[str]) -> None:
    """No output holds a credential in any spelling."""
    everything = "\n".join(outputs)
    assert "drain.finished" in everything
    assert "***" in everything  # somebody did try to repeat one
    for secret in (TOKEN, USER, PASSWORD, *minted):
        for spelling in spellings(secret):
            assert spelling not in everything


async def said_by(arguments: str, env: dict[str, str]) -> str:
    """All that a command prints."""
    _, out, err = await command(*arguments.split(), env=env)
    return out + err


async def everything_said(s: Scene) -> list[str]:
    """All that the pod has printed, and all that its port answers."""
    answers = [s.pod.timeline.text("sidecar"), *[str(await s.ask("GET", path)) for path in ("/status", "/metrics")]]
    answers += [str(await s.ask(method, path)) for method, path in (("POST", "/resume"), ("PUT", "/drain"))]
    return answers


async def a_drain_among_failures(s: Scene) -> list[str]:
    """Refusals, a server that repeats what it was sent, expired tokens, and a release in the end."""
    minted = next(iter(s.double.access._tokens))
    echo = f"denied: {USER} {PASSWORD} {quote(PASSWORD, safe='')} {b64encode(PASSWORD.encode()).decode()} {minted}"
    s.double.faults.set("status", "writes", status=500, body=echo, times=2)
    s.double.access.expire()
    said = [str(await s.hook("wrong")), str(await s.hook(TOKEN))]
    long_header = b"GET /status HTTP/1.1\r\nX-Drain-Token: " + TOKEN.encode() * 500 + b"\r\n\r\n"
    _, writer = await asyncio.open_connection(s.ip, s.port)
    writer.write(long_header)
    await s.pod.timeline.printed("sidecar", "aiohttp.server")
    writer.close()
    s.double.access.users["nacos"] = s.double.access.users[USER] = "changed"
    s.double.access.revoke()
    said.append(str(await s.hook(TOKEN)))
    return said


@side_by_side
async def test_no_credential_appears_in_any_output() -> None:
    access = Access({USER: PASSWORD})
    double = Double("3.1", push_delay=PUSH, access=access, auth="all")
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("token", "password")}
        files["token"].write_text(f"{TOKEN}\n")
        files["password"].write_text(PASSWORD)
        env = {
            "TOKEN_FILE": str(files["token"]),
            "NACOS_USERNAME": USER,
            "NACOS_PASSWORD": "",
            "NACOS_PASSWORD_FILE": str(files["password"]),
            "LOG_LEVEL": "debug",
        }
        async with scene(env, double=double) as s:
            said = await a_drain_among_failures(s)
            client = {
                "NACOS_DRAIN_TOKEN": TOKEN,
                "NACOS_DRAIN_LISTEN": f"{s.ip}:{s.port}",
                "NACOS_DRAIN_NACOS_USERNAME": USER,
                "NACOS_DRAIN_NACOS_PASSWORD": PASSWORD,
            }
            bad = {
                **client,
                "NACOS_DRAIN_NACOS_SERVER_ADDR": f"http://{USER}:{PASSWORD}@nacos:8848",
                "NACOS_DRAIN_TOKEN_FILE": str(files["token"]),
                "NACOS_DRAIN_NACOS_SECRET_KEY": PASSWORD,
                "NACOS_DRAIN_TOKEM": TOKEN,
            }
            commands = ("serve --help", "plan", "status --json", "drain", "drain --json --no-wait")
            said += await asyncio.gather(*(said_by(each, client) for each in commands), said_by("serve", bad))
            said += await everything_said(s)
            minted = [*access._tokens, *[request.params.get("accessToken", "") for request in double.log]]
            await s.pod.terminate()
            said.append(s.pod.timeline.text("sidecar"))
    assert access.logins >= 2
    assert_no_canary(said, [token for token in minted if token.startswith("eyJ")])
