"""One question to one node: known dialect, login and signature before it, a judgement of the answer after it."""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from sidecar.http import Answer, Http
from sidecar.ports import NotThere, Rejected, Unavailable

from . import answers, calls, signing
from .dialects import FORBIDDEN, LOST, Dialect, InTrouble, NotNacos, detect
from .login import VARIABLES, Credentials, Login
from .masking import Masking
from .nodes import Node
from .sharing import Sharing
from .signing import Keys, Signing


MOST_QUOTED = 160
MOST_READ = 65536  # characters of an answer that are looked through for something to quote

OnRequest = Callable[[str, str, str], None]
Quote = Callable[[str], str]
T = TypeVar("T")


class Asking:
    """Who we are, and how a node is asked as that."""

    def __init__(self, http: Http, credentials: Credentials | None, keys: Keys | None, on_request: OnRequest) -> None:
        self._http = http
        self._on_request = on_request
        self._masking = Masking()
        self._together = Sharing()
        self._signing = Signing(keys, self._masking)
        self.login = Login(http, credentials, self._masking)

    async def __call__(
        self,
        node: Node,
        op: str,
        call: Callable[[Dialect], calls.Call],
        understand: Callable[[Answer, Dialect], T],
        *,
        fresh: bool = False,
        optional: bool = False,
    ) -> T:
        """Ask a node once, with one login and one repeat where it does not know us.

        `optional`: a generation may lack the call, which then is a verdict and no sign of another generation.
        """
        result = "unavailable"
        try:
            dialect = await self.dialect(node)
            wanted = call(dialect)
            await self.login.ensure(node, dialect)
            token = self.login.token
            answer, quote = await self._send(node, wanted, fresh=fresh)
            if answer.status in FORBIDDEN and await self.login.replace(node, dialect, token):
                answer, quote = await self._send(node, wanted, fresh=fresh)
            self._judge(node, answer, quote, optional=optional)
            try:
                understood = understand(answer, dialect)
            except Unavailable as error:
                raise Unavailable(f"{node.name} {quote(str(error))}") from error
            result = "ok"
        except asyncio.CancelledError:  # another node was faster, or time is up: no verdict on this one
            result = "unanswered"
            raise
        except NotThere:
            result = "absent"
            raise
        except Rejected:
            result = "rejected"
            raise
        else:
            return understood
        finally:
            node.well = result != "unavailable" and (node.well or result != "unanswered")
            node.answered |= result in {"ok", "absent"}
            self._on_request(node.name, op, result)

    async def dialect(self, node: Node) -> Dialect:
        """The node's dialect, detected when it is not known; no login is needed for that."""
        if (known := node.dialect) is not None:
            return known
        found, _ = await self._together(node.url, partial(self._detect, node))
        node.dialect = found
        return found

    async def version(self, node: Node) -> str:
        """What the node says of its version, asked anew."""
        node.dialect, version = await self._detect(node)
        return version

    async def _detect(self, node: Node) -> tuple[Dialect, str]:
        try:
            found = await detect(lambda path: self._exchange(node, "GET", path))
        except NotNacos as error:
            raise Unavailable(
                f"{node.name} does not answer as a Nacos server below {node.context_path}: "
                "check NACOS_DRAIN_NACOS_SERVER_ADDR and its context path"
            ) from error
        except InTrouble as error:
            raise Unavailable(f"{node.name} answers {error} when asked for its version") from error
        node.answered = True
        return found

    async def close(self) -> None:
        """Close every connection."""
        await self.login.close()
        await self._http.close()

    # -- one exchange ----------------------------------------------------------------------------------------------

    async def _send(self, node: Node, call: calls.Call, *, fresh: bool) -> tuple[Answer, Quote]:
        """The answer, and how to quote from it: it may hold what we sent."""
        headers = {"Authorization": f"Bearer {self.login.token}"} if self.login.token else None
        signed = self._signing.parameters(call.query)
        answer = await self._exchange(
            node, call.method, call.path, params=call.query | signed, headers=headers, fresh=fresh
        )

        def quote(text: str) -> str:
            """Other people's words: short, on one line, and without our secrets."""
            masked = self._masking(text[:MOST_READ], signed.get("signature", ""))
            return " ".join(masked.split())[:MOST_QUOTED]

        return answer, quote

    async def _exchange(self, node: Node, method: str, path: str, **more: Any) -> Answer:
        try:
            return await self._http.request(method, node.url + path, **more)
        except Unavailable as error:
            raise Unavailable(f"{node.name}: {error}", refused=error.refused) from error

    # -- what it means ---------------------------------------------------------------------------------------------

    def _judge(self, node: Node, answer: Answer, quote: Quote, *, optional: bool) -> None:
        """Let a usable answer pass; anything else is one of three errors."""
        status = answer.status
        if status == HTTPStatus.OK:
            return
        if answers.absent(answer):
            raise NotThere
        if status in FORBIDDEN:
            raise self._forbidden(node, answer, quote)
        if status in LOST and optional:
            raise Rejected(f"{node.name} has no such call: it answers {status}")
        if status in LOST:
            spoke, node.dialect = node.dialect, None
            was = spoke.name if spoke else "Nacos"
            raise Unavailable(
                f"{node.name} answers {status}, which is not the {was} API: was it upgraded, or is the context path "
                f"{node.context_path} wrong? Detecting again"
            )
        said = f"{node.name} answers {status}: {quote(answers.told(answer))}"
        # Nodes disagree on who is responsible while the member list changes; the next try may find them agreed.
        if status == HTTPStatus.BAD_REQUEST and "invalid redirect request" not in answer.text:
            raise Rejected(said)
        raise Unavailable(said)

    def _forbidden(self, node: Node, answer: Answer, quote: Quote) -> Unavailable | Rejected:
        if self._signing.known:
            return Rejected(
                f"{node.name} answers {answer.status} to a signed request: {quote(answers.told(answer))}; "
                f"check {signing.VARIABLES}, what they may do in this namespace, and the clock here"
            )
        if not self.login.known:
            return Rejected(
                f"{node.name} answers {answer.status} without credentials: set {VARIABLES} "
                "of a user who may write in this namespace"
            )
        if problem := self.login.problem(node):
            return type(problem)(str(problem))
        return Rejected(f"{node.name} answers {answer.status} after a login: {quote(answers.told(answer))}")
