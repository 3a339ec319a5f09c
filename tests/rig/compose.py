"""examples/compose, brought up and released as its page tells, and what its load has counted.

    python -m rig.compose [FORM…]        plays three rolls of each, told as they go; what `make compose` calls

It plays the very files of the example, with the first of `docker-compose` and `docker compose` that is there
(`COMPOSE` names another one). Images are made before.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rig.docker import DockerError, docker, inspect, streams


EXAMPLE = Path(__file__).resolve().parents[2] / "examples/compose"
# What is stopped in one command for a replica, and whose log tells of the drain.
FORMS = {"sidecar": ("shop-{}", "nacos-drain-{}"), "wrapper": ("shop-{}",)}
SHOPS = {"sidecar": "nacos-drain-provider", "wrapper": "nacos-drain-wrapped"}
NACOS = "nacos-drain-nacos"  # ours, of Maven's jars: docker's own needs a registry of images
IMAGES = ("nacos-drain:dev", NACOS, "nacos-drain-gateway", *SHOPS.values())
REPLICAS = (1, 2, 1)
UP_WITHIN, SEEN_WITHIN, WATCHED_WITHIN = 180.0, 60.0, 45.0
COUNTED = re.compile(r"in all (\d+) requests, (\d+) failed")
SIGTERM_CODE = 143  # what a JVM exits with by itself; 137 is docker's SIGKILL


class ComposeError(Exception):
    """Compose has complained, or what was waited for did not come: the message says of what."""


@dataclass(frozen=True)
class Roll:
    """What was seen of one replica's release."""

    replica: str
    stopped_in: float
    back_in: float  # from that until nacos-drain has seen its successor in Nacos
    exit_code: int  # the provider's
    report: dict[str, Any]  # the last that nacos-drain has told of the drain
    requests: int
    failed: int

    @property
    def line(self) -> str:
        """One line for a person."""
        proof = "proved" if self.report["proved_gone"] else "not proved"
        return (
            f"{self.replica}: stopped in {self.stopped_in:.1f} s ({self.report['outcome']}, {proof}; its exit code is "
            f"{self.exit_code}), back in {self.back_in:.1f} s: {self.failed} of {self.requests} requests failed"
        )


