"""The push watch on real servers. It runs in a process of its own, whose end each test checks for what it leaves.

An independent observer reads the lists; the watch has to agree with it, or to say that it does not know.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from rig.clients import PYTHON, BeatApp, GrpcApp
from rig.openapi import Observer, Operator
from rig.records import Instance
from rig.servers import LOOPBACK, NacosServer, free_port
from rig.wire import close

from sidecar.adapters.nacos_push import PushWatch
from sidecar.adapters.nacos_push.access import Access
from sidecar.adapters.nacos_push.states import place_of, record_of
from sidecar.demo.double import Access as DoublesAccess
from sidecar.demo.double import Dialect, Double
from sidecar.http import Http
from sidecar.ports import Rejected, Unavailable


READER = Path(__file__).parents[1] / "programs/push_reader.py"
ROOT = READER.parents[2]
GRPC_OFFSET = 1000
# gRPC's poller lives as long as its process; asyncio_0 is the loop's own pool, which imports and resolves names.
ALLOWED_THREADS = re.compile(r".*\(_poll_wrapper\)|asyncio_\d+")
Records = dict[str, dict[str, Any]]


class Reader:
    """A push watch in a process of its own."""

    def __init__(self, *servers: str, user: tuple[str, str] | None = None, ca_file: Path | None = None) -> None:
        self._arguments = {"servers": servers, "credentials": user, "ca_file": str(ca_file) if ca_file else None}
        self._scratch = tempfile.TemporaryDirectory(prefix="push-reader-")
        self._process: asyncio.subprocess.Process
        self._errors: asyncio.Task[bytes]
        self.said: list[str] = []

    async def __aenter__(self) -> Self:
        home = self._scratch.name
        self._process = await asyncio.create_subprocess_exec(
            *(PYTHON, READER),
            cwd=home,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": home, "TMPDIR": home},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        self._errors = asyncio.create_task(self._process.stderr.read())
        self._write(self._arguments)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close the watch: no task, no thread, no file, not a word."""
        try:
            if kind is None:
                await self.close()
        finally:
            await self._end()
            complaints = (await self._errors).decode()
            self.said.append(complaints)
            left = await asyncio.to_thread(os.listdir, self._scratch.name)
            self._scratch.cleanup()
        assert (complaints, left) == ("", [])

    async def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise

    async def close(self) -> None:
        left = await self._ask(op="close")
        assert left["tasks"] == []
        assert [name for name in left["threads"] if not ALLOWED_THREADS.fullmatch(name)] == []

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _ask(self, **command: Any) -> dict[str, Any]:
        self._write(command)
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        self.said.append(line)
        assert line, (await self._errors).decode()
        answer: dict[str, Any] = json.loads(line)  # anything else that is printed fails here
        return answer

    async def subscribe(self, instance: Instance) -> None:
        assert await self._ask(op="subscribe", service=service(instance)) == {}

    async def read(self, instance: Instance, *addresses: str) -> Records | str:
        """The records by address, or why they are unknown."""
        answer = await self._ask(op="read", service=service(instance), addresses=addresses or (instance.ip,))
        if "unavailable" in answer:
            return str(answer["unavailable"])
        return {record["address"]: record for record in answer["records"]}

    async def until(self, instance: Instance, wanted: set[str] | str, *addresses: str, within: float = 15.0) -> Records:
        """Read until these addresses are shown, or until it is unknown for a reason with this text."""
        seen: Records | str = "nothing"
        try:
            async with asyncio.timeout(within):
                while True:
                    seen = await self.read(instance, *addresses)
                    if isinstance(seen, str):
                        if isinstance(wanted, str) and wanted in seen:
                            return {}
                    elif isinstance(wanted, set) and set(seen) == wanted:
                        return seen
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited {within} s for {wanted}, but it is {seen}") from None

    async def clean(self, instance: Instance) -> float:
        """Read until nothing is shown; returns the loop's time."""
        await self.until(instance, set())
        return asyncio.get_running_loop().time()


