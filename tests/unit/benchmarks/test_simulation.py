"""The table of the results of scenarios in virtual time."""

import pytest

from benchmarks import simulation

RESULTS = {
    "cold_start_s": 2.5,
    "virtual_hour_s": 20.01,
    "virtual_hour_quantum10_s": 8.0,
    "side_by_side_ratio": 1.1,
    "hashes_equal": True,
    "runs": {"hashed": 100},
}


def test_the_table_holds_each_figure_against_its_goal():
    lines = simulation.table(RESULTS).splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines] == [
        *("yes |", "**no** |", "yes |", "yes |", "yes |")
    ]
    assert "100 runs" in lines[-1]


@pytest.mark.parametrize("equal", [True, False])
def test_unequal_hashes_miss_the_goal(equal):
    text = simulation.table(RESULTS | {"hashes_equal": equal})
    assert text.count("**no**") == (1 if equal else 2)
