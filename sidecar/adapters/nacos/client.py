"""Nacos over its HTTP APIs: one client, the dialects as a table.

What is translated here, and why it takes care (facts and bodies: nacos-measured.md sections 2 and 5):
- A 200 is a success only with Nacos' own success in its body; 3.x can answer 200 with nothing at all.
- Absent means absent only in Nacos' own words. Any other 404, 410 or 501 (a wrong context path, an Ingress, a server
  that was upgraded under us) is no verdict, and the dialect is detected again.
- 403 is both "log in again" and "not allowed": one login, one repeat, then it is a verdict.
- Everything goes into the query string, which every version reads, except a password, which goes into the body.
A node is tried once per call. Which node, when, and how often is the core's business.
"""

import asyncio
import contextlib
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import quote, quote_plus, urlsplit

from sidecar.http import Answer, Http
from sidecar.ports import NotThere, Rejected, Unavailable
from sidecar.removal import Instance, Record, Service


MARK = "nacos-drain"  # the metadata key of our ownership mark
RENEW_AT = 0.8  # of a token's life
MEMBERS_PERIOD = 300.0
LOGIN_PAUSE = 5.0  # between two logins that fail
MOST_EXCERPT = 160

Credentials = Callable[[], tuple[str, str]]
OnRequest = Callable[[str, str, str], None]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one generation of servers wants to be asked. Paths are below the context path."""

    name: str
    read: str  # the consumers' view
    look: str  # unfiltered
    write: tuple[str, str]  # an edit that answers 'absent' instead of leaving a record
    sweep: tuple[str, str] | None  # an edit of the record of an absent instance; None: records do not outlive it
    members: str
    login: str
    cluster_key: str  # how the list calls spell the cluster
    marks: bool  # whether a metadata write merges; where it replaces, it would wipe the app's own


V1_INSTANCE = "/v1/ns/instance"
DIALECTS = (
    Dialect(
        "1.x",
        read=f"{V1_INSTANCE}/list",
        look="/v1/ns/catalog/instances",
        write=("PATCH", V1_INSTANCE),
        sweep=None,
        members="/v1/core/cluster/nodes",
        login="/v1/auth/login",
        cluster_key="clusters",
        marks=False,
    ),
    Dialect(
        "2.x",
        read=f"{V1_INSTANCE}/list",
        look="/v1/ns/catalog/instances",
        write=("PATCH", V1_INSTANCE),
        sweep=("PUT", V1_INSTANCE),
        members="/v1/core/cluster/nodes",
        login="/v1/auth/users/login",
        cluster_key="clusters",
        marks=True,
    ),
    Dialect(
        "3.x",
        read="/v3/client/ns/instance/list",
        look="/v3/admin/ns/instance/list",
        write=("PUT", "/v3/admin/ns/instance/partial"),
        sweep=("PUT", "/v3/admin/ns/instance"),
        members="/v3/admin/core/cluster/node/list",
        login="/v3/auth/user/login",
        cluster_key="clusterName",
        marks=True,
    ),
)
OLD, TWO, THREE = DIALECTS

# Nacos' own words for "there is no such instance", as the answer to a read or a write.
ABSENT = (
    "no matched ip found",
    "no ips found for cluster",
    "instance not found",
    "service not found",
    "is not found!",
    "no service",
)
LOST = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED}
)  # not Nacos' own API of this dialect, unless the body says ABSENT
FORBIDDEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass
class _Node:
    """One node, as far as it is known."""

    name: str
    url: str
    configured: bool
    dialect: Dialect | None = None
    answered: bool = False


@dataclass
class _Login:
    """The newest token and its fate."""

    token: str = ""
    at: float = 0.0
    ttl: float = 0.0
    failed_at: float = float("-inf")
    error: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def name_of(url: str) -> str:
    """The name under which logs and reports speak of a node: host and port."""
    return urlsplit(url).netloc


class Nacos:
    """A Registry over HTTP."""

    def __init__(
        self,
        http: Http,
        urls: Iterable[str],
        *,
        credentials: Credentials | None = None,
        on_request: OnRequest = lambda _node, _op, _result: None,
    ) -> None:
        self._http = http
        self._nodes = {name_of(url): _Node(name_of(url), url.rstrip("/"), configured=True) for url in urls}
        self._credentials = credentials
        self._on_request = on_request
        self._login = _Login()
        self._members_at = float("-inf")
        self._members = 0
        self._secrets: tuple[str, ...] = ()

    # -- Registry --------------------------------------------------------------------------------------------------

    @property
    def one_address(self) -> bool:
        """One configured address, and nothing proves that a single node stands behind it."""
        configured = sum(node.configured for node in self._nodes.values())
        others = any(node.answered and not node.configured for node in self._nodes.values())
        return configured == 1 and self._members != 1 and not others

    def nodes(self) -> tuple[tuple[str, bool], ...]:
        """Name and whether it is required."""
        return tuple((n.name, n.configured or n.answered) for n in self._nodes.values())

    async def refresh(self) -> None:
        """Renew what is due. Failures are not told: the calls that need it will say so."""
        now = asyncio.get_running_loop().time()
        with contextlib.suppress(Unavailable, Rejected):
            if self._credentials is not None and self._stale(now):
                for node in self._nodes.values():
                    await self._dialect(node)
                    if await self._log_in(node):
                        break
        if now - self._members_at >= MEMBERS_PERIOD:
            with contextlib.suppress(Unavailable, Rejected):
                await self._discover()
                self._members_at = now

    async def read(self, node: str, service: Service, addresses: Iterable[str], *, fresh: bool) -> tuple[Record, ...]:
        """The consumers' view."""

        def call(dialect: Dialect) -> tuple[str, str, dict[str, str]]:
            cluster = {dialect.cluster_key: service.cluster}
            return "GET", dialect.read, {**_service(service), **cluster, "healthyOnly": "false"}

        answer, dialect = await self._ask(node, "read", call, fresh=fresh)
        rows = _rows(answer, addresses, "data" if dialect is THREE else "hosts")
        return _records(rows, service, addresses)

    async def look(self, node: str, service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
        """The unfiltered view."""

        def call(dialect: Dialect) -> tuple[str, str, dict[str, str]]:
            page = {} if dialect is THREE else {"pageNo": "1", "pageSize": "100000"}
            return "GET", dialect.look, {**_service(service), "clusterName": service.cluster, **page}

        try:
            answer, dialect = await self._ask(node, "look", call)
        except NotThere:
            return ()
        return _records(_rows(answer, addresses, "data" if dialect is THREE else "list"), service, addresses)

    async def disable(self, node: str, instance: Instance, *, weight: float, mark: str) -> None:
        """Take it out of every consumer's view, with our mark in the record."""
        await self._edit(node, "disable", instance, weight=weight, enabled=False, mark=mark)

    async def enable(self, node: str, instance: Instance, *, weight: float) -> None:
        """Put it online again, without our mark."""
        await self._edit(node, "enable", instance, weight=weight, enabled=True, mark="")

    async def sweep(self, node: str, instance: Instance, *, weight: float) -> None:
        """Enable what a gone instance left behind."""

        def call(dialect: Dialect) -> tuple[str, str, dict[str, str]]:
            if dialect.sweep is None:
                raise NotThere
            return *dialect.sweep, _instance(instance, weight=weight, enabled=True)

        _succeeded(*await self._ask(node, "sweep", call))

    async def down(self) -> frozenset[str]:
        """Who is DOWN by the word of a node that answers."""
        rows = await self._member_rows()
        return frozenset(str(row.get("address", "")) for row in rows if row.get("state") == "DOWN")

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _edit(self, node: str, op: str, instance: Instance, *, weight: float, enabled: bool, mark: str) -> None:
        def call(dialect: Dialect) -> tuple[str, str, dict[str, str]]:
            marked = {"metadata": json.dumps({MARK: mark}, separators=(",", ":"))} if dialect.marks else {}
            return *dialect.write, {**_instance(instance, weight=weight, enabled=enabled), **marked}

        _succeeded(*await self._ask(node, op, call))

    async def _ask(
        self,
        name: str,
        op: str,
        call: Callable[[Dialect], tuple[str, str, dict[str, str]]],
        *,
        fresh: bool = False,
    ) -> tuple[Answer, Dialect]:
        """Ask one node once, with one login and one repeat where it does not know us."""
        node = self._nodes[name]
        result = "unavailable"
        try:
            dialect = await self._dialect(node)
            if self._credentials is not None and self._stale(asyncio.get_running_loop().time()):
                await self._log_in(node)
            method, path, query = call(dialect)
            token = self._login.token
            answer = await self._send(node, method, path, query, fresh=fresh)
            if answer.status in FORBIDDEN and self._credentials is not None:
                if self._login.token == token:
                    await self._log_in(node, again=True)
                answer = await self._send(node, method, path, query, fresh=fresh)
            self._judge(node, answer)
            node.answered = True
            result = "ok"
        except NotThere:
            node.answered = True
            result = "absent"
            raise
        except Rejected:
            result = "rejected"
            raise
        finally:
            self._on_request(name, op, result)
        return answer, dialect

    async def _send(
        self, node: _Node, method: str, path: str, query: Mapping[str, str], *, fresh: bool = False
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self._login.token}"} if self._login.token else None
        return await self._http.request(method, node.url + path, params=query, headers=headers, fresh=fresh)

    def _judge(self, node: _Node, answer: Answer) -> None:
        """Let a usable answer pass; anything else is one of three errors."""
        text, status = answer.text, answer.status
        if status == HTTPStatus.OK:
            return
        absent = any(words in text for words in ABSENT)
        if absent and status in {400, 404, 500}:
            raise NotThere
        if status in FORBIDDEN:
            raise Rejected(self._forbidden(node, answer))
        if status == HTTPStatus.BAD_REQUEST and "invalid redirect request" not in text:
            raise Rejected(f"{node.name} answers 400: {self._excerpt(answer)}")
        if status in LOST:
            spoke, node.dialect = node.dialect, None
            was = spoke.name if spoke else "Nacos"
            raise Unavailable(
                f"{node.name} answers {status}, which is not the {was} API: was it upgraded, or is the context path "
                f"{urlsplit(node.url).path or '/'} wrong? Detecting again"
            )
        raise Unavailable(f"{node.name} answers {status}: {self._excerpt(answer)}")

    def _forbidden(self, node: _Node, answer: Answer) -> str:
        if self._credentials is None:
            return (
                f"{node.name} answers {answer.status} without credentials: set NACOS_DRAIN_NACOS_USERNAME and "
                "NACOS_DRAIN_NACOS_PASSWORD of a user who may write in this namespace"
            )
        if self._login.error:
            return self._login.error
        return f"{node.name} answers {answer.status} after a new login: {self._excerpt(answer)}"

    def _excerpt(self, answer: Answer) -> str:
        """The server's own words, short and without our secrets: some proxies echo what they were sent."""
        text = answer.text
        with contextlib.suppress(ValueError, AttributeError):
            body = json.loads(text)
            text = str(body.get("data") or body.get("message") or text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:MOST_EXCERPT] or "an empty body"

    # -- who speaks what -------------------------------------------------------------------------------------------

    async def _dialect(self, node: _Node) -> Dialect:
        """The node's dialect, detected when it is not known."""
        if node.dialect is None:
            node.dialect = await self._detect(node)
        return node.dialect

    async def _detect(self, node: _Node) -> Dialect:
        """Ask for the version where each generation tells it; no login is needed for that.

        The v2 member list stands in for the console's answer where the console is not deployed; 1.x has no v2 at all.
        """
        answer = await self._http.request("GET", f"{node.url}/v3/admin/core/state")
        if answer.status == HTTPStatus.OK and _version(answer).startswith("3."):
            return THREE
        answer = await self._http.request("GET", f"{node.url}/v1/console/server/state")
        version = _version(answer) if answer.status == HTTPStatus.OK else ""
        if version:
            return OLD if version.startswith(("0.", "1.")) else TWO
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in LOST:
            raise Unavailable(f"{node.name} answers {answer.status} when asked for its version")
        answer = await self._http.request("GET", f"{node.url}/v2/core/cluster/node/list")
        known = answer.status == HTTPStatus.OK and '"code"' in answer.text
        if known or answer.status in FORBIDDEN:
            return TWO
        raise Unavailable(
            f"{node.name} does not answer as a Nacos server below {urlsplit(node.url).path or '/'}: "
            "check NACOS_DRAIN_NACOS_SERVER_ADDR and its context path"
        )

    async def _discover(self) -> None:
        """Learn the other members; one that is reachable becomes required with its first answer."""
        rows = await self._member_rows()
        self._members = len(rows)
        if len(rows) <= 1:
            return
        first = next(iter(self._nodes.values()))
        parts = urlsplit(first.url)
        for row in rows:
            address = str(row.get("address", ""))
            if address and address not in self._nodes:
                self._nodes[address] = _Node(address, f"{parts.scheme}://{address}{parts.path}", configured=False)

    async def _member_rows(self) -> list[dict[str, object]]:
        error: Exception = Unavailable("no node tells its members")
        for node in [*self._nodes.values()]:
            try:
                answer, _ = await self._ask(node.name, "members", lambda d: ("GET", d.members, {}))
                rows = json.loads(answer.body)["data"]
                return [row for row in rows if isinstance(row, dict)]
            except (Unavailable, Rejected) as problem:
                error = problem
            except (ValueError, KeyError, TypeError) as problem:
                error = Unavailable(f"{node.name} sent a member list that is none")
                error.__cause__ = problem
        raise error

    # -- login -----------------------------------------------------------------------------------------------------

    def _stale(self, now: float) -> bool:
        login = self._login
        renew = not login.token or now - login.at >= RENEW_AT * login.ttl
        return renew and now - login.failed_at >= LOGIN_PAUSE

    async def _log_in(self, node: _Node, *, again: bool = False) -> bool:
        """Get a token from this node. A failure keeps the old one: it may still be good, or none may be needed."""
        login, loop = self._login, asyncio.get_running_loop()
        assert self._credentials is not None  # noqa: S101  asked by the callers
        async with login.lock:
            if not again and not self._stale(loop.time()):
                return bool(login.token)
            try:
                username, password = self._credentials()
                self._secrets = tuple(_spellings(password))
                dialect = await self._dialect(node)
                answer = await self._http.request(
                    "POST", node.url + dialect.login, form={"username": username, "password": password}
                )
                if answer.status in LOST and dialect is OLD:
                    answer = await self._http.request(
                        "POST", node.url + TWO.login, form={"username": username, "password": password}
                    )
                token, ttl = _token(answer)
            except Unavailable as error:
                login.failed_at, login.error = loop.time(), f"login failed: {error}"
                return False
            except _NoToken as error:
                login.failed_at = loop.time()
                login.error = (
                    f"{node.name} refuses the login (it answers {error.status}): check NACOS_DRAIN_NACOS_USERNAME and "
                    "NACOS_DRAIN_NACOS_PASSWORD; Nacos 3 answers 500 to a wrong password"
                )
                return False
            login.token, login.ttl, login.at, login.error = token, ttl, loop.time(), ""
            self._secrets += tuple(_spellings(token))
            return True


class _NoToken(Exception):
    """A login without a token in its answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _token(answer: Answer) -> tuple[str, float]:
    try:
        body = json.loads(answer.body)
        return str(body["accessToken"]), float(body["tokenTtl"])
    except (ValueError, KeyError, TypeError) as error:
        raise _NoToken(answer.status) from error


def _spellings(secret: str) -> Iterable[str]:
    """The ways in which a secret may turn up in somebody else's text."""
    if secret:
        yield from {secret, quote(secret, safe=""), quote_plus(secret), b64encode(secret.encode()).decode()}


def _service(service: Service) -> dict[str, str]:
    return {
        "serviceName": service.name,
        "groupName": service.group,
        "namespaceId": service.namespace or "public",
    }


def _instance(instance: Instance, *, weight: float, enabled: bool) -> dict[str, str]:
    """Always with the exact cluster and the current weight: what is omitted is reset."""
    return {
        **_service(instance.service),
        "clusterName": instance.service.cluster,
        "ip": instance.ip,
        "port": str(instance.port),
        "weight": repr(weight),
        "enabled": str(enabled).lower(),
    }


def _succeeded(answer: Answer, dialect: Dialect) -> None:
    """A write has worked only when the body says so; 3.x has been seen to answer 200 with nothing."""
    if dialect is not THREE and answer.text.strip() == "ok":
        return
    with contextlib.suppress(ValueError, AttributeError):
        if dialect is THREE and json.loads(answer.body).get("code") == 0:
            return
    raise Unavailable("a write was answered 200 without Nacos' success in the body")


def _version(answer: Answer) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        body = json.loads(answer.body)
        return str((body.get("data") or body).get("version", ""))
    return ""


def _rows(answer: Answer, addresses: Iterable[str], key: str) -> list[dict[str, object]]:
    """The rows of a list. A body that does not hold our address is recognised without parsing megabytes of it."""
    v4 = all("." in address for address in addresses)
    head = answer.body[:1] == b"{" and f'"{key}":'.encode() in answer.body
    if head and v4 and not any(address.encode() in answer.body for address in addresses):
        return []
    try:
        rows = json.loads(answer.body)[key]
        return [row for row in rows if isinstance(row, dict)]
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable("a list that is none: is this a Nacos server, and the right context path?") from error


def _same(one: str, other: str) -> bool:
    """Whether two spellings are one address; IPv6 has many."""
    if one == other:
        return True
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False  # a registered host name


def _records(rows: Iterable[Mapping[str, object]], service: Service, addresses: Iterable[str]) -> tuple[Record, ...]:
    wanted = tuple(addresses)
    found = []
    for row in rows:
        ip = str(row.get("ip", ""))
        if not any(_same(ip, address) for address in wanted):
            continue
        if str(row.get("clusterName") or service.cluster) != service.cluster:
            continue
        try:
            metadata = row.get("metadata")
            found.append(
                Record(
                    Instance(service, ip, int(str(row["port"]))),
                    enabled=_flag(row["enabled"]),
                    weight=float(str(row.get("weight", 1.0))),
                    healthy=_flag(row.get("healthy", True)),
                    ephemeral=_flag(row.get("ephemeral", True)),
                    mark=str(metadata.get(MARK) or "") if isinstance(metadata, dict) else "",
                )
            )
        except (KeyError, ValueError) as error:
            raise Unavailable("a list with a row that is no instance") from error
    return tuple(found)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(value)
