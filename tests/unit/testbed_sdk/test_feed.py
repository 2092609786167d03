"""The batches of an input in a run: held back until they are named, missed where they are lost."""

import numpy as np
import pytest

from broker.batch import Batch, Source, Wide
from broker.errors import Forbidden
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_sdk.feed import ArrivedBatch, Feed

RIG = StreamAddress("o", "rig", "s")
SPEC = StreamSpec(RIG, (Signal("a"),))


def arrived(seq, time_ns=1, epoch="e"):
    frame = Wide(np.array([time_ns]), {"a": np.array([1.0])})
    return ArrivedBatch(epoch, seq, (Batch(1, (frame,), Source.SIMULATED), SPEC))


@pytest.fixture
def feed():
    return Feed(RIG, 2, since=0)


def numbers(batches):
    return [batch.seq for batch in batches]


def test_batches_are_held_back_until_a_tick_names_them(feed):
    for seq in (1, 2, 3):
        feed.arrive(arrived(seq))
    assert numbers(feed.due()) == []
    assert feed.name({RIG: {"e": 2}})
    assert numbers(feed.due()) == [1, 2]
    assert not feed.name({})
    assert numbers(feed.due()) == []
    feed.name({RIG: {"e": 3, "other": 1}})
    feed.arrive(arrived(1, epoch="other"))
    feed.arrive(arrived(None, epoch=None))
    assert numbers(feed.due()) == [3, 1, None]


def test_what_was_named_and_did_not_arrive_is_missing(feed):
    feed.arrive(arrived(1))
    feed.name({RIG: {"e": 2}})
    assert feed.awaited() == {"e": 2}
    assert feed.missing() == {"e": 2}
    feed.arrive(arrived(2))
    assert feed.missing() == {}


def test_a_number_that_was_left_out_is_missing_once(feed):
    for seq in (4, 7):  # the input was opened in the midst of a run
        feed.arrive(arrived(seq))
    feed.name({RIG: {"e": 7}})
    assert feed.awaited() == {}
    assert feed.missing() == {"e": 6}
    assert feed.missing() == {}


def test_of_too_many_batches_the_oldest_are_dropped(feed):
    for seq in (1, 2, 3):
        assert feed.release(arrived(seq)) is None
    assert [feed.take().seq for _ in range(2)] == [2, 3]
    assert feed.take() is None


def test_the_error_of_an_input_comes_after_its_batches(feed):
    feed.release(arrived(1))
    assert feed.fail(Forbidden("not yours")) is None
    assert feed.take().seq == 1
    with pytest.raises(Forbidden, match="not yours"):
        feed.take()


def test_the_newest_time_of_a_batch_is_none_without_samples():
    assert arrived(1, time_ns=7).newest_ns == 7
    assert ArrivedBatch("e", 1, None).newest_ns is None
    assert ArrivedBatch("e", 1, (Batch(1, (), Source.SIMULATED), SPEC)).newest_ns is None
