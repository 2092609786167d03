"""Changes of rights, and the connections to the broker that end with them.

A connection keeps the topics that it was let in with.  So the connections of a principal whose
topics a change alters are ended, and get its new topics when they come back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from broker import policy
from broker.clock import Clock
from broker.errors import Unavailable
from broker.namespace import LIVE, StreamAddress
from broker.policy import Topics
from broker.rights import Entry, Principal, Role
from testbed_api.domain.audit import AuditContext
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights import BusRights

AT_ONCE = 32
"""Principals of one change whose connections are being ended at a time."""

TokenTopics = Mapping[frozenset[Role] | None, Topics]
"""The topics of a principal with each kind of its tokens: whole, or of some roles."""


class RightsChanges:
    """Makes changes of rights, and disconnects the principals whose topics they alter.

    Each method gives the registry inside one transaction that ends with the audit entry of
    `context`, and disconnects after it.  They raise Unavailable if the broker does not confirm
    that; the change is made all the same, and a connection that comes back gets its new topics.
    """

    def __init__(
        self, registry: Registry, clock: Clock, disconnect: Callable[[str], Awaitable[None]]
    ) -> None:
        """disconnect: ends the connections of a principal to the broker."""
        self._registry = registry
        self._clock = clock
        self._disconnect = disconnect

    @asynccontextmanager
    async def of_companies(
        self, context: AuditContext, companies: Collection[str]
    ) -> AsyncIterator[Registry]:
        """Change grants to organisations, or pauses of such grants."""
        async with self._registry.change(context, self._clock) as change:
            before = await self._topics(change.rights.of_companies(companies, self._now()))
            yield change
            after = await self._topics(change.rights.of_companies(companies, self._now()))
        await self._disconnect_changed(before, after)

    def of_company(
        self, context: AuditContext, company: str
    ) -> AbstractAsyncContextManager[Registry]:
        """Change grants to one organisation."""
        return self.of_companies(context, [company])

    @asynccontextmanager
    async def of_principal(self, context: AuditContext, principal: str) -> AsyncIterator[Registry]:
        """Change the roles or the scope of one principal."""
        async with self._registry.change(context, self._clock) as change:
            before = await self._topics(change.rights.of_principals([principal], self._now()))
            yield change
            after = await self._topics(change.rights.of_principals([principal], self._now()))
        await self._disconnect_changed(before, after)

    @asynccontextmanager
    async def of_streams(
        self, context: AuditContext, addresses: Sequence[StreamAddress]
    ) -> AsyncIterator[tuple[Registry, frozenset[StreamAddress]]]:
        """Change specs of streams of one equipment; also yields the addresses without a spec.

        With its first spec a stream may be published by the gateways of the equipment.
        """
        gateways: list[Principal] = []
        async with self._registry.change(context, self._clock) as change:
            new = await change.streams.missing(addresses)
            if new:
                owner = addresses[0].owner
                gateways = await change.principals.of_equipment(owner, self._now())
            yield change, new
        entries = {Entry(LIVE, address) for address in new}
        await self._disconnect_all(
            [gateway.id for gateway in gateways if not entries <= gateway.scope.writes]
        )

    async def passed_over(self, from_ns: int, to_ns: int) -> None:
        """Disconnect the principals of whom a right or a token began or ended between two instants.

        The broker ends a connection by a timer, which a clock that is set ahead does not move.
        """
        rights = await self._registry.rights.of_everybody(from_ns)
        concerned = await self._registry.tokens.expiring(from_ns, to_ns)
        for principal in rights.principals:
            next_ns = policy.until_ns(rights.of(principal), principal.id, from_ns)
            if next_ns is not None and next_ns <= to_ns:
                concerned.add(principal.id)
        await self._disconnect_all(sorted(concerned))

    async def _topics(self, loading: Awaitable[BusRights]) -> Mapping[str, TokenTopics]:
        return _topics(await loading, self._now())

    async def _disconnect_changed(
        self, before: Mapping[str, TokenTopics], after: Mapping[str, TokenTopics]
    ) -> None:
        changed = [each for each in sorted(before) if after.get(each) != before[each]]
        await self._disconnect_all(changed)

    async def _disconnect_all(self, principals: Collection[str]) -> None:
        """End the connections of principals, AT_ONCE at a time; raises Unavailable after all."""
        gate, failures = asyncio.Semaphore(AT_ONCE), list[Unavailable]()

        async def disconnect(principal: str) -> None:
            async with gate:
                try:
                    await self._disconnect(principal)
                except Unavailable as exc:  # the others are to be silent all the same
                    failures.append(exc)

        async with asyncio.TaskGroup() as tasks:
            for principal in principals:
                tasks.create_task(disconnect(principal), name=f"disconnect {principal}")
        if failures:
            raise failures[0]

    def _now(self) -> int:
        return self._clock.now_ns()


def _topics(rights: BusRights, at_ns: int) -> dict[str, TokenTopics]:
    """The topics of each principal at an instant; those of equals are computed once."""
    equals: dict[object, Topics] = {}
    topics: dict[str, TokenTopics] = {}
    for principal in rights.principals:
        if not principal.span.covers(at_ns):
            continue
        by_roles: dict[frozenset[Role] | None, Topics] = {}
        tokens = rights.tokens.get(principal.id, ())
        for roles in {token.roles for token in tokens} | {None}:
            key = _alike(principal, roles)
            if key not in equals:
                with_roles = rights.of(principal).with_roles(principal.id, roles)
                equals[key] = policy.topics(with_roles, principal.id, at_ns)
            by_roles[roles] = equals[key]
        topics[principal.id] = by_roles
    return topics


def _alike(principal: Principal, roles: frozenset[Role] | None) -> tuple[object, ...]:
    """A key that is equal for principals of one organisation with equal topics."""
    held = principal.roles if roles is None else principal.roles & roles
    return principal.organisation, principal.kind, held, roles is None, principal.scope
