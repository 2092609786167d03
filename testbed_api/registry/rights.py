"""The rights that the policy decides over: of one principal, of several, or over one equipment."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.namespace import LIVE, EquipmentAddress, StreamAddress
from broker.rights import (
    Entry,
    Grant,
    Listing,
    Party,
    Pause,
    Principal,
    PrincipalKind,
    Rights,
)
from testbed_api.domain.tokens import Token
from testbed_api.registry import tables
from testbed_api.registry.base import RegistrySession, Repository, going_on
from testbed_api.registry.grants import request_of
from testbed_api.registry.listings import listing_of
from testbed_api.registry.pauses import pause_of
from testbed_api.registry.principals import entries_in, principal_of
from testbed_api.registry.tokens import token_of

About = EquipmentAddress | StreamAddress | None
"""The equipment or the stream that rights are asked about; None for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusRights:
    """The rights on the bus of several principals, from one moment on.

    tokens: of each principal, the oldest first.  known: the streams of each organisation.
    """

    principals: Sequence[Principal]
    tokens: Mapping[str, Sequence[Token]]
    grants: Sequence[Grant]
    pauses: Sequence[Pause]
    known: Mapping[str, frozenset[Entry]]

    def of(self, principal: Principal) -> Rights:
        """The rights on the bus of one of the principals."""
        return Rights(
            principals=(principal,),
            grants=tuple(each for each in self.grants if each.company == principal.organisation),
            pauses=tuple(self.pauses),
            known=self.known_to(principal),
        )

    def known_to(self, principal: Principal) -> frozenset[Entry]:
        """The known streams of a person's organisation, or of a gateway's equipment."""
        known = self.known.get(principal.organisation, frozenset())
        if principal.kind is PrincipalKind.PERSON:
            return known
        gateway_of = principal.scope.equipment
        if gateway_of is None:
            return frozenset()
        return frozenset(
            each for each in known if each.space == LIVE and each.address.owner == gateway_of
        )


@dataclass(frozen=True, slots=True)
class PrincipalRights:
    """The rights of one principal from one moment on, and its tokens."""

    rights: Rights
    tokens: Sequence[Token]

    def under(self, secret_hash: str, at_ns: int) -> tuple[Token, Rights] | None:
        """The token with this hash of its secret and the rights under it; None without one."""
        for token in self.tokens:
            if token.secret_hash == secret_hash and token.span.covers(at_ns):
                return token, self.rights.with_roles(token.principal, token.roles)
        return None


class RightsRepository(Repository):
    """Snapshots of rights, each read in one transaction."""

    async def of_principal(self, principal: str, since_ns: int = 0, about: About = None) -> Rights:
        """All rights of one principal from `since_ns` on.

        about: the only equipment or stream that is acted on; grants, listings and known streams of
        others are left out.
        """
        async with self._session.transaction() as sql:
            stretches = await _principals(sql, principal, since_ns)
            if not stretches:
                return Rights()
            holder = stretches[0]
            grants = await _grants(sql, _given(holder.organisation, since_ns, about))
            return Rights(
                await _organisations(sql, {holder.organisation}),
                stretches,
                grants,
                await _pauses(sql, grants, since_ns),
                await _listings(sql, [holder.organisation], since_ns, about),
                await _known(self._session, sql, holder, about),
            )

    async def on_bus(self, principal: str, since_ns: int) -> Rights:
        """The rights on the bus of one principal from `since_ns` on; listings give none."""
        async with self._session.transaction() as sql:
            stretches = await _principals(sql, principal, since_ns)
            if not stretches:
                return Rights()
            holder = stretches[0]
            grants = await _grants(sql, _given(holder.organisation, since_ns, None))
            return Rights(
                principals=stretches,
                grants=grants,
                pauses=await _pauses(sql, grants, since_ns),
                known=await _known(self._session, sql, holder, None),
            )

    async def of_companies(self, organisations: Collection[str], since_ns: int) -> BusRights:
        """The rights on the bus of all members and machines of organisations.

        In a number of statements that does not depend on how many they are.
        """
        table = tables.principals
        async with self._session.transaction() as sql:
            condition = table.c.organisation.in_(sorted(organisations))
            return await _bus_rights(self._session, sql, condition, since_ns)

    async def of_principals(self, principals: Collection[str], since_ns: int) -> BusRights:
        """The rights on the bus of principals by name."""
        async with self._session.transaction() as sql:
            return await _bus_rights(self._session, sql, _named(principals), since_ns)

    async def of_everybody(self, since_ns: int) -> BusRights:
        """The rights on the bus of all principals, without the testbed's own parts."""
        async with self._session.transaction() as sql:
            return await _bus_rights(self._session, sql, true(), since_ns)

    async def of_each(
        self, principals: Collection[str], since_ns: int
    ) -> dict[str, PrincipalRights]:
        """All rights of each of several principals from `since_ns` on, with its tokens, by name.

        In a number of statements that does not depend on how many they are.  A machine gets the
        grants of streams in its scope alone, as no other counts for it.
        """
        async with self._session.transaction() as sql:
            holders = await _bus_rights(self._session, sql, _named(principals), since_ns)
            organisations = sorted({each.organisation for each in holders.principals})
            parties = await _organisations(sql, organisations)
            listings = await _listings(sql, organisations, since_ns)
        return _of_each(holders, parties, listings)

    async def of_equipment(self, equipment: EquipmentAddress) -> Rights:
        """All rights, past ones too, that decide over access to one equipment."""
        async with self._session.transaction() as sql:
            grants, pauses, listings = tables.grants, tables.pauses, tables.listings
            owner, name = equipment.organisation, equipment.equipment
            given = await _grants(sql, and_(grants.c.owner == owner, grants.c.equipment == name))
            concerned = {owner, *(each.company for each in given)}
            table = tables.principals
            people = await _rows(sql, table, table.c.organisation.in_(concerned))
            listed = and_(listings.c.organisation == owner, listings.c.equipment == name)
            here = or_(pauses.c.equipment.is_(None), pauses.c.equipment == name)
            about = and_(pauses.c.owner == owner, here)
            return Rights(
                await _organisations(sql, concerned),
                tuple(map(principal_of, people)),
                given,
                tuple(map(pause_of, await _rows(sql, tables.pauses, about))),
                tuple(map(listing_of, await _rows(sql, listings, listed))),
                (await _entries(self._session, sql, [owner], equipment))[owner],
            )


