"""docs/inits.md is what the tests beside this one play."""

from inits.rows import ROWS
from inits.table import PAGE, render


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(ROWS), "run `PYTHONPATH=tests .venv/bin/python -m inits.table`"


def test_no_two_lines_are_about_the_same() -> None:
    keys = [row.key(case) for row in ROWS for case in row.cases]
    assert len(set(keys)) == len(keys)


def test_whatever_differs_from_ours_has_a_reason() -> None:
    for row in ROWS:
        assert (len(set(row.outcomes.values())) > 1) == bool(row.why), row.behaviour
