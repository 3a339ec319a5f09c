"""The Registry: which call goes where, and what its answer means for the drain."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from http import HTTPStatus
from socket import SOCK_STREAM
from typing import Any, TypeVar

from sidecar.http import Answer, Http
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Instance, Publisher, Record, Service

from . import answers, calls
from .dialects import FORBIDDEN, LOST, Dialect, InTrouble, NotNacos, detect
from .login import VARIABLES, Credentials, Login
from .masking import Masking
from .nodes import Node, Nodes


MEMBERS_PERIOD = 300.0
PATIENCE = 2.0  # with one node, where any other can tell as well
MOST_EXCERPT = 160

OnRequest = Callable[[str, str, str], None]
T = TypeVar("T")


class Nacos:
    """A Registry over HTTP."""

    def __init__(
        self,
        http: Http,
        urls: Iterable[str],
        *,
        credentials: Credentials | None = None,
        on_request: OnRequest = lambda _node, _op, _result: None,
    ) -> None:
        self._http = http
        self._nodes = Nodes(urls)
        self._on_request = on_request
        self._masking = Masking()
        self._login = Login(http, credentials, self._masking)
        self._members_at = float("-inf")

    # -- Registry --------------------------------------------------------------------------------------------------

    @property
    def one_address(self) -> bool:
        """Whether a single address may stand for several nodes."""
        return self._nodes.one_address

    def nodes(self) -> tuple[tuple[str, bool], ...]:
        """Name and whether it is required."""
        return self._nodes.required

    async def refresh(self) -> None:
        """Renew what is due. Failures are not told: the calls that need it will say so."""
        with contextlib.suppress(Unavailable, Rejected):
            if self._login.due:
                await self._any(self._renew)
        now = asyncio.get_running_loop().time()
        if now - self._members_at >= MEMBERS_PERIOD:
            with contextlib.suppress(Unavailable):
                await self._discover()
                self._members_at = now
        await asyncio.gather(*(self._acquaint(node) for node in self._nodes if node.dialect is None))

    async def read(self, node: str, service: Service, addresses: Iterable[str], *, fresh: bool) -> tuple[Record, ...]:
        """The consumers' view."""
        wanted = tuple(addresses)

        def understand(answer: Answer, dialect: Dialect) -> tuple[Record, ...]:
            return answers.listed(answer, dialect, dialect.read_rows, service, wanted)

        return await self._list(node, "read", lambda dialect: calls.read(dialect, service), understand, fresh=fresh)

    async def look(self, node: str, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        """The unfiltered view. Of a service that nobody listed yet it shows nothing for half a second."""
        wanted = tuple(addresses)

        def understand(answer: Answer, dialect: Dialect) -> tuple[Record, ...]:
            return answers.listed(answer, dialect, dialect.look_rows, service, wanted)

        return await self._list(node, "look", lambda dialect: calls.look(dialect, service), understand)

    async def disable(self, node: str, instance: Instance, *, weight: float, mark: str) -> None:
        """Take it out of every consumer's view, with our mark in the record."""
        edit = partial(calls.edit, instance=instance, weight=weight, enabled=False, mark=mark)
        await self._ask(node, "disable", edit, answers.wrote)

    async def enable(self, node: str, instance: Instance, *, weight: float) -> None:
        """Put it online again, without our mark."""
        edit = partial(calls.edit, instance=instance, weight=weight, enabled=True, mark="")
        await self._ask(node, "enable", edit, answers.wrote)

    async def sweep(self, node: str, instance: Instance, *, weight: float) -> None:
        """Enable what a gone instance left behind."""
        edit = partial(calls.sweep, instance=instance, weight=weight)
        await self._ask(node, "sweep", edit, answers.wrote)

    async def publisher(self, node: str, instance: Instance) -> Publisher:
        """Who holds it in the registry."""
        return Publisher.UNKNOWN

    def aim(self, servers: Iterable[str]) -> None:
        """Use these servers, as none were configured."""
        self._nodes = Nodes(servers)

    async def down(self) -> frozenset[str]:
        """Who is DOWN by the word of a node that answers."""
        rows = await self._any(self._members)
        return frozenset(self._nodes.known_as(row.address) for row in rows if row.down)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _list(
        self,
        node: str,
        op: str,
        call: Callable[[Dialect], calls.Call],
        understand: Callable[[Answer, Dialect], tuple[Record, ...]],
        *,
        fresh: bool = False,
    ) -> tuple[Record, ...]:
        try:
            return await self._ask(node, op, call, understand, fresh=fresh)
        except NotThere:
            return ()

    async def _ask(
        self,
        name: str,
        op: str,
        call: Callable[[Dialect], calls.Call],
        understand: Callable[[Answer, Dialect], T],
        *,
        fresh: bool = False,
    ) -> T:
        """Ask one node once, with one login and one repeat where it does not know us."""
        node, result = self._nodes[name], "unavailable"
        try:
            dialect = await self._dialect(node)
            wanted = call(dialect)
            await self._login.ensure(node, dialect)
            token = self._login.token
            answer = await self._send(node, wanted, fresh=fresh)
            if answer.status in FORBIDDEN and await self._login.replace(node, dialect, token):
                answer = await self._send(node, wanted, fresh=fresh)
            self._judge(node, answer)
            try:
                understood = understand(answer, dialect)
            except Unavailable as error:
                raise Unavailable(f"{name} {self._quoted(str(error))}") from error
            result = "ok"
        except NotThere:
            result = "absent"
            raise
        except Rejected:
            result = "rejected"
            raise
        else:
            return understood
        finally:
            node.well = result != "unavailable"
            node.answered |= result in {"ok", "absent"}
            self._on_request(name, op, result)

    async def _send(self, node: Node, call: calls.Call, *, fresh: bool) -> Answer:
        headers = {"Authorization": f"Bearer {self._login.token}"} if self._login.token else None
        return await self._exchange(node, call.method, call.path, params=call.query, headers=headers, fresh=fresh)

    async def _exchange(self, node: Node, method: str, path: str, **more: Any) -> Answer:
        try:
            return await self._http.request(method, node.url + path, **more)
        except Unavailable as error:
            raise Unavailable(f"{node.name}: {error}", refused=error.refused) from error

    def _judge(self, node: Node, answer: Answer) -> None:
        """Let a usable answer pass; anything else is one of three errors."""
        status = answer.status
        if status == HTTPStatus.OK:
            return
        if answers.absent(answer):
            raise NotThere
        if status in FORBIDDEN:
            raise self._forbidden(node, answer)
        if status in LOST:
            spoke, node.dialect = node.dialect, None
            was = spoke.name if spoke else "Nacos"
            raise Unavailable(
                f"{node.name} answers {status}, which is not the {was} API: was it upgraded, or is the context path "
                f"{node.context_path} wrong? Detecting again"
            )
        said = f"{node.name} answers {status}: {self._quoted(answers.told(answer))}"
        # Nodes disagree on who is responsible while the member list changes; the next try may find them agreed.
        if status == HTTPStatus.BAD_REQUEST and "invalid redirect request" not in answer.text:
            raise Rejected(said)
        raise Unavailable(said)

    def _forbidden(self, node: Node, answer: Answer) -> Unavailable | Rejected:
        if not self._login.known:
            return Rejected(
                f"{node.name} answers {answer.status} without credentials: set {VARIABLES} "
                "of a user who may write in this namespace"
            )
        if problem := self._login.problem(node):
            return type(problem)(str(problem))
        return Rejected(f"{node.name} answers {answer.status} after a login: {self._quoted(answers.told(answer))}")

    def _quoted(self, text: str) -> str:
        """Other people's words: short, on one line, and without our secrets."""
        return " ".join(self._masking(text).split())[:MOST_EXCERPT]

    # -- who is there ----------------------------------------------------------------------------------------------

    async def _dialect(self, node: Node) -> Dialect:
        """The node's dialect, detected when it is not known; no login is needed for that."""
        if node.dialect is None:
            try:
                node.dialect = await detect(lambda path: self._exchange(node, "GET", path))
            except NotNacos as error:
                raise Unavailable(
                    f"{node.name} does not answer as a Nacos server below {node.context_path}: "
                    "check NACOS_DRAIN_NACOS_SERVER_ADDR and its context path"
                ) from error
            except InTrouble as error:
                raise Unavailable(f"{node.name} answers {error} when asked for its version") from error
            node.answered = True
        return node.dialect

    async def _acquaint(self, node: Node) -> None:
        """Know how to ask a node before it has to be asked; and whether it answers, which makes it required."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._dialect(node)

    async def _any(self, ask: Callable[[Node], Awaitable[T]]) -> T:
        """Ask one node after the other until one answers; a verdict would be the same everywhere."""
        error = Unavailable("no Nacos node answers")
        for node in self._nodes.by_health:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await ask(node)
            except Unavailable as problem:
                error = problem
            except TimeoutError:
                node.well = False
        raise error

    async def _renew(self, node: Node) -> None:
        if not await self._login.renew(node, await self._dialect(node)):
            raise self._login.problem(node) or Unavailable(f"{node.name} has not logged us in")

    async def _discover(self) -> None:
        """Learn who else is there; a user who may not ask is not going to be allowed to half a minute later."""
        with contextlib.suppress(Rejected):
            members = await self._any(self._members)
            found = await asyncio.gather(*(_resolved(node) for node in self._nodes if node.configured))
            self._nodes.discovered(members, {name: address for name, address in found if address})

    async def _members(self, node: Node) -> tuple[answers.Member, ...]:
        return await self._ask(node.name, "members", calls.members, lambda answer, _: answers.members(answer))


async def _resolved(node: Node) -> tuple[str, str]:
    """The one ip:port behind a configured name; none where it stands for several, or cannot be resolved."""
    host, _, port = node.name.rpartition(":")
    try:
        async with asyncio.timeout(PATIENCE):
            rows = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=SOCK_STREAM)
    except (OSError, TimeoutError, ValueError):
        return node.name, ""
    found = {row[4][0] for row in rows}
    return node.name, f"{found.pop()}:{port}" if len(found) == 1 else ""
