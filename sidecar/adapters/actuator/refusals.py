"""What an actuator's refusals mean, each with the next step.

They are read by somebody in a hurry who has one endpoint, one status and no body: bodies hold passwords, so a message
names the method, the path and the port, and what to set.
"""

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import urlsplit

from sidecar.ports import Rejected, Unavailable


URL = "NACOS_DRAIN_ACTUATOR_URL"
LOGIN = "NACOS_DRAIN_ACTUATOR_USERNAME and NACOS_DRAIN_ACTUATOR_PASSWORD"
EXPOSURE = "management.endpoints.web.exposure.include"
NO_ACTUATOR = f"no actuator is known: set {URL}"

OLD_STARTER = (
    "the app failed. Spring Cloud Alibaba before 2025 cannot do it on Nacos 3, which has no such write any more (410): "
    "Nacos' OpenAPI does it instead, given a login, and so does nacos-drain's starter in the app; else its log says why"
)
NOT_OPEN = (
    "it is not open: set management.endpoint.shutdown.enabled=true (from Spring Boot 3.4 on "
    f"management.endpoint.shutdown.access=unrestricted) and add shutdown to {EXPOSURE}, "
    "or use another NACOS_DRAIN_RELEASE"
)

MULTIPLE_CHOICES, BAD_REQUEST = HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.BAD_REQUEST
CLOSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
WAITS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class Endpoint(StrEnum):
    """The actuator's endpoints that we use, by their ids."""

    HEALTH = "health"
    DISCOVERY = "nacosdiscovery"
    DEREGISTER = "nacos-deregister"
    REGISTRATION = "nacos-deregister/registration"  # our starter's; an endpoint that somebody else wrote has no such
    REGISTRY = "serviceregistry"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as messages speak of it."""

    endpoint: Endpoint
    method: str
    url: str
    login: bool = False  # whether a login goes with it
    elsewhere: bool = False  # not below the actuator's URL
    starter: bool = False  # our own starter answers there

    def __str__(self) -> str:
        """No query and no user: a URL that somebody wrote may carry a secret in both."""
        url = urlsplit(self.url)
        return f"{self.method} {url.path or '/'} at {url.netloc.rpartition('@')[2]}"


def accept(status: int, call: Call) -> None:
    """Return for a success. Raises Rejected where the next try fails as well, else Unavailable."""
    if HTTPStatus.OK <= status < MULTIPLE_CHOICES:
        return
    message = f"{call} answers {status}: {_step(status, call)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in WAITS:  # a 500 may come after half of the work
        raise Unavailable(message)
    raise Rejected(message)


def unreachable(call: Call, error: Unavailable) -> Unavailable:
    """No answer at all; what to do where that can be told."""
    step = f"; is the management port another one? Check {URL}" if error.refused and not call.elsewhere else ""
    return Unavailable(f"{call}: {error}{step}", refused=error.refused)


def _step(status: int, call: Call) -> str:
    """What it means here, and what helps."""
    if status in CLOSED:
        return _denied(status, call)
    if MULTIPLE_CHOICES <= status < BAD_REQUEST:
        return f"a redirect, to https or to a login page: set {_where(call)} to where it leads, or set {LOGIN}"
    if status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}:
        return "the app, or a proxy before it, is not ready"
    match call.endpoint:
        case Endpoint.SHUTDOWN if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            return NOT_OPEN
        case Endpoint.DEREGISTER:
            return _of_custom(status, call)
        case _:
            return _of_spring(status, call)


def _of_custom(status: int, call: Call) -> str:
    """Of an endpoint that the app's own people wrote."""
    match status:
        case HTTPStatus.NOT_FOUND if call.elsewhere:
            return "there is no such endpoint: check NACOS_DRAIN_DEREGISTER_URL"
        case HTTPStatus.NOT_FOUND:
            return _not_exposed("it is not", ", or name the app's own one in NACOS_DRAIN_DEREGISTER_URL")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return "it wants another method: set NACOS_DRAIN_DEREGISTER_METHOD"
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            return (
                "it wants another body or content type: set NACOS_DRAIN_DEREGISTER_BODY, or a Content-Type in "
                "NACOS_DRAIN_DEREGISTER_HEADERS"
            )
        case HTTPStatus.CONFLICT if call.starter:
            return "the app has registered nothing: it is still starting, or was told not to"
        case HTTPStatus.INTERNAL_SERVER_ERROR if call.starter:
            return "the app did not get it done at Nacos: its log says why"
        case HTTPStatus.GONE | HTTPStatus.INTERNAL_SERVER_ERROR:
            return OLD_STARTER
        case _:
            return "the app's log says why"


def _of_spring(status: int, call: Call) -> str:
    """Of an endpoint whose answers are known."""
    match status:
        case HTTPStatus.NOT_FOUND if call.endpoint is Endpoint.REGISTRY:
            return _not_exposed(f"neither {call.endpoint} nor its old name service-registry is")
        case HTTPStatus.NOT_FOUND:
            return _not_exposed("it is not")
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            return (
                f"it takes no JSON, which Spring's own endpoint does: check {URL}, or name another endpoint in "
                "NACOS_DRAIN_DEREGISTER_URL with its NACOS_DRAIN_DEREGISTER_BODY and NACOS_DRAIN_DEREGISTER_HEADERS"
            )
        case HTTPStatus.BAD_REQUEST:
            return f"it does not understand the request; a port that wants TLS says so as well: is it https in {URL}?"
        case HTTPStatus.GONE | HTTPStatus.INTERNAL_SERVER_ERROR if call.endpoint is Endpoint.REGISTRY:
            return OLD_STARTER
        case HTTPStatus.INTERNAL_SERVER_ERROR:
            return "the app's log says why"
        case _:
            return f"no answer of Spring's actuator: check {URL}"


def _denied(status: int, call: Call) -> str:
    if call.elsewhere:
        return "put the login it asks for into NACOS_DRAIN_DEREGISTER_HEADERS"
    if status == HTTPStatus.FORBIDDEN:
        return (
            "not allowed: let the app's security rules permit it, without a CSRF token too"
            f"{'' if call.login else f', or set {LOGIN}'}"
        )
    return f"it refuses the login: check {LOGIN}" if call.login else f"it asks for a login: set {LOGIN}"


def _not_exposed(who: str, instead: str = "") -> str:
    return (
        f"{who} exposed here: add it to {EXPOSURE}{instead}; a profile's value there replaces the default one's; "
        f"the management port or base path may be another one, which goes into {URL}"
    )


def _where(call: Call) -> str:
    return "NACOS_DRAIN_DEREGISTER_URL" if call.elsewhere else URL