class Project:
    """One of the two files, under a name of its own."""

    def __init__(self, form: str, command: Sequence[str], settings: dict[str, str]) -> None:
        self.form = form
        self._counted = (0, 0)  # when the last roll was over: what fails between two of them belongs to the second
        self._look_back = float(settings.get("LOOK_BACK", "0").removesuffix("s"))
        self._command = (*command, "--file", str(EXAMPLE / f"{form}.yaml"))
        name = f"nacos-drain-{form}-{uuid4().hex[:6]}"
        own = {"GATEWAY_PORT": str(_free_port()), "NACOS_IMAGE": NACOS}
        self._env = {**own, **os.environ, **settings, "COMPOSE_PROJECT_NAME": name}

    def compose(self, *arguments: str, within: float = 180.0) -> str:
        """Run compose on this project; returns what it prints on stdout."""
        # fmt: off
        done = subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=True, text=True, timeout=within, check=False,
        )
        # fmt: on
        if done.returncode:
            raise ComposeError(f"compose {shlex.join(arguments)}: {done.stderr.strip()[-3000:]}")
        return done.stdout

    def container(self, service: str) -> str:
        """A service's container, be it stopped."""
        project = f"com.docker.compose.project={self._env['COMPOSE_PROJECT_NAME']}"
        labels = (project, f"com.docker.compose.service={service}")
        found = docker("ps", "--all", "--quiet", *(f"--filter=label={label}" for label in labels)).split()
        if len(found) != 1:
            raise ComposeError(f"{service} has {len(found)} containers")
        return found[0]

    def counted(self) -> tuple[int, int]:
        """Requests and failures until now, as the load tells them; what is under way has ended."""
        load = self.container("load")
        seen = len(COUNTED.findall(streams(load)[0]))

        def told() -> bool:
            return len(COUNTED.findall(streams(load)[0])) > seen + 1

        self._until("a line of the load", SEEN_WITHIN, told)
        requests, failed = COUNTED.findall(streams(load)[0])[-1]
        return int(requests), int(failed)

    def why(self) -> str:
        """The lines of the load that tell of failures."""
        lines = streams(self.container("load"))[0].splitlines()
        return "\n".join(line for line in lines if " failed" in line and " 0 failed; " not in line)

    def wait_healthy(self, replica: int) -> None:
        """Until nacos-drain has seen the replica in Nacos."""
        services = self._services(replica)

        def healthy() -> bool:
            if inspect(self.container(services[0]))["State"]["Status"] == "exited":
                # On a busy machine Nacos' client may not be connected within its 3 s, and then a Spring app gives up.
                self.compose("up", "--detach", *services)
            return bool(inspect(self.container(services[-1]))["State"]["Health"]["Status"] == "healthy")

        self._until(f"{services[-1]} is healthy", UP_WITHIN, healthy)

    def wait_watched(self, replica: int) -> None:
        """Until nacos-drain knows its callers, from a whole look-back where the test has set a short one.

        After WATCHED_WITHIN it is released all the same: its drain then takes the cap, and its report tells why.
        """
        drainer = self.container(self._services(replica)[-1])
        deadline = time.monotonic() + WATCHED_WITHIN
        while time.monotonic() < deadline:
            traffic = self.status(drainer)["traffic"]
            since, seen = (datetime.fromisoformat(traffic[name]) for name in ("watching_since", "seen_at"))
            known = not traffic["missed"] and any(row["rhythm_s"] is not None for row in traffic["callers"])
            if known and (seen - since).total_seconds() > self._look_back:
                return
            time.sleep(0.5)

    def status(self, drainer: str) -> dict[str, Any]:
        """What nacos-drain sees."""
        status: dict[str, Any] = json.loads(
            docker("exec", drainer, "/opt/nacos-drain/bin/nacos-drain", "status", "--json")
        )
        return status

    def start(self) -> None:
        """All of it, until both replicas are in Nacos and the load runs."""
        self.compose("up", "--detach", within=UP_WITHIN)
        for replica in set(REPLICAS):
            self.wait_healthy(replica)

    def roll(self, replica: int) -> Roll:
        """Release another image to a replica, as the page tells, and count what failed meanwhile."""
        self.wait_watched(replica)
        services = self._services(replica)
        old, drainer = (self.container(service) for service in (services[0], services[-1]))
        self._env["SHOP_IMAGE"] = self._another_image(old)
        # A replaced container is removed with its log and its exit code: both are followed to its end.
        with ThreadPoolExecutor() as following:
            said = following.submit(_followed, "logs", "--follow", drainer)
            ended = following.submit(_followed, "wait", old)
            began = time.monotonic()
            if len(services) > 1:
                self.compose("stop", *services)
            self.compose("up", "--detach", *services)
            exit_code, ended_at = ended.result()
            log, _ = said.result()
        self.wait_healthy(replica)
        stopped_in, back_in = ended_at - began, time.monotonic() - ended_at
        report = self._report(log)
        before, self._counted = self._counted, self.counted()
        requests, failed = (now - then for now, then in zip(self._counted, before, strict=True))
        return Roll(services[0], stopped_in, back_in, int(exit_code), report, requests, failed)

    def down(self) -> None:
        """Remove it, without waiting for anything."""
        self.compose("kill")
        self.compose("down", "--volumes", "--timeout", "1")

    def _services(self, replica: int) -> tuple[str, ...]:
        return tuple(service.format(replica) for service in FORMS[self.form])

    def _another_image(self, container: str) -> str:
        """Its image by another name, which is all that compose looks at."""
        shop = SHOPS[self.form]
        if inspect(container)["Config"]["Image"] != shop:
            return shop
        docker("tag", shop, f"{shop}:next")
        return f"{shop}:next"

    def _report(self, log: str) -> dict[str, Any]:
        lines = log.splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        reports: list[dict[str, Any]] = [each for each in told if each["event"] in {"drain.released", "drain.finished"}]
        if not reports:
            raise ComposeError("no report of a drain in the log:\n" + "\n".join(lines[-30:]))
        return reports[-1]

    def _until(self, what: str, within: float, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() > deadline:
                raise ComposeError(f"waited {within:g} s until {what}:\n{self.compose('logs', '--tail', '15')}")
            time.sleep(0.2)


def commands() -> dict[str, tuple[str, ...]]:
    """Compose's generations that are here: by their first number."""
    found: dict[str, tuple[str, ...]] = {}
    kept = EXAMPLE.parents[1] / ".rig/bin/docker-compose-2"
    for command in (("docker-compose",), ("docker", "compose"), (str(kept),)):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if not done.returncode:
                found.setdefault(done.stdout.strip().lstrip("v").split(".")[0], command)
    return found


@contextmanager
def playing(form: str, command: Sequence[str], **settings: str) -> Iterator[Project]:
    """The example, up; it is removed with the block."""
    project = Project(form, command, settings)
    try:
        project.start()
        yield project
    finally:
        project.down()


def _followed(*command: str) -> tuple[str, float]:
    """What docker prints until a container has ended, and when that was."""
    told = subprocess.STDOUT  # a sidecar logs to stdout, `run` to stderr
    done = subprocess.run(
        ["docker", *command], stdout=subprocess.PIPE, stderr=told, text=True, timeout=UP_WITHIN, check=False
    )
    return done.stdout, time.monotonic()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(text: str) -> None:
    """Tell the user at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Play the forms that are named, both unless told; exits 1 when a request has failed."""
    here = list(commands().values())
    command = shlex.split(os.environ["COMPOSE"]) if os.environ.get("COMPOSE") else here[0] if here else None
    if command is None:
        say("there is no docker-compose and no docker compose: install one (Debian: docker-compose)")
        return 1
    failed = 0
    for form in sys.argv[1:] or FORMS:
        say(f"\n{form}.yaml: starting Nacos, a gateway, two providers and a load: half a minute")
        try:
            with playing(form, command) as project:
                cache = os.environ.get("CACHE_TTL") or "35s"
                say(f"the gateway uses a list for {cache}, so a stop takes up to that and some seconds; three of them")
                for replica in REPLICAS:
                    roll = project.roll(replica)
                    say(f"  {roll.line}")
                    failed += roll.failed
                if why := project.why():
                    say(why)
        except (ComposeError, DockerError) as error:
            say(str(error))
            return 1
    say(f"\n{failed} requests failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
