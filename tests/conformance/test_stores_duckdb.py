"""What only the embedded store promises: about its file, its process and its disk."""

import contextlib
import inspect
import os
import resource
import subprocess
import sys

import duckdb as library
import numpy as np
import pytest

from broker.aggregation import Aggregation
from broker.batch import BAD, Series
from broker.errors import Corrupt, Invalid, Refused, Taken, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.stores import duckdb, duckdb_file
from testbed_api.stores.port import Block, Window
from tests.services import disk

SPEC = StreamSpec(StreamAddress("factory", "pump-rig", "rig"), (Signal("a"),))

WRITER = """
import asyncio, os, sys
from pathlib import Path
import numpy as np
from tests.conformance.test_stores_duckdb import block
from testbed_api.stores import duckdb

async def write():
    async with duckdb.open(Path(sys.argv[1])) as store:
        await store.write([block(0, 1000)])
        print("written", flush=True)
        sys.stdin.readline()
        os.abort()

asyncio.run(write())
"""


def block(first, end):
    times = np.arange(first, end)
    values = np.random.default_rng(1).random(end - first)
    return Block.of_series(
        "live", SPEC, (("a", Series(times, values, np.zeros(end - first, np.uint8))),)
    )


async def times(store):
    window = Window("live", SPEC, ("a",), 0, 2**62)
    return [time async for frame in store.read(window) for time in frame.time_ns.tolist()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "samples.duckdb"


@pytest.fixture
def other_process(path):
    """A process that has written to the file, still holds it, and dies without closing it."""
    child = subprocess.Popen(  # noqa: S603  (a text of our own)
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"written\n"
    yield child
    child.communicate()


@pytest.mark.usefixtures("other_process")
async def test_a_file_that_another_process_has_is_taken(path):
    with pytest.raises(Taken, match="open in another process"):
        async with duckdb.open(path):
            pass


async def test_what_was_written_outlives_a_process_that_is_killed(path, other_process):
    other_process.kill()
    other_process.wait()
    async with duckdb.open(path) as store:
        assert await times(store) == list(range(1000))


async def test_a_file_of_another_layout_is_refused(path):
    async with duckdb.open(path):
        pass
    with library.connect(path) as connection:
        connection.execute("UPDATE layout SET version = 99")
    with pytest.raises(Refused, match="has layout 99, this version reads 1"):
        async with duckdb.open(path):
            pass


def spec_of(organisation, stream="rig"):
    return StreamSpec(StreamAddress(organisation, "pump-rig", stream), (Signal("a"),))


async def test_dropping_a_schema_removes_one_organisation_and_nothing_else(path):
    every = [spec_of(name) for name in ("factory", "factory-b", "company")]
    async with duckdb.open(path) as store:
        await store.write([written(spec, [1, 2]) for spec in every])
    with library.connect(path) as file:
        file.execute('DROP SCHEMA "organisation/factory" CASCADE')
        assert not file.execute(
            "FROM duckdb_tables() WHERE contains(table_name || schema_name, 'factory')"
            " AND NOT contains(schema_name, 'factory-b')"
        ).fetchall()
    async with duckdb.open(path) as store:
        assert [await times_of(store, spec) for spec in every] == [[], [1, 2], [1, 2]]
        await store.write([written(every[0], [3])])
        assert await times_of(store, every[0]) == [3]


def written(spec, at):
    columns = Series(np.array(at), np.array(at, np.float64), np.zeros(len(at), np.uint8))
    return Block.of_series("live", spec, (("a", columns),))


async def times_of(store, spec):
    window = Window("live", spec, ("a",), 0, 2**62)
    return [time async for frame in store.read(window) for time in frame.time_ns.tolist()]


async def test_what_is_no_such_file_is_corrupt(path):
    path.write_bytes(os.urandom(20_000))
    with pytest.raises(Corrupt, match="is not a DuckDB file"):
        async with duckdb.open(path):
            pass


async def test_a_damaged_file_is_corrupt_where_it_is_read(path):
    async with duckdb.open(path) as store:
        await store.write([block(0, 200_000)])
    with path.open("r+b") as file:
        for at in range(100_000, path.stat().st_size, 100_000):
            file.seek(at)
            file.write(os.urandom(64))
    with pytest.raises(Corrupt, match="damaged"):
        async with duckdb.open(path) as store:
            await times(store)


async def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unknown, match=r"no folder .*nowhere"):
        async with duckdb.open(tmp_path / "nowhere" / "samples.duckdb"):
            pass


async def test_a_limit_that_duckdb_does_not_understand_is_invalid(path):
    with pytest.raises(Invalid, match="thread"):
        async with duckdb.open(path, threads=0):
            pass


@pytest.fixture
def full_disk():
    """Sets the size in bytes beyond which no file grows; None is the end of the shortage."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(
        resource.RLIMIT_FSIZE, before if size is None else (size, before[1])
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("room", "rows"),
    [(1_000_000, 10_000), (1_000_000, 300_000), (16_200_000, 20_000)],
    ids=["in the log", "in the file", "at a checkpoint"],
)
async def test_a_full_disk_stops_writing_and_heals_by_itself(path, full_disk, room, rows):
    written = 0
    async with duckdb.open(path) as store:
        if room > 10_000_000:  # a file that has reached the limit before its log is written into it
            await store.write([block(0, 2_000_000)])
            written = 2_000_000
        full_disk(max(room, path.stat().st_size))
        with contextlib.suppress(Unavailable):
            while written < 10_000_000:
                await store.write([block(written, written + rows)])
                written += rows
        with pytest.raises(Unavailable, match="is the disk full"):
            await store.write([block(written, written + 2_000_000)])
        full_disk(None)
        assert await times(store) == list(range(written))
        await store.write([block(written, written + rows)])
        assert await times(store) == list(range(written + rows))


@pytest.mark.parametrize("room", [0, 8_192])
async def test_a_store_on_a_full_disk_says_so_in_our_words(tmp_path, room):
    with disk.small(tmp_path / "disk", 2 * 1024**2) as small:
        disk.fill(small / "filling", leave=room)
        with pytest.raises(Unavailable, match=r"^the disk of .* is full: [\d,]+ bytes are free"):
            async with duckdb.open(small / "samples.duckdb"):
                pass


async def test_a_mean_whose_sum_is_beyond_float64_is_bad(path):
    series = Series(np.array([0, 1]), np.full(2, 1.7e308), np.zeros(2, np.uint8))
    async with duckdb.open(path) as store:
        await store.write([Block.of_series("live", SPEC, [("a", series)])])
        window = Window("live", SPEC, ("a",), 0, 2**62)
        [frame] = [each async for each in store.aggregate(window, Aggregation.parse("1s", "mean"))]
    assert frame.quality.tolist() == [BAD]


async def test_of_a_write_that_fails_nothing_is_kept(path, full_disk):
    async with duckdb.open(path) as store:
        await store.write([block(0, 10)])
        full_disk(path.stat().st_size + 500_000)
        with pytest.raises(Unavailable):
            await store.write([block(10, 20), block(20, 500_000)])
        full_disk(None)
        assert await times(store) == list(range(10))


def test_every_error_of_duckdb_is_mapped_or_a_bug():
    errors = {
        error
        for _, error in inspect.getmembers(library, inspect.isclass)
        if issubclass(error, library.Error)
    }
    unmapped = {
        error.__name__
        for error in errors
        if duckdb_file.translate_error(error("it failed")) is None
    }
    assert unmapped == {
        *("Error", "DatabaseError", "OperationalError", "InternalError", "InternalException"),
        *("ProgrammingError", "BinderException", "CatalogException", "ParserException"),
        *("SyntaxException", "InvalidInputException", "InvalidTypeException"),
        *("DataError", "ConversionException", "OutOfRangeException", "TypeMismatchException"),
        *("IntegrityError", "ConstraintException", "DependencyException"),
        *("NotSupportedError", "NotImplementedException", "PermissionException"),
        "SequenceException",
    }


def test_a_block_whose_sum_is_wrong_is_corrupt_whatever_its_error_is_called():
    error = library.Error("Corrupt database file: computed checksum 1 does not match 2")
    assert isinstance(duckdb_file.translate_error(error), Corrupt)
