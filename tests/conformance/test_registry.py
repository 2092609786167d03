"""What the registry must do, held against SQLite and PostgreSQL."""

import asyncio
from dataclasses import astuple, replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from broker import policy
from broker.batch import EquipmentKind
from broker.clock import NS_PER_S
from broker.errors import Refused, Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic, Verb
from broker.rights import Action, Entry, Listing, Party, Pause, Rights, Role, Scope, Span
from broker.streams import Signal, StreamSpec
from testbed_api.domain import organisations, tokens
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.organisations import Organisation
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry import tables
from testbed_api.registry.engine import open_engine
from testbed_api.registry.equipment import Visibility
from testbed_api.registry.registry import Registry

RIG = StreamAddress("factory", "pump-rig", "rig")


async def test_the_migrations_make_the_tables_that_the_queries_name(empty):
    async with open_engine(empty) as engine, engine.both.connect() as connection:

        def differences(sync: object) -> list[object]:
            options = {
                "include_schemas": True,
                "compare_type": True,
                "include_name": lambda name, kind, _: (kind, name) != ("table", "alembic_version"),
            }
            context = MigrationContext.configure(sync, opts=options)
            return compare_metadata(context, tables.metadata)

        assert await connection.run_sync(differences) == []


async def test_two_processes_may_make_the_tables_at_once(empty):
    async def once() -> None:
        async with open_engine(empty) as engine:
            assert await Registry(engine).organisations.all() == []

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(once(), name=f"start {number}")


async def test_specs_proposed_at_once_are_numbered_without_hole_or_repeat(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED))
        proposals = [StreamSpec(RIG, (Signal(f"s{number}"),)) for number in range(12)]
        async with asyncio.TaskGroup() as tasks:
            adding = [
                tasks.create_task(registry.streams.add(each), name=each.names[0])
                for each in proposals
            ]
        assert sorted(each.result().version for each in adding) == list(range(1, 13))
        for task in adding:
            assert await registry.streams.get(RIG, task.result().version) == task.result()


async def test_the_same_spec_proposed_at_once_is_registered_once(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED))
        proposal = StreamSpec(RIG, (Signal("p"),))
        async with asyncio.TaskGroup() as tasks:
            adding = [
                tasks.create_task(registry.streams.add(proposal), name=str(n)) for n in range(8)
            ]
        assert {each.result().version for each in adding} == {1}


async def test_equipment_registered_at_once_is_registered_once(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        equipment = Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED, {"site": "North"})
        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(registry.equipment.put(equipment), name=str(number))
        assert await registry.equipment.page(None, 10) == [equipment]
        assert await registry.equipment.kind(EquipmentAddress("factory", "mill")) is None


async def test_a_credential_may_list_two_thousand_streams(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED))
        await registry.streams.add(StreamSpec(RIG, (Signal("p"),)))
        entries = frozenset(
            Entry("live", StreamAddress("factory", "pump-rig", f"s{n}")) for n in range(2_000)
        ) | {Entry("live", RIG)}
        much = organisations.machine("much", "factory", Scope(entries, entries), Span(5))
        await registry.principals.add(much)
        assert await registry.principals.find("much", 5) == much
        assert (
            len(policy.topics(await registry.rights.of_principal("much"), "much", 5).publish)
            == 8_004
        )
        listed = Visibility(streams=frozenset(each.address for each in entries))
        streams = await registry.streams.page(None, 10, among=listed)
        assert [each.address for each in streams] == [RIG]


async def test_an_unknown_version_is_refused_and_left_as_it_is(empty):
    async with open_engine(empty) as engine, engine.registry.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for _ in range(2):
        with pytest.raises(Refused, match="has schema '9999', this version reads '0001'"):
            async with open_engine(empty):
                pass


async def founded(registry: Registry, *ids: str) -> None:
    """Organisations with an owner each, of the same name with `-owner` behind it."""
    for id_ in ids:
        await registry.organisations.add(Organisation(id_, id_.title()))
        await registry.principals.add(organisations.person(f"{id_}-owner", id_, {Role.OWNER}, 0))


