"""The spool's first layout, frozen as it stands in a file, and the refusal of every other."""

import sqlite3
from pathlib import Path

import orjson
import pytest

from broker.errors import Refused, Unavailable
from broker.messages import Held
from gateway.spool import file as spool_file
from gateway.spool import spool
from gateway.spool.file import LAYOUT
from gateway.spool.spool import SpoolSettings

TABLES = (
    "CREATE TABLE spool (layout INTEGER, bytes INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE lives (id INTEGER PRIMARY KEY, epoch TEXT UNIQUE NOT NULL)",
    (
        "CREATE TABLE streams (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, epoch TEXT NOT NULL,"
        " seq INTEGER NOT NULL, lost INTEGER NOT NULL DEFAULT 0,"
        " last_ns INTEGER, committed_ns INTEGER NOT NULL, greatest_ns INTEGER, ahead TEXT NOT NULL,"
        " held TEXT NOT NULL DEFAULT '[]', gone TEXT NOT NULL DEFAULT '[]',"
        " UNIQUE (stream, epoch))"
    ),
    (
        "CREATE TABLE batches (id INTEGER PRIMARY KEY, life INTEGER NOT NULL,"
        " seq INTEGER NOT NULL, samples INTEGER NOT NULL, committed_ns INTEGER NOT NULL,"
        " size INTEGER NOT NULL, body BLOB NOT NULL)"
    ),
    "CREATE TABLE names (stream TEXT, spec INTEGER, names TEXT, PRIMARY KEY (stream, spec))",
    "INSERT INTO spool VALUES (:layout, 0)",
    "INSERT INTO lives VALUES (4, 'old')",
    "INSERT INTO streams VALUES (7, 's', 'old', 3, 0, 30, 10, 30, '[]', '[[1,1]]', '[]')",
)
BATCH = (
    "INSERT INTO batches VALUES (:seq, 7, :seq, 0, 10, length(:body), :body)",
    "UPDATE spool SET bytes = bytes + length(:body)",
)


def body(seq: int) -> bytes:
    frame = {"t0": "2026-11-23T12:00:00.000000000Z", "dt": [0], "values": {"a": [seq * 1.5]}}
    return orjson.dumps(
        {"v": 1, "spec": 1, "epoch": "old", "seq": seq, "source": "live", "frames": [frame]}
    )


def written(path: Path, layout: int) -> Path:
    """A spool that says it is of that layout: three batches, the first of them marked."""
    file = sqlite3.connect(path)
    with file:
        for statement in TABLES:
            file.execute(statement, {"layout": layout})
        for seq in (1, 2, 3):
            for statement in BATCH:
                file.execute(statement, {"seq": seq, "body": body(seq)})
    file.close()
    return path


def layout_of(path: Path) -> int:
    file = sqlite3.connect(path)
    try:
        return int(file.execute("SELECT layout FROM spool").fetchone()[0])
    finally:
        file.close()


async def test_what_waits_in_a_spool_of_the_first_layout_is_sent_and_marked(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "s.sqlite", 1)
    async with spool.open(path, epoch="new") as disk_spool:
        due = await disk_spool.due(10**12, 10)
        assert [(*batch[1:4], bytes(batch.body)) for batch in due] == [
            ("s", "old", 2, body(2)),
            ("s", "old", 3, body(3)),
        ]
        assert (await disk_spool.stamps("s")).last_ns == 30
        assert spool_file.unmarked(path) == 2
        disk_spool.mark({("s", "old"): Held(3)})
        depth = await disk_spool.depth()
        assert (depth.unmarked, depth.bytes) == (
            0,
            sum(len(batch.body) for batch in await disk_spool.bodies()),
        )
    assert layout_of(path) == LAYOUT
    assert spool_file.unmarked(path) == 0


async def test_a_spool_that_is_full_drops_no_batch_without_samples_to_name(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite", 1)
    async with spool.open(
        path, epoch="new", settings=SpoolSettings(most_bytes=1, keep_marked_s=900.0)
    ) as disk_spool:
        await disk_spool.commit([], 300)
        assert [batch.seq for batch in await disk_spool.bodies()] == [2, 3]


async def test_a_spool_of_an_unknown_layout_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite", LAYOUT + 1)
    sentence = rf"{path} has layout {LAYOUT + 1}, this version reads {LAYOUT}.*run the version"
    with pytest.raises(Refused, match=sentence):
        async with spool.open(path, epoch="new"):
            pass
    assert layout_of(path) == LAYOUT + 1


async def test_a_spool_whose_creation_fails_is_created_whole_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sqlite"
    monkeypatch.setattr(spool_file, "_SCHEMA", ("CREATE TABLE spool (layout INTEGER)", "no SQL"))
    with pytest.raises(Unavailable):
        async with spool.open(path, epoch="new"):
            pass
    monkeypatch.undo()
    async with spool.open(path, epoch="new") as disk_spool:
        assert (disk_spool.aside, await disk_spool.bodies()) == (None, [])
