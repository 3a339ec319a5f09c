"""Apps of every generation of Spring Cloud Alibaba, built when first asked for: three in CI, five in `make soak`."""

import secrets

import pytest
from needs import lacking
from rig.build import RigUnavailableError
from rig.spring import GENERATIONS, build


IN_CI = ("2021.0", "2025.1")


def marked(generation: str) -> object:
    """Its parameter, with the marks that decide when it is run."""
    marks = [pytest.mark.java] if generation in IN_CI else [pytest.mark.java, pytest.mark.soak]
    return pytest.param(generation, marks=marks)


@pytest.fixture(params=map(marked, GENERATIONS))
def generation(request: pytest.FixtureRequest) -> str:
    """Each of them in turn. Maven's time is the fixture's, not the test's."""
    generation: str = request.param
    try:
        build(generation)
    except RigUnavailableError as missing:
        lacking(str(missing))
    return generation


@pytest.fixture
def address() -> str:
    """A loopback address of its own: all apps listen on the same ports."""
    return f"127.21.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


@pytest.fixture
def service() -> str:
    """A name no other test has used: Nacos remembers records of a name for a minute and longer."""
    return f"starter-{secrets.token_hex(4)}"
