"""The audit chain in its real tables: whoever tampers with it, with all of the database's rights,
is found out; whoever has the testbed's rights cannot change it at all.
"""

import asyncio
import sys
from dataclasses import replace
from random import Random

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from broker.audit_head import HeadSigner
from broker.clock import NS_PER_S, SteppedClock
from testbed_api.domain import audit, organisations
from testbed_api.domain.audit import AuditContext, AuditOutcome, Event
from testbed_api.domain.organisations import Organisation
from testbed_api.registry import audit_chain, engine, tables
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.registry import Registry
from tests.services import postgresql as product

SIGNER, OTHER = HeadSigner.from_seed("07" * 32), HeadSigner.from_seed("08" * 32)
EVENTS, EVERY = 60, 10
TRIES = 100
T0 = 1_700_000_000 * NS_PER_S
TEXTS = (
    "action",
    "details",
    "hash",
    "organisation",
    "outcome",
    "owner",
    "principal",
    "reason",
    "request",
    "source",
    "target",
)


def chanced(seed):
    return Random(seed)  # noqa: S311  (a try that can be repeated, no secret)


def event(at, target="POST /grants"):
    return Event(
        T0 + at,
        "share",
        f"{target} {at}",
        AuditOutcome.ALLOWED,
        "fay",
        "factory",
        "factory",
        "because",
        f"id{at}",
        "10.0.0.1",
        audit.details({"company": "firm", "at": at}),
    )


@pytest.fixture
async def bed(where):
    """A chain with heads of its beginning, on the way, and of its end; and nothing in the way."""
    async with engine.open_engine(where) as opened:
        registry = Registry(opened)
        for at in range(0, EVENTS, EVERY):
            await registry.audit.sign_head(SIGNER, T0 + at)
            await registry.audit.append([event(at + more) for more in range(EVERY)])
        await registry.audit.sign_head(SIGNER, T0 + EVENTS)
        async with opened.registry.begin() as sql:
            for name in _triggers(opened.registry.dialect.name):
                await sql.exec_driver_sql(name)
        yield opened


def _triggers(product):
    if product == "sqlite":
        verbs = ("update", "delete")
        return [f"DROP TRIGGER {each}_no_{verb}" for each in ("audit", "anchors") for verb in verbs]
    return [f"DROP TRIGGER {each}_no_change ON {each}" for each in ("audit", "anchors")]


async def judged(opened, sql, keys=(SIGNER.key,), anchors=()):
    registry = Registry(opened, sql)
    links = await registry.audit.events(EventFilter(), 0, 10_000)
    heads = [each for _, each in await registry.audit.heads(0, 10_000)]
    return audit.verify(links, [*heads, *anchors], keys)


async def flip(sql, chance):
    """One character of one value, or one bit of a number."""
    number = chance.randint(1, EVENTS)
    table = tables.audit
    row = (await sql.execute(select(table).filter_by(number=number))).one()
    name = chance.choice((*TEXTS, "time_ns"))
    value = getattr(row, name)
    if name == "time_ns":
        other = value ^ (1 << chance.randrange(40))
    else:
        at = chance.randrange(len(value))
        other = value[:at] + chance.choice("abcxyz!~".replace(value[at], "")) + value[at + 1 :]
    await sql.execute(update(table).filter_by(number=number).values({name: other}))


async def remove(sql, chance):
    gone = chance.randint(1, EVENTS)
    await sql.execute(delete(tables.audit).filter_by(number=gone))
    if chance.random() < 0.5:  # and close the gap
        for number in range(gone + 1, EVENTS + 1):
            await _renumber(sql, number, number - 1)


async def reorder(sql, chance):
    first, other = chance.sample(range(1, EVENTS + 1), 2)
    for before, after in ((first, 0), (other, first), (0, other)):
        await _renumber(sql, before, after)


async def cut(sql, chance):
    await sql.execute(delete(tables.audit).where(tables.audit.c.number > chance.randrange(EVENTS)))


async def put_in(sql, chance):
    """An event that never was, and all behind it one further."""
    at = chance.randint(1, EVENTS)
    for number in range(EVENTS, at - 1, -1):
        await _renumber(sql, number, number + 1)
    (link,) = audit.linked([event(1_000)], at - 1, "a" * 64)
    await sql.execute(insert(tables.audit).values(**audit_chain.row_of(link)))


