"""The hash of samples: equal for equal samples in any order, another one for any other sample."""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broker.batch import BAD, GOOD, UNCERTAIN, Series
from broker.streams import Dtype, Signal
from testbed_scenarios import sample_hash

LAWS = settings(max_examples=60, deadline=None)
VALUES = {
    Dtype.FLOAT64: st.integers(-40, 40).map(lambda steps: steps * 0.25),
    Dtype.INT64: st.integers(-5, 5),
    Dtype.BOOL: st.booleans(),
    Dtype.STRING: st.sampled_from(["", "a", "ab", "b", "ß", "a\0"]),
}
COLUMNS = {Dtype.FLOAT64: np.float64, Dtype.INT64: np.int64, Dtype.BOOL: np.bool_}


def sampled(dtype, **sizes):
    row = st.tuples(st.integers(0, 6), VALUES[dtype], st.sampled_from([GOOD, UNCERTAIN]))
    return st.lists(row, **sizes)


def of(dtype, rows, resolution=None, stream="rig", signal="P"):
    times, values, quality = zip(*rows, strict=True) if rows else ((), (), ())
    column = np.empty(len(rows), COLUMNS.get(dtype, np.object_))
    column[:] = values
    series = Series(np.array(times, np.int64), column, np.array(quality, np.uint8))
    spec = Signal(signal, dtype, resolution=resolution)
    return sample_hash.of_samples({stream: {signal: series}}, {stream: {signal: spec}})


dtypes = st.sampled_from(list(Dtype))


@LAWS
@given(st.data(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(data, random):
    dtype = data.draw(dtypes)
    rows = data.draw(sampled(dtype, max_size=10))
    assert of(dtype, random.sample(rows, len(rows))) == of(dtype, rows)


@LAWS
@given(st.data())
def test_any_other_sample_changes_it(data):
    dtype = data.draw(dtypes)
    rows = data.draw(sampled(dtype, min_size=1, max_size=10))
    at = data.draw(st.integers(0, len(rows) - 1))
    (other,) = data.draw(sampled(dtype, min_size=1, max_size=1))
    changed = [*rows[:at], other, *rows[at + 1 :]]
    assert (of(dtype, changed) == of(dtype, rows)) == (sorted(changed) == sorted(rows))
    assert of(dtype, rows[:at] + rows[at + 1 :]) != of(dtype, rows)
    assert of(dtype, [*rows, rows[at]]) != of(dtype, rows)
    assert of(dtype, rows, signal="Q") != of(dtype, rows) != of(dtype, rows, stream="press")


@LAWS
@given(sampled(Dtype.FLOAT64, min_size=1, max_size=8), st.data())
def test_a_float_counts_at_its_resolution(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    time, value, quality = rows[at]

    def moved(by):
        return of(Dtype.FLOAT64, [*rows[:at], (time, value + by, quality), *rows[at + 1 :]], 0.25)

    assert moved(0.1) == moved(-0.1) == moved(0)
    assume((time, value + 0.25, quality) not in rows)
    assert moved(0.25) != moved(0)


def test_zeros_and_what_is_no_number_are_alike():
    assert of(Dtype.FLOAT64, [(0, 0.0, GOOD)]) == of(Dtype.FLOAT64, [(0, -0.0, GOOD)])
    assert of(Dtype.FLOAT64, [(0, -0.01, GOOD)], 0.5) == of(Dtype.FLOAT64, [(0, 0.0, GOOD)], 0.5)
    negative_nan = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\xff", np.float64)[0]
    assert of(Dtype.FLOAT64, [(0, negative_nan, GOOD)]) == of(Dtype.FLOAT64, [(0, math.nan, GOOD)])
    assert of(Dtype.FLOAT64, [(0, math.nan, GOOD)]) != of(Dtype.FLOAT64, [(0, 0.0, GOOD)])


def test_a_bad_sample_has_no_value():
    assert of(Dtype.FLOAT64, [(0, 3.0, BAD)]) == of(Dtype.FLOAT64, [(0, math.nan, BAD)])
    assert of(Dtype.STRING, [(0, "x", BAD)]) == of(Dtype.STRING, [(0, "", BAD)])
    assert of(Dtype.INT64, [(0, 0, BAD)]) != of(Dtype.INT64, [(0, 0, GOOD)])


def test_texts_keep_their_bounds():
    assert of(Dtype.STRING, [(0, "ab", GOOD), (0, "c", GOOD)]) != of(
        Dtype.STRING, [(0, "a", GOOD), (0, "bc", GOOD)]
    )
    assert of(Dtype.STRING, [(0, "a", GOOD)], signal="Pb") != of(
        Dtype.STRING, [(0, "a", GOOD)], signal="P"
    )


def test_arrays_count_with_every_element():
    times, quality = np.array([5, 5]), np.zeros(2, np.uint8)

    def hashed(rows):
        series = Series(times, np.array(rows, np.float64), quality)
        return sample_hash.of_samples({"cnc": {"Spectrum": series}}, {})

    assert hashed([[1, 2], [1, 3]]) == hashed([[1, 3], [1, 2]])
    assert hashed([[1, 2], [1, 3]]) != hashed([[1, 2], [2, 3]])
    assert hashed([[1, 2], [1, 3]]) != hashed([[1], [1]])


def test_a_signal_without_samples_counts_for_nothing():
    assert of(Dtype.FLOAT64, []) == sample_hash.of_samples({}, {})


def test_the_hash_stays_what_it_was():
    rows = [(2, 0.25, GOOD), (1, -1.5, UNCERTAIN), (3, math.nan, BAD)]
    assert of(Dtype.FLOAT64, rows) == FORMER


FORMER = "85c63edcfc1cd204579460723bef5f3e577b37dd509af11c1d166c71d7a4c92e"
