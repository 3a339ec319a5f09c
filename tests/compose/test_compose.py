"""examples/compose, really played: replicas released as its page tells, under load, with each generation of compose."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from needs import lacking
from rig.compose import FORMS, IMAGES, REPLICAS, SIGTERM_CODE, Project, commands, playing
from rig.docker import DockerError, answers, docker, inspect


pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

GRACE_PERIOD = 60.0
# A short cache, as a drain waits for it. The whole 35 s are for soak.
QUICK = {"CACHE_TTL": "5s", "LOOK_BACK": "6s", "SAY_EVERY": "0.5"}
HONEST = {"CACHE_TTL": "35s", "LOOK_BACK": "20s", "SAY_EVERY": "0.5"}


@contextmanager
def played(form: str, generation: str, settings: dict[str, str]) -> Iterator[Project]:
    if not answers():
        lacking("needs docker: no daemon answers (as root, `make test-image` starts one)")
    for image in IMAGES:
        try:
            inspect(image)
        except DockerError:
            lacking(f"needs the image {image}: `make compose-images` builds it")
    if generation not in commands():
        lacking(f"needs compose {generation}.x: Debian's docker-compose, or `make .rig/bin/docker-compose-2`")
    with playing(form, commands()[generation], **settings) as project:
        yield project


def assert_nothing_failed(project: Project, replicas: tuple[int, ...]) -> None:
    settled = []
    for replica in replicas:
        roll = project.roll(replica)
        settled += [(each["outcome"], each["detail"]) for each in roll.report["phases"] if each["phase"] == "SETTLE"]
        assert roll.failed == 0, f"{roll.line}\n{project.why()}"
        assert roll.requests > 100
        assert roll.exit_code == SIGTERM_CODE
        assert (roll.report["trigger"], roll.report["outcome"]) == ("sigterm", "drained"), roll.report
        assert roll.report["proved_gone"]
        assert roll.stopped_in < GRACE_PERIOD - 10
    assert "met" in dict(settled), settled  # its callers were seen to stop, and not waited for blindly


@pytest.mark.parametrize("form", FORMS)
def test_three_releases_fail_no_request(form: str) -> None:
    with played(form, "1", QUICK) as project:
        assert_nothing_failed(project, REPLICAS)


def test_with_compose_2_it_is_the_same_and_without_nacos_drain_requests_fail() -> None:
    """Its last stop is the canary of all of them."""
    with played("sidecar", "2", QUICK) as project:
        assert_nothing_failed(project, (1,))
        requests, failed = project.counted()
        docker("kill", "--signal", "TERM", project.container("shop-2"))
        docker("wait", project.container("shop-2"))
        later, lost = project.counted()
        assert later > requests
        assert lost > failed


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("generation", ["1", "2"])
@pytest.mark.parametrize("form", FORMS)
def test_with_the_default_cache_of_35_s_too(form: str, generation: str) -> None:
    with played(form, generation, HONEST) as project:
        assert_nothing_failed(project, REPLICAS)
