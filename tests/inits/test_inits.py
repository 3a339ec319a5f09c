"""Every line of docs/inits.md, with real inits."""

import asyncio

import pytest
from inits.rows import ROWS, Row
from inits.running import Case
from inits.subjects import missing
from inits.table import CHAPTERS
from needs import lacking
from stage import Stage


def cases() -> list[object]:
    """Each row for each init, in each place."""
    assert CHAPTERS
    return [
        pytest.param(row, case, id=row.key(case), marks=[getattr(pytest.mark, each) for each in row.marks])
        for row in ROWS
        for case in row.cases
    ]


@pytest.mark.long
@pytest.mark.timeout(120)  # the first waits for its turn among all
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("row", "case"), cases())
async def test_an_init_does_as_the_table_says(inits: Stage[str, str], row: Row, case: Case) -> None:
    if lacks := missing(case.name, case.place):
        lacking(lacks)
    assert await inits.result(row.key(case)) == row.outcomes[case.name]


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "row", [row for row in ROWS if not row.marks], ids=lambda row: f"{row.behaviour} / {row.places}"
)
async def test_it_does_so_each_time_on_a_busy_machine(row: Row) -> None:
    room = asyncio.Semaphore(8)

    async def play(case: Case) -> tuple[str, str]:
        async with room:
            return await row.play(case), row.outcomes[case.name]

    for lacks in filter(None, (missing(case.name, case.place) for case in row.cases)):
        lacking(lacks)
    for found, expected in await asyncio.gather(*(play(case) for case in row.cases * 5)):
        assert found == expected
