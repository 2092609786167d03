"""Gaps of a lost spool, cut around what a real store holds."""

from dataclasses import replace

import numpy as np
import pytest

from broker.batch import GOOD, Gap, Series
from broker.clock import NS_PER_S
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.recorder import lost_gaps
from testbed_api.recorder.flush import BlockOrigin, Flush, FlushTime
from testbed_api.recorder.ledger import StatedGap, StreamEpoch
from testbed_api.recorder.lost_gaps import SPOOL_LOST, LostGaps
from testbed_api.stores import duckdb
from testbed_api.stores.port import Block

ADDRESS = StreamAddress("factory", "pump-rig", "rig")
LIFE = StreamEpoch("live", ADDRESS, "two")
SPEC = StreamSpec(ADDRESS, (Signal("a"), Signal("b")), period_s=1.0)
ON_CHANGE = StreamSpec(ADDRESS, (Signal("a"), Signal("b")), max_silence_s=10.0)
WHOLE = Gap((), 1 * NS_PER_S, 100 * NS_PER_S, SPOOL_LOST)


@pytest.fixture
async def store(tmp_path):
    async with duckdb.open(tmp_path / "samples.duckdb") as opened:
        yield opened


async def write(store, spec, signal, *seconds):
    times = np.array([second * NS_PER_S for second in seconds], np.int64)
    series = Series(times, np.zeros(len(times)), np.full(len(times), GOOD, np.uint8))
    await store.write([Block.of_series("live", spec, [(signal, series)])])


async def cut(store, gap=WHOLE, spec=SPEC):
    """The parts in seconds, by their signals: what is missing between two stored samples."""
    return in_seconds(await lost_gaps.cut(store, [(spec, StatedGap(LIFE, 7, gap))]))


def in_seconds(parts):
    assert all((life, seq, part.cause) == (LIFE, 7, SPOOL_LOST) for life, seq, part in parts)
    return sorted(
        (part.signals, (part.from_ns - 1) / NS_PER_S, (part.to_ns + 1) / NS_PER_S)
        for _, _, part in parts
    )


async def test_where_nothing_is_stored_the_gap_stays_as_it_is(store):
    stated = StatedGap(LIFE, None, WHOLE)
    assert await lost_gaps.cut(store, [(SPEC, stated)]) == [stated]


async def test_what_is_stored_is_left_out_for_each_signal(store):
    for signal in ("a", "b"):
        await write(store, SPEC, signal, *range(1, 31))
    await write(store, SPEC, "a", *range(60, 71))
    assert await cut(store, Gap((), NS_PER_S + 1, 100 * NS_PER_S - 1, SPOOL_LOST)) == [
        (("a",), 30.0, 60.0),
        (("a",), 70.0, 100.0),
        (("b",), 30.0, 100.0),
    ]


async def test_what_is_stored_up_to_the_end_leaves_no_gap(store):
    await write(store, SPEC, "a", *range(1, 101))
    assert await cut(store, Gap(("a",), NS_PER_S + 1, 101 * NS_PER_S - 1, SPOOL_LOST)) == []


async def test_a_signal_that_is_sent_on_change_is_silent_by_itself(store):
    await write(store, ON_CHANGE, "a", 3, 8, 40, 95)
    gap = Gap(("a",), NS_PER_S + 1, 100 * NS_PER_S - 1, SPOOL_LOST)
    assert await cut(store, gap, ON_CHANGE) == [
        (("a",), 8.0, 40.0),
        (("a",), 40.0, 95.0),
        (("a",), 95.0, 100.0),
    ]


@pytest.mark.parametrize(
    "gap",
    [
        Gap(("nobody",), 1, 5, SPOOL_LOST),
        Gap((), 2**63 - 1, 2**63 - 1, SPOOL_LOST),
    ],
)
async def test_a_gap_that_cannot_be_looked_up_stays_as_it_is(store, gap):
    stated = StatedGap(LIFE, 1, gap)
    assert await lost_gaps.cut(store, [(SPEC, stated)]) == [stated]


