"""A fault gives the same samples however they are cut into batches, and touches its span alone."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch import GOOD, Series, same_series
from broker.units import UnitConversion
from testbed_scenarios import signal_faults
from testbed_scenarios.held_signal import TimeSpan
from testbed_scenarios.signal_faults import FaultySensor, SensorFault, SensorFaultKind

LAWS = settings(max_examples=40, deadline=None)
N = 40
KINDS = st.sampled_from(list(SensorFaultKind))
SPANS = st.tuples(st.integers(0, N - 1), st.integers(1, N)).map(
    lambda pair: TimeSpan(pair[0], pair[0] + pair[1])
)
CUTS = st.lists(st.integers(0, N), max_size=6).map(sorted)


def measured(dtype=np.float64):
    values = (np.arange(N) * 7 % 11).astype(dtype)
    return Series(np.arange(N), values, np.full(N, GOOD, np.uint8))


def sensor(kind, span, seed=3, entry=0):
    fault = SensorFault(
        kind=kind, span=span, by=2.5, share=0.5, conversion=UnitConversion(10.0, 1.0)
    )
    return FaultySensor(fault, seed, entry)


def batches(series, cuts):
    ends = [0, *cuts, len(series.time_ns)]
    for begin, end in itertools.pairwise(ends):
        yield Series(*(each[begin:end] for each in series))


@LAWS
@given(KINDS, SPANS, CUTS, st.sampled_from([np.float64, np.int64]))
def test_the_batches_that_samples_come_in_change_nothing(kind, span, cuts, dtype):
    series = measured(dtype)
    whole = sensor(kind, span).apply(series)
    faulty = sensor(kind, span)
    pieces = [faulty.apply(batch) for batch in batches(series, cuts)]
    joined = Series(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))
    assert same_series(joined, whole)
    assert joined.values.dtype == dtype


@LAWS
@given(KINDS, SPANS, st.integers(0, 5), st.integers(0, 5))
def test_equal_seeds_give_equal_samples_and_the_argument_stays(kind, span, seed, entry):
    series = measured()
    first = sensor(kind, span, seed, entry).apply(series)
    assert same_series(first, sensor(kind, span, seed, entry).apply(series))
    assert same_series(series, measured())


@LAWS
@given(KINDS, SPANS)
def test_samples_outside_of_the_span_stay(kind, span):
    series = measured()
    faulty = sensor(kind, span).apply(series)
    outside = ~signal_faults.in_span(series.time_ns, span)
    rest = ~signal_faults.in_span(faulty.time_ns, span)
    assert same_series(
        Series(*(each[outside] for each in series)), Series(*(each[rest] for each in faulty))
    )


@LAWS
@given(SPANS, st.integers(1, 20), CUTS)
def test_a_slow_link_loses_nothing_and_keeps_order_however_it_is_cut(span, by, cuts):
    series = measured()
    whole = signal_faults.delayed_until(series.time_ns, span, by, before_ns=0)
    assert (np.diff(whole) >= 0).all()
    assert (whole >= series.time_ns).all()
    before_ns, pieces = 0, []
    for batch in batches(series, cuts):
        arrival = signal_faults.delayed_until(batch.time_ns, span, by, before_ns)
        before_ns = int(arrival[-1]) if len(arrival) else before_ns
        pieces.append(arrival)
    assert np.concatenate(pieces).tolist() == whole.tolist()
