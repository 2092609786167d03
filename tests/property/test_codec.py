"""Laws of the words on the wire."""

import contextlib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import codec, messages
from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, UNCERTAIN, Batch, Gap, Long, Source, Wide
from broker.errors import Corrupt
from broker.messages import Freshness, Health, Held, Mark
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec, Trigger

ADDRESS = StreamAddress("factory", "pump-rig", "rig")
SPEC = StreamSpec(
    ADDRESS,
    (
        Signal("Pressure", unit="bar"),
        Signal("strokes", Dtype.INT64),
        Signal("running", Dtype.BOOL),
        Signal("Recipe Name", Dtype.STRING),
    ),
    version=3,
)
INSTANTS = st.integers(-(2**61), 2**61)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = {
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.BOOL: st.booleans(),
    Dtype.STRING: TEXT,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def columns(draw, dtype, count):
    quality = draw(
        st.lists(st.sampled_from([GOOD, GOOD, UNCERTAIN, BAD]), min_size=count, max_size=count)
    )
    column = np.empty(count, NUMPY[dtype])
    for at, code in enumerate(quality):
        column[at] = NO_VALUE[dtype] if code == BAD else draw(VALUES[dtype])
    return column, np.array(quality, np.uint8)


@st.composite
def wides(draw):
    times = np.array(draw(st.lists(INSTANTS, max_size=5)), np.int64)
    signals = draw(st.lists(st.sampled_from(SPEC.signals), unique=True, min_size=1))
    drawn = {each.name: draw(columns(each.dtype, len(times))) for each in signals}
    return Wide(
        times,
        {name: column for name, (column, _) in drawn.items()},
        {name: quality for name, (_, quality) in drawn.items() if quality.any()},
    )


@st.composite
def longs(draw):
    rows = draw(st.lists(st.tuples(INSTANTS, st.integers(0, len(SPEC.signals) - 1)), max_size=6))
    values, quality = np.empty(len(rows), np.object_), np.zeros(len(rows), np.uint8)
    for at, (_, signal) in enumerate(rows):
        column, code = draw(columns(SPEC.signals[signal].dtype, 1))
        values[at], quality[at] = column.tolist()[0], code[0]
    return Long(
        np.array([time for time, _ in rows], np.int64),
        np.array([signal for _, signal in rows], np.int32),
        values,
        quality,
        SPEC.names,
        tuple(each.dtype for each in SPEC.signals),
    )


@st.composite
def gaps(draw):
    start, end = sorted([draw(INSTANTS), draw(INSTANTS)])
    signals = draw(st.lists(st.sampled_from(SPEC.names), unique=True))
    return Gap(tuple(signals), start, end, draw(st.sampled_from(["spool-full", "server-overflow"])))


@st.composite
def batches(draw):
    numbered = draw(st.booleans())
    return Batch(
        spec_version=SPEC.version,
        frames=tuple(draw(st.lists(wides() | longs(), max_size=3))),
        source=draw(st.sampled_from(list(Source))),
        pub_ns=draw(INSTANTS),
        epoch="01JD-x" if numbered else None,
        seq=draw(st.integers(1, 2**53)) if numbered else None,
        gaps=tuple(draw(st.lists(gaps(), max_size=2))),
        input_ns=draw(st.none() | INSTANTS),
    )


@given(batches())
def test_what_is_encoded_decodes_to_the_same_batch(batch):
    assert codec.decode(codec.encode(batch), SPEC) == (batch, ())


@given(batches())
def test_a_document_holds_no_integer_that_javascript_would_round(batch):
    def visit(node):
        if isinstance(node, dict):
            return all(map(visit, node.values()))
        if isinstance(node, list):
            return all(map(visit, node))
        return type(node) is not int or abs(node) <= 2**53

    assert visit(orjson.loads(codec.encode(batch)))


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_corrupt(payload):
    for decode in (messages.decode_spec, messages.decode_health, messages.decode_mark, codec.parse):
        with pytest.raises(Corrupt):
            decode(payload)


@given(
    JSON,
    st.sampled_from(["v", "pub", "spec", "epoch", "seq", "source", "frames", "gaps", "input_t"]),
)
def test_a_document_with_any_json_in_any_place_decodes_or_is_corrupt(junk, key):
    document = orjson.loads(codec.encode(Batch(3, (), Source.LIVE, epoch="e", seq=1)))
    with contextlib.suppress(Corrupt):
        codec.decode(orjson.dumps(document | {key: junk}), SPEC)


@given(wides(), JSON, st.data())
def test_a_frame_with_any_json_in_any_place_keeps_its_other_columns(frame, junk, data):
    raw = orjson.loads(codec.dumps(codec.frame_to_json(frame)))
    broken = data.draw(st.sampled_from(sorted(raw["values"])))
    raw["values"][broken] = junk
    frames, misfits = codec.frames_from_json([raw], SPEC)
    fitting = {name: series for each in frames for name, series in each.series()}
    for name, series in frame.series():
        if name != broken:
            assert np.array_equal(fitting[name].time_ns, series.time_ns)
            assert np.array_equal(fitting[name].quality, series.quality)
    remaining = len(fitting[broken].time_ns) if broken in fitting else 0
    assert misfits or remaining == len(frame.time_ns)


@given(JSON, st.sampled_from(["t0", "dt", "signal", "value", "quality"]), longs())
def test_a_long_frame_with_any_json_in_any_place_fits_or_is_set_apart(junk, key, frame):
    raw = orjson.loads(codec.dumps(codec.frame_to_json(frame)))
    frames, misfits = codec.frames_from_json([raw | {key: junk}], SPEC)
    assert sum(map(len, frames)) <= len(frame)
    assert misfits or sum(map(len, frames)) == len(frame)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)), max_size=12))
