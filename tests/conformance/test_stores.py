"""What every time-series store must do, held against each of them."""

import asyncio
import itertools
import math
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, UNCERTAIN, Series
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.stores.port import Block, Position, Window

SPEC = StreamSpec(
    StreamAddress("factory", "pump-rig", "rig"),
    (
        Signal("Volume Flow RateRMS", unit="L/min"),
        Signal("strokes", Dtype.INT64),
        Signal("valve.open-1", Dtype.BOOL),
        Signal("recipe", Dtype.STRING),
    ),
)
FLOATS = StreamSpec(StreamAddress("factory", "pump-rig", "fast"), (Signal("a"), Signal("b")))
STRANGE = StreamSpec(
    StreamAddress("factory", "pump-rig", "strange"),
    tuple(
        Signal(name)
        for name in ("time", "Time", "space", "value", "a.b-c_d", "1 2", "field", "result")
    ),
)
ALWAYS = (-(2**62), 2**62)
NO_TWO_BY_CHANCE = itertools.count()


def series(times, values, quality=None, dtype=Dtype.FLOAT64):
    column = np.empty(len(times), NUMPY[dtype])
    column[:] = values
    codes = np.zeros(len(times), np.uint8) if quality is None else np.array(quality, np.uint8)
    return Series(np.array(times, np.int64), column, codes)


def bits(value):
    return struct.pack("d", value)


def block(*named, spec=SPEC, space="live"):
    return Block.of_series(space, spec, named)


async def stored(store, spec=SPEC, space="live", span=ALWAYS, signals=None):
    """All samples as {signal: [(time, value, quality)]}; checks order and frame size on the way."""
    samples = {name: [] for name in signals or spec.names}
    last = (-(2**63), -1)
    async for frame in store.read(Window(space, spec, tuple(samples), *span)):
        assert 0 < len(frame) <= 10_000
        for time, at, value, code in zip(
            frame.time_ns.tolist(),
            frame.signal.tolist(),
            frame.values.tolist(),
            frame.quality.tolist(),
            strict=True,
        ):
            assert (time, at) > last
            last = (time, at)
            samples[spec.names[at]].append((time, value, code))
    return samples


async def test_every_dtype_comes_back_value_for_value(store):
    floats = [0.1, -1e-300, 1.7976931348623157e308, 5e-324, -0.0, 3.0]
    whole = [2**63 - 1, -(2**63), 0, 2**53 + 1, -1, 7]
    text = ["", 'a "quote"', "back\\slash", "line\nbreak, and = ü", " ", "x" * 2000]
    times = [1_700_000_000_123_456_789 + at for at in range(6)]
    await store.write(
        [
            block(
                ("Volume Flow RateRMS", series(times, floats)),
                ("strokes", series(times, whole, dtype=Dtype.INT64)),
                ("valve.open-1", series(times, [True, False] * 3, dtype=Dtype.BOOL)),
                ("recipe", series(times, text, dtype=Dtype.STRING)),
            )
        ]
    )
    samples = await stored(store)
    assert [bits(value) for _, value, _ in samples["Volume Flow RateRMS"]] == [*map(bits, floats)]
    assert [value for _, value, _ in samples["strokes"]] == whole
    assert [value for _, value, _ in samples["valve.open-1"]] == [True, False] * 3
    assert [value for _, value, _ in samples["recipe"]] == text
    assert [time for time, _, _ in samples["strokes"]] == times


@pytest.mark.parametrize("signal", SPEC.signals, ids=lambda signal: signal.dtype)
async def test_quality_is_kept_and_a_bad_sample_has_no_value(store, signal):
    values = {
        Dtype.FLOAT64: 1.5,
        Dtype.INT64: 15,
        Dtype.BOOL: True,
        Dtype.STRING: "on",
    }
    value = values[signal.dtype]
    none = NO_VALUE[signal.dtype]
    columns = series([1, 2, 3], [value, value, none], [GOOD, UNCERTAIN, BAD], signal.dtype)
    await store.write([block((signal.name, columns))])
    first, second, third = (await stored(store))[signal.name]
    assert (first, second) == ((1, value, GOOD), (2, value, UNCERTAIN))
    assert third[0] == 3
    assert third[2] == BAD
    assert third[1] == none or math.isnan(third[1])


