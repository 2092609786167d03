"""Arrays of a source: how links, pipeline and framing pass them on."""

import numpy as np
import pytest
from asyncua import ua

from broker import codec
from broker.batch import BAD, GOOD, Batch, Long, Source, Wide
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import ArrayOf, Dtype, Signal, StreamSpec
from gateway.links import values
from gateway.links.mqtt import payloads
from gateway.links.opcua import shapes
from gateway.links.opcua.data_changes import FLOAT, NOTHING, OTHER, DataChanges
from gateway.links.opcua.demultiplex import Demultiplexer
from gateway.links.opcua.resolution import ResolvedNode
from gateway.links.values import ElementOf, Unfit
from gateway.mapping import file as mapping_file
from gateway.mapping.model import Item
from gateway.mapping.mqtt_source import MqttSource, TimeForm
from gateway.pipeline.batching import Batcher
from gateway.pipeline.framing import frames
from gateway.pipeline.latest_samples import LatestSamples
from gateway.samples import Samples

SPEC = StreamSpec(
    StreamAddress("factory", "mill", "spindle"),
    (Signal("speed"), Signal("spectrum", shape=(3,)), Signal("on", Dtype.BOOL, shape=(2,))),
)
THREE = ArrayOf(Dtype.FLOAT64, 3)
HEAD = """
organisation: factory
equipment: mill
kind: real
{source}
streams:
  spindle:
    signals:
"""
OPCUA = 'opcua: {url: "opc.tcp://127.0.0.1:4840", security: none}'
MQTT = 'mqtt: {url: "mqtt://127.0.0.1:1883"}'


def mapped(*signals: str, source: str = OPCUA):
    lines = [f"      {signal}" for signal in signals]
    return mapping_file.read(HEAD.format(source=source) + "\n".join(lines), "m.yaml")


def changes(*items) -> DataChanges:
    """Data changes of items (handle, value)."""
    others = np.empty(len(items), np.object_)
    for at, (_, value) in enumerate(items):
        others[at] = value
    is_float = np.array([isinstance(value, float) for _, value in items])
    kinds = [NOTHING if value is None else OTHER for _, value in items]
    return DataChanges(
        handle=np.array([handle for handle, _ in items], np.uint32),
        time_ns=np.arange(1, len(items) + 1),
        status=np.array([0x80000000 if v is None else 0 for _, v in items], np.uint32),
        kind=np.where(is_float, FLOAT, kinds).astype(np.uint8),
        floats=np.array([v if isinstance(v, float) else 0.0 for _, v in items]),
        ints=np.empty(0, np.int64),
        others=others,
    )


@pytest.mark.parametrize(
    ("value", "reading", "reason"),
    [
        ([1.0, 2.0], THREE, "its array has 2 elements, the mapping says 3"),
        (1.0, THREE, "a float is no array"),
        ("1 2 3", THREE, "a str is no array"),
        ([1.0, float("nan"), 2.0], THREE, "element 1: it is no finite number"),
        ([1.0, None, 2.0], THREE, "element 1: a NoneType is no float64"),
        ([[1.0], 2.0, 3.0], THREE, "element 0: a list is no float64"),
        ([1, 2**63], ArrayOf(Dtype.INT64, 2), "element 1: it is beyond int64"),
        ([1.0, 2.0], ElementOf(Dtype.FLOAT64, 2), "its array of 2 has no element 2"),
        ([1.0, 2.0], Dtype.FLOAT64, "a list is no float64"),
    ],
)
def test_a_value_that_is_no_such_array_is_unfit_with_its_reason(value, reading, reason):
    with pytest.raises(Unfit) as unfit:
        values.read(value, reading)
    assert str(unfit.value) == reason


def test_an_array_is_a_tuple_in_the_dtype_of_its_signal():
    assert values.read([1, 2.5, 3], THREE) == (1.0, 2.5, 3.0)
    assert values.read([True, False], ArrayOf(Dtype.BOOL, 2)) == (True, False)
    assert values.read([7, 8, 9], ElementOf(Dtype.INT64, 1)) == 8


