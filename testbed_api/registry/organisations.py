"""The registry's organisations, people and machines."""

from collections.abc import Collection
from typing import Any

import orjson
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Refused, Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Party, Principal, PrincipalKind, Role, Scope
from testbed_api.domain import organisations as domain_organisations
from testbed_api.domain.organisations import Organisation
from testbed_api.registry import tables
from testbed_api.registry.base import Queries, going_on, span_of


class PartyQueries(Queries):
    """Organisations, and their people and machines over time: a row each stretch, ended once."""

    async def add_organisation(self, organisation: Organisation) -> None:
        """Add a new organisation; raises Taken if there is one with this id."""
        row = {"id": organisation.id, "name": organisation.name, "kind": organisation.kind}
        table = tables.organisations
        self.tells(founded=organisation.id, party=organisation.kind)
        async with self._transaction(write=True) as sql:
            known = select(table.c.id).filter_by(id=organisation.id)
            if (await sql.execute(known)).first() is not None:
                raise Taken(f"organisation {organisation.id!r} exists already")
            await sql.execute(insert(table).values(**row))

    async def organisations(self) -> list[Organisation]:
        """All, by id."""
        query = select(tables.organisations).order_by(tables.organisations.c.id)
        return [Organisation(row.id, row.name, Party(row.kind)) for row in await self._rows(query)]

    async def add_principal(self, principal: Principal, by: str | None = None) -> None:
        """Keep a new person or machine from the beginning of its span on.

        A name may come back, but only in its organisation and as what it was: past rights rest on
        it.  Raises Taken, or Unknown if there is no such organisation.
        """
        table, now_ns = tables.principals, principal.span.from_ns
        self.tells(made=principal.id, **_told(principal))
        async with self._transaction(write=True) as sql:
            owner = select(tables.organisations.c.id).filter_by(id=principal.organisation)
            if (await sql.execute(owner)).first() is None:
                raise Unknown(f"there is no organisation {principal.organisation!r}")
            query = select(table).filter_by(principal=principal.id)
            before = [principal_of(row) for row in await sql.execute(query)]
            if any(one.span.until_ns is None or one.span.until_ns > now_ns for one in before):
                raise Taken(
                    f"principal {principal.id!r} exists already",
                    hint="delete it first, or choose another id",
                )
            if any(_whose(one) != _whose(principal) for one in before):
                raise Taken(f"principal {principal.id!r} was somebody else", hint="choose another")
            await sql.execute(insert(table).values(**_row_of(principal), made_by=by))

    async def principals(self, organisation: str, at_ns: int) -> list[Principal]:
        """The people and machines of an organisation at this instant, by id."""
        table = tables.principals
        query = select(table).filter_by(organisation=organisation).order_by(table.c.principal)
        found = [principal_of(row) for row in await self._rows(query.where(going_on(table, at_ns)))]
        return [one for one in found if one.span.covers(at_ns)]

    async def principal(self, id_: str, at_ns: int) -> Principal | None:
        """Who that is at this instant."""
        table = tables.principals
        query = select(table).filter_by(principal=id_).where(going_on(table, at_ns))
        found = [principal_of(row) for row in await self._rows(query)]
        return next((one for one in found if one.span.covers(at_ns)), None)

    async def change_roles(
        self, one: Principal, roles: Collection[Role], *, by: str, now_ns: int
    ) -> Principal:
        """From now on the person has these roles; raises Refused if no owner would be left."""
        changed = domain_organisations.person(one.id, one.organisation, roles, now_ns)
        self.tells(changed=one.id, before=sorted(one.roles), **_told(changed))
        async with self._transaction(write=True) as sql:
            if Role.OWNER not in changed.roles:
                await _must_leave_an_owner(sql, one, now_ns)
            await _end(sql, one.id, by, now_ns)
            await sql.execute(insert(tables.principals).values(**_row_of(changed), made_by=by))
        return changed

    async def end_principal(self, one: Principal, *, by: str | None, now_ns: int) -> None:
        """End all of somebody at once: what it is, its tokens and its password.

        Raises Refused if no owner would be left who stays.
        """
        self.tells(ended=one.id)
        async with self._transaction(write=True) as sql:
            await _must_leave_an_owner(sql, one, now_ns)
            await _end(sql, one.id, by, now_ns)
            table = tables.tokens
            open_ones = update(table).filter_by(principal=one.id).where(table.c.ended_ns.is_(None))
            await sql.execute(open_ones.values(ended_ns=now_ns, ended_by=by))
            await sql.execute(delete(tables.passwords).filter_by(person=one.id))


async def _end(sql: AsyncConnection, id_: str, by: str | None, now_ns: int) -> None:
    table = tables.principals
    mine = update(table).filter_by(principal=id_).where(going_on(table, now_ns))
    await sql.execute(mine.values(ended_ns=now_ns, ended_by=by))


async def _must_leave_an_owner(sql: AsyncConnection, leaving: Principal, now_ns: int) -> None:
    """Raise unless somebody else owns the organisation for good, or the one who leaves does not."""
    if Role.OWNER not in leaving.roles:
        return
    table = tables.principals
    query = select(table).filter_by(organisation=leaving.organisation, kind=PrincipalKind.PERSON)
    people = [principal_of(row) for row in await sql.execute(query.where(going_on(table, now_ns)))]
    owners = {one.id for one in people if Role.OWNER in one.roles and one.span.until_ns is None}
    if owners <= {leaving.id}:
        raise Refused(
            f"{leaving.id!r} is the only owner of {leaving.organisation} who stays",
            hint="make another one first",
        )


def _told(one: Principal) -> dict[str, Any]:
    """What somebody is, for the audit."""
    held = {"kind": one.kind, "organisation": one.organisation}
    if one.kind is PrincipalKind.PERSON:
        return held | {"roles": sorted(one.roles)}
    reads, writes = (
        sorted(f"{each.space}:{each.address}" for each in entries)
        for entries in (one.scope.reads, one.scope.writes)
    )
    return held | {"reads": reads, "writes": writes, "gateway_of": one.scope.equipment}


def _whose(one: Principal) -> tuple[str, PrincipalKind]:
    return one.organisation, one.kind


def principal_of(row: Row[Any]) -> Principal:
    """A person or machine as it was over the stretch of a row."""
    gateway = EquipmentAddress(row.organisation, row.equipment) if row.equipment else None
    reads, writes = (entries_in(row.entries, what) for what in ("reads", "writes"))
    scope = Scope(reads, writes, gateway)
    roles = frozenset(Role(one) for one in row.roles.split())
    kind = PrincipalKind(row.kind)
    return Principal(row.principal, row.organisation, kind, roles, scope, span_of(row))


def entries_in(text: str, what: str) -> frozenset[Entry]:
    """The `reads` or the `writes` of a row."""
    listed = orjson.loads(text)[what]
    return frozenset(Entry(space, StreamAddress.parse(stream)) for space, stream in listed)


def _row_of(one: Principal) -> dict[str, Any]:
    listed = {"reads": one.scope.reads, "writes": one.scope.writes}
    entries = {
        what: sorted([each.space, str(each.address)] for each in entries)
        for what, entries in listed.items()
    }
    return {
        "principal": one.id,
        "organisation": one.organisation,
        "kind": one.kind,
        "roles": " ".join(sorted(one.roles)),
        "entries": orjson.dumps(entries).decode(),
        "equipment": one.scope.equipment.equipment if one.scope.equipment else None,
        "from_ns": one.span.from_ns,
        "until_ns": one.span.until_ns,
    }
