"""A Nacos server's HTTP side, embedded: for the demo on a laptop, and for tests with faults.

It answers word for word as real 1.4.8, 2.2.4 and 3.1.0 servers were measured to answer, traps
included: a DELETE that says ok and does nothing, a disabled state that survives a restart on the
same address, lists that lag half a second behind. The same contract suite runs on it and on real
servers; what follows is **not** like the real one, and nothing may be claimed on it:

- No gRPC, no UDP, no pushes: a connection-based client is a private path (`/double/grpc/…`), and
  consumers poll. What a push would say, a list says at the same moment.
- No Raft and no Distro: nodes of a `cluster` share one truth and only their lists are their own,
  each late by its own `push_delay`. No leader is ever lost unless a fault says so; no DELETE is
  routed, or undone by another node; a killed node's instances stay. Member states are set by hand.
- No health checks (a persistent instance stays as healthy as it was registered), no protection
  threshold, no selectors. An empty service is never forgotten; a real server does in minutes.
- Expiry is exact; real servers look every 5 s. Auth knows passwords, an expiry date and "may only
  read", no roles by resource; signed requests it checks by what clients sign, never seen by a
  real server. The identity header is missing.
- Bodies of 2.x with auth on, of 503, outside the context path, and most alternatives named by a
  410 come from reading code, not from a run.
"""

from sidecar.demo.double.access import Access
from sidecar.demo.double.answers import Dialect
from sidecar.demo.double.faults import Fault, Faults
from sidecar.demo.double.naming import Naming, View
from sidecar.demo.double.records import Instance, Overlay, Service, WrongKindError
from sidecar.demo.double.server import Double, Request, cluster


__all__ = [
    "Access",
    "Dialect",
    "Double",
    "Fault",
    "Faults",
    "Instance",
    "Naming",
    "Overlay",
    "Request",
    "Service",
    "View",
    "WrongKindError",
    "cluster",
]
