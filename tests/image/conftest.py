"""The images, and a network for their containers."""

from collections.abc import Iterator

import pytest
from needs import lacking
from rig.containers import Network, network
from rig.docker import DockerError, answers, inspect


SIDECAR = "nacos-drain:dev"
JAVA = "nacos-drain-java"


def found(name: str) -> str:
    if not answers():
        lacking("needs docker: no daemon answers (as root, `make test-image` starts one)")
    try:
        inspect(name)
    except DockerError:
        lacking(f"needs the image {name}: `make test-image` builds it")
    return name


@pytest.fixture(scope="session")
def image() -> str:
    """The image of this repository."""
    return found(SIDECAR)


@pytest.fixture(scope="session")
def java_image(image: str) -> str:
    """That of examples/java-image: no Python but ours."""
    return found(JAVA)


@pytest.fixture(scope="session")
def bridge(image: str) -> Iterator[Network]:
    """A network that these tests have for themselves."""
    with network() as made:
        yield made
