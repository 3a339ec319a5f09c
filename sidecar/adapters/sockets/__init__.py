"""The TCP connections of the pod's network namespace, as the kernel shows them.

Nothing is asked of the app and no capability is needed: the namespace is shared, so its sockets are ours to see.

- `netlink.py` asks for all of them with their counters, and reads the kernel's wire format
- `events.py` is told of each that is gone; a connection shorter than a sample shows nowhere else
- `procfs.py` is the next best: the connections alone, and how many were ever accepted
- `source.py` finds out which of these work here, and takes one look after the other
- `routes.py` names the default gateways, whose callers may be probes
"""

from .routes import default_gateways
from .source import Sockets


__all__ = ["Sockets", "default_gateways"]
