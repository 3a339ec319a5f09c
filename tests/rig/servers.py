"""Real Nacos servers on loopback, standalone or a cluster's nodes: one JVM each, started and stopped by tests.

`start`, `wait_ready`, `stop` and `restart` block: session fixtures are no coroutines. A test that
restarts a server while its own loop has work to do awaits `asyncio.to_thread(server.wait_ready)`
after `launch()`.
"""

import base64
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from rig import build


LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Release:
    """How one published version wants to be started."""

    main_class: str
    heap: str
    has_auth: bool


RELEASES = {
    "2.2.4": Release("rig.Nacos2", heap="384m", has_auth=False),
    "3.1.0": Release("rig.Nacos3", heap="512m", has_auth=True),
}


@dataclass(frozen=True)
class Secrets:
    """What the nodes of a cluster have in common, so that one admin and one token are good on each."""

    password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    identity: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    signing_key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(48)).decode(), repr=False)


# Without embedded storage, a 3.x cluster wants a database beside it; 2.x' naming half has none at all.
_CLUSTER_NODE = {2: ["-Dnacos.standalone=false"], 3: ["-Dnacos.standalone=false", "-DembeddedStorage=true"]}


class ServerNotReadyError(Exception):
    """A server did not come up; the message ends with its log."""


def free_port() -> int:
    """Find a P such that everything Nacos derives from it is free."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Find several such P, none of which derives another's ports."""
    found: list[int] = []
    taken: set[int] = set()
    # Below the ephemeral range, so that no outgoing connection takes one between look and bind.
    for port in random.sample(range(12_000, 31_000), 200):
        derived = {port + offset for offset in (-1000, 0, 1000, 1001, 2000)}  # Raft, HTTP, gRPC, gRPC of peers, console
        if derived.isdisjoint(taken) and all(map(_is_free, derived)):
            found.append(port)
            taken |= derived
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports for Nacos between 12000 and 31000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no occupant
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


