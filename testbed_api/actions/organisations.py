"""Acts on organisations and their members: found, add, change, and remove."""

from collections.abc import Collection
from dataclasses import dataclass

from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Unknown
from broker.rights import Action, Principal, PrincipalKind, Role, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain import organisations, tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.organisations import Member, NewMember, Organisation
from testbed_api.registry.registry import Registry

FIRST_TOKEN = "first token"  # noqa: S105 - a label


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganisationActions:
    """Changes organisations and members, writes the audit entry of each act, and ends connections
    that lost rights.
    """

    registry: Registry
    rights_changes: RightsChanges
    connections: BrokerConnections
    clock: Clock

    async def add(
        self, context: AuditContext, caller: Caller, organisation: Organisation, owner: str
    ) -> tuple[Member, Credential]:
        """Found an organisation with its first owner; raises Taken if one of the names is in use.

        Returns the owner and its first credential.
        """
        caller.must(Action.FOUND)
        async with self.registry.change(context, self.clock) as change:
            await change.organisations.add(organisation)
            wanted = NewMember(person=owner, roles={Role.OWNER})
            added = await self._add_person(change, caller, organisation.id, wanted)
        await self.connections.announce(owner)
        return added

    async def visible(self, caller: Caller) -> list[Organisation]:
        """The organisations that exist for the caller, by id."""
        caller.must(Action.ENTER)
        listed = await self.registry.organisations.all()
        return [each for each in listed if caller.sees_organisation(each.id)]

    async def members(self, caller: Caller, organisation: str) -> list[Member]:
        """The people of an organisation, by name."""
        caller.must(Action.WATCH, organisation)
        listed = await self.registry.principals.in_organisation(organisation, caller.at_ns)
        people = [each for each in listed if each.kind is PrincipalKind.PERSON]
        emails = await self.registry.emails.of_people([each.id for each in people])
        return [Member(each, emails.get(each.id)) for each in people]

    async def add_member(
        self, context: AuditContext, caller: Caller, organisation: str, wanted: NewMember
    ) -> tuple[Member, Credential]:
        """Make a person a member of an organisation; raises Taken if the name is in use.

        Returns the member and its first credential.
        """
        caller.must(Action.MANAGE, organisation)
        async with self.registry.change(context, self.clock) as change:
            added = await self._add_person(change, caller, organisation, wanted)
        await self.connections.announce(wanted.person)
        return added

    async def change_roles(
        self,
        context: AuditContext,
        caller: Caller,
        organisation: str,
        person: str,
        roles: Collection[Role],
    ) -> Member:
        """Give a member these roles instead of its former ones; raises Refused without an owner."""
        caller.must(Action.MANAGE, organisation)
        async with self.rights_changes.of_principal(context, person) as change:
            member = await self._member(change, organisation, person)
            now_ns = self.clock.now_ns()
            changed = await change.principals.change_roles(
                member, roles, by=caller.id, now_ns=now_ns
            )
            return Member(changed, await change.emails.find(person))

    async def change_email(
        self,
        context: AuditContext,
        caller: Caller,
        organisation: str,
        person: str,
        email: str | None,
    ) -> Member:
        """Send notices to a member to this address from now on; None for no mails."""
        caller.must(Action.MANAGE, organisation)
        async with self.registry.change(context, self.clock) as change:
            member = await self._member(change, organisation, person)
            await change.emails.set(person, email)
        return Member(member, email)

    async def remove_member(
        self, context: AuditContext, caller: Caller, organisation: str, person: str
    ) -> None:
        """End a member, its tokens, password and connections; raises Refused without an owner."""
        caller.must(Action.MANAGE, organisation)
        async with self.registry.change(context, self.clock) as change:
            member = await self._member(change, organisation, person)
            await change.principals.end(member, by=caller.id, now_ns=self.clock.now_ns())
        await self.connections.disconnect(person)

    async def _add_person(
        self,
        change: Registry,
        caller: Caller,
        organisation: str,
        wanted: NewMember,
    ) -> tuple[Member, Credential]:
        name, now_ns = wanted.person, self.clock.now_ns()
        person = organisations.person(name, organisation, wanted.roles, now_ns)
        credential, token = tokens.issued(name, Span(now_ns), label=FIRST_TOKEN, by=caller.id)
        await change.principals.add(person, caller.id)
        await change.tokens.add(token)
        if wanted.email is not None:
            await change.emails.set(name, wanted.email)
        return Member(person, wanted.email), credential

    async def _member(self, change: Registry, organisation: str, name: str) -> Principal:
        member = await change.principals.find(name, self.clock.now_ns())
        expected = (organisation, PrincipalKind.PERSON)
        if member is None or (member.organisation, member.kind) != expected:
            raise Unknown(f"there is no member {name!r} of {organisation}")
        return member
