"""Expectations over a run: what holds a value, what is not known, and what people are told."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from broker.batch import BAD, GOOD, Gap, Series
from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.streams import Dtype, Signal
from testbed_scenarios.expectations.evaluate import evaluate
from testbed_scenarios.expectations.model import Expectation
from testbed_scenarios.held_signal import HeldSignal, TimeSpan
from testbed_scenarios.observations import (
    Observations,
    ResourceSamples,
    RunEvent,
    TruthInterval,
)

EXPECTATION = TypeAdapter(Expectation)
NOBODY = Observations(start_ns=0, end_ns=100 * NS_PER_S, streams={})


def series(times_s, values, quality=None):
    column = np.array(values)
    if column.dtype.kind == "U":
        column = column.astype(np.object_)
    qualities = np.zeros(len(times_s), np.uint8) if quality is None else np.array(quality, np.uint8)
    return Series((np.array(times_s) * NS_PER_S).astype(np.int64), column, qualities)


def run(start_s=0, **signals):
    """A run of 100 s of an equipment `rig` whose signals are these."""
    specs = {name: Signal(name, unit="bar") for name in signals}
    return Observations(
        start_ns=start_s * NS_PER_S,
        end_ns=(start_s + 100) * NS_PER_S,
        streams={"rig": signals},
        signals={"rig": specs},
        truth={
            "rig": (
                TruthInterval("valve", (start_s + 20) * NS_PER_S, (start_s + 30) * NS_PER_S),
                TruthInterval("valve", (start_s + 60) * NS_PER_S, (start_s + 65) * NS_PER_S),
            )
        },
        events=(RunEvent("server-restart", (start_s + 40) * NS_PER_S),),
    )


def judged(observed, **fields):
    return evaluate(EXPECTATION.validate_python(fields), observed)


def seconds(span):
    return (span.from_ns / NS_PER_S, span.to_ns / NS_PER_S)


RISING = series([0, 10, 20, 30], [1.0, 2.0, 4.0, 1.5])


def test_a_failed_always_names_moment_and_size():
    result = judged(run(Pressure=RISING), signal="rig/Pressure", always={"below": 3})
    assert not result.passed
    assert (result.robustness, result.unit) == (-1.0, "bar")
    assert seconds(result.violation) == (20, 30)
    assert result.name == "rig/Pressure always below 3"
    assert result.sentence == (
        "expected always below 3 bar: it was 4 bar at 20s for 10s, at worst 4 bar"
    )


def test_a_passed_always_tells_what_came_nearest():
    result = judged(run(Pressure=RISING), signal="rig/Pressure", always={"below": 5})
    assert (result.passed, result.robustness, result.violation) == (True, 1.0, None)
    assert result.sentence == "it was always below 5 bar; nearest to that bound was 4 bar at 20s"


def test_times_are_counted_from_the_beginning_of_the_run():
    shifted = run(start_s=1_000, Pressure=series([1_000, 1_020], [1.0, 4.0]))
    result = judged(shifted, signal="rig/Pressure", always={"below": 3}, **{"from": "15s"})
    assert "at 20s for 1min20s" in result.sentence
    assert seconds(result.violation) == (1_020, 1_100)


def test_a_span_takes_the_value_that_is_held_into_it_and_not_that_at_its_end():
    span = {"from": "11s", "to": "20s"}
    result = judged(run(Pressure=RISING), signal="rig/Pressure", always={"is": 2}, **span)
    assert result.passed


def test_bad_quality_and_a_gap_are_unknown_and_not_the_last_value():
    bad = series([0, 10, 20], [1.0, 9.0, 1.0], [GOOD, BAD, GOOD])
    always = {"signal": "rig/Pressure", "always": {"below": 3}}
    result = judged(run(Pressure=bad), **always)
    assert (result.passed, result.unknown_ns) == (True, 10 * NS_PER_S)
    assert result.sentence.endswith("; for 10s of the time its value is not known")
    whole = run(Pressure=RISING)
    gap = Gap(("Pressure",), 25 * NS_PER_S, 28 * NS_PER_S, "spool-lost")
    result = judged(replace(whole, gaps={"rig": (gap,)}), **always)
    assert result.unknown_ns == 5 * NS_PER_S
    other = replace(gap, signals=("Flow",))
    assert judged(replace(whole, gaps={"rig": (other,)}), **always).unknown_ns == 0


def test_unknown_time_fails_where_the_file_says_so():
    late = run(Pressure=series([1], [1.0]))
    fields = {"signal": "rig/Pressure", "always": {"below": 3}}
    assert judged(late, **fields).passed
    result = judged(late, **fields, unknown="fails")
    assert not result.passed
    assert result.robustness is None
    assert "for 1s of the time" in result.sentence
    assert "`unknown: fails`" in result.sentence


@pytest.mark.parametrize(
    "fields",
    [
        {"signal": "rig/Pressure", "always": {"below": 3}},
        {"signal": "rig/Pressure", "never": {"below": 3}},
        {"signal": "rig/Pressure", "eventually": {"below": 3}, "within": "9s"},
        {"signal": "rig/Pressure", "settles": {"to": 1, "band": 1, "within": "9s"}},
        {"control": "rig/Pressure", "set_point": 1, "overshoot": {"at_most": 1}},
        {"control": "rig/Pressure", "energy": {"at_most": 1}},
        {"detection": "rig/Pressure", "truth": "rig", "false_alarm_rate": {"at_most": 1}},
        {"stream": "press", "count": {"at_most": 1}},
        {"signal": "rig/Flow", "rate": {"at_most": 1}},
        {"resources": "detector", "cpu": {"at_most": 1}},
    ],
)
def test_without_any_sample_everything_fails_with_a_sentence(fields):
    for observed in (run(Pressure=series([], [])), replace(NOBODY, truth={"rig": ()})):
        result = judged(observed, **fields)
        assert not result.passed
        assert result.robustness is None
        assert result.sentence


@pytest.mark.parametrize(
    "fields",
    [
        {"signal": "rig/Presure", "always": {"below": 3}},
        {"control": "rig/Presure", "energy": {"at_most": 1}},
        {"detection": "rig/Presure", "truth": "rig", "false_alarm_rate": {"at_most": 1}},
        {"signal": "rig/Presure", "rate": {"at_most": 1}},
    ],
)
def test_of_a_signal_that_its_stream_does_not_have_the_others_are_told(fields):
    observed = run(Pressure=series([1], [2.0]), Flow=series([], []))
    assert judged(observed, **fields).sentence.endswith("; the signals of rig are Flow, Pressure")
    right = {key: "rig/Flow" if value == "rig/Presure" else value for key, value in fields.items()}
    assert "the signals of" not in judged(observed, **right).sentence


def test_no_sample_is_a_count_of_its_own():
    none = run(Alarm=series([], []))
    assert judged(none, signal="rig/Alarm", count={"is": 0}).passed
    result = judged(none, signal="rig/Alarm", count={"at_least": 2})
    assert result.sentence == "expected at least 2: 0 samples between 0s and 1min40s"


def test_eventually_tells_when():
    flag = run(Alarm=series([0, 25, 61], [False, True, False]))
    fields = {"signal": "rig/Alarm", "eventually": {"is": "true"}, "after": {"fault": "valve"}}
    result = judged(flag, **fields, within="10s")
    assert result.sentence == "it was true after 5s (2 of 2 occurrences passed)"
    assert result.observed == {"value": True, "after_s": 5.0}
    late = judged(flag, **fields, within="4s")
    assert (late.passed, seconds(late.violation)[0]) == (False, 20)
    assert late.sentence == ("it was not true between 20s and 24s (1 of 2 occurrences passed)")


def test_after_an_end_or_an_event():
    flag = run(Alarm=series([0, 25, 31, 70], [False, True, False, False]))
    ends = {"fault": "valve", "moment": "end"}
    fields = {"signal": "rig/Alarm", "eventually": {"is": "false"}}
    assert judged(flag, **fields, within="2s", after=ends).passed
    restart = {"event": "server-restart"}
    assert judged(flag, **fields, within="2s", after=restart).passed
    assert not judged(flag, **fields, within="2s", after={"event": "link-cut"}).passed


def test_an_occurrence_on_other_equipment_is_none():
    flag = run(Alarm=series([0], [False]))
    result = judged(
        flag,
        signal="rig/Alarm",
        always={"is": "false"},
        after={"fault": "valve", "on": "press"},
    )
    assert (result.passed, result.sentence) == (False, "valve on press did not occur in this run")


def test_what_the_end_of_the_run_cuts_off_is_undecided():
    flag = run(Alarm=series([0, 22], [False, True]))
    cut = replace(
        flag,
        truth={"rig": (*flag.truth["rig"], TruthInterval("valve", 95 * NS_PER_S, 96 * NS_PER_S))},
        streams={"rig": {"Alarm": series([0, 22, 70], [False, True, False])}},
    )
    fields = {"signal": "rig/Alarm", "eventually": {"is": "true"}, "within": "10s"}
    result = judged(cut, **fields, after={"fault": "valve"})
    assert result.passed
    assert "2 of 3 occurrences passed, 1 undecided" in result.sentence
    alone = replace(cut, truth={"rig": cut.truth["rig"][-1:]})
    result = judged(alone, **fields, after={"fault": "valve"})
    assert not result.passed
    assert "undecided" in result.sentence


def test_settles_tells_after_how_long():
    swing = run(Level=series([0, 21, 24, 27, 61], [0.5, 3.0, 0.2, 0.51, 0.5]))
    fields = {"signal": "rig/Level", "after": {"fault": "valve"}}
    result = judged(swing, **fields, settles={"to": 0.5, "band": 0.02, "within": "10s"})
    assert result.passed
    assert result.observed["settled_after_s"] == 7.0
    late = judged(swing, **fields, settles={"to": 0.5, "band": 0.02, "within": "5s"})
    assert not late.passed
    assert "it was in 0.5 ± 0.02 bar for good after 7s, and not within 5s" in late.sentence
    assert late.robustness == pytest.approx(-0.28)


def test_a_stream_is_counted_by_its_time_stamps():
    both = run(A=series([0, 1, 2], [1.0, 1, 1]), B=series([1, 2, 3], [1.0, 1, 1]))
    assert judged(both, stream="rig", count={"is": 4}).passed
    assert judged(both, signal="rig/A", count={"is": 3}).passed


def test_a_rate_over_a_window_finds_the_worst_one():
    steady = [*range(50), *range(60, 100)]
    both = run(A=series(steady, np.ones(len(steady))))
    assert judged(both, stream="rig", rate={"at_least": "0.9 /s"}).passed
    result = judged(both, stream="rig", rate={"at_least": "0.9 /s"}, over="10s")
    assert not result.passed
    assert result.observed["rate_per_s"] == 0.0
    assert result.sentence.startswith("expected at least 0.9 /s: 0 /s in the 10s from 49s on")


def test_detection_is_scored_at_the_rows_of_the_equipment():
    flags = series([0, 25, 32, 62], [False, True, False, True])
    observed = run(Pressure=series(range(100), np.ones(100)))
    observed = replace(observed, streams={**observed.streams, "d/score": {"anomaly": flags}})
    base = {"detection": "d/score/anomaly", "truth": "rig"}
    result = judged(observed, **base, precision={"at_least": 0.9}, recall={"at_least": 0.5})
    hits, flagged = 5 + 3, 7 + 38
    assert result.observed == {
        "precision": pytest.approx(hits / flagged),
        "recall": pytest.approx(hits / 15),
    }
    assert "precision 17.78 %, expected at least 90 %" in result.sentence
    late = judged(observed, **base, by="event", delay={"at_most": "3s"}, recall={"is": 1})
    assert not late.passed
    assert late.sentence == "delay 5s, expected at most 3s"
    assert seconds(late.violation) == (20, 30)


def test_faults_of_sensors_are_to_be_detected_where_the_file_says_so():
    observed = run(Pressure=series(range(100), np.ones(100)))
    stuck = TruthInterval("stuck", 80 * NS_PER_S, 90 * NS_PER_S, "Pressure")
    observed = replace(
        observed,
        truth={"rig": (*observed.truth["rig"], stuck)},
        streams={**observed.streams, "d/score": {"anomaly": series([0, 80], [False, True])}},
    )
    base = {"detection": "d/score/anomaly", "truth": "rig", "recall": {"at_least": 0}}
    assert judged(observed, **base).observed == {"recall": 0}
    assert judged(observed, **base, faults=["stuck"]).observed == {"recall": 1}
    assert judged(observed, **base, faults=["stuck", "valve"]).observed == {"recall": 10 / 25}


def test_a_score_that_cannot_be_told_fails():
    observed = run(Pressure=RISING, Alarm=series([0], [False]))
    base = {"detection": "rig/Alarm", "truth": "rig"}
    result = judged(observed, **base, precision={"at_least": 0.1})
    assert result.sentence == "precision cannot be told: it flagged no row"
    healthy = replace(observed, truth={"rig": ()})
    assert judged(healthy, **base, f1={"at_least": 0}).observed == {"f1": None}
    assert judged(healthy, **base, false_alarm_rate={"at_most": "1 %"}).passed


def test_energy_is_converted_from_the_unit_of_the_signal():
    power = run(Power=series([0], [36.0]))
    power = replace(power, signals={"rig": {"Power": Signal("Power", unit="kW")}})
    result = judged(power, control="rig/Power", energy={"at_most": "1 kW.h"})
    assert (result.passed, result.observed) == (True, {"energy_j": 3.6e6})
    assert result.robustness == 0
    no_power = replace(power, signals={"rig": {"Power": Signal("Power", unit="bar")}})
    assert (
        "its unit is no power"
        in judged(no_power, control="rig/Power", energy={"at_most": "1 kW.h"}).sentence
    )


def test_control_quality_after_a_step():
    response = run(Level=series([0, 20, 21, 22, 23], [0.0, 0.0, 1.2, 1.01, 1.0]))
    result = judged(
        response,
        control="rig/Level",
        set_point=1,
        after={"fault": "valve", "on": "rig"},
        to="30s",
        overshoot={"at_most": "10 %"},
        settling_time={"at_most": "3s"},
    )
    assert not result.passed
    assert result.sentence.startswith("overshoot 20 %, expected at most 10 %")
    assert seconds(result.violation)[0] == 21


def test_resources_are_a_mean_and_two_maxima():
    samples = ResourceSamples(
        np.array([0, 1, 2]) * NS_PER_S,
        np.array([0.1, 0.9, 0.2]),
        np.array([1e8, 2e8, 1.5e8]),
        np.array([1, 30, 2]) * 10**7,
    )
    observed = replace(NOBODY, resources={"detector": samples})
    fields = {"resources": "detector", "memory": {"at_most": "150 MB"}}
    result = judged(observed, **fields, cpu={"at_most": "50 %"}, lag={"at_most": "1s"})
    assert result.observed == {"cpu": pytest.approx(0.4), "memory_bytes": 2e8, "lag_s": 0.3}
    assert result.sentence == "memory 200 MB, expected at most 150 MB"
    assert seconds(result.violation)[0] == 1


def test_of_samples_with_one_time_stamp_each_counts_and_one_is_held():
    twice = series([0, 10, 10, 20], [1.0, 9.0, 2.0, 1.0])
    result = judged(run(Pressure=twice), signal="rig/Pressure", never={"is": 2})
    assert not result.passed
    held = HeldSignal.of(twice).within(TimeSpan(12 * NS_PER_S, 13 * NS_PER_S))
    assert held.values.tolist() == [9.0]


def test_a_signal_of_arrays_is_refused():
    spectra = Series(np.arange(2), np.ones((2, 3)), np.zeros(2, np.uint8))
    with pytest.raises(Invalid, match="arrays"):
        judged(run(Spectrum=spectra), signal="rig/Spectrum", always={"below": 3})


def test_texts_are_compared_for_equality():
    state = run(State=series([0, 10], ["idle", "busy"]))
    state = replace(state, signals={"rig": {"State": Signal("State", Dtype.STRING)}})
    result = judged(state, signal="rig/State", always={"is": "idle"})
    assert result.sentence == "expected always idle: it was 'busy' at 10s for 1min30s"
    assert judged(state, signal="rig/State", eventually={"is": "busy"}).passed
