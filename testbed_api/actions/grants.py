"""Acts on grants: give, request, approve, refuse, withdraw and revoke."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from broker import policy
from broker.clock import Clock
from broker.errors import Forbidden, Invalid, Unknown
from broker.rights import Action, Entry, GrantState, Pause, Span
from testbed_api.actions.caller import Caller
from testbed_api.actions.proposals import RequestOutcome, SpanProposal, WantedStreams, whole_end
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain import grants as domain_grants
from testbed_api.domain import notices as domain_notices
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.grants import MOST_AT_ONCE, GrantRequest, GrantSelection
from testbed_api.notifications.notifier import Notifier
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantActions:
    """Changes grants, writes the audit entry of each act, queues notices to those it concerns, and
    ends connections that lost rights.

    Raises Unknown for a grant that the caller's organisation has no part in, Forbidden for an act
    that is the other side's or not allowed to the caller's roles.
    """

    registry: Registry
    rights_changes: RightsChanges
    clock: Clock
    notifier: Notifier = field(default_factory=Notifier)

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
            added = await change.grants.add_all(granted)
            await self._tell(change, caller, _by_company(added))
        return added

    async def request(
        self,
        context: AuditContext,
        caller: Caller,
        wanted: WantedStreams,
        *,
        purpose: str,
        proposal: SpanProposal,
    ) -> RequestOutcome:
        """Ask the owners of streams for grants, one request a stream.

        A stream for which a request waits, or that is granted for as long, is not asked for again:
        what stands answers for it, as it is.  Raises Unknown for what the caller does not see.
        """
        now_ns = self.clock.now_ns()
        span = proposal.within(Span(), now_ns)
        for owner in wanted.owners:
            caller.must(Action.ASK, owner)
        async with self.registry.change(context, self.clock) as change:
            entries = await _existing(change, wanted)
            standing = {
                each.entry: each
                for each in await change.grants.standing(caller.organisation, wanted.owners)
                if each.answers(span, now_ns)
            }
            new = [
                GrantRequest(caller.organisation, entry, purpose, now_ns, caller.id, wanted=span)
                for entry in entries
                if entry not in standing
            ]
            change.grants.note_standing([standing[each] for each in entries if each in standing])
            added = await change.grants.add_all(new) if new else []
            await self._tell(change, caller, _by_owner(added))
        grants = standing | {each.entry: each for each in added}
        before = [standing[each] for each in entries if each in standing]
        return RequestOutcome(
            grants=[grants[each] for each in entries],
            standing=frozenset(each.id for each in before),
            notes=[domain_grants.standing_note(each, purpose, span) for each in before],
        )

    async def find(self, caller: Caller, number: int) -> GrantRequest:
        """The grant with this number, if the caller's organisation owns or has it."""
        (grant,) = await self._find_all(caller, (number,))
        return grant

    async def approve(
        self,
        context: AuditContext,
        caller: Caller,
        selection: GrantSelection,
        proposal: SpanProposal,
    ) -> list[GrantRequest]:
        """Grant the spans that were asked for, or shorter ones; all of the selection or none."""
        now_ns = self.clock.now_ns()

        def approved(request: GrantRequest) -> GrantRequest:
            span = proposal.within(request.wanted, now_ns)
            return request.granted(
                Span(max(span.from_ns, now_ns), span.until_ns), caller.id, now_ns
            )

        requests = await self._as_owner(caller, selection, GrantState.ASKED)
        if not selection.numbers:
            requests = [each for each in requests if each.answers(each.wanted, now_ns)]
        return await self._change(context, caller, selection, requests, approved)

    async def refuse(
        self, context: AuditContext, caller: Caller, selection: GrantSelection, reason: str
    ) -> list[GrantRequest]:
        """Refuse requests, with a reason that the company reads; all of the selection or none."""
        now_ns = self.clock.now_ns()
        requests = await self._as_owner(caller, selection, GrantState.ASKED)
        return await self._change(
            context,
            caller,
            selection,
            requests,
            lambda each: each.refused(caller.id, now_ns, reason),
        )

    async def withdraw(
        self, context: AuditContext, caller: Caller, selection: GrantSelection
    ) -> list[GrantRequest]:
        """Give grants of the caller's organisation back, or take its requests back."""
        now_ns = self.clock.now_ns()
        if selection.numbers:
            grants = await self._find_all(caller, selection.numbers)
            for grant in grants:
                _must(caller, Action.WITHDRAW, grant.company)
        else:
            caller.must(Action.WITHDRAW, caller.organisation)
            states = {GrantState.ASKED, GrantState.GRANTED}
            grants = await self.registry.grants.selected(
                selection, states, now_ns, company=caller.organisation
            )
        return await self._change(
            context, caller, selection, grants, lambda each: each.withdrawn(caller.id, now_ns)
        )

    async def revoke(
        self, context: AuditContext, caller: Caller, selection: GrantSelection, reason: str = ""
    ) -> list[GrantRequest]:
        """End grants that the caller's organisation gave; all of the selection or none."""
        now_ns = self.clock.now_ns()
        grants = await self._as_owner(caller, selection, GrantState.GRANTED)
        return await self._change(
            context, caller, selection, grants, lambda each: each.revoked(caller.id, now_ns, reason)
        )

    async def paused(self, grants: Sequence[GrantRequest]) -> Mapping[int, Pause]:
        """The pauses of their owners that suspend grants at this moment, by number of the grant."""
        now_ns = self.clock.now_ns()
        owners = {each.entry.address.organisation for each in grants}
        pauses = await self.registry.pauses.of_owners(owners, now_ns)
        suspending = {each.id: _suspending(each, pauses) for each in grants}
        return {number: pause for number, pause in suspending.items() if pause is not None}

    async def _find_all(self, caller: Caller, numbers: Collection[int]) -> list[GrantRequest]:
        """The grants with these numbers, if the caller's organisation owns or has each."""
        grants = {each.id: each for each in await self.registry.grants.numbered(numbers)}
        for number in numbers:
            grant = grants.get(number)
            if grant is None or caller.organisation not in grant.sides:
                raise Unknown(f"there is no grant {number}")
        return list(grants.values())

    async def _as_owner(
        self, caller: Caller, selection: GrantSelection, state: GrantState
    ) -> list[GrantRequest]:
        """The selected grants, if the caller may share their streams.

        state: of those that an equipment or a company selects.
        """
        if selection.numbers:
            grants = await self._find_all(caller, selection.numbers)
            for grant in grants:
                _must(caller, Action.SHARE, grant.entry.address.organisation)
            return grants
        caller.must(Action.SHARE, selection.equipment or caller.organisation)
        return await self.registry.grants.selected(
            selection, {state}, self.clock.now_ns(), owner=caller.organisation
        )

    async def _change(
        self,
        context: AuditContext,
        caller: Caller,
        selection: GrantSelection,
        grants: Sequence[GrantRequest],
        change_of: Callable[[GrantRequest], GrantRequest],
    ) -> list[GrantRequest]:
        """The next states of grants, stored in one change."""
        if not grants:
            raise Unknown(
                f"none of the {selection} is in a state for this",
                hint="`testbed grant list` shows them (GET /grants)",
            )
        if len(grants) > MOST_AT_ONCE:
            raise Invalid(
                f"{selection} are more than {MOST_AT_ONCE}", hint="name one equipment, or numbers"
            )
        owners = sorted({each.entry.address.organisation for each in grants})
        if len(owners) > 1:  # the audit entry of an act is seen by one owner
            raise Invalid(
                f"{selection} are of {' and '.join(owners)}", hint="make one act for each owner"
            )
        changes = [(before, change_of(before)) for before in grants]
        companies = sorted({each.company for each in grants})
        async with self.rights_changes.of_companies(context, companies) as change:
            await change.grants.update_all(changes)
            after = [after for _, after in changes]
            withdrawn = after[0].state is GrantState.WITHDRAWN
            await self._tell(change, caller, _by_owner(after) if withdrawn else _by_company(after))
        return after

    async def _tell(
        self, change: Registry, caller: Caller, concerned: Mapping[str, Sequence[GrantRequest]]
    ) -> None:
        """Queue a notice about grants to each organisation that they concern."""
        now_ns = self.clock.now_ns()
        for organisation, grants in concerned.items():
            notice = domain_notices.of_grants(grants, to=organisation, by=caller.id, now_ns=now_ns)
            await self.notifier.queue(change, notice, now_ns)


