"""The facts about a demo's run that its report states."""

from pathlib import Path

import pytest

from testbed.demo import evidence
from testbed.demo.plan import DETECTOR_LEARNS_ROWS, LEAST_FAULT_EVERY_S, PERIOD_S, DemoPlan
from testbed.demo.processes import DETECTOR


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"speed": 160.0},
            "rows are 6.25 ms apart by time stamp: the rig plays 160 times as fast",
        ),
        (
            {"speed": 0.5},
            "rows are 2000 ms apart by time stamp: the rig plays 0.5 times as fast",
        ),
        ({"speed": 1.0}, ""),
        ({"speed": 20.0, "data": Path("rig.csv")}, ""),
        (
            {"speed": 20.0, "data": Path("rig.csv"), "times": "shifted"},
            "those of playing: the recording plays 20 times as fast",
        ),
    ],
)
def test_time_stamps_that_are_not_those_of_the_source_are_explained(changed, sentence):
    assert evidence.time_stamps(DemoPlan(folder=Path("demo"), **changed)) == sentence


def test_the_demos_detector_learns_from_as_many_rows_as_is_said():
    assert f"\nTRAINING_ROWS = {DETECTOR_LEARNS_ROWS}\n" in DETECTOR.read_text()
    assert DemoPlan(folder=Path("demo")).learns_rows == DETECTOR_LEARNS_ROWS
    assert DemoPlan(folder=Path("demo"), prototype=("my.py",)).learns_rows == 0
    assert evidence.OWN_DETECTOR.endswith("learns from the first 400 rows")


@pytest.mark.parametrize(("speed", "every_s"), [(None, 2_400), (160.0, 4_800), (1.0, 1_200)])
def test_the_rig_that_is_kept_has_a_fault_twice_a_minute_once_a_detector_has_learned(
    speed, every_s
):
    assert DemoPlan(folder=Path("demo"), speed=speed).fault_every_s == every_s
    assert DETECTOR_LEARNS_ROWS * PERIOD_S < 0.4 * LEAST_FAULT_EVERY_S
