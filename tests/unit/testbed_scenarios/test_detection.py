"""Scores of alarms: by label, by point and by event."""

import numpy as np
import pytest

from broker.batch import BAD, GOOD, UNCERTAIN, Series
from testbed_scenarios import detection
from testbed_scenarios.detection import Detection
from testbed_scenarios.held_signal import HeldSignal, TimeSpan


def test_a_row_without_a_label_counts_as_no_alarm():
    truth = {1: True, 2: True, 3: False, 4: False, 9: True}
    detected = {1: True, 2: False, 3: True, 4: False, 7: True}
    assert detection.by_label(truth, detected) == Detection(hits=1, missed=2, false=1, quiet=1)
    assert detection.by_label(truth, {}) == Detection(missed=3, quiet=2)


def test_rates_are_shares_of_the_rows_that_they_are_about():
    rated = Detection(hits=1, missed=2, false=1, quiet=1)
    assert (rated.f1, rated.far, rated.mar) == (pytest.approx(0.4), 0.5, pytest.approx(2 / 3))
    always = Detection(hits=rated.faulty, false=2)
    assert rated.always_f1 == always.f1
    assert Detection(missed=3, quiet=2).f1 == 0.0


def test_without_a_fault_there_is_no_f1():
    rated = Detection(false=1, quiet=3)
    assert (rated.f1, rated.mar, rated.always_f1, rated.far) == (None, None, None, 0.25)
    assert Detection().far is None


def test_flagged_rows_are_counted_by_kind_of_fault():
    kinds = {1: ("valve",), 2: ("valve", "bearing"), 3: ("bearing",)}
    flagged = detection.flagged_by_kind(kinds, {1: True, 2: True, 3: False, 4: True})
    assert flagged == {"bearing": (1, 2), "valve": (2, 2)}
    assert detection.flagged_by_kind({}, {1: True}) == {}


def test_precision_and_recall_are_of_flagged_and_of_faulty_rows():
    rated = Detection(hits=3, missed=1, false=2, quiet=4)
    assert (rated.precision, rated.recall) == (0.6, 0.75)
    assert Detection(missed=1).precision is None
    assert Detection(false=1).recall is None


def test_a_fault_is_detected_by_any_overlap_and_counts_once():
    faults = [TimeSpan(10, 20), TimeSpan(15, 30), TimeSpan(50, 60), TimeSpan(80, 90)]
    alarms = [TimeSpan(5, 12), TimeSpan(25, 26), TimeSpan(40, 45), TimeSpan(58, 70)]
    rated = detection.by_event(faults, alarms, TimeSpan(0, 100))
    assert rated.found_after_ns == {TimeSpan(10, 30): 0, TimeSpan(50, 60): 8}
    assert rated.missed == (TimeSpan(80, 90),)
    assert rated.false == (TimeSpan(40, 45),)
    assert rated.healthy_ns == 100 - 20 - 10 - 10
    assert rated.precision == rated.recall == rated.f1 == pytest.approx(2 / 3)
    assert rated.mar == pytest.approx(1 / 3)
    assert rated.false_alarms_per_s == pytest.approx(1e9 / 60)


def test_an_alarm_that_touches_a_fault_is_false():
    rated = detection.by_event([TimeSpan(10, 20)], [TimeSpan(20, 25)], TimeSpan(0, 100))
    assert (rated.detected, rated.false_alarms) == (0, 1)


def test_faults_and_alarms_are_cut_at_the_ends_of_the_span():
    faults = [TimeSpan(0, 10), TimeSpan(95, 200)]
    rated = detection.by_event(faults, [TimeSpan(0, 12), TimeSpan(97, 300)], TimeSpan(10, 100))
    assert rated.found_after_ns == {TimeSpan(95, 100): 2}
    assert rated.false == (TimeSpan(10, 12),)


def test_without_faults_or_alarms_scores_are_none():
    quiet = detection.by_event([], [], TimeSpan(0, 10))
    assert (quiet.precision, quiet.recall, quiet.f1, quiet.mar) == (None, None, None, None)
    assert quiet.false_alarms_per_s == 0
    always = detection.by_event([TimeSpan(0, 10)], [], TimeSpan(0, 10))
    assert (always.f1, always.false_alarms_per_s) == (0, None)


def test_alarms_are_the_times_over_which_a_signal_is_true():
    flags = HeldSignal.of(
        Series(
            np.array([0, 10, 20, 30, 40, 40]),
            np.array([False, True, True, True, True, False]),
            np.array([GOOD, GOOD, GOOD, BAD, GOOD, UNCERTAIN], np.uint8),
        )
    ).within(TimeSpan(0, 50))
    assert detection.alarms_of(flags) == [TimeSpan(10, 30), TimeSpan(40, 50)]
    flagged = detection.flags_at(flags, np.array([-1, 0, 10, 29, 30, 40, 49, 50]))
    assert flagged.tolist() == [False, False, True, True, False, True, True, False]


def test_a_number_but_0_is_an_alarm():
    counts = HeldSignal.of(
        Series(np.array([0, 10, 20]), np.array([0, 3, 0]), np.zeros(3, np.uint8))
    )
    assert detection.alarms_of(counts.within(TimeSpan(0, 30))) == [TimeSpan(10, 20)]
