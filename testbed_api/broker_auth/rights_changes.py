"""Changes of rights, and what follows from them on the bus.

A connection keeps the topics that it was let in with: a principal whose topics have changed is
disconnected, and is authorized anew when it connects again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from broker import policy
from broker.clock import Clock
from broker.policy import Topics
from broker.rights import Role
from testbed_api.registry.registry import Registry

OfTokens = Mapping[frozenset[Role] | None, Topics]
"""What a principal has on the bus, with each kind of its tokens: whole, or of some roles."""


class Changes:
    """Makes changes of rights, and ends the connections that had other rights before."""

    def __init__(
        self, registry: Registry, clock: Clock, disconnect: Callable[[str], Awaitable[None]]
    ) -> None:
        """disconnect: ends a principal's connections to the broker."""
        self.disconnect = disconnect
        self._registry = registry
        self._clock = clock

    @asynccontextmanager
    async def of(self, principals: Collection[str]) -> AsyncIterator[Registry]:
        """The registry inside one transaction; those of `principals` who have other topics after it
        are disconnected.

        Raises Unavailable if the broker does not confirm it: the change is made all the same, and
        who comes back is answered by it.
        """
        before = await self._topics(principals)
        async with self._registry.change() as inside:
            yield inside
        await self.changed(before)

    async def of_organisation(self, organisation: str) -> Collection[str]:
        """Whom a grant to it, or a pause of one, concerns."""
        now_ns = self._clock.now_ns()
        return [one.id for one in await self._registry.principals(organisation, now_ns)]

    async def changed(self, before: Mapping[str, OfTokens]) -> None:
        """Disconnect those who have other topics by now."""
        after = await self._topics(before)
        for principal in sorted(before):
            if after[principal] != before[principal]:
                await self.disconnect(principal)

    async def _topics(self, principals: Collection[str]) -> dict[str, OfTokens]:
        now_ns = self._clock.now_ns()
        return {one: await self._of_tokens(one, now_ns) for one in principals}

    async def _of_tokens(self, principal: str, now_ns: int) -> OfTokens:
        rights = await self._registry.rights_of(principal, now_ns)
        several = {one.roles for one in await self._registry.tokens(principal, now_ns)}
        return {
            roles: policy.topics(rights.with_roles(principal, roles), principal, now_ns)
            for roles in several | {None}
        }
