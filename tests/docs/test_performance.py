"""The page of figures says what the files of results hold."""

from pathlib import Path

import orjson
import pytest

from benchmarks import table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("data-path*.json")), ids=lambda one: one.stem)
def test_the_table_is_that_of_the_results(path: Path):
    results = orjson.loads(path.read_bytes())
    assert table.of(results).strip() in (ROOT / "docs" / "performance.md").read_text()