class Proxy:
    """TCP proxies before a server's two ports, so that the watch sees the network fail and the app does not."""

    def __init__(self, server: NacosServer, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls = tls
        self._port = free_port()
        self._listeners: list[asyncio.Server] = []
        self._ends: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._admits = asyncio.Event()
        self._admits.set()
        self.accepted = 0
        self.url = f"{'https' if tls else 'http'}://{LOOPBACK}:{self._port}{server.context_path}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.cut()

    async def listen(self) -> None:
        """Let connections in."""
        port = self._port + GRPC_OFFSET
        self._listeners.append(await asyncio.start_server(self._serve, LOOPBACK, port, ssl=self._tls))

    async def cut(self) -> None:
        """End every connection, and refuse the next ones."""
        self._admits.set()  # nobody is left waiting
        for listener in self._listeners:
            await close(listener)
        self._listeners.clear()
        for pump in self._pumps:
            pump.cancel()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._ends.clear()

    def freeze(self) -> None:
        """Swallow everything and close nothing, as a firewall that has forgotten a connection does."""
        self._open.clear()

    def thaw(self) -> None:
        """Let everything through again that was held."""
        self._open.set()

    def hold(self) -> None:
        """Accept new connections and carry nothing for them yet; those that are open go on."""
        self._admits.clear()

    def admit(self) -> None:
        """Carry for them as well."""
        self._admits.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await self._admits.wait()
        there_reader, there = await asyncio.open_connection(LOOPBACK, self._server.port + GRPC_OFFSET)
        self._ends |= {writer, there}
        for source, target in ((reader, there), (there_reader, writer)):
            pump = asyncio.create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._open.wait()
                target.write(data)
                await target.drain()
        target.close()


def service(instance: Instance) -> dict[str, str]:
    """As the product names it, where an empty namespace is the public one."""
    namespace = "" if instance.namespace == "public" else instance.namespace
    return {"name": instance.service, "group": instance.group, "namespace": namespace, "cluster": instance.cluster}


def named(**fields: Any) -> Instance:
    """An instance of a service that no other test has used."""
    known: dict[str, Any] = {"service": f"push-{secrets.token_hex(4)}", "port": 8080, "ip": "127.0.0.11"}
    return Instance(**known | fields)


def encrypted(certificate: Path) -> ssl.SSLContext:
    """A context for HTTP/2 with a certificate of its own, written to this file."""
    key = certificate.with_name("key.pem")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-subj", "/CN=nacos", "-addext", f"subjectAltName=IP:{LOOPBACK}", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    tls.set_alpn_protocols(["h2"])
    return tls


@pytest.fixture
async def observer(real_nacos: NacosServer) -> AsyncIterator[Observer]:
    async with Observer(real_nacos) as observer:
        yield observer


@pytest.fixture
async def operator(real_nacos: NacosServer) -> AsyncIterator[Operator]:
    async with Operator(real_nacos) as operator:
        yield operator


# -- what is pushed


@pytest.mark.real
async def test_the_watch_sees_what_consumers_see_when_they_see_it(
    real_nacos: NacosServer, observer: Observer, operator: Operator
) -> None:
    """The first state, our removal among others, the last one's removal, and the way back."""
    app = named(weight=3.0, metadata={"zone": "a"})
    other = named(service=app.service, ip="127.0.0.12")
    async with GrpcApp(real_nacos) as first, GrpcApp(real_nacos) as second, Reader(real_nacos.base) as reader:
        await first.register(app)
        await second.register(other)
        await observer.until(app, listed=True)
        await reader.subscribe(app)
        await reader.subscribe(app)  # twice is once
        seen = await reader.until(app, {app.address})
        assert seen[app.address] == {
            "address": app.address,
            "service": f"public/DEFAULT_GROUP/{app.service}/DEFAULT",
            "enabled": True,
            "healthy": True,
            "ephemeral": True,
            "weight": 3.0,
            "mark": "",
        }
        assert set(await reader.read(app, app.ip, other.ip)) == {app.address, other.address}

        await operator.set_enabled(app, enabled=False, metadata={"nacos-drain": "now/pod"})
        clean, seen_at = await asyncio.gather(observer.until(app, listed=False), reader.clean(app))
        assert abs(seen_at - clean) < 1.0
        assert set(await reader.read(other)) == {other.address}

        await second.deregister(other)
        await reader.until(other, set())  # the push that shows nobody
        assert await reader.read(app) == {}

        await operator.set_enabled(app, enabled=True)
        seen = await reader.until(app, {app.address})
        assert seen[app.address]["mark"] == "now/pod"


@pytest.mark.real
async def test_the_absence_of_what_was_never_shown_proves_nothing(real_nacos: NacosServer, observer: Observer) -> None:
    """A wrong namespace, group or cluster is an empty list everywhere; so is another port's."""
    app = named(cluster="north")
    async with BeatApp(real_nacos, app) as client, Reader(real_nacos.base) as reader:
        await observer.until(app, listed=True)
        assert "no subscription to public/DEFAULT_GROUP/" in await reader.read(app)
        await reader.subscribe(app)
        await reader.until(app, {app.address})
        wrong = {"cluster": "DEFAULT", "group": "blue", "namespace": "staging"}
        for key, value in wrong.items():
            elsewhere = named(**{"service": app.service, "cluster": "north", key: value})
            await reader.subscribe(elsewhere)
            await reader.until(elsewhere, "has ever shown")
        assert "absence proves nothing" in await reader.read(app, "127.0.0.99")
        assert "absence proves nothing" in await reader.read(app, f"{app.ip}:9090")
        assert set(await reader.read(app, app.address)) == {app.address}
        assert "absence proves nothing" in await reader.read(app, app.address, f"{app.ip}:9090")
        await client.deregister()
        await reader.until(app, set(), app.address)
        assert "absence proves nothing" in await reader.read(app, f"{app.ip}:9090")


@pytest.mark.real
async def test_each_namespace_has_its_own_view(real_nacos: NacosServer) -> None:
    """One name in both: pushes do not tell their namespace."""
    here = named()
    there = named(service=here.service, namespace="staging", ip="127.0.0.12")
    async with BeatApp(real_nacos, here) as app, BeatApp(real_nacos, there), Reader(real_nacos.base) as reader:
        await reader.subscribe(here)
        await reader.subscribe(there)
        await reader.until(here, {here.address}, here.ip, there.ip)
        await reader.until(there, {there.address}, here.ip, there.ip)
        await app.deregister()
        await reader.until(here, set())
        assert set(await reader.read(there)) == {there.address}


# -- connections


@pytest.mark.real
async def test_a_cut_connection_is_unknown_until_a_new_one_tells(
    real_nacos: NacosServer, observer: Observer, operator: Operator
) -> None:
    app = named()
    async with BeatApp(real_nacos, app), Proxy(real_nacos) as proxy, Reader(proxy.url) as reader:
        await observer.until(app, listed=True)
        await reader.subscribe(app)
        await reader.until(app, {app.address})

        await proxy.cut()
        await reader.until(app, "no pushes: ", within=1.0)
        await reader.until(app, f"its HTTP port + {GRPC_OFFSET} (UNAVAILABLE: ")
        await operator.set_enabled(app, enabled=False)
        await observer.until(app, listed=False)
        assert isinstance(await reader.read(app), str)
        await proxy.listen()
        await reader.until(app, set())  # seen present before the cut: that is remembered, the view was not
        await operator.set_enabled(app, enabled=True)
        await reader.until(app, {app.address})


@pytest.mark.real
async def test_a_silent_connection_is_unknown_when_it_is_asked(
    real_nacos: NacosServer, observer: Observer, operator: Operator
) -> None:
    """Nobody closes it, and no push comes: what it showed last must not count."""
    app = named()
    async with BeatApp(real_nacos, app), Proxy(real_nacos) as proxy, Reader(proxy.url) as reader:
        await reader.subscribe(app)
        await reader.until(app, {app.address})
        await operator.set_enabled(app, enabled=False)
        await reader.until(app, set())

        proxy.freeze()
        await operator.set_enabled(app, enabled=True)
        await observer.until(app, listed=True)
        assert "DEADLINE_EXCEEDED" in await reader.read(app)
        proxy.thaw()
        await reader.until(app, {app.address})


@pytest.mark.real
async def test_a_server_that_asks_us_to_connect_anew_is_obeyed(real_nacos: NacosServer) -> None:
    """What a cluster does to even out its connections."""
    app = named()
    method, path = ("GET", "/v2/core/loader") if real_nacos.major == 2 else ("POST", "/v3/admin/core/loader")
    async with BeatApp(real_nacos, app), Proxy(real_nacos) as proxy, Reader(proxy.url) as reader:
        await reader.subscribe(app)
        await reader.until(app, {app.address})
        assert proxy.accepted == 1
        connections = await asyncio.to_thread(watching, real_nacos, path)
        proxy.hold()  # it is back within 0.1 s, which a reader may miss
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.until(app, "asked us to connect anew"))
            for connection in connections:
                query = {"connectionId": connection, "redirectAddress": ""}
                assert (await asyncio.to_thread(real_nacos.call, method, f"{path}/reloadClient", query))[0] == 200
        proxy.admit()
        await reader.until(app, {app.address})
        assert proxy.accepted == 2


