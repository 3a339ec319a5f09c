"""Who calls while a replica is replaced."""

from dataclasses import dataclass

from .load import Consumer


CACHE = "--spring.cloud.loadbalancer.cache"
CACHED = Consumer("cached", "127.0.1.31")  # the default: a list is used for 35 s, whatever Nacos pushes
NO_CACHE = Consumer("no cache", "127.0.1.32", (f"{CACHE}.enabled=false",))
NACOS = Consumer("Nacos' own", "127.0.1.33", ("--spring.cloud.loadbalancer.nacos.enabled=true",))
SHORT = Consumer("5 s cache", "127.0.1.34", (f"{CACHE}.ttl=5s",))
GATEWAYS = (CACHED, NO_CACHE, NACOS)

WARM_UP, LOOK_BACK = 25.0, 20.0


@dataclass(frozen=True)
class Cell:
    """Some gateways and their load, each with `rate` requests a second."""

    name: str
    words: str
    consumers: tuple[Consumer, ...]
    rate: float
    warm_up: float = WARM_UP  # seconds under this load before the first replacement
    look_back: float | None = LOOK_BACK  # the sidecars'; None: their default, 5 min


STANDARD = ("push", "cached", "slow")
CELLS = {
    cell.name: cell
    for cell in (
        Cell("push", "two gateways that follow pushes, 60 requests/s each", (NO_CACHE, NACOS), 60.0),
        Cell("cached", "a gateway with the default 35 s cache, 60 requests/s", (CACHED,), 60.0),
        Cell("slow", "all three gateways, 0.5 requests/s each", GATEWAYS, 0.5),
        Cell("defaults", "as push, with the default look-back of 5 min", (NO_CACHE, NACOS), 60.0, 310.0, None),
        Cell("forget", "four gateways, 20 requests/s each", (CACHED, SHORT, NO_CACHE, NACOS), 20.0),
    )
}
