"""What the codec does with many columns at once is what it does with each alone."""

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from broker import codec
from broker.batch import Batch, Long, Series, Source, Wide, same_series
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec

COUNT = codec.FEW + 2
FLOATS = StreamSpec(StreamAddress("o", "e", "s"), tuple(Signal(f"s {at}") for at in range(COUNT)))
MIXED = StreamSpec(
    FLOATS.address, (*FLOATS.signals[:-1], Signal(FLOATS.names[-1], Dtype.INT64)), version=1
)
T0 = "2026-11-23T12:00:00.000000000Z"
ODD = st.sampled_from([0, 7, 2**60, True, None, "x", "7", [], 1.5])
cells = st.one_of(st.floats(allow_nan=False, allow_infinity=False), ODD)
tables = st.integers(1, 3).flatmap(
    lambda rows: st.tuples(
        st.lists(st.just(1.25), min_size=COUNT * rows, max_size=COUNT * rows),
        st.lists(st.tuples(st.integers(0, COUNT * rows - 1), cells), max_size=4),
        st.just(rows),
    )
)


def by_signal(frames: tuple[Wide | Long, ...]) -> dict[str, Series]:
    series_by_name: dict[str, list[Series]] = {}
    for frame in frames:
        for name, series in frame.series():
            series_by_name.setdefault(name, []).append(series)
    return {
        name: Series(*(np.concatenate(parts) for parts in zip(*series, strict=True)))
        for name, series in series_by_name.items()
    }


def assert_same(frames: tuple[Wide | Long, ...], other: tuple[Wide | Long, ...]) -> None:
    mine, theirs = by_signal(frames), by_signal(other)
    assert mine.keys() == theirs.keys()
    for name, series in mine.items():
        assert same_series(series, theirs[name])
        assert series.values.dtype == theirs[name].values.dtype


@given(tables, st.sampled_from([FLOATS, MIXED]))
def test_a_wide_frame_reads_as_its_columns_one_by_one(table, spec) -> None:
    plain, odd, rows = table
    for at, cell in odd:
        plain[at] = cell
    columns = {name: plain[at * rows : (at + 1) * rows] for at, name in enumerate(spec.names)}
    head = {"t0": T0, "dt": list(range(rows))}
    together, misfits = codec.frames_from_json([head | {"values": columns}], spec)
    apart, others = codec.frames_from_json(
        [head | {"values": {name: column}} for name, column in columns.items()], spec
    )
    assert_same(together, apart)
    assert sorted(map(repr, misfits)) == sorted(map(repr, others))


@given(tables)
def test_a_long_frame_reads_the_same_with_its_quality_spelt_out(table) -> None:
    plain, odd, _ = table
    for at, cell in odd:
        plain[at] = cell
    signal = [at % COUNT for at in range(len(plain))]
    frame = {"t0": T0, "dt": list(range(len(plain))), "signal": signal, "value": plain}
    short, misfits = codec.frames_from_json([frame], FLOATS)
    spelt, others = codec.frames_from_json([frame | {"quality": ["good"] * len(plain)}], FLOATS)
    assert_same(short, spelt)
    assert misfits == others


@given(
    st.lists(st.floats(), min_size=COUNT, max_size=COUNT * 3).filter(lambda v: not len(v) % COUNT)
)
def test_many_columns_are_written_as_json_would(values) -> None:
    table = np.array(values).reshape(COUNT, -1)
    names = [f'n "{at} 100 %' for at in range(COUNT)]
    frame = Wide(np.arange(table.shape[1]), dict(zip(names, table, strict=True)))
    document = orjson.loads(codec.body(Batch(1, (frame,), Source.LIVE)))
    written = document["frames"][0]["values"]
    assert list(written) == names
    for name, column in zip(names, table, strict=True):
        assert written[name] == orjson.loads(orjson.dumps(column.tolist()))
