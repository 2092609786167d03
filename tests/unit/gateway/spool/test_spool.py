"""The spool: what survives, and what is said of what does not."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from broker.batch import Batch, Long, Source, Wide
from broker.clock import NS_PER_S
from broker.errors import Taken, Unavailable
from broker.messages import Held
from broker.streams import Dtype
from gateway.spool import spool
from gateway.spool.file import SpoolUnusable
from gateway.spool.lives import LastHeld
from gateway.spool.rows import SpooledBatch
from gateway.spool.spool import Spool, SpoolSettings


def batch(first_ns: int, count: int = 3, *names: str) -> Batch:
    times = np.arange(first_ns, first_ns + count, dtype=np.int64)
    frames = [Wide(times + at, {name: times * 0.5}) for at, name in enumerate(names or ("a",))]
    return Batch(1, tuple(frames), Source.LIVE)


def lives(batches: Sequence[SpooledBatch]) -> list[tuple[str, str, int]]:
    return [(batch.stream, batch.epoch, batch.seq) for batch in batches]


@asynccontextmanager
async def opened(folder: Path, epoch: str = "one", most_bytes: int = 2**30) -> AsyncIterator[Spool]:
    settings = SpoolSettings(most_bytes=most_bytes, keep_marked_s=0.0)
    async with spool.open(folder / "s.sqlite", epoch=epoch, settings=settings) as disk_spool:
        yield disk_spool


async def test_a_start_begins_a_life_and_sends_what_waited_under_its_old_number(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1)), ("t", batch(1))], 0)
    async with opened(tmp_path, epoch="two") as disk_spool:
        (again,) = await disk_spool.commit([("s", batch(9))], 0)
        assert (again.epoch, again.seq) == ("two", 1)
        assert (await disk_spool.stamps("s")).last_ns == 11
        assert (await disk_spool.stamps("t")).last_ns == 3
        assert lives(await disk_spool.due(10**12, 10)) == [
            ("s", "one", 1),
            ("t", "one", 1),
            ("s", "two", 1),
        ]
        disk_spool.mark({("s", "one"): Held(1), ("t", "one"): Held(1), ("s", "two"): Held(1)})
        assert (await disk_spool.depth()).unmarked == 0


async def test_what_an_older_image_of_the_file_numbers_is_new_to_the_recorder(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
    shutil.copytree(tmp_path, tmp_path / "image")
    async with opened(tmp_path, epoch="two") as disk_spool:
        later = await disk_spool.commit([("s", batch(at)) for at in (11, 21)], 0)
    async with opened(tmp_path / "image", epoch="three") as disk_spool:
        again = await disk_spool.commit([("s", batch(at)) for at in (31, 41)], 0)
    assert not {(each.epoch, each.seq) for each in later} & {
        (each.epoch, each.seq) for each in again
    }


async def test_the_last_batch_of_a_former_life_goes_again_and_asks_for_its_mark(
    tmp_path: Path,
) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=900.0)
    path = tmp_path / "s.sqlite"
    async with spool.open(path, epoch="one", settings=settings) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(6)], 0)
        disk_spool.mark({("s", "one"): Held(6)})
    async with spool.open(path, epoch="two", settings=settings) as disk_spool:
        assert lives(await disk_spool.due(10**12, 10)) == [("s", "one", 6)]
        disk_spool.mark({("s", "one"): Held(0, ((6, 6),))})  # the recorder was restored
        await disk_spool.all_due()
        assert [each.seq for each in await disk_spool.due(10**13, 10)] == [1, 2, 3, 4, 5]


async def test_where_the_present_life_loses_marks_the_former_ones_are_in_doubt(
    tmp_path: Path,
) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=900.0)
    path = tmp_path / "s.sqlite"
    async with spool.open(path, epoch="one", settings=settings) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(3)], 0)
        disk_spool.mark({("s", "one"): Held(3)})
    async with spool.open(path, epoch="two", settings=settings) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(10, 13)], 0)
        disk_spool.mark({("s", "one"): Held(3), ("s", "two"): Held(3)})
        assert (await disk_spool.depth()).unmarked == 0
        disk_spool.mark({("s", "two"): Held(0, ((3, 3),))})
        assert (await disk_spool.depth()).unmarked == 5


async def test_a_mark_of_numbers_that_were_never_given_ends_the_life(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
        disk_spool.mark({("s", "one"): Held(2)})
        with pytest.raises(SpoolUnusable, match="holds batch 2 of s, and this process has sent 1"):
            await disk_spool.depth()


async def test_rows_of_former_lives_go_once_nothing_of_them_is_left(tmp_path: Path) -> None:
    for at in range(20):
        async with opened(tmp_path, epoch=f"e{at}") as disk_spool:
            await disk_spool.commit([("s", batch(at))], at)
            disk_spool.mark({("s", f"e{life}"): Held(1) for life in range(at + 1)})
            await disk_spool.commit([], 10**12)
            await disk_spool.commit([], 10**13)
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as file:
        assert file.execute("SELECT count(*) FROM streams").fetchone()[0] <= 3
        assert file.execute("SELECT count(*) FROM lives").fetchone()[0] == 20


# --- compared with the ledger ---------------------------------------------------------------------


async def test_a_file_that_knows_what_the_ledger_holds_lacks_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        assert not await disk_spool.has_compared(["s", "t"])
        assert await disk_spool.compare([], ["s", "t"]) == set()
        assert await disk_spool.has_compared(["s", "t"])
        await disk_spool.commit([("s", batch(at)) for at in range(5)], 0)
    async with opened(tmp_path, epoch="two") as disk_spool:
        assert await disk_spool.has_compared(["s", "t"])
        assert await disk_spool.compare([LastHeld("s", "one", 5, 6)], ["s", "t"]) == set()
        assert await disk_spool.lost() == set()
        assert (await disk_spool.stamps("s")).last_ns == 6


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(LastHeld("s", "one", 9, 70), id="more of a life that it knows"),
        pytest.param(LastHeld("s", "other", 3, 70), id="a life that it does not know"),
    ],
)
async def test_a_file_that_lacks_what_the_ledger_holds_goes_on_from_there(
    tmp_path: Path, held: LastHeld
) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(5)], 0)
    async with opened(tmp_path, epoch="two") as disk_spool:
        assert await disk_spool.compare([held], ["s"]) == {"s"}
        assert (await disk_spool.lost(), (await disk_spool.stamps("s")).last_ns) == ({"s"}, 70)
    async with opened(tmp_path, epoch="three") as disk_spool:  # before a first sample
        assert await disk_spool.compare([held], ["s"]) == set()
        assert (await disk_spool.lost(), (await disk_spool.stamps("s")).last_ns) == ({"s"}, 70)
        await disk_spool.commit([("s", batch(100))], 0)
        assert await disk_spool.lost() == set()
        waiting = [each for each in await disk_spool.due(10**12, 99) if each.epoch == "one"]
        assert [each.seq for each in waiting] == [1, 2, 3, 4, 5]
    async with opened(tmp_path, epoch="four") as disk_spool:
        assert await disk_spool.compare([held], ["s"]) == set()
        assert (await disk_spool.lost(), (await disk_spool.stamps("s")).last_ns) == (set(), 102)


async def test_a_life_whose_batches_have_all_gone_is_known_by_its_name(tmp_path: Path) -> None:
    for at, epoch in enumerate(("one", "two", "three")):
        async with opened(tmp_path, epoch=epoch) as disk_spool:
            await disk_spool.commit([("s", batch(at))], 0)
            disk_spool.mark({("s", epoch): Held(1), ("s", "one"): Held(1)})
            await disk_spool.commit([], 10**12)
            await disk_spool.commit([], 10**13)
    async with opened(tmp_path, epoch="four") as disk_spool:
        assert await disk_spool.compare([LastHeld("s", "one", 1, 5)], ["s"]) == set()


async def test_what_is_compared_late_does_not_move_a_stream_that_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
    async with opened(tmp_path, epoch="two") as disk_spool:
        await disk_spool.commit([("s", batch(1_000))], 0)
        assert await disk_spool.compare([LastHeld("s", "other", 3, 500)], ["s"]) == {"s"}
        assert await disk_spool.lost() == set()
    async with opened(tmp_path, epoch="three") as disk_spool:
        assert (await disk_spool.stamps("s")).last_ns == 1_002
        assert await disk_spool.compare([LastHeld("s", "other", 3, 500)], ["s"]) == set()


async def test_what_is_marked_is_not_sent_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(4)], 0)
        disk_spool.mark({("s", "one"): Held(2, ((4, 4),))})
        await disk_spool.all_due()
        assert [spooled.seq for spooled in await disk_spool.due(10, 10)] == [3]
        assert await disk_spool.due(10, 10) == []


@pytest.mark.parametrize("then", ["at once", "after a restart"])
async def test_what_a_mark_no_longer_says_is_sent_again(tmp_path: Path, then: str) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=900.0)
    path = tmp_path / "s.sqlite"
    async with spool.open(path, epoch="one", settings=settings) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(6)], 0)
        disk_spool.mark({("s", "one"): Held(5)})
        if then == "at once":
            assert (await disk_spool.depth()).unmarked == 1
            disk_spool.mark({("s", "one"): Held(2, ((4, 4),))})
            await _sent_again(disk_spool)
    if then == "after a restart":
        async with spool.open(path, epoch="two", settings=settings) as disk_spool:
            disk_spool.mark({("s", "one"): Held(2, ((4, 4),))})
            await _sent_again(disk_spool)


async def _sent_again(disk_spool: Spool) -> None:
    assert (await disk_spool.depth()).unmarked == 3
    assert [spooled.seq for spooled in await disk_spool.due(3, 10)] == [3, 5, 6]
    disk_spool.mark({("s", "one"): Held(6)})
    assert (await disk_spool.depth()).unmarked == 0
    await disk_spool.all_due()
    assert await disk_spool.due(10**12, 10) == []


async def test_a_mark_that_only_grows_takes_nothing_back(tmp_path: Path) -> None:
    async with spool.open(tmp_path / "s.sqlite", epoch="one") as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(6)], 0)
        for held in (Held(0, ((2, 3),)), Held(0, ((2, 3), (5, 5))), Held(3, ((5, 5),)), Held(6)):
            disk_spool.mark({("s", "one"): held})
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
    async with opened(tmp_path, epoch="two", most_bytes=100) as disk_spool:
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
        disk_spool._file.sql.execute("PRAGMA max_page_count = 1")
        with pytest.raises(Unavailable, match="full"):
            await disk_spool.commit([("s", batch(at * 10_000, 5_000)) for at in range(5)], 0)
        now = await disk_spool.depth()
        assert replace(now, disk_free=before.disk_free) == before  # others use the disk too


async def test_two_gateways_cannot_have_one_spool(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(Taken):
            async with opened(tmp_path):
                pass


async def test_a_file_that_is_no_spool_is_set_aside_and_a_new_one_is_made(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "s.sqlite").close()
    async with opened(tmp_path) as disk_spool:
        assert disk_spool.aside is not None
        assert disk_spool.aside.path == tmp_path / "s.sqlite.damaged-1"
        assert "no such table: spool" in disk_spool.aside.reason
        assert [each.epoch for each in await disk_spool.commit([("s", batch(1))], 0)] == ["one"]


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A spool with 200 batches."""
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(at * 1_000, 500)) for at in range(200)], 0)
    return tmp_path / "s.sqlite"