async def rewrite(sql, chance):
    """Another past with right hashes, and the heads left as they were."""
    await _rewritten(sql, chance)


async def _renumber(sql, before, after):
    await sql.execute(update(tables.audit).filter_by(number=before).values(number=after))


async def _rewritten(sql, chance):
    table = tables.audit
    rows = (await sql.execute(select(table).order_by(table.c.number))).all()
    events = [audit_chain.link_of(row).event for row in rows]
    at = chance.randrange(EVENTS)
    if chance.random() < 0.5:
        events[at] = replace(events[at], principal="mallory")
    else:
        del events[at]
    links = audit.linked(events)
    await sql.execute(delete(table))
    await sql.execute(insert(table), [audit_chain.row_of(each) for each in links])
    return links


async def _signed_anew(sql, links, signer):
    table = tables.anchors
    rows = (await sql.execute(select(table).order_by(table.c.id))).all()
    for row in rows:
        count = min(row.events, len(links))
        hash_ = links[count - 1].hash if count else row.hash
        head = signer.sign(count, hash_, row.time_ns)
        values = {"events": count, "hash": hash_, "key": head.key, "signature": head.signature}
        await sql.execute(update(table).filter_by(id=row.id).values(**values))


async def rolled_back(opened, chance, tamper, **judging):
    """What is found when somebody did that; afterwards it is undone."""
    async with opened.registry.connect() as sql:
        await sql.run_sync(engine._product(opened.registry).alone)
        await tamper(sql, chance)
        try:
            return await judged(opened, sql, **judging)
        finally:
            await sql.rollback()


async def test_a_chain_that_nobody_touched_is_whole(bed):
    async with bed.registry.connect() as sql:
        assert await judged(bed, sql) is None
        heads = await Registry(bed, sql).audit.heads(0, 100)
        assert [each.count for _, each in heads] == list(range(0, EVENTS + 1, EVERY))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("tamper", [flip, remove, reorder, cut, put_in, rewrite])
async def test_tampering_is_found_out(bed, tamper):
    faults = [await rolled_back(bed, chanced(seed), tamper) for seed in range(TRIES)]
    assert sum(each is not None for each in faults) == TRIES
    assert all(0 <= each.number <= EVENTS + 1 for each in faults)
    async with bed.registry.connect() as sql:
        assert await judged(bed, sql) is None


async def test_the_first_place_is_named(bed):
    async def first(sql, _chance):
        await sql.execute(update(tables.audit).filter_by(number=17).values(principal="eve"))
        await sql.execute(delete(tables.audit).filter_by(number=40))

    fault = await rolled_back(bed, None, first)
    assert fault.number == 17
    assert "event 17 does not follow" in fault.sentence


@pytest.mark.timeout(120)
async def test_a_chain_rewritten_and_signed_by_another_key_is_found_out(bed):
    async def tamper(sql, chance):
        await _signed_anew(sql, await _rewritten(sql, chance), OTHER)

    faults = [await rolled_back(bed, chanced(seed), tamper) for seed in range(TRIES)]
    assert sum(each is not None for each in faults) == TRIES
    assert all("strange key" in each.sentence for each in faults)


@pytest.mark.timeout(120)
async def test_a_chain_rewritten_or_cut_by_who_has_the_key_does_not_fit_an_anchor(bed):
    async def tamper(sql, chance):
        await _signed_anew(sql, await _rewritten(sql, chance), SIGNER)

    async def cut_with_heads(sql, chance):
        left = chance.randrange(EVENTS)
        await sql.execute(delete(tables.audit).where(tables.audit.c.number > left))
        await sql.execute(delete(tables.anchors).where(tables.anchors.c.events > left))

    anchor = await Registry(bed).audit.newest_head()
    for tampering in (tamper, cut_with_heads):
        alone, held = [], []
        for seed in range(TRIES):
            alone.append(await rolled_back(bed, chanced(seed), tampering))
            fault = await rolled_back(bed, chanced(seed), tampering, anchors=[anchor])
            held.append(fault)
        assert alone == [None] * TRIES  # nothing but the anchor knows
        assert sum(fault is not None for fault in held) == TRIES


async def test_a_forged_head_is_found_out(bed):
    async def tamper(sql, chance):
        number = chance.choice([id_ for id_, _ in await Registry(bed, sql).audit.heads(0, 100)])
        change = chance.choice([{"time_ns": 5}, {"signature": "00" * 64}, {"hash": "a" * 64}])
        await sql.execute(update(tables.anchors).filter_by(id=number).values(**change))

    faults = [await rolled_back(bed, chanced(seed), tamper) for seed in range(TRIES)]
    assert sum(each is not None for each in faults) == TRIES


