"""What the registry must do, held against SQLite and PostgreSQL."""

import asyncio
from dataclasses import astuple

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from broker.batch import Kind
from broker.errors import Refused, Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.domain import access
from testbed_api.domain.equipment import Equipment, Organisation
from testbed_api.domain.holding import Entry, Holding, Role
from testbed_api.registry import tables
from testbed_api.registry.engine import open_engine
from testbed_api.registry.sql import Registry

RIG = StreamAddress("factory", "pump-rig", "rig")


async def test_the_migrations_make_the_tables_that_the_queries_name(where):
    async with open_engine(where) as engine, engine.connect() as connection:

        def differences(sync: object) -> list[object]:
            options = {"include_schemas": True, "compare_type": True}
            context = MigrationContext.configure(sync, opts=options)
            return compare_metadata(context, tables.metadata)

        assert await connection.run_sync(differences) == []


async def test_two_processes_may_make_the_tables_at_once(where):
    async def once() -> None:
        async with open_engine(where) as engine:
            assert await Registry(engine).organisations() == []

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(once(), name=f"start {number}")


async def test_specs_proposed_at_once_are_numbered_without_hole_or_repeat(where):
    async with open_engine(where) as engine:
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


async def test_the_same_spec_proposed_at_once_is_registered_once(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.put_equipment(Equipment(RIG.owner, "Rig", Kind.SIMULATED))
        proposal = StreamSpec(RIG, (Signal("p"),))
        async with asyncio.TaskGroup() as tasks:
            adding = [tasks.create_task(registry.add_spec(proposal), name=str(n)) for n in range(8)]
        assert {one.result().version for one in adding} == {1}


async def test_equipment_registered_at_once_is_registered_once(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        one = Equipment(RIG.owner, "Rig", Kind.SIMULATED, {"site": "North"})
        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(registry.put_equipment(one), name=str(number))
        assert await registry.all_equipment(None, 10) == [one]
        assert await registry.kind_of(EquipmentAddress("factory", "mill")) is None


async def test_a_credential_may_list_two_thousand_streams(where):
    async with open_engine(where) as engine:
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


async def test_a_newer_version_is_refused_and_left_as_it_is(where):
    async with open_engine(where) as engine, engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for _ in range(2):
        with pytest.raises(Refused, match="newer version"):
            async with open_engine(where):
                pass


async def test_of_two_last_administrators_removed_at_once_one_stays(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        for name in ("ada", "bert"):
            await registry.add_principal(access.issued(name, Holding(Role.ADMINISTRATOR), 0)[1])

        async def remove(name: str) -> bool:
            try:
                await registry.remove_principal(name)
            except Refused:
                return False
            return True

        async with asyncio.TaskGroup() as tasks:
            removing = [tasks.create_task(remove(name), name=name) for name in ("ada", "bert")]
        assert sorted(one.result() for one in removing) == [False, True]
        assert len(await registry.principals()) == 1


async def test_what_is_there_already_is_taken(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.add_organisation(Organisation("factory", "The factory"))
        with pytest.raises(Taken, match="'factory' exists already"):
            await registry.add_organisation(Organisation("factory", "Another"))
        _, ada = access.issued("ada", Holding(), 0)
        await registry.add_principal(ada)
        with pytest.raises(Taken, match="'ada' exists already"):
            await registry.add_principal(ada)
        with pytest.raises(Unknown):
            await registry.remove_principal("bert")


async def test_lists_come_in_pages_without_hole_or_repeat(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        owners = [EquipmentAddress("factory", name) for name in ("a-b", "a1", "ab", "b", "b-1")]
        for owner in owners:
            await registry.put_equipment(Equipment(owner, "M", Kind.REAL))
            await registry.add_spec(StreamSpec(StreamAddress(*astuple(owner), "s"), (Signal("p"),)))
        found, after = [], None
        while page := await registry.all_equipment(after, 2):
            found += page
            after = page[-1].address
        assert sorted(str(one.address) for one in found) == sorted(map(str, owners))
        first = await registry.streams(None, 3)
        rest = await registry.streams(first[-1].address, 3)
        assert {one.address.owner for one in (*first, *rest)} == set(owners)