async def _bus_rights(
    session: RegistrySession, sql: AsyncConnection, condition: ColumnElement[bool], since_ns: int
) -> BusRights:
    """The rights on the bus of the principals that meet a condition."""
    table, tokens = tables.principals, tables.tokens
    lasting = and_(condition, going_on(table, since_ns))
    principals = tuple(map(principal_of, await _rows(sql, table, lasting)))
    organisations = sorted({each.organisation for each in principals})
    names = select(table.c.principal).where(lasting)
    valid = and_(tokens.c.principal.in_(names), going_on(tokens, since_ns))
    issued: dict[str, list[Token]] = defaultdict(list)
    for token in map(token_of, await _rows(sql, tokens, valid)):
        issued[token.principal].append(token)
    given = and_(tables.grants.c.company.in_(organisations), _lasts(tables.grants, since_ns))
    grants = await _grants(sql, given)
    return BusRights(
        principals=principals,
        tokens=issued,
        grants=grants,
        pauses=await _pauses(sql, grants, since_ns),
        known=await _entries(session, sql, organisations),
    )


def _of_each(
    holders: BusRights, parties: Mapping[str, Party], listings: Sequence[Listing]
) -> dict[str, PrincipalRights]:
    """The rights of each holder; people of one organisation share what they have in common."""
    spans: dict[str, list[Principal]] = defaultdict(list)
    for principal in holders.principals:
        spans[principal.id].append(principal)
    granted: dict[str, dict[Entry, list[Grant]]] = {each: defaultdict(list) for each in parties}
    for grant in holders.grants:
        granted[grant.company][grant.entry].append(grant)
    whole = {each: tuple(chain.from_iterable(its.values())) for each, its in granted.items()}
    listed = {each: _listed_to(each, listings) for each in parties}
    pauses = tuple(holders.pauses)

    def rights(its: Sequence[Principal]) -> Rights:
        organisation, grants = its[0].organisation, whole[its[0].organisation]
        if its[0].kind is PrincipalKind.MACHINE:
            reads = {entry for each in its for entry in each.scope.reads}
            of_entry = granted[organisation]
            grants = tuple(grant for entry in reads for grant in of_entry.get(entry, ()))
        known = holders.known_to(its[0])
        return Rights(parties, tuple(its), grants, pauses, listed[organisation], known)

    return {
        name: PrincipalRights(rights(its), holders.tokens.get(name, ()))
        for name, its in spans.items()
    }


def _listed_to(organisation: str, listings: Sequence[Listing]) -> tuple[Listing, ...]:
    return tuple(
        each
        for each in listings
        if each.organisations is None or organisation in each.organisations
    )


def _named(principals: Collection[str]) -> ColumnElement[bool]:
    return tables.principals.c.principal.in_(sorted(principals))


def _lasts(table: Any, since_ns: int) -> ColumnElement[bool]:
    return and_(table.c.from_ns.is_not(None), going_on(table, since_ns))


async def _rows(sql: AsyncConnection, table: Any, where: Any) -> Sequence[Row[Any]]:
    return (await sql.execute(select(table).where(where).order_by(table.c.id))).all()


async def _principals(sql: AsyncConnection, principal: str, since_ns: int) -> tuple[Principal, ...]:
    """The spans of a principal, each with its roles and scope, from a moment on."""
    table = tables.principals
    lasting = and_(table.c.principal == principal, going_on(table, since_ns))
    return tuple(map(principal_of, await _rows(sql, table, lasting)))


async def _organisations(sql: AsyncConnection, ids: Collection[str]) -> dict[str, Party]:
    table = tables.organisations
    return {row.id: Party(row.kind) for row in await _rows(sql, table, table.c.id.in_(ids))}


