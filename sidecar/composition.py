"""The parts of a sidecar, put together from its settings: what `serve` runs, and what `doctor` examines.

The only place that knows every adapter. A secret is read anew at each use, since mounted ones are rotated; one that
cannot be read is an outage of its service, not of ours.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol, TypeVar

from .adapters.actuator import Deregister, SpringActuator
from .adapters.dubbo import DubboQos
from .adapters.nacos import Nacos
from .adapters.process import PodProcess, addresses
from .adapters.sockets import Sockets, default_gateways
from .drain import Rules
from .http import Http
from .ours import VISITORS, Ours
from .plan import fit
from .ports import Inside, Unavailable, Watch
from .registration import Service
from .settings import Loaded, Secret, SecretUnreadable
from .wire import Watched


OnRequest = Callable[[str, str, str], None]
T = TypeVar("T", covariant=True)  # noqa: PLC0105  it is what is read
Pair = Callable[[], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a drain needs from outside."""

    rules: Rules
    registry: Nacos
    app: PodProcess
    actuator: SpringActuator | None
    dubbo: DubboQos | None
    watch: Watch | None
    traffic: Sockets

    @property
    def inside(self) -> dict[str, Inside]:
        """The app's own doors, by the names of their roads."""
        doors: dict[str, Inside] = {}
        for door in (self.actuator, self.dubbo):
            doors |= {road.name: door for road in door.roads} if door is not None else {}
        return doors

    async def close(self) -> None:
        """Close every connection."""
        self.traffic.close()
        for part in (self.registry, self.actuator, self.dubbo, self.watch):
            if part is not None:
                await part.close()


def assemble(
    loaded: Loaded,
    *,
    own_ports: Iterable[int] = (),
    on_request: OnRequest = lambda *_: None,
    visiting: bool = False,
    init: bool = False,
) -> Parts:
    """Make the parts. Nothing is asked yet.

    `on_request` is told node, operation and result of each Nacos request;
    `visiting`: a sidecar may be at work beside us; `init`: we have started the app.
    """
    settings, nacos = loaded.settings, loaded.settings.nacos
    ours, ports = Ours(visiting=visiting), frozenset(own_ports)
    traffic = Sockets(lambda: ours.ports().union(VISITORS))
    actuator = _actuator(loaded, ours)
    dubbo = DubboQos(Http(ours), settings.dubbo_qos) if settings.dubbo_qos is not None else None
    credentials = _pair(nacos.username, nacos.password)
    if credentials is None and settings.borrow_credentials and actuator is not None:
        credentials = _borrowed(actuator)
    keys = _pair(nacos.access_key, nacos.secret_key)
    registry = Nacos(
        Http(ours, ca_file=nacos.ca_file, ca_setting="NACOS_DRAIN_NACOS_CA_FILE"),
        nacos.server_addr,
        credentials=credentials,
        keys=keys,
        on_request=on_request,
    )
    watch: Watch | None = None
    if settings.push_watch:
        from .adapters.nacos_push import PushWatch  # noqa: PLC0415  84 MB that only those pay who switch it on

        watch = PushWatch(nacos.server_addr, credentials=credentials, keys=keys, ca_file=nacos.ca_file)
    return Parts(
        _rules(loaded, actuator, dubbo, ports, init=init),
        registry,
        PodProcess(own_ports=ports, match=settings.app_process, listeners=traffic.listeners, ours=ours, below_us=init),
        actuator,
        dubbo,
        watch,
        traffic,
    )


def _actuator(loaded: Loaded, ours: Ours) -> SpringActuator | None:
    """The app's actuator: where one is named, or where nothing else says what the app is registered as."""
    settings = loaded.settings
    deregister = Deregister(
        settings.deregister_url,
        settings.deregister_method,
        _later(settings.deregister_body),
        _later(settings.deregister_undo),
        _later(settings.deregister_headers),
    )
    if settings.actuator_url is None and settings.deregister_url is None and settings.nacos.service:
        return None
    http = Http(ours, ca_file=settings.actuator_ca_file, ca_setting="NACOS_DRAIN_ACTUATOR_CA_FILE")
    login = _pair(settings.actuator_username, settings.actuator_password)
    return SpringActuator(
        http, settings.actuator_url, login=login, deregister=deregister, borrows=settings.borrow_credentials
    )


def _rules(
    loaded: Loaded, actuator: SpringActuator | None, dubbo: DubboQos | None, own_ports: frozenset[int], *, init: bool
) -> Rules:
    settings, nacos = loaded.settings, loaded.settings.nacos
    spring = actuator is not None and (settings.actuator_url is not None or not nacos.service)
    doors = actuator.roads if actuator is not None else ()
    if not spring:  # an endpoint of the user's own, and no actuator
        doors = doors[:1]
    period = 0.85 + 0.3 * int.from_bytes(os.urandom(2)) / 65535  # a fleet that starts together must not ask together
    return Rules(
        plan=fit(loaded.grace_period, settings.app_stop, settings.consumer_cache),
        services=tuple(Service(name, nacos.group, nacos.namespace, nacos.cluster) for name in nacos.service),
        ports=frozenset(nacos.port),
        app_ports=frozenset(settings.app_ports),
        addresses=(nacos.ip,) if nacos.ip else addresses(),
        release=settings.release,
        kubernetes=loaded.kubernetes,
        residue=settings.clear_residue,
        kill=settings.app_kill,
        init=init,
        roads=(*doors, *(dubbo.roads if dubbo is not None else ())),
        actuator=spring,
        app_stop_assumed=settings.app_stop is None,
        jitter=period,
        quiet=settings.settle_rule,
        watched=Watched(
            own_ports,
            tuple(ip_network(network) for network in settings.ignore_networks),
            default_gateways() | frozenset(settings.node_ip),
        ),
        singles=frozenset(settings.single_peers),
    )


# -- secrets ---------------------------------------------------------------------------------------------------------


class _Rotated(Protocol[T]):
    """What may stand in a mounted file: a Secret, or Headers."""

    def read(self) -> T:
        """As it is now. Raises SecretUnreadable."""


def _read(secret: _Rotated[T]) -> T:
    try:
        return secret.read()
    except SecretUnreadable as error:
        raise Unavailable(str(error)) from error


def _later(secret: _Rotated[T] | None) -> Callable[[], T] | None:
    return None if secret is None else lambda: _read(secret)


def _pair(name: Secret | None, secret: Secret | None) -> Pair | None:
    return None if name is None or secret is None else lambda: (_read(name), _read(secret))


def _borrowed(actuator: SpringActuator) -> Pair:
    """The app's own login at Nacos, as its actuator shows it."""

    def read() -> tuple[str, str]:
        told = actuator.credentials()
        if told is None:
            raise Unavailable("the app's actuator has not shown its Nacos login: is nacosdiscovery exposed?")
        return told

    return read