async def test_what_is_written_twice_is_stored_once(store):
    once = block(("strokes", series([1, 2, 3], [10, 20, 30], dtype=Dtype.INT64)))
    overlapping = block(("strokes", series([3, 4, 4], [30, 40, 40], dtype=Dtype.INT64)))
    await store.write([once])
    await store.write([once, overlapping, once])
    assert (await stored(store))["strokes"] == [(1, 10, 0), (2, 20, 0), (3, 30, 0), (4, 40, 0)]


async def test_late_samples_are_found_at_their_own_time(store):
    await store.write([block(("strokes", series([50, 60], [5, 6], dtype=Dtype.INT64)))])
    await store.write([block(("strokes", series([55, 10], [55, 1], dtype=Dtype.INT64)))])
    assert [time for time, _, _ in (await stored(store))["strokes"]] == [10, 50, 55, 60]


async def test_signals_with_times_of_their_own_are_read_in_order_of_time(store):
    await store.write(
        [
            block(
                ("recipe", series([1, 4], ["a", "b"], dtype=Dtype.STRING)),
                ("strokes", series([2, 4], [1, 2], dtype=Dtype.INT64)),
            )
        ]
    )
    samples = await stored(store)
    assert samples["recipe"] == [(1, "a", 0), (4, "b", 0)]
    assert samples["strokes"] == [(2, 1, 0), (4, 2, 0)]


async def test_a_window_includes_its_start_and_not_its_end(store):
    await store.write([block(("strokes", series([1, 2, 3], [1, 2, 3], dtype=Dtype.INT64)))])
    assert [time for time, _, _ in (await stored(store, span=(1, 3)))["strokes"]] == [1, 2]


async def test_only_the_signals_asked_for_are_read(store):
    strokes, recipe = series([1], [1], dtype=Dtype.INT64), series([1], ["a"], dtype=Dtype.STRING)
    await store.write([block(("strokes", strokes), ("recipe", recipe))])
    assert await stored(store, signals=("recipe",)) == {"recipe": [(1, "a", 0)]}


async def test_spaces_and_streams_are_kept_apart(store):
    await store.write([block(("a", series([1], [1.0])), spec=FLOATS)])
    await store.write([block(("a", series([1], [2.0])), spec=FLOATS, space="run-demo")])
    assert (await stored(store, FLOATS))["a"] == [(1, 1.0, 0)]
    assert (await stored(store, FLOATS, "run-demo"))["a"] == [(1, 2.0, 0)]
    assert (await stored(store))["strokes"] == []


ODD_NAMES = ("a", "a-b", "b", "main", "temp", "samples", "layout", "live", "run-demo", "pg-catalog")
"""What an organisation may be called, and products call something of their own."""


def spec_of(organisation):
    return StreamSpec(StreamAddress(organisation, "b", "c"), (Signal("a"),))


async def test_organisations_are_kept_apart_whatever_they_are_called(opened):
    async with opened() as store:
        await store.write(
            [
                block(("a", series([1, at], [at, at])), spec=spec_of(organisation))
                for at, organisation in enumerate(ODD_NAMES, 2)
            ]
        )
    async with opened() as store:
        for at, organisation in enumerate(ODD_NAMES, 2):
            assert (await stored(store, spec_of(organisation)))["a"] == [(1, at, 0), (at, at, 0)]
        await store.delete("live", spec_of("a").address, *ALWAYS)
        await store.write([block(("a", series([3], [9.0])), spec=spec_of("main"))])
        assert (await stored(store, spec_of("a")))["a"] == []
        for at, organisation in list(enumerate(ODD_NAMES, 2))[1:]:
            if organisation != "main":
                assert (await stored(store, spec_of(organisation)))["a"] == [
                    (1, at, 0),
                    (at, at, 0),
                ]


