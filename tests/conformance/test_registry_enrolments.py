"""Enrolments in the registry, on SQLite and PostgreSQL."""

from broker.namespace import EquipmentAddress
from broker.rights import Span
from testbed_api.domain import enrolment as enrolling
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RIG, MILL = EquipmentAddress("factory", "pump-rig"), EquipmentAddress("factory", "pump-rig-2")


async def test_an_enrolment_is_kept_used_and_ended(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        _, former = enrolling.issued(RIG, "fay", 5)
        code, newer = enrolling.issued(RIG, "fay", 7)
        for issued in (former, newer):
            await registry.enrolments.add(issued)
        assert (await registry.enrolments.find(former.code_hash)).span == Span(5, 7)
        stored = await registry.enrolments.find(enrolling.hashed(code))
        used = stored.used(b"k" * 32, 8)
        await registry.enrolments.update(used)
        assert await registry.enrolments.find(newer.code_hash) == used
        await registry.enrolments.end(RIG, by="fay", now_ns=9)
        ended = [each.span.until_ns for each in await registry.enrolments.history(RIG)]
        assert ended == [7, 9]
        assert await registry.enrolments.history(MILL) == []
        assert await registry.enrolments.find("no such hash") is None
