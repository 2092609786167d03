"""The arrays that a prototype publishes, checked against its spec."""

import numpy as np
import pytest

from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_sdk import columns

SPEC = StreamSpec(StreamAddress("company", "detector", "score"), (Signal("score"),))
TIMES = np.arange(13)


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
