"""Who may come onto the bus: the registry's principals, and the testbed's own parts."""

from collections.abc import Callable, Mapping

import structlog

from broker import policy
from broker.backends.callout import Entry, Knock
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.rights import Kind, Principal, Rights
from testbed_api import last_use
from testbed_api.domain import tokens
from testbed_api.errors import TooMany
from testbed_api.limits import Limits
from testbed_api.registry.sql import Registry

log = structlog.get_logger()


def _unnoted(_knock: Knock, _entry: Entry) -> None:
    """Nobody keeps a book."""


class Doorkeeper:
    """Answers the broker's auth callout."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        system: Mapping[str, Credential],
        limits: Limits,
        admitted: Callable[[Knock, Entry], None] = _unnoted,
    ) -> None:
        """system: the parts' own credentials by principal, made anew at each start and never
        stored.  limits: how many connections an organisation may have.  admitted: is told of
        everybody else who is let in; must not block.
        """
        self._limits = limits
        self._admitted = admitted
        self._registry = registry
        self._clock = clock
        self._system = {name: tokens.hashed(one.secret) for name, one in system.items()}

    async def answer(self, knock: Knock) -> Entry | None:
        """What may whoever knocks do; None lets nobody in, also while the registry is away."""
        shown = tokens.hashed(knock.secret)
        if knock.principal in self._system:
            part = Principal(knock.principal, "", Kind.SYSTEM)
            right = self._system[knock.principal] == shown
            return self._entry(Rights(principals=(part,)), part.id, None) if right else None
        try:
            entry = await self._known(knock.principal, shown)
        except Unavailable as exc:
            log.exception(
                "connection could not be judged", principal=knock.principal[:60], reason=str(exc)
            )
            return None
        if entry is not None:
            self._admitted(knock, entry)
        return entry

    async def _known(self, principal: str, shown: str) -> Entry | None:
        now_ns = self._clock.now_ns()
        token = await self._registry.token(principal, shown)
        if token is None or not token.span.covers(now_ns):
            return None
        rights = await self._registry.rights_of(principal, now_ns)
        entry = self._entry(rights, principal, token.span.until_ns)
        known = rights.principal(principal, now_ns)
        if entry is None or known is None or not await self._is_room(known.organisation, now_ns):
            return None
        await last_use.note(self._registry, token, now_ns)
        self._limits.entered(known.organisation)
        return entry

    async def _is_room(self, organisation: str, now_ns: int) -> bool:
        async def principals() -> list[str]:
            return [one.id for one in await self._registry.principals(organisation, now_ns)]

        try:
            await self._limits.make_room(organisation, principals, now_ns)
        except TooMany:  # said and counted once there
            return False
        return True

    def _entry(self, rights: Rights, principal: str, expires_ns: int | None) -> Entry | None:
        """Its topics, until the first of its rights ends or its token does."""
        now_ns = self._clock.now_ns()
        if rights.principal(principal, now_ns) is None:
            return None
        ends = (expires_ns, policy.until_ns(rights, principal, now_ns))
        until_ns = min((one for one in ends if one is not None), default=None)
        topics = policy.topics(rights, principal, now_ns)
        return Entry(topics.publish, topics.subscribe, until_ns)
