"""The page of figures says what the files of results hold."""

from pathlib import Path

import orjson
import pytest

from benchmarks import library_table, table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("data-path*.json")), ids=lambda each: each.stem
)
def test_the_table_is_that_of_the_results(path: Path):
    results = orjson.loads(path.read_bytes())
    assert table.of(results).strip() in (ROOT / "docs" / "performance.md").read_text()


def test_the_comparison_of_libraries_is_that_of_the_results():
    results = orjson.loads((RESULTS / "libraries.json").read_bytes())
    assert library_table.of(results).strip() in (ROOT / "docs" / "libraries.md").read_text()
