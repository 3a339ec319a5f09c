"""Its HTTP surface.

A preStop hook may call it, a kubelet's probes, Prometheus.
"""

import asyncio
import signal

import aiohttp
from inits.commands import HEARER
from inits.rows import behaviour
from inits.running import PERIOD, WITHIN, Case, Run
from inits.subjects import LONG, Options


ONLY_OURS = "tini and dumb-init have none"
NOBODY = "nobody listens"


@behaviour("GET /livez", "200", tini=NOBODY, dumb_init=NOBODY, why=ONLY_OURS)
async def door(case: Case) -> str:
    """The same as that of a sidecar, as long as the command runs."""
    async with case.run(*HEARER, options=Options(server=True)) as run:
        await run.line("ready")
        answer = await livez(run)
        if case.name == "nacos-drain":
            async with asyncio.timeout(WITHIN):
                while answer is None:
                    await asyncio.sleep(PERIOD)
                    answer = await livez(run)
        return NOBODY if answer is None else str(answer)


@behaviour("GET /livez, with `--no-server`", NOBODY)
async def no_door(case: Case) -> str:
    """Tried until ours is in the midst of its drain; the others have no such option, and need none."""
    async with case.run(*HEARER, env=LONG) as run:
        await run.line("ready")
        run.signal(signal.SIGTERM)
        while case.name == "nacos-drain" and "drain.started" not in run.errors:
            if (answer := await livez(run)) is not None:
                return str(answer)
            await asyncio.sleep(PERIOD)
        answer = await livez(run)
    return NOBODY if answer is None else str(answer)


async def livez(run: Run) -> int | None:
    """What is answered; None when there is nobody."""
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://{run.listen}/livez") as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return None
