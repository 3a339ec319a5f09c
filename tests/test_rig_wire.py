"""The rig's wire: what it leaves open when it is cut would fail a test that comes later."""

import asyncio
import contextlib
import socket

import pytest
from rig.wire import Wire


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("stalled", [False, True])
async def test_a_cut_closes_a_connection_accepted_the_moment_before(steps: int, stalled: bool) -> None:
    """At whatever step of the loop the cut comes."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        async with Wire("{}:{}".format(*server.sockets[0].getsockname())) as wire:
            if stalled:
                wire.stall()
            host, _, port = wire.address.rpartition(":")
            client = socket.create_connection((host, int(port)))
            for _ in range(steps):
                await asyncio.sleep(0)
        with client, contextlib.suppress(ConnectionResetError):
            client.setblocking(False)
            async with asyncio.timeout(2.0):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
