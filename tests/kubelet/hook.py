"""The HTTP client behind `lifecycle.preStop.httpGet`, byte for byte where a sidecar could notice.

A stock client would hide what matters here: that the status counts for nothing, that the hook lasts
until the end of the body but for no more than 10 KiB of it, and that the connection is used again.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urljoin, urlsplit


BODY_READ = 10 * 1024  # bytes after which a kubelet lets go of a hook's answer
REDIRECT_BODY_READ = 2 * 1024  # Go's client reads so much of a redirect to keep the connection
REQUESTS = 10  # Go's client gives up at the tenth redirect
STATUS_LINE = re.compile(r"HTTP/1\.(\d) (\d{3})\b")

Kind = Literal["hook", "old-hook", "probe"]


class HookFailedError(Exception):
    """No answer to be had: the one thing a kubelet calls a failed hook."""


@dataclass(frozen=True)
class HttpGet:
    """`httpGet` of a pod spec; host is the pod's address unless given."""

    path: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None


@dataclass(frozen=True)
class Exec:
    """`exec` of a pod spec: a program that runs in the container; what it says is lost, its exit code is not."""

    argv: Sequence[str]


@dataclass(eq=False)
class _Connection:
    peer: tuple[str, int]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    fresh: bool  # for one exchange only
    reused: bool = False


@dataclass(frozen=True)
class _Answer:
    connection: _Connection
    status: int
    headers: Mapping[str, str]
    keep_alive: bool

    @property
    def length(self) -> int | None:
        """The announced length of the body, if any."""
        if self.status in (204, 304):
            return 0
        length = self.headers.get("content-length")
        return None if length is None or self.chunked else int(length)

    @property
    def chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"


class LifecycleClient:
    """One kubelet's HTTP client: connections outlive the hooks and end with the kubelet.

    It calls from `source`, an address that is neither the pod's nor 127.0.0.1, since a pod may well
    treat its own loopback as a friend. Answers in gzip, though accepted, are not unpacked.
    """

    def __init__(self, source: str, version: str = "1.32") -> None:
        self._source = source
        self._version = version
        self._idle: dict[tuple[str, int], list[_Connection]] = {}
        self._open: set[_Connection] = set()

    async def get(self, action: HttpGet, pod_ip: str, *, kind: Kind = "hook", sent: asyncio.Event | None = None) -> int:
        """Call and return the status once the kubelet would go on; raise when it would complain.

        There is no timeout on purpose. `sent` is set when the request is on the wire.
        """
        # Before 1.26 the path was appended after a slash of its own, whatever it began with.
        slash = "/" if kind == "old-hook" or not action.path.startswith("/") else ""
        host = action.host or pod_ip
        url = f"http://{host}:{action.port}{slash}{action.path}"
        headers = self._headers(action, kind)
        for _ in range(REQUESTS):
            answer = await self._exchange(url, headers, sent)
            target = self._redirect(url, answer)
            await self._finish(answer, BODY_READ if target is None else REDIRECT_BODY_READ)
            if target is None:
                return answer.status
            headers["Referer"] = url
            url = target
        raise HookFailedError("stopped after 10 redirects")

    def cut(self) -> None:
        """End every connection, used or idle, as the death of the kubelet does."""
        for connection in list(self._open):
            self._drop(connection)

    async def close(self) -> None:
        """End every connection and wait until the sockets are closed."""
        writers = [connection.writer for connection in self._open]
        self.cut()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()

    def _headers(self, action: HttpGet, kind: Kind) -> dict[str, str]:
        if kind == "old-hook":  # custom headers were not sent at all
            return {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
        agent = "kube-probe" if kind == "probe" else "kube-lifecycle"
        custom = {name.title(): value for name, value in action.headers.items()}
        headers = {"User-Agent": f"{agent}/{self._version}", "Accept": "*/*"} | custom
        if kind == "probe":
            headers["Connection"] = "close"
        ordered = dict(sorted(headers.items(), key=lambda h: (h[0] != "User-Agent", h[0])))
        return ordered | {"Accept-Encoding": "gzip"}

    async def _exchange(self, url: str, headers: Mapping[str, str], sent: asyncio.Event | None) -> _Answer:
        parts = urlsplit(url)
        port = parts.port or 80
        host = headers.get("Host", parts.netloc)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if name != "Host"]
        request = "\r\n".join([*lines, "", ""]).encode()
        while True:
            fresh = headers.get("Connection") == "close"  # a probe has nothing to do with a hook's
            connection = await self._connect(parts.hostname or "", port, fresh=fresh)
            try:
                connection.writer.write(request)
                await connection.writer.drain()
                if sent is not None:
                    sent.set()
                return await self._head(connection)
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                self._drop(connection)
                # A reused connection that dies before it answers proves nothing: Go dials anew.
                if connection.reused and not getattr(error, "partial", b""):
                    continue
                raise HookFailedError(f"{type(error).__name__}: {error}") from error
            except BaseException:
                self._drop(connection)
                raise

    async def _connect(self, host: str, port: int, *, fresh: bool) -> _Connection:
        idle = self._idle.setdefault((host, port), [])
        while idle and not fresh:
            connection = idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                connection.reused = True
                return connection
            self._drop(connection)
        try:
            reader, writer = await asyncio.open_connection(host, port, local_addr=(self._source, 0), limit=2**20)
        except OSError as error:
            raise HookFailedError(f"{type(error).__name__}: {error}") from error
        connection = _Connection((host, port), reader, writer, fresh)
        self._open.add(connection)
        return connection

    async def _head(self, connection: _Connection) -> _Answer:
        while True:
            raw = await connection.reader.readuntil(b"\r\n\r\n")
            first, *rest = raw.decode("latin-1").strip().split("\r\n")
            matched = STATUS_LINE.match(first)
            if matched is None:
                raise ValueError(f"malformed HTTP response {first!r}")
            status = int(matched[2])
            if status >= 200:  # an informational answer announces the real one
                break
        pairs = (line.partition(":") for line in rest)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        default = "keep-alive" if matched[1] == "1" else "close"
        keep = headers.get("connection", default).lower() == "keep-alive" and not connection.fresh
        return _Answer(connection, status, headers, keep)

    def _redirect(self, url: str, answer: _Answer) -> str | None:
        location = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            return None
        target = urljoin(url, location)
        # Another host is not followed, and yet no failure: the redirect itself is the answer.
        return target if urlsplit(target).hostname == urlsplit(url).hostname else None

    async def _finish(self, answer: _Answer, limit: int) -> None:
        """Read as much of the body as a kubelet does; what goes wrong there is nobody's failure."""
        whole = False
        connection = answer.connection
        try:
            if answer.length is None or answer.length <= limit:
                whole = await self._body(answer, limit)
        except (OSError, EOFError, ValueError):
            whole = False
        finally:
            if whole and answer.keep_alive:
                self._idle.setdefault(connection.peer, []).append(connection)
            else:
                self._drop(connection)

    async def _body(self, answer: _Answer, limit: int) -> bool:
        """Read to the end or the limit, and tell whether that was a body's proper end."""
        reader = answer.connection.reader
        if not answer.chunked:
            left = limit if answer.length is None else answer.length
            while left:
                data = await reader.read(left)
                if not data:
                    return False
                left -= len(data)
            return answer.length is not None
        left = limit
        while left:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            part = min(size, left)
            await reader.readexactly(part)
            left -= part
            if part == size:
                await reader.readuntil(b"\r\n")
            if size == 0:
                return True
        return False

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.writer.close()
