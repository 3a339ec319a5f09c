"""Replace replicas in each way and each cell, on each server, until there are enough repetitions that count.

    python -m bench.rollout [--nacos 2.2.4]... [--way starter]... [--cell push]... [-n 3] [--results FILE]

Rivals are played once, ours `-n` times. What the file has already is not played again. Exits 1 when one of ours missed
its bar, or a machine was too busy three times in turn.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

from rig import spring
from rig.build import RigUnavailableError, class_path

from bench.place import alone
from bench.running import end_on_sigterm
from bench.tables import RESULTS

from .cells import CELLS, STANDARD, Cell
from .outcome import Outcome, faults, outcome
from .results import Key, Results
from .roll import rolls
from .stage import GATEWAY_GENERATION, Stage, stage
from .ways import WAYS, Way


SERVERS = ("2.2.4", "3.1.0")
GENERATION = "2023.0.1"
TRIES = 3  # of a repetition, until the machine is called too busy


async def play(options: argparse.Namespace) -> list[str]:
    """Play what is missing; returns what is wrong with it."""
    end_on_sigterm()
    results, wrong = Results(options.results), []
    for version in options.nacos:
        missing = [
            (way, cell)
            for cell in map(CELLS.__getitem__, options.cell)
            for way in map(WAYS.__getitem__, options.way)
            if _missing(results, _key(version, options, way, cell), way, options.repetitions)
        ]
        if missing:
            gateways = dict.fromkeys(each for _, cell in missing for each in cell.consumers)
            async with stage(version, options.generation, gateways) as on:
                for way, cell in missing:
                    wrong += await _play(on, way, cell, results, options)
        # all that count, whenever they were played: what was wrong once is not mended by asking again
        keys = [Key(version, options.generation, way, cell) for cell in options.cell for way in options.way]
        wrong += [f"{_name(key)}: {fault}" for key in keys for told in results.valid(key) for fault in faults(told)]
    return wrong


async def _play(on: Stage, way: Way, cell: Cell, results: Results, options: argparse.Namespace) -> list[str]:
    key = _key(on.nacos.version, options, way, cell)
    spoilt, wrong = 0, list[str]()
    async with aclosing(rolls(on, way, cell)) as playing:
        async for roll in playing:
            told = results.add(key, outcome(roll))
            _say(key, told)
            spoilt = spoilt + 1 if told["invalid"] else 0
            if spoilt == TRIES:
                wrong.append(f"{_name(key)}: {told['invalid']}, {TRIES} times in turn")
            if spoilt == TRIES or not _missing(results, key, way, options.repetitions):
                break
    return wrong


def _missing(results: Results, key: Key, way: Way, repetitions: int) -> bool:
    wanted = repetitions if way.ours and key.cell != "defaults" else 1
    return len(results.valid(key)) < wanted


def _key(version: str, options: argparse.Namespace, way: Way, cell: Cell) -> Key:
    return Key(version, options.generation, way.name, cell.name)


def _name(key: Key) -> str:
    return f"Nacos {key.nacos}, SCA {key.generation}, {key.way}, {key.cell}"


def _say(key: Key, told: Outcome) -> None:
    look_back = told["look_back"]
    watched = "" if look_back is None else f", SETTLE_LOOK_BACK={look_back:g}s"
    sys.stdout.write(
        f"{_name(key)} ({told['warm_up']:g} s warm-up{watched}): {told['failed']} of {told['requests']} failed, "
        f"hook {_seconds(told['hook'])}, exit {_seconds(told['exit'])}, clean {_seconds(told['clean'])}"
        f"{', INVALID: ' + told['invalid'] if told['invalid'] else ''}\n"
    )
    sys.stdout.flush()


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _apart(options: argparse.Namespace) -> int:
    """Play in a network of its own, where nobody else's connections are; what has to be fetched is fetched before."""
    try:
        for version in options.nacos:
            class_path(version)
        for generation in {options.generation, GATEWAY_GENERATION}:
            spring.build(generation)
    except RigUnavailableError as missing:
        sys.stdout.write(f"{missing}\n")
        return 1
    program = (*alone(), sys.executable, "-m", "bench.rollout", *sys.argv[1:], "--here")
    return subprocess.run(program, check=False).returncode  # noqa: S603  ourselves


def main() -> int:
    """Read the options and play."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollout")
    parser.add_argument("--nacos", action="append", choices=SERVERS)
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--cell", action="append", choices=CELLS)
    parser.add_argument("--generation", default=GENERATION)
    parser.add_argument("-n", "--repetitions", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS / "rollout.jsonl")
    parser.add_argument("--here", action="store_true", help="in this network, not in one of its own")
    options = parser.parse_args()
    options.nacos, options.way, options.cell = (
        options.nacos or SERVERS,
        options.way or list(WAYS),
        options.cell or STANDARD,
    )
    if not options.here:
        return _apart(options)
    try:
        wrong = asyncio.run(play(options))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    sys.stdout.write(f"every repetition is a line of {options.results}\n")
    for each in wrong:
        sys.stdout.write(f"WRONG: {each}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
