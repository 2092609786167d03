"""What the recorder's ledger must do, held against SQLite and PostgreSQL."""

import asyncio
from dataclasses import replace

import pytest

from broker.batch import Gap
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.domain.organisations import Organisation
from testbed_api.recorder.held_ranges import EARLIER, MOST_LIVES
from testbed_api.recorder.ledger import (
    DeadLetter,
    FlushEntries,
    GapChange,
    Ledger,
    Repair,
    SetAside,
    StatedGap,
    StreamEpoch,
    StreamSpan,
)
from testbed_api.recorder.lineage import FirstSample, Lineage, UnsearchedSpan
from testbed_api.registry.engine import open_engine, transaction
from testbed_api.registry.registry import Registry
from testbed_api.stores.port import Position

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
        assert await ledger.held([LIFE]) == {LIFE: Held.from_ranges(ranges)}
    other = StreamEpoch("live", RIG, "e2")
    assert await ledger.held([other]) == {other: Held(0)}


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
    waiting = await ledger.waiting([("live", RIG)])
    assert [each.payload for each in waiting] == [b"\0", b"\1", b"\2"]
    await ledger.commit(FlushEntries(taken_up=[waiting[0].id]))
    assert await ledger.waiting([("live", RIG)]) == waiting[1:]
    assert await ledger.counts() == {"gaps": 0, "dead_letters": 0, "set_aside": 2}


async def test_the_bytes_that_wait_are_counted_for_each_organisation(ledger):
    topics = [f"tb1/{space}/data/{name}/e/s" for space in ("live", "run-a") for name in "ab"]
    messages = [SetAside(topic, b"x" * at, 1) for at, topic in enumerate(topics, 1)]
    await ledger.commit(FlushEntries(set_aside=messages))
    assert await ledger.set_aside_bytes() == {"a": 1 + 3, "b": 2 + 4}


async def test_many_taken_up_at_once_are_one_transaction(ledger):
    topic = f"tb1/live/data/{RIG}"
    await ledger.commit(FlushEntries(set_aside=[SetAside(topic, b"x", 1) for _ in range(40_000)]))
    waiting = await ledger.waiting([("live", RIG)])
    await ledger.commit(FlushEntries(taken_up=[each.id for each in waiting]))
    assert await ledger.waiting([("live", RIG)]) == []


async def test_a_spec_is_kept_for_good(ledger):
    spec = StreamSpec(RIG, (Signal("p"),)).numbered(3)
    other = StreamSpec(RIG, (Signal("q"),)).numbered(3)
    assert await ledger.keep_specs([("live", spec)], 1) == [None]
    first, second, third = await ledger.keep_specs(
        [("live", spec), ("live", other), ("run-1", other)], 2
    )
    assert (first, third) == (None, None)
    assert "differs from the one that is kept" in str(second)
    keys = [("live", RIG, 3), ("run-1", RIG, 3), ("live", RIG, 4)]
    assert await ledger.specs(keys) == {keys[0]: spec, keys[1]: other}


async def test_readers_do_not_wait_for_the_recorder(ledger):
    async with asyncio.TaskGroup() as tasks:
        for at in range(1, 20):
            held = Held.from_ranges([(1, at)])
            tasks.create_task(ledger.commit(FlushEntries(held={LIFE: held})), name=f"write {at}")
            tasks.create_task(ledger.held([LIFE]), name=f"read {at}")


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
    known = StreamEpoch("live", RIG, "e1")
    assert await ledger.until_ns([known, StreamEpoch("live", RIG, "e3")]) == {known: 100}


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
    first, newer, earlier = (StreamEpoch("live", RIG, epoch) for epoch in ("e0", "e10", EARLIER))
    held = await ledger.held([first, newer, earlier])
    assert held == {first: Held(0), newer: Held(3), earlier: Held(30)}
    (newest,) = await ledger.newest_lives("live", RIG.owner, None, 10)
    assert newest.epoch == f"e{MOST_LIVES + 9}"


async def test_a_new_ledger_has_an_id_and_counts_its_flushes(ledger):
    first = await ledger.lineage()
    assert (first.flushes, first.positions) == (0, {})
    position = Position(first.id, 1, 5)
    await ledger.commit(FlushEntries(position=position, organisations=["factory", "company"]))
    newer = Position(first.id, 2, 6)
    await ledger.commit(FlushEntries(position=newer, organisations=["factory"]))
    assert await ledger.lineage() == Lineage(first.id, 2, {"factory": newer, "company": position})
    await ledger.commit(FlushEntries(position=position))  # it was stored beside the newer one
    assert (await ledger.lineage()).flushes == 2


