"""What every time-series store must do with signals that are arrays, held against each of them."""

import numpy as np
import pytest

from broker.aggregation import Aggregate, Aggregation
from broker.batch import BAD, GOOD, UNCERTAIN, Series
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.retention import fingerprint
from testbed_api.stores.port import Block, Window
from tests.conformance.test_stores import ALWAYS, series, stored

SPEC = StreamSpec(
    StreamAddress("factory", "pump-rig", "vibration"),
    (
        Signal("speed"),
        Signal("spectrum", shape=(3,)),
        Signal("counts", Dtype.INT64, shape=(2,)),
        Signal("limits", Dtype.BOOL, shape=(2,)),
        Signal("recipe", Dtype.STRING),
    ),
)
LONGEST = StreamSpec(StreamAddress("factory", "pump-rig", "wave"), (Signal("w", shape=(10_000,)),))
S = 10**9


def arrays(times, values, quality=None, dtype=np.float64):
    codes = np.zeros(len(times), np.uint8) if quality is None else np.array(quality, np.uint8)
    return Series(np.array(times, np.int64), np.array(values, dtype), codes)


def block(*named, spec=SPEC):
    return Block.of_series("live", spec, named)


async def test_arrays_come_back_element_for_element(store):
    spectra = [[0.1, -1e-300, 1.7976931348623157e308], [5e-324, 3.0, 1 / 3]]
    counts = [[2**63 - 1, -(2**63)], [0, 2**53 + 1]]
    limits = [[True, False], [False, False]]
    await store.write(
        [
            block(
                ("spectrum", arrays([1, 2], spectra)),
                ("counts", arrays([1, 2], counts, dtype=np.int64)),
                ("limits", arrays([1, 3], limits, dtype=np.bool_)),
                ("speed", series([1, 2], [4.5, 5.5])),
                ("recipe", series([2], ["[1]"], dtype=Dtype.STRING)),
            )
        ]
    )
    samples = await stored(store, SPEC)
    assert [list(value) for _, value, _ in samples["spectrum"]] == spectra
    assert [list(value) for _, value, _ in samples["counts"]] == counts
    assert [list(value) for _, value, _ in samples["limits"]] == limits
    assert samples["speed"] == [(1, 4.5, 0), (2, 5.5, 0)]
    assert samples["recipe"] == [(2, "[1]", 0)]


async def test_an_array_has_one_quality_and_a_bad_one_no_elements(store):
    values = [[1.0, 2, 3], [4, 5, 6], [np.nan] * 3]
    await store.write([block(("spectrum", arrays([1, 2, 3], values, [GOOD, UNCERTAIN, BAD])))])
    first, second, third = (await stored(store, SPEC))["spectrum"]
    assert (first, second) == ((1, (1.0, 2.0, 3.0), GOOD), (2, (4.0, 5.0, 6.0), UNCERTAIN))
    assert third[2] == BAD
    assert np.isnan(third[1]).all()


async def test_an_array_that_is_written_twice_is_stored_once(store):
    once = block(("counts", arrays([1, 2], [[1, 2], [3, 4]], dtype=np.int64)))
    await store.write([once])
    await store.write([once, block(("counts", arrays([2, 0], [[3, 4], [0, 0]], dtype=np.int64)))])
    samples = (await stored(store, SPEC))["counts"]
    assert samples == [(0, (0, 0), 0), (1, (1, 2), 0), (2, (3, 4), 0)]


async def test_the_longest_arrays_are_read_in_bounded_frames(store):
    values = np.random.default_rng(7).normal(size=(12, 10_000))
    await store.write([block(("w", arrays(range(12), values)), spec=LONGEST)])
    count = 0
    async for frame in store.read(Window("live", LONGEST, ("w",), *ALWAYS)):
        assert len(frame) <= 5
        for _, part in frame.series():
            assert np.array_equal(part.values, values[count : count + len(part.values)])
            count += len(part.values)
    assert count == 12


async def test_scalars_are_read_alone_beside_arrays(store):
    await store.write(
        [block(("spectrum", arrays([1], [[1, 2, 3]])), ("speed", series([1, 2], [1.0, 2.0])))]
    )
    samples = await stored(store, SPEC, signals=("speed",))
    assert samples == {"speed": [(1, 1.0, 0), (2, 2.0, 0)]}


async def test_arrays_are_thinned_by_time_and_stay_whole(store):
    times = np.arange(1_000)
    values = np.stack([times, times % 7, -times], axis=1)
    speeds = series(times, np.where(times == 500, 99.0, 1.0))
    await store.write([block(("spectrum", arrays(times, values)), ("speed", speeds))])
    window = Window("live", SPEC, ("spectrum", "speed"), 0, 1_000)
    frames = [frame async for frame in store.thin(window, 10)]
    thinned = {name: part for frame in frames for name, part in frame.series()}
    assert thinned["spectrum"].time_ns.tolist() == [
        *(0, 199, 200, 399, 400, 599, 600, 799, 800, 999)
    ]
    assert np.array_equal(thinned["spectrum"].values, values[thinned["spectrum"].time_ns])
    assert 500 in thinned["speed"].time_ns


async def test_so_many_points_of_long_arrays_are_refused_with_a_number(store):
    window = Window("live", LONGEST, ("w",), 0, 10)
    with pytest.raises(Invalid, match="ask for at most 200 points"):
        store.thin(window, 201)
    assert [frame async for frame in store.thin(window, 200)] == []


async def test_a_window_gives_the_last_array_and_no_mean(store):
    values = [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]
    await store.write([block(("spectrum", arrays([0, S - 1, S], values)))])
    window = Window("live", SPEC, ("spectrum",), 0, 2 * S)
    with pytest.raises(Invalid, match=r"'spectrum' is float64\[3\].*how=last takes every"):
        [frame async for frame in store.aggregate(window, Aggregation(S, Aggregate.MEAN))]
    frames = [frame async for frame in store.aggregate(window, Aggregation(S, Aggregate.LAST))]
    [(_, part)] = [pair for frame in frames for pair in frame.series()]
    assert part.time_ns.tolist() == [0, S]
    assert part.values.tolist() == [[4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]


async def test_a_fingerprint_of_arrays_is_the_same_on_every_store(store):
    values = [[1.0, 2, 3], [4, 5, 6], [np.nan] * 3]
    await store.write([block(("spectrum", arrays([1, 2, 3], values, [GOOD, UNCERTAIN, BAD])))])
    samples = fingerprint.samples(store, [SPEC], "live", from_ns=0, to_ns=10)
    result = await fingerprint.fingerprint(samples)
    assert result.signals == {"spectrum": 3}
    assert result.sha256.startswith("109ebc053fbc63d6")
