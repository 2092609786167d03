"""The arrays that a prototype publishes, checked against its spec."""

from datetime import UTC, datetime

import numpy as np
import pytest

from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_sdk import columns

SPEC = StreamSpec(StreamAddress("company", "detector", "score"), (Signal("score"),))
TIMES = 1_796_000_000 * 10**9 + np.arange(13)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((13, 1), r"'score' has the shape \(13, 1\) \(give 13 values: table\[:, 0\]\)"),
        ((13, 8), r"'score' has the shape \(13, 8\) \(give 13 values: one column of it\)"),
        ((12,), "'score' has 12 values for 13 times"),
    ],
)
def test_values_that_are_not_one_for_each_time_are_refused(shape, sentence):
    with pytest.raises(Invalid, match=sentence):
        columns.frame_of(SPEC, TIMES, {"score": np.zeros(shape)}, {})


def test_one_column_of_a_table_is_taken():
    frame = columns.frame_of(SPEC, TIMES, {"score": np.ones((13, 1))[:, 0]}, {})
    assert frame.values["score"].tolist() == [1.0] * 13


NOW_NS = 1_796_000_000 * 10**9
FLAGS = StreamSpec(
    StreamAddress("company", "detector", "score"),
    (Signal("score"), Signal("anomaly", Dtype.BOOL), Signal("state", Dtype.STRING)),
)


def test_one_value_is_that_of_all_times():
    values = {"score": 0.5, "anomaly": True, "state": "worn"}
    frame = columns.frame_of(FLAGS, NOW_NS + np.arange(3), values, {})
    assert {name: column.tolist() for name, column in frame.values.items()} == {
        "score": [0.5] * 3,
        "anomaly": [True] * 3,
        "state": ["worn"] * 3,
    }
    with pytest.raises(Invalid, match="'score' has 1 values for 3 times"):
        columns.frame_of(FLAGS, NOW_NS + np.arange(3), {"score": [0.5]}, {})


def test_a_batch_without_a_time_is_empty():
    for times in ([], np.empty(0, np.int64), np.empty(0)):
        for flags in ([], np.empty(0, np.bool_), True):
            frame = columns.frame_of(FLAGS, times, {"score": [], "anomaly": flags}, {})
            assert (len(frame), frame.values["anomaly"].dtype) == (0, np.bool_)
    with pytest.raises(Invalid, match="'score' has 2 values for 0 times"):
        columns.frame_of(FLAGS, [], {"score": [0.1, 0.2]}, {})


@pytest.mark.parametrize("given", [1_796_000_000, 1_796_000_000_000, 1_796_000_000_000_000, -1])
def test_times_in_seconds_or_ms_are_refused_and_not_published_in_1970(given):
    with pytest.raises(Invalid, match=r"which in ns is 19.*were seconds or ms given"):
        columns.frame_of(SPEC, [NOW_NS, given], {"score": 0.0}, {})


def test_times_are_ns_or_datetime64_of_ns():
    times = np.array([NOW_NS, NOW_NS + 1], "datetime64[ns]")
    frame = columns.frame_of(SPEC, times, {"score": 0.0}, {})
    assert frame.time_ns.tolist() == [NOW_NS, NOW_NS + 1]
    for other in (
        1.796e9,
        times.astype("datetime64[ms]"),
        "2026-11-30",
        [datetime(2026, 11, 30, tzinfo=UTC)],
    ):
        with pytest.raises(Invalid, match=r"give ns since 1970.*time\.time_ns\(\)"):
            columns.frame_of(SPEC, other, {"score": 0.0}, {})
    with pytest.raises(Invalid, match="have the shape"):
        columns.frame_of(SPEC, times.reshape(1, 2), {"score": 0.0}, {})
