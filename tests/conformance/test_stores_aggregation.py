"""What every time-series store must do with windows: the same values, at the same times."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.aggregation import EARLIEST_NS, Aggregate, Aggregation
from broker.batch import BAD, GOOD, UNCERTAIN
from broker.errors import Invalid
from broker.streams import Dtype
from testbed_api.stores.port import Window
from tests.conformance.test_stores import ALWAYS, FLOATS, SPEC, block, blocks_of, series

FLOW, STROKES, OPEN, RECIPE = SPEC.names
NUMBERS = (FLOW, STROKES)
MS = 1_000_000
NO_TWO_BY_CHANCE = itertools.count()


async def windows_of(  # noqa: PLR0913 - what a test may want otherwise
    store, how, *, every="1ms", spec=SPEC, space="live", signals=None, span=ALWAYS
):
    """All windows as {signal: [(begin, value, quality)]}; checks order and frames on the way."""
    aggregation = Aggregation.parse(every, how)
    values = {name: [] for name in signals or spec.names}
    last = (-(2**63), -1)
    async for frame in store.aggregate(Window(space, spec, tuple(values), *span), aggregation):
        assert 0 < len(frame) <= 10_000
        assert frame.dtypes == aggregation.spec(spec).dtypes
        columns = (frame.time_ns, frame.signal, frame.values, frame.quality)
        for time, at, value, code in zip(*(each.tolist() for each in columns), strict=True):
            assert (time, at) > last
            last = (time, at)
            values[spec.names[at]].append((time, value, code))
    return values


async def test_a_window_begins_at_a_multiple_of_its_width_since_1970_and_holds_its_begin(store):
    times = [-MS - 1, -MS, -1, 0, MS - 1, MS, 5 * MS + 1]
    await store.write([block(("a", series(times, range(7))), spec=FLOATS)])
    for how, values in {"last": [0, 2, 4, 5, 6], "min": [0, 1, 3, 5, 6]}.items():
        begins = [-2 * MS, -MS, 0, MS, 5 * MS]
        expected = [(time, value, GOOD) for time, value in zip(begins, values, strict=True)]
        assert (await windows_of(store, how, spec=FLOATS))["a"] == expected


async def test_at_the_ends_of_a_span_the_samples_inside_count(store):
    times = [0, MS // 2, MS, 2 * MS, 2 * MS + 7, 3 * MS - 1]
    await store.write([block(("a", series(times, [1, 2, 3, 4, 5, 6])), spec=FLOATS)])
    values = await windows_of(store, "mean", spec=FLOATS, span=(MS // 2, 3 * MS - 1))
    assert values["a"] == [(0, 2.0, GOOD), (MS, 3.0, GOOD), (2 * MS, 4.5, GOOD)]


@pytest.mark.parametrize("how", list(Aggregate))
async def test_good_samples_count_alone_and_bad_ones_make_no_value(store, how):
    quality = [GOOD, UNCERTAIN, BAD, UNCERTAIN, BAD, BAD, BAD, GOOD]
    times = [0, 1, 2, MS, MS + 1, 2 * MS, 2 * MS + 1, 4 * MS]
    values = [1.5, 99.0, math.nan, 2.5, math.nan, math.nan, math.nan, 4.5]
    await store.write([block(("a", series(times, values, quality)), spec=FLOATS)])
    first, second, third, fourth = (await windows_of(store, how, spec=FLOATS))["a"]
    assert (first, second, fourth) == (
        (0, 1.5, GOOD),
        (MS, 2.5, UNCERTAIN),
        (4 * MS, 4.5, GOOD),
    )
    assert (third[0], third[2], math.isnan(third[1])) == (2 * MS, BAD, True)


async def test_last_keeps_bools_texts_and_whole_numbers_as_they_are(store):
    times = [0, 5, MS]
    await store.write(
        [
            block(
                (STROKES, series(times, [1, 2**62 + 1, -(2**63)], dtype=Dtype.INT64)),
                (OPEN, series(times, [True, False, True], dtype=Dtype.BOOL)),
                (RECIPE, series(times, ["full", "", 'a "b"\n'], dtype=Dtype.STRING)),
            )
        ]
    )
    values = await windows_of(store, "last")
    assert values[STROKES] == [(0, 2**62 + 1, GOOD), (MS, -(2**63), GOOD)]
    assert values[OPEN] == [(0, False, GOOD), (MS, True, GOOD)]
    assert values[RECIPE] == [(0, "", GOOD), (MS, 'a "b"\n', GOOD)]
    assert values[FLOW] == []


async def test_whole_numbers_stay_whole_but_for_their_mean(store):
    numbers = [2**60 + 1, 2**60 + 3, 2**60, 2**60 + 2]
    await store.write([block((STROKES, series([1, 2, 3, 4], numbers, dtype=Dtype.INT64)))])
    assert (await windows_of(store, "min", signals=NUMBERS))[STROKES] == [(0, 2**60, GOOD)]
    assert (await windows_of(store, "max", signals=NUMBERS))[STROKES] == [(0, 2**60 + 3, GOOD)]
    ((_, mean, _),) = (await windows_of(store, "mean", signals=NUMBERS))[STROKES]
    assert type(mean) is float
    assert mean == pytest.approx(2**60)
    await store.write([block((STROKES, series([MS, MS + 1], [2**63 - 1] * 2, dtype=Dtype.INT64)))])
    _, (_, mean, _) = (await windows_of(store, "mean", signals=NUMBERS))[STROKES]
    assert mean == pytest.approx(2.0**63)  # the sum is no int64


async def test_only_numbers_have_a_mean_a_least_and_a_greatest_value(store):
    for how in (Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX):
        window = Window("live", SPEC, SPEC.names, *ALWAYS)
        with pytest.raises(Invalid, match=r"'valve.open-1' is bool, 'recipe' is string.*how=last"):
            await anext(store.aggregate(window, Aggregation.parse("1s", how)))


async def test_more_windows_than_a_page_come_in_order(store):
    count = 120_000
    times = np.arange(count) * MS
    pair = ("a", series(times, times / MS)), ("b", series(times[::3] + 5, times[::3] / MS))
    await store.write([block(*pair, spec=FLOATS)])
    values = await windows_of(store, "last", spec=FLOATS)
    assert values["a"] == [(at * MS, float(at), GOOD) for at in range(count)]
    assert values["b"] == [(at * MS, float(at), GOOD) for at in range(0, count, 3)]
    wide = await windows_of(store, "mean", every="1min", spec=FLOATS)
    assert [value for _, value, _ in wide["a"]] == [29_999.5, 89_999.5]


async def test_samples_far_apart_are_found_without_a_look_at_every_window(store):
    year_ns = 365 * 86_400 * 1_000 * MS
    times = [-9 * year_ns, 0, 5, 3 * year_ns + 1, 99 * year_ns]
    await store.write([block(("a", series(times, range(5))), spec=FLOATS)])
    values = await windows_of(store, "max", spec=FLOATS)
    assert values["a"] == [
        *((-9 * year_ns, 0.0, GOOD), (0, 2.0, GOOD)),
        *((3 * year_ns, 3.0, GOOD), (99 * year_ns, 4.0, GOOD)),
    ]


async def test_the_earliest_and_the_latest_windows_are_read_and_none_before(store):
    first, last = EARLIEST_NS + 5, 2**63 - 3
    await store.write([block(("a", series([first, last], [1.0, 2.0])), spec=FLOATS)])
    begin = first - first % MS + MS
    values = await windows_of(store, "last", spec=FLOATS, span=(begin, 2**63 - 1))
    assert values["a"] == [(last - last % MS, 2.0, GOOD)]
    for span in ((begin - 1, 2**63 - 1), (-(2**63) + 1, 0)):
        with pytest.raises(Invalid, match="from 1679 on"):
            await windows_of(store, "last", spec=FLOATS, span=span)


async def test_windows_of_other_spaces_signals_and_streams_are_left_out(store):
    await store.write([block(("a", series([1], [1.0])), ("b", series([1], [2.0])), spec=FLOATS)])
    await store.write([block(("a", series([1], [3.0])), spec=FLOATS, space="run-demo")])
    assert await windows_of(store, "last", spec=FLOATS, signals=("b",)) == {"b": [(0, 2.0, GOOD)]}
    other = await windows_of(store, "last", spec=FLOATS, space="run-demo")
    assert other == {"a": [(0, 3.0, GOOD)], "b": []}
    assert await windows_of(store, "last") == {name: [] for name in SPEC.names}
    window = Window("live", FLOATS, (), *ALWAYS)
    assert [each async for each in store.aggregate(window, Aggregation.parse("1s", None))] == []


async def test_a_reader_of_windows_may_leave_early(store):
    times = np.arange(60_000) * MS
    await store.write([block(("a", series(times, times)), spec=FLOATS)])
    window = Window("live", FLOATS, ("a",), *ALWAYS)
    frames = store.aggregate(window, Aggregation.parse("1ms", None))
    assert len(await anext(frames)) > 0
    await frames.aclose()
    await store.ready()


def samples():
    """For each signal of SPEC: time -> (value, quality); sums of the values are exact."""
    times = st.integers(-(10**9), 10**9) | st.integers(-20, 20)
    values = {
        Dtype.FLOAT64: st.integers(-(2**40), 2**40).map(lambda number: number / 8),
        Dtype.INT64: st.integers(-(2**40), 2**40),
        Dtype.BOOL: st.booleans(),
        Dtype.STRING: st.text(max_size=5),
    }
    none = {Dtype.FLOAT64: math.nan, Dtype.INT64: 0, Dtype.BOOL: False, Dtype.STRING: ""}
    return st.fixed_dictionaries(
        {
            signal.name: st.dictionaries(
                times,
                st.tuples(values[signal.dtype], st.sampled_from([GOOD, GOOD, UNCERTAIN]))
                | st.just((none[signal.dtype], BAD)),
                max_size=15,
            )
            for signal in SPEC.signals
        }
    )


@given(
    chosen=samples(),
    how=st.sampled_from(list(Aggregate)),
    every=st.sampled_from(["1ms", "7ms", "1s", "1d"]),
    from_ns=st.integers(-(10**9) - 1, 10**9),
    length_ns=st.integers(1, 2 * 10**9),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_windows_are_those_of_their_samples(
    store, chosen, how, every, from_ns, length_ns
):
    space = f"run-{next(NO_TWO_BY_CHANCE)}"
    await store.write(blocks_of(chosen, space))
    span = (from_ns, from_ns + length_ns)
    signals = SPEC.names if how is Aggregate.LAST else NUMBERS
    values = await windows_of(store, how, every=every, space=space, signals=signals, span=span)
    width_ns = Aggregation.parse(every, how).every_ns
    for name in signals:
        expected = windows_by_hand(chosen[name], how, width_ns, span)
        assert [(time, code) for time, _, code in values[name]] == [
            (time, code) for time, _, code in expected
        ]
        for (_, value, code), (_, wanted, _) in zip(values[name], expected, strict=True):
            if code != BAD:
                assert value == (pytest.approx(wanted) if how is Aggregate.MEAN else wanted)


def windows_by_hand(signal, how, width_ns, span):
    """The windows of one signal's samples, as the port promises them."""
    inside = sorted((time, *rest) for time, rest in signal.items() if span[0] <= time < span[1])
    values = []
    for window, group in itertools.groupby(inside, lambda sample: sample[0] // width_ns):
        members = list(group)
        best = min(code for _, _, code in members)
        usable = [value for _, value, code in members if code == best]
        value = {
            Aggregate.MEAN: lambda usable: sum(usable) / len(usable),
            Aggregate.LAST: lambda usable: usable[-1],
            Aggregate.MIN: min,
            Aggregate.MAX: max,
        }[how](usable)
        values.append((window * width_ns, value, best))
    return values
