"""The facts about a demo's run that its report states."""

from pathlib import Path

import pytest

from testbed.demo import evidence
from testbed.demo.plan import DemoPlan


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
