"""Sorting: which stream a value goes to, what it becomes there, and which holes it ends."""

from typing import Any

import numpy as np
import pytest
from asyncua import ua

from broker.batch import BAD, GOOD, UNCERTAIN
from broker.streams import Dtype
from gateway.links.opcua.data_changes import FLOAT, INT, NO_TIME, NOTHING, OTHER, Changes
from gateway.links.opcua.demultiplex import LOST, OVERFLOW, Hole, Sorted, Sorter
from gateway.links.opcua.publish_requests import MOST_IN_FLIGHT, in_flight

FLOATS = (Dtype.FLOAT64, Dtype.FLOAT64)
MIXED = (Dtype.FLOAT64, Dtype.INT64, Dtype.STRING, Dtype.BOOL)
OVERFLOWED = 0x0480
UNCERTAIN_CODE = 0x40000000
NOW_NS = 777


def changes(*rows: tuple[int, int, Any, int]) -> Changes:
    """Rows of (handle, time_ns, value, status)."""
    values = [value for _, _, value, _ in rows]
    kinds = [_kind(one) for one in values]
    others = np.empty(len(rows), np.object_)
    for at, value in enumerate(values):
        others[at] = value
    return Changes(
        np.array([row[0] for row in rows], np.uint32),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.uint32),
        np.array(kinds, np.uint8),
        np.array([one if isinstance(one, float) else 0.0 for one in values]),
        np.array([one if type(one) is int and one < 2**63 else 0 for one in values], np.int64),
        others,
    )


def _kind(value: Any) -> int:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return FLOAT
    return INT if type(value) is int and value < 2**63 else OTHER


def settled(
    *feeds: list[tuple[int, int]], dtypes: tuple[tuple[Dtype, ...], ...] = (FLOATS,)
) -> Sorter:
    """A sorter whose items have all been heard of."""
    sorter = Sorter(feeds, dtypes)
    sorter.fresh[:] = False
    return sorter


def rows_of(found: Sorted) -> list[tuple[int, bool, list[tuple[Any, ...]]]]:
    plain = found.lot.parts() if found.lot else ()
    return [
        (
            stream,
            fresh,
            list(
                zip(
                    one.signal.tolist(),
                    one.time_ns.tolist(),
                    one.values.tolist(),
                    one.quality.tolist(),
                    strict=True,
                )
            ),
        )
        for stream, one, fresh in (*plain, *found.first, *found.parts)
    ]


def test_a_plain_publish_is_taken_whole_once_its_order_is_known() -> None:
    sorter = settled([(0, 0)], [(1, 0)], dtypes=(FLOATS, FLOATS))
    told = [changes((2, at, 1.0, 0), (1, at, 2.0, 0)) for at in range(1, 4)]
    lots = [sorter.sort(one, 9).lot for one in told]
    assert lots[0] is None
    assert lots[1] is not None
    assert lots[2] is not None
    assert lots[1].layout is lots[2].layout
    assert lots[2].layout.streams == (0, 1)
    assert lots[2].values.tolist() == [2.0, 1.0]
    assert sorter.sort(changes((2, 5, 1.0, OVERFLOWED), (1, 5, 2.0, 0)), 9).lot is None


def test_each_stream_gets_its_own_in_the_order_of_the_server() -> None:
    sorter = settled([(1, 0)], [(0, 1)], [(0, 0)], dtypes=(FLOATS, FLOATS))
    found = sorter.sort(changes((1, 5, 1.0, 0), (2, 6, 2.0, 0), (3, 7, 3.0, 0), (2, 8, 4.0, 0)), 9)
    assert rows_of(found) == [
        (0, False, [(1, 6, 2.0, GOOD), (0, 7, 3.0, GOOD), (1, 8, 4.0, GOOD)]),
        (1, False, [(0, 5, 1.0, GOOD)]),
    ]


def test_an_item_of_several_signals_goes_to_each_in_its_dtype() -> None:
    sorter = settled([(0, 0), (1, 1)], [(0, 1)], dtypes=(FLOATS, MIXED))
    found = sorter.sort(changes((1, 5, 3, 0), (2, 6, 2.5, 0)), 9)
    assert rows_of(found) == [
        (0, False, [(0, 5, 3.0, GOOD), (1, 6, 2.5, GOOD)]),
        (1, False, [(1, 5, 3, GOOD)]),
    ]


