"""The shapes a Nacos server answers in: bare text, a result object, Spring's error page.

Which one it is tells a client as much as the status does (a 404 that means "absent" and one that
means "no such path" differ in nothing else), so every body is here word for word as measured.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal


Dialect = Literal["1.4", "2.2", "3.1"]

# The bodies of 2.x and 3.x name the code in words as well.
CODES = {
    0: "success",
    10000: "parameter missing",
    20004: "resource not found",
    21003: "instance not found",
    21004: "instance error",
    21008: "service not exist",
    30000: "server error",
}


@dataclass(frozen=True)
class Answer:
    """A whole response; `token` is for the header a 3.x login adds."""

    status: int
    body: str
    content_type: str = "application/json"
    token: str | None = None


class WrongError(Exception):
    """Something Nacos says no to; each API family words it in its own shape."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def text(status: int, body: str) -> Answer:
    """Answer as v1 does."""
    return Answer(status, body, "text/plain")


def plain(data: Any) -> Answer:
    """Answer with an object that has no envelope, as v1 reads do."""
    return Answer(HTTPStatus.OK, _json(data))


def result(data: Any, *, code: int = 0, status: int = HTTPStatus.OK) -> Answer:
    """Answer as v2 and v3 do."""
    return Answer(status, _json({"code": code, "message": CODES[code], "data": data}))


def spring(status: int, message: str, path: str) -> Answer:
    """Answer as the framework does when no controller did."""
    body = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "status": status,
        "error": HTTPStatus(status).phrase,
        "message": message,
        "path": path,
    }
    return Answer(status, _json(body))


def gone(alternative: str, path: str, api: Literal["admin", "console"]) -> Answer:
    """Answer as 3.x does for an API it has switched off."""
    message = (
        f"Current API will be deprecated, please use API(s) `{alternative}` instead, or set"
        f" `nacos.core.api.compatibility.{api}.enabled=true` in application.properties."
    )
    return spring(HTTPStatus.GONE, _json({"code": 40000, "message": message}), path)


def wrong(dialect: Dialect, family: str, error: WrongError) -> Answer:
    """Word a refusal as this API family does."""
    if family != "v1":
        return result(error.message, code=error.code, status=error.status)
    if dialect == "1.4":
        return text(error.status, f"caused: {error.message};")
    return text(error.status, error.message)


def no_context() -> Answer:
    """Answer as Tomcat does outside the context path (not measured: any page will do)."""
    page = "<!doctype html><html><head><title>HTTP Status 404 - Not Found</title></head></html>"
    return Answer(HTTPStatus.NOT_FOUND, page, "text/html")


def no_leader(dialect: Dialect) -> Answer:
    """Answer a write as a server without a Raft leader does (1.4: as 2.x, not measured)."""
    what = "errCode: 500, errMsg: do metadata operation failed "
    if dialect == "3.1":
        return result(what, code=30000, status=HTTPStatus.INTERNAL_SERVER_ERROR)
    why = "Could not find leader : naming_instance_metadata"
    error = f"com.alibaba.nacos.consistency.exception.ConsistencyException: {why}"
    body = f"caused: {what};caused: {error};caused: {why};"
    return text(HTTPStatus.INTERNAL_SERVER_ERROR, body)


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))
