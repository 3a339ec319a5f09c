"""The apps and consumers of a test: registered over gRPC, by beats, or for good.

All are async context managers and gone when the test is. Times are the loop's, which on Linux is
one clock for all processes.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from rig.build import RigUnavailableError
from rig.openapi import OpenApi, Server
from rig.records import Instance, Push, hosts
from rig.servers import NacosServer


REGISTRANT = Path(__file__).with_name("registrant.py")
PYTHON = REGISTRANT.parents[2] / ".venv-real/bin/python"
INSTANCE = "/v1/ns/instance"  # registering and beating stay v1 on 3.x: it is what old clients do


def find_client() -> None:
    """Make sure that the environment of gRPC clients is there."""
    if not PYTHON.is_file():
        raise RigUnavailableError(f"gRPC clients need {PYTHON}: run `make .venv-real`")


class GrpcClient:
    """A process with one gRPC connection to Nacos."""

    def __init__(self, server: NacosServer, namespace: str = "public") -> None:
        self.pushes: list[Push] = []
        self._server = server
        self._namespace = namespace
        self._scratch = tempfile.TemporaryDirectory(prefix="registrant-")
        self._replies: dict[int, asyncio.Future[None]] = {}
        self._news = asyncio.Condition()
        self._commands = 0
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        find_client()
        self._process = await asyncio.create_subprocess_exec(
            *(PYTHON, REGISTRANT, self._server.address, self._namespace, self._scratch.name),
            env={**os.environ, "PYTHONWARNINGS": "ignore"},  # its packages' deprecations, not ours
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,  # a push is one line
            start_new_session=True,
        )
        connected = self._expect(0)
        self._reader = asyncio.create_task(self._read())
        try:
            await connected
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int:
        """The process holding the connection."""
        return self._process.pid

    async def kill(self) -> None:
        """End the process as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._ended()

    async def close(self) -> None:
        """Close the connection and end the process, as an app that shuts down does."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._ended()
        except TimeoutError:
            await self.kill()

    async def _ended(self) -> None:
        await self._process.wait()
        await self._reader
        self._scratch.cleanup()

    async def _ask(self, op: str, **arguments: Any) -> None:
        if self._reader.done():
            raise RuntimeError("the registrant has ended")
        self._commands += 1
        reply = self._expect(self._commands)
        command = {"id": self._commands, "op": op, "arguments": arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await reply

    def _expect(self, command: int) -> asyncio.Future[None]:
        self._replies[command] = asyncio.get_running_loop().create_future()
        return self._replies[command]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        complaints = asyncio.create_task(self._process.stderr.read())
        async for line in self._process.stdout:
            message = json.loads(line)
            if push := message.get("push"):
                self.pushes.append(Push(**push | {"hosts": hosts(push["hosts"])}))
                async with self._news:
                    self._news.notify_all()
            elif (reply := self._replies.pop(message["reply"])).cancelled():
                continue
            elif message["error"]:
                reply.set_exception(RuntimeError(message["error"]))
            else:
                reply.set_result(None)
        text = (await complaints).decode()[-4000:]
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(RuntimeError(f"the registrant ended:\n{text}"))


class GrpcApp(GrpcClient):
    """An app as Java clients register it: ephemeral, held by its connection."""

    async def register(self, instance: Instance) -> None:
        """Register; a second instance of the same service replaces the first."""
        await self._ask("register", **_key(instance), weight=instance.weight, metadata=dict(instance.metadata))

    async def register_batch(self, *instances: Instance) -> None:
        """Register several instances of one service at once, as Dubbo may; they replace what was there."""
        each = [_key(one) | {"weight": one.weight, "metadata": dict(one.metadata)} for one in instances]
        await self._ask("batch", instances=each)

    async def deregister(self, instance: Instance) -> None:
        """Deregister and stay connected."""
        await self._ask("deregister", **_key(instance))


def _key(instance: Instance) -> dict[str, Any]:
    return {
        "service_name": instance.service,
        "group_name": instance.group,
        "cluster_name": instance.cluster,
        "ip": instance.ip,
        "port": instance.port,
    }


class Subscriber(GrpcClient):
    """A consumer: every push it gets is in `pushes`, first the state at its subscription."""

    def addresses(self, late: float) -> list[str]:
        """Whom a consumer would call now that is so many seconds behind the pushes."""
        then = asyncio.get_running_loop().time() - late
        for push in reversed(self.pushes):
            if push.at < then:
                return [host.address for host in push.hosts if host.enabled and host.healthy]
        return []

    async def subscribe(self, service: str, group: str = "DEFAULT_GROUP") -> None:
        """Ask for the service's pushes."""
        await self._ask("subscribe", service_name=service, group_name=group)

    async def pushed(self, wanted: Callable[[Push], bool], within: float = 10.0, *, since: int = 0) -> Push:
        """Return the first push that is as wanted; `since` skips that many from the beginning."""
        try:
            async with asyncio.timeout(within), self._news:
                while True:
                    for push in self.pushes[since:]:
                        if wanted(push):
                            return push
                    await self._news.wait()
        except TimeoutError:
            told = "\n".join(f"{push.at:.3f} {push.hosts}" for push in self.pushes[since:])
            raise AssertionError(f"no such push in {within} s; told were:\n{told}") from None


