"""Who may come onto the bus: the registry's principals, and the testbed's own parts."""

from collections.abc import Callable, Mapping

import structlog

from broker import policy
from broker.backends.nats import auth_callout
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.rights import Principal, PrincipalKind, Rights
from testbed_api.audit.journal import Journal
from testbed_api.domain import tokens
from testbed_api.domain.audit import Act, Outcome
from testbed_api.http.problems import TooMany
from testbed_api.limits.quotas import Limits
from testbed_api.registry import token_use
from testbed_api.registry.registry import Registry

log = structlog.get_logger()


def _unnoted(_request: ConnectRequest, _permissions: Permissions) -> None:
    """Nobody keeps a book."""


class Authorizer:
    """Answers the broker's auth callout."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        system: Mapping[str, Credential],
        limits: Limits,
        journal: Journal,
    ) -> None:
        """system: the parts' own credentials by principal, made anew at each start and never
        stored.  limits: how many connections an organisation may have.  journal: told of everybody
        but the system.
        """
        self._limits = limits
        self.admitted: Callable[[ConnectRequest, Permissions], None] = _unnoted
        """Is told of everybody else who is let in; must not block."""
        self._registry = registry
        self._clock = clock
        self._journal = journal
        self._system = {name: tokens.hashed(one.secret) for name, one in system.items()}

    async def answer(self, request: ConnectRequest) -> Permissions | None:
        """What may whoever knocks do; None lets nobody in, also while the registry is away."""
        if not auth_callout.is_bound(request):
            await self._refused(request, "its client id is not its principal's")
            return None
        shown = tokens.hashed(request.secret)
        if request.principal in self._system:
            part = Principal(request.principal, "", PrincipalKind.SYSTEM)
            right = self._system[request.principal] == shown
            if not right:
                await self._refused(request, "not the credential of a part of the testbed")
            return self._permissions(Rights(principals=(part,)), part.id, None) if right else None
        try:
            permissions = await self._known(request, shown)
        except Unavailable as exc:
            log.exception(
                "connection could not be judged", principal=request.principal[:60], reason=str(exc)
            )
            return None
        if permissions is not None:
            self.admitted(request, permissions)
        return permissions

    async def _known(self, request: ConnectRequest, shown: str) -> Permissions | None:
        principal, now_ns = request.principal, self._clock.now_ns()
        token = await self._registry.token(principal, shown)
        if token is None or not token.span.covers(now_ns):
            await self._refused(request, "the credential is not right")
            return None
        rights = await self._registry.rights_of(principal, now_ns)
        rights = rights.with_roles(principal, token.roles)
        permissions = self._permissions(rights, principal, token.span.until_ns)
        known = rights.principal(principal, now_ns)
        if permissions is None or known is None:
            await self._refused(request, "nobody of that name, or none with a role of this token")
            return None
        if not await self._is_room(known.organisation, now_ns):
            await self._refused(request, "its organisation has too many connections")
            return None
        await token_use.note(self._registry, token, now_ns)
        act = _act(request)
        act.by(known.id, known.organisation)
        await self._journal.tell(act.event(now_ns))
        self._limits.entered(known.organisation)
        return permissions

    async def _is_room(self, organisation: str, now_ns: int) -> bool:
        async def principals() -> list[str]:
            return [one.id for one in await self._registry.principals(organisation, now_ns)]

        try:
            await self._limits.make_room(organisation, principals, now_ns)
        except TooMany:  # said and counted once there
            return False
        return True

    async def _refused(self, request: ConnectRequest, why: str) -> None:
        now_ns = self._clock.now_ns()
        await self._journal.tell(_act(request).event(now_ns, Outcome.REFUSED, why))

    def _permissions(
        self, rights: Rights, principal: str, expires_ns: int | None
    ) -> Permissions | None:
        """Its topics, until the first of its rights ends or its token does."""
        now_ns = self._clock.now_ns()
        who = rights.principal(principal, now_ns)
        if who is None:
            return None
        ends = (expires_ns, policy.until_ns(rights, principal, now_ns))
        until_ns = min((one for one in ends if one is not None), default=None)
        topics = policy.topics(rights, principal, now_ns)
        durable = who.kind is PrincipalKind.SYSTEM
        return Permissions(topics.publish, topics.subscribe, until_ns, durable)


def _act(request: ConnectRequest) -> Act:
    """Connecting, by whoever it says it is."""
    facts = {"client_id": request.client_id, "connection": request.connection}
    return Act("", request.host, request.principal, None, "connect", "the broker", facts=facts)
