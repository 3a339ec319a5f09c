"""A question with an end: an answer, or what came instead."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar, TypeVarTuple

from sidecar.ports import NotThere, Rejected, Unavailable

from .findings import Trouble


T = TypeVar("T")
K = TypeVar("K")
As = TypeVarTuple("As")


async def within(seconds: float, ask: Callable[[*As], Awaitable[T]], *about: *As) -> T | Trouble:
    """An answer, or what came instead; whatever breaks is no reason to break a rehearsal."""
    try:
        async with asyncio.timeout(seconds):
            return await ask(*about)
    except TimeoutError:
        return Trouble(f"no answer within {seconds:g} s")
    except NotThere:
        return Trouble("not there")
    except Rejected as error:
        return Trouble(str(error), rejected=True)
    except Unavailable as error:
        return Trouble(str(error))
    except Exception as error:  # noqa: BLE001  a bug in one check must not hide the others; its text may hold a secret
        return Trouble(f"internal error: {type(error).__name__}")


async def of_each(keys: Iterable[K], ask: Callable[[K], Awaitable[T]]) -> dict[K, T]:
    """Ask about all of them at once."""
    wanted = tuple(keys)
    return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))


async def of_any(nodes: Iterable[str], ask: Callable[[str], Awaitable[T | Trouble]]) -> T | Trouble:
    """Ask one node after the other until one has a verdict."""
    told: T | Trouble = Trouble("no Nacos server answers")
    for node in nodes:
        told = await ask(node)
        if not isinstance(told, Trouble) or told.rejected:
            break
    return told


def plain(version: str) -> str:
    """Somebody else's text, in front of people: a version, or nothing of it."""
    return version if re.fullmatch(r"\d[\w.+-]{0,40}", version) else "(of a version that is none)"
