"""One recorder at a time, over SQLite and PostgreSQL."""

import asyncio
from pathlib import Path

import pytest

from broker.clock import WallClock
from broker.errors import Taken
from testbed_api.registry import recorder_lock
from testbed_api.registry.engine import open_engine

CLOCK = WallClock()
HOLDERS = recorder_lock.text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
"""The connections that hold a lock, by their processes."""


@pytest.fixture
async def lock(where):
    """Makes the lock of a recorder, as another process would."""
    if isinstance(where, Path):
        yield lambda: recorder_lock.in_folder(where, CLOCK)
        return
    async with open_engine(where) as first, open_engine(where) as second:
        engines = [first, second]
        yield lambda: recorder_lock.in_postgresql(engines.pop().ledger, CLOCK)


async def test_the_second_recorder_is_told_who_the_first_is(lock):
    async with lock():
        with pytest.raises(Taken, match=r"a recorder is running already on .*: .*since 20\d\d"):
            async with lock():
                pass


async def test_the_lock_ends_with_who_holds_it(lock):
    async with lock():
        pass
    async with lock():
        pass


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
async def test_a_lock_that_postgresql_lost_is_taken_again(where, monkeypatch):
    monkeypatch.setattr(recorder_lock, "LOOK_S", 0.05)
    async with (
        asyncio.timeout(15),
        open_engine(where) as first,
        open_engine(where) as second,
        recorder_lock.in_postgresql(first.ledger, CLOCK),
    ):
        async with second.ledger.connect() as sql:
            lost = (await sql.execute(HOLDERS)).scalars().one()
            await sql.execute(
                recorder_lock.text("SELECT pg_terminate_backend(:pid)"), {"pid": lost}
            )
            await sql.commit()
            while set((await sql.execute(HOLDERS)).scalars()) <= {lost}:
                await sql.commit()
                await CLOCK.sleep(0.01)
        with pytest.raises(Taken, match="a recorder is running already"):
            async with recorder_lock.in_postgresql(second.ledger, CLOCK):
                pass