def watching(server: NacosServer, path: str) -> list[str]:
    """The connections of push watches that the server has."""
    body = json.loads(server.call("GET", f"{path}/current")[1])
    connections = body.get("data", body).values()
    return [each["metaInfo"]["connectionId"] for each in connections if each["metaInfo"]["version"] == "nacos-drain"]


@pytest.mark.real
@pytest.mark.timeout(150, func_only=True)
async def test_a_restarted_server_is_unknown_until_it_tells(real_nacos: NacosServer) -> None:
    """It starts empty; the beat that registers the app again is pushed."""
    app = named()
    async with BeatApp(real_nacos, app, interval=1.0), Reader(real_nacos.base) as reader:
        await reader.subscribe(app)
        await reader.until(app, {app.address})
        real_nacos.stop()
        try:
            await reader.until(app, "no pushes: ", within=2.0)
        finally:
            real_nacos.launch()
            await asyncio.to_thread(real_nacos.wait_ready)
        await reader.until(app, {app.address}, within=30)


@pytest.mark.real
async def test_one_of_two_servers_is_enough_and_closing_needs_no_connection(real_nacos: NacosServer) -> None:
    app = named()
    dead = f"http://{LOOPBACK}:{free_port()}/nacos"
    async with BeatApp(real_nacos, app), Reader(dead, real_nacos.base) as reader:
        await reader.subscribe(app)
        await reader.until(app, {app.address})
    async with Reader(dead) as reader:
        await reader.subscribe(app)  # and close at once, while it still loads
    async with Reader("http://no-such-host.invalid:8848/nacos") as reader:
        await reader.subscribe(app)
        await reader.until(app, "cannot be resolved")


