"""Spools of older versions: what waits in them is sent, whatever layout they were written in."""

import sqlite3
from pathlib import Path

import orjson
import pytest

from broker.errors import Refused
from broker.messages import Held
from gateway.spool import file as spool_file
from gateway.spool import spool
from gateway.spool.file import LAYOUT
from gateway.spool.spool import SpoolSettings

COMMON = (
    "CREATE TABLE spool (layout INTEGER NOT NULL, epoch TEXT NOT NULL)",
    "CREATE TABLE streams (stream TEXT PRIMARY KEY, seq INTEGER NOT NULL, last_ns INTEGER)",
    "CREATE UNIQUE INDEX unmarked ON batches (stream, seq) WHERE marked_ns IS NULL",
    "CREATE INDEX due ON batches (due_ns) WHERE marked_ns IS NULL",
    "CREATE INDEX marked ON batches (marked_ns) WHERE marked_ns IS NOT NULL",
    "INSERT INTO spool VALUES (:layout, 'old')",
    "INSERT INTO streams VALUES ('s', 3, 30)",
)
COMMON_4 = (
    "CREATE TABLE spool (layout INTEGER, epoch TEXT NOT NULL, bytes INTEGER NOT NULL DEFAULT 0)",
    (
        "CREATE TABLE streams (id INTEGER PRIMARY KEY, stream TEXT UNIQUE NOT NULL,"
        " seq INTEGER NOT NULL, last_ns INTEGER, held TEXT NOT NULL DEFAULT '[]',"
        " gone TEXT NOT NULL DEFAULT '[]')"
    ),
    "INSERT INTO spool VALUES (:layout, 'old', 0)",
    "INSERT INTO streams VALUES (7, 's', 3, 30, '[[1,1]]', '[]')",
)
BATCHES = (
    "CREATE TABLE batches (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,"
    " body BLOB NOT NULL, {more} committed_ns INTEGER NOT NULL, due_ns INTEGER NOT NULL,"
    " tries INTEGER NOT NULL DEFAULT 0, marked_ns INTEGER)"
)
BATCHES_3 = """
CREATE TABLE batches (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,
  samples INTEGER NOT NULL, committed_ns INTEGER NOT NULL, due_ns INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0, marked_ns INTEGER);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE names (stream TEXT, spec INTEGER, names TEXT, PRIMARY KEY (stream, spec))
"""
BATCHES_4 = """
CREATE TABLE batches (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, seq INTEGER NOT NULL,
  samples INTEGER NOT NULL, committed_ns INTEGER NOT NULL, size INTEGER NOT NULL,
  body BLOB NOT NULL);
CREATE TABLE names (stream TEXT, spec INTEGER, names TEXT, PRIMARY KEY (stream, spec))
"""
BATCHES_OF = {
    "1, the first": (1, BATCHES.format(more="first_ns INTEGER, last_ns INTEGER,")),
    "1, with holes": (1, BATCHES.format(more="holes BLOB,")),
    "2": (2, BATCHES.format(more="holes BLOB,")),
    "3": (3, BATCHES_3),
    "4": (4, BATCHES_4),
}

INSERTED = """
INSERT INTO batches (stream, seq, body, committed_ns, due_ns, marked_ns)
VALUES ('s', :seq, :body, 10, 10, :marked_ns)
"""
INSERTED_3 = """
INSERT INTO batches VALUES (:seq, 's', :seq, 0, 10, 10, 0, :marked_ns);
INSERT INTO bodies VALUES (:seq, :body)
"""
INSERTED_4 = """
INSERT INTO batches VALUES (:seq, 7, :seq, 0, 10, length(:body), :body);
UPDATE spool SET bytes = bytes + length(:body)
"""


def body(seq: int) -> bytes:
    frame = {"t0": "2026-11-23T12:00:00.000000000Z", "dt": [0], "values": {"a": [seq * 1.5]}}
    return orjson.dumps(
        {"v": 1, "spec": 1, "epoch": "old", "seq": seq, "source": "live", "frames": [frame]}
    )


def written(path: Path, layout: int, batches: str) -> Path:
    """A spool of that layout: three batches, the first of them marked."""
    inserted = {1: INSERTED, 2: INSERTED, 3: INSERTED_3}.get(layout, INSERTED_4)
    file = sqlite3.connect(path)
    with file:
        for statement in batches.split(";"):
            file.execute(statement)
        for statement in COMMON if layout < 4 else COMMON_4:
            file.execute(statement, {"layout": layout})
        for seq, marked_ns in ((1, 20), (2, None), (3, None)):
            row = {"seq": seq, "body": body(seq), "marked_ns": marked_ns}
            for statement in inserted.split(";"):
                file.execute(statement, row)
    file.close()
    return path


def layout_of(path: Path) -> int:
    file = sqlite3.connect(path)
    try:
        return int(file.execute("SELECT layout FROM spool").fetchone()[0])
    finally:
        file.close()


def test_there_is_a_file_of_every_layout() -> None:
    assert {layout for layout, _ in BATCHES_OF.values()} == set(range(1, LAYOUT + 1))


@pytest.mark.parametrize("which", BATCHES_OF)
async def test_what_waits_in_an_older_spool_is_sent_and_marked(tmp_path: Path, which: str) -> None:
    path = written(tmp_path / "s.sqlite", *BATCHES_OF[which])
    async with spool.open(path, epoch="new") as kept:
        due = await kept.due(10**12, 10)
        assert [(spooled.stream, spooled.seq, bytes(spooled.body)) for spooled in due] == [
            ("s", 2, body(2)),
            ("s", 3, body(3)),
        ]
        assert (kept.epoch, await kept.last_ns("s")) == ("old", 30)
        assert spool_file.unmarked(path) == 2
        kept.mark({"s": Held(3)})
        depth = await kept.depth()
        assert (depth.unmarked, depth.bytes) == (
            0,
            sum(len(spooled.body) for spooled in await kept.bodies()),
        )
    assert layout_of(path) == LAYOUT
    assert spool_file.unmarked(path) == 0


@pytest.mark.parametrize("which", BATCHES_OF)
async def test_an_older_spool_that_is_full_drops_nothing_it_cannot_name(
    tmp_path: Path, which: str
) -> None:
    path = written(tmp_path / "s.sqlite", *BATCHES_OF[which])
    async with spool.open(
        path, epoch="new", settings=SpoolSettings(most_bytes=1, keep_marked_s=900.0)
    ) as kept:
        await kept.commit([], 300)
        assert [spooled.seq for spooled in await kept.bodies()] == [2, 3]


async def test_a_spool_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite", LAYOUT + 1, BATCHES_OF["4"][1])
    with pytest.raises(Refused, match=rf"{path} has layout {LAYOUT + 1}.*run the version"):
        async with spool.open(path, epoch="new"):
            pass
    assert layout_of(path) == LAYOUT + 1


async def test_a_migration_that_fails_leaves_the_spool_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "s.sqlite", *BATCHES_OF["1, the first"])

    def broken(sql: sqlite3.Connection) -> None:
        sql.execute("ALTER TABLE batches ADD COLUMN half INTEGER")
        raise KeyboardInterrupt

    monkeypatch.setattr(spool_file, "_MIGRATIONS", {1: broken})
    with pytest.raises(KeyboardInterrupt):
        async with spool.open(path, epoch="new"):
            pass
    monkeypatch.undo()
    async with spool.open(path, epoch="new") as kept:
        assert [spooled.seq for spooled in await kept.due(10**12, 10)] == [2, 3]