async def test_what_an_organisation_holds_is_taken_back_and_its_epochs_stay_known(ledger):
    other = StreamEpoch("live", StreamAddress("factory-b", "pump-rig", "rig"), "e1")
    await ledger.commit(FlushEntries(held={LIFE: Held(7, ((9, 12),)), other: Held(3)}))
    lineage = await ledger.lineage()
    key = ("live", RIG)
    gap = StatedGap.of_stream(key, Gap((), 1, 9, "store-lost"))
    await ledger.repair(Repair(lineage, ["factory"], [gap]))
    assert await ledger.held([LIFE, other]) == {LIFE: Held(0), other: Held(3)}
    assert await ledger.epochs([key]) == [LIFE]
    assert await ledger.gaps_of_causes({"store-lost", "spool-lost"}, 9) == [gap]


async def test_lives_that_were_taken_back_stay_in_their_order(ledger):
    for epoch in ("e1", "e2"):
        await ledger.commit(lives(epoch, 3, 30))
    await ledger.repair(Repair(await ledger.lineage(), ["factory"]))
    assert await ledger.newest_lives("live", RIG.owner, None, 10) == [(str(RIG), "e2", 0, 30)]


async def test_a_gap_is_replaced_by_its_pieces_unless_it_is_gone(ledger):
    gap = Gap((), 10, 90, "store-lost")
    pieces = [replace(gap, to_ns=30), replace(gap, from_ns=60)]
    stated, *parts = (StatedGap.of_stream(("live", RIG), each) for each in (gap, *pieces))
    await ledger.repair(Repair(await ledger.lineage(), gaps=[stated]))
    for _ in range(2):
        await ledger.commit(FlushEntries(gap_changes=[GapChange(stated, parts)]))
        assert await ledger.gaps("live", RIG, 0, 100) == pieces


async def test_the_first_sample_of_a_stream_is_known_but_for_what_retention_deleted(ledger):
    mill = StreamAddress("factory", "mill", "spindle")
    firsts = [FirstSample("live", RIG, 70), FirstSample("live", mill, -5)]
    for each in (firsts, [FirstSample("live", RIG, 60)]):
        await ledger.commit(FlushEntries(first_samples=each))
    keys = [("live", RIG), ("live", mill), ("run-1", mill)]
    assert await ledger.first_samples(keys) == {keys[0]: 60, keys[1]: -5}
    assert sorted(await ledger.samples_begin("factory")) == sorted(
        [FirstSample("live", RIG, 60), firsts[1]]
    )


async def test_a_ledger_in_place_of_a_lost_one_notes_the_streams_that_it_meets(ledger):
    spec = StreamSpec(RIG, (Signal("p"),)).numbered(2)
    await ledger.repair(Repair(replace(await ledger.lineage(), lost_ns=50)))
    assert await ledger.next_unsearched() is None
    await ledger.keep_specs([("live", spec)], 1)
    span, newest = await ledger.next_unsearched()
    assert (span, newest) == (UnsearchedSpan("live", RIG, None, 50), spec)
    await ledger.searched(span, [StatedGap.of_stream(("live", RIG), Gap((), 1, 9, "ledger-lost"))])
    await ledger.keep_specs([("live", spec.numbered(3))], 1)
    assert await ledger.next_unsearched() is None
    assert [gap.to_ns for gap in await ledger.gaps("live", RIG, 0, 100)] == [9]


async def test_neither_registry_nor_ledger_waits_for_a_writer_of_the_other(where):
    async with open_engine(where) as engine, asyncio.timeout(4):
        registry, ledger = Registry(engine), Ledger(engine)
        async with transaction(engine.registry, write=True):
            await ledger.commit(FlushEntries(held={LIFE: Held(1)}))
        async with transaction(engine.ledger, write=True):
            await registry.organisations.add(Organisation("factory", "The factory"))
        assert await ledger.held([LIFE]) == {LIFE: Held(1)}


async def test_a_backup_locks_out_the_writers_of_both(where):
    async with open_engine(where) as engine:
        registry, ledger = Registry(engine), Ledger(engine)
        async with asyncio.TaskGroup() as tasks, transaction(engine.both, write=True):
            writing = [
                tasks.create_task(each, name=name)
                for name, each in {
                    "ledger": ledger.commit(FlushEntries(held={LIFE: Held(1)})),
                    "registry": registry.organisations.add(Organisation("factory", "F")),
                }.items()
            ]
            await asyncio.wait(writing, timeout=0.3)
            assert not any(each.done() for each in writing)
