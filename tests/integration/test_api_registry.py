"""The registry over real SQLite files: its schema, its transactions, and what it refuses."""

import asyncio
import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from broker.batch import Kind
from broker.errors import Refused, Unavailable
from broker.namespace import EquipmentAddress, StreamAddress
from broker.policy import Entry, Holding
from broker.streams import Signal, StreamSpec
from testbed_api.domain import access
from testbed_api.domain.equipment import Equipment
from testbed_api.registry import sql, tables
from testbed_api.registry.sql import Registry, open_engine

RIG = StreamAddress("factory", "pump-rig", "rig")


async def test_the_migrations_make_the_tables_that_the_queries_name(tmp_path):
    async with open_engine(tmp_path) as engine, engine.connect() as connection:

        def differences(sync: object) -> list[object]:
            options = {"include_schemas": True, "compare_type": True}
            context = MigrationContext.configure(sync, opts=options)
            return compare_metadata(context, tables.metadata)

        assert await connection.run_sync(differences) == []


async def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    async with open_engine(tmp_path):
        pass
    file = sqlite3.connect(tmp_path / "registry.sqlite")
    file.execute("UPDATE alembic_version SET version_num = '9999'")
    file.commit()
    with pytest.raises(Refused, match="newer version"):
        async with open_engine(tmp_path):
            pass
    assert file.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    file.close()


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
        assert await Registry(engine).organisations() == []


async def test_two_processes_may_make_the_folder_at_once(tmp_path):
    async def once() -> None:
        async with open_engine(tmp_path) as engine:
            assert await Registry(engine).organisations() == []

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(once(), name=f"start {number}")


async def test_a_file_that_is_no_database_is_told_so(tmp_path):
    (tmp_path / "registry.sqlite").write_text("not a database, but long enough to be looked at")
    with pytest.raises(Unavailable, match="not a database"):
        async with open_engine(tmp_path):
            pass


async def test_specs_proposed_at_once_are_numbered_without_hole_or_repeat(tmp_path):
    async with open_engine(tmp_path) as engine:
        registry = Registry(engine)
        await registry.put_equipment(Equipment(RIG.owner, "Rig", Kind.SIMULATED))
        proposals = [StreamSpec(RIG, (Signal(f"s{number}"),)) for number in range(12)]
        async with asyncio.TaskGroup() as tasks:
            adding = [
                tasks.create_task(registry.add_spec(one), name=one.names[0]) for one in proposals
            ]
        assert sorted(one.result().version for one in adding) == list(range(1, 13))
        for one in adding:
            assert await registry.spec(RIG, one.result().version) == one.result()


async def test_the_same_spec_proposed_at_once_is_registered_once(tmp_path):
    async with open_engine(tmp_path) as engine:
        registry = Registry(engine)
        await registry.put_equipment(Equipment(RIG.owner, "Rig", Kind.SIMULATED))
        proposal = StreamSpec(RIG, (Signal("p"),))
        async with asyncio.TaskGroup() as tasks:
            adding = [tasks.create_task(registry.add_spec(proposal), name=str(n)) for n in range(8)]
        assert {one.result().version for one in adding} == {1}


async def test_equipment_registered_at_once_is_registered_once(tmp_path):
    async with open_engine(tmp_path) as engine:
        registry = Registry(engine)
        one = Equipment(RIG.owner, "Rig", Kind.SIMULATED, {"site": "North"})
        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(registry.put_equipment(one), name=str(number))
        assert await registry.all_equipment(None, 10) == [one]
        assert await registry.kind_of(EquipmentAddress("factory", "mill")) is None


async def test_a_credential_may_list_two_thousand_streams(tmp_path):
    async with open_engine(tmp_path) as engine:
        registry = Registry(engine)
        await registry.put_equipment(Equipment(RIG.owner, "Rig", Kind.SIMULATED))
        await registry.add_spec(StreamSpec(RIG, (Signal("p"),)))
        entries = frozenset(
            Entry("live", StreamAddress("factory", "pump-rig", f"s{n}")) for n in range(2_000)
        ) | {Entry("live", RIG)}
        _, kept = access.issued("much", Holding(reads=entries), 0)
        await registry.add_principal(kept)
        assert await registry.principal("much") == kept
        listed = {one.address for one in entries}
        found = await registry.streams(None, 10, among=listed)
        assert [one.address for one in found] == [RIG]


async def test_a_registry_that_is_locked_by_another_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "BUSY_S", 0.05)
    async with open_engine(tmp_path) as engine:
        other = sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            await Registry(engine).organisations()
        other.execute("ROLLBACK")
        other.close()
        assert await Registry(engine).organisations() == []
