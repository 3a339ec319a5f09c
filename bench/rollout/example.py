"""`make spring-cloud`: examples/spring-cloud on this machine, and releases of it while you look.

A real Nacos, a gateway that follows its pushes, two providers with the starter and a sidecar each, and a kubelet's way
to replace one of them. On a terminal it goes on for as long as you press Enter; else it ends after one.
"""

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path

from rig.build import RigUnavailableError

from bench.running import DRAIN_PORT, end_on_sigterm

from .cells import LOOK_BACK, NO_CACHE, WARM_UP, Cell
from .outcome import outcome
from .roll import Roll, rolls
from .stage import Stage, stage
from .ways import WAYS


COMMAND = os.path.relpath(Path(sys.executable).with_name("nacos-drain"))
NACOS, GENERATION = "2.2.4", "2023.0.1"
CELL = Cell("example", "a gateway that follows pushes", (NO_CACHE,), 20.0)


def say(text: str) -> None:
    """Tell the user at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def play() -> None:
    """Bring everything up, and replace replicas."""
    end_on_sigterm()
    say(f"starting Nacos {NACOS}, a gateway and two providers (Spring Cloud Alibaba {GENERATION}): half a minute")
    async with stage(NACOS, GENERATION, CELL.consumers) as on:
        say(f"Nacos answers at {on.nacos.base}")
        say(f"an order, by the gateway:   curl -X POST {NO_CACHE.url}{on.path}")
        say(
            f"then {WARM_UP:g} s of {CELL.rate:g} requests/s, as a sidecar that is younger than its look-back waits "
            f"for its cap; these have SETTLE_LOOK_BACK={LOOK_BACK:g}s, by default it is 5 min"
        )
        async with aclosing(rolls(on, WAYS["starter"], CELL)) as playing:
            async for roll in playing:
                _tell(on, roll)
                if not sys.stdin.isatty():
                    return
                say("Enter replaces the next one, Ctrl-C ends it all")
                if not await _line():
                    return
                say("its replacement starts, and then it is stopped: a quarter of a minute, and up to 40 s more")


async def _line() -> str:
    """What is typed; a thread that reads would keep Ctrl-C waiting for it."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()


def _tell(on: Stage, roll: Roll) -> None:
    told = outcome(roll)
    say(f"\n{roll.old.address} was replaced: {told['failed']} of {told['requests']} requests failed")
    for phase in told["drain"]["phases"] if told["drain"] else ():
        say("  {phase:<10} {outcome:<7} {seconds:6.2f} s  {detail}".format_map(phase))
    say(f"  SIGTERM after {told['sigterm']:.1f} s, exit after {told['exit']:.1f} s with code {told['exit_code']}")
    for address in on.serving:
        say(f"what a sidecar sees:   {COMMAND} status --url http://{address.rpartition(':')[0]}:{DRAIN_PORT}")


def main() -> int:
    """Play until the user has seen enough."""
    try:
        asyncio.run(play())
    except RigUnavailableError as missing:
        say(str(missing))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("")
    return 0


if __name__ == "__main__":
    sys.exit(main())
