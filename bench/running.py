"""Programs that the bench runs, and waiting for them."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
DRAIN_PORT = 19081
# As in an image: without the extra [tui]. structlog imports rich where it is installed, which costs 4 MiB.
SERVE = (sys.executable, "-c", "import sys; sys.modules['rich'] = None; from sidecar.cli import main; main(['serve'])")


@asynccontextmanager
async def process(
    *argv: str, env: dict[str, str] | None = None, stdout: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child that is gone afterwards."""
    environment = {**os.environ, **(env or {})}
    child = await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        stdout=stdout,
        cwd=ROOT,
        start_new_session=True,  # Ctrl-C is for us, who then end what we have started
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def end_on_sigterm() -> None:
    """Have SIGTERM cancel the task that calls this, as Ctrl-C does: what it has started would outlive it else."""
    ours = asyncio.current_task()
    assert ours is not None  # noqa: S101  this is one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)


async def until(condition: Callable[[], Awaitable[bool]], within: float = 20.0, *, period: float = 0.001) -> float:
    """Poll until something holds; returns the moment."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110  what is polled is outside this process
            await asyncio.sleep(period)
    return time.monotonic()


def settings(nacos: str, ip: str, port: int, *, service: str = "shop", **more: str) -> dict[str, str]:
    """The environment of a sidecar that listens on the app's address. `more` are settings too."""
    prefix = "NACOS_DRAIN_"
    own = {
        "NACOS_SERVER_ADDR": nacos,
        "NACOS_SERVICE": service,
        "NACOS_IP": ip,
        "NACOS_PORT": str(port),
        "LISTEN": f"{ip}:{DRAIN_PORT}",
        "GRACE_PERIOD": "60",
        **more,
    }
    return {**{prefix + name: value for name, value in own.items()}, "KUBERNETES_SERVICE_HOST": "bench"}
