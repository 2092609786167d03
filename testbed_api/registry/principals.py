"""The registry's people and machines over time."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Refused, Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Principal, PrincipalKind, Role, Scope
from testbed_api.domain import organisations as domain_organisations
from testbed_api.domain.publishers import MachineAccess
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, going_on, span_of


class PrincipalRepository(Repository):
    """People and machines, with a row for each span in which roles and scope stay the same."""

    async def add(self, principal: Principal, by: str | None = None) -> None:
        """Insert a new person or machine, which exists from the beginning of its span on.

        A name may come back, but only in its organisation and as what it was: past rights rest on
        it.  Raises Taken, or Unknown if there is no such organisation.
        """
        table, now_ns = tables.principals, principal.span.from_ns
        self._session.note(made=principal.id, **_facts(principal))
        async with self._session.transaction(write=True) as sql:
            owner = select(tables.organisations.c.id).filter_by(id=principal.organisation)
            if (await sql.execute(owner)).first() is None:
                raise Unknown(f"there is no organisation {principal.organisation!r}")
            query = select(table).filter_by(principal=principal.id)
            before = [principal_of(row) for row in await sql.execute(query)]
            for former in before:
                if former.span.until_ns is None or former.span.until_ns > now_ns:
                    raise _taken(former, principal)
            if any(_identity(former) != _identity(principal) for former in before):
                raise Taken(f"principal {principal.id!r} was somebody else", hint="choose another")
            await sql.execute(insert(table).values(**_row_of(principal), made_by=by))

    async def in_organisation(self, organisation: str, at_ns: int) -> list[Principal]:
        """The people and machines of an organisation at this instant, by id."""
        table = tables.principals
        query = select(table).filter_by(organisation=organisation).order_by(table.c.principal)
        principals = [
            principal_of(row)
            for row in await self._session.rows(query.where(going_on(table, at_ns)))
        ]
        return [each for each in principals if each.span.covers(at_ns)]

    async def of_equipment(self, address: EquipmentAddress, at_ns: int) -> list[Principal]:
        """The gateways of an equipment at this instant, by id."""
        table = tables.principals
        query = select(table).filter_by(
            organisation=address.organisation, equipment=address.equipment
        )
        rows = await self._session.rows(
            query.where(going_on(table, at_ns)).order_by(table.c.principal)
        )
        gateways = map(principal_of, rows)
        return [gateway for gateway in gateways if gateway.span.covers(at_ns)]

    async def find(self, id_: str, at_ns: int) -> Principal | None:
        """The principal of this name at this instant, None if there is none."""
        table = tables.principals
        query = select(table).filter_by(principal=id_).where(going_on(table, at_ns))
        principals = [principal_of(row) for row in await self._session.rows(query)]
        return next((each for each in principals if each.span.covers(at_ns)), None)

    async def identity(self, name: str) -> tuple[str, PrincipalKind] | None:
        """The organisation and the kind that a name stands for, now or ever; None if it is free."""
        table = tables.principals
        query = select(table.c.organisation, table.c.kind).filter_by(principal=name).limit(1)
        for row in await self._session.rows(query):
            return row.organisation, PrincipalKind(row.kind)
        return None

    async def publishers(self, at_ns: int) -> set[str]:
        """The names of the machines that publish streams at this instant."""
        table = tables.principals
        query = select(table.c.principal, table.c.entries, table.c.equipment)
        machines = query.filter_by(kind=PrincipalKind.MACHINE).where(going_on(table, at_ns))
        return {
            row.principal
            for row in await self._session.rows(machines)
            if row.equipment or entries_in(row.entries, "writes")
        }

    async def change_roles(
        self, principal: Principal, roles: Collection[Role], *, by: str | None, now_ns: int
    ) -> Principal:
        """Change the roles of a person from now on; raises Refused if no owner would be left."""
        changed = domain_organisations.person(principal.id, principal.organisation, roles, now_ns)
        self._session.note(changed=principal.id, before=sorted(principal.roles), **_facts(changed))
        async with self._session.transaction(write=True) as sql:
            if Role.OWNER not in changed.roles:
                await _must_leave_an_owner(sql, principal, now_ns)
            await _end(sql, principal.id, by, now_ns)
            await sql.execute(insert(tables.principals).values(**_row_of(changed), made_by=by))
        return changed

    async def end(self, principal: Principal, *, by: str | None, now_ns: int) -> None:
        """End a principal at once, with its tokens, its password and its e-mail address.

        Raises Refused if no owner would be left who stays.
        """
        self._session.note(ended=principal.id)
        async with self._session.transaction(write=True) as sql:
            await _must_leave_an_owner(sql, principal, now_ns)
            await _end(sql, principal.id, by, now_ns)
            table = tables.tokens
            open_tokens = (
                update(table).filter_by(principal=principal.id).where(table.c.ended_ns.is_(None))
            )
            await sql.execute(open_tokens.values(ended_ns=now_ns, ended_by=by))
            for its in (tables.passwords, tables.emails):
                await sql.execute(delete(its).filter_by(person=principal.id))

    async def gateways(self, equipment: EquipmentAddress) -> list[str]:
        """The machines that are gateways of an equipment, or ever were, by name."""
        table = tables.principals
        query = (
            select(table.c.principal)
            .distinct()
            .filter_by(organisation=equipment.organisation, equipment=equipment.equipment)
        )
        return sorted(row.principal for row in await self._session.rows(query))

    async def machine_access(self, organisation: str, at_ns: int) -> list[MachineAccess]:
        """All machines that an organisation has or had, with the end of their access by then."""
        table, tokens = tables.principals, tables.tokens
        machines = select(table).filter_by(organisation=organisation, kind=PrincipalKind.MACHINE)
        names = select(table.c.principal).filter_by(
            organisation=organisation, kind=PrincipalKind.MACHINE
        )
        newest = {
            row.principal: row for row in await self._session.rows(machines.order_by(table.c.id))
        }
        ends: dict[str, list[_End]] = {name: [] for name in newest}
        for row in await self._session.rows(
            select(tokens).where(tokens.c.principal.in_(names)).order_by(tokens.c.id)
        ):
            ends[row.principal].append(_end_of(row))
        return [_access(row, ends[name], at_ns) for name, row in newest.items()]


_End = tuple[float, str | None]
"""When access ends, in ns, infinite for never; and who ended it, None if its time is over."""


def _end_of(row: Row[Any]) -> _End:
    until_ns = math.inf if row.until_ns is None else row.until_ns
    if row.ended_ns is not None and row.ended_ns < until_ns:
        return row.ended_ns, row.ended_by
    return until_ns, None


def _access(row: Row[Any], tokens: Sequence[_End], at_ns: int) -> MachineAccess:
    """The access of a machine: until it ends itself, or its last token."""
    last_token = max(tokens, key=lambda end: end[0], default=(row.from_ns, None))
    ended_ns, by = min(_end_of(row), last_token, key=lambda end: end[0])
    if ended_ns > at_ns:
        return MachineAccess(machine=principal_of(row), ended_ns=None, ended_by=None)
    return MachineAccess(machine=principal_of(row), ended_ns=int(ended_ns), ended_by=by)


async def _end(sql: AsyncConnection, id_: str, by: str | None, now_ns: int) -> None:
    table = tables.principals
    mine = update(table).filter_by(principal=id_).where(going_on(table, now_ns))
    await sql.execute(mine.values(ended_ns=now_ns, ended_by=by))


async def _must_leave_an_owner(sql: AsyncConnection, leaving: Principal, now_ns: int) -> None:
    """Raise Refused if the organisation would have no owner without an end any more."""
    if Role.OWNER not in leaving.roles:
        return
    table = tables.principals
    query = select(table).filter_by(organisation=leaving.organisation, kind=PrincipalKind.PERSON)
    people = [principal_of(row) for row in await sql.execute(query.where(going_on(table, now_ns)))]
    owners = {
        person.id
        for person in people
        if Role.OWNER in person.roles and person.span.until_ns is None
    }
    if owners <= {leaving.id}:
        raise Refused(
            f"{leaving.id!r} is the only owner of {leaving.organisation} who stays",
            hint="make another one first",
        )


def _facts(principal: Principal) -> dict[str, Any]:
    """The facts about a principal for the audit."""
    held = {"kind": principal.kind, "organisation": principal.organisation}
    if principal.kind is PrincipalKind.PERSON:
        return held | {"roles": sorted(principal.roles)}
    reads, writes = (
        sorted(f"{each.space}:{each.address}" for each in entries)
        for entries in (principal.scope.reads, principal.scope.writes)
    )
    return held | {"reads": reads, "writes": writes, "gateway_of": principal.scope.equipment}


def _identity(principal: Principal) -> tuple[str, PrincipalKind]:
    return principal.organisation, principal.kind


def principal_of(row: Row[Any]) -> Principal:
    """The person or machine of a row, as it was over the row's span."""
    gateway = EquipmentAddress(row.organisation, row.equipment) if row.equipment else None
    reads, writes = (entries_in(row.entries, what) for what in ("reads", "writes"))
    scope = Scope(reads, writes, gateway)
    roles = frozenset(Role(role) for role in row.roles.split())
    kind = PrincipalKind(row.kind)
    return Principal(row.principal, row.organisation, kind, roles, scope, span_of(row))


