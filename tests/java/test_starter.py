"""The starter in real apps, registered in real Nacos: what its endpoint does to the registration, and refuses to do.

One start of an app serves as many questions as it can: it takes four seconds, and an answer 20 ms.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from rig.openapi import Observer
from rig.records import Host, Instance
from rig.servers import NacosServer
from rig.spring import PORT, SpringApp, spring_app


pytestmark = pytest.mark.timeout(90, func_only=True)

DISCOVERY = "--spring.cloud.nacos.discovery."
WAIT = 300  # ms instead of 10000: what generations from 2023.0.3 on wait at their end
WAITS = ("2023.0.3", "2025.0", "2025.1")
CLIENTS = {"2021.0": "2.2.0", "2023.0.1": "2.4.2", "2023.0.3": "2.4.3", "2025.0": "3.0.3", "2025.1": "3.1.1"}
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

# A minute each, and the client's doing alone: each generation with one of the servers.
OUTLASTS = (
    ("2021.0", "nacos2"),
    ("2023.0.1", "nacos3"),
    ("2023.0.3", "nacos2"),
    ("2025.0", "nacos3"),
    ("2025.1", "nacos2"),
)

Answer = tuple[int, dict[str, Any]]

# content type, body, status: whatever is not clear removes nothing
UNCLEAR: Sequence[tuple[str, str, int]] = (
    (JSON, "", 400),
    (JSON, "{}", 400),
    (JSON, '{"stauts": "DOWN"}', 400),
    (JSON, '{"status": null}', 400),
    (JSON, '{"status": "down"}', 400),
    (JSON, '{"status": "OUT_OF_SERVICE"}', 400),
    (JSON, '{"status": {"code": "DOWN"}}', 400),
    (JSON, '"DOWN"', 400),
    (JSON, '{"status": "DOWN"', 400),
    (FORM, "", 415),
    (FORM, "status=DOWN", 415),
    ("text/plain", "DOWN", 415),
    ("application/octet-stream", "", 415),
    ("", "DOWN", 415),
)


@dataclass
class Endpoint:
    """The starter's, in one app, and Nacos' view of that app."""

    app: SpringApp
    instance: Instance
    nacos: NacosServer
    observer: Observer
    session: aiohttp.ClientSession

    async def ask(self, method: str, below: str = "", *, body: str = "", content_type: str = "") -> Answer:
        """Send one request, by default without any content type, as `curl -X POST` does."""
        async with self.session.request(
            method,
            f"{self.app.url}/nacos-deregister{below}",
            data=body or None,
            headers={"Content-Type": content_type} if content_type else {},
            skip_auto_headers=["Content-Type"],
        ) as answer:
            text = await answer.text()
            assert not (self.nacos.password and self.nacos.password in text)
            assert SECRET not in text
            return answer.status, json.loads(text) if text else {}

    async def down(self) -> Answer:
        """POST as bare as can be."""
        return await self.ask("POST")

    async def set(self, status: str) -> Answer:
        """POST the status as JSON."""
        return await self.ask("POST", body=json.dumps({"status": status}), content_type=JSON)

    async def state(self) -> object:
        """What the app is meant to be."""
        _, told = await self.ask("GET", "/registration")
        return told["state"]

    async def there(self, within: float = 3.0) -> Host:
        """Wait until consumers are shown it, and return all that the registry holds of it."""
        await self.observer.until(self.instance, listed=True, within=within)
        return await self.held()

    async def held(self) -> Host:
        """Wait until the registry holds it, be it disabled."""
        await self._until(held=True, within=3.0)
        record = await self.observer.record(self.instance)
        assert record is not None
        return record

    async def gone(self) -> None:
        """Wait until the registry holds nothing of it, disabled or not."""
        await self._until(held=False, within=2.0)

    async def _until(self, *, held: bool, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                while (await self.observer.record(self.instance) is not None) is not held:  # noqa: ASYNC110 - elsewhere
                    await asyncio.sleep(0.05)
        except TimeoutError:
            how = "not" if held else "still"
            raise AssertionError(f"{self.instance} is {how} held after {within} s\n{self.app.told}") from None


SECRET = f"not-to-be-seen-{uuid4().hex}"


@asynccontextmanager
async def endpoint(generation: str, nacos: NacosServer, instance: Instance, *more: str) -> AsyncIterator[Endpoint]:
    """Start an app that registers as told, and logs in with a password that must not be seen."""
    options = [
        f"{DISCOVERY}group={instance.group}",
        f"{DISCOVERY}cluster-name={instance.cluster}",
        f"{DISCOVERY}namespace={'' if instance.namespace == 'public' else instance.namespace}",
        f"{DISCOVERY}weight={instance.weight}",
        f"{DISCOVERY}graceful-shutdown-wait-time={WAIT}",
        *(f"{DISCOVERY}metadata.{key}={value}" for key, value in instance.metadata.items()),
        *more,
    ]
    login = {"NACOS_USERNAME": nacos.username or "somebody", "NACOS_PASSWORD": nacos.password or SECRET}
    async with (
        spring_app(generation, nacos, ip=instance.ip, service=instance.service, options=options, env=login) as app,
        Observer(nacos) as observer,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
    ):
        yield Endpoint(app, instance, nacos, observer, session)


def told_of(generation: str, instance: Instance, nacos: NacosServer, **differs: object) -> dict[str, Any]:
    """Everything GET tells of an app that is up, and nothing else."""
    told: dict[str, Any] = {
        "service": instance.service,
        "group": instance.group,
        "namespace": "" if instance.namespace == "public" else instance.namespace,
        "cluster": instance.cluster,
        "ip": instance.ip,
        "port": instance.port,
        "ephemeral": True,
        "registerEnabled": True,
        "state": "UP",
        "serverAddr": nacos.address,
        "nacosClient": CLIENTS[generation],
    }
    if generation in WAITS:
        told["gracefulShutdownWaitTime"] = WAIT
    return told | differs


async def goes_out_and_comes_back(at: Endpoint, up: dict[str, Any], record: Host) -> None:
    """Both ways, each twice, by both kinds of request; it ends up out."""
    down = up | {"state": "DOWN"}
    assert await at.down() == (200, down)
    await at.gone()
    assert await at.down() == (200, down)
    assert await at.set("DOWN") == (200, down)
    assert await at.set("UP") == (200, up)
    assert await at.there() == record
    assert await at.set("UP") == (200, up)
    assert await at.there() == record
    assert await at.set("DOWN") == (200, down)
    await at.gone()
    assert await at.ask("POST", "?status=UP", content_type=JSON) == (200, up)
    assert await at.there() == record
    together = await asyncio.gather(*(at.set("UP") if number % 2 else at.down() for number in range(10)))
    assert {status for status, _ in together} == {200}
    assert await at.down() == (200, down)
    await at.gone()
    assert await at.ask("GET") == (200, down)


async def test_the_endpoint_removes_truly_and_brings_back(
    generation: str, real_nacos: NacosServer, service: str, address: str
) -> None:
    instance = Instance(service, PORT, address, "SHOP", cluster="east", weight=3.0, metadata={"zone": "a", "dye": "b"})
    up = told_of(generation, instance, real_nacos)
    async with endpoint(generation, real_nacos, instance) as at:
        record = await at.there()
        assert (record.enabled, record.weight) == (True, 3.0)
        assert instance.metadata.items() <= record.metadata.items()
        assert await at.ask("GET") == (200, up)
        assert await at.ask("GET", "/registration") == (200, up)
        assert await at.ask("GET", "/anything") == (404, {})
        for content_type, body, status in UNCLEAR:
            answer, _ = await at.ask("POST", body=body, content_type=content_type)
            assert answer == status, (content_type, body)
        assert (await at.ask("POST", "/registration"))[0] == 405
        assert await at.state() == "UP"
        assert await at.there() == record
        await goes_out_and_comes_back(at, up, record)
        at.app.terminate()
        assert await at.app.exited() == 143
        assert "OwnRegistration" not in at.app.told  # no refresh has registered it again

    # The next start on this address finds nothing of the first in its way, and Nacos not answering.
    async with endpoint(generation, real_nacos, instance) as at:
        assert await at.there() == record
        real_nacos.freeze()
        try:
            status, told = await at.down()
            assert (status, list(told)) == (500, ["reason"]), told
            assert await at.state() == "DOWN"
        finally:
            real_nacos.thaw()


async def test_an_app_that_does_not_register_has_nothing_to_remove(
    generation: str, nacos2: NacosServer, service: str, address: str
) -> None:
    instance = Instance(service, PORT, address)
    async with endpoint(generation, nacos2, instance, f"{DISCOVERY}register-enabled=false") as at:
        told = told_of(generation, instance, nacos2, port=-1, registerEnabled=False, state="DISABLED")
        assert await at.ask("GET", "/registration") == (200, told)
        for answer in [await at.down(), await at.set("DOWN"), await at.set("UP")]:
            assert answer == (409, {"reason": "spring.cloud.nacos.discovery.register-enabled is false"})


@pytest.mark.soak
async def test_a_persistent_instance_is_removed_too(
    generation: str, nacos2: NacosServer, service: str, address: str
) -> None:
    """As Spring Cloud Alibaba's own deregister() does not: it means an ephemeral one."""
    instance = Instance(service, PORT, address)
    persistent = (f"{DISCOVERY}ephemeral=false", f"{DISCOVERY}instance-enabled=false")
    async with endpoint(generation, nacos2, instance, *persistent) as at:
        record = await at.held()
        assert (record.ephemeral, record.enabled) == (False, False)
        assert (await at.down())[0] == 200
        await at.gone()
        assert (await at.set("UP"))[0] == 200
        assert await at.held() == record
        assert (await at.down())[0] == 200
        await at.gone()


@pytest.mark.soak
@pytest.mark.java
@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize(("generation", "real_nacos"), OUTLASTS, indirect=True)
async def test_what_was_asked_for_outlasts_nacos(
    generation: str, real_nacos: NacosServer, service: str, address: str
) -> None:
    """What the client could not do it does later; what was removed stays away when Nacos has been restarted."""
    instance = Instance(service, PORT, address)

    async def restart() -> None:
        real_nacos.launch()
        await asyncio.to_thread(real_nacos.wait_ready)

    async with endpoint(generation, real_nacos, instance) as at:
        await at.there()
        assert (await at.down())[0] == 200
        await at.gone()
        real_nacos.stop()
        assert (await at.set("UP"))[0] == 500
        await restart()
        await at.there(within=30)
        real_nacos.stop()
        assert (await at.down())[0] == 500
        await restart()
        with pytest.raises(AssertionError, match="not listed"):
            await at.observer.until(instance, listed=True, within=15)
        assert (await at.set("UP"))[0] == 200
        await at.there()
