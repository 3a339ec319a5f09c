"""Faults on demand, one node at a time: everything a Nacos node was seen to do when it is not well.

A fault is chosen for a request before the request is looked at, so it hits whatever dialect,
login or path the request was for.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from sidecar.demo.double.access import REFUSALS
from sidecar.demo.double.answers import Answer, Dialect, no_leader, spring, text


Kind = Literal[
    "hang",  # the connection is accepted and never answered
    "slow",  # answered after `seconds`; the work is done even when nobody waits any more
    "drop",  # closed instead of answered, as a reused connection that idled too long
    "forbid",  # 403: logged in, not allowed
    "expired",  # 403: log in again
    "no_leader",  # 500: the metadata group has no Raft leader
    "unavailable",  # 503: the node is not up yet
    "redirect",  # 400: nodes disagree on who is responsible
    "garbage",  # 200, and not JSON
    "empty",  # 200, and nothing (an exception in the auth filter of 3.x)
    "page",  # 200, and somebody else's web page
    "blank",  # 200, and a list without instances: a node that came back without its data
    "status",  # `status` and `body` as given
]


@dataclass
class Fault:
    """One fault; `on` is "" (all), "reads", "writes", "logins", or a part of the path."""

    kind: Kind
    on: str = ""
    seconds: float = 0.0
    times: int | None = None
    reused: bool = False
    status: int = 500
    body: str = ""

    def hits(self, method: str, path: str, nth: int) -> bool:
        """Say whether this request is meant; `nth` counts requests on its connection."""
        if self.times == 0 or (self.reused and nth == 1):
            return False
        login = "/auth/" in path
        groups = {"": True, "reads": method == "GET", "logins": login}
        groups["writes"] = method != "GET" and not login
        return groups.get(self.on, self.on in path)

    def answer(self, dialect: Dialect, path: str) -> Answer | None:
        """Give what is answered instead; None when the true answer is."""
        if self.kind in REFUSED:
            message = REFUSALS[REFUSED[self.kind]][0 if dialect == "3.1" else 1]
            return spring(HTTPStatus.FORBIDDEN, message, path)
        if self.kind == "no_leader":
            return no_leader(dialect)
        if self.kind == "redirect":
            message = "receive invalid redirect request from peer 127.0.0.1"
            return spring(HTTPStatus.BAD_REQUEST, message, path)
        if self.kind == "status":
            return text(self.status, self.body)
        return FIXED.get(self.kind)


REFUSED = {"forbid": "forbidden", "expired": "expired"}
FIXED: dict[str, Answer] = {
    # Not measured; the words of 2.x's traffic filter.
    "unavailable": text(503, "server is STARTING now, please try again later!"),
    "garbage": Answer(HTTPStatus.OK, '{"hosts":[{"ip":"10.'),
    "empty": Answer(HTTPStatus.OK, ""),
    "page": Answer(HTTPStatus.OK, "<!doctype html><title>Welcome</title>", "text/html"),
}


class Faults:
    """The faults that are on; the first that fits a request hits it."""

    def __init__(self) -> None:
        self._on: list[Fault] = []

    def set(
        self,
        kind: Kind,
        on: str = "",
        *,
        seconds: float = 0.0,
        times: int | None = None,
        reused: bool = False,
        status: int = 500,
        body: str = "",
    ) -> Fault:
        """Switch one on, for `times` requests or until `clear`."""
        fault = Fault(kind, on, seconds, times, reused, status, body)
        self._on.append(fault)
        return fault

    def clear(self) -> None:
        """Be well again."""
        self._on.clear()

    def pick(self, method: str, path: str, nth: int) -> Fault | None:
        """Choose the fault for a request, and count it."""
        for fault in self._on:
            if fault.hits(method, path, nth):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None
