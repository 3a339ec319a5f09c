"""Dubbo's QoS port: the app's own commands to leave Nacos with all its services and ports, and to come back.

What is translated here, and why it takes care (measured on 2.7.23, 3.0.15, 3.1.11, 3.2.16 and 3.3.5 with Nacos 2.2.4;
tests/programs/scripted_qos.py answers as they did):
- `offline` without a pattern means every service, as interfaces and as the application; `offlineInterface` and
  `offlineApp` are its halves. The instances of interfaces are deregistered before it answers. The application's goes
  when its metadata is published next: since 3.2 by itself, after a second unless set otherwise; in 3.0 and 3.1 nothing
  came of it in 5 s. So each command is followed by the one that publishes at once. `online` works the same way.
- OK says that there are services, not that any left: it is the answer to a second `offline` as well, also to one after
  a first that failed and left them listed.
- "Foreign Ip Not Permitted", said until 3.1 and later at permission level NONE, comes without a word of HTTP, and the
  command is carried out all the same. The 403 of the other levels is meant.
- A 500 quotes the URL of the registry with its password in clear, so no body is ever quoted.
Each command is given once; when, and how often, is the core's business.
"""

import contextlib
from http import HTTPStatus

from sidecar.http import Answer, Http
from sidecar.ports import Rejected, Unavailable
from sidecar.registration import Road


ROAD = Road("dubbo", undoable=True, inside=True)

PUBLISH = ("publishMetadata", "publish-metadata")  # its name in 2.7 and 3.3, and that in 3.0 to 3.2
DONE = "OK"
NO_SERVICE = "service not found"
LIST = "As Provider side:"
FOREIGN = "Foreign Ip Not Permitted"

SETTING = "NACOS_DRAIN_DUBBO_QOS"
LET_IN = (
    f"set {SETTING} to 127.0.0.1 and the port, or let our address in by the app's "
    "dubbo.application.qos-accept-foreign-ip (from 3.2 on by the whitelist of that name)"
)


class DubboQos:
    """An Inside over HTTP; `address` is the QoS port, as in `127.0.0.1:22222`."""

    def __init__(self, http: Http, address: str) -> None:
        self._http = http
        self._address = address

    @property
    def roads(self) -> tuple[Road, ...]:
        """The one way out, for all that Dubbo has registered."""
        return (ROAD,)

    async def offline(self, road: str) -> None:
        """Ask the app to take all its services out of Nacos."""
        await self._command(road, "offline")

    async def online(self, road: str) -> None:
        """Ask the app to register them again."""
        await self._command(road, "online")

    async def answers(self) -> None:
        """Return when it is QoS, and would obey us: the command that lists needs the same permission as those that act.

        Changes nothing. Raises Rejected or Unavailable with the next step.
        """
        answer = await self._ask("ls")
        if not answer.text.startswith(LIST):
            raise Rejected(self._stranger("ls", answer))

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def _command(self, road: str, command: str) -> None:
        if road != ROAD.name:
            raise ValueError(f"no road of Dubbo: {road}")
        answer = await self._ask(command)
        match answer.text:
            case said if said == DONE:
                await self._publish()
            case said if said == NO_SERVICE:
                raise Rejected(
                    f"Dubbo at {self._address} has no services for `{command}`: either none is exported yet, or "
                    f"{SETTING} is the port of another app"
                )
            case _:
                raise Unavailable(self._stranger(command, answer))  # whatever it is, it may have obeyed

    async def _publish(self) -> None:
        """Have the application's instance follow now. If that fails it may follow later; the lists will show it."""
        with contextlib.suppress(Unavailable):
            for name in PUBLISH:
                if (await self._send(name)).status != HTTPStatus.NOT_FOUND:
                    return

    async def _ask(self, command: str) -> Answer:
        answer = await self._send(command)
        here = f"`{command}` at {self._address}"
        match answer.status:
            case HTTPStatus.OK:
                return answer
            case HTTPStatus.FORBIDDEN:
                raise Rejected(f"Dubbo refuses {here} (403), which it permits to loopback alone: {LET_IN}")
            case HTTPStatus.NOT_FOUND:
                raise Rejected(f"{here} is unknown (404): is {SETTING} the app's QoS port?")
            case HTTPStatus.INTERNAL_SERVER_ERROR:
                raise Unavailable(
                    f"Dubbo has failed at {here} (500), perhaps half-way: the app's log says why; can it reach Nacos?"
                )
            case status if status > HTTPStatus.INTERNAL_SERVER_ERROR:
                raise Unavailable(self._stranger(command, answer))
            case _:
                raise Rejected(self._stranger(command, answer))

    async def _send(self, command: str) -> Answer:
        """Ask on a connection of its own: QoS closes each after its answer, without saying so."""
        try:
            return await self._http.request("GET", f"http://{self._address}/{command}", fresh=True)
        except Unavailable as error:
            if error.refused:
                message = (
                    f"Dubbo's QoS at {self._address}: {error}: set dubbo.application.qos-enable=true in the app, and "
                    f"{SETTING} to its qos-port; where that port is taken, Dubbo starts without QoS"
                )
                raise Unavailable(message, refused=True) from error
            if FOREIGN in str(error.__cause__):  # the client quotes the line that is no HTTP
                raise Unavailable(
                    f"Dubbo's QoS at {self._address} says that it refuses `{command}` to any but loopback, "
                    f"and may have done it: {LET_IN}"
                ) from error
            raise Unavailable(
                f"Dubbo's QoS at {self._address}: {error}; is {SETTING} 127.0.0.1 and the app's qos-port?"
            ) from error

    def _stranger(self, command: str, answer: Answer) -> str:
        here = f"`{command}` at {self._address}"
        return f"{here} answers {answer.status}, but not as QoS does: is {SETTING} the app's QoS port?"
