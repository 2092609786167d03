"""Columns to InfluxDB's line protocol."""

import numpy as np
import pytest

from broker.batch import BAD, GOOD, NUMPY, UNCERTAIN, Long, Series, Wide
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.stores import line_protocol
from testbed_api.stores.port import Block

HEAD = "factory/pump-rig/rig,space=live "


def series(times, values, quality=None, dtype=Dtype.FLOAT64):
    column = np.empty(len(times), NUMPY[dtype])
    column[:] = values
    codes = quality or [GOOD] * len(times)
    return Series(np.array(times, np.int64), column, np.array(codes, np.uint8))


def lines(*signals, **columns):
    spec = StreamSpec(StreamAddress("factory", "pump-rig", "rig"), signals)
    block = Block.of_series("live", spec, tuple(columns.items()))
    return [line.decode().removeprefix(HEAD) for line in line_protocol.lines(block)]


def framed(frame, *signals):
    spec = StreamSpec(StreamAddress("factory", "pump-rig", "rig"), signals)
    encoded = line_protocol.lines(Block("live", spec, (frame,)))
    return [line.decode().removeprefix(HEAD) for line in encoded]


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (Dtype.FLOAT64, 0.1, "0.1"),
        (Dtype.FLOAT64, -0.0, "-0.0"),
        (Dtype.FLOAT64, 5e-324, "5e-324"),
        (Dtype.INT64, -(2**63), "-9223372036854775808i"),
        (Dtype.BOOL, True, "t"),
        (Dtype.BOOL, False, "f"),
        (Dtype.STRING, "", '""'),
        (Dtype.STRING, 'a "b", c\\', '"a \\"b\\", c\\\\"'),
        (Dtype.STRING, "two\nlines", '"two\nlines"'),
    ],
)
def test_a_value_is_written_in_its_type(dtype, value, text):
    assert lines(Signal("a", dtype), a=series([7], [value], dtype=dtype)) == [f"a={text} 7"]


def test_signals_with_the_same_times_share_lines():
    columns = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0]), "c": np.array([5, -6])}
    signals = (Signal("a"), Signal("b"), Signal("c", Dtype.INT64))
    uncertain = {"b": np.array([GOOD, UNCERTAIN], np.uint8)}
    assert framed(Wide(np.array([1, 2]), columns), *signals) == [
        "a=1.0,b=3.0,c=5i 1",
        "a=2.0,b=4.0,c=-6i 2",
    ]
    assert framed(Wide(np.array([1, 2]), columns, uncertain), *signals) == [
        "a=1.0,b=3.0,c=5i 1",
        "a=2.0,b:uncertain=4.0,c=-6i 2",
    ]


@pytest.mark.parametrize("good", [True, False])
def test_samples_with_times_of_their_own_have_lines_of_their_own_in_bulk(good):
    quality = np.array([GOOD, GOOD, GOOD if good else BAD], np.uint8)
    values = np.array([1.0, 2.5, 3.0 if good else np.nan])
    signal, dtypes = np.array([1, 0, 1], np.int32), (Dtype.FLOAT64,) * 2
    long = Long(np.array([5, 6, 7]), signal, values, quality, ("a", "b c"), dtypes)
    last = "b\\ c=3.0 7" if good else "b\\ c:bad=t 7"
    assert sorted(framed(long, Signal("a"), Signal("b c"))) == sorted(
        ["a=2.5 6", "b\\ c=1.0 5", last]
    )


def test_signals_with_times_of_their_own_have_lines_of_their_own():
    encoded = lines(Signal("a"), Signal("b"), a=series([1], [1.0]), b=series([-2], [3.0]))
    assert encoded == ["a=1.0 1", "b=3.0 -2"]


def test_each_quality_has_a_field_of_its_own():
    columns = series([1, 2, 3], [1.0, 2.0, float("nan")], [GOOD, UNCERTAIN, BAD])
    assert lines(Signal("a"), a=columns) == ["a=1.0 1", "a:uncertain=2.0 2", "a:bad=t 3"]


def test_a_space_in_a_name_is_escaped():
    encoded = lines(Signal("Volume Flow RateRMS"), **{"Volume Flow RateRMS": series([1], [1.0])})
    assert encoded == ["Volume\\ Flow\\ RateRMS=1.0 1"]


def test_a_signal_called_time_does_not_become_the_field_that_influxdb_refuses():
    assert lines(Signal("time"), time=series([1], [1.0])) == ["time:=1.0 1"]


def test_a_signal_without_samples_makes_no_line():
    assert lines(Signal("a"), a=series([], [])) == []


def test_requests_are_bounded_by_lines_and_by_bytes(monkeypatch):
    monkeypatch.setattr(line_protocol, "MOST_LINES", 4)
    monkeypatch.setattr(line_protocol, "MOST_BYTES", 100)
    spec = StreamSpec(StreamAddress("factory", "pump-rig", "rig"), (Signal("a", Dtype.STRING),))
    short = Block.of_series(
        "live", spec, (("a", series(range(10), ["x"] * 10, dtype=Dtype.STRING)),)
    )
    long = Block.of_series(
        "live", spec, (("a", series([1, 2], ["y" * 200] * 2, dtype=Dtype.STRING)),)
    )
    bodies = list(line_protocol.bodies([short, long]))
    assert [body.count(b"\n") + 1 for body in bodies] == [2, 2, 2, 2, 2, 1, 1]
    assert b"\n".join(bodies).splitlines() == [
        *line_protocol.lines(short),
        *line_protocol.lines(long),
    ]
