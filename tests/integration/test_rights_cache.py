"""Rights in memory are never older than the question, whoever changed them, and are shared."""

import asyncio
from types import SimpleNamespace

import pytest

from broker.clock import SteppedClock
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.rights import Entry, Party, Role, Scope, Span
from testbed_api.domain import organisations, tokens
from testbed_api.domain.organisations import Organisation
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache
from tests.integration.test_rights_cost import statements

RIG = Entry("live", StreamAddress("factory", "rig", "pump"))
CLOCK = SteppedClock(100)


@pytest.fixture
async def registry(tmp_path):
    async with open_engine(tmp_path) as engine:
        registry = Registry(engine)
        await registry.organisations.add(Organisation("factory", "F", Party.PARTNER))
        for number in range(10):
            scope = Scope(reads=frozenset({RIG}), writes=frozenset({RIG} if number == 0 else ()))
            machine = organisations.machine(f"m-{number}", "factory", scope, Span(1))
            await registry.principals.add(machine)
            await registry.tokens.add(tokens.issued(machine.id, Span(1))[1])
        yield registry


async def test_a_change_is_seen_by_the_next_question_whoever_made_it(tmp_path, registry):
    cache = RightsCache(registry, CLOCK)
    (token,) = (await cache.current(["m-1"]))["m-1"].tokens
    async with open_engine(tmp_path) as engine:  # another process
        await Registry(engine).tokens.revoke("m-1", token.id, by="fay", now_ns=100)
    assert (await cache.current(["m-1"]))["m-1"].tokens == ()
    fay = organisations.person("fay", "factory", {Role.OWNER}, 100)
    assert "fay" not in await cache.current(["fay"])
    await registry.principals.add(fay)
    assert (await cache.current(["fay"]))["fay"].rights.principals == (fay,)


async def test_who_asks_again_costs_one_statement_and_who_asks_with_others_shares_theirs(registry):
    cache = RightsCache(registry, CLOCK)
    names = [f"m-{number}" for number in range(10)]
    counts = []
    for _ in range(2):
        with statements(SimpleNamespace(registry=registry)) as listed:
            async with asyncio.TaskGroup() as asking:
                for name in names:
                    asking.create_task(cache.current([name]), name=name)
        counts.append(len([each for each in listed if each.startswith("SELECT")]))
    first, again = counts
    assert first <= 2 * 12  # the first who asks, and all others together
    assert again == 2


async def test_the_last_use_of_a_token_is_no_change_of_rights(registry):
    cache = RightsCache(registry, CLOCK)
    before = await cache.current(["m-1"])
    await registry.tokens.note_uses({token.id: 100 for token in before["m-1"].tokens})
    assert (await cache.current(["m-1"]))["m-1"] is before["m-1"]


async def test_publishers_are_known_by_name_before_they_ask(registry):
    cache = RightsCache(registry, CLOCK)
    assert not cache.is_publisher("m-0")
    await cache.load_publishers()
    assert [cache.is_publisher(f"m-{number}") for number in range(3)] == [True, False, False]
    late = organisations.machine("late", "factory", Scope(writes=frozenset({RIG})), Span(1))
    await registry.principals.add(late)
    await cache.current(["late"])
    assert cache.is_publisher("late")


async def test_no_more_than_so_many_are_kept(registry, monkeypatch):
    monkeypatch.setattr("testbed_api.registry.rights_cache.MOST_KEPT", 2)
    cache = RightsCache(registry, CLOCK)
    for number in range(10):
        assert await cache.current([f"m-{number}"])
    assert len(cache._rights) <= 3


async def test_while_the_registry_is_away_nothing_is_answered_from_memory(registry):
    cache = RightsCache(registry, CLOCK)
    await cache.current(["m-1"])
    async with registry._engine.registry.begin() as sql:
        await sql.exec_driver_sql("DROP TABLE rights_version")
    with pytest.raises(Unavailable):
        await cache.current(["m-1"])
