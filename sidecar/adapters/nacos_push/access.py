"""Who we are, as gRPC requests carry it: a token from the HTTP login, or a signature for each."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from sidecar.http import Answer, Http
from sidecar.ports import Rejected, Unavailable

from .states import Key, name_of, of_kind


VARIABLES = "NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"
LOGINS = ("/v3/auth/user/login", "/v1/auth/login", "/v1/auth/users/login")
NO_LOGIN_HERE = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED}
)
WRONG_LOGIN = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.INTERNAL_SERVER_ERROR}
)
TOKEN_SHARE = 0.8  # of a token's life: then the next connection gets another
PATIENCE = 3.0  # with a login
MOST_EXCERPT = 200

Pair = Callable[[], tuple[str, str]]


class Access:
    """Who we are, as gRPC requests carry it: a token from the HTTP login, or a signature per request."""

    def __init__(self, http: Http, credentials: Pair | None, keys: Pair | None) -> None:
        self._http = http
        self._credentials = credentials
        self._keys = keys
        self._lock = asyncio.Lock()
        self._token = ""
        self._good_until = float("-inf")
        self._password = ""
        self._problem: Unavailable | Rejected | None = None
        self._doubted = False

    async def headers(self, server: str, key: Key) -> dict[str, str]:
        """What a request about this service carries. A login that fails is told when it turns out to be needed."""
        found = {"app": "nacos-drain"}
        if self._keys is not None:
            found |= signature(self._keys(), "@@".join(key), round(time.time() * 1000))
        if self._credentials is not None:
            async with self._lock:
                if asyncio.get_running_loop().time() >= self._good_until:
                    await self._log_in(server, self._credentials)
            if self._token:
                found["accessToken"] = self._token
        return found

    def refused(self, name: str, told: str) -> Unavailable | Rejected:
        """Why a server does not let us."""
        if self._credentials is None and self._keys is None:
            return Rejected(
                f"{name} refuses the subscription without credentials: set {VARIABLES} of a user who may read in this "
                "namespace"
            )
        if self._problem is not None:
            return type(self._problem)(str(self._problem))
        doubted, self._doubted = self._doubted, True
        if self._credentials is not None and not doubted:
            self._good_until = float("-inf")
            return Unavailable(f"{name} refuses our token; logging in again")
        return Rejected(f"{name} refuses the subscription although we said who we are: {self.quoted(told)}")

    def accepted(self) -> None:
        """Note that we were let in: the next refusal may be the token's end, and is worth another login."""
        self._doubted = False

    def quoted(self, text: str) -> str:
        """Other people's words, short and on one line; none of them where they hold a secret of ours."""
        if any(secret in text for secret in (self._password, self._token) if secret):
            return "(it repeats our credentials)"
        return " ".join(text.split())[:MOST_EXCERPT]

    async def _log_in(self, server: str, credentials: Pair) -> None:
        loop = asyncio.get_running_loop()
        self._token, self._good_until = "", float("-inf")
        try:
            async with asyncio.timeout(PATIENCE):
                self._token, life = await self._fetch(server, credentials)
            self._good_until = loop.time() + TOKEN_SHARE * life
            self._problem = None
        except TimeoutError:
            self._problem = Unavailable(f"{name_of(server)} has not answered the login within {PATIENCE:g} s")
        except (Unavailable, Rejected) as problem:
            self._problem = problem

    async def _fetch(self, server: str, credentials: Pair) -> tuple[str, float]:
        username, self._password = credentials()
        form = {"username": username, "password": self._password}
        for path in LOGINS:
            answer = await self._http.request("POST", server + path, form=form)
            if answer.status not in NO_LOGIN_HERE:
                return self._token_in(name_of(server), answer)
        raise Rejected(f"{name_of(server)} asks for a login but has none below {urlsplit(server).path or '/'}")

    def _token_in(self, name: str, answer: Answer) -> tuple[str, float]:
        if answer.status in WRONG_LOGIN:
            raise Rejected(
                f"{name} refuses the login (it answers {answer.status}): check {VARIABLES}; "
                "Nacos 3 answers 500 to a wrong password"
            )
        if answer.status != HTTPStatus.OK:
            raise Unavailable(f"{name} answers {answer.status} to the login")
        try:
            body = json.loads(answer.body)
            return of_kind(body["accessToken"], str), float(str(body["tokenTtl"]))
        except (KeyError, TypeError, ValueError):
            raise Unavailable(f"{name} answers the login with something that is no token") from None


def signature(keys: tuple[str, str], grouped_name: str, now: int) -> dict[str, str]:
    """Aliyun MSE's proof of an access key for naming requests, as the Java and Python clients give it."""
    access, secret = keys
    data = f"{now}@@{grouped_name}"
    digest = hmac.digest(secret.encode(), data.encode(), hashlib.sha1)
    return {"ak": access, "data": data, "signature": base64.b64encode(digest).decode()}
