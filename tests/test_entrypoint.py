"""The command line of `run`, and what it does where hardly anything works. What an init does besides: tests/inits."""

import asyncio
import os
import sys
from pathlib import Path

import pytest


BROKEN = Path(__file__).parent / "programs" / "broken"
RUN = (sys.executable, "-m", "sidecar", "run")


async def run(*arguments: str, shell: str = "", **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    command = ("sh", "-c", shell, "sh", *RUN) if shell else RUN
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        env={**os.environ, "NACOS_DRAIN_LISTEN": "127.0.0.1:0", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "put the command behind --, as in: nacos-drain run -- java -jar app.jar"),
        (["java", "-jar", "app.jar"], "put the command behind --, as in: nacos-drain run -- java -jar app.jar"),
        (["java", "--", "app.jar"], "unrecognized arguments: java"),
        (["--"], "put the command behind --"),
        (["--rewrite", "TERM", "--", "true"], "'' is no signal that can be passed on: a name as TERM or RTMIN+3"),
        (["--rewrite", "KILL:TERM", "--", "true"], "'KILL' is no signal that can be passed on"),
        (["--rewrite", "TERM:99", "--", "true"], "'99' is no signal"),
        (["--rewrite", "RTMIN+x:TERM", "--", "true"], "'RTMIN+x' is no signal"),
        (["--stop-signal", "0", "--", "true"], "'0' is no signal"),
        (["--remap", "143", "--", "true"], "'143' is no pair of exit codes (0 to 255), as 143:0 is"),
        (["--remap", "143:256", "--", "true"], "'143:256' is no pair of exit codes"),
        (["--sing", "--", "true"], "unrecognized arguments: --sing"),
    ],
)
async def test_what_is_wrong_with_the_command_line_is_told(arguments: list[str], complaint: str) -> None:
    code, out, err = await run(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err


async def test_help_teaches_and_starts_nothing() -> None:
    code, out, err = await run("--help", "--", "sh", "-c", "echo started")
    assert (code, err) == (0, "")
    assert "Start a command and be its init" in out
    assert "started" not in out


@pytest.mark.parametrize("name", ["rtmin+3", "SIGRTMIN+3", "37"])
async def test_a_signal_has_many_names(name: str) -> None:
    assert await run("--rewrite", f"{name}:0", "--", "true") == (0, "", "")


async def test_an_installation_that_is_broken_costs_no_exit_code() -> None:
    """Not even where an orphan is to be told, which takes psutil."""
    code, _, _ = await run("--", "sh", "-c", "(sleep 30 &); exit 3", PYTHONPATH=str(BROKEN))
    assert code == 3


async def test_without_stderr_nothing_is_said_and_the_rest_is_done() -> None:
    assert await run("--", "sh", "-c", "echo up; exit 3", shell='exec "$@" 2>&-') == (3, "up\n", "")
