"""The subscriptions: connected, lost, connected again; and what their newest pushes show."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sidecar.http import Http
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Instance, Record, Service

from .access import Access, Pair
from .link import EXTRA, Link, Wire, connected, installed, load, own_ip
from .states import Key, canonical, of_kind, place_of, record_of


PUBLIC = "public"  # the namespace that may also be written as an empty string
FIRST_PAUSE, MOST_PAUSE = 0.2, 5.0  # before connecting again; halved at random, a fleet does not come back at once
REFUSED_PAUSE = 60.0  # after a verdict against us: somebody has to change something first
LASTING = 5.0  # a connection that lived so long was a good one
KEEP_ALIVE = 15.0  # a connection silent for 20 s is probed by the server, which at times closes it though we reply
MOST_SHOWN = 10_000  # addresses remembered per service

Place = tuple[str, str, int]  # cluster, ip, port
View = tuple[tuple[Place, Record], ...]


class PushWatch:
    """A Watch that holds one gRPC subscription per namespace; it ends with `close`."""

    def __init__(
        self,
        servers: Iterable[str],
        *,
        credentials: Pair | None = None,
        keys: Pair | None = None,
        ca_file: str | None = None,
    ) -> None:
        """Take base URLs such as `http://nacos:8848/nacos`; `https` means TLS on the gRPC port too.

        `credentials` (user, password) and `keys` (access key, secret key) are read anew at each use. Raises Rejected
        when the packages of the extra are not installed.
        """
        if not installed():
            raise Rejected(EXTRA)
        self._servers = tuple(url.rstrip("/") for url in servers)
        self._http = Http(ca_file=ca_file)
        self._access = Access(self._http, credentials, keys)
        self._ca_file = ca_file
        self._wire: asyncio.Future[Wire] | None = None
        self._subscribers: dict[str, Subscriber] = {}
        self._closed = False

    def subscribe(self, service: Service) -> None:
        """Have the service's pushes from now on. Idempotent, returns at once."""
        if self._closed:
            return
        if self._wire is None:
            self._wire = asyncio.ensure_future(asyncio.to_thread(load))  # 0.7 s of imports
        namespace = service.namespace or PUBLIC
        if namespace not in self._subscribers:
            self._subscribers[namespace] = Subscriber(namespace, self._servers, self._access, self._wire, self._ca_file)
        self._subscribers[namespace].want(service)

    async def read(self, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        """What the newest push shows on these addresses: each an ip, or an ip:port as `Instance.address` writes it.

        One exchange with the server proves that the connection that brought it still stands. Raises Unavailable when
        it does not, before its first push, and for what was never shown, whose absence proves nothing: for any ip:port
        asked for, or for all of the ips.
        """
        subscriber = self._subscribers.get(service.namespace or PUBLIC)
        if self._closed or subscriber is None:
            raise Unavailable(f"no subscription to {service}")
        return await subscriber.read(service, tuple(addresses))

    async def close(self) -> None:
        """End the subscriptions, their connections and tasks. Idempotent."""
        self._closed = True
        await asyncio.gather(*(each.close() for each in self._subscribers.values()))
        if self._wire is not None:
            await asyncio.wait([self._wire])  # a thread that imports cannot be stopped
            self._wire.exception()
        await self._http.close()


class Subscriber:
    """The subscriptions in one namespace, over one connection after the other."""

    def __init__(
        self,
        namespace: str,
        servers: tuple[str, ...],
        access: Access,
        wire: "asyncio.Future[Wire]",
        ca_file: str | None,
    ) -> None:
        self._namespace = namespace
        self._servers = servers
        self._access = access
        self._wire = wire
        self._ca_file = ca_file
        self._wanted: set[Key] = set()
        self._news = asyncio.Event()
        self._views: dict[Key, View] = {}  # of this connection alone
        self._shown: dict[Key, dict[Place, None]] = {}  # ever; the newest last
        self._link: Link | None = None
        self._problem = "still connecting"
        self._task = asyncio.create_task(self._connect_for_ever(), name=f"push watch of {namespace}")

    def want(self, service: Service) -> None:
        """Subscribe, now or with the next connection."""
        self._wanted.add((service.group, service.name))
        self._news.set()

    async def read(self, service: Service, addresses: tuple[str, ...]) -> tuple[Record, ...]:
        """What the newest push shows, if the connection that brought it still stands."""
        link, key = self._link, (service.group, service.name)
        if key not in self._wanted:
            raise Unavailable(f"no subscription to {service}")
        if link is None:
            raise Unavailable(f"no pushes: {self._problem}")
        try:
            await link.pulse()
        except (Unavailable, Rejected) as problem:
            link.lose(Unavailable(str(problem)))
            raise Unavailable(f"no pushes: {problem}") from None
        if link is not self._link or key not in self._views:
            raise Unavailable(f"no push of {service} yet since the connection to {link.name}")
        places = [place_of(address) for address in addresses]
        found = [
            replace(record, instance=Instance(service, record.instance.ip, record.instance.port))
            for (cluster, ip, port), record in self._views[key]
            if cluster == service.cluster and ((ip, port) in places or (ip, None) in places)
        ]
        if not self._known(service, places):
            raise Unavailable(
                f"no push from {link.name} has ever shown {service} on {', '.join(addresses)}, so its absence proves "
                "nothing: is it registered in this namespace, group and cluster?"
            )
        return tuple(found)

    def _known(self, service: Service, places: list[tuple[str, int | None]]) -> bool:
        shown = self._shown.get((service.group, service.name), {})
        exact = [(service.cluster, ip, port) for ip, port in places if port is not None]
        if exact:
            return all(place in shown for place in exact)
        ips = {ip for ip, _ in places}
        return any(cluster == service.cluster and ip in ips for cluster, ip, _ in shown)

    async def close(self) -> None:
        """Disconnect for good."""
        self._task.cancel()
        await asyncio.wait([self._task])

    # -- connections -----------------------------------------------------------------------------------------------

    async def _connect_for_ever(self) -> None:
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        turn = random.randrange(len(self._servers)) if self._servers else 0  # noqa: S311  spreads a fleet
        while True:
            started, least = loop.time(), FIRST_PAUSE
            try:
                await self._converse(self._servers[turn % len(self._servers)])
            except Unavailable as problem:
                self._problem = str(problem)
            except Rejected as problem:
                self._problem, least = str(problem), REFUSED_PAUSE
            except Exception as error:  # noqa: BLE001  a bug in here, or in the extra, must not cost more than a reader
                self._problem = f"internal error: {type(error).__name__}"
            finally:
                self._link = None
                self._views.clear()
            pause = FIRST_PAUSE if loop.time() - started > LASTING else min(2 * pause, MOST_PAUSE)
            turn += 1
            await asyncio.sleep(max(pause, least) * random.uniform(0.5, 1))  # noqa: S311

    async def _converse(self, server: str) -> None:
        """Connect, subscribe and listen, until something ends it."""
        wire = await asyncio.shield(self._wire)
        ip = await own_ip(server)
        async with connected(wire, server, self._ca_file) as channel:
            link = Link(wire, server, channel, ip, self._access)
            await link.open(self._namespace)
            self._link = link
            tasks = [asyncio.create_task(part(link)) for part in (self._listen, self._subscribe, self._keep_alive)]
            try:
                done, _ = await asyncio.wait([*tasks, link.lost], return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
            finally:
                self._link = None
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, link: Link) -> None:
        async for told in link.pushes():
            self._take(*self._understood(link, told))

    async def _keep_alive(self, link: Link) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE)
            await link.pulse()

    async def _subscribe(self, link: Link) -> None:
        asked: set[Key] = set()
        while True:
            self._news.clear()
            for key in self._wanted - asked:
                told, view = self._understood(link, await link.subscribe(self._namespace, key))
                asked.add(key)
                if told not in self._views:  # else a push has overtaken the answer, and is newer
                    self._take(told, view)
            await self._news.wait()

    def _understood(self, link: Link, told: Any) -> tuple[Key, View]:
        """Parse a state; whatever is not exactly one must not be taken for an empty one."""
        try:
            key = of_kind(told["groupName"], str), of_kind(told["name"], str)
            records = [record_of(row, key, self._namespace) for row in of_kind(told["hosts"], list)]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Unavailable(f"{link.name} sends a push that is none") from None
        if key not in self._wanted:
            raise Unavailable(f"{link.name} pushes a service that nobody asked for")
        apps = [record.instance for record in records]
        places = [(app.service.cluster, canonical(app.ip), app.port) for app in apps]
        return key, tuple(zip(places, records, strict=True))

    def _take(self, key: Key, view: View) -> None:
        self._views[key] = view
        shown = self._shown.setdefault(key, {})
        for place, _ in view:
            shown.pop(place, None)
            shown[place] = None
        while len(shown) > MOST_SHOWN:
            del shown[next(iter(shown))]
