"""How long messages are gathered for one flush."""

import asyncio
from collections.abc import Sequence

import pytest

from broker.bus.inbox import Amount, Inbox, Message
from broker.clock import WallClock
from testbed_api.recorder import flush
from testbed_api.recorder.flush import ReceivedMessage
from testbed_api.recorder.intake import LEAST_GATHER_S, Intake

LONG_S = 30.0
SPEC = flush.read(Message("tb1/live/spec/o/e/s", b"{}"), 0)
BATCH = flush.read(Message("tb1/live/data/o/e/s", b"{}"), 0)


def intake(gather_s: float = LONG_S) -> Intake:
    return Intake(WallClock(), gather_s=gather_s, most=Amount(8, 1_000))


@pytest.mark.parametrize(
    ("waiting", "waited_s", "expected_s"),
    [
        ([], 0.0, LONG_S),
        ([BATCH], 0.0, LONG_S),
        ([], 10.0, LONG_S - 10.0),
        ([], 2 * LONG_S, LEAST_GATHER_S),
        ([BATCH, SPEC], 0.0, 0.0),
    ],
    ids=["nothing waits", "a batch waits", "a flush", "a long flush", "specs are left"],
)
def test_messages_wait_for_others_no_longer_than_the_pace_says(
    waiting: Sequence[ReceivedMessage], waited_s: float, expected_s: float
) -> None:
    assert intake().duration_s(waiting, waited_s) == expected_s
    assert intake(0.01).duration_s(waiting, waited_s) <= 0.01


async def test_a_flush_begins_with_a_part_of_what_it_may_take_and_takes_what_has_come() -> None:
    inbox = Inbox(["#"], 20, "block")
    for _ in range(2 + 8):
        inbox.put(Message("tb1/live/data/o/e/s", b"{}"))
    async with asyncio.timeout(5):
        assert len(await intake().gather(inbox, [], flushed_s=0.0)) == 8
        assert len(await intake().gather(inbox, [], flushed_s=0.0)) == 2
        assert await intake().gather(inbox, [SPEC], flushed_s=0.0) == []


async def test_where_messages_are_gathered_for_a_moment_a_flush_waits_for_more() -> None:
    for gather_s, expected in ((LONG_S, 2), (LEAST_GATHER_S / 4, 3)):
        inbox = Inbox(["#"], 20, "block")
        for _ in range(2):
            inbox.put(Message("tb1/live/data/o/e/s", b"{}"))
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            gathering = tasks.create_task(
                intake(gather_s).gather(inbox, [], flushed_s=0.0), name="gathering"
            )
            await WallClock().sleep(0.005)
            inbox.put(Message("tb1/live/data/o/e/s", b"{}"))
        assert len(gathering.result()) == expected
