"""What stands where Nacos should and answers with what it was sent; and what must not be found in what we say then."""

import json
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web
from contract.shop import ALL, Client

from sidecar.ports import Rejected, Unavailable


def spelled(secret: str) -> set[str]:
    """The forms in which a secret could be recognised."""
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    return forms | {b64encode(secret.encode()).decode(), urlsafe_b64encode(secret.encode()).decode()}


def from_base64(text: str) -> Iterator[str]:
    """Whatever is base64 in there, also when its beginning is cut off."""
    for run in re.findall(r"[A-Za-z0-9+/_-]{8,}", text):
        for start in range(4):
            piece = run[start : start + (len(run) - start) // 4 * 4]
            yield urlsafe_b64decode(piece.replace("+", "-").replace("/", "_")).decode(errors="replace")


@dataclass
class Heard:
    """What an echo was sent, and gave."""

    tokens: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)


@dataclass
class Said:
    """Everything that was told, with whatever is base64 in it."""

    texts: list[str]

    def __post_init__(self) -> None:
        self.texts += [decoded for text in self.texts for decoded in from_base64(text)]

    def has(self, *secrets: str) -> list[str]:
        """The texts that hold one of these, however it is spelled."""
        forms = [form.lower() for secret in secrets for form in spelled(secret)]
        return [text for text in self.texts if any(form in text.lower() for form in forms)]


async def told_twice(nacos: Client) -> Said:
    """Call everything twice, and collect what is told of it; nothing may succeed."""
    texts: list[str] = []
    for _ in range(2):
        await nacos.nacos.refresh()
        for call in ALL:
            with pytest.raises((Unavailable, Rejected)) as told:
                await call(nacos)
            texts.append(f"{told.value} {told.value!r}")
    return Said(texts + [" ".join(each) for each in nacos.counted])


ECHOES: dict[str, Callable[[str], str]] = {
    "plain": lambda heard: f"upstream said no to: {heard}",
    "json": lambda heard: json.dumps({"code": 500, "message": heard}),
    "spring": lambda heard: json.dumps({"status": 500, "error": "Oops", "message": heard}),
    "page": lambda heard: f"<html><body><pre>{heard}</pre></body></html>",
    "quoted": lambda heard: "request was " + quote(heard),
    "base64": lambda heard: "request was " + b64encode(heard.encode()).decode(),
    "lower": lambda heard: "request was " + quote(heard).lower(),
}


@asynccontextmanager
async def echo(status: int, form: str, *, login: bool) -> AsyncIterator[tuple[str, Heard]]:
    """What stands before a 3.x and answers everything, or all but the login, with what it was sent."""
    heard = Heard()

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/core/state"):
            return web.json_response({"code": 0, "data": {"version": "3.1.0"}})
        sent = await request.text()
        if request.path.endswith("/login") and login:
            number = b64encode(str(len(heard.tokens)).encode()).decode()
            heard.tokens.append(f"eyJhbGciOiJIUzI1NiJ9.{number}x.c2lnbmF0dXJl-_Zz9")
            return web.json_response({"accessToken": heard.tokens[-1], "tokenTtl": 18000})
        heard.signatures += request.query.getall("signature", [])
        last_first = " ".join(
            reversed([*request.query.values()])
        )  # what is quoted is short, and the signature comes last
        said = f"{sent} {request.headers.get('Authorization')} {last_first} {request.method} {request.path_qs}"
        said += str(request.headers)
        said += str(dict(await request.post()))  # some log what they understood
        return web.Response(status=status, text=ECHOES[form](said))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/nacos", heard
    finally:
        await runner.cleanup()
