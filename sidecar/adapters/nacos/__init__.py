"""Nacos over its HTTP APIs: one client, the dialects as a table.

What is translated here, and why it takes care (facts and bodies: nacos-measured.md sections 2 and 5):
- A 200 is a success only with Nacos' own success in its body; 3.x can answer 200 with nothing at all, or with an error.
- Absent means absent only in Nacos' own words. Any other 404, 410 or 501 (a wrong context path, an Ingress, a server
  that was upgraded under us) is no verdict, and the dialect is detected again.
- 403 is both "log in again" and "not allowed", often without a word of explanation: one login, one repeat, then it is a
  verdict.
- What was asked for by several instances at the same moment is asked once.
- Everything goes into the query string, which every version reads, except a password, which goes into the body.
A node is tried once per call. Which node, when, and how often is the core's business.
"""

from .client import Nacos
from .nodes import name_of


__all__ = ["Nacos", "name_of"]
