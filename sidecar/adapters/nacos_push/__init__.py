"""A Watch over gRPC: subscribed as every modern consumer is, one more reader for the proof.

Lists can be clean while pushes do not arrive; this reader sees what consumers are told. A reader of a proof must know
when it does not know, so of nacos-sdk-python the wire alone is used (its generated stubs and messages), and never its
client. That one keeps the last state over a lost connection and subscribes again up to 30 s later, hides the removal of
the last instance, writes files, logs the token, puts the password into a URL, drops the server's request to move, and
leaves tasks behind (nacos-semantics.md section 8, nacos-measured.md section 6). Here a view lives and dies with the
connection that brought it, and nothing is written or logged.

Per namespace one connection to one node: pushes do not name their namespace. A subscription has to outlive its
connections, so this adapter, unlike the others, connects again by itself; whether that matters is the core's business.
"""

from .watch import PushWatch


__all__ = ["PushWatch"]
