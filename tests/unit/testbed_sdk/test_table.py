"""Tables of batches and histories: which value stands in a row, and in which dtype."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from broker.batch import (
    BAD,
    GOOD,
    NO_VALUE,
    NUMPY,
    UNCERTAIN,
    Batch,
    Gap,
    Long,
    Series,
    Source,
    Wide,
)
from broker.errors import Invalid, Refused
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_sdk import History, Received
from testbed_sdk.table import LastSample, LastSamples

SPEC = StreamSpec(
    StreamAddress("factory", "press", "plc"),
    (
        Signal("p"),
        Signal("n", Dtype.INT64),
        Signal("on", Dtype.BOOL),
        Signal("word", Dtype.STRING),
    ),
)
BIG = 2**62 + 1
Rows = Sequence[tuple[int, Any, int]]
NAN = pytest.approx(float("nan"), nan_ok=True)


def series(name: str, rows: Rows) -> Series:
    dtype = SPEC.signal(name).dtype
    column = np.empty(len(rows), NUMPY[dtype])
    for at, (_, value, code) in enumerate(rows):
        column[at] = NO_VALUE[dtype] if code == BAD else value
    times = np.array([time for time, _, _ in rows], np.int64)
    return Series(times, column, np.array([code for *_, code in rows], np.uint8))


def history(gaps: tuple[Gap, ...] = (), **named: Rows) -> History:
    return History(SPEC, {name: series(name, named.get(name, ())) for name in SPEC.names}, gaps)


def filled(stored: History, *signals: str) -> list[list[Any]]:
    """The rows of the filled table, each with its time."""
    times, values = stored.table(*signals, fill="last")
    return [[time, *row] for time, row in zip(times.tolist(), values.tolist(), strict=True)]


def test_the_last_value_is_carried_forward_and_never_back() -> None:
    stored = history(p=[(2, 1.5, GOOD), (6, 2.5, UNCERTAIN)], n=[(1, 7, GOOD), (4, 8, GOOD)])
    assert filled(stored, "p", "n") == [[1, NAN, 7], [2, 1.5, 7], [4, 1.5, 8], [6, 2.5, 8]]
    times, values = stored.table("p", "n")
    assert times.tolist() == [1, 2, 4, 6]
    assert values.tolist() == [[NAN, 7], [1.5, NAN], [NAN, 8], [2.5, NAN]]


def test_a_signal_that_a_history_does_not_have_is_named() -> None:
    stored = History(SPEC, {"p": series("p", [(1, 1.0, GOOD)])}, ())
    for read in (stored.__getitem__, stored.table, stored.pandas):
        with pytest.raises(Invalid, match=r"no signal 'n': it was not asked for \(it has p\)"):
            read("n")
        with pytest.raises(Invalid, match="factory/press/plc has no signal 'none'"):
            read("none")


def test_nothing_is_carried_over_a_bad_sample() -> None:
    stored = history(
        p=[(1, 1.0, GOOD), (3, 0, BAD), (5, 5.0, GOOD)], n=[(at, at, GOOD) for at in range(7)]
    )
    carried = [row[1] for row in filled(stored, "p", "n")]
    assert carried == [NAN, 1.0, 1.0, NAN, NAN, 5.0, 5.0]


@pytest.mark.parametrize(
    ("gap", "carried"),
    [
        (Gap((), 3, 5, "gateway-down"), [1, 1, NAN, NAN, NAN, NAN, 7]),
        (Gap(("p",), 3, 5, "server-overflow"), [1, 1, NAN, NAN, NAN, NAN, 7]),
        (Gap(("n",), 3, 5, "server-overflow"), [1, 1, 1, 1, 1, 1, 7]),
        (Gap((), 1, 3, "gateway-down"), [1, NAN, NAN, NAN, NAN, NAN, 7]),
        (Gap((), -5, 1, "gateway-down"), [1, 1, 1, 1, 1, 1, 7]),
        (Gap((), 7, 9, "gateway-down"), [1, 1, 1, 1, 1, 1, 7]),
    ],
    ids=["of all", "of the signal", "of another", "from its time on", "until its time", "later"],
)
def test_nothing_is_carried_over_a_gap_of_the_signal(gap: Gap, carried: list[Any]) -> None:
    rows = [(at, True, GOOD) for at in range(1, 8)]
    stored = history((gap,), p=[(1, 1, GOOD), (7, 7, GOOD)], on=rows)
    assert [row[1] for row in filled(stored, "p", "on")] == carried


def test_a_sample_inside_a_gap_stays() -> None:
    stored = history((Gap((), 2, 6, "lost"),), p=[(1, 1, GOOD), (4, 4, GOOD)], n=[(5, 5, GOOD)])
    assert filled(stored, "p", "n") == [[1, 1, NAN], [4, 4, NAN], [5, NAN, 5]]


def test_another_way_to_fill_is_refused_with_the_word() -> None:
    with pytest.raises(Invalid, match='fill="last"'):
        history(p=[(1, 1, GOOD)]).table(fill="linear")


def test_a_table_of_texts_carries_them_too() -> None:
    stored = history(word=[(1, "", GOOD), (3, "run", GOOD)], on=[(2, True, GOOD)])
    assert filled(stored, "word", "on") == [[1, "", None], [2, "", True], [3, "run", True]]


def test_an_empty_history_is_an_empty_table() -> None:
    times, values = history().table(fill="last")
    assert (times.shape, values.shape) == ((0,), (0, 4))
    frame = history().pandas(fill="last")
    assert (list(frame.columns), len(frame)) == ([*SPEC.names], 0)
    assert str(frame.index.dtype) == "datetime64[ns, UTC]"


T0 = 1_700_000_000_123_456_789


def test_a_data_frame_keeps_each_dtype_and_the_nanoseconds() -> None:
    rows = {
        "p": [(T0, 1.5, GOOD)],
        "n": [(T0, BIG, GOOD)],
        "on": [(T0, True, GOOD)],
        "word": [(T0, "ä", GOOD)],
    }
    frame = history(**rows).pandas()
    assert frame.index.name == "time"
    assert str(frame.index.dtype) == "datetime64[ns, UTC]"
    assert frame.index[0].value == T0
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "bool", "string"]
    assert frame.iloc[0].tolist() == [1.5, BIG, True, "ä"]


def test_a_column_with_missing_values_is_nullable() -> None:
    stored = history(
        p=[(1, 1.5, GOOD)],
        n=[(1, BIG, GOOD), (2, 0, BAD)],
        on=[(2, False, GOOD)],
        word=[(3, "x", GOOD)],
    )
    frame = stored.pandas()
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "Int64", "boolean", "string"]
    assert frame["n"].tolist() == [BIG, pd.NA, pd.NA]
    assert frame["on"].tolist() == [pd.NA, False, pd.NA]
    assert frame["word"].isna().tolist() == [True, True, False]
    carried = stored.pandas("on", "n", fill="last")
    assert carried["n"].isna().tolist() == [False, True]
    assert carried["on"].tolist() == [pd.NA, False]


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Refused, match=r"needs pandas.*connected-testbed\[pandas\]"):
        history().pandas()


def batch(*frames: Wide | Long, gaps: tuple[Gap, ...] = ()) -> Batch:
    return Batch(1, frames, Source.LIVE, gaps=gaps)


def wide(times: Sequence[int], values: Sequence[float], quality: Sequence[int] = ()) -> Wide:
    codes = {"p": np.array(quality, np.uint8)} if quality else {}
    return Wide(np.array(times, np.int64), {"p": np.array(values, np.float64)}, codes)


def test_a_batch_begins_with_the_last_value_of_an_earlier_one() -> None:
    received = Received(
        batch(wide([10, 12], [1.0, 2.0])),
        SPEC,
        0,
        earlier={"on": LastSample(4, value=True, quality=GOOD), "n": LastSample(11, BIG, GOOD)},
    )
    times, values = received.table("p", "on", "n", fill="last")
    assert times.tolist() == [10, 12]
    assert values.tolist() == [[1.0, 1.0, NAN], [2.0, 1.0, pytest.approx(BIG)]]
    frame = received.pandas("on", "n", fill="last")
    assert frame.empty  # neither has a sample of its own
    frame = received.pandas("p", "on", "n", fill="last")
    assert frame["on"].tolist() == [True, True]
    assert frame["n"].tolist() == [pd.NA, BIG]
    assert received.pandas("p", "on")["on"].isna().all()


def test_a_gap_of_the_batch_ends_an_earlier_value() -> None:
    gap = Gap(("on",), 5, 9, "server-overflow")
    earlier = {"on": LastSample(4, value=True, quality=GOOD), "n": LastSample(4, 1, GOOD)}
    received = Received(batch(wide([10], [1.0]), gaps=(gap,)), SPEC, 0, earlier=earlier)
    assert received.table("p", "on", "n", fill="last")[1].tolist() == [[1.0, NAN, 1.0]]


def test_an_earlier_sample_that_was_bad_is_carried_nowhere() -> None:
    earlier = {"p": LastSample(4, 0.0, BAD)}
    received = Received(batch(wide([5, 6], [0.0, 6.0], [BAD, GOOD])), SPEC, 0, earlier=earlier)
    assert received.table("p", fill="last")[1].tolist() == [[NAN], [6.0]]


def test_the_newest_sample_of_each_signal_is_known_until_something_is_missing() -> None:
    samples = LastSamples()
    long = Long(
        np.array([7, 3, 5], np.int64),
        np.array([1, 1, 2], np.int32),
        np.array([70, 30, True], object),
        np.array([GOOD, GOOD, UNCERTAIN], np.uint8),
        SPEC.names,
        SPEC.dtypes,
    )
    samples.take(batch(wide([9, 8], [9.0, 8.0]), long))
    known = samples.known()
    assert known == {
        "p": LastSample(9, 9.0, GOOD),
        "n": LastSample(7, 70, GOOD),
        "on": LastSample(5, value=True, quality=UNCERTAIN),
    }
    samples.take(batch(wide([2], [0.0])))  # late: the newest stays
    assert samples.known() == known
    samples.take(batch(wide([12, 13], [0.0, 0.0], [GOOD, BAD])))
    assert samples.known()["p"].quality == BAD
    samples.take(batch(gaps=(Gap(("n",), 1, 7, "lost"), Gap(("on",), 5, 6, "lost"))))
    assert set(samples.known()) == {"p", "n"}
    samples.take(batch(gaps=(Gap((), 20, 30, "gateway-down"),)))
    assert samples.known() == {}


class Columns(dict[str, Any]):
    """Columns of a frame that note which of them were read."""

    def __init__(self, **columns: Any) -> None:
        super().__init__(columns)
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Any:
        self.read.append(name)
        return super().__getitem__(name)


def test_a_batch_costs_no_look_at_a_value_until_a_table_asks() -> None:
    columns = Columns(p=np.array([1.0, 2.0]), on=np.array([True, False]))
    samples = LastSamples()
    samples.take(Batch(1, (Wide(np.array([1, 2], np.int64), columns),), Source.LIVE))
    received = Received(batch(wide([10], [9.0])), SPEC, 0, earlier=samples.known())
    received.table("p", "on")
    assert columns.read == []
    assert received.table("p", "on", fill="last")[1].tolist() == [[9.0, 0.0]]
    assert columns.read == ["p", "on"]


def test_a_batch_keeps_what_was_known_before_it_while_later_ones_come() -> None:
    samples = LastSamples()
    samples.take(batch(wide([1], [1.0])))
    before = samples.known()
    samples.take(batch(wide([2], [2.0])))
    samples.clear()
    assert before == {"p": LastSample(1, 1.0, GOOD)}
    assert samples.known() == {}
