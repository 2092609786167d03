"""The page of figures says what the results file holds."""

from pathlib import Path

import orjson

from benchmarks import table

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_results():
    results = orjson.loads((ROOT / "benchmarks" / "results" / "data-path.json").read_bytes())
    assert table.of(results) in (ROOT / "docs" / "performance.md").read_text()