FITTING: list[tuple[Dtype, Any, int, Any, int, str]] = [
    (Dtype.FLOAT64, 1.5, UNCERTAIN_CODE, 1.5, UNCERTAIN, ""),
    (Dtype.FLOAT64, float("inf"), 0, None, BAD, "no finite"),
    (Dtype.FLOAT64, "x", 0, None, BAD, "a str is no float64"),
    (Dtype.FLOAT64, None, 0, None, BAD, "a NoneType is no float64"),
    (Dtype.FLOAT64, 2**63, 0, 2.0**63, GOOD, ""),
    (Dtype.INT64, 2**63, 0, 0, BAD, "beyond int64"),
    (Dtype.INT64, 1.0, 0, 0, BAD, "a float is no int64"),
    (Dtype.STRING, "text", 0, "text", GOOD, ""),
    (Dtype.STRING, ua.LocalizedText("text"), 0, "text", GOOD, ""),
    (Dtype.STRING, "\udc80", 0, "", BAD, "no UTF-8"),
    (Dtype.STRING, None, 0x80000000, "", BAD, ""),
    (Dtype.BOOL, 1, 0, False, BAD, "a int is no bool"),
]


@pytest.mark.parametrize(("dtype", "value", "status", "kept", "quality", "reason"), FITTING)
def test_a_value_that_is_none_of_its_signal_is_bad(
    dtype, value, status, kept, quality, reason
) -> None:
    found = settled([(0, 0)], dtypes=((dtype,),)).sort(changes((1, 5, value, status)), 9)
    ((_, _, ((_, _, got, code),)),) = rows_of(found)
    assert code == quality
    assert got != got if kept is None else got == kept  # noqa: PLR0124 - NaN
    assert bool(found.unfit) == bool(reason)
    assert all(reason in said for _, _, said in found.reasons)


def test_what_is_no_sample_yet_and_who_is_not_known_are_passed_over() -> None:
    waiting = ua.StatusCodes.BadWaitingForInitialData
    sorter = Sorter([[(0, 0)]], (FLOATS,))
    found = sorter.sort(changes((1, 5, None, waiting), (2, 5, 1.0, 0), (0, 5, 1.0, 0)), 9)
    assert (found.parts, found.holes, sorter.fresh[1]) == ([], [], True)


def test_a_sample_without_a_time_gets_that_of_its_coming() -> None:
    found = settled([(0, 0)]).sort(changes((1, NO_TIME, 1.0, 0)), NOW_NS)
    assert rows_of(found) == [(0, False, [(0, NOW_NS, 1.0, GOOD)])]


def test_first_samples_end_a_hole_and_go_first() -> None:
    sorter = Sorter([[(0, 0)], [(0, 1)]], (FLOATS,))
    sorter.fresh[2] = False
    found = sorter.sort(changes((2, 4, 0.0, 0), (1, 5, 1.0, 0), (1, 6, 2.0, 0)), 9)
    assert found.holes == [Hole(0, 0, None, 5, None)]
    assert [(fresh, [row[1] for row in rows]) for _, fresh, rows in rows_of(found)] == [
        (True, [5]),
        (False, [4, 6]),
    ]
    assert sorter.sort(changes((1, 7, 1.0, 0)), 9).holes == []


def test_after_a_lost_publish_the_next_sample_of_each_item_ends_a_hole() -> None:
    sorter = settled([(0, 0)], [(0, 1)])
    sorter.lost[:] = True
    assert sorter.sort(changes((1, 5, 1.0, 0), (1, 6, 1.0, 0)), 9).holes == [
        Hole(0, 0, None, 5, LOST)
    ]
    assert sorter.sort(changes((2, 7, 1.0, 0)), 9).holes == [Hole(0, 1, None, 7, LOST)]


def test_an_overflow_is_a_hole_after_the_sample_before_it() -> None:
    rows = changes((1, 5, 1.0, OVERFLOWED), (2, 6, 1.0, 0), (1, 9, 1.0, OVERFLOWED))
    assert settled([(0, 0)], [(0, 1)]).sort(rows, 9).holes == [
        Hole(0, 0, None, 5, OVERFLOW),
        Hole(0, 0, 5, 9, OVERFLOW),
    ]


def test_a_node_that_is_gone_and_comes_back_is_told_once_each() -> None:
    sorter, gone = settled([(0, 0)]), ua.StatusCodes.BadNodeIdUnknown
    first = sorter.sort(changes((1, 5, None, gone)), 9)
    again = sorter.sort(changes((1, 6, None, gone)), 9)
    back = sorter.sort(changes((1, 7, 1.0, 0)), 9)
    assert [(one.gone, one.back) for one in (first, again, back)] == [
        ([1], []),
        ([], []),
        ([], [1]),
    ]


def test_requests_in_flight_grow_with_subscriptions_and_rate() -> None:
    assert in_flight(1, 0) == 2
    assert in_flight(3, 1_000) == 4
    assert in_flight(1, 50_000) == 6
    assert in_flight(100, 10**6) == MOST_IN_FLIGHT
