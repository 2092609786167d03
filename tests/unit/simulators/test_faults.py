"""Faults: when they are there, how much, and how they are written."""

import pytest

from broker.errors import Invalid
from simulators import faults
from simulators.faults import Fault

VALVE = "valve"
KINDS = ("valve", "cavitation", "bearing")


def test_a_fault_comes_and_goes_over_its_ramp_and_inside_its_span():
    fault = Fault(VALVE, 10, 20, severity=0.5, ramp_s=2)
    levels = [fault.level(at) for at in (9, 10, 11, 12, 15, 18, 19, 20, 21)]
    assert levels == [0, 0, 0.25, 0.5, 0.5, 0.5, 0.25, 0, 0]


def test_a_fault_without_a_ramp_is_there_at_once():
    fault = Fault(VALVE, 10, 20, ramp_s=0)
    assert [fault.level(at) for at in (10, 10.001, 19.999, 20)] == [0, 1, 1, 0]


def test_of_overlapping_faults_of_a_kind_the_worst_counts():
    both = (Fault(VALVE, 0, 100, 0.3), Fault(VALVE, 40, 60, 0.8), Fault("bearing", 0, 100))
    assert faults.level(both, VALVE, 20) == 0.3
    assert faults.level(both, VALVE, 50) == 0.8
    assert faults.level(both, "cavitation", 50) == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("valve@60..90", Fault(VALVE, 60, 90)),
        ("bearing@0..0.5", Fault("bearing", 0, 0.5)),
        ("cavitation@1.5..2x0.25", Fault("cavitation", 1.5, 2, 0.25)),
    ],
)
def test_a_fault_is_written_in_one_word(text, fault):
    assert Fault.parse(text, KINDS) == fault


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no fault"),
        ("valve", "write valve|cavitation|bearing@start..end"),
        ("leak@1..2", "'leak@1..2' is no fault"),
        ("valve@1-2", "such as valve@60..90"),
        ("valve@-1..2", "is no fault"),
        ("valve@1..2x1.2.3", "is no fault"),
        ("valve@1..2x", "is no fault"),
        ("valve@\u0661..\u0662", "is no fault"),
        ("valve@90..60", "fault valve from 90 to 60 s"),
        ("valve@1..1", "0 <= start < end"),
        ("valve@1.." + "9" * 400, "0 <= start < end"),
        ("valve@1..2x0", "severity 0 of fault valve"),
        ("valve@1..2x1.1", "above 0, at most 1"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_would_be_right(text, said):
    with pytest.raises(Invalid) as refused:
        Fault.parse(text, KINDS)
    assert said in str(refused.value)


@pytest.mark.parametrize("ramp_s", [-1, float("nan"), float("inf")])
def test_a_ramp_is_a_span(ramp_s):
    with pytest.raises(Invalid, match="ramp of fault valve"):
        Fault(VALVE, 1, 2, ramp_s=ramp_s)
