"""The page on security claims only what a test shows, or says that it is not there yet."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probes import table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NOT_YET = "not there yet"
SHOWN = ("Threats", "IEC 62443-3-3", "OWASP API Security Top 10, 2023", "OPC UA, Part 2")
NOT_OURS = {"server profiling"}


def rows(title: str) -> Iterator[list[str]]:
    """The cells of the table under a heading, but for its head."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    yield from ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])


def test_what_was_measured_is_what_the_results_say() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "access.json").read_text())
    assert table.of(results) in PAGE
    assert results["allowed"] == 0


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 50
    assert [name for name in sorted(named) if f"def {name}(" not in sources] == []


@pytest.mark.parametrize("title", SHOWN)
def test_every_row_is_shown_by_a_test_or_not_there_yet(title: str) -> None:
    entries = list(rows(title))
    assert len(entries) > 5
    without = [row[:2] for row in entries if not re.search(rf"`test_\w+`|{NOT_YET}", row[-1])]
    assert [row for row in without if row[0] not in NOT_OURS] == []


def test_every_risk_of_owasp_has_its_row() -> None:
    entries = [row[0].split()[0] for row in rows("OWASP API Security Top 10, 2023")]
    assert entries == [f"API{number}" for number in range(1, 11)]


def test_every_requirement_of_iec_62443_is_met_not_there_yet_or_the_sites() -> None:
    requirements = {1: 13, 2: 12, 3: 9, 4: 3, 5: 4, 6: 2, 7: 8}
    known = {f"{each}.{two}" for each, most in requirements.items() for two in range(1, most + 1)}
    named: list[str] = []
    for row in rows("IEC 62443-3-3"):
        for part in row[0].split(", "):
            first, _, last = part.partition(" to ")
            begin, end = (int(each.split(".")[1]) for each in (first, last or first))
            named += [f"{first.split('.')[0]}.{number}" for number in range(begin, end + 1)]
    left = re.search(r"Not listed are (.*?)\. ", PAGE.replace("\n", " "))
    assert left is not None
    named += re.findall(r"\d\.\d+", left[1])
    assert sorted(named) == sorted(known)
