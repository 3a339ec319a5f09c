"""docs/faults.md says what was found, and every fault that is played has its line."""

from real.rows import FAULTS
from real.table import PAGE, kept, render


def test_the_page_is_what_was_found() -> None:
    assert PAGE.read_text() == render(kept()), "run `make faults`"


def test_every_fault_has_a_line_for_every_kind_and_server() -> None:
    played = {f"{each.name} | {kind} | {server}" for each in FAULTS for kind in each.kinds for server in each.servers}
    assert not played - {row.key for row in kept()}, "run `make test-real soak faults`"


def test_no_line_says_gone_without_a_proof() -> None:
    for row in kept():
        assert (row.outcome == "drained") <= (row.proved is not None), row