@pytest.mark.real
async def test_https_means_tls_on_the_grpc_port(real_nacos: NacosServer, tmp_path: Path) -> None:
    """Nacos speaks it here through a proxy that ends TLS."""
    certificate = tmp_path / "ca.pem"
    tls = encrypted(certificate)
    app = named()
    async with BeatApp(real_nacos, app), Proxy(real_nacos, tls) as proxy:
        async with Reader(proxy.url, ca_file=certificate) as reader, Reader(proxy.url) as distrustful:
            await reader.subscribe(app)
            await distrustful.subscribe(app)
            await reader.until(app, {app.address})
            await distrustful.until(app, "CERTIFICATE_VERIFY_FAILED")
        async with Reader(proxy.url, ca_file=tmp_path / "none.pem") as reader:
            await reader.subscribe(app)
            await reader.until(app, "none.pem cannot be used: No such file or directory")


# -- who we are


class Guarded(NacosServer):
    """3.1.0 that asks consumers for a login, too."""

    def _configure(self) -> None:
        super()._configure()
        with (self.home / "conf/application.properties").open("a") as properties:
            properties.write("nacos.core.auth.enabled=true\n")


@pytest.fixture(scope="module")
def guarded(nacos3: NacosServer) -> Iterator[NacosServer]:
    server = Guarded(nacos3.version)  # where that one starts, this one does
    try:
        yield server.start()
    finally:
        server.close()


@pytest.mark.real
async def test_credentials_let_us_in_and_appear_nowhere(guarded: NacosServer) -> None:
    app = named()
    user, password = str(guarded.username), str(guarded.password)
    wrong = "wrong-" + secrets.token_hex(8)
    async with (
        BeatApp(guarded, app),
        Reader(guarded.base, user=(user, password)) as known,
        Reader(guarded.base, user=(user, wrong)) as mistaken,
        Reader(guarded.base) as nobody,
    ):
        for reader in (known, mistaken, nobody):
            await reader.subscribe(app)
        await known.until(app, {app.address})
        refusal = "refuses the login (it answers 500): check NACOS_DRAIN_NACOS_USERNAME and NACOS_DRAIN_NACOS_PASSWORD"
        await mistaken.until(app, refusal)
        await nobody.until(app, "refuses the subscription without credentials: set NACOS_DRAIN_NACOS_USERNAME")
    said = "\n".join(known.said + mistaken.said)
    assert password not in said
    assert wrong not in said
    assert "eyJ" not in said  # how every token of Nacos starts


