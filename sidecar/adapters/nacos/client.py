"""The Registry: which call goes where, and what its answer means for the drain."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from socket import SOCK_STREAM
from typing import TypeVar

from sidecar.http import Answer, Http
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.registration import Instance, Publisher, Record, Service

from . import answers, calls, holders
from .asking import Asking, OnRequest
from .dialects import Dialect
from .login import Credentials
from .nodes import Node, Nodes
from .sharing import Sharing
from .signing import Keys


MEMBERS_PERIOD = 300.0
PATIENCE = 2.0  # with one node, where any other can tell as well

T = TypeVar("T")


class Nacos:
    """A Registry over HTTP.

    Without a server it waits for `aim`. A user logs in, keys sign; who has both does both, as the official client does.
    `on_request` hears of each request: node, operation, result.
    """

    def __init__(
        self,
        http: Http,
        urls: Iterable[str],
        *,
        credentials: Credentials | None = None,
        keys: Keys | None = None,
        on_request: OnRequest = lambda _node, _op, _result: None,
    ) -> None:
        self._configured = tuple(urls)
        self._nodes = Nodes(self._configured)
        self._aimed = frozenset(self._configured)
        self._ask = Asking(http, credentials, keys, on_request)
        self._together = Sharing()
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
            if self._ask.login.due:
                await self._any(self._renew)
        now, nodes = asyncio.get_running_loop().time(), self._nodes
        if now - self._members_at >= MEMBERS_PERIOD:
            with contextlib.suppress(Unavailable):
                await self._discover(nodes)
                if nodes is self._nodes:
                    self._members_at = now
        await asyncio.gather(*(self._acquaint(node) for node in nodes if node.dialect is None))

    async def read(self, node: str, service: Service, addresses: Iterable[str], *, fresh: bool) -> tuple[Record, ...]:
        """The consumers' view."""
        wanted = tuple(addresses)

        def understand(answer: Answer, dialect: Dialect) -> tuple[Record, ...]:
            return answers.listed(answer, dialect, dialect.read_rows, service, wanted)

        ask = partial(self._list, node, "read", lambda dialect: calls.read(dialect, service), understand, fresh=fresh)
        return await ask() if fresh else await self._together((node, "read", service, wanted), ask)

    async def look(self, node: str, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        """The unfiltered view. Of a service that nobody listed yet it shows nothing for half a second."""
        wanted = tuple(addresses)

        def understand(answer: Answer, dialect: Dialect) -> tuple[Record, ...]:
            return answers.listed(answer, dialect, dialect.look_rows, service, wanted)

        ask = partial(self._list, node, "look", lambda dialect: calls.look(dialect, service), understand)
        return await self._together((node, "look", service, wanted), ask)

    async def disable(self, node: str, instance: Instance, *, weight: float, mark: str) -> None:
        """Take it out of every consumer's view, with our mark in the record."""
        edit = partial(calls.edit, instance=instance, weight=weight, enabled=False, mark=mark)
        await self._ask(self._nodes[node], "disable", edit, answers.wrote)

    async def enable(self, node: str, instance: Instance, *, weight: float) -> None:
        """Put it online again, without our mark."""
        edit = partial(calls.edit, instance=instance, weight=weight, enabled=True, mark="")
        await self._ask(self._nodes[node], "enable", edit, answers.wrote)

    async def sweep(self, node: str, instance: Instance, *, weight: float) -> None:
        """Enable what a gone instance left behind."""
        edit = partial(calls.sweep, instance=instance, weight=weight)
        await self._ask(self._nodes[node], "sweep", edit, answers.wrote)

    async def delete(self, node: str, instance: Instance) -> None:
        """Delete what beats kept alive."""
        await self._ask(self._nodes[node], "delete", partial(calls.delete, instance=instance), answers.deleted)

    async def publisher(self, node: str, instance: Instance) -> Publisher:
        """Who holds it in the registry; UNKNOWN also where that cannot be read, or may not.

        A batch of one instance looks like a plain registration on 3.x.
        """
        with contextlib.suppress(NotThere, Rejected, Unavailable):
            dialect = await self._ask.dialect(self._nodes[node])
            if not dialect.publishers:
                return await self._by_record(node, instance)
            if dialect.published:
                return await self._by_clients(node, instance)
            rows = await self._publishers(node, instance.service)
            ours = holders.ours(rows, instance)
            several = any(sum(row.client == each.client for row in rows) > 1 for each in ours)
            return _batched(holders.holder(ours), several=several)
        return Publisher.UNKNOWN

    def aim(self, servers: Iterable[str]) -> None:
        """Use these servers, where none were configured. What is under way with others goes on, and ends as it may."""
        aimed = tuple(servers)
        if self._configured or not aimed or frozenset(aimed) == self._aimed:
            return
        self._nodes, self._aimed = Nodes(aimed), frozenset(aimed)
        self._members_at = float("-inf")

    async def down(self) -> frozenset[str]:
        """Who is DOWN by the word of a node that answers."""
        nodes = self._nodes
        rows = await self._any(self._members)
        return frozenset(nodes.known_as(row.address) for row in rows if row.down)

    async def close(self) -> None:
        """Close every connection."""
        await self._ask.close()

    # -- rehearsal -------------------------------------------------------------------------------------------------

    async def server(self, node: str) -> str:
        """The version of a node, as it tells it; "2.x" where it answers as such and names none."""
        return await self._ask.version(self._nodes[node])

    async def login(self, node: str) -> None:
        """Be logged in. Raises what a node said to the login; returns at once where there is nobody to log in."""
        found = self._nodes[node]
        await self._ask.login.ensure(found, await self._ask.dialect(found))
        if problem := self._ask.login.problem(found):
            raise type(problem)(str(problem))

    async def permitted(self, node: str, instance: Instance) -> None:
        """Whether we may write where this instance is. Writes nothing, and raises Rejected when we may not."""
        with contextlib.suppress(NotThere):  # what else could be on port 1
            await self._ask(self._nodes[node], "probe", partial(calls.probe, instance=instance), answers.wrote)

    async def threshold(self, node: str, service: Service) -> float:
        """The service's protectThreshold, from 0 to 1. Raises NotThere where nobody knows the service."""
        return await self._ask(self._nodes[node], "service", partial(calls.service, service=service), answers.threshold)

    # -- lists -----------------------------------------------------------------------------------------------------

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
            return await self._ask(self._nodes[node], op, call, understand, fresh=fresh)
        except NotThere:
            return ()

    async def _publishers(
        self, node: str, service: Service, *, ip: str = "", port: int | None = None
    ) -> tuple[answers.Holding, ...]:
        call = partial(calls.publishers, service=service, ip=ip, port=port)

        def understand(answer: Answer, _: Dialect) -> tuple[answers.Holding, ...]:
            return answers.publishers(answer)

        ask = partial(self._ask, self._nodes[node], "publisher", call, understand, optional=True)
        return await self._together((node, "publisher", service, ip, port), ask)

    async def _by_clients(self, node: str, instance: Instance) -> Publisher:
        """On 2.x, which finds nothing without an address, and no batch by one."""
        service = instance.service
        rows = holders.ours(await self._publishers(node, service, ip=instance.ip, port=instance.port), instance)
        if rows:
            holder = holders.holder(rows)
            if holder is not Publisher.GRPC:
                return holder
            counts = [await self._published(node, service, client) for client in {row.client for row in rows}]
            return _batched(holder, several=max(counts) > 1)
        batches = [row for row in await self._publishers(node, service, port=0) if not row.ip]
        there = await self._record(node, instance) is not None
        return Publisher.BATCH if batches and there else Publisher.UNKNOWN

    async def _published(self, node: str, service: Service, client: str) -> int:
        """How many instances of the service a client has registered."""
        call = partial(calls.published, client=client)

        def understand(answer: Answer, _: Dialect) -> int:
            return answers.published(answer, service)

        ask = partial(self._ask, self._nodes[node], "publisher", call, understand, optional=True)
        return await self._together((node, "published", service, client), ask)

    async def _by_record(self, node: str, instance: Instance) -> Publisher:
        """On 1.x, where everything is HTTP."""
        record = await self._record(node, instance)
        if record is None:
            return Publisher.UNKNOWN
        return Publisher.BEAT if record.ephemeral else Publisher.PERSISTENT

    async def _record(self, node: str, instance: Instance) -> Record | None:
        records = await self.look(node, instance.service, [instance.ip])
        return next((record for record in records if record.instance.port == instance.port), None)

    # -- who is there ----------------------------------------------------------------------------------------------

    async def _acquaint(self, node: Node) -> None:
        """Know how to ask a node before it has to be asked; and whether it answers, which makes it required."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._ask.dialect(node)

    async def _any(self, ask: Callable[[Node], Awaitable[T]]) -> T:
        """Ask one node after the other until one answers; a verdict would be the same everywhere."""
        nodes = self._nodes.by_health
        error = Unavailable("no Nacos node answers") if nodes else self._nodes.nobody
        for node in nodes:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await ask(node)
            except Unavailable as problem:
                error = problem
            except TimeoutError:
                node.well = False
        raise error

    async def _renew(self, node: Node) -> None:
        if not await self._ask.login.renew(node, await self._ask.dialect(node)):
            raise self._ask.login.problem(node) or Unavailable(f"{node.name} has not logged us in")

    async def _discover(self, nodes: Nodes) -> None:
        """Learn who else is there; a user who may not ask is not going to be allowed to half a minute later."""
        with contextlib.suppress(Rejected):
            members = await self._any(self._members)
            found = await asyncio.gather(*(_resolved(node) for node in nodes if node.configured))
            if nodes is self._nodes:
                nodes.discovered(members, {name: address for name, address in found if address})

    async def _members(self, node: Node) -> tuple[answers.Member, ...]:
        return await self._ask(node, "members", calls.members, lambda answer, _: answers.members(answer))


def _batched(holder: Publisher, *, several: bool) -> Publisher:
    """A connection with several instances of one service has registered them as a batch."""
    return Publisher.BATCH if holder is Publisher.GRPC and several else holder


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
