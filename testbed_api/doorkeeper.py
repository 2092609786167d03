"""Who may come onto the bus: the registry's principals, and the testbed's own parts."""

from collections.abc import Mapping

import structlog

from broker.backends.callout import Entry, Knock
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unavailable
from testbed_api.domain import access
from testbed_api.domain import holding as policy
from testbed_api.domain.holding import Holding, Rights, Role
from testbed_api.registry.sql import Registry

log = structlog.get_logger()


class Doorkeeper:
    """Answers the broker's auth callout."""

    def __init__(self, registry: Registry, clock: Clock, system: Mapping[str, Credential]) -> None:
        """system: the parts' own credentials by principal, made anew at each start and never
        stored.
        """
        self._registry = registry
        self._clock = clock
        self._system = {name: access.hashed(one.secret) for name, one in system.items()}

    async def answer(self, knock: Knock) -> Entry | None:
        """What may whoever knocks do; None lets nobody in, also while the registry is away."""
        if knock.principal in self._system:
            if self._system[knock.principal] != access.hashed(knock.secret):
                return None
            return self._entry(knock.principal, Holding(Role.SYSTEM))
        try:
            found = await self._registry.principal(knock.principal)
        except Unavailable as exc:
            log.exception(
                "connection could not be judged", principal=knock.principal[:60], reason=str(exc)
            )
            return None
        if found is None or not found.proves(knock.secret):
            return None
        return self._entry(found.id, found.holding)

    def _entry(self, principal: str, holding: Holding) -> Entry | None:
        now_ns = self._clock.now_ns()
        if holding.expires_ns is not None and holding.expires_ns <= now_ns:
            return None
        topics = policy.topics(Rights({principal: holding}), principal, now_ns)
        return Entry(topics.publish, topics.subscribe, holding.expires_ns)
