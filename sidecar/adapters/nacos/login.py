"""The life of a token: fetched when first needed, renewed ahead, replaced once when it is refused.

Any node of a cluster takes a token of any other, so there is one. How logging in went is remembered per node: a node
that hangs or is down must not keep us from the others.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.http import Answer, Http
from sidecar.ports import Rejected, Unavailable

from .answers import token as token_in
from .dialects import LOST, Dialect
from .masking import Masking
from .nodes import Node


SHORTEST_USERNAME = 5  # cut out of quoted messages; a shorter one is a syllable of every message
RENEW_AT = 0.8  # of a token's life
PATIENCE = 1.5  # a call that waits for its token has 2 s, and may not even need one
LONGEST = 10.0  # of one attempt, however many calls come and go meanwhile
PAUSE = 5.0  # after a login that failed
LEAST_TTL = 1.0  # whatever a server says: no login per call
PAUSE_REFUSED = 60.0  # after a login whose token may be refused in turn: the user lacks the right, not the token

Credentials = Callable[[], tuple[str, str]]

REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.INTERNAL_SERVER_ERROR,  # what Nacos 3 answers to a wrong password, Nacos 2 to an unknown user
    }
)
VARIABLES = "NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"


@dataclass
class _Attempts:
    """How logging in went at one node."""

    failed_at: float = float("-inf")
    replaced_at: float = float("-inf")
    problem: Unavailable | Rejected | None = None
    under_way: asyncio.Task[None] | None = None


class Login:
    """One user at one registry; without credentials nobody, and every call a no-op."""

    def __init__(self, http: Http, credentials: Credentials | None, masking: Masking) -> None:
        self._http = http
        self._credentials = credentials
        self._masking = masking
        self._attempts: defaultdict[str, _Attempts] = defaultdict(_Attempts)
        self._since = 0.0
        self._ttl = 0.0
        self.token = ""

    @property
    def known(self) -> bool:
        """Whether there are credentials to log in with."""
        return self._credentials is not None

    def problem(self, node: Node) -> Unavailable | Rejected | None:
        """Why there is no token from this node."""
        return self._attempts[node.name].problem

    @property
    def due(self) -> bool:
        """Whether it is time for the next token, the old one being good for a while yet."""
        return self.known and self._spent(RENEW_AT)

    def _spent(self, share: float) -> bool:
        return not self.token or asyncio.get_running_loop().time() - self._since >= share * self._ttl

    async def ensure(self, node: Node, dialect: Dialect) -> None:
        """Have a token before a call, if one can be had. Failing is no reason not to call: it may not be needed."""
        await self._unless_paused(node, dialect, lambda: self._spent(1.0))

    async def renew(self, node: Node, dialect: Dialect) -> bool:
        """Get the next token ahead of time."""
        await self._unless_paused(node, dialect, lambda: self.due)
        return not self.due

    async def _unless_paused(self, node: Node, dialect: Dialect, needed: Callable[[], bool]) -> None:
        attempts, now = self._attempts[node.name], asyncio.get_running_loop().time()
        if self.known and needed() and (attempts.under_way is not None or now - attempts.failed_at >= PAUSE):
            await self._log_in(node, dialect, attempts)

    async def replace(self, node: Node, dialect: Dialect, refused: str) -> bool:
        """After a 403: whether there is another token than the refused one. Asks for one at most once a minute."""
        if not self.known:
            return False
        attempts, now = self._attempts[node.name], asyncio.get_running_loop().time()
        rested = now - attempts.failed_at >= PAUSE and now - attempts.replaced_at >= PAUSE_REFUSED
        if self.token == refused and (rested or attempts.under_way is not None):
            await self._log_in(node, dialect, attempts)
            if attempts.problem is None:  # also when it is the old token again: some servers keep one per user
                attempts.replaced_at = now
        return self.token != refused

    async def close(self) -> None:
        """Give up what is under way."""
        for attempts in self._attempts.values():
            if attempts.under_way is not None:
                attempts.under_way.cancel()

    async def _log_in(self, node: Node, dialect: Dialect, attempts: _Attempts) -> None:
        """Log in, or wait with whoever is at it. One that takes long goes on for those who ask later.

        A busy Nacos takes seconds for a password's hash: whoever gave up each time would never be logged in.
        """
        if attempts.under_way is None:
            attempts.under_way = asyncio.create_task(self._try(node, dialect, attempts), name="login")
        _, slow = await asyncio.wait({attempts.under_way}, timeout=PATIENCE)
        if slow:
            attempts.problem = Unavailable(f"{node.name} has not answered the login within {PATIENCE:g} s")

    async def _try(self, node: Node, dialect: Dialect, attempts: _Attempts) -> None:
        loop = asyncio.get_running_loop()
        try:
            self.token, ttl = await self._fetch(node, dialect)
        except (Unavailable, Rejected) as problem:
            attempts.failed_at, attempts.problem = loop.time(), problem
            return
        finally:
            attempts.under_way = None
        self._masking.add(self.token)
        self._since, self._ttl = loop.time(), max(ttl, LEAST_TTL)
        for each in self._attempts.values():
            each.problem = None

    async def _fetch(self, node: Node, dialect: Dialect) -> tuple[str, float]:
        assert self._credentials is not None  # noqa: S101  asked by all callers
        username, password = self._credentials()
        self._masking.add(*([username] if len(username) >= SHORTEST_USERNAME else []), password)
        form = {"username": username, "password": password}
        try:
            async with asyncio.timeout(LONGEST):
                answer = await self._post(node, dialect.logins, form)
            if answer.status == HTTPStatus.OK:
                return token_in(answer)
        except TimeoutError:
            raise Unavailable(f"{node.name} has not answered the login within {LONGEST:g} s") from None
        except Unavailable as error:
            raise Unavailable(f"the login at {node.name} failed: {error}") from error
        if answer.status in LOST:
            raise Rejected(
                f"{node.name} has no login below {node.context_path}: none is needed there, or that path is wrong"
            )
        if answer.status in REFUSED:
            raise Rejected(
                f"{node.name} refuses the login (it answers {answer.status}): check {VARIABLES}; "
                "Nacos 3 answers 500 to a wrong password"
            )
        raise Unavailable(f"{node.name} answers {answer.status} to the login")

    async def _post(self, node: Node, paths: tuple[str, ...], form: dict[str, str]) -> Answer:
        """Try the places where this generation may have its login, until one is there."""
        for path in paths[:-1]:
            answer = await self._http.request("POST", node.url + path, form=form)
            if answer.status not in LOST:
                return answer
        return await self._http.request("POST", node.url + paths[-1], form=form)
