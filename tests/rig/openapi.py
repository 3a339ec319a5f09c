"""Nacos' HTTP API as operators and observers use it; none of it is the product's client."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

import aiohttp
from rig.records import Host, Instance, hosts


class Server(Protocol):
    """What these clients need to know of a server: a real one, or a double."""

    @property
    def base(self) -> str:
        """The URL that API paths are appended to."""

    @property
    def major(self) -> int:
        """Which generation of the API it speaks."""

    @property
    def token(self) -> str | None:
        """The admin's, where one is needed."""


class OpenApi:
    """One HTTP session on one server, with the admin's token where there is one."""

    def __init__(self, server: Server, *, patience: float = 10.0) -> None:
        self._server = server
        self._patience = patience
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._patience))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()

    async def _call(self, method: str, path: str, query: dict[str, str]) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self._server.token}"} if self._server.token else {}
        async with self._session.request(method, self._server.base + path, params=query, headers=headers) as answer:
            return answer.status, await answer.text()

    async def _do(self, method: str, path: str, query: dict[str, str]) -> str:
        status, body = await self._call(method, path, query)
        if status != 200:
            raise RuntimeError(f"{method} {path} {query}: {status} {body}")
        return body


class Observer(OpenApi):
    """Reads what consumers read, and what the registry holds."""

    async def listed(self, instance: Instance) -> tuple[Host, ...]:
        """Return the service as consumers are shown it: without disabled instances.

        On 2.x all clusters of it, on 3.x the instance's.
        """
        if self._server.major == 2:
            body = await self._do("GET", "/v1/ns/instance/list", instance.service_query)
            return hosts(json.loads(body)["hosts"])
        # Asked without a cluster, this one answers for the cluster DEFAULT alone (3.1.0).
        query = instance.service_query | {"clusterName": instance.cluster}
        body = await self._do("GET", "/v3/client/ns/instance/list", query)
        return hosts(json.loads(body)["data"])

    async def unfiltered(self, instance: Instance) -> tuple[Host, ...]:
        """Return everything the registry holds in the instance's service and cluster."""
        query = instance.service_query | {"clusterName": instance.cluster}
        if self._server.major == 2:
            path, rows = "/v1/ns/catalog/instances", "list"
            query |= {"pageNo": "1", "pageSize": "1000"}
        else:
            path, rows = "/v3/admin/ns/instance/list", "data"
        status, body = await self._call("GET", path, query)
        if status == 404 and "is not found" in body:  # the last instance takes its service along
            return ()
        if status != 200:
            raise RuntimeError(f"GET {path} {query}: {status} {body}")
        return hosts(json.loads(body)[rows])

    async def record(self, instance: Instance) -> Host | None:
        """Return the registry's record of exactly this instance."""
        for host in await self.unfiltered(instance):
            if host.address == instance.address and host.cluster == instance.cluster:
                return host
        return None

    async def is_listed(self, instance: Instance) -> bool:
        """Tell whether consumers are shown this instance."""
        return any(
            host.address == instance.address and host.cluster == instance.cluster
            for host in await self.listed(instance)
        )

    async def until(self, instance: Instance, *, listed: bool, within: float = 10.0) -> float:
        """Wait until consumers are shown the instance, or no longer; return the loop's time."""
        try:
            async with asyncio.timeout(within):
                while await self.is_listed(instance) is not listed:  # noqa: ASYNC110 - it happens in another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{instance} is {'not' if listed else 'still'} listed after {within} s") from None
        return asyncio.get_running_loop().time()


class Witness:
    """Reads the consumers' list on each node of a cluster by itself: no node speaks for another."""

    def __init__(self, nodes: Sequence[Server]) -> None:
        self._observers = {urlsplit(node.base).netloc: Observer(node, patience=2.0) for node in nodes}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for observer in self._observers.values():
            await self._stack.enter_async_context(observer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def listed(self, instance: Instance) -> dict[str, bool | None]:
        """Tell per node, by host:port, whether it shows the instance to consumers; None if it does not answer."""

        async def ask(observer: Observer) -> bool | None:
            try:
                return await observer.is_listed(instance)
            except (aiohttp.ClientError, TimeoutError):
                return None

        answers = await asyncio.gather(*map(ask, self._observers.values()))
        return dict(zip(self._observers, answers, strict=True))

    async def until(self, instance: Instance, *, listed: bool, within: float = 15.0) -> dict[str, float]:
        """Wait until every node that answers shows the instance, or no longer.

        Returns the loop's time per node from which on it was so; a node that does not answer has none. At least one
        must have answered.
        """
        since: dict[str, float] = {}
        answers: dict[str, bool | None] = {}
        try:
            async with asyncio.timeout(within):
                while True:
                    answers = await self.listed(instance)
                    now = asyncio.get_running_loop().time()
                    since = {node: since.get(node, now) for node, shown in answers.items() if shown is listed}
                    if since and set(answers.values()) <= {listed, None}:
                        return since
                    await asyncio.sleep(0.05)
        except TimeoutError:
            told = "not" if listed else "still"
            raise AssertionError(f"{instance} is {told} listed on every node after {within} s: {answers}") from None


class Operator(OpenApi):
    """Somebody at the API who is not us."""

    async def set_enabled(self, instance: Instance, *, enabled: bool, metadata: dict[str, str] | None = None) -> None:
        """Switch an instance on or off, with the weight, which Nacos otherwise resets to 1."""
        query = instance.query | {
            "enabled": str(enabled).lower(),
            "weight": str(instance.weight),
        }
        if metadata is not None:
            query["metadata"] = json.dumps(metadata)
        if self._server.major == 2:
            await self._do("PATCH", "/v1/ns/instance", query)
        else:
            await self._do("PUT", "/v3/admin/ns/instance/partial", query)

    async def delete(self, instance: Instance, *, ephemeral: bool) -> None:
        """Call v1 DELETE, which answers 200 whether or not it helps."""
        query = instance.query | {"ephemeral": str(ephemeral).lower()}
        await self._do("DELETE", "/v1/ns/instance", query)
