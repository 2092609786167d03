"""The rights of principals in memory, never older than the question.

Each lookup first reads the version of the rights in the registry, one statement for all that ask
at that moment, and drops what was loaded under another one.  A change that was committed before the
question is therefore seen, whichever process made it, without a notice that could be missed.
"""

from collections.abc import Collection, Mapping, Sequence

from broker.clock import Clock
from testbed_api.registry.coalescing import Coalescer
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights import PrincipalRights

MOST_KEPT = 20_000
"""Principals whose rights are kept; beyond them all are dropped and loaded again as they ask."""
LOADED_AT_ONCE = 200


class RightsCache:
    """Rights of those who have asked lately, for whoever asks for many of them again and again."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._version: int | None = None
        self._rights: dict[str, PrincipalRights] = {}
        self._publishers: set[str] = set()
        self._coalescer: Coalescer[Collection[str], Mapping[str, PrincipalRights]] = Coalescer(
            self._look_up
        )

    async def load_publishers(self) -> None:
        """Learn which machines publish, before any of them has asked; raises Unavailable."""
        self._publishers |= await self._registry.principals.publishers(self._clock.now_ns())

    def is_publisher(self, principal: str) -> bool:
        """Whether a name was one of a machine that publishes, as far as is known: no right."""
        return principal in self._publishers

    async def current(self, principals: Collection[str]) -> Mapping[str, PrincipalRights]:
        """The rights of several principals as they are now; names that nobody has are left out.

        Raises Unavailable while the registry is away.
        """
        return await self._coalescer.submit(principals) or {}

    async def _look_up(self, questions: Sequence[Collection[str]]) -> Mapping[str, PrincipalRights]:
        version = await self._registry.rights_snapshot.version()
        if version != self._version or len(self._rights) > MOST_KEPT:
            self._rights = {}
            self._version = version
        names = {name for question in questions for name in question}
        missing = sorted(names - self._rights.keys())
        for at in range(0, len(missing), LOADED_AT_ONCE):
            await self._load(missing[at : at + LOADED_AT_ONCE])
        return self._rights

    async def _load(self, names: Sequence[str]) -> None:
        loaded = await self._registry.rights.of_each(names, self._clock.now_ns())
        self._rights |= loaded
        self._publishers |= {
            name
            for name, each in loaded.items()
            if any(its.scope.writes or its.scope.equipment for its in each.rights.principals)
        }
