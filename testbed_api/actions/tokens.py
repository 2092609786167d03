"""Acts on tokens: people issue, list and revoke their own."""

from collections.abc import Collection
from dataclasses import dataclass

from broker.clock import NS_PER_S, Clock
from broker.credential import Credential
from broker.rights import Action, Principal, Role, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.tokens import Token
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """Label, duration and roles that a caller asks for in a new token.

    lasting_s: None for no end.  roles: None for all that the principal has.
    """

    label: str = ""
    lasting_s: float | None = None
    roles: Collection[Role] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChanges:
    """Adds and revokes tokens of any principal, with the audit entry, and tells the broker of it.

    Whether the caller may do this for the principal is decided by the action that calls it.
    """

    registry: Registry
    connections: BrokerConnections
    clock: Clock

    async def issue(
        self, context: AuditContext, principal: Principal, request: TokenRequest, *, by: str
    ) -> tuple[Credential, Token]:
        """Make one more token of a principal.

        Raises Invalid for roles in a machine's token, Forbidden for roles that a person lacks.
        """
        now_ns = self.clock.now_ns()
        span = Span(now_ns, end(request.lasting_s, now_ns))
        credential, token = tokens.issued(principal.id, span, label=request.label, by=by)
        if request.roles is not None:
            token = token.narrowed(request.roles, principal)
        async with self.registry.change(context, self.clock) as change:
            stored = await change.tokens.add(token)
        await self.connections.announce(principal.id)
        return credential, stored

    async def revoke(self, context: AuditContext, principal: str, number: int, *, by: str) -> None:
        """End one token of a principal at once; raises Unknown if there is none.

        All connections of the principal end: the broker does not know which token each showed.
        """
        try:
            async with self.registry.change(context, self.clock) as change:
                now_ns = self.clock.now_ns()
                await change.tokens.revoke(principal, number, by=by, now_ns=now_ns)
        finally:
            await self.connections.disconnect(principal)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenActions:
    """Issues, lists and revokes the tokens of the caller, with the audit entry of each change.

    Raises Forbidden for changes by a machine, or with a token of only some of the caller's roles.
    """

    registry: Registry
    changes: TokenChanges

    async def issue(
        self, context: AuditContext, caller: Caller, request: TokenRequest
    ) -> tuple[Credential, Token]:
        """Make a personal token; raises Forbidden for a role that the caller does not have."""
        caller.must_hold_all_roles()
        return await self.changes.issue(context, caller.principal, request, by=caller.id)

    async def valid(self, caller: Caller) -> list[Token]:
        """The tokens of the caller that count now, in the order of their making."""
        caller.must(Action.ENTER)
        return await self.registry.tokens.valid(caller.id, caller.at_ns)

    async def revoke(self, context: AuditContext, caller: Caller, number: int) -> None:
        """End one token of the caller at once; raises Unknown if there is none."""
        caller.must_hold_all_roles()
        await self.changes.revoke(context, caller.id, number, by=caller.id)


def end(lasting_s: float | None, now_ns: int) -> int | None:
    """The end of a span of `lasting_s` seconds from now; None for no end."""
    return None if lasting_s is None else now_ns + round(lasting_s * NS_PER_S)
