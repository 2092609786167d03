"""The registry's enrolments: one-time codes for gateways, and their use."""

from typing import Any

from sqlalchemy import Row, insert, select, update

from broker.namespace import EquipmentAddress
from testbed_api.domain.enrolment import Enrolment
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, going_on, span_of


class EnrolmentRepository(Repository):
    """Enrolment codes by equipment; of each code only its hash is stored."""

    async def add(self, enrolment: Enrolment) -> None:
        """Store a new code, and end the equipment's unused former ones."""
        table, now_ns = tables.enrolments, enrolment.span.from_ns
        async with self._session.transaction(write=True) as sql:
            unused = (
                update(table).filter_by(**_of(enrolment.equipment)).where(going_on(table, now_ns))
            )
            await sql.execute(unused.values(ended_ns=now_ns, ended_by=enrolment.by))
            row = {"code_hash": enrolment.code_hash, "made_by": enrolment.by}
            span = {"from_ns": now_ns, "until_ns": enrolment.span.until_ns}
            await sql.execute(insert(table).values(**_of(enrolment.equipment), **row, **span))

    async def find(self, code_hash: str) -> Enrolment | None:
        """The enrolment with the hash of a code, whether it still counts or not."""
        for row in await self._session.rows(
            select(tables.enrolments).filter_by(code_hash=code_hash)
        ):
            return _enrolment(row)
        return None

    async def update(self, enrolment: Enrolment) -> None:
        """Store the use of a code by a gateway."""
        used = {
            "public_key": enrolment.public_key,
            "principal": enrolment.principal,
            "used_ns": enrolment.used_ns,
        }
        async with self._session.transaction(write=True) as sql:
            await sql.execute(update(tables.enrolments).filter_by(id=enrolment.id).values(**used))

    async def end(self, equipment: EquipmentAddress, *, by: str, now_ns: int) -> None:
        """End all codes of an equipment."""
        table = tables.enrolments
        mine = update(table).filter_by(**_of(equipment)).where(going_on(table, now_ns))
        async with self._session.transaction(write=True) as sql:
            await sql.execute(mine.values(ended_ns=now_ns, ended_by=by))

    async def history(self, equipment: EquipmentAddress) -> list[Enrolment]:
        """All enrolments of an equipment, past ones too, in the order of their making."""
        table = tables.enrolments
        query = select(table).filter_by(**_of(equipment)).order_by(table.c.id)
        return [_enrolment(row) for row in await self._session.rows(query)]


def _of(address: EquipmentAddress) -> dict[str, str]:
    return {"organisation": address.organisation, "equipment": address.equipment}


def _enrolment(row: Row[Any]) -> Enrolment:
    return Enrolment(
        EquipmentAddress(row.organisation, row.equipment),
        row.code_hash,
        span_of(row),
        row.made_by,
        row.public_key,
        row.principal,
        row.used_ns,
        row.id,
    )
