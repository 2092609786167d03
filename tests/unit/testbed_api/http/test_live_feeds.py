"""Batches as server-sent events, encoded once for all readers of a stream."""

import pytest

from broker.clock import SteppedClock
from broker.errors import Forbidden
from broker.process import tasks
from testbed_api.http import live_feeds
from testbed_api.http.live_feeds import FeedReader, LiveFeed, WakeQueue


def test_a_batch_is_one_event():
    assert live_feeds.as_event(b'{"v":1}') == b'event: batch\ndata: {"v":1}\n\n'


def test_no_line_break_of_a_payload_ends_the_event():
    for line_break in (b"\n", b"\r", b"\r\n"):
        text = live_feeds.as_event(b"a" + line_break * 2 + b"event: missed")
        assert text.count(b"\n\n") == 1
        assert b"\nevent: missed" not in text


def test_an_empty_payload_is_an_event_too():
    assert live_feeds.as_event(b"") == b"event: batch\ndata: \n\n"


def test_each_reader_gets_what_it_has_not_read_and_is_told_what_it_missed():
    feed = LiveFeed(capacity=3)
    for number in range(5):
        feed.put(b"%d" % number)
    assert feed.since(4) == live_feeds.Portion(b"4", 1, 0)
    assert feed.since(2) == live_feeds.Portion(b"234", 3, 0)
    assert feed.since(0) == live_feeds.Portion(b"234", 3, 2)
    assert feed.since(5) == live_feeds.Portion(b"", 0, 0)


def test_what_never_reached_the_feed_is_missed_by_all():
    feed = LiveFeed(capacity=3)
    feed.put(b"0")
    feed.skip(4)
    feed.put(b"5")
    assert feed.since(0) == live_feeds.Portion(b"5", 1, 5)
    assert feed.since(1) == live_feeds.Portion(b"5", 1, 4)


def test_a_feed_and_a_portion_are_bounded_in_bytes_but_for_one_event(monkeypatch):
    monkeypatch.setattr(live_feeds, "FEED_BYTES", 10)
    monkeypatch.setattr(live_feeds, "PORTION_BYTES", 4)
    feed = LiveFeed(capacity=100)
    for _ in range(8):
        feed.put(b"xxx")
    assert feed.since(0) == live_feeds.Portion(b"xxx" * 2, 2, 5)
    feed.put(b"y" * 100)
    assert feed.since(0) == live_feeds.Portion(b"y" * 100, 1, 8)


async def test_a_reader_reads_from_when_it_came_on_and_ends_with_the_feed():
    feed = LiveFeed(capacity=3)
    feed.put(b"before")
    reader = FeedReader(feed)
    assert not reader.has_more
    feed.put(b"after")
    assert reader.has_more
    feed.error = Forbidden("no more")
    reader.wake()
    assert (await reader.read()).events == b"after"
    reader.wake()
    with pytest.raises(Forbidden):
        await reader.read()


async def test_readers_are_woken_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(live_feeds, "WOKEN_AT_ONCE", 2)
    monkeypatch.setattr(live_feeds, "WAKES_PER_S", 4)
    clock = SteppedClock()
    queue, feed = WakeQueue(clock), LiveFeed(capacity=3)
    readers = [FeedReader(feed) for _ in range(5)]
    queue.add(readers)
    queue.add(readers)  # once each, however much comes
    woken = []
    async with tasks.background({"live readers": queue.run()}):
        for _ in range(4):
            await clock.advance(0)
            woken.append(sum(reader._woken.is_set() for reader in readers))
            await clock.advance(0.5)
        assert woken == [2, 4, 5, 5]
        queue.add(readers[:1])
        await clock.advance(0)
        assert not readers[0].is_due