def cut_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4_096 * 3)
        file.write(b"\xff" * 4_096)


def fill_with_noise(path: Path) -> None:
    path.write_bytes(os.urandom(100_000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_to_half, overwrite_a_page, fill_with_noise, empty])
async def test_a_damaged_file_is_set_aside_and_the_way_goes_on(
    filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled)
    damaged = await asyncio.to_thread(filled.read_bytes)
    async with opened(filled.parent, epoch="two") as disk_spool:
        assert disk_spool.aside is not None
        assert await asyncio.to_thread(disk_spool.aside.path.read_bytes) == damaged
        assert (await disk_spool.depth()).unmarked == 0
        assert await disk_spool.compare([LastHeld("s", "one", 200, 9)], ["s"]) == {"s"}
        await disk_spool.commit([("s", batch(1))], 0)
    async with opened(filled.parent, epoch="three") as disk_spool:
        assert disk_spool.aside is None
        assert (await disk_spool.depth()).unmarked == 1


async def test_damage_that_shows_while_the_file_is_used_ends_the_life(filled: Path) -> None:
    async with opened(filled.parent, epoch="two") as disk_spool:
        os.truncate(filled, 4_096 * 10)
        disk_spool._file.sql.execute("PRAGMA shrink_memory")
        with pytest.raises(SpoolUnusable, match="is damaged") as unusable:
            await disk_spool.bodies()
    path = filled.parent / "s.sqlite"
    async with spool.open(path, epoch="three", damage=unusable.value.message) as disk_spool:
        assert disk_spool.aside is not None
        assert "is damaged" in disk_spool.aside.reason