class NacosServer:
    """One server process. Address, data and admin survive `restart`; `close` throws them away.

    With `members`, the host:port of every node and its own among them, it is a node of a cluster.
    """

    def __init__(
        self,
        version: str,
        *,
        port: int | None = None,
        context_path: str = "/nacos",
        members: Sequence[str] = (),
        shared: Secrets | None = None,
    ) -> None:
        self.version = version
        self.major = int(version.split(".", maxsplit=1)[0])
        self.port = port or free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.context_path = context_path
        self._release = RELEASES[version]
        self._members = tuple(members)
        self._secrets = shared or Secrets()
        self.username = "nacos" if self._release.has_auth else None
        self.password = self._secrets.password if self._release.has_auth else None
        self.home = Path(tempfile.mkdtemp(prefix=f"nacos-{version}-"))
        self.log = self.home / "stdout.log"
        self.token: str | None = None  # the admin's, fresh at every start; lives for five hours
        self.started_in = 0.0
        self._launched_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._configure()

    @property
    def base(self) -> str:
        """The URL that API paths are appended to."""
        return self.url + self.context_path

    @property
    def address(self) -> str:
        """The host:port a client library is given."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The JVM's."""
        if self._process is None:
            raise RuntimeError(f"{self} is not running")
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether there is a process, be it frozen."""
        return self._process is not None and self._process.poll() is None

    def __repr__(self) -> str:
        return f"Nacos {self.version} at {self.base}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        """Launch it and wait until it takes writes."""
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        """Start the process and return at once."""
        if self._process is not None:
            raise RuntimeError(f"{self} runs already")
        if threading.current_thread() is not threading.main_thread():
            # The kernel's parent-death signal is sent when the launching *thread* ends.
            raise RuntimeError("launch servers from the main thread")
        mode = ["-Dnacos.standalone=true"] if not self._members else _CLUSTER_NODE[self.major]
        # fmt: off
        command = [
            "java", "-Xms64m", f"-Xmx{self._release.heap}",
            "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",  # up in half the time; peak speed is no matter
            *mode, f"-Dnacos.home={self.home}", f"-Duser.home={self.home}",
            f"-Dnacos.server.ip={LOOPBACK}",
            f"-Dspring.config.additional-location=file:{self.home}/conf/",
            self._release.main_class,
        ]
        # fmt: on
        if shutil.which("setpriv"):
            # Whatever ends the test run, kill -9 included, ends the JVM.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        class_path = build.class_path(self.version)
        self._launched_at = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env={**os.environ, "CLASSPATH": class_path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops us
            )

    def wait_ready(self, timeout: float = 180.0) -> None:
        """Return once one write to each kind of record was answered 200.

        An open port, a 200 from a list or from 3.x's own readiness come seconds earlier.
        """
        deadline = time.monotonic() + timeout
        if self._release.has_auth:
            self._until("the first admin exists", self._ensure_admin, deadline)
            # A fresh admin is "Access Denied" until the server reloads its users, up to 15 s.
            self._until("the admin can log in", self._log_in, deadline)
        # A fresh name: all nodes of a cluster are asked at once, and the last use of a name may still be fading.
        service = f"rig-ready-{secrets.token_hex(4)}"
        probe = {"serviceName": service, "ip": LOOPBACK, "port": "1", "clusterName": "DEFAULT"}
        lasting = probe | {"ephemeral": "false"}
        disabled = probe | {"enabled": "false", "weight": "1"}
        instance = "/v1/ns/instance"
        overlay = ("PATCH", instance) if self.major == 2 else ("PUT", "/v3/admin/ns/instance/partial")
        self._until("it registers", lambda: self._ok("POST", instance, lasting), deadline)
        self._until("it disables", lambda: self._ok(*overlay, disabled), deadline)
        self._until("it deletes", lambda: self._ok("DELETE", instance, lasting), deadline)
        self.started_in = time.monotonic() - self._launched_at

    def stop(self, patience: float = 10.0) -> None:
        """End it as an operator would: SIGTERM, and SIGKILL if that is not heard."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let it hang: connections are taken, nothing is answered, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)  # the last of its threads may be answering somebody still

    def thaw(self) -> None:
        """Let it go on, if it hangs."""
        if self.runs:
            os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop it and start it again: same address, same data, same admin."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and forget its home: half a gigabyte of preallocated Raft logs."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def call(
        self, method: str, path: str, query: dict[str, str] | None = None, timeout: float = 10.0
    ) -> tuple[int, str]:
        """Ask the server something as the admin; status 0 says that nobody answered."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, f"{self.context_path}{path}?{urlencode(query or {})}", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    def _configure(self) -> None:
        settings = {
            "server.address": LOOPBACK,
            "server.tomcat.accesslog.enabled": "false",
        }
        if self.major == 2:
            settings |= {
                "server.port": str(self.port),
                "server.servlet.contextPath": self.context_path,  # Nacos reads no other spelling
            }
        else:
            settings |= {
                "nacos.server.main.port": str(self.port),
                "nacos.server.contextPath": self.context_path,
                "nacos.console.port": str(self.port + 2000),  # asked for, never opened
                "nacos.core.auth.system.type": "nacos",
                "nacos.core.auth.server.identity.key": "rig",
                "nacos.core.auth.server.identity.value": self._secrets.identity,
                "nacos.core.auth.plugin.nacos.token.secret.key": self._secrets.signing_key,
                # Its embedded database gives up at a busy machine's start otherwise.
                "db.pool.config.connectionTimeout": "30000",
            }
            if self._members:
                # Its first step would be to read another node's tables before there is a leader to serve them.
                settings["nacos.config.namespace.compatible.mode"] = "false"
        conf = self.home / "conf"
        conf.mkdir()
        (conf / "application.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if self._members:
            (conf / "cluster.conf").write_text("".join(f"{member}\n" for member in self._members))

    def _until(self, what: str, attempt: Callable[[], tuple[bool, object]], deadline: float) -> None:
        while True:
            done, answer = attempt()
            if done:
                return
            if not self.runs or time.monotonic() > deadline:
                code = None if self._process is None else self._process.poll()
                reason = "time is up" if self.runs else "it was killed" if code is None else f"it exited with {code}"
                lines = self.log.read_text(errors="replace").splitlines()[-60:]
                self.kill()
                raise ServerNotReadyError(
                    f"{self}: waited until {what}, but {reason}; last answer: {answer}\n" + "\n".join(lines)
                )
            time.sleep(0.1)

    def _ok(self, method: str, path: str, query: dict[str, str]) -> tuple[bool, object]:
        answer = self.call(method, path, query)
        return answer[0] == 200, answer

    def _ensure_admin(self) -> tuple[bool, object]:
        status, body = self.call("GET", "/v3/admin/core/state")
        if status != 200:
            return False, (status, body)
        if json.loads(body)["data"]["auth_admin_request"] == "false":
            return True, body
        return self._ok("POST", "/v3/auth/user/admin", {"password": self.password or ""})

    def _log_in(self) -> tuple[bool, object]:
        self.token = None
        status, body = self.call(
            "POST",
            "/v3/auth/user/login",
            {"username": self.username or "", "password": self.password or ""},
        )
        if status == 200:
            self.token = json.loads(body)["accessToken"]
        return status == 200, (status, body)
