"""Acts on grants: give, request, approve, refuse, withdraw and revoke."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from broker import policy
from broker.clock import NS_PER_S, Clock, text_of
from broker.errors import Forbidden, Invalid, Unknown
from broker.rights import Action, Entry, GrantState, Pause, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.grants import GrantRequest
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanProposal:
    """The span that a caller asks for, or grants: from when, and until when or for how long."""

    from_ns: int | None = None
    until_ns: int | None = None
    lasting_s: float | None = None

    def within(self, wanted: Span, now_ns: int) -> Span:
        """The span, with the ends of `wanted` where nothing is proposed; raises Invalid.

        An end that is counted from now is rounded up to a whole second: connections end at those.
        """
        if self.until_ns is not None and self.lasting_s is not None:
            raise Invalid("until and expires_in_s are both given", hint="give one of them")
        from_ns = wanted.from_ns if self.from_ns is None else self.from_ns
        until_ns = whole_end(self.lasting_s, now_ns) or wanted.until_ns
        if self.until_ns is not None:
            until_ns = self.until_ns
        if from_ns > now_ns:
            from_ns = whole(from_ns)
        if until_ns is not None and until_ns <= max(from_ns, now_ns):
            raise Invalid(
                f"until {text_of(until_ns)} is over before it begins", hint="choose a later instant"
            )
        return Span(max(from_ns, 0), until_ns)


def whole(ns: int) -> int:
    """An instant, rounded up to a whole second."""
    return -(-ns // NS_PER_S) * NS_PER_S


def whole_end(lasting_s: float | None, now_ns: int) -> int | None:
    """The end of a span of `lasting_s` seconds from now, at a whole second; None for no end."""
    return None if lasting_s is None else whole(now_ns + round(lasting_s * NS_PER_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantActions:
    """Changes grants, writes the audit entry of each act, and ends connections that lost rights.

    Raises Unknown for a grant that the caller's organisation has no part in, Forbidden for an act
    that is the other side's or not allowed to the caller's roles.
    """

    registry: Registry
    rights_changes: RightsChanges
    clock: Clock

    async def give(
        self,
        context: AuditContext,
        caller: Caller,
        company: str,
        entries: Collection[Entry],
        *,
        purpose: str,
        lasting_s: float | None,
    ) -> list[GrantRequest]:
        """Grant streams to a company that did not ask for them, one grant a stream."""
        for entry in entries:
            caller.must(Action.SHARE, entry)
        if company not in {each.id for each in await self.registry.organisations.all()}:
            raise Unknown(f"there is no organisation {company!r}")
        now_ns = self.clock.now_ns()
        span = Span(now_ns, whole_end(lasting_s, now_ns))
        granted = [
            GrantRequest(company, entry, purpose, now_ns).granted(span, caller.id, now_ns)
            for entry in entries
        ]
        async with self.rights_changes.of_company(context, company) as change:
            return [await change.grants.add(each) for each in granted]

    async def request(
        self,
        context: AuditContext,
        caller: Caller,
        entries: Collection[Entry],
        *,
        purpose: str,
        proposal: SpanProposal,
    ) -> list[GrantRequest]:
        """Ask the owners of streams for grants, one request a stream."""
        now_ns = self.clock.now_ns()
        wanted = proposal.within(Span(), now_ns)
        requests = []
        for entry in dict.fromkeys(entries):
            caller.must(Action.ASK, entry.address.owner)
            await self.registry.streams.get(entry.address)
            requests.append(
                GrantRequest(caller.organisation, entry, purpose, now_ns, caller.id, wanted=wanted)
            )
        async with self.registry.change(context, self.clock) as change:
            return [await change.grants.add(each) for each in requests]

    async def find(self, caller: Caller, number: int) -> GrantRequest:
        """The grant with this number, if the caller's organisation owns or has it."""
        missing = Unknown(f"there is no grant {number}")
        try:
            grant = await self.registry.grants.get(number)
        except Unknown as exc:
            raise missing from exc
        if caller.organisation not in {grant.company, grant.entry.address.organisation}:
            raise missing
        return grant

    async def approve(
        self, context: AuditContext, caller: Caller, number: int, proposal: SpanProposal
    ) -> GrantRequest:
        """Grant the span that was asked for, or a shorter one."""
        request = await self._as_owner(caller, number)
        now_ns = self.clock.now_ns()
        span = proposal.within(request.wanted, now_ns)
        span = Span(max(span.from_ns, now_ns), span.until_ns)
        return await self._update(context, request, request.granted(span, caller.id, now_ns))

    async def refuse(
        self, context: AuditContext, caller: Caller, number: int, reason: str
    ) -> GrantRequest:
        """Refuse a request, with a reason that the company reads."""
        request = await self._as_owner(caller, number)
        refused = request.refused(caller.id, self.clock.now_ns(), reason)
        return await self._update(context, request, refused)

    async def withdraw(self, context: AuditContext, caller: Caller, number: int) -> GrantRequest:
        """Give a grant of the caller's organisation back, or take its request back."""
        grant = await self.find(caller, number)
        _must(caller, Action.WITHDRAW, grant.company)
        return await self._update(context, grant, grant.withdrawn(caller.id, self.clock.now_ns()))

    async def revoke(self, context: AuditContext, caller: Caller, number: int) -> GrantRequest:
        """End a grant that the caller's organisation gave."""
        grant = await self._as_owner(caller, number)
        return await self._update(context, grant, grant.revoked(caller.id, self.clock.now_ns()))

    async def paused(self, grants: Sequence[GrantRequest]) -> frozenset[int]:
        """The numbers of those that a pause of their owner suspends at this moment."""
        now_ns = self.clock.now_ns()
        owners = {each.entry.address.organisation for each in grants}
        pauses = await self.registry.pauses.of_owners(owners, now_ns)
        return frozenset(each.id for each in grants if _is_paused(each, pauses))

    async def _as_owner(self, caller: Caller, number: int) -> GrantRequest:
        """The grant with this number, if the caller may share its stream."""
        grant = await self.find(caller, number)
        _must(caller, Action.SHARE, grant.entry.address.organisation)
        return grant

    async def _update(
        self, context: AuditContext, before: GrantRequest, after: GrantRequest
    ) -> GrantRequest:
        async with self.rights_changes.of_company(context, before.company) as change:
            await change.grants.update(after, before)
        return after


def _must(caller: Caller, action: Action, organisation: str) -> None:
    """Raise Forbidden if only the other organisation of the grant may do this act."""
    if organisation != caller.organisation:
        raise Forbidden(f"{caller.id} may not {action} it: that is for {organisation}")
    caller.must(action, organisation)


def _is_paused(grant: GrantRequest, pauses: Collection[Pause]) -> bool:
    if grant.grant is None or grant.state is not GrantState.GRANTED:
        return False
    return any(policy.stops(pause, grant.grant) for pause in pauses)
