"""Demultiplexing: the stream and the dtype of each value, and the gaps that it ends."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from asyncua import ua

from broker.batch import BAD, GOOD, UNCERTAIN
from broker.streams import Dtype
from gateway.links.opcua.data_changes import (
    FLOAT,
    INT,
    NO_TIME,
    NOTHING,
    OTHER,
    TIME,
    DataChanges,
)
from gateway.links.opcua.demultiplex import Demultiplexer
from gateway.links.opcua.demultiplexed import LOST, OVERFLOW, Demultiplexed
from gateway.links.opcua.general_path import GeneralPath
from gateway.links.opcua.plain_path import PlainLotPath
from gateway.links.opcua.publish_requests import MOST_IN_FLIGHT, in_flight
from gateway.links.port import PossibleGap
from gateway.links.values import Instant

FLOATS = (Dtype.FLOAT64, Dtype.FLOAT64)
MIXED = (Dtype.FLOAT64, Dtype.INT64, Dtype.STRING, Dtype.BOOL)
OVERFLOWED = 0x0480
UNCERTAIN_CODE = 0x40000000
NOW_NS = 777


def changes(*rows: tuple[int, int, Any, int]) -> DataChanges:
    """Rows of (handle, time_ns, value, status)."""
    values = [value for _, _, value, _ in rows]
    kinds = [_kind(value) for value in values]
    others = np.empty(len(rows), np.object_)
    for at, value in enumerate(values):
        others[at] = value
    return DataChanges(
        handle=np.array([row[0] for row in rows], np.uint32),
        time_ns=np.array([row[1] for row in rows], np.int64),
        status=np.array([row[3] for row in rows], np.uint32),
        kind=np.array(kinds, np.uint8),
        floats=np.array([value if isinstance(value, float) else 0.0 for value in values]),
        ints=np.array([value if _kind(value) in {INT, TIME} else 0 for value in values], np.int64),
        others=others,
    )


def _kind(value: Any) -> int:
    if value is None:
        return NOTHING
    if isinstance(value, Instant) and -(2**63) <= value < 2**63:
        return TIME
    if isinstance(value, float):
        return FLOAT
    return INT if type(value) is int and value < 2**63 else OTHER


def settled(
    *feeds: list[tuple[int, int]], dtypes: tuple[tuple[Dtype, ...], ...] = (FLOATS,)
) -> Demultiplexer:
    """A demultiplexer whose items have all been heard of."""
    demultiplexer = Demultiplexer(feeds, dtypes)
    demultiplexer.items.fresh[:] = False
    return demultiplexer


def rows_of(result: Demultiplexed) -> list[tuple[int, bool, list[tuple[Any, ...]]]]:
    plain = result.lot.parts() if result.lot else ()
    return [
        (
            stream,
            fresh,
            list(
                zip(
                    samples.signal.tolist(),
                    samples.time_ns.tolist(),
                    samples.values.tolist(),
                    samples.quality.tolist(),
                    strict=True,
                )
            ),
        )
        for stream, samples, fresh, _ in (*plain, *result.first, *result.parts)
    ]


def test_a_plain_publish_is_taken_whole_once_its_order_is_known() -> None:
    demultiplexer = settled([(0, 0)], [(1, 0)], dtypes=(FLOATS, FLOATS))
    publishes = [changes((2, at, 1.0, 0), (1, at, 2.0, 0)) for at in range(1, 4)]
    lots = [demultiplexer.demultiplex(publish, 9).lot for publish in publishes]
    assert lots[0] is None
    assert lots[1] is not None
    assert lots[2] is not None
    assert lots[1].layout is lots[2].layout
    assert lots[2].layout.streams == (0, 1)
    assert lots[2].values.tolist() == [2.0, 1.0]
    assert (
        demultiplexer.demultiplex(changes((2, 5, 1.0, OVERFLOWED), (1, 5, 2.0, 0)), 9).lot is None
    )


def test_the_path_is_chosen_once_a_subscription() -> None:
    one_plain = Demultiplexer([[(0, 0)], [(1, 0)]], (FLOATS, MIXED))
    none_plain = Demultiplexer([[(0, 0)]], (MIXED,))
    assert isinstance(one_plain._path, PlainLotPath)
    assert isinstance(none_plain._path, GeneralPath)


def test_each_stream_gets_its_own_in_the_order_of_the_server() -> None:
    demultiplexer = settled([(1, 0)], [(0, 1)], [(0, 0)], dtypes=(FLOATS, FLOATS))
    result = demultiplexer.demultiplex(
        changes((1, 5, 1.0, 0), (2, 6, 2.0, 0), (3, 7, 3.0, 0), (2, 8, 4.0, 0)), 9
    )
    assert rows_of(result) == [
        (0, False, [(1, 6, 2.0, GOOD), (0, 7, 3.0, GOOD), (1, 8, 4.0, GOOD)]),
        (1, False, [(0, 5, 1.0, GOOD)]),
    ]


def test_an_item_of_several_signals_goes_to_each_in_its_dtype() -> None:
    demultiplexer = settled([(0, 0), (1, 1)], [(0, 1)], dtypes=(FLOATS, MIXED))
    result = demultiplexer.demultiplex(changes((1, 5, 3, 0), (2, 6, 2.5, 0)), 9)
    assert rows_of(result) == [
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
    (Dtype.BOOL, 1, 0, False, BAD, "an int is no bool"),
    (Dtype.FLOAT64, Instant(5), 0, None, BAD, "a date is no float64"),
    (Dtype.FLOAT64, Instant(-(2**64)), 0, None, BAD, "a date is no float64"),
    (Dtype.INT64, Instant(5), 0, 5, GOOD, ""),
    (Dtype.INT64, Instant(-(2**64)), 0, 0, BAD, "beyond int64"),
    (Dtype.FLOAT64, datetime(2026, 11, 23, tzinfo=UTC), 0, None, BAD, "a date is no float64"),
    (Dtype.FLOAT64, True, 0, None, BAD, "a bool is no float64"),
    (Dtype.INT64, True, 0, 0, BAD, "a bool is no int64"),
    (Dtype.FLOAT64, UUID(int=5), 0, None, BAD, "a UUID is no float64"),
    (Dtype.STRING, UUID(int=5), 0, str(UUID(int=5)), GOOD, ""),
    (Dtype.FLOAT64, b"5", 0, None, BAD, "a bytes is no float64"),
    (Dtype.STRING, b"5", 0, "", BAD, "a bytes is no string"),
    (Dtype.FLOAT64, [1.0, 2.0], 0, None, BAD, "a list is no float64"),
    (Dtype.FLOAT64, ua.LocalizedText("5"), 0, None, BAD, "a LocalizedText is no float64"),
    (Dtype.FLOAT64, ua.ServerState.Running, 0, 0.0, GOOD, ""),
]


@pytest.mark.parametrize(("dtype", "value", "status", "stored", "quality", "reason"), FITTING)
def test_a_value_that_is_none_of_its_signal_is_bad(
    dtype, value, status, stored, quality, reason
) -> None:
    result = settled([(0, 0)], dtypes=((dtype,),)).demultiplex(changes((1, 5, value, status)), 9)
    ((_, _, ((_, _, got, code),)),) = rows_of(result)
    assert code == quality
    assert got != got if stored is None else got == stored  # noqa: PLR0124 - NaN
    assert bool(result.unfit) == bool(reason)
    assert all(reason in text for _, _, text in result.reasons)


def test_items_without_a_value_yet_and_unknown_handles_are_ignored() -> None:
    waiting = ua.StatusCodes.BadWaitingForInitialData
    demultiplexer = Demultiplexer([[(0, 0)]], (FLOATS,))
    result = demultiplexer.demultiplex(
        changes((1, 5, None, waiting), (2, 5, 1.0, 0), (0, 5, 1.0, 0)), 9
    )
    assert (result.parts, result.gaps, demultiplexer.items.fresh[1]) == ([], [], True)


def test_a_sample_without_a_time_stamp_gets_the_time_of_arrival() -> None:
    result = settled([(0, 0)]).demultiplex(changes((1, NO_TIME, 1.0, 0)), NOW_NS)
    assert rows_of(result) == [(0, False, [(0, NOW_NS, 1.0, GOOD)])]


def test_first_samples_end_a_gap_and_are_delivered_first() -> None:
    demultiplexer = Demultiplexer([[(0, 0)], [(0, 1)]], (FLOATS,))
    demultiplexer.items.fresh[2] = False
    result = demultiplexer.demultiplex(changes((2, 4, 0.0, 0), (1, 5, 1.0, 0), (1, 6, 2.0, 0)), 9)
    assert result.gaps == [PossibleGap(stream=0, signal=0, until_ns=5)]
    assert [(fresh, [row[1] for row in rows]) for _, fresh, rows in rows_of(result)] == [
        (True, [5]),
        (False, [4, 6]),
    ]
    assert demultiplexer.demultiplex(changes((1, 7, 1.0, 0)), 9).gaps == []


def test_after_a_lost_publish_the_next_sample_of_each_item_ends_a_gap() -> None:
    demultiplexer = settled([(0, 0)], [(0, 1)])
    demultiplexer.items.lost[:] = True
    assert demultiplexer.demultiplex(changes((1, 5, 1.0, 0), (1, 6, 1.0, 0)), 9).gaps == [
        PossibleGap(stream=0, signal=0, until_ns=5, cause=LOST)
    ]
    assert demultiplexer.demultiplex(changes((2, 7, 1.0, 0)), 9).gaps == [
        PossibleGap(stream=0, signal=1, until_ns=7, cause=LOST)
    ]


def test_an_overflow_is_a_gap_after_the_sample_before_it() -> None:
    rows = changes((1, 5, 1.0, OVERFLOWED), (2, 6, 1.0, 0), (1, 9, 1.0, OVERFLOWED))
    assert settled([(0, 0)], [(0, 1)]).demultiplex(rows, 9).gaps == [
        PossibleGap(stream=0, signal=0, until_ns=5, cause=OVERFLOW),
        PossibleGap(stream=0, signal=0, after_ns=5, until_ns=9, cause=OVERFLOW),
    ]


def test_a_node_that_is_gone_and_comes_back_is_reported_once_each() -> None:
    demultiplexer, gone = settled([(0, 0)]), ua.StatusCodes.BadNodeIdUnknown
    first = demultiplexer.demultiplex(changes((1, 5, None, gone)), 9)
    again = demultiplexer.demultiplex(changes((1, 6, None, gone)), 9)
    back = demultiplexer.demultiplex(changes((1, 7, 1.0, 0)), 9)
    assert [(result.gone, result.back) for result in (first, again, back)] == [
        ([1], []),
        ([], []),
        ([], [1]),
    ]


def test_requests_in_flight_grow_with_subscriptions_and_rate() -> None:
    assert in_flight(1, 0) == 2
    assert in_flight(3, 1_000) == 4
    assert in_flight(1, 50_000) == 6
    assert in_flight(100, 10**6) == MOST_IN_FLIGHT
