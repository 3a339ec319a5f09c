"""The stage on which the plays of this folder run, and what they stand on."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from image.conftest import found
from manifests.ground import ground
from manifests.place import JAVA, SIDECAR
from manifests.plays import AT_ONCE, FORMS, Played, play
from rig.servers import NacosServer
from stage import Stage


@pytest.fixture(scope="session")
def images() -> None:
    """Both of them."""
    found(SIDECAR)
    found(JAVA)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(
    request: pytest.FixtureRequest, images: None, nacos2: NacosServer
) -> AsyncIterator[Stage[tuple[str, int], Played]]:
    """Start every selected play."""
    parameters = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    chosen = [(each["form"], each["run"]) for each in parameters if each.get("form") in FORMS]
    async with ground(nacos2) as made:
        playing = Stage({key: partial(play, FORMS[key[0]], made) for key in chosen}, AT_ONCE)
        yield playing
        await playing.close()