@pytest.mark.real
async def test_a_server_without_a_login_needs_none(nacos2: NacosServer) -> None:
    app = named()
    async with BeatApp(nacos2, app), Reader(nacos2.base, user=("nacos", "whatever")) as reader:
        await reader.subscribe(app)
        await reader.until(app, {app.address})


KEY = ("DEFAULT_GROUP", "shop")
PASSWORD = "a Passw%rd/with+all?of&it"


@pytest.mark.parametrize("dialect", ["2.2", "3.1"])
async def test_a_token_is_kept_until_it_is_refused(dialect: Dialect) -> None:
    doubles = DoublesAccess({"nacos": PASSWORD})
    http = Http()
    async with Double(dialect, access=doubles) as double:
        access = Access(http, lambda: ("nacos", PASSWORD), None)
        first = await access.headers(double.url, KEY)
        assert first["accessToken"]
        assert await access.headers(double.url, KEY) == first
        assert doubles.logins == 1
        access.accepted()
        assert type(access.refused("node", "token expired")) is Unavailable  # worth another login
        await access.headers(double.url, KEY)
        assert doubles.logins == 2
        assert type(access.refused("node", "no right")) is Rejected  # it is the user, not the token
    await http.close()


async def test_a_wrong_password_is_told_without_it() -> None:
    http = Http()
    async with Double("3.1", access=DoublesAccess({"nacos": PASSWORD})) as double:
        access = Access(http, lambda: ("nacos", "sesame-open"), None)
        assert "accessToken" not in await access.headers(double.url, KEY)
        problem = access.refused("node", "sesame-open is wrong")
        assert isinstance(problem, Rejected)
        assert "refuses the login" in str(problem)
        assert "sesame" not in str(problem) + access.quoted("you said sesame-open")
    await http.close()


async def test_keys_sign_the_service() -> None:
    headers = await Access(Http(), None, lambda: ("ak", "sk")).headers("http://nacos:8848/nacos", KEY)
    assert headers["ak"] == "ak"
    moment, _, name = headers["data"].partition("@@")
    assert (moment.isdigit(), name) == (True, "DEFAULT_GROUP@@shop")
    digest = hmac.new(b"sk", headers["data"].encode(), hashlib.sha1).digest()
    assert headers["signature"] == base64.b64encode(digest).decode()


# -- without a server


def test_the_extra_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "v2", None)
    with pytest.raises(Rejected, match=r"^NACOS_DRAIN_PUSH_WATCH needs the extra: pip install nacos-drain\[grpc\]$"):
        PushWatch(["http://nacos:8848/nacos"])


def test_the_module_loads_nothing_of_the_extra() -> None:
    code = "import sys, sidecar.adapters.nacos_push; print(sorted({'v2', 'grpc', 'google'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


ROW = {"ip": "10.0.0.1", "port": 8080, "enabled": True, "healthy": True, "ephemeral": True, "weight": 1.0}


@pytest.mark.parametrize(
    "broken", [None, {}, ROW | {"ip": None}, ROW | {"port": "http"}, ROW | {"enabled": "true"}, ROW | {"metadata": "x"}]
)
def test_a_row_that_is_none_is_not_left_out(broken: object) -> None:
    """A push misread as empty would be a false proof."""
    assert record_of(ROW, KEY, "public").instance.port == 8080
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        record_of(broken, KEY, "public")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("fd00::0:1", ("fd00::1", None)),
        ("[fd00::1]", ("fd00::1", None)),
        ("[fd00::1]:8080", ("fd00::1", 8080)),
        ("::ffff:10.0.0.1", ("10.0.0.1", None)),
        ("shop.local", ("shop.local", None)),
    ],
)
def test_an_address_may_carry_a_port(text: str, place: tuple[str, int | None]) -> None:
    assert place_of(text) == place
