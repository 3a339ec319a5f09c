"""How each generation of servers wants to be asked, as a table; and how to tell which one answers."""

import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.http import Answer


V1_INSTANCE = "/v1/ns/instance"
V1_CATALOG = "/v1/ns/catalog/instances"
V1_SERVICE = "/v1/ns/service"
V1_MEMBERS = "/v1/core/cluster/nodes"
V1_LOGIN = "/v1/auth/users/login"

# Where a version is told to anybody, login or not.
V1_STATE = "/v1/console/server/state"
V3_STATE = "/v3/admin/core/state"
V2_MEMBERS = "/v2/core/cluster/node/list"

LOST = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED})
"""No such API here: not of this dialect, or not Nacos at all. Unless the body says 'absent' in Nacos' own words."""

FORBIDDEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class NotNacos(Exception):
    """Whoever answers there does not answer as any version of Nacos."""


class InTrouble(Exception):
    """A status that says nothing about versions."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one generation of servers wants to be asked. Paths are below the context path."""

    name: str
    read: str  # the consumers' view
    read_rows: str  # under which name its answer holds the instances
    look: str  # unfiltered
    look_rows: str
    write: tuple[str, str]  # an edit that answers 'absent' instead of leaving a record
    sweep: tuple[str, str] | None  # an edit of the record of an absent instance; None: records do not outlive it
    probe: tuple[str, str]  # needs the right to write, and of an absent instance only says that it is absent
    service: str
    publishers: str  # which clients registered an instance; empty: not told
    published: str  # what a client registered; empty: the list of publishers tells that as well
    members: str
    logins: tuple[str, ...]  # tried in turn while one is not there
    cluster_key: str  # how the consumers' list spells the cluster
    marks: bool  # whether a metadata write merges; where it replaces, it would wipe the app's own
    envelope: bool  # whether answers are {"code": 0, …, "data": …}


OLD = Dialect(
    "1.x",
    read=f"{V1_INSTANCE}/list",
    read_rows="hosts",
    look=V1_CATALOG,
    look_rows="list",
    write=("PATCH", V1_INSTANCE),
    sweep=None,
    probe=("PATCH", V1_INSTANCE),
    service=V1_SERVICE,
    publishers="",
    published="",
    members=V1_MEMBERS,
    logins=("/v1/auth/login", V1_LOGIN),
    cluster_key="clusters",
    marks=False,
    envelope=False,
)
TWO = Dialect(
    "2.x",
    read=f"{V1_INSTANCE}/list",
    read_rows="hosts",
    look=V1_CATALOG,
    look_rows="list",
    write=("PATCH", V1_INSTANCE),
    sweep=("PUT", V1_INSTANCE),
    probe=("PATCH", V1_INSTANCE),
    service=V1_SERVICE,
    publishers="/v2/ns/client/service/publisher/list",
    published="/v2/ns/client/publish/list",
    members=V1_MEMBERS,
    logins=(V1_LOGIN,),
    cluster_key="clusters",
    marks=True,
    envelope=False,
)
THREE = Dialect(
    "3.x",
    read="/v3/client/ns/instance/list",
    read_rows="data",
    look="/v3/admin/ns/instance/list",
    look_rows="data",
    write=("PUT", "/v3/admin/ns/instance/partial"),
    sweep=("PUT", "/v3/admin/ns/instance"),
    probe=("GET", "/v3/admin/ns/instance"),  # measured on 3.1.0: 403 for who may only read, 404 for who may write
    service="/v3/admin/ns/service",
    publishers="/v3/admin/ns/client/service/publisher/list",
    published="",
    members="/v3/admin/core/cluster/node/list",
    logins=("/v3/auth/user/login", V1_LOGIN),
    cluster_key="clusterName",
    marks=True,
    envelope=True,
)


async def detect(ask: Callable[[str], Awaitable[Answer]]) -> tuple[Dialect, str]:
    """Ask for the version where each generation tells it; raises NotNacos or InTrouble.

    The v2 member list stands in for the console's answer where the console is not deployed; 1.x has no v2 at all, and
    3.x says 410 to it. It may name no version: then that is "2.x".
    """
    if version := _version(await _state(ask, V3_STATE)):
        return THREE, version
    if version := _version(await _state(ask, V1_STATE)):
        return (OLD if version.startswith(("0.", "1.")) else TWO), version
    answer = await _state(ask, V2_MEMBERS)
    if answer.status in FORBIDDEN or (answer.status == HTTPStatus.OK and '"code"' in answer.text):
        return TWO, _members_version(answer) or TWO.name
    raise NotNacos


async def _state(ask: Callable[[str], Awaitable[Answer]], path: str) -> Answer:
    """A server in trouble has not said that it lacks a call: going on to the next one could name the wrong version."""
    answer = await ask(path)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in LOST:
        raise InTrouble(answer.status)
    return answer


def _version(answer: Answer) -> str:
    if answer.status == HTTPStatus.OK:
        with contextlib.suppress(ValueError, AttributeError):
            body = json.loads(answer.body)
            return str((body.get("data") or body).get("version", ""))
    return ""


def _members_version(answer: Answer) -> str:
    """The version that all members have; which of them has answered is not said."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, LookupError):
        versions = {str(row["extendInfo"].get("version", "")) for row in json.loads(answer.body)["data"]}
        return versions.pop() if len(versions) == 1 else ""
    return ""
