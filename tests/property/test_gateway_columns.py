"""What the gateway does with columns is what a loop over the samples would do."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Wide, column_dtype
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from gateway.pipeline.deadband import DeadBand
from gateway.pipeline.framing import frames
from gateway.samples import Samples

SIGNALS = 3
VALUES = {
    Dtype.FLOAT64: st.floats(-10, 10),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.BOOL: st.booleans(),
    Dtype.STRING: st.sampled_from(["", "a", "ß"]),
}
dtype_lists = st.one_of(
    st.lists(st.sampled_from(Dtype), min_size=SIGNALS, max_size=SIGNALS),
    st.sampled_from(Dtype).map(lambda dtype: [dtype] * SIGNALS),
)


@st.composite
def samples(draw: st.DrawFn, dtypes: list[Dtype], most_time: int = 12) -> Samples:
    rows = []
    for _ in range(draw(st.integers(1, 15))):
        signal = draw(st.integers(0, SIGNALS - 1))
        quality = draw(st.sampled_from([GOOD, UNCERTAIN, BAD]))
        value = NO_VALUE[dtypes[signal]] if quality == BAD else draw(VALUES[dtypes[signal]])
        rows.append((signal, draw(st.integers(0, most_time)), value, quality))
    return Samples.from_rows(dtypes, rows)


@given(st.data(), st.lists(st.sampled_from([0.0, 1.0, 4.0]), min_size=SIGNALS, max_size=SIGNALS))
def test_the_dead_band_keeps_what_leaves_it(data: st.DataObject, widths: list[float]) -> None:
    band = DeadBand(np.array(widths))
    last: list[tuple[float, int] | None] = [None] * SIGNALS
    for _ in range(3):
        drawn = data.draw(samples([Dtype.FLOAT64] * SIGNALS))
        rows = zip(
            drawn.signal.tolist(), drawn.values.tolist(), drawn.quality.tolist(), strict=True
        )
        for counts, (signal, value, quality) in zip(band.leaving(drawn), rows, strict=True):
            before, width = last[signal], widths[signal]
            inside = (
                width > 0
                and before is not None
                and before[1] == quality
                and abs(value - before[0]) <= width
            )
            assert counts == (not inside)
            if not inside:
                last[signal] = None if quality == BAD else (value, quality)


@given(st.data(), dtype_lists)
def test_frames_hold_every_sample_once(data: st.DataObject, dtypes: list[Dtype]) -> None:
    drawn = data.draw(samples(dtypes, most_time=2))
    signals = tuple(Signal(f"s{at}", dtype) for at, dtype in enumerate(dtypes))
    spec = StreamSpec(StreamAddress("o", "e", "s"), signals)
    framed = list(frames(drawn, spec))
    out = [
        (name, *sample)
        for frame in framed
        for name, series in frame.series()
        for sample in zip(*(column.tolist() for column in series), strict=True)
    ]
    put = [
        (spec.names[signal], *rest)
        for signal, *rest in zip(
            drawn.signal.tolist(),
            drawn.time_ns.tolist(),
            drawn.values.tolist(),
            drawn.quality.tolist(),
            strict=True,
        )
    ]
    assert sorted(map(repr, out)) == sorted(map(repr, put))
    for frame in framed:
        columns = frame.values.values() if isinstance(frame, Wide) else ()
        for column, name in zip(columns, frame.values if columns else (), strict=True):
            assert column.dtype == column_dtype([spec.signal(name).dtype])
    times = {tuple(drawn.time_ns[drawn.signal == at]) for at in np.unique(drawn.signal)}
    if len(times) == 1 and len(np.unique(drawn.signal)) > 1:
        (frame,) = framed
        assert isinstance(frame, Wide)