async def test_a_file_that_is_cut_while_it_is_used_ends_the_life(filled: Path) -> None:
    async with opened(filled.parent, epoch="two") as disk_spool:
        assert await disk_spool.keep_in_place() is None
        cut_to_half(filled)
        with pytest.raises(SpoolUnusable, match="was cut from") as unusable:
            await disk_spool.keep_in_place()
        assert unusable.value.is_damaged


async def test_a_folder_that_disappears_is_made_again_with_everything_in_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "spool"
    async with opened(folder) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
        shutil.rmtree(folder)
        await disk_spool.commit([("s", batch(11))], 0)
        assert (await disk_spool.depth()).disk_free == 0
        assert await disk_spool.keep_in_place() == "is gone"
        assert await disk_spool.keep_in_place() is None
        await disk_spool.commit([("s", batch(21))], 0)
        assert (await disk_spool.depth()).disk_free > 0
        with pytest.raises(Taken):
            async with opened(folder, epoch="another"):
                pass
    async with opened(folder, epoch="two") as disk_spool:
        assert [each.seq for each in await disk_spool.bodies()] == [1, 2, 3]


async def test_a_file_that_is_removed_alone_does_not_meet_its_old_log(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with opened(tmp_path) as disk_spool:
        for at in range(20):
            await disk_spool.commit([("s", batch(at * 10))], at)
        path.unlink()
        assert await disk_spool.keep_in_place() == "is gone"
        assert len(await disk_spool.bodies()) == 20
        shutil.copytree(tmp_path, tmp_path / "killed")
    (tmp_path / "killed" / "s.sqlite").unlink()
    (tmp_path / "killed" / "s.sqlite-wal").write_bytes(b"what is left of another")
    async with opened(tmp_path / "killed", epoch="two") as disk_spool:
        assert disk_spool.aside is not None
        assert "its WAL is not" in disk_spool.aside.reason
        assert await disk_spool.bodies() == []


async def test_a_file_that_cannot_be_put_back_is_put_back_later(tmp_path: Path) -> None:
    path, obstacle = tmp_path / "s.sqlite", tmp_path / "s.sqlite-wal"
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1)), ("s", batch(11))], 0)
        path.unlink()
        obstacle.unlink()
        obstacle.mkdir()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await disk_spool.keep_in_place()
        assert len(await disk_spool.bodies()) == 2
        obstacle.rmdir()
        assert await disk_spool.keep_in_place() == "is gone"
        assert len(await disk_spool.bodies()) == 2
    async with opened(tmp_path, epoch="two") as disk_spool:
        assert lives(await disk_spool.bodies()) == [("s", "one", 1), ("s", "one", 2)]