def test_items_feed_arrays_and_single_elements_of_them():
    readings = (Dtype.FLOAT64, THREE, ElementOf(Dtype.FLOAT64, 2))
    demultiplexer = Demultiplexer([[(0, 0)], [(0, 1), (0, 2)]], (readings,))
    demultiplexer.items.fresh[:] = False
    result = demultiplexer.demultiplex(
        changes((1, 4.5), (2, [1.0, 2.0, 3.0]), (2, [1.0, 2.0]), (2, None)), 99
    )
    [part] = result.parts
    rows = list(zip(part.samples.signal, part.samples.values, part.samples.quality, strict=True))
    assert rows[:3] == [(0, 4.5, GOOD), (1, (1.0, 2.0, 3.0), GOOD), (2, 3.0, GOOD)]
    assert [(signal, code) for signal, _, code in rows[3:]] == [(1, BAD), (2, BAD)] * 2
    assert all(len(value) == 3 for signal, value, _ in rows if signal == 1)
    assert result.unfit == 2
    assert {reason for *_, reason in result.reasons} == {
        "its array has 2 elements, the mapping says 3",
        "its array of 2 has no element 2",
    }


def test_a_stream_of_elements_alone_keeps_its_dtype():
    readings = (ElementOf(Dtype.FLOAT64, 0), ElementOf(Dtype.FLOAT64, 1))
    demultiplexer = Demultiplexer([[(0, 0), (0, 1)]], (readings,))
    demultiplexer.items.fresh[:] = False
    [part] = demultiplexer.demultiplex(changes((1, [5.0, 6.0])), 99).parts
    assert part.samples.values.dtype == np.float64
    assert part.samples.values.tolist() == [5.0, 6.0]


def samples(*rows) -> Samples:
    return Samples.from_rows(SPEC.dtypes, rows, has_arrays=True)


def test_arrays_are_framed_and_come_back_from_the_wire():
    shared = samples(
        *((0, 1, 1.5, GOOD), (1, 1, (1.0, 2.0, 3.0), GOOD), (2, 1, (True, False), GOOD))
    )
    apart = samples((1, 1, (1.0, 2.0, 3.0), GOOD), (0, 2, 1.5, GOOD), (1, 3, (0.0,) * 3, BAD))
    for given, kind in ((shared, Wide), (apart, Long)):
        framed = tuple(frames(given, SPEC))
        assert [type(frame) for frame in framed] == [kind]
        batch = Batch(1, framed, Source.LIVE)
        decoded, misfits = codec.decode(codec.encode(batch), SPEC)
        assert misfits == ()
        assert len(decoded) == 3
        assert decoded["spectrum"].values[0].tolist() == [1.0, 2.0, 3.0]
        assert decoded["speed"].values.tolist() == [1.5]


def test_the_last_array_of_a_signal_is_known_again():
    last = LatestSamples(SPEC.dtypes)
    first = samples((0, 1, 2.0, GOOD), (1, 1, (1.0, 2.0, 3.0), GOOD))
    last.remember(first, 5)
    again = samples((1, 1, (1.0, 2.0, 3.0), GOOD), (1, 1, (1.0, 2.0, 4.0), GOOD))
    assert last.equals(again).tolist() == [True, False]
    assert last.equals(first).tolist() == [True, True]


@pytest.mark.parametrize("size", [100, 3_000, 10_000])
def test_no_batch_of_arrays_is_larger_than_a_message(size):
    signals = (Signal("w", shape=(size,)),)
    spec = StreamSpec(SPEC.address, signals)
    stream = mapped(f"w: {{node: 'i=1', shape: [{size}]}}").streams[0]
    worst = (-1.2345678901234567e-308,) * size
    rows = [(0, time_ns, worst, GOOD) for time_ns in range(2**62, 2**62 + 150)]
    batcher = Batcher(stream, Source.LIVE)
    given = Samples.from_rows(spec.dtypes, rows, has_arrays=True)
    batches = [*batcher.add(given, 0), *batcher.cut()]
    assert sum(map(len, batches)) == 150
    for batch in batches:
        assert codec.decode(codec.encode(batch), spec) == (batch, ())


