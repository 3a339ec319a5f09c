"""What a Nacos registry remembers: who is registered, and what was written over it.

Apart from HTTP, because several listeners share one of these (a cluster of doubles), and because
the traps this product exists for live here, each as it was measured on 1.4.8, 2.2.4, 2.5.1 and
3.1.0: the record that outlives its instance by a minute and disables the next one on the same
address, the list that tells the news half a second late, the beat that brings an instance back.

Time is whatever `clock` says, and nothing runs by itself: what was due is caught up, in order and
at its own time, whenever somebody looks. So a test may step through a minute in no time.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

from sidecar.demo.double.records import (
    Change,
    Instance,
    Overlay,
    Publication,
    Service,
    WrongKindError,
)


class Naming:
    """The registry; `sticky` is the 2.x and 3.x way, else writes edit the instance as in 1.x."""

    def __init__(
        self,
        *,
        sticky: bool = True,
        expiry: float = 60.0,
        unhealthy_after: float = 15.0,
        removed_after: float = 30.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.sticky = sticky
        self.expiry = expiry
        self.unhealthy_after = unhealthy_after
        self.removed_after = removed_after
        self.members: dict[str, str] = {}
        """Address → UP, SUSPICIOUS or DOWN, as every node's member list shows it."""
        self.thresholds: dict[Service, float] = {}
        """What operators set as protectThreshold; nothing here acts upon it."""
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = count()
        self._clients: dict[Service, dict[str, Publication]] = {}
        self._persistent: dict[Service, bool] = {}
        self._overlays: dict[tuple[Service, tuple[str, int, str]], Overlay] = {}
        self._watchers: list[Callable[[Service], None]] = []

    # -- time

    def catch_up(self) -> None:
        """Let everything happen that was due by now, each at its own time."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            self._now, _, act = heapq.heappop(self._due)
            act()
        self._now = now

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something happen when its time has come."""
        heapq.heappush(self._due, (self._now + seconds, next(self._turn), act))

    def watch(self, changed: Callable[[Service], None]) -> None:
        """Hear of every change a real server would push."""
        self._watchers.append(changed)

    def _changed(self, service: Service) -> None:
        for changed in self._watchers:
            changed(service)

    # -- what clients do

    def register(self, service: Service, client: str, *instances: Instance, batch: bool = False) -> None:
        """Publish; a client has one publication per service, so this replaces its former one."""
        self.catch_up()
        persistent = not instances[0].ephemeral
        if self._persistent.setdefault(service, persistent) != persistent and self.sticky:
            raise WrongKindError(service, persistent=persistent)
        beats = not persistent and not instances[0].grpc
        publication = Publication(instances, self._now if beats else None, batch)
        self._clients.setdefault(service, {})[client] = publication
        if not batch:
            self._keep(service, instances)
        if beats:
            self._expect_beat(service, client)
        self._changed(service)

    def deregister(self, service: Service, client: str) -> bool:
        """Take back what this client published; False when it published nothing here."""
        self.catch_up()
        publication = self._clients.get(service, {}).pop(client, None)
        if publication is None:
            return False
        if not publication.batch:  # measured: a batch publisher's records never expire
            self._mark(service, publication.instances)
        self._changed(service)
        return True

    def close_connection(self, client: str) -> None:
        """Drop everything a gRPC client published, as its closed connection does."""
        for service in list(self._clients):
            self.deregister(service, client)

    def beat(self, service: Service, instance: Instance, *, complete: bool) -> bool:
        """Renew a beating instance; a complete beat registers it again when it was gone."""
        self.catch_up()
        client = self.http_client(instance)
        publication = self._clients.get(service, {}).get(client)
        if publication is None:
            if complete:
                self.register(service, client, instance)
            return complete
        publication.beaten = self._now
        self._expect_beat(service, client)
        self._set_health(service, publication, healthy=True)
        return True

    def http_client(self, instance: Instance) -> str:
        """Name the client an HTTP registration belongs to: its address, and that is all."""
        cluster = "" if self.sticky else f":{instance.cluster}"
        return f"{instance.ip}:{instance.port}{cluster}#{str(instance.ephemeral).lower()}"

    def _expect_beat(self, service: Service, client: str) -> None:
        publication = self._clients[service][client]
        since = publication.beaten

        def silent() -> bool:
            still = self._clients.get(service, {}).get(client)
            return still is publication and publication.beaten == since

        def unhealthy() -> None:
            if silent():
                self._set_health(service, publication, healthy=False)

        def gone() -> None:
            if silent():
                del self._clients[service][client]
                self._mark(service, publication.instances)
                self._changed(service)

        self.later(self.unhealthy_after, unhealthy)
        self.later(self.removed_after, gone)

    def _set_health(self, service: Service, publication: Publication, *, healthy: bool) -> None:
        if any(each.healthy != healthy for each in publication.instances):
            publication.instances = tuple(replace(each, healthy=healthy) for each in publication.instances)
            self._changed(service)

    # -- what operators do

    def put(self, service: Service, instance: Instance) -> None:
        """Write all of it, present or not: on an absent instance the record never expires."""
        self.catch_up()
        if not self.sticky:
            self.register(service, self.http_client(instance), instance)
            return
        written = Overlay(instance.enabled, instance.weight, instance.metadata)
        self._write(service, instance.key, written)

    def patch(self, service: Service, key: tuple[str, int, str], change: Change) -> None:
        """Write a part; on 2.x and 3.x the rest comes from the record, not from the client."""
        self.catch_up()
        if self.sticky:
            former = self._overlays.get((service, key)) or Overlay()
            self._write(service, key, Overlay(*change.over(former)))
            return
        for publication in self._clients.get(service, {}).values():
            found = publication.instances[0]
            if found.key == key:
                enabled, weight, metadata = change.over(found)
                edited = replace(found, enabled=enabled, weight=weight, metadata=metadata)
                publication.instances = (edited,)
                self._changed(service)
                return

    def _write(self, service: Service, key: tuple[str, int, str], overlay: Overlay) -> None:
        former = self._overlays.get((service, key))
        # A write into the minute after the instance left keeps the date of expiry (measured).
        overlay.expires = former.expires if former else None
        self._overlays[service, key] = overlay
        if overlay.expires is not None:
            self._expire(service, key, overlay)
        self._changed(service)

    def _keep(self, service: Service, instances: tuple[Instance, ...]) -> None:
        for each in instances:
            if overlay := self._overlays.get((service, each.key)):
                overlay.expires = None

    def _mark(self, service: Service, instances: tuple[Instance, ...]) -> None:
        for each in instances:
            overlay = self._overlays.get((service, each.key))
            if overlay is not None and overlay.expires is None:
                overlay.expires = self._now + self.expiry
                self._expire(service, each.key, overlay)

    def _expire(self, service: Service, key: tuple[str, int, str], overlay: Overlay) -> None:
        date = overlay.expires

        def expire() -> None:
            # No change is announced for this, here as there.
            if self._overlays.get((service, key)) is overlay and overlay.expires == date:
                del self._overlays[service, key]

        self.later((date or 0.0) - self._now, expire)

    # -- looking

    def knows(self, service: Service) -> bool:
        """Say whether the service was ever there; a real server forgets an empty one in minutes."""
        return service in self._clients

    def merged(self, service: Service) -> tuple[Instance, ...]:
        """List everything as it stands at this moment, disabled ones included."""
        self.catch_up()
        return self.snapshot(service)

    def snapshot(self, service: Service) -> tuple[Instance, ...]:
        """List everything as it stood at the moment that is being caught up with."""
        return tuple(
            self._laid_over(service, each)
            for publication in self._clients.get(service, {}).values()
            for each in publication.instances
        )

    def publishers(self, service: Service) -> dict[str, Publication]:
        """Name who published what of a service."""
        self.catch_up()
        return dict(self._clients.get(service, {}))

    def published(self, client: str) -> dict[Service, Publication]:
        """Tell everything that one client published."""
        self.catch_up()
        return {service: found[client] for service, found in self._clients.items() if client in found}

    def record(self, service: Service | str, ip: str, port: int, cluster: str = "DEFAULT") -> Overlay | None:
        """Show the record over an address, whether or not an instance is there."""
        self.catch_up()
        return self._overlays.get((_service(service), (ip, port, cluster)))

    def _laid_over(self, service: Service, instance: Instance) -> Instance:
        overlay = self._overlays.get((service, instance.key))
        if overlay is None:
            return instance
        metadata = {**instance.metadata, **overlay.metadata}
        return replace(instance, enabled=overlay.enabled, weight=overlay.weight, metadata=metadata)

    # -- for tests and the demo's provider

    def register_grpc(
        self,
        service: Service | str,
        ip: str,
        port: int,
        cluster: str = "DEFAULT",
        *,
        connection: str,
        weight: float = 1.0,
        enabled: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Register as a 2.x client does over its connection; it lives until that closes."""
        if not self.sticky:
            raise ValueError("a 1.x server has no gRPC port")
        instance = Instance(ip, port, cluster, weight=weight, enabled=enabled, metadata=metadata or {}, grpc=True)
        self.register(_service(service), connection, instance)

    def disable_as_operator(self, service: Service | str, ip: str, port: int, cluster: str = "DEFAULT") -> None:
        """Do what a click on "offline" in the console does: a full write without our mark."""
        service = _service(service)
        for found in self.merged(service):
            if found.key == (ip, port, cluster):
                self.put(service, replace(found, enabled=False))
                return
        self.put(service, Instance(ip, port, cluster, enabled=False))


def _service(service: Service | str) -> Service:
    return service if isinstance(service, Service) else Service(service)


class View:
    """One node's lists: computed when its push is due, and served from memory until the next."""

    def __init__(self, naming: Naming, push_delay: float = 0.5) -> None:
        self._naming = naming
        self._delay = push_delay
        self._lists: dict[Service, tuple[Instance, ...]] = {}
        self._pending: set[Service] = set()
        naming.watch(self._touch)

    def hosts(self, service: Service) -> tuple[Instance, ...]:
        """What this node answers now; the first question about a service is answered fresh."""
        self._naming.catch_up()
        if service not in self._lists and self._naming.knows(service):
            self._compute(service)
        return self._lists.get(service, ())

    def clusters(self, service: Service) -> set[str]:
        """The clusters of the last computed list; none before the first one."""
        self._naming.catch_up()
        return {each.cluster for each in self._lists.get(service, ())}

    def _touch(self, service: Service) -> None:
        if service not in self._pending:
            self._pending.add(service)
            self._naming.later(self._delay, lambda: self._push(service))

    def _push(self, service: Service) -> None:
        self._pending.discard(service)
        self._compute(service)

    def _compute(self, service: Service) -> None:
        self._lists[service] = self._naming.snapshot(service)
