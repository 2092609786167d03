"""A write that fails is narrowed down to the organisation, the stream or the message."""

from collections.abc import Sequence

import numpy as np
import pytest

from broker import codec
from broker.batch import Batch, Source, Wide
from broker.bus.inbox import Message
from broker.namespace import StreamAddress
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder import narrowing
from testbed_api.recorder.flush import ReceivedMessage
from testbed_api.recorder.narrowing import IN_VAIN, MessageScope, Settlement


def message(name: str, seq: int | None = 1) -> ReceivedMessage:
    """A message of the stream `organisation/stream`."""
    organisation, stream = name.split("/")
    address = StreamAddress(organisation, "e", stream)
    frame = Wide(np.array([seq or 0], np.int64), {"a": np.array([1.0])})
    payload = codec.encode(Batch(1, (frame,), Source.LIVE, epoch="x" if seq else None, seq=seq))
    return recorder_flush.read(Message(f"tb1/live/data/{address}", payload), 0)


class Store:
    """Settles messages unless some of them are bad; counts the tries."""

    def __init__(self, *bad: ReceivedMessage) -> None:
        self.bad = [id(each) for each in bad]
        self.settled: list[ReceivedMessage] = []
        self.tries = 0
        self.is_slow = False

    async def settle(self, messages: Sequence[ReceivedMessage]) -> Settlement:
        self.tries += 1
        if any(id(each) in self.bad for each in messages):
            return Settlement("it is too much", self.is_slow)
        self.settled += messages
        return Settlement()


A, B = MessageScope("a"), MessageScope("b")


async def test_an_organisation_that_fails_alone_is_named_and_the_others_are_settled() -> None:
    bad = [message("a/s", seq) for seq in range(1, 4)] + [message("a/t")]
    good = [message("b/s"), message("c/s")]
    store = Store(*bad)
    narrowed = await narrowing.narrow([*bad, *good], store.settle, failure="all of it")
    assert narrowed.failed == {A: "it is too much"}
    assert [each for each, _ in narrowed.left] == bad
    assert narrowed.settled == len(store.settled) == 2


async def test_a_stream_that_fails_alone_is_named_and_its_neighbours_are_settled() -> None:
    bad = [message("a/s", seq) for seq in range(1, 4)]
    good = [message("a/t"), message("b/s")]
    store = Store(*bad)
    narrowed = await narrowing.narrow([*bad, *good], store.settle)
    assert narrowed.failed.keys() == {MessageScope("a", "live:a/e/s")}
    assert sorted(map(id, store.settled)) == sorted(map(id, good))


@pytest.mark.parametrize("at", [0, 4, 9])
async def test_a_message_that_fails_alone_is_named_and_its_stream_goes_on(at: int) -> None:
    messages = [message("a/s", seq) for seq in range(1, 11)]
    store = Store(messages[at])
    narrowed = await narrowing.narrow(messages, store.settle)
    assert narrowed.failed.keys() == {MessageScope("a", "live:a/e/s", f"x/{at + 1}")}
    assert [each for each, _ in narrowed.left] == [messages[at]]
    assert narrowed.settled == 9


async def test_a_message_without_a_number_is_left_over_and_not_remembered() -> None:
    bad = message("a/s", None)
    store = Store(bad)
    narrowed = await narrowing.narrow([bad, message("a/s")], store.settle)
    assert narrowed.left == [(bad, "it is too much")]
    assert narrowed.failed == {}


async def test_where_nothing_is_settled_not_everything_is_tried() -> None:
    messages = [message(f"{organisation}/s", seq) for organisation in "abcdef" for seq in (1, 2)]
    store = Store(*messages)
    narrowed = await narrowing.narrow(messages, store.settle, failure="all of it")
    assert (narrowed.settled, store.tries) == (0, IN_VAIN)
    assert narrowed.failed.keys() == {MessageScope(each) for each in "abcdef"}
    assert len(narrowed.left) == len(messages)


async def test_nothing_is_tried_twice_in_the_same_company() -> None:
    bad = message("a/s")
    store = Store(bad)
    narrowed = await narrowing.narrow([bad], store.settle)
    assert store.tries == 1
    assert narrowed.failed == {A: "it is too much"}


async def test_the_flush_of_all_leaves_an_organisation_that_fails_to_its_quarantine() -> None:
    bad = [message(f"{organisation}/s", seq) for organisation in "abcde" for seq in (1, 2, 3)]
    beside = [message(f"{organisation}/t") for organisation in "abcde"]
    good = [message("f/s"), message("g/s")]
    store = Store(*bad)
    separated = await narrowing.separate([*bad, *good, *beside], store.settle, failure="all of it")
    assert separated.failed.keys() == {MessageScope(name) for name in "abcde"}
    assert sorted(map(id, store.settled)) == sorted(map(id, good))
    assert sorted(id(each) for each, _ in separated.left) == sorted(map(id, [*bad, *beside]))
    assert store.tries == 7


async def test_after_one_that_fails_slowly_the_flush_of_all_leaves_over_the_rest_untried() -> None:
    bad = [message(f"o{number}/s") for number in range(50)]
    good = message("z/s")
    store = Store(*bad)
    store.is_slow = True
    separated = await narrowing.separate([*bad, good], store.settle, failure="all of it")
    assert (store.settled, store.tries) == ([good], 2)
    assert len(separated.failed) == len(separated.left) == 50


async def test_of_many_that_fail_each_turn_tries_others_until_one_is_settled() -> None:
    bad, good = [message(f"o{number}/s") for number in range(50)], message("z/s")
    messages = [*bad[:13], good, *bad[13:]]
    for turn in range(25):
        store = Store(*bad)
        separated = await narrowing.separate(messages, store.settle, failure="all", turn=turn)
        assert store.tries <= IN_VAIN or store.settled
        if separated.settled:
            break
    assert store.settled == [good]
    assert turn > 0


async def test_one_organisation_alone_is_parted_by_stream_and_one_stream_by_message() -> None:
    bad, good = message("a/s"), message("a/t")
    separated = await narrowing.separate([bad, good], Store(bad).settle, failure="all of it")
    assert separated.failed.keys() == {MessageScope("a", "live:a/e/s")}
    bad, good = message("a/s", 1), message("a/s", 2)
    separated = await narrowing.separate([bad, good], Store(bad).settle, failure="all of it")
    assert separated.failed.keys() == {MessageScope("a", "live:a/e/s", "x/1")}
    assert separated.settled == 1


async def test_what_is_too_much_at_once_is_halved_and_only_what_fails_is_left() -> None:
    bad, good = message("a/s", 20), [message("a/s", seq) for seq in range(1, 20)]
    sizes: list[int] = []
    store = Store(bad)

    async def settle(messages: Sequence[ReceivedMessage]) -> Settlement:
        if len(messages) > 4:
            return Settlement("it is too much at once", is_divisible=True)
        sizes.append(len(messages))
        return await store.settle(messages)

    narrowed = await narrowing.narrow([*good, bad], settle)
    assert store.settled == good
    assert max(sizes) <= 4
    assert [each for each, _ in narrowed.left] == [bad]
    assert narrowed.settled == len(good)
