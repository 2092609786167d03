"""Where samples go whose time stamps may be taken, over each store and each ledger."""

from collections.abc import Sequence

import numpy as np
import pytest

from broker import codec
from broker.batch import Batch, EquipmentKind, Long, MayRepeat, Source, Wide
from broker.bus.inbox import Message
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.recorder import classify
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import Lookups, WaitLimits
from testbed_api.recorder.flush import Flush, FlushTime
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.recorder.placement import Placer
from testbed_api.recorder.placement_ledger import (
    MOST_LIVES,
    BatchNumber,
    PlacedSeries,
    PlacementLedger,
)
from testbed_api.registry.engine import open_engine
from testbed_api.stores.port import Window

SPEC = StreamSpec(StreamAddress("factory", "press", "s"), (Signal("a"), Signal("b")))
LIFE = StreamEpoch("live", SPEC.address, "e1")
LOOKUPS = Lookups({("live", SPEC.address, 1): SPEC}, {SPEC.address.owner: EquipmentKind.REAL}, {})
T = 1_700_000_000_000_000_000
TIMES, SAMPLES = MayRepeat.TIMES, MayRepeat.SAMPLES
Rows = Sequence[tuple[int, float]]


@pytest.fixture
async def ledger(tmp_path, tables):
    await tables.put_into(tmp_path)
    async with open_engine(tmp_path) as engine:
        yield PlacementLedger(engine.ledger)


@pytest.fixture
def placer(store, ledger):
    return Placer(store, ledger)


def wide(rows: Rows) -> Wide:
    values = np.array([value for _, value in rows])
    return Wide(np.array([T + ns for ns, _ in rows], np.int64), {"a": values, "b": -values})


async def flushed(placer: Placer, *batches: tuple[int, Rows, MayRepeat | None]) -> Flush:
    """A flush of batches (seq, rows, may_repeat) after it was placed."""
    messages = []
    for seq, rows, may_repeat in batches:
        batch = Batch(1, (wide(rows),), Source.LIVE, 0, "e1", seq, may_repeat=may_repeat)
        message = Message(f"tb1/live/data/{SPEC.address}", codec.encode(batch))
        messages.append(recorder_flush.read(message, 0))
    flush = classify.classify(
        messages,
        LOOKUPS,
        placements=await placer.placements(),
        time=FlushTime(T, T, 0),
        limits=WaitLimits(100, 2, 10**6, 10**6),
    )
    await placer.place(flush)
    return flush


async def recorded(placer: Placer, store, *batches: tuple[int, Rows, MayRepeat | None]) -> None:
    flush = await flushed(placer, *batches)
    await store.write(flush.blocks)
    await placer.settle(flush)


async def stored(store) -> list[tuple[int, float]]:
    """What is stored of `a`, which is what is stored of `b`."""
    rows = {"a": [], "b": []}
    async for frame in store.read(Window("live", SPEC, ("a", "b"), T - 10**6, T + 10**12)):
        for name, series in frame.series():
            times = (series.time_ns - T).tolist()
            rows[name] += zip(times, series.values.tolist(), strict=True)
    assert rows["b"] == [(ns, -value) for ns, value in rows["a"]]
    return rows["a"]


async def test_a_sample_whose_time_is_taken_gets_the_next_free_one(placer, store):
    await recorded(placer, store, (1, [(0, 1.0), (1, 2.0), (5, 3.0)], None))
    await recorded(placer, store, (2, [(0, 4.0), (5, 5.0), (9, 6.0)], TIMES))
    assert await stored(store) == [(0, 1), (1, 2), (2, 4), (5, 3), (6, 5), (9, 6)]
    assert (placer.checked, placer.moved) == (1, 4)


async def test_samples_of_one_flush_get_times_of_their_own(placer, store):
    await recorded(
        placer,
        store,
        (1, [(0, 1.0)], None),
        (2, [(0, 2.0), (0, 3.0)], TIMES),
        (3, [(0, 4.0)], TIMES),
        (4, [(10, 5.0)], None),
    )
    assert await stored(store) == [(0, 1), (1, 2), (2, 3), (3, 4), (10, 5)]


