"""The spool: what survives, and what is said of what does not."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from broker.batch import Batch, Long, Source, Wide
from broker.errors import Taken, Unavailable
from broker.messages import Held
from broker.streams import Dtype
from gateway.spool import spool
from gateway.spool.spool import Spool, SpoolSettings


def batch(first_ns: int, count: int = 3, *names: str) -> Batch:
    times = np.arange(first_ns, first_ns + count, dtype=np.int64)
    frames = [Wide(times + at, {name: times * 0.5}) for at, name in enumerate(names or ("a",))]
    return Batch(1, tuple(frames), Source.LIVE)


@asynccontextmanager
async def opened(folder: Path, epoch: str = "one", most_bytes: int = 2**30) -> AsyncIterator[Spool]:
    settings = SpoolSettings(most_bytes=most_bytes, keep_marked_s=0.0)
    async with spool.open(folder / "s.sqlite", epoch=epoch, settings=settings) as disk_spool:
        yield disk_spool


async def test_numbers_and_epoch_go_on_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1)), ("t", batch(1))], 0)
    async with opened(tmp_path, epoch="two") as disk_spool:
        (again,) = await disk_spool.commit([("s", batch(9))], 0)
        assert (disk_spool.epoch, again.seq) == ("one", 2)
        assert await disk_spool.last_ns("s") == 11


async def test_what_is_marked_is_not_sent_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(4)], 0)
        disk_spool.mark({"s": Held(2, ((4, 4),))})
        await disk_spool.all_due()
        assert [spooled.seq for spooled in await disk_spool.due(10, 10)] == [3]
        assert await disk_spool.due(10, 10) == []


@pytest.mark.parametrize("then", ["at once", "after a restart"])
async def test_what_a_mark_no_longer_says_is_sent_again(tmp_path: Path, then: str) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=900.0)
    path = tmp_path / "s.sqlite"
    async with spool.open(path, epoch="one", settings=settings) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(6)], 0)
        disk_spool.mark({"s": Held(5)})
        if then == "at once":
            assert (await disk_spool.depth()).unmarked == 1
            disk_spool.mark({"s": Held(2, ((4, 4), (7, 9)))})
            await _sent_again(disk_spool)
    if then == "after a restart":
        async with spool.open(path, epoch="one", settings=settings) as disk_spool:
            disk_spool.mark({"s": Held(2, ((4, 4), (7, 9)))})
            await _sent_again(disk_spool)


async def _sent_again(disk_spool: Spool) -> None:
    assert (await disk_spool.depth()).unmarked == 3
    assert [spooled.seq for spooled in await disk_spool.due(3, 10)] == [3, 5, 6]
    disk_spool.mark({"s": Held(9)})
    assert (await disk_spool.depth()).unmarked == 0
    await disk_spool.all_due()
    assert await disk_spool.due(10**12, 10) == []


async def test_a_mark_that_only_grows_takes_nothing_back(tmp_path: Path) -> None:
    async with spool.open(tmp_path / "s.sqlite", epoch="one") as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(6)], 0)
        for held in (Held(0, ((2, 3),)), Held(0, ((2, 3), (5, 5))), Held(3, ((5, 5),)), Held(6)):
            disk_spool.mark({"s": held})
        assert (await disk_spool.depth()).unmarked == 0
        await disk_spool.all_due()
        assert await disk_spool.due(10, 10) == []


async def test_a_full_spool_states_exactly_what_it_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path, most_bytes=4_000) as disk_spool:
        await disk_spool.commit([("s", batch(at * 100, 20, "a", "b")) for at in range(8)], 0)
        depth, first = await disk_spool.depth(), (await disk_spool.bodies())[0]
    document = orjson.loads(first.body)
    assert depth.dropped > 0
    assert (document["seq"], document["frames"]) == (1, [])
    spans = [
        (gap["signals"], gap["from"][-4:-1], gap["to"][-4:-1], gap["cause"])
        for gap in document["gaps"]
    ]
    assert spans == [(["a"], "000", "019", "spool-full"), (["b"], "001", "020", "spool-full")]


async def test_a_full_spool_knows_the_signals_of_long_frames_after_a_restart(
    tmp_path: Path,
) -> None:
    times = np.tile(np.array([5, 7, 6, 9], np.int64), 20)
    signal = np.tile(np.array([2, 0, 2, 0], np.int32), 20)
    names, dtypes = ("a", "b", "c"), (Dtype.FLOAT64,) * 3
    frame = Long(times, signal, times * 0.5, np.zeros(80, np.uint8), names, dtypes)
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", Batch(7, (frame,), Source.LIVE))], 0)
    async with opened(tmp_path, most_bytes=100) as disk_spool:
        await disk_spool.commit([], 0)
        (spooled,) = await disk_spool.due(0, 10)
    gaps = orjson.loads(spooled.body)["gaps"]
    assert {gap["signals"][0]: (gap["from"][-2], gap["to"][-2]) for gap in gaps} == {
        "a": ("7", "9"),
        "c": ("5", "6"),
    }


async def test_a_full_disk_leaves_the_count_of_bytes_right(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
        before = await disk_spool.depth()
        disk_spool._sql.execute("PRAGMA max_page_count = 1")
        with pytest.raises(Unavailable, match="full"):
            await disk_spool.commit([("s", batch(at * 10_000, 5_000)) for at in range(5)], 0)
        now = await disk_spool.depth()
        assert replace(now, disk_free=before.disk_free) == before  # others use the disk too


async def test_two_gateways_cannot_have_one_spool(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(Taken):
            async with opened(tmp_path):
                pass


async def test_a_spool_that_was_not_made_to_the_end_is_made_anew(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "s.sqlite").close()
    async with opened(tmp_path) as disk_spool:
        assert disk_spool.epoch == "one"
