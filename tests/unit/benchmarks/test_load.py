"""Source and checker agree on every sample, and the checker sees each way to be wrong."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import counting
from benchmarks.load import Load, item_of, node_name
from broker.batch import GOOD, Long
from broker.streams import Dtype

LOAD = Load(streams=3, signals=4, rate_hz=10.0, own=True)
STREAM = 1
FIRST, LAST = 17_000_000_000, 17_000_000_006


def whole():
    """All samples of one stream, as the source gives them."""
    signal, seqs = (each.ravel() for each in np.mgrid[0:4, FIRST:LAST])
    items = signal + STREAM * LOAD.signals
    return Long(
        LOAD.times_ns(items, seqs),
        signal.astype(np.int32),
        LOAD.values(items, seqs),
        np.full(len(seqs), GOOD, np.uint8),
        ("a", "b", "c", "d"),
        (Dtype.FLOAT64,) * 4,
    )


def compared(frame):
    return counting.compare(LOAD, STREAM, [frame], (FIRST, LAST))


def part(frame, chosen):
    columns = {
        name: getattr(frame, name)[chosen] for name in ("time_ns", "signal", "values", "quality")
    }
    return replace(frame, **columns)


def test_what_was_offered_is_neither_wrong_nor_silent():
    assert compared(whole()) == (24, 0, 0, 0)


def test_a_missing_sample_is_silent():
    assert compared(part(whole(), slice(1, None))) == (23, 0, 0, 1)


def test_a_sample_that_stands_twice_is_a_duplicate():
    assert compared(part(whole(), [0, *range(24)])) == (25, 1, 0, 0)


@pytest.mark.parametrize("column", ["time_ns", "values", "quality"])
def test_another_time_value_or_quality_is_wrong(column):
    frame = whole()
    changed = getattr(frame, column).copy()
    changed[5] += 1
    assert compared(replace(frame, **{column: changed})) == (24, 0, 1, 1)


def test_nothing_stored_is_all_silent():
    assert counting.compare(LOAD, STREAM, [], (FIRST, LAST)) == (0, 0, 0, 24)


def test_a_time_stamp_lies_in_the_period_of_its_number():
    items, seqs = np.arange(12)[:, None], np.arange(FIRST, LAST)[None, :]
    for own in (True, False):
        times_ns = replace(LOAD, own=own).times_ns(items, seqs)
        assert (times_ns // LOAD.period_ns == seqs).all()


def test_signals_of_a_stream_share_their_time_stamps_unless_they_have_their_own():
    items, seqs = np.arange(4)[:, None], np.arange(FIRST, LAST)[None, :]
    shared = replace(LOAD, own=False).times_ns(items, seqs)
    assert (shared == shared[0]).all()
    assert not (LOAD.times_ns(items, seqs) == LOAD.times_ns(items, seqs)[0]).all()


def test_a_node_names_its_item():
    assert item_of(node_name(17)) == 17
    with pytest.raises(ValueError, match="no node"):
        item_of("Load.x")