def entries_in(text: str, what: str) -> frozenset[Entry]:
    """The `reads` or the `writes` of a row."""
    listed = orjson.loads(text)[what]
    return frozenset(Entry(space, StreamAddress.parse(stream)) for space, stream in listed)


def _row_of(principal: Principal) -> dict[str, Any]:
    listed = {"reads": principal.scope.reads, "writes": principal.scope.writes}
    entries = {
        what: sorted([each.space, str(each.address)] for each in entries)
        for what, entries in listed.items()
    }
    return {
        "principal": principal.id,
        "organisation": principal.organisation,
        "kind": principal.kind,
        "roles": " ".join(sorted(principal.roles)),
        "entries": orjson.dumps(entries).decode(),
        "equipment": principal.scope.equipment.equipment if principal.scope.equipment else None,
        "from_ns": principal.span.from_ns,
        "until_ns": principal.span.until_ns,
    }


def _taken(former: Principal, wanted: Principal) -> Taken:
    """The error of an id that is in use; how its owner is removed is said to its organisation."""
    hint = "choose another id"
    if former.organisation == wanted.organisation and former.kind is PrincipalKind.PERSON:
        hint = f"remove the member first: testbed member remove {former.id}; or {hint}"
    elif former.organisation == wanted.organisation and former.kind is PrincipalKind.MACHINE:
        hint = f"revoke its credential first: testbed credential revoke {former.id}; or {hint}"
    return Taken(f"principal {wanted.id!r} exists already", hint=hint)