async def test_a_flush_reads_no_more_than_it_may(store, monkeypatch):
    monkeypatch.setattr(lost_gaps, "MOST_READ", 5)
    await write(store, SPEC, "a", *range(1, 31))
    gap = Gap(("a",), WHOLE.from_ns, WHOLE.to_ns, SPOOL_LOST)
    lost = [(SPEC, StatedGap(LIFE, seq, gap)) for seq in (1, 2)]
    first, second = await lost_gaps.cut(store, lost)
    assert first[2].to_ns == second[2].to_ns == WHOLE.to_ns


async def test_who_reads_too_much_leaves_others_what_they_may_read(store, monkeypatch):
    monkeypatch.setattr(lost_gaps, "MOST_READ", 29)
    monkeypatch.setattr(lost_gaps, "AT_ONCE", 1)
    other = StreamAddress("other", "pump-rig", "rig")
    for spec in (SPEC, replace(SPEC, address=other)):
        await write(store, spec, "a", *range(1, 31))
    gap = Gap(("a",), WHOLE.from_ns + 1, WHOLE.to_ns, SPOOL_LOST)
    lost = [(SPEC, StatedGap(LIFE, seq, gap)) for seq in range(1, 4)]
    theirs = replace(SPEC, address=other), StatedGap(LIFE._replace(stream=other), 1, gap)
    *greedy, last = await lost_gaps.cut(store, [*lost, theirs])
    assert [stated.gap.from_ns for stated in greedy] == [30 * NS_PER_S + 1] + 2 * [gap.from_ns]
    assert last.gap.from_ns == 30 * NS_PER_S + 1


async def test_a_gap_of_too_many_parts_stays_as_it_was_stated(store, monkeypatch):
    monkeypatch.setattr(lost_gaps, "MOST_PARTS", 10)
    await write(store, SPEC, "a", *range(1, 24, 2))
    gap = Gap(("a",), NS_PER_S + 1, 23 * NS_PER_S - 1, SPOOL_LOST)
    assert await cut(store, gap) == [(("a",), 1.0, 23.0)]
    assert len(await cut(store, Gap(("a",), NS_PER_S + 1, 21 * NS_PER_S - 1, SPOOL_LOST))) == 10


def block(spec, signal, *seconds, space="live"):
    times = np.array([second * NS_PER_S for second in seconds], np.int64)
    series = Series(times, np.zeros(len(times)), np.zeros(len(times), np.uint8))
    return Block.of_series(space, spec, [(signal, series)])


def changes_by(known, *blocks):
    """The changes that samples make, whose batches have no numbers."""
    origins = [BlockOrigin(LIFE, ()) for _ in blocks]
    return known.changes(Flush(FlushTime(0, 0, 0), blocks=list(blocks), origins=origins), {})


def test_what_comes_later_cuts_a_gap_again_without_a_look_at_the_store():
    gap = StatedGap(LIFE, 7, Gap((), NS_PER_S + 1, 100 * NS_PER_S - 1, SPOOL_LOST))
    known = LostGaps()
    known.reset([gap, StatedGap(LIFE, 8, Gap((), 1, 10**15, "gateway-down"))])
    assert changes_by(known, block(SPEC, "a", 100, 101), block(SPEC, "b", 1)).gaps == []
    assert changes_by(known, block(SPEC, "a", 50, space="run-1")).gaps == []
    changes = changes_by(known, block(SPEC, "a", *range(60, 71)), block(SPEC, "a", 71))
    assert [change.before for change in changes.gaps] == [gap]
    assert in_seconds(changes.gaps[0].parts) == [
        (("a",), 1.0, 60.0),
        (("a",), 71.0, 100.0),
        (("b",), 1.0, 100.0),
    ]
    assert changes_by(known, block(SPEC, "a", 50)).gaps[0].before == gap  # it was not committed
    known.apply(changes)
    changes = changes_by(known, block(SPEC, "b", *range(2, 100)))
    assert [change.parts for change in changes.gaps] == [[]]
    known.apply(changes)
    changes = changes_by(known, block(SPEC, "a", *range(2, 60)), block(SPEC, "a", *range(72, 99)))
    known.apply(changes)
    assert changes_by(known, block(SPEC, "a", 98)).gaps == []
