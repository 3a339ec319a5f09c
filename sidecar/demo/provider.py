"""A replica of the demo's provider: a Spring app without graceful order, as far as a rollout can tell.

On SIGTERM such an app closes its port first and deregisters last (rollout-baseline.md section 4: the port refuses after
0.03 s, the process is gone after 0.4 s, the list is clean only after 0.6 s). That order is the whole problem.

    python -m sidecar.demo.provider --listen 127.0.0.21:8080 --nacos URL --service NAME [--double]
"""

import argparse
import asyncio
import signal
import sys

import aiohttp
from aiohttp import web

from sidecar.demo.programs import KILLED_BY_SIGTERM
from sidecar.demo.registration import Beating, Connected, Nacos, Registration


STOP_SECONDS = 0.4
DEREGISTER = "/actuator/nacos-deregister"  # the endpoint that the folk hook posts to


class Provider:
    """Answers its consumers for as long as it is told to live."""

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        self._registered = False
        self.app = web.Application()
        self.app.router.add_post("/orders", self._order)
        self.app.router.add_post(DEREGISTER, self._leave)

    async def _order(self, request: web.Request) -> web.Response:
        """Take as long as the consumer says, so that a stop meets requests in flight."""
        await asyncio.sleep(float(request.query.get("seconds", "0")))
        return web.Response(text="ordered\n")

    async def _leave(self, _: web.Request) -> web.Response:
        await self.deregister()
        return web.Response(text="deregistered\n")

    async def register(self) -> None:
        """Be listed."""
        await self._registration.register()
        self._registered = True

    async def deregister(self) -> None:
        """Be listed no more, once: the hook's deregistration leaves the stop nothing to do."""
        if self._registered:
            self._registered = False
            await self._registration.deregister()


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM, then stop in the wrong order."""
    host, _, port = options.listen.rpartition(":")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with aiohttp.ClientSession() as session:
        nacos = Nacos(session, options.nacos, options.service)
        await nacos.login()
        kind = Connected if options.double else Beating
        provider = Provider(kind(nacos, host, int(port)))
        runner = web.AppRunner(provider.app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, int(port))
        await site.start()
        await provider.register()
        await stop.wait()
        stopped = loop.time()
        await site.stop()
        await _cut(runner)
        await provider.deregister()
        await asyncio.sleep(stopped + STOP_SECONDS - loop.time())


async def _cut(runner: web.AppRunner) -> None:
    """Drop every connection, whatever it was carrying: `server.shutdown=immediate`."""
    assert runner.server is not None  # noqa: S101  set up by the caller
    for connection in runner.server.connections:
        connection.force_close()
    await runner.cleanup()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.provider")
    parser.add_argument("--listen", required=True, metavar="IP:PORT")
    parser.add_argument("--nacos", required=True, metavar="URL")
    parser.add_argument("--service", required=True)
    parser.add_argument("--double", action="store_true", help="the server is the demo's double")
    asyncio.run(serve(parser.parse_args()))
    sys.exit(KILLED_BY_SIGTERM)


if __name__ == "__main__":
    main()