def _of_equipment(table: Any, owner: Any, about: About) -> ColumnElement[bool]:
    """The condition for rows of one equipment; true if `about` names none."""
    if about is None:
        return true()
    equipment = _equipment(about)
    return and_(owner == equipment.organisation, table.c.equipment == equipment.equipment)


def _equipment(about: EquipmentAddress | StreamAddress) -> EquipmentAddress:
    return about.owner if isinstance(about, StreamAddress) else about


def _given(company: str, since_ns: int, about: About) -> ColumnElement[bool]:
    table = tables.grants
    about_ = _of_equipment(table, table.c.owner, about)
    return and_(table.c.company == company, _lasts(table, since_ns), about_)


async def _grants(sql: AsyncConnection, where: Any) -> tuple[Grant, ...]:
    requests = [request_of(row) for row in await _rows(sql, tables.grants, where)]
    return tuple(each.grant for each in requests if each.grant is not None)


async def _pauses(
    sql: AsyncConnection, grants: Collection[Grant], since_ns: int
) -> tuple[Pause, ...]:
    """The pauses of the owners of these grants."""
    if not grants:
        return ()
    table, owners = tables.pauses, {each.entry.address.organisation for each in grants}
    where = and_(table.c.owner.in_(sorted(owners)), going_on(table, since_ns))
    return tuple(map(pause_of, await _rows(sql, table, where)))


async def _listings(
    sql: AsyncConnection, organisations: Collection[str], since_ns: int, about: About = None
) -> tuple[Listing, ...]:
    """The listings to some organisations, or to everybody."""
    table = tables.listings
    to_them = [
        table.c.organisations.contains(f'"{each}"', autoescape=True) for each in organisations
    ]
    where = and_(
        or_(table.c.organisations.is_(None), *to_them),
        going_on(table, since_ns),
        _of_equipment(table, table.c.organisation, about),
    )
    return tuple(map(listing_of, await _rows(sql, table, where)))


async def _known(
    session: RegistrySession, sql: AsyncConnection, principal: Principal, about: About
) -> frozenset[Entry]:
    """The known streams of a person's organisation, or of a gateway's equipment."""
    organisation, gateway_of = principal.organisation, principal.scope.equipment
    if about is not None and about.organisation != organisation:
        return frozenset()
    if principal.kind is PrincipalKind.PERSON:
        return (await _entries(session, sql, [organisation], about))[organisation]
    if gateway_of is None:
        return frozenset()
    if about is None:
        about = gateway_of
    elif gateway_of != _equipment(about):
        return frozenset()
    return (await _registered(sql, [organisation], about))[organisation]


async def _entries(
    session: RegistrySession,
    sql: AsyncConnection,
    organisations: Collection[str],
    about: About = None,
) -> dict[str, frozenset[Entry]]:
    """The streams of organisations: in `live` those that are registered; in any other space those
    that a machine of it could ever write, or that something is stored of.
    """
    machines = tables.principals
    registered = await _registered(sql, organisations, about)
    entries = {each: set(its) for each, its in registered.items()}
    prefixes = [f"{each}/" for each in organisations]
    if about is not None:
        prefixes = [f"{about}/" if isinstance(about, EquipmentAddress) else str(about)]
    query = select(machines.c.organisation, machines.c.entries).where(
        machines.c.organisation.in_(organisations), machines.c.kind == PrincipalKind.MACHINE
    )
    if about is not None:
        query = query.where(machines.c.entries.contains(prefixes[0], autoescape=True))
    for row in await sql.execute(query):
        entries[row.organisation] |= entries_in(row.entries, "writes")
    for entry in await _recorded(session, prefixes):
        entries[entry.address.organisation].add(entry)
    if about is None:
        return {each: frozenset(its) for each, its in entries.items()}
    return {
        each: frozenset(entry for entry in its if about in {entry.address, entry.address.owner})
        for each, its in entries.items()
    }


async def _recorded(session: RegistrySession, prefixes: Collection[str]) -> Collection[Entry]:
    """The streams in any space that something is stored of; they only ever become more."""
    specs = tables.specs
    begins = or_(false(), *(specs.c.stream.startswith(each, autoescape=True) for each in prefixes))
    query = select(specs.c.space, specs.c.stream).where(begins).distinct()
    async with session.ledger() as ledger:
        rows = (await ledger.execute(query)).all()
    return [Entry(row.space, StreamAddress.parse(row.stream)) for row in rows]


async def _registered(
    sql: AsyncConnection, organisations: Collection[str], about: About = None
) -> dict[str, frozenset[Entry]]:
    """The registered streams of organisations."""
    table = tables.stream_specs
    columns = (table.c.organisation, table.c.equipment, table.c.stream)
    query = select(*columns).where(table.c.organisation.in_(organisations), table.c.version == 1)
    if about is not None:
        query = query.where(_of_equipment(table, table.c.organisation, about))
    if isinstance(about, StreamAddress):
        query = query.where(table.c.stream == about.stream)
    entries: dict[str, set[Entry]] = {each: set() for each in organisations}
    for row in await sql.execute(query):
        entries[row.organisation].add(Entry(LIVE, StreamAddress(*row)))
    return {each: frozenset(its) for each, its in entries.items()}
