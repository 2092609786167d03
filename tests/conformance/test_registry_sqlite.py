"""What only the registry's SQLite files can show."""

import sqlite3

import pytest

from broker.errors import Unavailable
from testbed_api.registry import sqlite
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry


async def test_a_migration_that_breaks_off_leaves_nothing_behind(tmp_path):
    recorder = sqlite3.connect(tmp_path / "recorder.sqlite")
    recorder.execute("CREATE TABLE set_aside (in_the_way)")
    recorder.commit()
    with pytest.raises(Unavailable, match="set_aside"):
        async with open_engine(tmp_path):
            pass
    recorder.execute("DROP TABLE set_aside")
    recorder.commit()
    recorder.close()
    async with open_engine(tmp_path) as engine:
        assert await Registry(engine).organisations.all() == []


async def test_a_file_that_is_no_database_is_told_so(tmp_path):
    (tmp_path / "registry.sqlite").write_text("not a database, but long enough to be looked at")
    with pytest.raises(Unavailable, match="not a database"):
        async with open_engine(tmp_path):
            pass


async def test_a_registry_that_is_locked_by_another_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    async with open_engine(tmp_path) as engine:
        other = sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            await Registry(engine).organisations.all()
        other.execute("ROLLBACK")
        other.close()
        assert await Registry(engine).organisations.all() == []