async def test_a_file_that_is_put_back_and_not_opened_is_whole_and_not_damaged(
    tmp_path: Path,
) -> None:
    path, obstacle = tmp_path / "s.sqlite", tmp_path / "s.sqlite-journal"
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
        path.unlink()
        obstacle.mkdir()
        with pytest.raises(SpoolUnusable) as unusable:
            await disk_spool.keep_in_place()
        assert not unusable.value.is_damaged
    obstacle.rmdir()
    async with opened(tmp_path, epoch="two") as disk_spool:
        assert disk_spool.aside is None
        assert lives(await disk_spool.bodies()) == [("s", "one", 1)]


async def test_a_file_that_is_replaced_is_set_aside_and_ours_is_written_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "other", epoch="other") as disk_spool:
        await disk_spool.commit([("s", batch(5))], 0)
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
        (tmp_path / "other" / "s.sqlite").replace(tmp_path / "s.sqlite")
        assert await disk_spool.keep_in_place() == "was replaced by another file"
        assert disk_spool.aside is not None
        assert disk_spool.aside.path == tmp_path / "s.sqlite.replaced-1"
        await disk_spool.commit([("s", batch(11))], 0)
    async with opened(tmp_path, epoch="two") as disk_spool:
        assert lives(await disk_spool.bodies()) == [("s", "one", 1), ("s", "one", 2)]


async def test_a_file_that_is_set_aside_keeps_its_own_content(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
    image = tmp_path / "image.sqlite"
    shutil.copy(path, image)
    async with opened(tmp_path, epoch="two") as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in (11, 21, 31)], 0)
        shutil.move(image, path)  # somebody brings an older one back
        await disk_spool.keep_in_place()
        assert disk_spool.aside is not None
        aside = disk_spool.aside.path
    with closing(sqlite3.connect(aside)) as sql:
        assert sql.execute("SELECT count(*) FROM batches").fetchone() == (1,)


async def test_a_folder_that_cannot_be_made_again_is_told_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with opened(folder) as disk_spool:
        await disk_spool.commit([("s", batch(1))], 0)
        shutil.rmtree(folder)
        folder.write_text("in the way")
        with pytest.raises(Unavailable, match="cannot be used: it is a file"):
            await disk_spool.keep_in_place()
        folder.unlink()
        assert await disk_spool.keep_in_place() == "is gone"
        assert [each.seq for each in await disk_spool.bodies()] == [1]


async def test_where_marks_come_late_nothing_is_sent_again_before_they_may(tmp_path: Path) -> None:
    late_ns = 100 * NS_PER_S
    async with opened(tmp_path) as disk_spool:
        await disk_spool.commit([("s", batch(at)) for at in range(3)], 0)
        assert await disk_spool.due(late_ns - 1, 10, late_ns) == []
        assert len(await disk_spool.due(late_ns, 10, late_ns)) == 3
        assert await disk_spool.due(late_ns + 60 * NS_PER_S, 10, late_ns) == []
        for after_ns in (2 * late_ns, 3 * late_ns):
            await disk_spool.due(after_ns, 10, late_ns)
        assert len(await disk_spool.due(5 * late_ns, 10)) == 3