class BeatApp(OpenApi):
    """An app of the HTTP age: ephemeral, held by a beat every few seconds."""

    def __init__(self, server: Server, instance: Instance, interval: float = 5.0) -> None:
        super().__init__(server)
        self.instance = instance
        self.beats = 0
        self._interval = interval
        self._light = False
        self._beating: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self._register()
        except BaseException:
            await self._session.close()
            raise
        self._beating = asyncio.create_task(self._beat_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with contextlib.suppress(aiohttp.ClientError):  # the server may be gone by now
            await self.deregister()
        await super().__aexit__(kind, error, at)

    async def silence(self) -> None:
        """Stop beating, as a crash does."""
        self._beating.cancel()
        await asyncio.wait([self._beating])

    async def crash(self) -> None:
        """Be gone without a word."""
        await self.silence()
        await super().__aexit__(None, None, None)

    async def deregister(self) -> None:
        """Stop beating and deregister, as an app that shuts down does."""
        await self.silence()
        await self._do("DELETE", INSTANCE, self.instance.query | {"ephemeral": "true"})

    async def _register(self) -> None:
        await self._do("POST", INSTANCE, _registration(self.instance, ephemeral=True))

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, RuntimeError):
                await self._beat()  # a failed beat is followed by the next one, as in every client

    async def _beat(self) -> None:
        app = self.instance
        query = app.query | {"serviceName": f"{app.group}@@{app.service}"}
        if not self._light:
            query["beat"] = json.dumps(
                {
                    "serviceName": query["serviceName"],
                    "ip": app.ip,
                    "port": app.port,
                    "cluster": app.cluster,
                    "weight": app.weight,
                    "metadata": dict(app.metadata),
                    "scheduled": True,
                }
            )
        answer = json.loads(await self._do("PUT", f"{INSTANCE}/beat", query))
        self._light = answer.get("lightBeatEnabled", False)
        if answer.get("code") == 20404:  # unknown here: a light beat cannot bring it back by itself
            await self._register()
        self.beats += 1


class PersistentApp(OpenApi):
    """An instance registered for good, checked by the server through a TCP connection.

    With port 0 it takes a free one; `instance` then has it.
    """

    def __init__(self, server: Server, instance: Instance) -> None:
        super().__init__(server)
        self.instance = instance
        self._listener: asyncio.Server

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(
            lambda _, writer: writer.close(), self.instance.ip, self.instance.port
        )
        port = self._listener.sockets[0].getsockname()[1]
        self.instance = dataclasses.replace(self.instance, port=port)
        await super().__aenter__()
        try:
            await self.register()
        except BaseException:
            await self._session.close()
            self._listener.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with contextlib.suppress(aiohttp.ClientError):  # the server may be gone by now
            await self.deregister()
        await super().__aexit__(kind, error, at)
        self._listener.close()
        await self._listener.wait_closed()

    async def register(self) -> None:
        """Register, or register again as the next run of the app does."""
        await self._do("POST", INSTANCE, _registration(self.instance, ephemeral=False))

    async def deregister(self) -> None:
        """Remove the record; nobody else will."""
        await self._do("DELETE", INSTANCE, self.instance.query | {"ephemeral": "false"})


def _registration(instance: Instance, *, ephemeral: bool) -> dict[str, str]:
    return instance.query | {
        "weight": str(instance.weight),
        "metadata": json.dumps(dict(instance.metadata)),
        "ephemeral": str(ephemeral).lower(),
    }
