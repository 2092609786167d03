"""Acts on tokens: issue one more for a principal, and revoke one."""

from collections.abc import Collection
from dataclasses import dataclass

from broker.clock import NS_PER_S, Clock
from broker.credential import Credential
from broker.rights import Principal, Role, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.tokens import Token
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenActions:
    """Makes and revokes tokens, and writes the audit entry of each act.

    Whether the caller may act for the principal is the route's to ask.
    """

    registry: Registry
    connections: BrokerConnections
    clock: Clock

    async def issue(
        self,
        context: AuditContext,
        caller: Caller,
        principal: Principal,
        *,
        label: str,
        lasting_s: float | None,
        roles: Collection[Role] | None,
    ) -> tuple[Credential, Token]:
        """Make one more token of a principal.  roles: None for all that the principal holds."""
        now_ns = self.clock.now_ns()
        span = Span(now_ns, end(lasting_s, now_ns))
        credential, token = tokens.issued(principal.id, span, label=label, by=caller.id)
        if roles is not None:
            token = token.narrowed(roles, principal)
        async with self.registry.change(context, self.clock) as change:
            stored = await change.tokens.add(token)
        await self.connections.announce(principal.id)
        return credential, stored

    async def revoke(
        self, context: AuditContext, caller: Caller, principal: str, number: int
    ) -> None:
        """End one token of a principal at once; raises Unknown if there is none.

        All connections of the principal end: the broker does not know which token each showed.
        """
        try:
            async with self.registry.change(context, self.clock) as change:
                now_ns = self.clock.now_ns()
                await change.tokens.revoke(principal, number, by=caller.id, now_ns=now_ns)
        finally:
            await self.connections.disconnect(principal)


def end(lasting_s: float | None, now_ns: int) -> int | None:
    """The end of a span of `lasting_s` seconds from now; None for no end."""
    return None if lasting_s is None else now_ns + round(lasting_s * NS_PER_S)
