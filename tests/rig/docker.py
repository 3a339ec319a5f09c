"""Docker as the tests use it: found, or started for one command.

    python -m rig.docker COMMAND…        runs the command with a daemon: the one that answers, else one of its own

The daemon of its own has its sockets in a temporary folder and ends with the command. Its images stay in `.rig/docker`:
what was built once need not be built again.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


KEPT = Path(__file__).resolve().parents[2] / ".rig/docker"
READY_WITHIN = 30.0
ENDED_WITHIN = 30.0


class DockerError(Exception):
    """The command line client has complained: the message says of what."""


def docker(*arguments: str, within: float = 120.0) -> str:
    """Run the command line client; returns what it prints, without the last line's end."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=within, check=False)
    if done.returncode:
        raise DockerError(f"docker {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip("\n")


def streams(container: str) -> tuple[str, str]:
    """What a container has printed on stdout and stderr."""
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def inspect(name: str) -> dict[str, Any]:
    """What docker knows of a container, an image or a network."""
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def exported(image: str) -> bytes:
    """An image's file system as a tar archive."""
    container = docker("create", image)
    try:
        return subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        docker("rm", container)


def answers() -> bool:
    """Whether there is a client, and a daemon that it reaches."""
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(["docker", "version"], capture_output=True, check=False).returncode
    )


@contextmanager
def daemon() -> Iterator[dict[str, str]]:
    """An environment in which `docker` reaches a daemon. Exits with a message where there can be none."""
    if answers():
        yield dict(os.environ)
        return
    lacks = [each for each in ("docker", "dockerd", "containerd", "runc", "iptables") if not shutil.which(each)]
    if lacks or os.geteuid():
        why = f"there is no {', no '.join(lacks)}" if lacks else "only root may start one"
        sys.exit(f"no docker daemon answers, and {why}: start docker, or install docker.io")
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT.parent / "docker.lock").open("w") as lock, tempfile.TemporaryDirectory(prefix="dockerd-") as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two daemons with the same images would destroy them
        environment = os.environ | {"DOCKER_HOST": f"unix://{folder}/socket"}
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(_command(Path(folder)), stdout=log, stderr=log, start_new_session=True)
            try:
                _wait_ready(process, environment, Path(log.name))
                yield environment
            finally:
                process.terminate()
                process.wait(ENDED_WITHIN)


def _command(folder: Path) -> list[str]:
    # fmt: off
    command = [
        "dockerd", "--host", f"unix://{folder}/socket", "--pidfile", f"{folder}/pid",
        "--exec-root", f"{folder}/exec", "--data-root", str(KEPT),
        "--default-ulimit", "nofile=10000:10000",  # where raising limits is not ours, the default would start nothing
    ]
    # fmt: on
    return ["setpriv", "--pdeathsig", "TERM", *command] if shutil.which("setpriv") else command


def _wait_ready(process: "subprocess.Popen[bytes]", environment: dict[str, str], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while subprocess.run(["docker", "version"], env=environment, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"dockerd does not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def main() -> None:
    """Run a command with a daemon; exits with its code."""
    with daemon() as environment:
        code = subprocess.run(sys.argv[1:], env=environment, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
