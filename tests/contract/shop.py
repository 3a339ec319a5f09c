"""A shop with one instance on a double that can be broken at will, and the registry under test before it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sidecar.adapters.nacos import Nacos, name_of
from sidecar.demo.double import Access, Dialect, Double
from sidecar.http import Http
from sidecar.registration import Instance, Record, Service


SHOP = Service("shop")
IP, PORT = "10.9.0.1", 8080
APP = Instance(SHOP, IP, PORT)
MARK = "2026-01-31T12:00:00Z/pod-7"
USER, PASSWORD = "shop sidecar+1", "p ss/w%rd+\"<&>'ö="
MODERN: tuple[Dialect, ...] = ("2.2", "3.1")

Called = Callable[["Client"], Awaitable[object]]


class Client:
    """The registry under test, what it counted, and short words for its calls."""

    def __init__(
        self,
        *urls: str,
        user: str | None = USER,
        password: str = PASSWORD,
        keys: tuple[str, str] | None = None,
        http: Http | None = None,
    ) -> None:
        self.counted: list[tuple[str, str, str]] = []
        self.http = http or Http()
        self.nacos = Nacos(
            self.http,
            urls,
            credentials=(lambda: (user, password)) if user else None,
            keys=(lambda: keys) if keys else None,
            on_request=lambda *told: self.counted.append(told),
        )
        self.node = name_of(urls[0])

    async def read(self, node: str = "") -> tuple[Record, ...]:
        return await self.nacos.read(node or self.node, SHOP, [IP], fresh=False)

    async def look(self) -> tuple[Record, ...]:
        return await self.nacos.look(self.node, SHOP, [IP])

    async def disable(self) -> None:
        await self.nacos.disable(self.node, APP, weight=1.0, mark=MARK)

    async def enable(self) -> None:
        await self.nacos.enable(self.node, APP, weight=1.0)

    async def sweep(self) -> None:
        await self.nacos.sweep(self.node, APP, weight=1.0)

    async def delete(self) -> None:
        await self.nacos.delete(self.node, APP)

    @property
    def result(self) -> str:
        """What the last request was counted as."""
        return self.counted[-1][2]


LISTS: tuple[Called, ...] = (Client.read, Client.look)
WRITES: tuple[Called, ...] = (Client.disable, Client.enable, Client.sweep, Client.delete)
ALL = (*LISTS, *WRITES)


@asynccontextmanager
async def shop(dialect: Dialect = "3.1", **options: Any) -> AsyncIterator[Double]:
    """A double with the app in it."""
    options.setdefault("access", Access({USER: PASSWORD}))
    async with Double(dialect, push_delay=0.05, **options) as double:
        double.naming.register_grpc("shop", IP, PORT, connection="app")
        yield double


@asynccontextmanager
async def client(*urls: str, **options: Any) -> AsyncIterator[Client]:
    made = Client(*urls, **options)
    try:
        yield made
    finally:
        await made.nacos.close()


@asynccontextmanager
async def pair(dialect: Dialect = "3.1", **options: Any) -> AsyncIterator[tuple[Double, Client]]:
    """A double and a client that has already found out what it speaks."""
    user = {name: options.pop(name) for name in ("user", "password", "keys") if name in options}
    async with shop(dialect, **options) as double, client(double.url, **user) as made:
        assert await made.read() == (Record(APP),)
        yield double, made


def requests(double: Double, part: str) -> int:
    """How many requests for this path came."""
    return sum(part in entry.path for entry in double.log)
