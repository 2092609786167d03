"""What the recorder's ledger must do, held against SQLite and PostgreSQL."""

import asyncio

import pytest

from broker.batch import Gap
from broker.errors import Taken
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.recorder.ledger import (
    EARLIER,
    MOST_LIVES,
    DeadLetter,
    FlushEntries,
    Ledger,
    SetAside,
    StreamEpoch,
    StreamSpan,
)
from testbed_api.registry.engine import open_engine

RIG = StreamAddress("factory", "pump-rig", "rig")
LIFE = StreamEpoch("live", RIG, "e1")
MOST = 2**63 - 1


@pytest.fixture
async def ledger(where):
    async with open_engine(where) as engine:
        yield Ledger(engine)


async def test_what_is_held_is_what_was_committed_last(ledger):
    for ranges in ([(1, 3), (7, 7)], [(1, 7), (9, MOST)]):
        await ledger.commit(FlushEntries(held={LIFE: Held.from_ranges(ranges)}))
        assert await ledger.held(LIFE) == Held.from_ranges(ranges)
    assert await ledger.held(StreamEpoch("live", RIG, "e2")) == Held.from_ranges([])


async def test_gaps_are_found_by_the_span_they_touch(ledger):
    gaps = [Gap(("p",), at, at + 5, "spool-full") for at in (0, 10, 20)]
    await ledger.commit(FlushEntries(gaps=[(LIFE, 1, each) for each in gaps]))
    assert await ledger.gaps("live", RIG, 6, 20) == gaps[1:2]
    assert await ledger.gaps("run-a", RIG, 0, 100) == []


@pytest.mark.parametrize("bad", ["\0", "a\0b" * 100, "long" * 500, "\U0001f6a7" * 300, ""])
async def test_whatever_came_can_be_written_down(ledger, bad):
    letter = DeadLetter(
        "live", str(RIG), bad, "e1", MOST, bad, -MOST, bad, b"\0\xff" + bad.encode(), MOST - 1
    )
    gap = Gap((bad,), 0, 5, bad)
    await ledger.commit(FlushEntries(dead_letters=[letter], gaps=[(LIFE, None, gap)]))
    (stored,) = await ledger.dead_letters(StreamSpan("live", RIG, -MOST, MOST), 0, 10)
    assert stored.value == stored.reason == bad.replace("\0", "\ufffd")
    assert bad.replace("\0", "\ufffd").startswith(stored.signal)
    assert (await ledger.gaps("live", RIG, 0, 9))[0].signals == (bad,)


async def test_dead_letters_are_found_by_their_arrival(ledger):
    letters = [DeadLetter("live", str(RIG), "bad", received_ns=at) for at in (0, 10, 20)]
    await ledger.commit(FlushEntries(dead_letters=letters))
    arrived = await ledger.dead_letters(StreamSpan("live", RIG, 10, 20), 0, 10)
    assert [letter.received_ns for letter in arrived] == [10]
    both = await ledger.dead_letters(StreamSpan("live", RIG, 0, 11), 0, 10)
    after_first = await ledger.dead_letters(StreamSpan("live", RIG, 0, 11), both[0].id, 10)
    assert after_first == both[1:] == arrived


async def test_what_waits_is_taken_up_once_and_in_order(ledger):
    topics = [f"tb1/live/{verb}/{RIG}" for verb in ("data", "late", "data")]
    await ledger.commit(
        FlushEntries(set_aside=[SetAside(each, bytes([at]), at) for at, each in enumerate(topics)])
    )
    waiting = await ledger.waiting("live", RIG)
    assert [each.payload for each in waiting] == [b"\0", b"\1", b"\2"]
    await ledger.commit(FlushEntries(taken_up=[waiting[0].id]))
    assert await ledger.waiting("live", RIG) == waiting[1:]
    assert await ledger.counts() == {"gaps": 0, "dead_letters": 0, "set_aside": 2}


