"""Logins and tokens of the double, with the refusals as each server version words them.

Status alone does not tell "log in again" from "not allowed" on a real server: both are 403, and a
wrong password is a 500 on 3.x. A client has to read bodies, so the bodies are the measured ones;
those of 2.x with auth switched on nobody measured, they follow its code. Signed requests are
checked by what clients sign; how Aliyun MSE words a refusal nobody here has seen.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from sidecar.demo.double.answers import Answer, Dialect, plain, spring, text


Right = Literal["open", "client:read", "client:write", "admin:read", "admin:write"]

# What a call with a token that does not do is told: 3.x (measured), older ones (from their code).
REFUSALS = {
    "none": (
        "Code: 401, Message: User not found! Please check user exist or password is right!.",
        "user not found!",
    ),
    "garbage": ("Code: 401, Message: unsupported signature algorithm.", "token invalid!"),
    "forged": ("Code: 401, Message: Invalid signature.", "token invalid!"),
    "expired": ("Code: 401, Message: token expired!.", "token expired!"),
    "forbidden": ("Code: 403, Message: authorization failed!.", "authorization failed!"),
    "unsigned": ("Code: 403, Message: invalid signature of access key!.", "invalid signature of access key!"),
}
SIGNED_FOR = 60.0  # seconds that a signature is good for


@dataclass
class _Token:
    user: str
    expires: float


class Access:
    """Users and tokens; nodes of a cluster share one, as they share a token secret."""

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        keys: Mapping[str, str] | None = None,
        ttl: float = 18000.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.users = dict(users) if users is not None else {"nacos": "nacos"}
        self.keys = dict(keys or {})
        """Access keys and their secret keys."""
        self.readers: set[str] = set()
        """Users and access keys that may read, and nothing else."""
        self.ttl = ttl
        self.logins = 0
        self._tokens: dict[str, _Token] = {}
        self._clock = clock or (lambda: asyncio.get_running_loop().time())

    def login(self, dialect: Dialect, params: Mapping[str, str], path: str) -> Answer:
        """Answer a login."""
        user, password = params.get("username", ""), params.get("password", "")
        if self.users.get(user) != password:
            return self._refuse_login(dialect, user, path)
        self.logins += 1
        token = f"eyJhbGciOiJIUzI1NiJ9.{secrets.token_urlsafe(24)}.{secrets.token_urlsafe(32)}"
        self._tokens[token] = _Token(user, self._clock() + self.ttl)
        said = {"accessToken": token, "tokenTtl": int(self.ttl), "globalAdmin": user == "nacos"}
        if dialect != "1.4":
            said["username"] = user
        answer = plain(said)
        header = f"Bearer {token}" if dialect == "3.1" else None
        return Answer(answer.status, answer.body, answer.content_type, header)

    def _refuse_login(self, dialect: Dialect, user: str, path: str) -> Answer:
        if dialect != "3.1":
            if not self.users and dialect == "2.2":
                return text(500, f"caused: User {user} not found;")
            return text(HTTPStatus.FORBIDDEN, "unknown user!")
        if user not in self.users:
            return spring(HTTPStatus.FORBIDDEN, "Access Denied", path)
        old = "/v1/" in path
        why = "Handle API Compatibility failed, please see log for detail."
        return spring(500, why if old else "No message available", path)

    def expire(self) -> None:
        """Let every token be past its date from now on."""
        for token in self._tokens.values():
            token.expires = self._clock()

    def revoke(self) -> None:
        """Forget every token, as a server does that came back with another secret."""
        self._tokens.clear()

    def refusal(
        self, dialect: Dialect, right: Right, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> str | None:
        """Say why this call is not allowed, in the words of its 403; None when it is."""
        if fault := self._fault(right, params, headers):
            new, old = REFUSALS[fault]
            return new if dialect == "3.1" else old
        return None

    def _fault(self, right: Right, params: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
        if self.keys and "ak" in params:
            return self._unsigned(params) or self._beyond(right, params["ak"])
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        token = params.get("accessToken") or headers.get("accessToken") or bearer
        if not token:
            return "none"
        known = self._tokens.get(token)
        if known is None:
            return "forged" if token.count(".") == 2 else "garbage"  # noqa: PLR2004  # the parts of a JWT
        if known.expires <= self._clock():
            return "expired"
        if known.user not in self.users:
            return "forbidden"
        return self._beyond(right, known.user)

    def _beyond(self, right: Right, who: str) -> str | None:
        return "forbidden" if who in self.readers and not right.endswith(":read") else None

    def _unsigned(self, params: Mapping[str, str]) -> str | None:
        """Look whether it is signed: the time and, where the call has one, the service."""
        secret, data = self.keys.get(params["ak"], ""), params.get("data", "")
        digest = hmac.new(secret.encode(), data.encode(), hashlib.sha1).digest()
        signature = base64.encodebytes(digest).decode().strip()
        at, _, grouped = data.partition("@@")
        service = params.get("serviceName", "")
        meant = f"{params.get('groupName') or 'DEFAULT_GROUP'}@@{service}" if service else ""
        recent = at.isdigit() and abs(time.time() - int(at) / 1000) <= SIGNED_FOR
        good = secret and hmac.compare_digest(signature, params.get("signature", ""))
        return None if good and recent and grouped == meant else "unsigned"
