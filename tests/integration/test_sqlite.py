"""The way into SQLite: few turns of the loop, all rows, and no lock that nobody holds."""

import asyncio

import pytest
from sqlalchemy import text

from broker.clock import WallClock
from testbed_api.registry import sqlite
from testbed_api.registry.engine import open_engine, transaction

COUNT = 2 * sqlite.FIRST + 500
NUMBERS = text(
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
    " SELECT i FROM n"
)


@pytest.fixture
async def engine(tmp_path):
    async with open_engine(tmp_path) as opened:
        yield opened.registry


@pytest.mark.parametrize(
    "count", [1, sqlite.FIRST - 1, sqlite.FIRST, sqlite.FIRST + 1, 2 * sqlite.FIRST, COUNT]
)
async def test_a_result_of_any_length_comes_whole(engine, count):
    async with transaction(engine) as sql:
        at_once = (await sql.execute(NUMBERS, {"last": count - 1})).scalars().all()
        assert at_once == list(range(count))
        streamed = await sql.stream(NUMBERS, {"last": count - 1})
        assert [row.i async for row in streamed] == list(range(count))
        assert (await sql.execute(text("SELECT 1 WHERE 0"))).all() == []


async def test_a_writer_that_is_cut_off_while_it_waits_leaves_no_lock(engine):
    async def write() -> None:
        async with transaction(engine, write=True):
            pass

    async with asyncio.TaskGroup() as tasks, transaction(engine, write=True):
        waiting = [tasks.create_task(write(), name=f"writer {at}") for at in range(3)]
        await WallClock().sleep(0.1)
        for task in waiting:
            task.cancel()
    async with asyncio.timeout(sqlite.BUSY_S / 2):
        await write()


async def test_writers_of_one_process_come_one_after_the_other_however_long_each_takes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sqlite, "BUSY_S", 0)
    order = []
    async with open_engine(tmp_path) as opened:

        async def write(at: int) -> None:
            async with transaction(opened.registry, write=True) as sql:
                order.append(at)
                await sql.execute(NUMBERS, {"last": 10_000})

        async with asyncio.TaskGroup() as tasks:
            for at in range(10):
                tasks.create_task(write(at), name=f"writer {at}")
    assert order == list(range(10))


async def test_a_reader_that_is_cut_off_leaves_its_connection_fit_for_the_next(engine):
    async def read() -> None:
        async with transaction(engine) as sql:
            await sql.execute(NUMBERS, {"last": 300_000})

    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(read(), name=f"reader {at}") for at in range(3)]
        await WallClock().sleep(0.02)
        for task in reading:
            task.cancel()
    async with transaction(engine, write=True) as sql:
        assert (await sql.execute(text("SELECT 1"))).scalar() == 1