async def test_many_taken_up_at_once_are_one_transaction(ledger):
    topic = f"tb1/live/data/{RIG}"
    await ledger.commit(FlushEntries(set_aside=[SetAside(topic, b"x", 1) for _ in range(40_000)]))
    waiting = await ledger.waiting("live", RIG)
    await ledger.commit(FlushEntries(taken_up=[each.id for each in waiting]))
    assert await ledger.waiting("live", RIG) == []


async def test_a_spec_is_kept_for_good(ledger):
    spec = StreamSpec(RIG, (Signal("p"),)).numbered(3)
    await ledger.keep_spec("live", spec, 1)
    await ledger.keep_spec("live", spec, 2)
    assert await ledger.spec("live", RIG, 3) == spec
    with pytest.raises(Taken, match="differs from the one that is kept"):
        await ledger.keep_spec("live", StreamSpec(RIG, (Signal("q"),)).numbered(3), 3)


async def test_readers_do_not_wait_for_the_recorder(ledger):
    async with asyncio.TaskGroup() as tasks:
        for at in range(1, 20):
            held = Held.from_ranges([(1, at)])
            tasks.create_task(ledger.commit(FlushEntries(held={LIFE: held})), name=f"write {at}")
            tasks.create_task(ledger.held(LIFE), name=f"read {at}")


def lives(epoch, seq, until_ns=None, *, stream=RIG, space="live", beyond=()):
    life = StreamEpoch(space, stream, epoch)
    until = {} if until_ns is None else {life: until_ns}
    return FlushEntries(held={life: Held(seq, beyond)}, until_ns=until, begun=[life])


async def test_the_newest_life_of_each_stream_is_known_with_its_end(ledger):
    other = StreamAddress("factory", "pump-rig", "a")
    foreign = StreamAddress("factory", "pump-rig-2", "rig")
    await ledger.commit(lives("e1", 9, 90))
    await ledger.commit(lives("e2", 3, 30, beyond=((5, 7),)))
    await ledger.commit(lives("e1", 10, 100))
    await ledger.commit(lives("e2", 4, 40, beyond=((6, 8),)))
    await ledger.commit(lives("e1", 1, 10, stream=other))
    await ledger.commit(lives("e1", 1, 10, stream=foreign))
    await ledger.commit(lives("e1", 1, 10, space="run-1"))
    first, second = await ledger.newest_lives("live", RIG.owner, None, 10)
    assert first == (str(other), "e1", 1, 10)
    assert second == (str(RIG), "e2", 8, 40)
    assert await ledger.newest_lives("live", RIG.owner, first.stream, 10) == [second]
    assert await ledger.newest_lives("live", RIG.owner, None, 1) == [first]
    assert await ledger.until_ns(StreamEpoch("live", RIG, "e1")) == 100
    assert await ledger.until_ns(StreamEpoch("live", RIG, "e3")) is None


async def test_a_life_without_its_first_batch_is_complete_up_to_the_end_of_the_one_before(ledger):
    await ledger.commit(lives("e1", 9, 90))
    await ledger.commit(lives("e2", 0, beyond=((2, 2),)))
    assert await ledger.newest_lives("live", RIG.owner, None, 10) == [(str(RIG), "e2", 2, 90)]


async def test_the_order_of_lives_does_not_follow_a_clock_that_is_set_back(ledger):
    for epoch, at_ns in (("e1", 9_000), ("e2", 5)):
        entries = lives(epoch, 1, 10)
        entries.at_ns = at_ns
        await ledger.commit(entries)
    (newest,) = await ledger.newest_lives("live", RIG.owner, None, 10)
    assert newest.epoch == "e2"


async def test_of_many_lives_the_newest_are_kept_and_the_others_are_counted(ledger):
    for at in range(MOST_LIVES + 10):
        await ledger.commit(lives(f"e{at}", 3))
    assert await ledger.held(StreamEpoch("live", RIG, "e0")) == Held(0)
    assert await ledger.held(StreamEpoch("live", RIG, "e10")) == Held(3)
    assert await ledger.held(StreamEpoch("live", RIG, EARLIER)) == Held(30)
    (newest,) = await ledger.newest_lives("live", RIG.owner, None, 10)
    assert newest.epoch == f"e{MOST_LIVES + 9}"
