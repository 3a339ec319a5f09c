"""What nacos-sdk-python puts into the headers of a naming request that it signs, as JSON.

Runs under `.venv-real`, whose packages the product does not depend on. Nothing is sent anywhere.

    signer.py ACCESS-KEY SECRET-KEY GROUP SERVICE
"""

import asyncio
import json
import logging
import sys
import tempfile
from typing import Any

from v2.nacos import ClientConfigBuilder
from v2.nacos.naming.model.naming_request import ServiceQueryRequest
from v2.nacos.naming.remote.naming_grpc_client_proxy import NamingGRPCClientProxy


class Nowhere:
    """Stands in for the connection and for the login."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    async def inject_security_info(self, _headers: object) -> None:
        """Add nothing: there is no password."""

    async def request(self, request: Any, _timeout: object) -> object:
        """Keep what was about to be sent."""
        self.headers = dict(request.get_headers())
        raise ConnectionError


async def main(access_key: str, secret_key: str, group: str, service: str) -> None:
    """Let the client sign one request."""
    with tempfile.TemporaryDirectory() as scratch:
        config = (
            ClientConfigBuilder()
            .server_address("127.0.0.1:1")
            .access_key(access_key)
            .secret_key(secret_key)
            .log_dir(scratch)
            .cache_dir(scratch)
            .build()
        )
    nowhere = Nowhere()
    proxy = NamingGRPCClientProxy.__new__(NamingGRPCClientProxy)
    proxy.logger = logging.getLogger("signer")
    proxy.logger.disabled = True
    proxy.client_config, proxy.nacos_server_connector, proxy.rpc_client = config, nowhere, nowhere
    key = {"namespace": "public", "groupName": group, "serviceName": service}
    request = ServiceQueryRequest(**key, cluster="", healthOnly=False)
    try:
        await proxy.request_naming_server(request, object)
    except Exception:  # noqa: BLE001  its own, made of ours
        json.dump(nowhere.headers, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
