"""One app of the provider or consumer side: a Nacos gRPC client in a process of its own.

The published client keeps one connection per process, a connection holds one instance per service,
and its end is what removes it: exactly what a test wants to cause, and cannot inside its own
process. Commands come as JSON lines on stdin, answers and pushes go as JSON lines to stdout.
Runs under `.venv-real`, whose packages the product does not depend on.

    registrant.py HOST:PORT NAMESPACE SCRATCH-FOLDER
"""

import asyncio
import json
import sys
import time
from typing import Any, TextIO

from v2.nacos import (
    BatchRegisterInstanceParam,
    ClientConfigBuilder,
    DeregisterInstanceParam,
    NacosNamingService,
    RegisterInstanceParam,
    SubscribeServiceParam,
)
from v2.nacos.naming.model.naming_request import NOTIFY_SUBSCRIBER_REQUEST_TYPE
from v2.nacos.naming.remote.naming_push_request_handler import NamingPushRequestHandler


class Recorder:
    """Takes the client's place at the receiving end of pushes, and hands them on.

    The client's callback is told of changes only; a repeated or outdated push is news to a test.
    """

    def __init__(self, handler: NamingPushRequestHandler, out: TextIO) -> None:
        self._handler = handler
        self._out = out

    def name(self) -> str:
        """Name the handler in the client's log."""
        return "Recorder"

    async def request_reply(self, request: Any) -> Any:
        """Report a push, then treat it as the client would."""
        service = request.serviceInfo
        push = {
            "at": time.monotonic(),  # one clock for all processes of a machine
            "service": service.name,
            "group": service.groupName,
            "hosts": [host.model_dump() for host in service.hosts],
        }
        say(self._out, {"push": push})
        return await self._handler.request_reply(request)


def say(out: TextIO, message: dict[str, Any]) -> None:
    """Write one line."""
    out.write(json.dumps(message) + "\n")
    out.flush()


async def connect(server: str, namespace: str, scratch: str, out: TextIO) -> NacosNamingService:
    """Open the connection, with nothing remembered from earlier runs."""
    config = (
        ClientConfigBuilder()
        .server_address(server)
        .namespace_id(namespace)
        .log_dir(scratch)
        .cache_dir(scratch)
        .load_cache_at_start(load_cache_at_start=False)
        .build()
    )
    config.set_update_cache_when_empty(update_cache_when_empty=True)
    naming = await NacosNamingService.create_naming_service(config)
    proxy = naming.grpc_client_proxy
    handler = NamingPushRequestHandler(proxy.logger, proxy.service_info_cache)
    await proxy.rpc_client.register_server_request_handler(NOTIFY_SUBSCRIBER_REQUEST_TYPE, Recorder(handler, out))
    return naming


async def unheard(_hosts: object) -> None:
    """Stand in for the callback the client insists on: pushes are recorded earlier."""


async def obey(naming: NacosNamingService, op: str, arguments: dict[str, Any]) -> None:
    """Carry out one command."""
    match op:
        case "register":
            done = await naming.register_instance(RegisterInstanceParam(**arguments))
        case "batch":
            each = [RegisterInstanceParam(**one) for one in arguments["instances"]]
            first = each[0]
            done = await naming.batch_register_instances(
                BatchRegisterInstanceParam(service_name=first.service_name, group_name=first.group_name, instances=each)
            )
        case "deregister":
            done = await naming.deregister_instance(DeregisterInstanceParam(**arguments))
        case "subscribe":
            await naming.subscribe(SubscribeServiceParam(subscribe_callback=unheard, **arguments))
            done = True
        case _:
            raise ValueError(f"no such command: {op}")
    if not done:
        raise RuntimeError(f"Nacos refused to {op}")


async def main(server: str, namespace: str, scratch: str) -> None:
    """Serve commands until stdin ends: a test that dies takes its apps along."""
    out, sys.stdout = sys.stdout, sys.stderr  # the client prints now and then
    naming = await connect(server, namespace, scratch, out)
    say(out, {"reply": 0, "error": None})
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        try:
            await obey(naming, command["op"], command["arguments"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to see it
            say(out, {"reply": command["id"], "error": repr(error)})
        else:
            say(out, {"reply": command["id"], "error": None})
    await naming.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
