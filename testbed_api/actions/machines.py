"""Acts on machines: add and remove those of an organisation, and change over to other tokens."""

from dataclasses import dataclass

from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unknown
from broker.rights import Action, Principal, PrincipalKind, Scope, Span
from testbed_api.actions.caller import Caller
from testbed_api.actions.tokens import TokenChanges, TokenRequest, end
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import organisations, tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.tokens import Token
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineActions:
    """Changes the machines of the caller's organisation and their tokens, with the audit entries.

    Raises Forbidden for a caller who may not issue credentials, Unknown for a machine that the
    caller's organisation does not have.
    """

    registry: Registry
    connections: BrokerConnections
    tokens: TokenChanges
    clock: Clock

    async def add(
        self,
        context: AuditContext,
        caller: Caller,
        name: str,
        scope: Scope,
        *,
        lasting_s: float | None,
    ) -> tuple[Principal, Credential]:
        """Make a machine with its first token; it may use exactly the streams of its scope.

        lasting_s: how long machine and token last, None for no end.  Raises Invalid for a stream of
        another organisation in `scope.writes`, Taken for a name that is in use.
        """
        _must_issue(caller)
        now_ns = self.clock.now_ns()
        span = Span(now_ns, end(lasting_s, now_ns))
        machine = organisations.machine(name, caller.organisation, scope, span)
        credential, token = tokens.issued(machine.id, span, by=caller.id)
        async with self.registry.change(context, self.clock) as change:
            await change.principals.add(machine, caller.id)
            await change.tokens.add(token)
        await self.connections.announce(machine.id)
        return machine, credential

    async def all(self, caller: Caller) -> list[Principal]:
        """The machines of the caller's organisation, by name."""
        _must_issue(caller)
        listed = await self.registry.principals.in_organisation(caller.organisation, caller.at_ns)
        return [each for each in listed if each.kind is PrincipalKind.MACHINE]

    async def remove(self, context: AuditContext, caller: Caller, name: str) -> None:
        """End a machine, its tokens and its connections at once."""
        _must_issue(caller)
        organisations.checked_principal(name)
        machine = await self._find(caller, name)
        try:
            if machine is None:
                raise Unknown(f"there is no machine {name!r}")
            async with self.registry.change(context, self.clock) as change:
                now_ns = self.clock.now_ns()
                await change.principals.end(machine, by=caller.id, now_ns=now_ns)
        finally:  # also if it is gone: the broker may have been away when it was removed
            await self.connections.disconnect(name)

    async def issue_token(
        self, context: AuditContext, caller: Caller, name: str, request: TokenRequest
    ) -> tuple[Credential, Token]:
        """Make one more token of a machine; raises Invalid if it is to hold roles."""
        machine = await self._get(caller, name)
        return await self.tokens.issue(context, machine, request, by=caller.id)

    async def valid_tokens(self, caller: Caller, name: str) -> list[Token]:
        """The tokens of a machine that count now, in the order of their making."""
        await self._get(caller, name)
        return await self.registry.tokens.valid(name, caller.at_ns)

    async def revoke_token(
        self, context: AuditContext, caller: Caller, name: str, number: int
    ) -> None:
        """End one token of a machine at once, and all its connections; raises Unknown."""
        await self._get(caller, name)
        await self.tokens.revoke(context, name, number, by=caller.id)

    async def _get(self, caller: Caller, name: str) -> Principal:
        _must_issue(caller)
        machine = await self._find(caller, name)
        if machine is None:
            raise Unknown(f"there is no machine {name!r}")
        return machine

    async def _find(self, caller: Caller, name: str) -> Principal | None:
        """The machine, None if nobody has the name; raises Unknown if somebody else has it."""
        machine = await self.registry.principals.find(name, self.clock.now_ns())
        expected = (caller.organisation, PrincipalKind.MACHINE)
        if machine is not None and (machine.organisation, machine.kind) != expected:
            raise Unknown(f"there is no machine {name!r}")
        return machine


def _must_issue(caller: Caller) -> None:
    caller.must(Action.ISSUE, caller.organisation)
