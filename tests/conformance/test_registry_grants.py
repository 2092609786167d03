"""Listings, reads and sessions in the registry, on SQLite and PostgreSQL."""

import asyncio

from broker.errors import Unavailable
from broker.messages import Held
from broker.namespace import LIVE, StreamAddress
from broker.rights import Entry, Listing, Role, Sample, Span
from testbed_api.audit.read_counter import ReadCounter
from testbed_api.domain import organisations
from testbed_api.domain.grants import GrantRequest, Offer
from testbed_api.domain.organisations import Organisation
from testbed_api.recorder.ledger import FlushEntries, Ledger, StreamEpoch
from testbed_api.registry.access_log import DAY_NS, GRACE_NS, AdmittedConnection, ReadKey
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RIG = StreamAddress("factory", "pump-rig", "rig")
MILL = StreamAddress("factory", "pump-rig-2", "rig")
LIVE_RIG = Entry(LIVE, RIG)


async def test_an_offer_holds_terms_and_sample_and_is_of_its_moment(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        sample = Sample(LIVE_RIG, 3, 9)
        first = Listing(RIG.owner, frozenset({"firm"}), Span(5), sample)
        second = Listing(RIG.owner, None, Span(8))
        await registry.listings.put(first, by="fay", terms="ask first")
        assert await registry.listings.find(RIG.owner, 6) == Offer(first, "ask first")
        await registry.listings.put(second, by="fay")
        assert await registry.listings.find(RIG.owner, 8) == Offer(second)
        assert (await registry.rights.of_equipment(RIG.owner)).listings[0].sample == sample
        await registry.listings.end(RIG.owner, by="fay", now_ns=9)
        assert await registry.listings.find(RIG.owner, 9) is None


async def test_a_request_keeps_what_was_wanted_and_why_it_was_refused(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.organisations.add(Organisation("firm", "Firm"))
        wanted = GrantRequest("firm", LIVE_RIG, "to try", 5, "cora", wanted=Span(10, 90))
        request = await registry.grants.add(wanted)
        assert request.wanted == Span(10, 90)
        refused = request.refused("fay", 7, "too much")
        await registry.grants.update(refused, request)
        assert await registry.grants.get(request.id) == refused


async def test_reads_at_once_are_all_counted(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        await registry.organisations.add(Organisation("firm", "Firm"))
        await registry.principals.add(organisations.person("cora", "firm", {Role.OWNER}, 0))
        book, processes = ReadCounter(), [ReadCounter(), ReadCounter()]

        async def read(way, at_ns, entry=LIVE_RIG, book=book):
            await book.note(registry, ReadKey.at("cora", entry, way, at_ns), at_ns)

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                way = "live" if number % 4 == 0 else "history"
                noting = read(way, DAY_NS + number, book=processes[number % 2])
                tasks.create_task(noting, name=str(number))
        await read("history", 2 * DAY_NS)
        await read("history", DAY_NS, Entry(LIVE, MILL))
        counts = await registry.reads.between(RIG.owner, 0, 2 * DAY_NS)
        assert {(each.organisation, each.way): each.times for each in counts} == {
            ("firm", "history"): 15,
            ("firm", "live"): 5,
        }
        days = [each.day for each in await registry.reads.between(RIG.owner, 0, 2 * DAY_NS + 1)]
        assert days == [1, 1, 2]


async def test_a_session_is_kept_with_what_was_recorded_meanwhile(where):
    async with open_engine(where) as engine:
        registry, ledger = Registry(engine), Ledger(engine)

        async def recorded(upto):
            await ledger.commit(FlushEntries(held={StreamEpoch(LIVE, RIG, "e"): Held(upto)}))

        await recorded(10)
        late = GRACE_NS * 3
        for name in ("a", "b", "c"):
            connection = AdmittedConnection(
                "cora", f"server/{name}", "cora--1", frozenset({LIVE_RIG})
            )
            await registry.sessions.begin(connection, late if name == "c" else 5)
        await recorded(15)
        await registry.sessions.end("server/a", "Client Closed", 60)
        await registry.sessions.end("server/a", "once more", 70)
        await registry.sessions.end("server/x", "never begun", 70)
        await recorded(20)
        sessions = {
            each.from_ns: each for each in await registry.sessions.between(RIG.owner, 60, late + 1)
        }
        assert sorted(sessions) == [5, late]
        assert await registry.sessions.between(MILL.owner, 0, late + 1) == []
        before = await registry.sessions.between(RIG.owner, 0, 6)
        ends = [(each.until_ns, each.batches, each.ended_how) for each in before]
        assert ends == [(60, 5, "Client Closed"), (None, 10, None)]
        assert await registry.sessions.end_others(["server/c"], "found gone", late + 1) == 1
        assert await registry.sessions.end_others([], "found gone", late + 1) == 0  # too young
        after = [each.until_ns for each in await registry.sessions.between(RIG.owner, 0, late + 2)]
        assert after == [60, late + 1, None]


async def test_who_joins_a_lot_that_is_not_written_is_not_counted_either(where):
    async with open_engine(where) as engine:
        registry, book = Registry(engine), ReadCounter()
        async with engine.registry.begin() as sql:
            await sql.exec_driver_sql("DROP TABLE reads")
        key = ReadKey.at("cora", LIVE_RIG, "history", 5)
        errors = []

        async def read():
            try:
                await book.note(registry, key, 5)
            except Unavailable as exc:
                errors.append(exc)

        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(read(), name=str(number))
        assert len(errors) == 5
