"""Who holds an instance in the registry, told from the clients that a node knows.

Measured on 2.2.4 and 3.1.0. A client's id tells its kind: `ip:port#true` registers over HTTP and beats, `ip:port#false`
is a persistent one, `<ms>_<ip>_<port>` a connection. A connection that registered several instances of one service did
it in one batch, since a second plain registration replaces the first; a batch of one looks like a plain one. 2.2.4 does
not look into batches: it lists their clients without an address.
"""

import re
from collections.abc import Iterable

from sidecar.registration import Instance, Publisher

from .answers import Holding, same


_KINDS = (
    (re.compile(r".+:\d+#true"), Publisher.BEAT),
    (re.compile(r".+:\d+#false"), Publisher.PERSISTENT),
    (re.compile(r"\d+_.+_\d+"), Publisher.GRPC),
)


def ours(holdings: Iterable[Holding], instance: Instance) -> tuple[Holding, ...]:
    """The rows about this instance."""
    return tuple(
        row
        for row in holdings
        if same(row.ip, instance.ip) and row.port == instance.port and row.cluster in {"", instance.service.cluster}
    )


def holder(rows: Iterable[Holding]) -> Publisher:
    """Who holds what these rows are about. Held in two ways, it is safe to think neither."""
    kinds = {_kind(row.client) for row in rows}
    return kinds.pop() if len(kinds) == 1 else Publisher.UNKNOWN


def _kind(client: str) -> Publisher:
    return next((kind for pattern, kind in _KINDS if pattern.fullmatch(client)), Publisher.UNKNOWN)
