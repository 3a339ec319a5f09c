"""Whole rolls of the demo's provider under load: nacos-drain beside `curl && sleep 40`, which is really slept.

    python -m bench.rolls '{"cache": 35}'    one of them, as the bench runs it; prints a row as JSON

In a process of its own, as it takes a network of its own: what else runs on the machine opens connections too, and a
sidecar that cannot account for one of them waits for the cap.
"""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import asdict, replace

from bench.cells import PUSHED
from bench.place import alone
from bench.row import Row
from bench.running import process
from sidecar.demo.kubelet import DRAIN, SLEEP, Scale
from sidecar.demo.roll import play, verdict
from sidecar.demo.show import Silent
from sidecar.plan import SPRING_CACHE
from sidecar.report import Phase
from sidecar.settings.values import duration_text
from sidecar.settle import Rule


LATEST = PUSHED[1]  # seconds until all consumers that follow pushes have stopped
LONGEST = 900.0  # seconds for one row, of which 5 min are the warm-up
BAR = ">= 5x shorter, nothing failed"


async def push(_: int) -> list[Row]:
    """Consumers that follow Nacos' pushes."""
    return [await apart("push consumers", Scale(cache=LATEST), BAR)]


async def cached(_: int) -> list[Row]:
    """Gateways whose lists are 35 s old at most; of four, one has always read its list less than 9 s ago."""
    return [await apart("35 s caches", Scale(cache=SPRING_CACHE), "last call + 5 s, nothing failed")]


async def default_look_back(_: int) -> list[Row]:
    """As in a real pod: its sidecar has watched for 5 min and a bit."""
    look_back = Rule().look_back
    scale = Scale(cache=LATEST, look_back=look_back, warm_up=look_back + 5.0)
    return [await apart("push consumers, defaults", scale, BAR)]


async def apart(who: str, scale: Scale, bar: str) -> Row:
    """Roll in a process of its own."""
    program = (*alone(), sys.executable, "-m", "bench.rolls", json.dumps(asdict(scale)))
    async with process(*program, stdout=PIPE) as child, asyncio.timeout(LONGEST):
        try:
            told, _ = await child.communicate()
        except asyncio.CancelledError:
            child.send_signal(signal.SIGINT)  # it has children of its own to end
            await child.wait()
            raise
    if child.returncode:
        raise RuntimeError(f"the roll of {who} failed")
    row = Row(**json.loads(told))
    return replace(row, what=f"{row.what}, {who}", bar=bar)


async def roll(scale: Scale) -> Row:
    """Both ways under one load. Two replicas each; the slower one's time."""
    results, reports = await play([SLEEP, DRAIN], scale, Silent(sys.stderr))
    sleep, drain = results
    phases = [phase for report in reports for phase in report.get("phases", ())]
    notes = (
        f"SETTLE_LOOK_BACK={duration_text(scale.look_back)}, {duration_text(scale.warm_up)} under load before",
        f"failed {drain.failed} of {drain.requests}, the rival {sleep.failed} of {sleep.requests}",
        *(phase["detail"] for phase in phases if phase["phase"] == Phase.SETTLE),
        *verdict(results, reports),
    )
    return Row("termination -> exit", "s", drain.seconds, sleep.seconds, "curl && sleep 40", "", "; ".join(notes))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(asyncio.run(roll(Scale(**json.loads(sys.argv[1])))))))