@pytest.mark.parametrize("table", ["audit", "anchors"])
@pytest.mark.parametrize("change", ["UPDATE {} SET hash = 'x'", "DELETE FROM {}"])
async def test_the_tables_refuse_every_change(where, table, change):
    async with engine.open_engine(where) as opened:
        registry = Registry(opened)
        await registry.audit.append([event(1)])
        await registry.audit.sign_head(SIGNER, T0)
        with pytest.raises(IntegrityError, match="only ever added to"):
            async with engine.transaction(opened.registry, write=True) as sql:
                await sql.execute(text(change.format(table)))
        assert len(await registry.audit.events(EventFilter(), 0, 10)) == 1
        assert len(await registry.audit.heads(0, 10)) == 1


async def test_a_change_and_its_entry_happen_together_or_not_at_all(where):
    async with engine.open_engine(where) as opened:
        context = AuditContext(action="found", target="POST /organisations", request="id")
        registry, clock = Registry(opened, is_audited=True), SteppedClock(T0)

        async def fail():
            async with registry.change(context, clock) as change:
                await change.organisations.add(Organisation("factory", "F"))
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert not context.entry.is_written
        assert await registry.audit.events(EventFilter(), 0, 10) == []
        assert await registry.organisations.all() == []
        async with registry.change(context, clock) as change:
            await change.organisations.add(Organisation("factory", "F"))
            await change.principals.add(organisations.person("fay", "factory", ["owner"], T0))
        (link,) = await registry.audit.events(EventFilter(), 0, 10)
        assert context.entry.is_written
        assert (link.event.action, link.event.time_ns) == ("found", T0)
        assert '"founded":"factory"' in link.event.details
        assert '"made":"fay"' in link.event.details


async def test_a_change_without_its_entry_is_a_bug_and_changes_nothing(where):
    async with engine.open_engine(where) as opened:
        registry = Registry(opened, is_audited=True)
        with pytest.raises(RuntimeError, match="without an audit entry"):
            await registry.organisations.add(Organisation("factory", "F"))
        assert await registry.organisations.all() == []


ADDING = """
import asyncio, sys
from pathlib import Path
from testbed_api.domain.audit import Event, AuditOutcome
from testbed_api.registry import postgresql
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

async def add(place, name):
    where = Path(place)
    if "://" in place:
        where = postgresql.address_of(place, sys.argv[3])
    async with open_engine(where) as engine:
        for at in range(20):
            event = Event(at, "share", f"{name} {at}", AuditOutcome.ALLOWED)
            await Registry(engine).audit.append([event])

asyncio.run(add(*sys.argv[1:3]))
"""


@pytest.mark.timeout(60)
async def test_several_processes_add_to_one_chain(where):
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", ADDING, str(where), str(number), product.PASSWORD
        )
        for number in range(3)
    ]
    assert [await each.wait() for each in processes] == [0, 0, 0]
    async with engine.open_engine(where) as opened:
        links = await Registry(opened).audit.events(EventFilter(), 0, 1_000)
    assert audit.verify(links, [], ()) is None
    for number in range(3):
        mine = [each.event.target for each in links if each.event.target.startswith(f"{number} ")]
        assert mine == [f"{number} {at}" for at in range(20)]


async def test_events_are_found_by_who_whose_what_and_when(where):
    async with engine.open_engine(where) as opened:
        registry = Registry(opened)
        foreign = replace(event(5), principal="eve", organisation="firm", action="subscribe")
        other = replace(event(6), principal="ada", organisation="testbed", owner=None)
        await registry.audit.append([event(1), foreign, other])

        async def found(after=0, limit=10, **looked):
            return [
                each.number
                for each in await registry.audit.events(EventFilter(**looked), after, limit)
            ]

        assert await found() == [1, 2, 3]
        assert await found(concerning="factory") == [1, 2]
        assert await found(concerning="firm") == [2]
        assert await found(principal="ada") == [3]
        assert await found(organisation="factory", action="share") == [1]
        assert await found(from_ns=T0 + 5, until_ns=T0 + 6) == [2]
        assert await found(after=1, limit=1) == [2]
