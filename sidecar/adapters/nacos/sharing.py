"""The same question, asked of the same node by several instances at the same moment, is one request.

A pod may hold hundreds of instances of one service, and each of them wants to see the list without itself. Who asks a
moment after it was sent wants a later answer.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar


TOGETHER = 0.05  # seconds since the request began

T = TypeVar("T")


@dataclass
class _Asked:
    began: float = float("inf")
    waiting: int = 0
    task: asyncio.Task[Any] = field(init=False)


class Sharing:
    """The questions under way."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, _Asked] = {}

    async def __call__(self, question: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask, or wait for the answer to a question just asked. It is cancelled with the last who waits for it."""
        loop = asyncio.get_running_loop()
        asked = self._asked.get(question)
        if asked is None or asked.task.done() or loop.time() - asked.began >= TOGETHER:
            asked = self._asked[question] = _Asked()
            asked.task = loop.create_task(_begun(asked, ask))
        asked.waiting += 1
        try:
            answer: T = await asyncio.shield(asked.task)
        finally:
            asked.waiting -= 1
            if not asked.waiting:
                asked.task.cancel()  # of one that is done: nothing
                if self._asked.get(question) is asked:
                    del self._asked[question]
        return answer


async def _begun(asked: _Asked, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    asked.began = asyncio.get_running_loop().time()
    return await ask()
