"""The image as a sidecar: in the network of another container, as anybody, with nothing that it does not need."""

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psutil
import pytest
import trustme
from rig.clients import GrpcApp
from rig.containers import CONFINED, Container, Network, container, reachable
from rig.openapi import Observer
from rig.records import Instance
from rig.servers import NacosServer

from sidecar.demo.double import Double, Service


pytestmark = [pytest.mark.docker, pytest.mark.timeout(90, func_only=True)]

PROGRAMS = Path(__file__).parents[1] / "programs"
PORT, OURS = 8080, 19081
GRACE, CAP = 30, 5  # seconds; SETTLE's, with CONSUMER_CACHE=0
STOPS_WITHIN = 8.0  # of docker's 10, when there is nothing left to do
LISTENS_WITHIN = 10.0  # seconds, on a machine that is busy with something else
MOST_MIB = 70
KUBELET = {"User-Agent": "kube-lifecycle/1.32"}
# An app binds the address that it registers, which it learns as any container does.
APP = (
    "import runpy, socket, sys; me = socket.gethostbyname(socket.gethostname()); "
    f"sys.argv = ['app', '--listen', f'{{me}}:{PORT}', *sys.argv[1:]]; runpy.run_path('/programs/registered_app.py')"
)
AS_PROGRAM = ("--entrypoint", "python3", f"--volume={PROGRAMS}:/programs:ro", "--no-healthcheck")


@asynccontextmanager
async def app(image: str, network: str, *arguments: str) -> AsyncIterator[Container]:
    """An app that listens, and is registered if it is told where; any image with a Python would do."""
    async with container(image, "-ISB", "-c", APP, *arguments, options=(*AS_PROGRAM, "--network", network)) as made:
        await made.until("registered" if arguments else "listening")
        yield made


@asynccontextmanager
async def sandbox(image: str, bridge: Network) -> AsyncIterator[Container]:
    """What holds a pod's network, as Kubernetes has it: docker takes a network away when its first container ends."""
    options = (*AS_PROGRAM, "--network", bridge.name)
    async with container(image, "-ISB", "-c", "import signal; signal.pause()", options=options) as made:
        yield made


@asynccontextmanager
async def sidecar(image: str, beside: Container, nacos: str, service: str, **more: str) -> AsyncIterator[Container]:
    """The image as a careful person runs it, in the network of an app's container."""
    settings = {
        "NACOS_SERVER_ADDR": nacos,
        "NACOS_SERVICE": service,
        "NACOS_PORT": str(PORT),
        "NACOS_USERNAME": "nacos",
        "NACOS_PASSWORD": "nacos",
        "GRACE_PERIOD": str(GRACE),
        "APP_STOP": "2",
        "CONSUMER_CACHE": "0",
        **more,
    }
    env = {f"NACOS_DRAIN_{name}": value for name, value in settings.items()}
    options = (
        *CONFINED,
        "--network",
        within(beside),
        "--health-interval=1s",
        "--health-timeout=3s",
        "--health-retries=1",
    )
    async with container(image, options=options, env=env) as made:
        yield made


def within(other: Container) -> str:
    return f"container:{other.name}"


async def ask(ip: str, path: str) -> tuple[int, Any]:
    """A request as the kubelet makes it: to the pod's address."""
    async with aiohttp.ClientSession(headers=KUBELET) as http, http.get(f"http://{ip}:{OURS}{path}") as answer:
        return answer.status, await answer.json() if "json" in answer.content_type else await answer.text()


async def until_ready(made: Container, ip: str) -> None:
    await made.told("serve.listening")
    async with asyncio.timeout(20):
        while (await ask(ip, "/readyz"))[0] != 200:  # noqa: ASYNC110  another process
            await asyncio.sleep(0.1)


async def assert_drains(ip: str, beside: Container, made: Container) -> None:
    """One drain by a hook, and the app's stop after it."""
    await until_ready(made, ip)
    code, status = await ask(ip, "/status")
    assert (code, status["traffic"]["source"]) == (200, "netlink")
    code, report = await ask(ip, "/drain")
    assert (code, report["outcome"], report["proved_gone"]) == (200, "drained", True), report
    assert report["traffic_source"] == "netlink"
    assert (await beside.stop())[0] == 143
    finished = await made.told("drain.finished")
    assert {phase["phase"]: phase["outcome"] for phase in finished["phases"]} == {
        "DEREGISTER": "met",
        "VERIFY": "met",
        "SETTLE": "expired",  # it has not watched for long enough to know its callers
        "RELEASE": "met",
        "AWAIT_EXIT": "met",
        "CLEANUP": "met",
    }


