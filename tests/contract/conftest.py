"""The backends as one fixture: `-m "not real"` leaves the double, `-m real` the real servers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from contract.backends import BACKENDS, Backend, double_backend, real_backend


FIXTURES = {"real-2.2.4": "nacos2", "real-3.1.0": "nacos3"}


@pytest.fixture(params=BACKENDS)
async def nacos(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each backend in turn."""
    async with AsyncExitStack() as stack:
        if request.param in FIXTURES:
            server = request.getfixturevalue(FIXTURES[request.param])
            backend = real_backend(request.param, server, stack)
        else:
            backend = await double_backend(request.param, stack)
        await stack.enter_async_context(backend.observer)
        await stack.enter_async_context(backend.operator)
        yield backend
