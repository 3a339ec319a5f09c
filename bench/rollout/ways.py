"""The ways to stop a pod, as the containers that a Deployment of each would have."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kubelet import Container, Exec, HttpGet
from rig import spring
from rig.servers import NacosServer

from bench.running import DRAIN_PORT, SERVE


GRACE_PERIOD = 120
NODE = "127.0.0.2"  # where hooks come from
FOLK_SLEEP, FIXED_SLEEP = 40, 45
ENDPOINT = "--management.endpoints.web.exposure.include=health,nacos-deregister"


@dataclass(frozen=True)
class Site:
    """Where a pod comes up."""

    nacos: NacosServer
    generation: str
    service: str
    ip: str
    port: int  # of its own: where all pods have one network, a sidecar tells its app by the port
    home: Path
    folk: Path  # the classes of the folk endpoint
    look_back: str

    @property
    def actuator(self) -> str:
        """Where the app's actuator answers."""
        return f"http://{self.ip}:{spring.MANAGEMENT_PORT}/actuator"

    def app(self, *options: str, starter: bool = False, jars: Sequence[Path] = ()) -> Container:
        """The provider without any hook."""
        # fmt: off
        command = spring.provider(
            self.generation, self.nacos, ip=self.ip, port=self.port, service=self.service, home=self.home,
            starter=starter, jars=jars, options=options,
        )
        # fmt: on
        health = HttpGet("/actuator/health", spring.MANAGEMENT_PORT)
        return Container("app", command.argv, command.env, startup_probe=health)

    def settings(self, **more: str) -> dict[str, str]:
        """What the sidecar is told. On one machine all pods have one network, so it has to know its address."""
        told = {
            "LISTEN": f"{self.ip}:{DRAIN_PORT}",
            "NACOS_IP": self.ip,
            "GRACE_PERIOD": str(GRACE_PERIOD),
            "NODE_IP": NODE,
            "LOG_FORMAT": "json",
            **({"SETTLE_LOOK_BACK": self.look_back} if self.look_back else {}),
            **more,
        }
        return {f"NACOS_DRAIN_{name}": value for name, value in told.items()} | {"KUBERNETES_SERVICE_HOST": "bench"}

    @property
    def openapi(self) -> dict[str, str]:
        """What the sidecar has to be told where it asks nobody but Nacos."""
        login = {"NACOS_USERNAME": self.nacos.username or "", "NACOS_PASSWORD": self.nacos.password or ""}
        return {
            "NACOS_SERVER_ADDR": self.nacos.address,
            "NACOS_SERVICE": self.service,
            "NACOS_PORT": str(self.port),
            **login,
        }


@dataclass(frozen=True)
class Way:
    """One release's way to be stopped."""

    name: str
    words: str
    containers: Callable[[Site], tuple[Container, ...]]
    ours: bool = False


def _plain(*options: str) -> Callable[[Site], tuple[Container, ...]]:
    return lambda site: (site.app(*options),)


def _folk(site: Site) -> tuple[Container, ...]:
    hook = f"curl -s -X POST {site.actuator}/nacos-deregister && sleep {FOLK_SLEEP}"
    return (replace(site.app(ENDPOINT, jars=[site.folk]), pre_stop=Exec(("sh", "-c", hook))),)


def _fixed(site: Site) -> tuple[Container, ...]:
    """Modelled on nacos-service-discovery-controller: enabled=false by v1, and 45 s whatever came of it. No login."""
    query = f"serviceName={site.service}&ip={site.ip}&port={site.port}&enabled=false&ephemeral=true"
    hook = f"curl -s -X PUT '{site.nacos.base}/v1/ns/instance?{query}'; sleep {FIXED_SLEEP}"
    return (replace(site.app(), pre_stop=Exec(("sh", "-c", hook))),)


def _beside(app: Container, env: dict[str, str]) -> tuple[Container, ...]:
    """A native sidecar, and a hook that asks it."""
    livez = HttpGet("/livez", DRAIN_PORT)
    sidecar = Container("sidecar", SERVE, env, native_sidecar=True, startup_probe=livez)
    return sidecar, replace(app, pre_stop=HttpGet("/drain", DRAIN_PORT))


def _starter(site: Site) -> tuple[Container, ...]:
    return _beside(site.app(starter=True), site.settings(ACTUATOR_URL=site.actuator))


def _openapi(site: Site) -> tuple[Container, ...]:
    return _beside(site.app(), site.settings(**site.openapi))


def _entrypoint(site: Site) -> tuple[Container, ...]:
    app = site.app(starter=True)
    run = (sys.executable, "-m", "sidecar", "run", "--", *app.argv)
    return (replace(app, argv=run, env={**app.env, **site.settings(ACTUATOR_URL=site.actuator)}),)


WAYS = {
    way.name: way
    for way in (
        Way("sigterm", "SIGTERM and nothing else", _plain()),
        Way("graceful", "SIGTERM, with server.shutdown=graceful", _plain("--server.shutdown=graceful")),
        Way("folk", f"curl …/nacos-deregister && sleep {FOLK_SLEEP}", _folk),
        Way("fixed-45", f"enabled=false by Nacos' v1 API, sleep {FIXED_SLEEP}", _fixed),
        Way("starter", "nacos-drain, with the starter in the app", _starter, ours=True),
        Way("openapi", "nacos-drain, by Nacos' OpenAPI alone", _openapi, ours=True),
        Way("entrypoint", "nacos-drain run as the app's entrypoint", _entrypoint, ours=True),
    )
}
