"""The plan of a demo: its fault, and what cannot be played."""

from pathlib import Path

import pytest

from broker.errors import Invalid
from testbed.demo.plan import DETECTOR_LEARNS_ROWS, ROWS, DemoPlan


def test_another_seed_has_the_fault_at_another_time() -> None:
    plans = [DemoPlan(folder=Path(), seed=seed, fault_kind="bearing") for seed in range(7, 40)]
    assert plans[0].fault == "bearing@520..660"
    assert len({plan.fault for plan in plans}) > len(plans) // 2
    assert plans[1].fault == DemoPlan(folder=Path(), seed=8, fault_kind="bearing").fault
    for plan in plans:
        begin, end = map(int, plan.fault.partition("@")[2].split(".."))
        assert DETECTOR_LEARNS_ROWS < begin < end < ROWS


def test_a_fault_that_is_none_and_one_beside_a_recording_are_refused() -> None:
    with pytest.raises(Invalid, match="leak"):
        DemoPlan(folder=Path(), fault_kind="leak").prepared()
    with pytest.raises(Invalid, match=r"rig\.csv has rows and faults of its own"):
        DemoPlan(folder=Path(), data=Path("rig.csv"), seed=8).prepared()