async def test_an_organisation_without_samples_has_none_of_the_others(store):
    await store.write([block(("a", series([1], [1.0])), spec=spec_of("a"))])
    for other in ("a-b", "b", "aa"):
        assert (await stored(store, spec_of(other)))["a"] == []
        assert await thin_of(store, Window("live", spec_of(other), ("a",), 0, 10), 4) == []
        await store.delete("live", spec_of(other).address, *ALWAYS)
    assert (await stored(store, spec_of("a")))["a"] == [(1, 1.0, 0)]


HOSTILE = [
    *('a"', "a'", "a\\", "a b", "a\0", "a\n", "a=b", "a,space=live", "a` |> drop()", "a\u200b"),
    *('a"; DROP SCHEMA "organisation/b" CASCADE; --', "a' OR '1'='1", "a/b", "organisation/b"),
    *("", ".", "..", "a.b", "%2e%2e", "A", "ä", "-a", "a-", "a" * 41, "*", "a*", "/.*/", "$a"),
    *("#", "+"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_that_a_query_could_take_for_more_comes_to_a_store(name):
    for parts in ((name, "b", "c"), ("a", name, "c"), ("a", "b", name)):
        with pytest.raises(Invalid):
            StreamAddress(*parts)
    for space in (name, f"run-{name}"):
        if space not in {"run--a", "run-" + "a" * 36}:
            with pytest.raises(Invalid):
                Window(space, FLOATS, ("a",), *ALWAYS)


@pytest.mark.parametrize("name", ['a"', "a'", "a\\", "a:b", "a\n", "a\0", "", "a|b", "a,b", "a=b"])
def test_no_signal_leaves_its_quotes(name):
    with pytest.raises(Invalid):
        Signal(name)


async def test_a_large_window_is_read_in_bounded_frames(store):
    count = 150_000
    times = np.arange(count) * 100
    pair = ("a", series(times, times / 7)), ("b", series(times + 50, times / 3))
    await store.write([block(*pair, spec=FLOATS)])
    samples = await stored(store, FLOATS)
    assert [value for _, value, _ in samples["a"]] == (times / 7).tolist()
    assert len(samples["b"]) == count


async def test_samples_far_apart_and_close_together_are_read_alike(store):
    close = 1_000_000_000 + np.arange(60_000)
    times = np.concatenate([[-(2**61)], close, [2**40, 2**61]])
    await store.write([block(("a", series(times, times / 7)), spec=FLOATS)])
    assert [time for time, _, _ in (await stored(store, FLOATS))["a"]] == times.tolist()


async def test_a_reader_may_leave_early(store):
    times = np.arange(60_000)
    await store.write([block(("a", series(times, times / 7)), spec=FLOATS)])
    frames = store.read(Window("live", FLOATS, ("a",), *ALWAYS))
    assert len(await anext(frames)) > 0
    await frames.aclose()
    await store.ready()


async def test_no_signals_asked_for_are_no_samples(store):
    await store.write([block(("a", series([1], [1.0])), spec=FLOATS)])
    window = Window("live", FLOATS, (), *ALWAYS)
    assert [frame async for frame in store.read(window)] == []
    assert [frame async for frame in store.thin(window, 10)] == []


async def test_any_name_that_a_signal_may_have_is_kept_apart(store):
    named = [(name, series([1, 2], [at, -at])) for at, name in enumerate(STRANGE.names, start=1)]
    await store.write([block(*named, spec=STRANGE)])
    samples = await stored(store, STRANGE)
    assert samples == {
        name: [(1, at, 0), (2, -at, 0)] for at, name in enumerate(STRANGE.names, start=1)
    }
    for name in STRANGE.names:
        window = Window("live", STRANGE, (name,), 0, 10)
        [frame] = [frame async for frame in store.thin(window, 2)]
        assert {frame.names[at] for at in frame.signal} == {name}


SENT = [(GOOD, 1.0), (GOOD, 2.0), (UNCERTAIN, 3.0), (UNCERTAIN, 4.0), (BAD, math.nan)]


@pytest.mark.parametrize("together", [True, False], ids=["in one write", "in two"])
async def test_value_and_quality_of_a_sample_were_sent_together(store, together):
    pairs = list(itertools.product(SENT, SENT))
    times = list(range(len(pairs)))
    first, second = (
        block(
            ("a", series(times, *([pair[at][part] for pair in pairs] for part in (1, 0)))),
            spec=FLOATS,
        )
        for at in (0, 1)
    )
    for blocks in [[first, second]] if together else [[first], [second]]:
        await store.write(blocks)
    samples = (await stored(store, FLOATS))["a"]
    assert [time for time, _, _ in samples] == times
    for (_, value, code), pair in zip(samples, pairs, strict=True):
        assert (code, bits(value)) in [(sent, bits(value_sent)) for sent, value_sent in pair]


async def test_readers_see_what_was_written_before_they_began(store):
    done = 0

    async def write():
        nonlocal done
        for at in range(30):
            times = np.arange(at * 100, at * 100 + 100)
            await store.write([block(("a", series(times, times / 7)), spec=FLOATS)])
            done = at + 1

    async def look():
        while done < 30:
            least = done * 100
            samples = (await stored(store, FLOATS))["a"]
            assert len(samples) >= least
            assert all(value == time / 7 for time, value, _ in samples)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write(), name="writer")
        for reader in range(3):
            tasks.create_task(look(), name=f"reader {reader}")


async def test_a_write_that_nobody_waits_for_does_no_harm(store):
    times = np.arange(5_000)
    written = block(("a", series(times, times / 7)), spec=FLOATS)
    async with asyncio.TaskGroup() as tasks:
        abandoned = tasks.create_task(store.write([written]), name="abandoned")
        await asyncio.wait([abandoned], timeout=0.002)
        abandoned.cancel()
    await store.write([written])
    assert [time for time, _, _ in (await stored(store, FLOATS))["a"]] == times.tolist()


async def test_thinning_keeps_extremes_and_never_shows_bad_for_good(store):
    times = np.arange(20_000)
    values = np.sin(times / 900.0)
    values[7_777], values[12_345] = 50.0, -50.0
    quality = np.zeros(len(times))
    quality[3_000:3_010], values[3_000:3_010] = UNCERTAIN, 99.0
    quality[5_000], values[5_000] = BAD, math.nan
    await store.write([block(("a", series(times, values, quality)), spec=FLOATS)])
    window = Window("live", FLOATS, ("a", "b"), 0, 20_000)
    samples = [
        (time, value, code)
        async for frame in store.thin(window, 100)
        for time, value, code in zip(
            frame.time_ns.tolist(), frame.values.tolist(), frame.quality.tolist(), strict=True
        )
    ]
    assert len(samples) <= 102
    assert samples == sorted(samples)
    assert (7_777, 50.0, GOOD) in samples
    assert (12_345, -50.0, GOOD) in samples
    assert {code for _, _, code in samples} == {GOOD}
    assert all(value == values[time] for time, value, _ in samples)


async def thin_of(store, window, points):
    return [
        sample_read
        async for frame in store.thin(window, points)
        for sample_read in zip(
            frame.time_ns.tolist(),
            (frame.names[at] for at in frame.signal),
            frame.values.tolist(),
            frame.quality.tolist(),
            strict=True,
        )
    ]


async def test_time_without_samples_at_the_ends_of_a_window_takes_no_points(store):
    times = 10**15 + np.arange(5_000)
    await store.write([block(("a", series(times, np.sin(times / 7))), spec=FLOATS)])
    tight = await thin_of(store, Window("live", FLOATS, ("a",), 10**15, 10**15 + 5_000), 100)
    assert len(tight) == 100
    assert await thin_of(store, Window("live", FLOATS, ("a",), 0, 10**17), 100) == tight
    assert await thin_of(store, Window("live", FLOATS, ("a",), 0, 10**15), 100) == []


async def test_signals_of_a_stream_are_thinned_over_the_same_spans_whoever_asks(store):
    named = [("a", series(range(1_000), range(1_000))), ("b", series([9_999], [2.0]))]
    await store.write([block(*named, spec=FLOATS)])
    alone = await thin_of(store, Window("live", FLOATS, ("a",), 0, 10**6), 100)
    both = await thin_of(store, Window("live", FLOATS, ("a", "b"), 0, 10**6), 100)
    assert len(alone) == 10  # of 50 spans of 200 ns, the first five have samples of it
    assert [sample for sample in both if sample[1] == "a"] == alone


async def test_samples_of_all_of_time_are_thinned(store):
    far = [-(2**62), -(2**62) + 1, 0, 2**62 - 1, 2**62]
    await store.write([block(("a", series(far, [3.0, 1.0, 2.0, 5.0, 4.0])), spec=FLOATS)])
    window = Window("live", FLOATS, ("a",), -(2**63) + 2, 2**63 - 2)
    thin = await thin_of(store, window, 4)
    assert [time for time, *_ in thin] == [far[0], far[1], far[3], far[4]]


async def test_readers_at_once_see_what_each_would_see_alone(store):
    times = np.arange(0, 20_000, 10)
    quality = np.where(times % 700, GOOD, UNCERTAIN)
    pair = [
        (name, series(times, np.sin(times / 900.0 + at), quality)) for at, name in enumerate("ab")
    ]
    await store.write([block(*pair, spec=FLOATS)])
    windows = [
        Window("live", FLOATS, names, 0, to_ns)
        for names in [("a",), ("b",), ("a", "b"), ("b",)]
        for to_ns in (15_000, 20_000)
    ]
    alone = [await thin_of(store, window, 60) for window in windows]
    async with asyncio.TaskGroup() as tasks:
        readers = [
            tasks.create_task(thin_of(store, window, 60), name=f"reader {at}")
            for at, window in enumerate(windows * 2)
        ]
    assert [reader.result() for reader in readers] == alone * 2


async def test_thinned_readers_see_all_that_was_written_and_deleted_before_they_began(store):
    most, done, gone = 12, 0, 0

    async def change():
        nonlocal done, gone
        for at in range(1, most + 1):  # each later in value and earlier in time: all is late
            times = np.array([-at, 100 - at])
            await store.write([block(("a", series(times, [-at, at])), spec=FLOATS)])
            again = block(("a", series(times, [-at, at])), spec=FLOATS)
            await store.write([again])
            done = at
            await store.delete("live", FLOATS.address, -at, 0)
            gone = at

    async def look():
        while done < most:
            least, deleted = done, gone
            values = [value for _, _, value, _ in await thin_of(store, all_of_it, 2)]
            assert max(values, default=0) >= least
            assert all(value < -deleted or value > 0 for value in values)

    all_of_it = Window("live", FLOATS, ("a",), -100, 101)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(change(), name="writer")
        for reader in range(4):
            tasks.create_task(look(), name=f"reader {reader}")
    assert [value for _, _, value, _ in await thin_of(store, all_of_it, 2)] == [most, 1.0]


async def test_thinning_of_what_has_no_order_gives_first_and_last(store):
    times = list(range(100))
    words = [f"step {at}" for at in times]
    await store.write([block(("recipe", series(times, words, dtype=Dtype.STRING)))])
    window = Window("live", SPEC, SPEC.names, 0, 100)
    values = [value async for frame in store.thin(window, 4) for value in frame.values.tolist()]
    assert values == ["step 0", "step 49", "step 50", "step 99"]


async def test_what_was_written_outlives_the_store(opened):
    async with opened() as first:
        await first.write([block(("a", series([1], [1.0])), spec=FLOATS)])
    async with opened() as second:
        assert (await stored(second, FLOATS))["a"] == [(1, 1.0, 0)]
        await second.ready()


async def test_what_is_deleted_is_gone_and_nothing_else(store):
    strokes = series(range(1, 7), range(1, 7), dtype=Dtype.INT64)
    bad = series([3], [math.nan], [BAD])
    await store.write([block(("strokes", strokes), ("Volume Flow RateRMS", bad))])
    await store.write([block(("strokes", strokes), space="run-demo")])
    await store.write([block(("a", series([3], [3.0])), spec=FLOATS)])
    await store.delete("live", SPEC.address, 2, 5)
    samples = await stored(store)
    assert [time for time, _, _ in samples["strokes"]] == [1, 5, 6]
    assert samples["Volume Flow RateRMS"] == []
    assert len((await stored(store, space="run-demo"))["strokes"]) == 6
    assert len((await stored(store, FLOATS))["a"]) == 1


async def test_all_of_a_stream_may_be_deleted_and_written_anew(store):
    far = [-(2**61), 0, 2**61]
    await store.write([block(("a", series(far, [1.0, 2.0, 3.0])), spec=FLOATS)])
    await store.delete("live", FLOATS.address, -(2**63) + 1, 2**63 - 1)
    assert (await stored(store, FLOATS))["a"] == []
    await store.write([block(("a", series(far, [4.0, 5.0, 6.0])), spec=FLOATS)])
    assert [value for _, value, _ in (await stored(store, FLOATS))["a"]] == [4.0, 5.0, 6.0]


async def test_deleting_what_is_not_there_is_no_fault(store):
    await store.delete("live", FLOATS.address, 0, 10)
    await store.write([block(("a", series([20], [1.0])), spec=FLOATS)])
    await store.delete("live", FLOATS.address, 0, 10)
    await store.delete("live", FLOATS.address, 10, 10)
    assert (await stored(store, FLOATS))["a"] == [(20, 1.0, 0)]


async def test_what_was_deleted_stays_deleted_when_the_store_is_opened_again(opened):
    async with opened() as first:
        times = np.arange(10_000)
        await first.write([block(("a", series(times, times / 7)), spec=FLOATS)])
        await first.delete("live", FLOATS.address, 1_000, 9_999)
    async with opened() as second:
        remaining = [time for time, _, _ in (await stored(second, FLOATS))["a"]]
        assert remaining == [*range(1_000), 9_999]


async def test_thinning_compares_whole_numbers_beyond_2_to_the_53_exactly(store):
    values = [2**60 + 1, 2**60 + 3, 2**60, 2**60 + 2]
    await store.write([block(("strokes", series([1, 2, 3, 4], values, dtype=Dtype.INT64)))])
    window = Window("live", SPEC, ("strokes",), 0, 10)
    [frame] = [frame async for frame in store.thin(window, 2)]
    assert frame.time_ns.tolist() == [2, 3]
    assert frame.values.tolist() == [2**60 + 3, 2**60]


async def test_a_span_without_a_good_sample_shows_its_first_and_last(store):
    times = list(range(10, 40))
    quality = [BAD, UNCERTAIN] * 5 + [GOOD, UNCERTAIN] * 5 + [UNCERTAIN, BAD] * 5
    values = [
        math.nan if code == BAD else float(time) for time, code in zip(times, quality, strict=True)
    ]
    await store.write([block(("a", series(times, values, quality)), spec=FLOATS)])
    window = Window("live", FLOATS, ("a",), 10, 40)
    [frame] = [frame async for frame in store.thin(window, 6)]
    assert frame.time_ns.tolist() == [10, 19, 20, 28, 30, 39]
    assert frame.quality.tolist() == [BAD, UNCERTAIN, GOOD, GOOD, UNCERTAIN, BAD]


def sample(dtype):
    values = {
        Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
        Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
        Dtype.BOOL: st.booleans(),
        Dtype.STRING: st.text(max_size=20),
    }
    none = st.just((NO_VALUE[dtype], BAD))
    return st.tuples(values[dtype], st.sampled_from([GOOD, UNCERTAIN])) | none


def samples():
    """For each signal of SPEC: time -> (value, quality)."""
    times = st.integers(-(2**61), 2**61) | st.integers(0, 50)
    return st.fixed_dictionaries(
        {
            signal.name: st.dictionaries(times, sample(signal.dtype), max_size=15)
            for signal in SPEC.signals
        }
    )


def blocks_of(chosen, space):
    return [
        block((signal.name, series([time], [value], [code], signal.dtype)), space=space)
        for signal in SPEC.signals
        for time, (value, code) in chosen[signal.name].items()
    ]


def comparable(value):
    return bits(value) if isinstance(value, float) else value


AN_EMPTY_STRING = {
    "Volume Flow RateRMS": {},
    "strokes": {},
    "valve.open-1": {},
    "recipe": {-1: ("full", GOOD), 0: ("", GOOD)},
}


@given(chosen=samples(), again=st.booleans(), points=st.integers(2, 20))
@example(chosen=AN_EMPTY_STRING, again=False, points=4)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_samples_come_back_as_they_were_sent(store, chosen, again, points):
    space = f"run-{next(NO_TWO_BY_CHANCE)}"
    blocks = blocks_of(chosen, space)
    await store.write(blocks)
    if again:
        await store.write(blocks[::-1] + blocks)
    samples_read = await stored(store, space=space)
    for name in SPEC.names:
        sent = sorted(chosen[name].items())
        assert [(time, comparable(value), code) for time, value, code in samples_read[name]] == [
            (time, comparable(value), code) for time, (value, code) in sent
        ]
    window = Window(space, SPEC, SPEC.names, *ALWAYS)
    await check_thinned(store, window, points, samples_read)


async def check_thinned(store, window, points, whole):
    """Hold the contract of `thin` against all samples of the window."""
    times = [time for every in whole.values() for time, *_ in every] or [window.from_ns]
    begin_ns, width = min(times), -(-(max(times) + 1 - min(times)) // (points // 2))
    thin, order = {name: [] for name in whole}, []
    async for frame in store.thin(window, points):
        for name, columns in frame.series():
            thin[name] += zip(*(part.tolist() for part in columns), strict=True)
        order += zip(frame.time_ns.tolist(), frame.signal.tolist(), strict=True)
    assert order == sorted(set(order))
    for name, every in whole.items():
        thinned_spans = {
            span: list(members)
            for span, members in itertools.groupby(thin[name], lambda s: (s[0] - begin_ns) // width)
        }
        for span, members in itertools.groupby(every, lambda s: (s[0] - begin_ns) // width):
            check_span(window.spec.signal(name).dtype, list(members), thinned_spans.pop(span))
        assert not thinned_spans


def check_span(dtype, every, thinned):
    assert len(thinned) <= 2
    assert {(time, comparable(value)) for time, value, _ in thinned} <= {
        (time, comparable(value)) for time, value, _ in every
    }
    good = [sample_read for sample_read in every if sample_read[2] == GOOD]
    if good:
        assert {code for _, _, code in thinned} == {GOOD}
    if good and dtype in {Dtype.FLOAT64, Dtype.INT64}:
        values = [value for _, value, _ in good]
        assert {min(values), max(values)} == {value for _, value, _ in thinned}
    else:
        times = [time for time, _, _ in good or every]
        assert {min(times), max(times)} == {time for time, _, _ in thinned}


async def test_the_position_of_each_organisation_is_that_of_its_last_write(store):
    other = StreamSpec(StreamAddress(f"company-{next(NO_TWO_BY_CHANCE)}", "e", "s"), (Signal("a"),))
    mine = StreamSpec(StreamAddress(f"factory-{next(NO_TWO_BY_CHANCE)}", "e", "s"), (Signal("a"),))
    names = [spec.address.organisation for spec in (mine, other)]
    assert await store.positions(names) == {}
    both, later = Position("ledger", 1, 5), Position("ledger", 2, 2**62)
    blocks = [block(("a", series([1], [1.0])), spec=spec) for spec in (mine, other)]
    await store.write(blocks, both)
    await store.write(blocks[:1], later)
    await store.write(blocks)
    await store.write(blocks[:1], Position("ledger", 1, 2**62, is_apart=True))  # it took longer
    assert await store.positions(names) == {names[0]: later, names[1]: both}
    assert await store.positions(names[1:]) == {names[1]: both}
    assert await store.positions([]) == {}


async def test_the_extent_of_a_stream_is_from_its_first_to_its_last_sample(store):
    spec = StreamSpec(
        StreamAddress("factory", "pump-rig", f"x{next(NO_TWO_BY_CHANCE)}"),
        (Signal("a"), Signal("b", Dtype.STRING)),
    )
    assert await store.extent("live", spec.address) is None
    times = [5, -(2**60), 2**60]
    await store.write([block(("a", series(times, [1, 2, 3])), spec=spec)])
    text = series([2**61], ["late"], dtype=Dtype.STRING)
    await store.write([block(("b", text), spec=spec, space="run-demo")])
    assert await store.extent("live", spec.address) == (-(2**60), 2**60)
    assert await store.extent("run-demo", spec.address) == (2**61, 2**61)
    assert await store.extent("run-other", spec.address) is None
