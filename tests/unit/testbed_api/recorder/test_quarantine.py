"""Messages that the store does not take are tried apart, and go with the others again later."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np

from broker import codec
from broker.batch import Batch, Source, Wide
from broker.bus.inbox import Message
from broker.clock import SteppedClock
from broker.namespace import StreamAddress
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder import quarantine
from testbed_api.recorder.flush import ReceivedMessage
from testbed_api.recorder.narrowing import MessageScope, Settlement
from testbed_api.recorder.quarantine import Quarantine

WHOLE = {MessageScope("a"): "it is too much"}


def message(stream: str, seq: int = 1, organisation: str = "a") -> ReceivedMessage:
    address = StreamAddress(organisation, "e", stream)
    frame = Wide(np.array([seq], np.int64), {"a": np.array([1.0])})
    payload = codec.encode(Batch(1, (frame,), Source.LIVE, epoch="x", seq=seq))
    return recorder_flush.read(Message(f"tb1/live/data/{address}", payload), 0)


class Room:
    """A quarantine, with a store that takes nothing of some streams, or takes all slowly."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.bad: set[str] = set()
        self.is_slow = False
        self.store_answers = asyncio.Event()
        self.store_answers.set()
        self.settled: list[ReceivedMessage] = []
        self.withheld: list[ReceivedMessage] = []
        self.quarantine = Quarantine(self._settle, self._withhold, self.clock)

    async def _settle(self, messages: Sequence[ReceivedMessage]) -> Settlement:
        await self.store_answers.wait()
        if any(each.topic and each.topic.address.stream in self.bad for each in messages):
            return Settlement("it is too much")
        self.settled += messages
        return Settlement(is_slow=self.is_slow)

    async def _withhold(self, left: Sequence[tuple[ReceivedMessage, str]]) -> None:
        self.withheld += [each for each, _ in left]


@asynccontextmanager
async def opened() -> AsyncIterator[Room]:
    room = Room()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(room.quarantine.run(), name="quarantine")
        yield room
        running.cancel()


async def test_only_what_is_suspected_is_taken_apart() -> None:
    async with opened() as room:
        assert room.quarantine.reason(message("s")) is None
        room.quarantine.begin(
            {MessageScope("a", "live:a/e/s"): "why", MessageScope("b", "live:b/e/s", "x/7"): "so"}
        )
        assert room.quarantine.reason(message("s")) == "why"
        assert room.quarantine.reason(message("t")) is None
        assert room.quarantine.reason(message("s", 7, "b")) == "so"
        assert room.quarantine.reason(message("s", 8, "b")) is None
        assert room.quarantine.reason(message("s", 7, "c")) is None


async def test_what_fails_again_is_withheld_and_the_rest_goes_with_the_others() -> None:
    async with opened() as room:
        good, bad = message("good"), message("bad")
        room.quarantine.begin(WHOLE)
        room.bad = {"bad"}
        assert room.quarantine.take(good)
        assert room.quarantine.take(bad)
        await room.clock.advance(quarantine.FIRST_S)
        assert (room.settled, room.withheld) == ([good], [bad])
        assert room.quarantine.reason(good) is None
        assert room.quarantine.reason(bad) == "it is too much"
        room.bad = set()
        room.quarantine.take(bad)  # it was sent again
        await room.clock.advance(2 * quarantine.FIRST_S)
        assert room.settled == [good, bad]
        assert room.quarantine.reason(bad) is None
        assert len(room.quarantine) == 0


async def test_what_was_set_aside_is_tried_until_it_is_stored_and_not_taken_twice() -> None:
    async with opened() as room:
        bad = replace(message("bad"), set_aside=7)
        room.quarantine.begin(WHOLE)
        room.bad = {"bad"}
        assert room.quarantine.take(bad)
        await room.clock.advance(quarantine.FIRST_S)
        assert room.quarantine.take(replace(bad))  # its spec was sent again
        assert (room.settled, room.withheld) == ([], [])
        room.bad = set()
        await room.clock.advance(2 * quarantine.FIRST_S)
        assert room.settled == [bad]
        assert len(room.quarantine) == 0


async def test_pauses_grow_while_nothing_is_taken() -> None:
    async with opened() as room:
        room.quarantine.begin(WHOLE)
        room.bad = {"bad"}
        for pause_s in (1, 2, 4, 8, 16, 30, 30):
            room.quarantine.take(message("bad"))
            count = len(room.withheld)
            await room.clock.advance(pause_s - 0.1)
            assert len(room.withheld) == count
            await room.clock.advance(0.1)
            assert len(room.withheld) == count + 1
            assert room.quarantine.reason(message("bad"))


async def test_an_organisation_that_is_stored_slowly_stays_apart_and_is_stored() -> None:
    async with opened() as room:
        room.quarantine.begin(WHOLE)
        room.is_slow = True
        for count in range(1, 4):
            room.quarantine.take(message("s", count))
            await room.clock.advance(quarantine.FIRST_S)
            assert len(room.settled) == count
            assert room.quarantine.reason(message("s")) == "the store takes its samples slowly"
        room.is_slow = False
        room.quarantine.take(message("s", 4))
        await room.clock.advance(quarantine.FIRST_S)
        assert len(room.quarantine) == 0
        assert room.withheld == []


async def test_a_lane_holds_no_more_than_it_may_with_what_is_being_tried() -> None:
    async with opened() as room:
        room.quarantine.begin(WHOLE)
        sent = message("s")
        most = quarantine.MOST_OF_LANE.messages
        room.store_answers.clear()
        assert all(room.quarantine.take(sent) for _ in range(most))
        assert not room.quarantine.take(sent)
        await room.clock.advance(quarantine.FIRST_S)
        assert not room.quarantine.take(sent)  # the store has not answered
        room.store_answers.set()
        await room.clock.advance(0)
        assert len(room.settled) == most
        room.quarantine.begin(WHOLE)
        assert room.quarantine.take(sent)


async def test_all_lanes_together_leave_room_for_the_messages_of_others() -> None:
    async with opened() as room:
        organisations = [f"o{number}" for number in range(20)]
        room.quarantine.begin({MessageScope(name): "it is too much" for name in organisations})
        held = [
            room.quarantine.take(message("s", seq, name))
            for name in organisations
            for seq in range(1, quarantine.MOST_OF_ALL.messages // 10 + 1)
        ]
        assert sum(held) == quarantine.MOST_OF_ALL.messages