async def test_of_two_last_owners_removed_at_once_one_stays(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory")
        await registry.principals.add(organisations.person("bert", "factory", {Role.OWNER}, 0))

        async def remove(name: str) -> bool:
            owner = await registry.principals.find(name, 1)
            try:
                await registry.principals.end(owner, by=None, now_ns=1)
            except Refused:
                return False
            return True

        async with asyncio.TaskGroup() as tasks:
            removing = [
                tasks.create_task(remove(name), name=name) for name in ("factory-owner", "bert")
            ]
        assert sorted(each.result() for each in removing) == [False, True]
        (left,) = await registry.principals.in_organisation("factory", 1)
        with pytest.raises(Refused, match="only owner"):
            await registry.principals.change_roles(left, {Role.AUDITOR}, by=left.id, now_ns=2)
        assert (await registry.principals.in_organisation("factory", 2)) == [left]


async def test_what_is_there_already_is_taken(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory", "firm")
        with pytest.raises(Taken, match="'factory' exists already"):
            await registry.organisations.add(Organisation("factory", "Another"))
        with pytest.raises(Taken, match="'factory-owner' exists already"):
            await registry.principals.add(
                organisations.person("factory-owner", "firm", {Role.OWNER}, 5)
            )
        with pytest.raises(Taken, match="testbed member remove factory-owner"):
            await registry.principals.add(
                organisations.person("factory-owner", "factory", {Role.OWNER}, 5)
            )
        with pytest.raises(Unknown, match="no organisation 'nowhere'"):
            await registry.principals.add(organisations.person("eve", "nowhere", {Role.OWNER}, 5))
        kinds = [(each.id, each.kind) for each in await registry.organisations.all()]
        assert kinds == [("factory", Party.PARTNER), ("firm", Party.PARTNER)]


async def test_a_name_comes_back_only_as_what_it_was(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory", "firm")
        first = organisations.machine(
            "box", "factory", Scope(writes=frozenset({Entry("live", RIG)})), Span(5)
        )
        await registry.principals.add(first)
        await registry.principals.end(first, by="factory-owner", now_ns=7)
        for other in (
            organisations.machine("box", "firm", Scope(), Span(9)),
            organisations.person("box", "factory", {Role.OWNER}, 9),
        ):
            with pytest.raises(Taken, match="was somebody else"):
                await registry.principals.add(other)
        await registry.principals.add(organisations.machine("box", "factory", Scope(), Span(9)))
        rights = await registry.rights.of_principal("box")
        publishing = [
            bool(policy.topics(rights, "box", at_ns).publish) for at_ns in (4, 5, 6, 7, 9)
        ]
        assert publishing == [False, True, True, False, False]
        known = [rights.principal("box", at_ns) is not None for at_ns in (4, 5, 7, 8, 9)]
        assert known == [False, True, False, False, True]


async def test_changed_roles_hold_from_then_on_and_not_before(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory")
        ada = organisations.person("ada", "factory", {Role.ENGINEER}, 5)
        await registry.principals.add(ada)
        await registry.principals.change_roles(ada, {Role.AUDITOR}, by="factory-owner", now_ns=8)
        rights = await registry.rights.of_principal("ada")
        shares = [
            policy.decide(rights, "ada", Action.SHARE, RIG, at_ns).allowed for at_ns in (5, 7, 8)
        ]
        assert shares == [True, True, False]


async def test_a_removed_member_has_neither_token_nor_password(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory")
        ada = organisations.person("ada", "factory", {Role.ENGINEER}, 5)
        await registry.principals.add(ada)
        (credential, token_of_a), (_, other) = (
            tokens.issued("ada", Span(5, 50), label=name) for name in "ab"
        )
        first, second = [await registry.tokens.add(token) for token in (token_of_a, other)]
        await registry.passwords.set("ada", "hash", 5)
        assert await registry.tokens.valid("ada", 6) == [first, second]
        stored = await registry.tokens.find("ada", tokens.hashed(credential.secret))
        assert stored == first
        assert await registry.tokens.find("bert", tokens.hashed(credential.secret)) is None
        await registry.tokens.revoke("ada", second.id, by="ada", now_ns=7)
        for name, number in (("ada", second.id), ("bert", first.id)):
            with pytest.raises(Unknown):
                await registry.tokens.revoke(name, number, by="ada", now_ns=7)
        assert await registry.tokens.valid("ada", 7) == [first]
        await registry.principals.end(ada, by="factory-owner", now_ns=9)
        assert (await registry.tokens.find("ada", token_of_a.secret_hash)).span == Span(5, 9)
        assert await registry.tokens.valid("ada", 9) == []
        assert await registry.passwords.find("ada") is None


async def test_a_token_keeps_the_roles_that_it_holds_and_one_without_has_all(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        _, whole = tokens.issued("ada", Span(5))
        narrow = replace(whole, roles=frozenset({Role.AUDITOR, Role.OWNER}))
        stored = await registry.tokens.add(narrow)
        assert stored.roles == {Role.AUDITOR, Role.OWNER}
        assert await registry.tokens.find("ada", whole.secret_hash) == stored
        assert await registry.tokens.valid("ada", 6) == [stored]
        another = await registry.tokens.add(replace(tokens.issued("ada", Span(6))[1], roles=None))
        assert await registry.tokens.valid("ada", 6) == [stored, another]


async def test_the_last_use_of_a_token_is_kept_to_the_minute(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        _, issued = tokens.issued("ada", Span(0))
        token = await registry.tokens.add(issued)
        noted = []
        for at_s in (1, 30, 60, 61, 200):
            if token.is_use_due(at_s * NS_PER_S):
                await registry.tokens.note_uses({token.id: at_s * NS_PER_S})
            token = await registry.tokens.find("ada", issued.secret_hash)
            noted.append(token.last_used_ns // NS_PER_S)
        assert noted == [1, 1, 1, 61, 200]


async def test_a_grant_is_asked_for_given_revoked_and_remembered(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory", "firm")
        request = await registry.grants.add(
            GrantRequest("firm", Entry("live", RIG), "to try", 5, "firm-owner")
        )
        assert (await registry.rights.of_principal("firm-owner")).grants == ()
        granted = request.granted(Span(10, 30), "factory-owner", 9)
        await registry.grants.update(granted, request)
        with pytest.raises(Taken, match="decided meanwhile"):
            await registry.grants.update(request.refused("factory-owner", 9), request)
        revoked = granted.revoked("factory-owner", 20)
        await registry.grants.update(revoked, granted)
        assert await registry.grants.by_owner("factory") == [revoked]
        for concerned in ("factory", "firm"):
            assert await registry.grants.page(concerned, 0, 2) == [revoked]
            assert await registry.grants.page(concerned, revoked.id, 2) == []
        assert await registry.grants.page("another", 0, 2) == []
        topic = StreamTopic("live", Verb.DATA, RIG)
        for rights in (
            await registry.rights.of_principal("firm-owner"),
            await registry.rights.of_equipment(RIG.owner),
        ):
            reads = [
                policy.decide(rights, "firm-owner", Action.SUBSCRIBE, topic, at_ns).allowed
                for at_ns in (9, 10, 19, 20, 30)
            ]
            assert reads == [False, True, True, False, False]
        assert (await registry.rights.of_principal("firm-owner", since_ns=25)).grants == ()


async def test_listings_and_pauses_end_once_and_are_remembered(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory", "firm")
        for listing in (
            Listing(RIG.owner, frozenset({"firm"}), Span(5)),
            Listing(RIG.owner, None, Span(8)),
        ):
            await registry.listings.put(listing, by="factory-owner")
        await registry.listings.end(RIG.owner, by="factory-owner", now_ns=12)
        spans = [each.span for each in await registry.listings.history(RIG.owner)]
        assert spans == [Span(5, 8), Span(8, 12)]
        entry = Entry("live", RIG)
        given = GrantRequest("firm", entry, "", 0).granted(Span(0), "factory-owner", 0)
        await registry.grants.add(given)
        paused = Pause("factory", "firm", None, Span(6))
        number = await registry.pauses.add(paused, by="factory-owner")
        for other in (Pause("firm", "firm"), Pause("factory"), Pause("factory", None, "pump-rig")):
            assert await registry.pauses.end(other, by="eve", now_ns=7) == 0
        assert await registry.pauses.end(paused, by="factory-owner", now_ns=9) == 1
        assert await registry.pauses.by_owner("factory") == {
            number: Pause("factory", "firm", None, Span(6, 9))
        }
        rights, topic = (
            await registry.rights.of_principal("firm-owner"),
            StreamTopic("live", Verb.DATA, RIG),
        )
        reads = [
            policy.decide(rights, "firm-owner", Action.SUBSCRIBE, topic, at_ns).allowed
            for at_ns in (5, 6, 8, 9)
        ]
        assert reads == [True, False, False, True]
        sees = [
            policy.decide(rights, "firm-owner", Action.ASK, RIG, at_ns).allowed
            for at_ns in (4, 5, 8, 11)
        ]
        assert sees == [True] * 4  # granted, whatever is listed


async def test_a_change_is_made_whole_or_not_at_all(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)

        async def change() -> None:
            async with registry.unaudited_change() as inside:
                await founded(inside, "factory")
                await inside.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED))
                await inside.principals.add(organisations.person("eve", "nowhere", {Role.OWNER}, 5))

        with pytest.raises(Unknown):
            await change()
        assert await registry.organisations.all() == []
        assert await registry.equipment.kind(RIG.owner) is None


async def test_a_person_knows_its_organisations_streams_and_a_gateway_its_equipments(where):
    mill = StreamAddress("factory", "mill", "spindle")
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await founded(registry, "factory")
        for address in (RIG, mill):
            await registry.equipment.put(Equipment(address.owner, "M", EquipmentKind.REAL))
            await registry.streams.add(StreamSpec(address, (Signal("p"),)))
        await registry.principals.add(
            organisations.machine("gw", "factory", Scope(equipment=RIG.owner), Span(0))
        )
        in_a_run = Entry("run-1", mill)
        scope = Scope(writes=frozenset({in_a_run}))
        await registry.principals.add(organisations.machine("box", "factory", scope, Span(0, 1)))
        await Ledger(engine).keep_specs([("run-2", StreamSpec(mill, (Signal("p"),), 1))], 7)
        both = {Entry("live", RIG), Entry("live", mill)}
        in_runs = {in_a_run, Entry("run-2", mill)}
        assert (await registry.rights.of_principal("factory-owner")).known == both | in_runs
        assert (await registry.rights.of_principal("gw")).known == {Entry("live", RIG)}
        assert await registry.rights.of_principal("nobody") == Rights()


async def test_lists_come_in_pages_without_hole_or_repeat(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        owners = [EquipmentAddress("factory", name) for name in ("a-b", "a1", "ab", "b", "b-1")]
        for owner in owners:
            await registry.equipment.put(Equipment(owner, "M", EquipmentKind.REAL))
            await registry.streams.add(
                StreamSpec(StreamAddress(*astuple(owner), "s"), (Signal("p"),))
            )
        listed, after = [], None
        while page := await registry.equipment.page(after, 2):
            listed += page
            after = page[-1].address
        assert sorted(str(each.address) for each in listed) == sorted(map(str, owners))
        first = await registry.streams.page(None, 3)
        rest = await registry.streams.page(first[-1].address, 3)
        assert {each.address.owner for each in (*first, *rest)} == set(owners)
