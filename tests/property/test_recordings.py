"""A recording gives back what went in, whatever the samples are."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch import BAD, NUMPY, Gap, Series, Source, no_value, same_series
from broker.namespace import StreamAddress
from broker.recordings import bundle, parquet
from broker.streams import Dtype, Signal, StreamSpec
from tests import recorded

RIG = StreamAddress("factory", "pump-rig", "rig")
LATEST_NS = 2**63 - 2
"""The greatest int64 is no time: DuckDB takes it for infinity, and no history includes it."""
NAMES = ("a", "A", "time", "split", "a b", "a.b")
VALUES = {
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.BOOL: st.booleans(),
    Dtype.STRING: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
}
TIMES = st.lists(st.integers(0, LATEST_NS), unique=True, max_size=6).map(sorted)


@st.composite
def signals(draw, name):
    dtype = draw(st.sampled_from(Dtype))
    is_array = dtype is not Dtype.STRING and draw(st.booleans())
    return Signal(name, dtype, shape=(draw(st.integers(1, 4)),) if is_array else ())


@st.composite
def columns(draw, signal):
    times = draw(TIMES)
    size = len(times)
    quality = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    value = VALUES[signal.dtype]
    for length in signal.shape:
        value = st.lists(value, min_size=length, max_size=length)
    values = [no_value(signal.type) if code == BAD else draw(value) for code in quality]
    column = np.array(values, NUMPY[signal.dtype]).reshape(size, *signal.shape)
    return Series(np.array(times, np.int64), column, np.array(quality, np.uint8))


@st.composite
def streams(draw):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    described = tuple(draw(signals(name)) for name in names)
    samples = {signal.name: draw(columns(signal)) for signal in described}
    instants = st.integers(0, 2**62)
    gap = st.builds(
        Gap,
        st.lists(st.sampled_from(names), unique=True).map(tuple),
        instants,
        instants,
        st.text(st.characters(categories=["L", "P", "Z"]), max_size=20),
    )
    return StreamSpec(RIG, described), samples, draw(st.lists(gap, max_size=3))


@settings(max_examples=12, deadline=None)
@given(streams(), st.sampled_from(["", "70/15/15"]))
def test_a_recording_gives_back_samples_and_gaps(stream, split):
    spec, samples, gaps = stream
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        with (
            bundle.create(path, recorded.facts("x", split=split)) as writer,
            writer.stream(spec, Source.LIVE, gaps=gaps) as table,
        ):
            table.append(samples)
        opened = bundle.open_recording(path)
        again = recorded.read_series(path, opened.manifest.streams[0])
        assert all(same_series(again[name], each) for name, each in samples.items())
        assert recorded.read_gaps(path) == [(RIG, gap) for gap in gaps]
        rows = list(parquet.read_rows(path, opened.manifest.streams[0]))
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})
        assert len(rows) == opened.manifest.rows