async def test_a_drain_beside_a_container(image: str, bridge: Network) -> None:
    """Non-root, no capability, no new privileges, read-only root: the callers are seen all the same."""
    async with (
        Double("3.1", host=bridge.gateway, push_delay=0.1) as nacos,
        sandbox(image, bridge) as pod,
        app(image, within(pod), "--nacos", nacos.address) as beside,
        sidecar(image, pod, nacos.address, "shop") as made,
    ):
        await made.until_health("healthy")
        await assert_drains(await pod.ip(), beside, made)
        assert not nacos.view.hosts(Service("shop"))
        code, seconds = await made.stop()
        assert code == 0
        assert seconds < STOPS_WITHIN, await made.everything()


async def test_a_drain_on_a_real_nacos(image: str, bridge: Network, nacos2: NacosServer) -> None:
    async with (
        reachable(nacos2.address, bridge.gateway) as address,
        sandbox(image, bridge) as pod,
        app(image, within(pod)) as beside,
        GrpcApp(nacos2) as registration,
        Observer(nacos2) as eye,
    ):
        instance = Instance(f"image-{uuid4().hex[:8]}", PORT, ip=await pod.ip())
        await registration.register(instance)
        await eye.until(instance, listed=True)
        async with sidecar(image, pod, address, instance.service) as made:
            draining = asyncio.create_task(assert_drains(instance.ip, beside, made))
            await eye.until(instance, listed=False)
            await beside.wait()
            await registration.close()  # as the end of an app does
            await draining


async def test_a_stop_of_the_sidecar_alone_drains_first(image: str, bridge: Network) -> None:
    """Compose stops it before the app whose network it uses: its end is the release."""
    async with (
        Double("3.1", host=bridge.gateway, push_delay=0.1) as nacos,
        app(image, bridge.name, "--nacos", nacos.address) as beside,
        sidecar(image, beside, nacos.address, "shop") as made,
    ):
        await until_ready(made, await beside.ip())
        code, seconds = await made.stop(GRACE)
        assert code == 0
        assert CAP <= seconds < GRACE - 5
        assert not any(host.enabled for host in nacos.view.hosts(Service("shop")))
        assert (await beside.state())["Running"]


async def test_healthy_means_that_livez_answers(image: str, bridge: Network) -> None:
    """A process that is there and hangs is not healthy; nor is a port of somebody else."""
    async with (
        app(image, bridge.name) as beside,
        sidecar(image, beside, "127.0.0.1:1", "shop", LISTEN="127.0.0.1:19099") as made,
    ):
        await made.until_health("healthy")
        await made.kill("STOP")
        await made.until_health("unhealthy")
        await made.kill("CONT")
        await made.until_health("healthy")


@pytest.mark.parametrize(("place", "believed"), [("system", True), ("variable", True), ("nowhere", False)])
async def test_the_authorities_are_those_of_the_image_it_is_in(
    image: str, bridge: Network, tmp_path: Path, place: str, *, believed: bool
) -> None:
    """A file where Fedora has it, and OpenSSL's variable; else those that came with the base."""
    authority, file = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(bridge.gateway).configure_cert(context)
    mounted = "/etc/pki/tls/certs/ca-bundle.crt" if place == "system" else "/authority.pem"
    options = ("--network", bridge.name, f"--volume={file}:{mounted}:ro")
    env = {"SSL_CERT_FILE": mounted} if place == "variable" else {}
    async with Double("2.2", host=bridge.gateway, tls=context) as nacos:
        env |= {"NACOS_DRAIN_NACOS_SERVER_ADDR": f"https://{nacos.address}", "NACOS_DRAIN_NACOS_SERVICE": "shop"}
        async with container(image, "doctor", "--json", options=options, env=env) as made:
            await made.wait()
            (nodes,) = [row for row in json.loads((await made.printed())[0])["checks"] if row["check"] == "nodes"]
    assert (nodes["verdict"] == "ok") is believed, nodes
    assert ("TLS failed" in nodes["detail"]) is not believed


async def test_it_listens_at_once_and_stays_small(
    image: str, bridge: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the start of its process to the line that it listens; and its memory when everything is loaded."""
    async with app(image, bridge.name) as beside, sidecar(image, beside, "127.0.0.1:1", "shop") as made:
        listening = await made.told("serve.listening")
        await made.told("preflight.failing")
        state = await made.state()
        seconds = moment(listening["timestamp"]) - moment(state["StartedAt"])
        resident = psutil.Process(state["Pid"]).memory_info().rss / 2**20
        began = time.monotonic()
        await made.run("livez")
        health = time.monotonic() - began
    with capsys.disabled():
        print(f"\nlistening after {seconds:.2f} s, {resident:.1f} MiB resident, `docker exec livez` {health:.2f} s")  # noqa: T201
    assert seconds < LISTENS_WITHIN
    assert resident < MOST_MIB


def moment(text: str) -> float:
    """Seconds since 1970; docker writes nine digits of a second, of which Python 3.11 reads six."""
    return datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]*", r"\1", text)).timestamp()
