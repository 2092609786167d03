"""The result of a demo: what it says in sentences, and the exit code."""

import dataclasses
from pathlib import Path

import pytest

from testbed.demo.result import DemoResult
from testbed.demo.verdict import Counters, Detection
from testbed.terminal.run import Exit

GOOD = DemoResult(
    samples_offered=6_400,
    samples_stored=6_400,
    counters=Counters(0, 0, 0, 0),
    latency_ms={"p50": 3.14, "p99": 7.4},
    detection=Detection(hits=135, missed=5, false=3, quiet=657),
    has_labels=True,
    rows_played=800,
    rows_answered=800,
    published=1_600,
    report=Path("report.html"),
)
LOST = {"samples_stored": 6_399, "counters": Counters(1, 0, 0, 1)}


def result(**changed):
    return dataclasses.replace(GOOD, **changed)


def test_whether_anything_was_lost_is_answered_first():
    assert GOOD.loss.startswith("No. All 6,400 samples that the machine offered are stored")
    assert result(samples_stored=6_392).loss.startswith("Not without a word. Of 6,400 samples")
    lost = result(**LOST).loss
    assert lost.startswith("Yes")
    assert "1 lost, 0 duplicated, 0 wrong, 1 silent" in lost


def test_how_good_the_prototype_was_is_said_in_numbers_of_rows():
    assert GOOD.quality == (
        "F1 0.971. Of 140 rows with a fault it flagged 135 and missed 5; of its 138 alarms 3 were"
        " false."
    )
    alone = result(detection=Detection(hits=1, false=1, quiet=1)).quality
    assert alone.endswith("of its 2 alarms 1 was false.")
    meaning = " ".join(GOOD.meaning)
    assert "1 is perfect, 0 has found nothing" in meaning
    assert "always on has 0.30" in meaning
    assert "of 100 rows with a fault it overlooked 3.6" in meaning
    assert "of 100 rows without a fault it flagged 0.5" in meaning


def test_a_prototype_that_published_nothing_is_not_scored():
    silent = result(published=0, rows_answered=0, detection=Detection(missed=140, quiet=660))
    assert silent.quality == "Not scored: it published nothing."
    assert silent.meaning == ()
    assert silent.as_json()["f1"] == 0.0


def test_rows_without_an_answer_are_counted():
    assert GOOD.coverage == ""
    assert result(rows_answered=0).coverage == ""
    few = "27 of 800 rows have an answer; the other 773 count as no alarm."
    assert result(rows_answered=27).coverage == few
    assert result(rows_answered=799).coverage.endswith("the other 1 counts as no alarm.")


def test_data_without_faults_have_no_f1_and_say_so():
    quiet = result(detection=Detection(false=2, quiet=5))
    assert "no row of the data has a fault, and it raised 2 false alarms" in quiet.quality
    assert quiet.meaning == ()
    assert result(detection=Detection(), has_labels=False).quality.startswith("Unknown")


@pytest.mark.parametrize(
    ("changed", "min_f1", "visitors", "code"),
    [
        ({}, None, False, Exit.DONE),
        ({}, 0.9, True, Exit.DONE),
        ({}, 0.99, True, Exit.NEGATIVE),
        ({"detection": Detection()}, 0.5, True, Exit.NEGATIVE),
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
