"""Laws of arrays on the wire, in the store's texts and in fingerprints."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import codec, messages
from broker.batch import (
    BAD,
    GOOD,
    UNCERTAIN,
    Batch,
    Long,
    Source,
    Wide,
    elements_of,
    filled_column,
    no_value,
)
from broker.errors import Corrupt
from broker.namespace import StreamAddress
from broker.streams import ArrayOf, Dtype, Signal, StreamSpec
from testbed_api.retention.fingerprint import Fingerprint
from testbed_api.stores import array_texts

SPEC = StreamSpec(
    StreamAddress("factory", "pump-rig", "vibration"),
    (
        Signal("speed"),
        Signal("spectrum", shape=(3,)),
        Signal("counts", Dtype.INT64, shape=(2,)),
        Signal("limits", Dtype.BOOL, shape=(4,)),
        Signal("state", Dtype.STRING),
        Signal("single", shape=(1,)),
    ),
)
ELEMENTS = {
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.BOOL: st.booleans(),
    Dtype.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
}
TIMES = st.integers(0, 2**61)


def values_of(value_type):
    if isinstance(value_type, ArrayOf):
        size = value_type.size
        elements = st.lists(ELEMENTS[value_type.dtype], min_size=size, max_size=size)
        return elements.map(tuple)
    return ELEMENTS[value_type]


@st.composite
def rows(draw, value_type, count):
    codes = st.sampled_from([GOOD, GOOD, UNCERTAIN, BAD])
    quality = draw(st.lists(codes, min_size=count, max_size=count))
    cells = [no_value(value_type) if c == BAD else draw(values_of(value_type)) for c in quality]
    return cells, quality


@st.composite
def wides(draw):
    times = draw(st.lists(TIMES, max_size=4, unique=True))
    values, quality = {}, {}
    for name in draw(st.lists(st.sampled_from(SPEC.names), unique=True, min_size=1)):
        value_type = SPEC.signal(name).type
        cells, codes = draw(rows(value_type, len(times)))
        values[name] = filled_column(value_type, len(times))
        for at, cell in enumerate(cells):
            values[name][at] = cell
        if any(codes):
            quality[name] = np.array(codes, np.uint8)
    return Wide(np.array(times, np.int64), values, quality)


@st.composite
def longs(draw):
    places = st.tuples(TIMES, st.integers(0, len(SPEC.signals) - 1))
    drawn = sorted(draw(st.lists(places, max_size=6, unique=True)))
    values, quality = np.empty(len(drawn), np.object_), np.zeros(len(drawn), np.uint8)
    for at, (_, signal) in enumerate(drawn):
        [values[at]], [quality[at]] = draw(rows(SPEC.dtypes[signal], 1))
    times, signals = [time for time, _ in drawn], [signal for _, signal in drawn]
    columns = np.array(times, np.int64), np.array(signals, np.int32), values, quality
    return Long(*columns, SPEC.names, SPEC.dtypes)


def batch_of(*frames):
    return Batch(1, frames, Source.SIMULATED)


@given(st.lists(wides() | longs(), max_size=3))
def test_arrays_that_are_encoded_decode_to_the_same_batch(frames):
    batch = batch_of(*frames)
    assert codec.decode(codec.encode(batch), SPEC) == (batch, ())


@given(longs())
def test_a_frame_comes_back_from_the_texts_of_a_store(frame):
    texts = array_texts._long_texts(frame)
    assert not any(isinstance(each, ArrayOf) for each in texts.dtypes)
    assert array_texts._arrays(texts, SPEC) == frame


@given(wides())
def test_texts_of_a_wide_frame_are_those_of_its_samples(frame):
    for name, series in array_texts._wide_texts(frame).series():
        if SPEC.signal(name).shape:
            arrays = frame.values[name].tolist()
            for text, array, code in zip(series.values, arrays, series.quality, strict=True):
                assert text == "" if code == BAD else orjson.loads(text) == array


@given(longs())
def test_a_fingerprint_tells_arrays_apart(frame):
    first, second = Fingerprint(), Fingerprint()
    first.add(frame)
    second.add(codec.decode(codec.encode(batch_of(frame)), SPEC)[0].frames[0])
    assert first.sha256 == second.sha256
    for at, cell in enumerate(frame.values.tolist()):
        if type(cell) is tuple and frame.quality[at] != BAD and cell[::-1] != cell:
            frame.values[at] = cell[::-1]
            third = Fingerprint()
            third.add(frame)
            assert third.sha256 != first.sha256
            return


@given(wides() | longs())
def test_each_element_counts_as_a_value(frame):
    sizes = {
        name: (signal.shape or (1,))[0]
        for name, signal in zip(SPEC.names, SPEC.signals, strict=True)
    }
    assert elements_of(frame) == sum(
        len(series.time_ns) * sizes[name] for name, series in frame.series()
    )


def test_a_spec_with_arrays_comes_back_from_its_json():
    assert messages.decode_spec(messages.encode_spec(SPEC)) == SPEC
    assert SPEC.has_arrays
    assert str(SPEC.signal("spectrum").type) == "float64[3]"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[1.0,2.0]", "an array of 2 elements, the spec says 3"),
        ("[1.0,2.0,3.0,4.0]", "an array of 4 elements, the spec says 3"),
        ("[]", "an array of 0 elements, the spec says 3"),
        ("1.0", "a JSON float is no array of 3"),
        ('"1,2,3"', "a JSON str is no array of 3"),
        ("null", "null without quality bad"),
        ("[1.0,null,3.0]", "element 1: null is no element"),
        ('[1.0,2.0,"3"]', "element 2: a JSON str is no float64"),
        ("[true,2.0,3.0]", "element 0: a JSON bool is no float64"),
        ("[[1.0],2.0,3.0]", "element 0: a JSON list is no float64"),
    ],
)
def test_an_array_that_does_not_fit_is_a_misfit_with_its_reason(value, reason):
    good = codec.encode(
        batch_of(Wide(np.array([1, 2]), {"spectrum": np.array([[1.0, 2, 3], [4, 5, 6]])}))
    )
    payload = good.replace(b"[1.0,2.0,3.0]", value.encode())
    batch, misfits = codec.decode(payload, SPEC)
    assert [misfit.reason for misfit in misfits] == [reason]
    assert batch["spectrum"].values.tolist() == [[4.0, 5.0, 6.0]]


def test_a_batch_of_few_words_does_not_take_much_memory():
    spec = StreamSpec(SPEC.address, (Signal("long", shape=(10_000,)),))
    bad = b'{"v":1,"pub":"2026-11-23T12:00:00Z","spec":1,"source":"live","frames":[%b]}'
    frame = b'{"t0":"2026-11-23T12:00:00Z","dt":[0,1],"values":{"long":[null,null]}}'
    with pytest.raises(Corrupt, match="too many values"):
        codec.decode(bad % frame, spec)
    long = b'{"t0":"2026-11-23T12:00:00Z","dt":[0,1],"signal":[0,0],"value":[null,null]}'
    with pytest.raises(Corrupt, match="too many values"):
        codec.decode(bad % long, spec)


def test_the_largest_array_fits_a_message():
    spec = StreamSpec(SPEC.address, (Signal("long", shape=(10_000,)),))
    column = np.full((1, 10_000), -1.2345678901234567e-308)
    batch = Batch(1, (Wide(np.array([2**62]), {"long": column}),), Source.SIMULATED)
    assert codec.decode(codec.encode(batch), spec) == (batch, ())


@pytest.mark.parametrize("shapes", [[(1,)] * 9, [(2,)] * 9, [()] * 9 + [(1,)], [(1,)] + [()] * 9])
def test_many_columns_are_not_taken_for_one_table(shapes):
    signals = tuple(Signal(f"s{at}", shape=shape) for at, shape in enumerate(shapes))
    spec = StreamSpec(SPEC.address, signals)
    columns = {each.name: np.ones((1, *each.shape)) for each in signals}
    batch = batch_of(Wide(np.array([1]), columns))
    assert codec.decode(codec.encode(batch), spec) == (batch, ())


def test_a_signal_keeps_its_shape_from_version_to_version():
    longer = StreamSpec(SPEC.address, (Signal("spectrum", shape=(4,)),), version=2)
    with pytest.raises(Exception, match=r"was float64\[3\] in version 1 and would become float64"):
        longer.follows(SPEC)


@pytest.mark.parametrize("shape", [(0,), (10_001,), (2, 2), (-1,), (True,), (1.0,), ("3",)])
def test_a_shape_is_empty_or_one_length(shape):
    with pytest.raises(Exception, match="has shape"):
        Signal("a", shape=shape)


def test_arrays_of_text_are_refused():
    with pytest.raises(Exception, match="an array of strings"):
        Signal("a", Dtype.STRING, shape=(3,))
