"""The verdict: each of the four counters moves for what it is there for, and for nothing else."""

import numpy as np
import pytest

from broker.batch import BAD, GOOD, Gap, Series
from testbed.demo import verdict
from testbed.demo.verdict import Counters

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
