"""Our decoders of OPC UA's notifications against asyncua's."""

import contextlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from asyncua.ua.uaerrors import UaError
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Corrupt
from gateway.links.opcua import notification_message
from gateway.links.opcua.data_changes import NO_TIME, OTHER, DataChanges
from gateway.links.values import Instant, instant_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 9 * 10**15).map(lambda us: EPOCH + timedelta(microseconds=us))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
V = ua.VariantType


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low = -(2 ** (bits - 1)) if signed else 0
    return st.integers(low, low + 2**bits - 1)


SIMPLE = {
    V.Boolean: st.booleans(),
    V.SByte: integers(8, signed=True),
    V.Byte: integers(8, signed=False),
    V.Int16: integers(16, signed=True),
    V.UInt16: integers(16, signed=False),
    V.Int32: integers(32, signed=True),
    V.UInt32: integers(32, signed=False),
    V.Int64: integers(64, signed=True),
    V.UInt64: integers(64, signed=False),
    V.Float: st.floats(width=32),
    V.Double: st.floats(),
    V.DateTime: MOMENTS,
    V.String: st.none() | TEXTS,
}
FOREIGN = {
    V.Guid: st.uuids(),
    V.LocalizedText: st.builds(ua.LocalizedText, TEXTS),
    V.ByteString: st.binary(max_size=5),
    V.NodeId: st.builds(ua.NodeId, st.integers(1, 2**32 - 1), st.integers(0, 9)),
}


def variants(types: dict[ua.VariantType, st.SearchStrategy[Any]]) -> st.SearchStrategy[ua.Variant]:
    item = [values.map(lambda value, t=t: ua.Variant(value, t)) for t, values in types.items()]
    return st.one_of(item)


ARRAYS = st.lists(st.floats(allow_nan=False), max_size=3).map(
    lambda values: ua.Variant(values, V.Double, is_array=True)
)
ANYTHING = variants(SIMPLE) | variants(FOREIGN) | ARRAYS | st.just(ua.Variant(None, V.Null))


@st.composite
def items(draw, values: st.SearchStrategy[ua.Variant], parts: int | None = None):
    """One item; parts: which of value, status and time stamps it has."""
    parts = draw(st.integers(0, 63)) if parts is None else parts
    if parts & 16 and not parts & 4:
        parts &= ~16  # picoseconds of no time: asyncua and the standard differ in their place
    value = ua.DataValue(
        draw(values) if parts & 1 else None,
        ua.StatusCode(draw(st.integers(0, 2**32 - 1))) if parts & 2 else None,
        draw(MOMENTS) if parts & 4 else None,
        draw(MOMENTS) if parts & 8 else None,
        draw(st.integers(0, 9999)) if parts & 16 else None,
        draw(st.integers(0, 9999)) if parts & 32 else None,
    )
    if not parts & 1:
        value.Value = None
    return ua.MonitoredItemNotification(draw(st.integers(0, 2**32 - 1)), value)


@st.composite
def uniform(draw):
    """Items of one form, as a server sends them."""
    variant = draw(st.sampled_from(list(SIMPLE)))
    item = items(variants({variant: SIMPLE[variant]}), draw(st.integers(0, 63)))
    return draw(st.lists(item, max_size=6))


PUBLISHED = uniform() | st.lists(items(ANYTHING), max_size=6)


def encoded(rows: list[ua.MonitoredItemNotification]) -> bytes:
    answer = ua.PublishResponse()
    answer.Parameters.SubscriptionId = 7
    answer.Parameters.AvailableSequenceNumbers = [3, 4]
    answer.Parameters.MoreNotifications = True
    answer.Parameters.NotificationMessage.SequenceNumber = 4
    answer.Parameters.NotificationMessage.NotificationData = [ua.DataChangeNotification(rows)]
    return struct_to_binary(answer)


def of(decoded: DataChanges, row: int) -> tuple[int, int, int, str, bool]:
    return (
        int(decoded.handle[row]),
        int(decoded.status[row]),
        int(decoded.time_ns[row]),
        repr(decoded.value(row)),
        isinstance(decoded.value(row), Instant),
    )


def expected(row: ua.MonitoredItemNotification) -> tuple[int, int, int, str, bool]:
    """What asyncua makes of it."""
    data_value = row.Value
    moment = data_value.SourceTimestamp or data_value.ServerTimestamp
    value = data_value.Value.Value if data_value.Value is not None else None
    return (
        row.ClientHandle,
        data_value.StatusCode.value if data_value.StatusCode is not None else 0,
        NO_TIME if moment is None else instant_of(moment),
        repr(instant_of(value) if isinstance(value, datetime) else value),
        isinstance(value, datetime),
    )