def _by_owner(grants: Sequence[GrantRequest]) -> Mapping[str, Sequence[GrantRequest]]:
    return _grouped(grants, lambda each: each.entry.address.organisation)


def _by_company(grants: Sequence[GrantRequest]) -> Mapping[str, Sequence[GrantRequest]]:
    return _grouped(grants, lambda each: each.company)


def _grouped(
    grants: Sequence[GrantRequest], organisation_of: Callable[[GrantRequest], str]
) -> Mapping[str, Sequence[GrantRequest]]:
    groups: dict[str, list[GrantRequest]] = {}
    for grant in grants:
        groups.setdefault(organisation_of(grant), []).append(grant)
    return groups


async def _existing(registry: Registry, wanted: WantedStreams) -> list[Entry]:
    """The streams that are asked for, each once; raises Unknown if one is not registered."""
    registered = dict.fromkeys(await registry.streams.of_equipment(wanted.owners))
    entries = dict.fromkeys(wanted.entries)
    for entry in entries:
        if entry.address not in registered:
            raise Unknown(f"there is no stream {entry.address}")
    for space, equipment in wanted.equipment:
        streams = [each for each in registered if each.owner == equipment]
        if not streams:
            raise Unknown(f"{equipment} has no stream yet", hint="ask again once it has")
        entries |= dict.fromkeys(Entry(space, each) for each in streams)
    if len(entries) > MOST_AT_ONCE:
        raise Invalid(f"more than {MOST_AT_ONCE} streams are asked for", hint="ask in parts")
    return list(entries)


def _must(caller: Caller, action: Action, organisation: str) -> None:
    """Raise Forbidden if only the other organisation of the grant may do this act."""
    if organisation != caller.organisation:
        raise Forbidden(f"{caller.id} may not {action} it: that is for {organisation}")
    caller.must(action, organisation)


def _suspending(grant: GrantRequest, pauses: Collection[Pause]) -> Pause | None:
    """The first of these pauses that suspends a grant."""
    if grant.grant is None or grant.state is not GrantState.GRANTED:
        return None
    return next((each for each in pauses if policy.stops(each, grant.grant)), None)
