"""The Dubbo adapter on a real provider: Dubbo 3.3.5, registered on real Nacos 2.2.4 as two interfaces and itself.

What older releases do is in the adapter's docstring; it was measured by hand.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from rig import build
from rig.clients import Subscriber
from rig.openapi import Observer
from rig.records import Instance, Push
from rig.servers import NacosServer, free_port

from sidecar.adapters.dubbo import DubboQos
from sidecar.http import Http
from sidecar.ports import Rejected, Unavailable


pytestmark = pytest.mark.real

IP = "10.9.0.1"  # what it registers; Dubbo takes no loopback address for that
JAVA = ("java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
NEXT_ROAD = 3.0  # seconds that an inside road has for itself


@dataclass
class Provider:
    """A running provider, and what it registers."""

    http: Http
    qos: DubboQos
    application: Instance
    interfaces: tuple[Instance, ...]

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All of them."""
        return (*self.interfaces, self.application)


@asynccontextmanager
async def provider(server: NacosServer, scratch: Path, *options: str) -> AsyncIterator[Provider]:
    """Run one, under names of its own; `options` go to its JVM."""
    salt = uuid4().hex[:8]
    dubbo, tri, qos = free_port(), free_port(), free_port()
    command = [
        *JAVA,
        f"-Duser.home={scratch}",
        f"-DDUBBO_IP_TO_REGISTRY={IP}",
        f"-Ddubbo.application.qos-port={qos}",
        *options,
        "rig.Provider",
        *(f"dubbo-{salt}", server.address, f"1.0.{salt}", str(dubbo), str(tri)),
    ]
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    class_path = await asyncio.to_thread(build.class_path, "dubbo")
    log = scratch / "provider.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=scratch,
            env={**os.environ, "CLASSPATH": class_path},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    http = Http()
    try:
        assert process.stdout is not None
        started = b"started\n" in [line async for line in _until_started(process.stdout)]
        assert started, log.read_text()[-4000:]
        names = [f"providers:rig.{name}:1.0.{salt}:" for name in ("Orders", "Payments")]
        yield Provider(
            http,
            DubboQos(http, f"127.0.0.1:{qos}"),
            Instance(f"dubbo-{salt}", dubbo, ip=IP),
            tuple(Instance(name, port, ip=IP) for name in names for port in (dubbo, tri)),
        )
    finally:
        await http.close()
        process.kill()
        await process.wait()


async def _until_started(out: asyncio.StreamReader) -> AsyncIterator[bytes]:
    async for line in out:
        yield line
        if line == b"started\n":
            return


def emptied(service: str) -> Callable[[Push], bool]:
    """A push that shows nobody in this service."""
    return lambda push: push.service == service and not push.hosts


async def test_a_real_provider_is_taken_out_on_all_ports_and_brought_back(nacos2: NacosServer, tmp_path: Path) -> None:
    """Removed, not disabled, and so for a consumer's subscription; in the time before the next road is taken."""
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(provider(nacos2, tmp_path))
        eye = await stack.enter_async_context(Observer(nacos2))
        consumer = await stack.enter_async_context(Subscriber(nacos2))
        for instance in app.instances:
            await eye.until(instance, listed=True)
            await consumer.subscribe(instance.service)
        await app.qos.answers()
        for instance in app.instances:
            assert await eye.is_listed(instance)

        for _ in range(2):
            seen = len(consumer.pushes)
            await app.qos.offline("dubbo")
            async with asyncio.timeout(NEXT_ROAD):
                for instance in app.instances:
                    await eye.until(instance, listed=False)
                    assert await eye.record(instance) is None
            for service in {instance.service for instance in app.instances}:
                await consumer.pushed(emptied(service), since=seen)
            await app.qos.offline("dubbo")

            await app.qos.online("dubbo")
            for instance in app.instances:
                await eye.until(instance, listed=True)
                record = await eye.record(instance)
                assert record is not None
                assert record.enabled


async def test_a_real_provider_that_publishes_late_is_out_at_once(nacos2: NacosServer, tmp_path: Path) -> None:
    """The default is a second; whatever it is, we do not wait for it."""
    late = "-Ddubbo.application.metadata.publish.delay=60000"
    async with provider(nacos2, tmp_path, late) as app, Observer(nacos2) as eye:
        await eye.until(app.application, listed=True)
        await app.qos.offline("dubbo")
        await eye.until(app.application, listed=False, within=NEXT_ROAD)
        await app.qos.online("dubbo")
        await eye.until(app.application, listed=True, within=NEXT_ROAD)


async def test_a_real_provider_without_qos_refuses(nacos2: NacosServer, tmp_path: Path) -> None:
    async with provider(nacos2, tmp_path, "-Ddubbo.application.qos-enable=false") as app:
        with pytest.raises(Unavailable, match="qos-enable=true") as told:
            await app.qos.offline("dubbo")
        assert told.value.refused


async def test_another_port_of_a_real_provider_is_told_from_qos(nacos2: NacosServer, tmp_path: Path) -> None:
    """The one for its own protocol is no HTTP, the one for tri is."""
    async with provider(nacos2, tmp_path) as app:
        told: list[tuple[type[Exception], str]] = []
        for instance in app.interfaces[:2]:
            qos = DubboQos(app.http, f"127.0.0.1:{instance.port}")
            with pytest.raises((Rejected, Unavailable)) as error:
                await qos.answers()
            told.append((error.type, str(error.value)))
        (dubbo, no_http), (tri, unknown) = told
        assert (dubbo, tri) == (Unavailable, Rejected)
        assert "no valid HTTP answer" in no_http
        assert "is unknown (404): is NACOS_DRAIN_DUBBO_QOS the app's QoS port?" in unknown
