"""One request to the actuator: where it goes, what it carries, and who may see the login."""

from base64 import b64encode
from collections.abc import Callable, Mapping

from sidecar.http import Answer, Http
from sidecar.ports import Unavailable

from .refusals import Call, Endpoint, unreachable


TELLING = frozenset({Endpoint.DISCOVERY, Endpoint.REGISTRATION})  # where JSON is asked for, as a proxy may have a page

Login = Callable[[], tuple[str, str]]


class Asking:
    """The way to the app. The login goes with the calls that say so."""

    def __init__(self, http: Http, login: Login | None) -> None:
        self._http = http
        self.login = login

    async def send(self, call: Call, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        """Make the call, once. Raises Unavailable without an answer."""
        sent = dict(headers or {})
        if call.login and "authorization" not in map(str.lower, sent):
            sent["Authorization"] = self._basic()
        if call.endpoint in TELLING:
            sent["Accept"] = "application/json"
        try:
            return await self._http.request(call.method, call.url, headers=sent, body=body)
        except Unavailable as error:
            raise unreachable(call, error) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    def _basic(self) -> str:
        assert self.login is not None  # noqa: S101  asked by the caller
        return "Basic " + b64encode(":".join(self.login()).encode()).decode()
