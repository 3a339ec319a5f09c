"""Real Spring Cloud Alibaba apps: `examples/spring-cloud`, built for each generation and run on loopback addresses."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from rig.build import OUT, RigUnavailableError, maven, require
from rig.records import Instance
from rig.servers import NacosServer


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROJECTS = (EXAMPLES / "spring-cloud", EXAMPLES / "spring-boot-starter")
GENERATIONS = ("2021.0", "2023.0.1", "2023.0.3", "2025.0", "2025.1")
STARTER = "nacos-drain-spring-boot-starter-"
PORT, MANAGEMENT_PORT = 8080, 9081
READY = 60.0  # seconds; four on a quiet machine
# Up in two thirds of the time and half the memory; peak speed is no matter.
JVM = ("java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@dataclass(frozen=True)
class Command:
    """How to start an app."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def build(generation: str) -> Path:
    """The folder with the provider and the gateway of one generation, built if their sources changed."""
    require("real Spring apps")
    out = OUT / "spring"
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the starter is built once for all of them
        _build(generation, out)
    return out / generation


def _build(generation: str, out: Path) -> None:
    stamp = out / generation / "stamp"
    sources = hashlib.sha256()
    for project in PROJECTS:
        for source in sorted({*project.rglob("pom.xml"), *project.glob("**/src/main/**/*")}):
            if source.is_file():
                sources.update(source.read_bytes())
    wanted = sources.hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(out / generation, ignore_errors=True)
    maven(PROJECTS[0], f"-P{generation}", f"-Dout={out}", "package")
    stamp.write_text(wanted)


def _class_path(app: Path, *, starter: bool) -> str:
    jars = sorted(jar for jar in (app / "lib").glob("*.jar") if starter or not jar.name.startswith(STARTER))
    return ":".join(map(str, [app / "classes", *jars]))


# fmt: off
def provider(
    generation: str, nacos: NacosServer, *, ip: str, port: int = PORT, service: str = "shop", home: Path,
    starter: bool = True, jars: Sequence[Path] = (), options: Sequence[str] = (),
) -> Command:
    """The provider on an address of its own; `home` takes the logs of the Nacos client, `options` are Spring's."""
    path = ":".join([_class_path(build(generation) / "provider", starter=starter), *map(str, jars)])
    exposed = () if starter else ("--management.endpoints.web.exposure.include=health",)
    return Command(
        (
            *JVM, f"-Duser.home={home}", "shop.Provider",
            f"--spring.application.name={service}", f"--spring.cloud.nacos.discovery.ip={ip}",
            f"--server.address={ip}", f"--server.port={port}",
            f"--management.server.address={ip}", f"--management.server.port={MANAGEMENT_PORT}",
            *exposed, *options,
        ),
        {"CLASSPATH": path, "NACOS_SERVER_ADDR": nacos.address},
    )


def gateway(
    generation: str, nacos: NacosServer, *, ip: str, service: str = "shop", home: Path, options: Sequence[str] = ()
) -> Command:
    """The gateway on an address of its own, from which it calls, too."""
    return Command(
        (
            *JVM, f"-Duser.home={home}", "shop.Gateway",
            f"--gateway.bind={ip}", f"--gateway.service={service}",
            f"--server.address={ip}", "--server.port=8000",
            f"--management.server.address={ip}", "--management.server.port=9080",
            *options,
        ),
        {"CLASSPATH": _class_path(build(generation) / "gateway", starter=False), "NACOS_SERVER_ADDR": nacos.address},
    )
# fmt: on


@dataclass
class SpringApp:
    """A running provider."""

    instance: Instance
    process: asyncio.subprocess.Process
    log: Path
    started_in: float = field(default=0.0)  # seconds from the start of the process to its first healthy answer

    @property
    def pid(self) -> int:
        """The JVM's."""
        return self.process.pid

    @property
    def port(self) -> int:
        """Where consumers call it."""
        return self.instance.port

    @property
    def url(self) -> str:
        """Its actuator's."""
        return f"http://{self.instance.ip}:{MANAGEMENT_PORT}/actuator"

    @property
    def told(self) -> str:
        """What it said, for the message of a failed test."""
        return self.log.read_text(errors="replace")[-6000:]

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    async def exited(self, within: float = 30.0) -> int:
        """Wait for its end and give its exit code."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def ready(self) -> None:
        """Wait until its health endpoint is content."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            while not await _healthy(session, f"{self.url}/health"):
                if self.process.returncode is not None or loop.time() > began + READY:
                    raise RuntimeError(f"the provider did not come up:\n{self.told}")
                await asyncio.sleep(0.05)
        self.started_in = loop.time() - began


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


@asynccontextmanager
async def spring_app(
    generation: str,
    nacos: NacosServer,
    *,
    ip: str,
    service: str,
    starter: bool = True,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[SpringApp]:
    """Run a provider until the end of the block. Salt the service: Nacos remembers an address for 60 s and longer."""
    with tempfile.TemporaryDirectory(prefix="spring-app-") as folder:
        home = Path(folder)
        command = await asyncio.to_thread(
            provider, generation, nacos, ip=ip, service=service, home=home, starter=starter, options=options
        )
        log = home / "stdout.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                env={**os.environ, **command.env, **(env or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            app = SpringApp(Instance(service, PORT, ip), process, log)
            await app.ready()
            yield app
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def main() -> None:
    """Build the apps of some generations, all of them unless told; what `make` calls."""
    for generation in sys.argv[1:] or GENERATIONS:
        try:
            print(f"Spring Cloud Alibaba {generation}: ready in {build(generation)}")  # noqa: T201 - a command's output
        except RigUnavailableError as missing:
            sys.exit(str(missing))


if __name__ == "__main__":
    main()