@given(PUBLISHED)
def test_all_decoders_agree_with_asyncuas(rows) -> None:
    body = encoded(rows)
    theirs = struct_from_binary(ua.PublishResponse, Buffer(body)).Parameters
    ours = notification_message.publish(Buffer(body))
    assert (ours.subscription, ours.available, ours.more) == (7, (3, 4), True)
    assert ours.message.sequence == 4
    (decoded,) = ours.message.changes
    (wanted,) = theirs.NotificationMessage.NotificationData
    assert [of(decoded, at) for at in range(len(decoded))] == [
        expected(row) for row in wanted.MonitoredItems or []
    ]


@given(uniform())
def test_a_walk_finds_what_a_fixed_stride_finds(rows) -> None:
    text = ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant("t", V.String)))
    (strided,) = notification_message.publish(Buffer(encoded(rows))).message.changes
    (walked,) = notification_message.publish(Buffer(encoded([*rows, text]))).message.changes
    assert [of(walked, at) for at in range(len(rows))] == [
        of(strided, at) for at in range(len(rows))
    ]


def ticked(ticks: int) -> DataChanges:
    """One double whose source time stamp is so many 100 ns since 1601."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant(1.0), None, moment))]
    written = struct.pack("<q", ua.datetime_to_win_epoch(moment))
    body = encoded(rows).replace(written, struct.pack("<q", ticks))
    (decoded,) = notification_message.publish(Buffer(body)).message.changes
    return decoded


EPOCH_TICKS = 116_444_736_000_000_000


@given(st.integers(0, (2**63 - 1) // 100))
def test_every_100_ns_of_a_time_stamp_are_kept(steps) -> None:
    assert ticked(EPOCH_TICKS + steps).time_ns.tolist() == [steps * 100]


@pytest.mark.parametrize("ticks", [0, 1, EPOCH_TICKS - 1, 2**63 - 1, -1])
def test_a_time_stamp_that_cannot_be_one_is_none(ticks) -> None:
    assert ticked(ticks).time_ns.tolist() == [NO_TIME]


@given(PUBLISHED, st.data())
def test_any_bytes_decode_or_are_corrupt(rows, data) -> None:
    body = bytearray(encoded(rows))
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    with contextlib.suppress(Corrupt, UaError):
        notification_message.publish(Buffer(bytes(body[:cut])))


def test_a_keep_alive_a_status_and_a_refusal_are_told_apart() -> None:
    answer = ua.PublishResponse()
    answer.Parameters.NotificationMessage.SequenceNumber = 9
    said = notification_message.publish(Buffer(struct_to_binary(answer))).message
    assert (said.is_keep_alive, said.sequence, said.changes, said.status) == (True, 9, (), None)
    ended = ua.StatusChangeNotification(ua.StatusCode(ua.StatusCodes.BadTimeout))
    answer.Parameters.NotificationMessage.NotificationData = [ended]
    said = notification_message.publish(Buffer(struct_to_binary(answer))).message
    assert (said.is_keep_alive, said.status) == (False, ua.StatusCodes.BadTimeout)
    fault = ua.ServiceFault()
    fault.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadNoSubscription)
    with pytest.raises(UaError, match="BadNoSubscription"):
        notification_message.publish(Buffer(struct_to_binary(fault)))


@pytest.mark.parametrize("texts", [None, [], ["a text"]])
def test_whatever_a_good_header_holds_the_message_behind_it_is_read(texts) -> None:
    answer = ua.PublishResponse()
    answer.ResponseHeader.StringTable = texts
    answer.ResponseHeader.RequestHandle = 2**32 - 1
    answer.Parameters.SubscriptionId = 7
    answer.Parameters.NotificationMessage.SequenceNumber = 9
    encoded = struct_to_binary(answer)
    said = notification_message.publish(Buffer(encoded))
    assert (said.subscription, said.message.sequence) == (7, 9)
    with pytest.raises(Corrupt):  # it is no answer to a RepublishRequest
        notification_message.republished(Buffer(encoded))


def test_a_message_sent_again_is_decoded_like_a_publish() -> None:
    answer = ua.RepublishResponse()
    row = ua.MonitoredItemNotification(5, ua.DataValue(ua.Variant(2.5)))
    answer.NotificationMessage.SequenceNumber = 3
    answer.NotificationMessage.NotificationData = [ua.DataChangeNotification([row])]
    said = notification_message.republished(Buffer(struct_to_binary(answer)))
    (decoded,) = said.changes
    assert (said.sequence, decoded.handle.tolist(), decoded.floats.tolist()) == (3, [5], [2.5])


def test_a_number_beyond_int64_stands_among_the_others() -> None:
    rows = [
        ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant(value, V.UInt64)))
        for value in (2**63 - 1, 2**63)
    ]
    (decoded,) = notification_message.publish(Buffer(encoded(rows))).message.changes
    assert [decoded.value(0), decoded.value(1)] == [2**63 - 1, 2**63]
    assert decoded.kind[1] == OTHER