@pytest.mark.parametrize(
    ("signal", "sentence"),
    [
        ("w: {node: 'i=1', shape: [0]}", "it must be 1 or more"),
        ("w: {node: 'i=1', shape: [2, 2]}", "the greatest number is 1"),
        ("w: {node: 'i=1', shape: [3], deadband: 1}", "an array has no deadband"),
        ("w: {node: 'i=1', shape: [3], element: 0}", "write one"),
        ("w: {node: 'i=1', shape: [3], dtype: string}", "an array of strings is not supported"),
        ("w: {node: 'i=1', element: -1}", "it must be 0 or more"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_a_sentence(signal, sentence):
    with pytest.raises(Invalid) as refused:
        mapped(signal)
    assert sentence in str(refused.value)


def test_elements_are_named_by_pointers_over_mqtt():
    with pytest.raises(Invalid, match="mqtt knows no such field"):
        mapped("w: {topic: a, element: 1}", source=MQTT)


def test_a_mapping_says_what_each_signal_reads():
    stream = mapped("w: {node: 'i=1', shape: [3]}", "x: {node: 'i=1', element: 2}").streams[0]
    assert shapes.readings(stream) == (THREE, ElementOf(Dtype.FLOAT64, 2))
    assert stream.spec.dtypes == (THREE, Dtype.FLOAT64)
    assert stream.spec.signal("x").node == "i=1[2]"


@pytest.mark.parametrize(
    ("is_array", "length", "shape", "element", "sentence"),
    [
        (True, 256, (), None, "it is an array: write shape: [256], or element: 0"),
        (True, 0, (), None, "write shape: [LENGTH]"),
        (False, 0, (3,), None, "leave out shape"),
        (False, 0, (), 1, "leave out element"),
        (True, 3, (3,), None, ""),
        (None, 0, (3,), None, ""),
        (None, 0, (), None, ""),
    ],
)
def test_a_node_of_another_shape_is_not_read(is_array, length, shape, element, sentence):
    node = ResolvedNode(ua.NodeId(1), ua.VariantType.Double, "", is_array, length)
    signal = Signal("w", shape=shape)
    problem = shapes.misread(node, signal, Item(MqttSource(topic="t"), 0.0, element))
    assert sentence in problem
    assert bool(sentence) == bool(problem)


def test_a_length_that_the_server_states_otherwise_is_told():
    node = ResolvedNode(ua.NodeId(1), ua.VariantType.Double, is_array=True, length=4)
    source = MqttSource(topic="t")
    assert "write shape: [4]" in shapes.misfit(node, Signal("w", shape=(3,)), Item(source))
    assert "no element 4" in shapes.misfit(node, Signal("w"), Item(source, 0.0, 4))
    assert not shapes.misfit(node, Signal("w", shape=(4,)), Item(source))


def test_json_arrays_are_read_by_a_pointer_or_as_the_whole_payload():
    at = MqttSource(topic="t", value=("fft",), time=None, form=TimeForm.ISO8601)
    whole = MqttSource(topic="t")
    (read,) = payloads.read(b'{"fft": [1, 2.5, "3"]}', at, THREE, 7)
    assert read == (7, (1.0, 2.5, 3.0), GOOD, "")
    assert payloads.read(b"[1,2,3]", whole, THREE, 7)[0].value == (1.0, 2.0, 3.0)
    assert payloads.read(b'{"other": 1}', at, THREE, 7) == []
    for payload, reason in (
        (b'{"fft": [1, 2]}', "t#/fft: its array has 2 elements, the mapping says 3"),
        (b'{"fft": "1,2,3"}', "t#/fft: a str is no array"),
        (b'{"fft": [1, null, 3]}', "t#/fft: element 1: a NoneType is no float64"),
    ):
        (bad,) = payloads.read(payload, at, THREE, 7)
        assert (bad.quality, bad.reason) == (BAD, reason)
        assert len(bad.value) == 3
