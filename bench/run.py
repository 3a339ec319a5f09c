"""The bench: what nacos-drain costs and gains, each row beside a rival in the same run.

    python -m bench.run [--only ROW]... [--skip ROW]...    names in ROWS, or patterns, as 'roll-*'

A figure of one machine says little, a ratio to something known on the same machine at the same moment says more. Rows
that need a real Nacos, or root, say so where it is missing. Nothing here passes or fails a build; the bar stands beside
the row. Only a run of all rows is kept, in bench/results/bench.json.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import aiohttp
import psutil

from bench import inits, rolls, watching
from bench.row import Row, machine, show
from bench.running import DRAIN_PORT, ROOT, SERVE, process, settings, until
from bench.tables import RESULTS
from sidecar.demo.double import Double, Service, cluster


POD = "127.0.0.41"
APP_PORT = 18080
BARE = """
import asyncio, sys
from aiohttp import web
async def main():
    app = web.Application()
    app.router.add_get("/livez", lambda r: asyncio.sleep(0, web.Response(text="alive")))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.41", int(sys.argv[1])).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
SHOP = Service("shop")
KUBELET = {"User-Agent": "kube-lifecycle/1.32"}


async def answers(url: str) -> bool:
    """Whether somebody answers 200 there. A new connection each time."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200  # noqa: PLR2004
    except aiohttp.ClientError:
        return False


async def accepts(host: str, port: int) -> bool:
    """Whether a TCP connection is accepted there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def pod(nacos: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An app that listens, and a sidecar beside it that has seen it in Nacos. `more` are settings of it."""
    listener = await asyncio.start_server(lambda _, w: w.close(), POD, APP_PORT)
    async with listener, process(*SERVE, env=settings(nacos, POD, APP_PORT, CONSUMER_CACHE="0", **more)) as child:
        await until(lambda: answers(f"http://{POD}:{DRAIN_PORT}/readyz"))
        yield child


async def post(path: str) -> dict[str, object]:
    """Ask the sidecar for something."""
    url = f"http://{POD}:{DRAIN_PORT}{path}"
    async with aiohttp.ClientSession(headers=KUBELET) as session, session.post(url) as response:
        body = await response.json()
        return dict(body or {})


async def first_request(double: Double, repetitions: int) -> Row:
    """From the trigger to the first request at Nacos, beside `sh -c 'curl ...'`."""
    ours, rival = [], []
    for _ in range(repetitions):
        await asyncio.sleep(5.5)  # the snapshot must be stale: the common case in production
        mark, began = len(double.log), time.monotonic()
        await post("/drain?wait=0")
        await until(lambda mark=mark: true(len(double.log) > mark))  # type: ignore[misc]
        ours.append(double.log[mark].at - began)
        await resumed()
        mark, began = len(double.log), time.monotonic()
        url = f"{double.url}/v1/ns/instance?serviceName=shop&ip={POD}&port=1&enabled=false"
        shell = await asyncio.create_subprocess_exec("sh", "-c", f"curl -s -o /dev/null -X PATCH '{url}'")
        await until(lambda mark=mark: true(len(double.log) > mark))  # type: ignore[misc]
        rival.append(double.log[mark].at - began)
        await shell.wait()
    return Row(
        "trigger -> first request",
        "ms",
        1000 * statistics.median(ours),
        1000 * statistics.median(rival),
        "sh -c 'curl ...'",
        "<= 20 ms",
        f"worst {1000 * max(ours):.1f} ms of {repetitions}",
    )


async def true(value: object) -> bool:
    """A condition for `until` that needs no awaiting."""
    return bool(value)


async def resumed() -> None:
    """Give the lease back and wait until the sidecar is armed again."""
    await post("/resume")

    async def armed() -> bool:
        url = f"http://{POD}:{DRAIN_PORT}/status"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return bool((await response.json())["state"] == "armed")

    await until(armed)


async def noticed(double: Double, repetitions: int) -> Row:
    """From the moment the list is clean to the read that sees it, beside a shell loop that asks once a second."""
    ours, rival = [], []
    for _ in range(repetitions):
        await post("/drain?wait=0")
        ours.append(await clean_to_read(double))
        await resumed()
        loop = f"while curl -s '{double.url}/v1/ns/instance/list?serviceName=shop' | grep -q {POD}; do sleep 1; done"
        shell = await asyncio.create_subprocess_exec("sh", "-c", loop)
        await edit(double, enabled=False)
        rival.append(await clean_to_read(double))
        await shell.wait()
        await edit(double, enabled=True)
        await until(lambda: true(any(i.enabled for i in double.view.hosts(SHOP))))
    return Row(
        "registry clean -> noticed",
        "ms",
        1000 * statistics.median(ours),
        1000 * statistics.median(rival),
        "curl | grep; sleep 1",
        "<= 250 ms, one poll interval",
        f"worst {1000 * max(ours):.0f} ms of {repetitions}",
    )


async def edit(double: Double, *, enabled: bool) -> None:
    """What the folk hook writes."""
    query = {"serviceName": "shop", "ip": POD, "port": str(APP_PORT), "enabled": str(enabled).lower()}
    async with aiohttp.ClientSession() as session, session.patch(f"{double.url}/v1/ns/instance", params=query) as _:
        pass


async def clean_to_read(double: Double) -> float:
    """Seconds from the node's list being clean to the next read of it."""
    clean = await until(lambda: true(not any(i.enabled for i in double.view.hosts(SHOP))))

    async def read() -> bool:
        return any(r.at >= clean and r.path.endswith("/instance/list") for r in double.log[-50:])

    await until(read)
    return next(r.at for r in double.log if r.at >= clean and r.path.endswith("/instance/list")) - clean


async def whole_drain(_: int) -> list[Row]:
    """Everything but SETTLE, on a real 3.1.0 with its admin login and a gRPC instance, beside curl and sleep 40."""
    sys.path.insert(0, str(ROOT / "tests"))
    from rig.build import RigUnavailableError  # noqa: PLC0415  only this row needs the rig
    from rig.clients import GrpcApp  # noqa: PLC0415
    from rig.records import Instance  # noqa: PLC0415
    from rig.servers import NacosServer  # noqa: PLC0415

    what, bar = "whole hook outside SETTLE, real Nacos 3.1.0", "as fast as Nacos: push delay 0.5 s + 2 reads"
    with ExitStack() as stack:
        try:
            server = stack.enter_context(NacosServer("3.1.0"))
        except RigUnavailableError as reason:
            return [Row(what, "s", None, FOLK_HOOK, "curl && sleep 40", bar, f"skipped: {reason}")]
        login = {"NACOS_USERNAME": server.username or "", "NACOS_PASSWORD": server.password or ""}
        outside = []
        async with GrpcApp(server) as app:
            await app.register(Instance("shop", APP_PORT, ip=POD))
            async with pod(server.address, **login):
                for _ in range(5):
                    began = time.monotonic()
                    report = await post("/drain")
                    took = time.monotonic() - began
                    settle = next(p for p in report["phases"] if p["phase"] == "SETTLE")  # type: ignore[attr-defined]
                    outside.append(took - settle["seconds"])
                    await resumed()
                    await asyncio.sleep(1)
    note = f"worst {max(outside):.2f} s of {len(outside)}; SETTLE is in the rows of whole rolls"
    return [Row(what, "s", statistics.median(outside), FOLK_HOOK, "curl && sleep 40", bar, note)]


FOLK_HOOK = 40.6  # s, measured with real apps: rollout-baseline.md section 1, row c; only its sleep matters here


def rss(pid: int) -> float:
    """Resident memory in MiB."""
    return psutil.Process(pid).memory_info().rss / 2**20


def peak_rss(pid: int) -> float:
    """The most that it ever had, in MiB."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


async def memory(double: Double, _: int) -> Row:
    """Idle and ready, beside a bare aiohttp server on the same Python."""
    async with process(sys.executable, "-c", BARE, "18099") as bare:
        await until(lambda: answers(f"http://{POD}:18099/livez"))
        async with pod(double.address) as child:
            await asyncio.sleep(3)
            ours, rival = rss(child.pid), rss(bare.pid)
    return Row("idle RSS", "MiB", ours, rival, "bare aiohttp server", "<= rival + 10 MiB", f"+{ours - rival:.1f} MiB")


async def start(double: Double, repetitions: int) -> Row:
    """From the start of the process to an accepted connection and to the first answer, beside the same server."""
    ours, answered, rival = [], [], []
    for turn in range(repetitions):
        began = time.monotonic()
        async with process(*SERVE, env=settings(double.address, POD, APP_PORT, CONSUMER_CACHE="0")):
            ours.append(await until(lambda: accepts(POD, DRAIN_PORT)) - began)
            answered.append(await until(lambda: answers(f"http://{POD}:{DRAIN_PORT}/livez")) - began)
        began, port = time.monotonic(), 18100 + turn
        async with process(sys.executable, "-c", BARE, str(port)):
            rival.append(await until(lambda port=port: accepts(POD, port)) - began)  # type: ignore[misc]
    return Row(
        "start -> listening",
        "ms",
        1000 * statistics.median(ours),
        1000 * statistics.median(rival),
        "bare aiohttp server",
        "<= 800 ms",
        f"first answer after {1000 * statistics.median(answered):.0f} ms",
    )


MANY, CROWD = 300, 1000


async def many(_: int) -> list[Row]:
    """A pod of 300 instances, one of them among 1,000 hosts, on three nodes; beside 300 writes that prove nothing."""
    async with cluster(3, dialect="2.2") as nodes:
        names = [f"shop-{n}" for n in range(MANY)]
        for name in names:
            nodes[0].naming.register_grpc(name, POD, APP_PORT, connection=f"bench-{name}")
        for n in range(CROWD - 1):
            nodes[0].naming.register_grpc(names[0], f"10.1.{n // 250}.{n % 250 + 1}", 8080, connection=f"crowd-{n}")
        nacos = ",".join(node.address for node in nodes)
        env = settings(nacos, POD, APP_PORT, service=",".join(names), CONSUMER_CACHE="0")
        listener = await asyncio.start_server(lambda _, w: w.close(), POD, APP_PORT)
        async with listener, process(*SERVE, env=env) as child:
            await until(lambda: answers(f"http://{POD}:{DRAIN_PORT}/readyz"), within=60.0)
            marks = [len(node.log) for node in nodes]
            told = await post("/drain")
            asked = [node.log[mark:] for node, mark in zip(nodes, marks, strict=True)]
            peak = peak_rss(child.pid)
        began = time.monotonic()
        url = f"{nodes[0].url}/v1/ns/instance?ip={POD}&port=1&enabled=false&serviceName="
        loop = f"for n in $(seq 0 {MANY - 1}); do curl -s -o /dev/null -X PATCH '{url}'shop-$n; done"
        shell = await asyncio.create_subprocess_exec("sh", "-c", loop)
        await shell.wait()
        rival = time.monotonic() - began
    phases = {phase["phase"]: phase["seconds"] for phase in told["phases"]}  # type: ignore[attr-defined]
    requests, writes = sum(map(len, asked)), sum(r.method == "PATCH" for each in asked for r in each)
    row = Row(
        f"{MANY} instances x 3 nodes: trigger -> proof",
        "s",
        phases["DEREGISTER"] + phases["VERIFY"],
        rival,
        f"{MANY} x curl, nothing proved",
        "<= 25 s, the proof's limit",
        f"{told['outcome']}; {requests} requests, {writes} of them writes; peak RSS {peak:.0f} MiB",
    )
    return [row]


# -- the table -----------------------------------------------------------------------------------------------------


Rows = Callable[[int], Awaitable[list[Row]]]


def with_double(measure: Callable[[Double, int], Awaitable[Row]], *, armed: bool = False) -> Rows:
    """Give a row a Nacos that lists the pod, and with `armed` the pod too."""

    async def rows(repetitions: int) -> list[Row]:
        async with AsyncExitStack() as stack:
            double = await stack.enter_async_context(Double("2.2", push_delay=0.5))
            double.naming.register_grpc("shop", POD, APP_PORT, connection="bench")
            if armed:
                await stack.enter_async_context(pod(double.address))
            return [await measure(double, repetitions)]

    return rows


ROWS: dict[str, Rows] = {
    "start": with_double(start),
    "memory": with_double(memory),
    "first-request": with_double(first_request, armed=True),
    "noticed": with_double(noticed, armed=True),
    "many-instances": many,
    "whole-hook": whole_drain,
    "cpu-100": watching.hundred,
    "cpu-1000": watching.thousand,
    "sample": watching.sample,
    "peers": watching.peers,
    "roll-push": rolls.push,
    "roll-cached": rolls.cached,
    "roll-default-look-back": rolls.default_look_back,
    "init-exec": inits.exec_delay,
    "init-forward": inits.forward_latency,
    "init-memory": inits.memory,
}


def _named(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


async def main() -> None:
    """Run the rows in turn; two at once would falsify both."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=f"Rows: {', '.join(ROWS)}.")
    parser.add_argument("--only", action="append", metavar="ROW", help="these alone; a name, or a pattern as 'roll-*'")
    parser.add_argument("--skip", action="append", metavar="ROW", default=[], help="not these")
    options = parser.parse_args()
    chosen = {
        name: rows
        for name, rows in ROWS.items()
        if _named(name, options.only or ["*"]) and not _named(name, options.skip)
    }
    if not chosen:
        parser.error(f"no row is left; there are {', '.join(ROWS)}")
    repetitions = int(os.environ.get("BENCH_REPETITIONS", "7"))
    measured = []
    for name, rows in chosen.items():
        sys.stderr.write(f"{name} ...\n")
        measured += await rows(repetitions)
    print(show(measured))  # noqa: T201  its purpose
    if chosen.keys() == ROWS.keys():
        RESULTS.mkdir(exist_ok=True)
        told = {"machine": machine(), "rows": [{**asdict(row), "ratio": row.ratio} for row in measured]}
        (RESULTS / "bench.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
