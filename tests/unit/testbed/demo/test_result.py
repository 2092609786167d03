"""The result of a demo: what it says in sentences, and the exit code."""

import dataclasses
from pathlib import Path

import pytest

from testbed.demo.rating import Rating
from testbed.demo.result import DemoResult
from testbed.demo.verdict import Counters
from testbed.terminal.run import Exit
from testbed_scenarios.detection import Detection

GOOD = DemoResult(
    samples_offered=6_400,
    samples_stored=6_400,
    counters=Counters(0, 0, 0, 0),
    latency_ms={"p50": 3.14, "p99": 7.4},
    rating=Rating(
        detection=Detection(hits=135, missed=5, false=3, quiet=657),
        has_labels=True,
        rows_played=800,
        rows_answered=800,
        published=1_600,
    ),
    report=Path("report.html"),
)
LOST = {"samples_stored": 6_399, "counters": Counters(1, 0, 0, 1)}
UNRATED = {"rating": dataclasses.replace(GOOD.rating, detection=Detection())}


def result(**changed):
    return dataclasses.replace(GOOD, **changed)


def test_whether_anything_was_lost_is_answered_first():
    assert GOOD.loss.startswith("No. All 6,400 samples that the machine offered are stored")
    assert result(samples_stored=6_392).loss.startswith("Not without a word. Of 6,400 samples")
    lost = result(**LOST).loss
    assert lost.startswith("Yes")
    assert "1 lost, 0 duplicated, 0 wrong, 1 silent" in lost


@pytest.mark.parametrize(
    ("changed", "min_f1", "visitors", "code"),
    [
        ({}, None, False, Exit.DONE),
        ({}, 0.9, True, Exit.DONE),
        ({}, 0.99, True, Exit.NEGATIVE),
        (UNRATED, 0.5, True, Exit.NEGATIVE),
        ({"problems": ("It ended",)}, None, True, Exit.NEGATIVE),
        ({"problems": ("It ended",)}, 0.9, True, Exit.DONE),
        ({"problems": ("It ended",)}, None, False, Exit.FAULT),
        (LOST, None, False, Exit.NEGATIVE),
        (LOST, 0.1, True, Exit.FAULT),
    ],
)
def test_the_exit_code_says_whose_fault_it_is(changed, min_f1, visitors, code):
    assert result(**changed).exit_code(min_f1=min_f1, is_visitors=visitors) is code


def test_the_table_has_every_number():
    rows = GOOD.rows()
    assert rows["latency p50 / p99"] == "3.1 ms / 7.4 ms"
    assert (rows["F1"], rows["lost"]) == ("0.971", "0")
    assert result(latency_ms={"p50": None, "p99": None}).latency == "- / -"


@pytest.mark.parametrize("published", [0, 12])
def test_the_table_has_no_rates_where_no_row_was_labelled(published):
    silent = Detection(missed=140, quiet=660)
    changed = {"detection": silent, "published": published, "rows_answered": 0}
    unscored = result(rating=dataclasses.replace(GOOD.rating, **changed))
    assert unscored.rating.quality.startswith("Not scored: ")
    rates = ("F1", "false-alarm rate", "missed-alarm rate")
    assert {unscored.rows()[name] for name in rates} == {"not scored"}
