"""Arrays in the SDK: what may be published, and the tables that are made of them."""

import numpy as np
import pytest

from broker.batch import BAD, Batch, Series, Source, Wide
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_sdk import History, Received, columns

SPEC = StreamSpec(
    StreamAddress("factory", "mill", "spindle"),
    (
        Signal("speed"),
        Signal("spectrum", shape=(3,)),
        Signal("counts", Dtype.INT64, shape=(2,)),
    ),
)
T0 = 1_700_000_000 * 10**9
TIMES = np.array([T0, T0 + 1, T0 + 2])
SPECTRA = np.arange(9.0).reshape(3, 3)


def test_one_array_or_one_for_each_time_is_published():
    frame = columns.frame_of(SPEC, TIMES, {"spectrum": SPECTRA, "counts": [1, 2]}, {})
    assert frame.values["spectrum"].tolist() == SPECTRA.tolist()
    assert frame.values["counts"].tolist() == [[1, 2]] * 3
    assert frame.values["counts"].dtype == np.int64
    single = columns.frame_of(SPEC, T0, {"spectrum": [1, 2, 3], "speed": 4}, {})
    assert single.values["spectrum"].tolist() == [[1.0, 2.0, 3.0]]
    frame.values["spectrum"][0] = 0
    assert SPECTRA[0].tolist() == [0.0, 1.0, 2.0]
    assert len(columns.frame_of(SPEC, [], {"spectrum": []}, {})) == 0


def test_three_arrays_of_three_are_one_for_each_time():
    frame = columns.frame_of(SPEC, TIMES[:1], {"spectrum": SPECTRA[:1]}, {})
    assert frame.values["spectrum"].shape == (1, 3)


@pytest.mark.parametrize(
    ("times", "values", "sentence"),
    [
        (TIMES, np.zeros((3, 2)), r"'spectrum' has the shape \(3, 2\) \(give the shape \(3, 3\)"),
        (TIMES, np.zeros((2, 3)), "3 arrays of 3 elements"),
        (TIMES, 1.0, r"has the shape \(\)"),
        (TIMES[:1], [1.0, 2.0], r"has the shape \(2,\)"),
        (TIMES[:1], np.zeros((1, 3, 1)), "give the shape"),
        (TIMES, [["a", "b", "c"]] * 3, "is <U1"),
        (np.arange(4_000) + T0, np.zeros((4_000, 3)), "12000 values at once"),
    ],
)
def test_another_shape_is_refused_with_the_right_one(times, values, sentence):
    with pytest.raises(Invalid, match=sentence):
        columns.frame_of(SPEC, times, {"spectrum": values}, {})


def test_an_array_with_an_element_that_is_no_number_is_bad_as_a_whole():
    values = SPECTRA.copy()
    values[1, 2] = np.inf
    frame = columns.frame_of(SPEC, TIMES, {"spectrum": values}, {"counts": [0, 0, 0]})
    assert frame.quality["spectrum"].tolist() == [0, BAD, 0]
    assert np.isnan(frame.values["spectrum"][1]).all()


def history() -> History:
    good = np.zeros(3, np.uint8)
    return History(
        SPEC,
        {
            "speed": Series(TIMES[:2], np.array([7.0, 8.0]), good[:2]),
            "spectrum": Series(TIMES[::2], SPECTRA[::2], good[:2]),
            "counts": Series(TIMES[:0], np.empty((0, 2), np.int64), good[:0]),
        },
        (),
    )


def test_a_table_has_a_column_for_each_element():
    times, table = history().table("speed", "spectrum")
    assert times.tolist() == TIMES.tolist()
    assert table.shape == (3, 4)
    assert table[0].tolist() == [7.0, 0.0, 1.0, 2.0]
    assert np.isnan(table[1, 1:]).all()
    _, filled = history().table("spectrum", "speed", fill="last")
    assert filled[1].tolist() == [0.0, 1.0, 2.0, 8.0]
    assert history().table("counts")[1].shape == (0, 2)


def test_a_data_frame_has_arrays_as_objects_or_a_column_for_each_element():
    pytest.importorskip("pandas")
    objects = history().pandas()
    assert list(objects.columns) == ["speed", "spectrum", "counts"]
    assert objects["spectrum"].iloc[0].tolist() == [0.0, 1.0, 2.0]
    assert objects["spectrum"].iloc[1] is None
    elements = history().pandas(elements=True)
    assert list(elements.columns) == [
        *("speed", "spectrum[0]", "spectrum[1]", "spectrum[2]", "counts[0]", "counts[1]")
    ]
    assert elements["spectrum[2]"].iloc[2] == 8.0
    assert str(elements["counts[1]"].dtype) == "Int64"


def test_a_batch_without_samples_of_an_array_has_none_of_its_shape():
    frame = Wide(TIMES[:1], {"speed": np.array([1.0])})
    received = Received(Batch(1, (frame,), Source.LIVE), SPEC, 0)
    assert received["spectrum"].values.shape == (0, 3)
    times, table = received.table("spectrum", "speed", fill="last")
    assert (len(times), table.shape) == (1, (1, 4))
