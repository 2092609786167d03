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
        for one in (former, newer):
            await registry.add_enrolment(one)
        assert (await registry.enrolment(former.code_hash)).span == Span(5, 7)
        kept = await registry.enrolment(enrolling.hashed(code))
        used = kept.used(b"k" * 32, 8)
        await registry.put_enrolment(used)
        assert await registry.enrolment(newer.code_hash) == used
        await registry.end_enrolments(RIG, by="fay", now_ns=9)
        ended = [one.span.until_ns for one in await registry.enrolments(RIG)]
        assert ended == [7, 9]
        assert await registry.enrolments(MILL) == []
        assert await registry.enrolment("no such hash") is None
