"""Where a pod is played: the container that holds its network, its mounts, and what a kubelet would tell it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from rig.containers import Network, container
from rig.docker import docker


SIDECAR, JAVA = "nacos-drain:dev", "nacos-drain-java"
PAUSE = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"  # buries orphans too
NOBODY = "65535:65535"  # the user of Kubernetes' own pause


@dataclass(frozen=True)
class Image:
    """An image of this machine in place of a manifest's, with another ENTRYPOINT if it is to have one."""

    name: str
    entrypoint: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """One pod's place. Nothing of it outlives the play."""

    sandbox: str
    ip: str
    host_ip: str
    folder: Path
    label: str
    images: Mapping[str, Image]
    settings: Mapping[str, str]  # NACOS_DRAIN_* that are not the manifest's
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """What `docker create` is told for each container of the pod."""
        return ("--label", self.label, "--network", f"container:{self.sandbox}")

    def told(self, path: str) -> str:
        """A field of the pod, by the path of a `fieldRef`."""
        known = {
            "status.hostIP": self.host_ip,
            "status.podIP": self.ip,
            "metadata.name": "shop-0",
            "metadata.namespace": "default",
            "spec.nodeName": "node",
        }
        return known[path]

    def secret(self, name: str, key: str) -> str:
        """A value of a Secret."""
        return self.secrets[name][key]

    def volume(self, name: str) -> Path:
        """An emptyDir: anybody may write to it, and it outlives the containers."""
        path = self.folder / "volumes" / name
        path.mkdir(parents=True)
        path.chmod(0o777)
        return path

    def termination_log(self, container: str) -> Path:
        """The file that a kubelet mounts for a container's last words."""
        path = self.folder / f"{container}.termination-log"
        path.touch()
        path.chmod(0o666)
        return path

    def last_words(self) -> dict[str, str]:
        """What each container has left there."""
        return {path.stem: path.read_text() for path in self.folder.glob("*.termination-log")}


@asynccontextmanager
async def place(
    bridge: Network,
    images: Mapping[str, Image],
    settings: Mapping[str, str],
    secrets: Mapping[str, Mapping[str, str]],
) -> AsyncIterator[Place]:
    """Make one. It takes every container with it that was started there."""
    label = f"nacos-drain-pod={uuid4().hex[:8]}"
    options = ("--network", bridge.name, "--user", NOBODY, "--entrypoint", "python3", "--no-healthcheck")
    with tempfile.TemporaryDirectory(prefix="pod-") as folder:
        async with container(SIDECAR, "-ISB", "-c", PAUSE, options=options) as sandbox:
            try:
                yield Place(
                    sandbox.name, await sandbox.ip(), bridge.gateway, Path(folder), label, images, settings, secrets
                )
            finally:
                left = await asyncio.to_thread(docker, "ps", "--all", "--quiet", "--filter", f"label={label}")
                if left:
                    await asyncio.to_thread(docker, "rm", "--force", "--volumes", *left.split())
