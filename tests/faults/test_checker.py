"""The checker finds what it is there to find."""

from dataclasses import replace

import numpy as np
import pytest

from broker.batch import BAD, Gap, Series
from testbed.demo.verdict import Counters
from tests.faults.checker import Evidence, gap_seconds, judge, not_stored

PERIOD_NS = 10
TIMES = range(10, 60, PERIOD_NS)


def series(times, quality=0):
    values = np.array([time * 1.5 for time in times])
    return Series(np.array(times, np.int64), values, np.full(len(values), quality, np.uint8))


OFFERED = {("a", time): time * 1.5 for time in TIMES}
WHOLE = Evidence(OFFERED, {"a": series(list(TIMES))}, list(OFFERED), [], [], PERIOD_NS)
HOLE = replace(
    WHOLE, stored={"a": series([10, 20, 50])}, spooled=[], gaps=[Gap(("a",), 21, 49, "x")]
)


@pytest.mark.parametrize(
    ("evidence", "counters"),
    [
        (WHOLE, Counters(0, 0, 0, 0)),
        (HOLE, Counters(0, 0, 0, 0)),
        (replace(WHOLE, stored={"a": series([10, 20, 30, 50])}), Counters(1, 0, 0, 1)),
        (replace(WHOLE, stored={"a": series([10, 20, 30, 40, 40, 50])}), Counters(0, 1, 0, 0)),
        (replace(WHOLE, stored={"a": series(list(TIMES), BAD)}), Counters(0, 0, 5, 0)),
        (replace(HOLE, gaps=[Gap((), 21, 39, "x")]), Counters(0, 0, 0, 1)),
        (replace(HOLE, gaps=[Gap((), 20, 49, "x")]), Counters(0, 0, 1, 0)),
        (replace(HOLE, gaps=[Gap((), 21, 49, "x"), Gap((), 51, 99, "x")]), Counters(0, 0, 1, 0)),
        (replace(HOLE, gaps=[Gap((), 21, 49, "x"), Gap((), 19, 19, "x")]), Counters(0, 0, 1, 0)),
        (replace(WHOLE, dead=[("a", 30)]), Counters(0, 0, 1, 0)),
    ],
    ids=[
        "whole",
        "hole",
        "lost",
        "twice",
        "bad",
        "silent",
        "covers",
        "beyond",
        "for nothing",
        "dead",
    ],
)
def test_each_fault_of_the_path_counts(evidence, counters):
    assert judge([evidence]) == counters


def test_gaps_that_overlap_count_once():
    gaps = [Gap((), 0, 2 * 10**9, "x"), Gap((), 10**9, 3 * 10**9, "y")]
    assert gap_seconds(gaps, 0, 10**10) == 3.0


def test_what_is_not_stored_is_told_by_stream():
    with_hole = replace(
        WHOLE,
        offered={("a", at * 10**9): 1.0 for at in range(5)},
        stored={"a": series([0, 10**9, 4 * 10**9])},
        spooled=[],
    )
    assert list(not_stored(["s0", "s1"], [WHOLE, with_hole])) == [
        "s1: 2 of 5 not stored, from 2.0 to 3.0 s of 4.0 s; 0 in the spool"
    ]
