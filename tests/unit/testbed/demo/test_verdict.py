"""The verdict: each of the four counters moves for what it is there for, and for nothing else."""

import numpy as np
import pytest

from broker.batch import BAD, GOOD, Gap, Series
from testbed.demo import verdict
from testbed.demo.verdict import Counters, Detection

OFFERED = {("p", 10): 1.0, ("p", 20): 2.0, ("q", 10): 3.0}


def series(*rows):
    times, values, quality = zip(*rows, strict=True)
    return Series(np.array(times, np.int64), np.array(values), np.array(quality, np.uint8))


WHOLE = {"p": series((10, 1.0, GOOD), (20, 2.0, GOOD)), "q": series((10, 3.0, GOOD))}


def judged(stored, *, spooled=OFFERED, dead=(), gaps=()):
    return verdict.counters(OFFERED, stored, spooled, dead=dead, gaps=gaps)


def test_what_is_stored_as_offered_leaves_all_at_zero():
    assert judged(WHOLE) == Counters(0, 0, 0, 0)
    assert judged(WHOLE).clean


@pytest.mark.parametrize(
    ("p", "counted"),
    [
        (series((10, 1.0, GOOD)), Counters(lost=1, duplicated=0, wrong=0, silent=1)),
        (
            series((10, 1.0, GOOD), (20, 2.0, GOOD), (20, 2.0, GOOD)),
            Counters(lost=0, duplicated=1, wrong=0, silent=0),
        ),
        (series((10, 1.5, GOOD), (20, 2.0, GOOD)), Counters(0, 0, 1, 0)),
        (series((10, 1.0, BAD), (20, 2.0, GOOD)), Counters(0, 0, 1, 0)),
        (series((10, 1.0, GOOD), (20, 2.0, GOOD), (30, 2.0, GOOD)), Counters(0, 0, 1, 0)),
    ],
    ids=["missing", "twice", "another value", "another quality", "never offered"],
)
def test_each_counter_moves_for_its_own_fault(p, counted):
    assert judged(WHOLE | {"p": p}) == counted
    assert not counted.clean


def test_a_dead_letter_or_a_gap_accounts_for_what_is_missing():
    short = WHOLE | {"p": series((10, 1.0, GOOD))}
    never_spooled = [("p", 10), ("q", 10)]
    assert judged(short, dead=[("p", 20)]).clean
    assert judged(short, spooled=never_spooled, gaps=[Gap(("p",), 15, 25, "x")]).clean
    assert judged(short, spooled=never_spooled, gaps=[Gap((), 15, 25, "x")]).clean
    assert judged(short, spooled=never_spooled, gaps=[Gap(("q",), 15, 25, "x")]).silent == 1


def test_what_was_spooled_is_lost_even_if_a_gap_covers_it():
    short = WHOLE | {"p": series((10, 1.0, GOOD))}
    assert judged(short, gaps=[Gap(("p",), 15, 25, "x")]) == Counters(1, 0, 0, 0)


def test_a_gap_over_what_is_stored_is_wrong():
    assert judged(WHOLE, gaps=[Gap(("q",), 5, 15, "x")]) == Counters(0, 0, 1, 0)


def test_a_row_without_a_label_counts_as_no_alarm():
    truth = {1: True, 2: True, 3: False, 4: False, 9: True}
    detected = {1: True, 2: False, 3: True, 4: False, 7: True}
    assert verdict.detection(truth, detected) == Detection(hits=1, missed=2, false=1, quiet=1)
    assert verdict.detection(truth, {}) == Detection(missed=3, quiet=2)


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
    flagged = verdict.flagged_by_kind(kinds, {1: True, 2: True, 3: False, 4: True})
    assert flagged == {"bearing": (1, 2), "valve": (2, 2)}
    assert verdict.flagged_by_kind({}, {1: True}) == {}
