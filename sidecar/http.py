"""The only door to aiohttp's client: limits, one immediate repeat, and errors turned into ours.

Deadlines are the caller's (`asyncio.timeout`): the core gives each effect its own. What is decided here is only what
every caller needs alike: no redirects (they would carry credentials elsewhere), no environment proxies, a bound on the
body, and one repeat at once when a kept connection turns out to be dead - the server closed it while it was idle, which
says nothing about the request.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from .ours import Ours
from .ports import Unavailable


MOST_BYTES = 16 * 1024 * 1024  # a list of 20,000 instances
MOST_AT_ONCE = 16  # requests in flight per node

BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)
UNTRUSTED = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)

# OpenSSL's reasons (x509_vfy.h) for which another file of authorities is no cure.
NOT_YET_VALID, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body for eyes and for comparisons."""
        return self.body.decode("utf-8", "replace")


class Http:
    """A client for a handful of servers. Close it when done.

    `ours` remembers its connections, so that they are told from callers'; `ca_file`: the authorities to believe instead
    of the system's; `ca_setting`: where it is set, for messages.
    """

    def __init__(self, ours: Ours | None = None, *, ca_file: str | None = None, ca_setting: str = "") -> None:
        self._ours = ours
        self._trust = _Trust(ca_file, ca_setting)
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MOST_AT_ONCE))

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """Created on first use: a session wants a running loop."""
        if fresh:
            self._fresh = self._fresh or self._new(force_close=True)
            return self._fresh
        self._kept = self._kept or self._new(force_close=False)
        return self._kept

    def _new(self, *, force_close: bool) -> aiohttp.ClientSession:
        return _session(self._ours, self._trust.context(), force_close=force_close)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        fresh: bool = False,
    ) -> Answer:
        """Send one request. Every HTTP status is an answer; raises Unavailable when there is none.

        `fresh` opens a new connection, so that a balancer may choose another server.
        """
        parts: dict[str, Any] = {"params": params, "headers": headers, "data": form if body is None else body}
        if form is None:  # aiohttp calls all else a byte stream, even no body at all: Spring answers that with 415
            parts["skip_auto_headers"] = ("Content-Type",)
        trace = SimpleNamespace(reused=False)
        async with self._slots[urlsplit(url).netloc]:
            try:
                return await self._send(method, url, trace, fresh=fresh, **parts)
            except (aiohttp.ClientError, ValueError) as error:
                if not (isinstance(error, BROKEN) and trace.reused):
                    raise self._unavailable(error) from error
            try:
                return await self._send(method, url, trace, fresh=True, **parts)
            except (aiohttp.ClientError, ValueError) as error:
                raise self._unavailable(error) from error

    async def _send(self, method: str, url: str, trace: SimpleNamespace, *, fresh: bool, **more: Any) -> Answer:
        request = self._session(fresh=fresh).request(
            method, url, allow_redirects=False, trace_request_ctx=trace, **more
        )
        async with request as response:
            return Answer(response.status, await _bounded(response))

    def _unavailable(self, error: Exception) -> Unavailable:
        if isinstance(error, UNTRUSTED):
            return Unavailable(f"TLS failed: {self._trust.told(error)}")
        return Unavailable(_told(error), refused=isinstance(error, aiohttp.ClientConnectorError))

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()


@dataclass(frozen=True, slots=True)
class _Trust:
    """Whom to believe: the system's authorities, or those of a file alone."""

    file: str | None
    setting: str

    def context(self) -> ssl.SSLContext | bool:
        """Read at the first connection: a mounted file may come later, which is no reason not to start."""
        if self.file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.file)
        except (OSError, ValueError) as error:
            reason = "it holds no certificates in PEM" if isinstance(error, ssl.SSLError) else None
            reason = reason or getattr(error, "strerror", None) or "not readable"
            raise Unavailable(f"the CA file {self.file} cannot be used: {reason}{self._look(': check {}')}") from None

    def told(self, error: aiohttp.ClientError) -> str:
        """Why a server is not believed, and where to look."""
        reason = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else None
        if not isinstance(reason, ssl.SSLCertVerificationError):
            return "the other side does not answer as TLS: is it https there at all?"
        if reason.verify_code in {OTHER_NAME, OTHER_ADDRESS}:
            return f"the server's certificate is for another name ({reason.verify_message.rstrip('.')})"
        if reason.verify_code == EXPIRED:
            return "the server's certificate, or its authority's, has expired"
        if reason.verify_code == NOT_YET_VALID:
            return "the server's certificate is not valid yet: is the clock right here?"
        if self.file is None:
            return f"no authority of this system has signed the server's certificate{self._look(': set {} to its own')}"
        return f"the server's certificate is not signed by the authorities in {self.file}{self._look(': check {}')}"

    def _look(self, words: str) -> str:
        return words.format(self.setting) if self.setting else ""


def _session(ours: Ours | None, trusted: ssl.SSLContext | bool, *, force_close: bool) -> aiohttp.ClientSession:  # noqa: FBT001
    factory = ours.socket_factory if ours is not None else None
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close, ssl=trusted, socket_factory=factory)
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    trace.on_connection_create_start.append(_note_new)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        trace_configs=[trace],
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.reused = True


async def _note_new(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.reused = False  # aiohttp has repeated a GET or PUT by itself


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > MOST_BYTES:
            message = f"an answer of more than {MOST_BYTES // 1024 // 1024} MiB"
            raise Unavailable(message)
    return bytes(body)


def _told(error: Exception) -> str:
    """A message that names what happened but never the URL, which may carry a user's secrets."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.os_error.strerror or 'no reason given'})"
    if isinstance(error, BROKEN):
        return "the connection broke before the answer was complete"
    return f"no valid HTTP answer ({type(error).__name__})"
