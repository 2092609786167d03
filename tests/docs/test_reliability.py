"""The page on reliability shows what the fault suite measured, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from tests.faults import table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROWS = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
FAULTS = (
    "kill -9 gateway",
    "kill -9 .*broker",
    "kill -9 .*recorder",
    "kill -9 .*store",
    "kill -9 .*api",
    "broker wiped",
    "broker cut off",
    "source cut off",
    "store cut off",
    "broker stopped",
    "source killed",
    "source renumbered",
    "node gone",
    "late and out of order",
    "stream silent",
    "mqtt sensors",
    "everything killed at once",
    "recorder cut off",
    "source in a blackhole",
    "spool's disk full",
    "server's disk full",
    "store's disk full",
    "one partner sends",
    "a subscriber of",
)


def test_the_table_is_that_of_the_results() -> None:
    assert table.of(ROWS) in PAGE


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_was_measured(fault: str) -> None:
    assert any(re.match(fault, row["fault"]) for row in ROWS)


def test_every_counter_is_zero() -> None:
    assert [row["fault"] for row in ROWS if any(row[name] for name in table.COUNTERS)] == []


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []
