"""What every time-series store must do, held against each of them."""

import math

import numpy as np
import pytest

from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, UNCERTAIN, Series
from broker.errors import Forbidden, Taken, Unavailable
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.stores import duckdb, influxdb
from testbed_api.stores.port import Block, Window

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
ALWAYS = (-(2**62), 2**62)


@pytest.fixture(params=["duckdb", "influxdb"])
def opened(request, tmp_path):
    """Opens the store on the same data each time it is called."""
    if request.param == "duckdb":
        return lambda: duckdb.open(tmp_path / "samples.duckdb")
    server = request.getfixturevalue("influxd")
    bucket = f"bucket-{tmp_path.name}"
    return lambda: influxdb.open(
        server.url, token=server.token, organisation=server.organisation, bucket=bucket
    )


@pytest.fixture
async def store(opened):
    async with opened() as one:
        yield one


def series(times, values, quality=None, dtype=Dtype.FLOAT64):
    column = np.empty(len(times), NUMPY[dtype])
    column[:] = values
    codes = np.zeros(len(times), np.uint8) if quality is None else np.array(quality, np.uint8)
    return Series(np.array(times, np.int64), column, codes)


def block(*named, spec=SPEC, space="live"):
    return Block(space, spec, named)


async def stored(store, spec=SPEC, space="live", span=ALWAYS, signals=None):
    """All samples as {signal: [(time, value, quality)]}, checking order and frame size on the way."""
    found = {name: [] for name in signals or spec.names}
    last = (-(2**63), -1)
    async for frame in store.read(Window(space, spec, tuple(found), *span)):
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
            found[spec.names[at]].append((time, value, code))
    return found


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
    found = await stored(store)
    assert [value for _, value, _ in found["Volume Flow RateRMS"]] == floats
    assert [value for _, value, _ in found["strokes"]] == whole
    assert [value for _, value, _ in found["valve.open-1"]] == [True, False] * 3
    assert [value for _, value, _ in found["recipe"]] == text
    assert [time for time, _, _ in found["strokes"]] == times


@pytest.mark.parametrize("signal", SPEC.signals, ids=lambda one: one.dtype)
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
    found = await stored(store)
    assert found["recipe"] == [(1, "a", 0), (4, "b", 0)]
    assert found["strokes"] == [(2, 1, 0), (4, 2, 0)]


async def test_a_window_includes_its_start_and_not_its_end(store):
    await store.write([block(("strokes", series([1, 2, 3], [1, 2, 3], dtype=Dtype.INT64)))])
    assert [time for time, _, _ in (await stored(store, span=(1, 3)))["strokes"]] == [1, 2]


async def test_only_the_signals_asked_for_are_read(store):
    await store.write(
        [block(("strokes", series([1], [1], dtype=Dtype.INT64)), ("recipe", series([1], ["a"], dtype=Dtype.STRING)))]
    )
    assert await stored(store, signals=("recipe",)) == {"recipe": [(1, "a", 0)]}


async def test_spaces_and_streams_are_kept_apart(store):
    await store.write([block(("a", series([1], [1.0])), spec=FLOATS)])
    await store.write([block(("a", series([1], [2.0])), spec=FLOATS, space="run-demo")])
    assert (await stored(store, FLOATS))["a"] == [(1, 1.0, 0)]
    assert (await stored(store, FLOATS, "run-demo"))["a"] == [(1, 2.0, 0)]
    assert (await stored(store))["strokes"] == []


async def test_a_large_window_is_read_in_bounded_frames(store):
    count = 120_000
    times = np.arange(count) * 100
    await store.write([block(("a", series(times, times / 7)), ("b", series(times + 50, times / 3)), spec=FLOATS)])
    found = await stored(store, FLOATS)
    assert [value for _, value, _ in found["a"]] == (times / 7).tolist()
    assert len(found["b"]) == count


async def test_thinning_keeps_extremes_and_never_shows_bad_for_good(store):
    times = np.arange(20_000)
    values = np.sin(times / 900.0)
    values[7_777], values[12_345] = 50.0, -50.0
    quality = np.zeros(len(times))
    quality[3_000:3_010], values[3_000:3_010] = UNCERTAIN, 99.0
    quality[5_000], values[5_000] = BAD, math.nan
    await store.write([block(("a", series(times, values, quality)), spec=FLOATS)])
    window = Window("live", FLOATS, ("a", "b"), 0, 20_000)
    found = [
        (time, value, code)
        async for frame in store.thin(window, 100)
        for time, value, code in zip(
            frame.time_ns.tolist(), frame.values.tolist(), frame.quality.tolist(), strict=True
        )
    ]
    assert len(found) <= 102
    assert found == sorted(found)
    assert (7_777, 50.0, GOOD) in found
    assert (12_345, -50.0, GOOD) in found
    assert {code for _, _, code in found} == {GOOD}
    assert all(value == values[time] for time, value, _ in found)


async def test_thinning_of_what_has_no_order_gives_first_and_last(store):
    times = list(range(100))
    words = [f"step {at}" for at in times]
    await store.write([block(("recipe", series(times, words, dtype=Dtype.STRING)))])
    window = Window("live", SPEC, SPEC.names, 0, 100)
    found = [value async for frame in store.thin(window, 4) for value in frame.values.tolist()]
    assert found == ["step 0", "step 49", "step 50", "step 99"]


async def test_what_was_written_outlives_the_store(opened):
    async with opened() as first:
        await first.write([block(("a", series([1], [1.0])), spec=FLOATS)])
    async with opened() as second:
        assert (await stored(second, FLOATS))["a"] == [(1, 1.0, 0)]
        await second.ready()


async def test_a_store_that_is_away_is_unavailable():
    with pytest.raises(Unavailable):
        async with influxdb.open(
            "http://127.0.0.1:9", token="none", organisation="testbed", bucket="testbed"
        ):
            pass


async def test_a_wrong_token_is_forbidden(influxd):
    with pytest.raises(Forbidden, match="token"):
        async with influxdb.open(
            influxd.url, token="wrong", organisation=influxd.organisation, bucket="testbed"
        ):
            pass


async def test_a_file_that_another_process_has_is_taken(tmp_path):
    import subprocess  # noqa: PLC0415 - one test only
    import sys  # noqa: PLC0415

    path = tmp_path / "samples.duckdb"
    holder = subprocess.Popen(  # noqa: ASYNC220, S603
        [sys.executable, "-c", f"import duckdb; c = duckdb.connect({str(path)!r}); print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        with pytest.raises(Taken, match="another process"):
            async with duckdb.open(path):
                pass
    finally:
        holder.communicate(b"\n")
