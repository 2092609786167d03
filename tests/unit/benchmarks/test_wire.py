"""What the load source lays out by hand, asyncua reads as what was meant."""

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from benchmarks import wire

TIMES_NS = np.array([[1_700_000_000_000_001_000, 1_700_000_000_100_001_000]] * 2)
VALUES = np.array([[1.5, 2.5], [3.5, 4.5]])


@pytest.mark.parametrize("mask", [wire.SOURCE_ONLY, wire.SOURCE_AND_SERVER])
def test_a_publish_reads_as_a_publish_response(mask):
    ((count, rows),) = wire.Notifications([7, 9], mask).cut(TIMES_NS, VALUES, 100)
    message = wire.notification_message(3, count, rows, 0)
    published = wire.Published(11, 5, [2, 3], more=True, results=[0])
    body = Buffer(wire.publish_response(published, message, 0))
    answer = struct_from_binary(ua.PublishResponse, body)
    assert answer.ResponseHeader.RequestHandle == 11
    result = answer.Parameters
    assert (result.SubscriptionId, result.MoreNotifications) == (5, True)
    assert result.AvailableSequenceNumbers == [2, 3]
    assert result.NotificationMessage.SequenceNumber == 3
    (data,) = result.NotificationMessage.NotificationData
    read = [(each.ClientHandle, each.Value.Value.Value) for each in data.MonitoredItems]
    assert read == [(7, 1.5), (7, 2.5), (9, 3.5), (9, 4.5)]
    moments = [each.Value.SourceTimestamp.timestamp() for each in data.MonitoredItems[:2]]
    assert moments == pytest.approx([1_700_000_000.000001, 1_700_000_000.100001], abs=1e-7)


def test_a_keep_alive_has_no_notifications():
    body = wire.notification_message(4, 0, b"", 0)
    assert struct_from_binary(ua.NotificationMessage, Buffer(body)).NotificationData == []


def test_no_publish_holds_more_notifications_than_it_may():
    parts = list(wire.Notifications([7, 9], wire.SOURCE_ONLY).cut(TIMES_NS, VALUES, 3))
    assert [count for count, _ in parts] == [3, 1]
    assert [len(rows) for _, rows in parts] == [66, 22]


def test_a_request_in_pieces_is_put_together():
    channel = wire.Channel()
    channel.acknowledge(bytes(4) + (200).to_bytes(4, "little") * 2)
    sent = b"".join(channel.message(42, bytes(range(250))))
    frames = wire.Frames()
    read = [frame for cut in range(0, len(sent), 7) for frame in frames.take(sent[cut : cut + 7])]
    assert [(frame.request, frame.body) for frame in read] == [(42, bytes(range(250)))]
