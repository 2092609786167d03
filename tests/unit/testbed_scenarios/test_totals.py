"""Scores over several runs: the rows of all count alike, and what cannot be counted is left out."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from broker.batch import Series
from broker.clock import NS_PER_S
from testbed_scenarios import totals
from testbed_scenarios.expectations.model import Expectation
from testbed_scenarios.observations import Observations, TruthInterval

EXPECTATION = TypeAdapter(Expectation)
FOUND = {"detection": "d/score/alarm", "truth": "rig", "f1": {"at_least": 0.5}}


def expectations(*fields):
    return [EXPECTATION.validate_python(each) for each in fields]


def run(rows, faulty, flagged):
    """A run of as many rows, a second apart: those of `faulty` with a fault, of `flagged` with an
    alarm; None for a prototype that published nothing.
    """
    times = np.arange(rows, dtype=np.int64) * NS_PER_S
    quality = np.zeros(rows, np.uint8)
    streams = {"rig": {"Pressure": Series(times, np.ones(rows), quality)}}
    if flagged is not None:
        alarms = np.isin(np.arange(rows), list(flagged))
        streams["d/score"] = {"alarm": Series(times, alarms, quality)}
    truth = tuple(TruthInterval("valve", at * NS_PER_S, (at + 1) * NS_PER_S) for at in faulty)
    return Observations(start_ns=0, end_ns=rows * NS_PER_S, streams=streams, truth={"rig": truth})


def test_rows_of_all_runs_are_counted_together():
    expected = expectations(FOUND)
    runs = [(expected, run(10, {4, 5}, {5, 9})), (expected, run(100, range(50, 60), range(50, 54)))]
    (total,) = totals.of_detection(runs)
    document = total.as_json()
    counts = [document[key] for key in ("runs", "hits", "missed", "false", "quiet")]
    assert counts == [2, 5, 7, 1, 97]
    assert document["f1"] == pytest.approx(10 / 18)
    assert document["false_alarm_rate"] == pytest.approx(1 / 98)
    assert document["missed_alarm_rate"] == pytest.approx(7 / 12)
    assert total.sentence.startswith("d/score/alarm against rig, over 2 runs: f1 0.5556, ")
    assert "missed alarm rate 58.33 %" in total.sentence


def test_a_span_of_the_expectation_leaves_rows_out():
    expected = expectations({**FOUND, "from": "5s"})
    (total,) = totals.of_detection([(expected, run(10, {4, 5}, {5, 9}))] * 2)
    assert total.name == "d/score/alarm against rig from 5s"
    assert (total.counts.hits, total.counts.missed, total.counts.quiet) == (2, 0, 6)


def test_expectations_about_the_same_rows_have_one_total_and_others_their_own():
    quiet = {**FOUND, "f1": None, "false_alarm_rate": {"at_most": 0.1}}
    expected = expectations(FOUND, quiet, {**FOUND, "from": "5s", "to": "8s"})
    whole, part = totals.of_detection([(expected, run(10, {4, 5}, {5, 9}))] * 2)
    assert [whole.name, part.name] == [
        "d/score/alarm against rig",
        "d/score/alarm against rig from 5s to 8s",
    ]
    assert (whole.counts.false, part.counts.false) == (2, 0)


def test_a_run_that_cannot_be_counted_is_left_out_and_is_not_among_the_runs():
    expected = expectations(FOUND)
    silent = run(10, {4}, None)
    (total,) = totals.of_detection([(expected, silent), (expected, run(10, {4}, {4}))])
    assert (total.runs, total.counts.hits, total.counts.missed) == (1, 1, 0)


def test_a_run_without_a_fault_has_false_alarms_and_no_f1():
    expected = expectations(FOUND)
    (total,) = totals.of_detection([(expected, run(10, (), {9}))] * 2)
    assert total.as_json()["f1"] is None
    assert total.as_json()["false_alarm_rate"] == pytest.approx(0.1)
    assert "f1 unknown" in total.sentence


def test_one_run_and_events_have_no_total():
    expected = expectations(FOUND)
    assert totals.of_detection([(expected, run(10, {4}, {4}))]) == []
    by_event = expectations({**FOUND, "by": "event"}, {"stream": "rig", "count": {"at_least": 1}})
    assert totals.of_detection([(by_event, run(10, {4}, {4}))] * 2) == []