def test_what_is_held_is_the_set_of_what_was_included(pairs):
    held = Held.from_ranges((first, first + more) for first, more in pairs)
    included = {seq for first, more in pairs for seq in range(first, first + more + 1)}
    assert {seq for seq in range(1, 60) if seq in held} == included
    mark = Mark({"rig": {"01JD": held}})
    assert messages.decode_mark(messages.encode_mark(mark)) == mark


@given(INSTANTS, INSTANTS, st.none() | INSTANTS, st.lists(TEXT, max_size=2))
def test_a_health_comes_back_as_it_was_told(at_ns, valid_until_ns, last_ns, alarms):
    health = Health(
        state=Freshness.STALE,
        at_ns=at_ns,
        valid_until_ns=valid_until_ns,
        last_ns=last_ns,
        alarms=tuple(alarms),
    )
    assert messages.decode_health(messages.encode_health(health)) == health


@given(st.sampled_from(list(Trigger)), st.floats(0, 1e6), TEXT)
def test_a_spec_comes_back_as_it_was_registered(trigger, period_s, description):
    spec = StreamSpec(ADDRESS, SPEC.signals, 7, trigger, period_s, 2.5, description, 60.0, 7.5)
    assert messages.decode_spec(messages.encode_spec(spec)) == spec


def test_a_bad_sample_is_set_apart_and_its_neighbours_are_kept():
    frame = {
        "t0": "2026-11-23T12:00:00Z",
        "dt": [0, 100, 200],
        "values": {"Pressure": [1.5, "three", 2], "strokes": [1, 2, 2**63 - 1]},
    }
    (together, apart), (misfit,) = codec.frames_from_json([frame], SPEC)
    assert together.values["strokes"].tolist() == [1, 2, 2**63 - 1]
    assert apart.values["Pressure"].tolist() == [1.5, 2.0]
    assert (misfit.signal, misfit.value) == ("Pressure", '"three"')
    assert misfit.reason == "a JSON str is no float64"


@pytest.mark.parametrize(
    ("start", "dt"), [("9999-12-31T23:59:59Z", []), ("2262-04-12T00:00:00Z", [-(10**15)])]
)
def test_a_frame_that_begins_beyond_int64_is_set_apart(start, dt):
    frame = {"t0": start, "dt": dt, "values": {"Pressure": [1.5] * len(dt)}}
    frames, (misfit,) = codec.frames_from_json([frame], SPEC)
    assert frames == ()
    assert "beyond the years 1678 to 2262" in misfit.reason


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-11-23T12:00:00Z", "9999-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00Z", "2026-11-23T12:00:00Z"),
    ],
)
def test_a_batch_with_a_gap_beyond_int64_is_refused(begin, end):
    gap = {"signals": [], "from": begin, "to": end, "cause": "c"}
    document = {
        "v": 1,
        "pub": "2026-11-23T12:00:00Z",
        "spec": 3,
        "source": "live",
        "frames": [],
        "gaps": [gap],
    }
    with pytest.raises(Corrupt, match="beyond the years 1678 to 2262"):
        codec.parse(orjson.dumps(document))