async def test_a_clock_that_stands_for_long_costs_no_sample(placer, store):
    many = 3_000
    await recorded(placer, store, (1, [(ns, float(ns)) for ns in range(many)], None))
    for seq in (2, 3):
        await recorded(placer, store, (seq, [(0, float(many + seq))], TIMES))
    assert (await stored(store))[-2:] == [(many, many + 2.0), (many + 1, many + 3.0)]


async def test_a_sample_that_a_subscription_repeats_is_stored_once(placer, store):
    await recorded(placer, store, (1, [(0, 1.0)], None))
    await recorded(placer, store, (2, [(0, 1.0)], SAMPLES), (3, [(0, 1.0)], TIMES))
    await recorded(placer, store, (4, [(0, 2.0)], SAMPLES))
    assert await stored(store) == [(0, 1), (1, 1), (2, 2)]


@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_batch_that_comes_again_after_a_crash_lands_where_it_was(
    placer, store, ledger, is_stored
):
    doubtful = (2, [(0, 2.0), (3, 3.0)], TIMES)
    await recorded(placer, store, (1, [(0, 1.0)], None))
    flush = await flushed(placer, doubtful)
    if is_stored:
        await store.write(flush.blocks)
    after = Placer(store, ledger)  # the next process
    await recorded(after, store, (3, [(0, 4.0), (1, 5.0)], TIMES))
    await recorded(after, store, doubtful)
    assert await stored(store) == [(0, 1), (1, 2), (2, 4), (3, 3), (4, 5)]


async def test_a_batch_that_was_overtaken_does_not_take_the_place_of_another(placer, store, ledger):
    await recorded(placer, store, (1, [(0, 1.0)], None))
    await recorded(placer, store, (3, [(0, 3.0)], TIMES))
    for each in (placer, Placer(store, ledger)):
        assert (await each.placements()).is_overtaken(BatchNumber(LIFE, 2))
    await recorded(Placer(store, ledger), store, (2, [(1, 2.0)], None))
    assert await stored(store) == [(0, 1), (1, 3), (2, 2)]


async def test_another_batch_under_a_number_that_was_placed_keeps_its_times(placer, store):
    await flushed(placer, (2, [(0, 2.0)], TIMES))
    await recorded(placer, store, (2, [(7, 1.0), (8, 3.0)], TIMES))
    assert await stored(store) == [(7, 1), (8, 3)]


async def test_long_frames_are_placed_signal_by_signal(placer, store):
    await recorded(placer, store, (1, [(0, 1.0)], None))
    frame = Long(
        np.array([T, T, T + 4], np.int64),
        np.array([1, 0, 0], np.int32),
        np.array([-2.0, 2.0, 3.0]),
        np.zeros(3, np.uint8),
        SPEC.names,
        SPEC.dtypes,
    )
    batch = Batch(1, (frame,), Source.LIVE, 0, "e1", 2, may_repeat=TIMES)
    message = Message(f"tb1/live/data/{SPEC.address}", codec.encode(batch))
    flush = classify.classify(
        [recorder_flush.read(message, 0)],
        LOOKUPS,
        placements=await placer.placements(),
        time=FlushTime(T, T, 0),
        limits=WaitLimits(100, 2, 10**6, 10**6),
    )
    await placer.place(flush)
    placed = {name: series.time_ns - T for block in flush.blocks for name, series in block.series()}
    assert {name: times.tolist() for name, times in placed.items()} == {"a": [1, 4], "b": [1]}


async def test_of_each_life_the_last_number_stays(where):
    placement = [PlacedSeries("a", [1, 2], [3, None])]
    async with open_engine(where) as engine:
        ledger = PlacementLedger(engine.ledger)
        for seq in (1, 2, 3):
            await ledger.place({BatchNumber(LIFE, seq): placement})
            if seq < 3:
                await ledger.settle([BatchNumber(LIFE, seq)])
        placements = await ledger.placements()
        assert placements.pending == {BatchNumber(LIFE, 3): placement}
        assert placements.last_seqs == {LIFE: 3}
        await ledger.settle([BatchNumber(LIFE, 3)])
        for at in range(MOST_LIVES + 5):
            number = BatchNumber(LIFE._replace(epoch=f"life-{at}"), 1)
            await ledger.place({number: placement})
            await ledger.settle([number])
        placements = await ledger.placements()
        assert not placements.pending
        assert LIFE not in placements.last_seqs
        assert MOST_LIVES <= len(placements.last_seqs) <= MOST_LIVES + 1
