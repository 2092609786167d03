"""Routes: organisations and their members."""

from collections.abc import Collection

from fastapi import APIRouter, Response

from broker.clock import Clock, text_of
from broker.errors import Unknown
from broker.responses.organisations import (
    MemberResponse,
    MembersResponse,
    NewMemberResponse,
    NewOrganisationResponse,
    OrganisationResponse,
    OrganisationsResponse,
)
from broker.rights import Action, Principal, PrincipalKind, Role, Span
from testbed_api.actions.caller import Caller
from testbed_api.domain import organisations as domain_organisations
from testbed_api.domain import tokens
from testbed_api.domain.organisations import Organisation
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, ConnectionsDep, RegistryDep, RightsChangesDep
from testbed_api.http.schemas import EmailForm, Id, MemberForm, OrganisationForm, RolesForm
from testbed_api.registry.registry import Registry

router = APIRouter(tags=["organisations"])

_MEMBERS = "/organisations/{organisation}/members"
FIRST = "first token"


@router.post(
    "/organisations",
    openapi_extra=asks(Action.FOUND),
    status_code=201,
    summary="Make an organisation with its first owner, whose token is shown this once",
    responses=openapi_examples.answer(NewOrganisationResponse, status=201)
    | openapi_examples.problems(409),
)
async def add_organisation(
    form: OrganisationForm,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewOrganisationResponse:
    """For owners of an intermediary. What the organisation has is its owner's to decide."""
    caller.must(Action.FOUND)
    organisation = Organisation(form.id, form.name, form.kind)
    async with registry.change(context, clock) as change:
        await change.organisations.add(organisation)
        member = await _add_person(change, clock, caller, form.owner, form.id, {Role.OWNER})
    await connections.announce(form.owner)
    return NewOrganisationResponse.extending(_organisation(organisation), **dict(member))


@router.get(
    "/organisations",
    openapi_extra=asks(Action.ENTER),
    summary="The organisations you can see",
    responses=openapi_examples.answer(OrganisationsResponse),
)
async def organisations(registry: RegistryDep, caller: CallerDep) -> OrganisationsResponse:
    """Your own and those whose equipment you see; all of them for who makes them."""
    caller.must(Action.ENTER)
    every = await registry.organisations.all()
    visible = [each for each in every if caller.sees_organisation(each.id)]
    return OrganisationsResponse(items=list(map(_organisation, visible)))


@router.get(
    _MEMBERS,
    openapi_extra=asks(Action.WATCH),
    summary="Who belongs to your organisation",
    responses=openapi_examples.answer(MembersResponse),
)
async def members(organisation: Id, registry: RegistryDep, caller: CallerDep) -> MembersResponse:
    """For its members."""
    caller.must(Action.WATCH, organisation)
    principals = await registry.principals.in_organisation(organisation, caller.at_ns)
    people = [each for each in principals if each.kind is PrincipalKind.PERSON]
    emails = await registry.emails.of_people([each.id for each in people])
    return MembersResponse(items=[_member(each, emails.get(each.id)) for each in people])


@router.post(
    _MEMBERS,
    openapi_extra=asks(Action.MANAGE),
    status_code=201,
    summary="Make somebody a member: the first token is shown this once",
    responses=openapi_examples.answer(NewMemberResponse, status=201)
    | openapi_examples.problems(409),
)
async def add_member(
    organisation: Id,
    form: MemberForm,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewMemberResponse:
    """For owners. A person is a member of one organisation."""
    caller.must(Action.MANAGE, organisation)
    async with registry.change(context, clock) as change:
        member = await _add_person(change, clock, caller, form.person, organisation, form.roles)
        if form.email is not None:
            await change.emails.set(form.person, form.email)
    await connections.announce(form.person)
    return NewMemberResponse(**dict(member) | {"email": form.email})


@router.put(
    _MEMBERS + "/{person}",
    openapi_extra=asks(Action.MANAGE),
    summary="Change a member's roles",
    responses=openapi_examples.answer(MemberResponse) | openapi_examples.problems(409),
)
async def put_member(
    organisation: Id,
    person: Id,
    form: RolesForm,
    rights_changes: RightsChangesDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> MemberResponse:
    """For owners. What the new roles do not allow ends at once; one owner stays."""
    caller.must(Action.MANAGE, organisation)
    async with rights_changes.of_principal(context, person) as change:
        before = await _found(change, clock, organisation, person)
        now_ns = clock.now_ns()
        after = await change.principals.change_roles(
            before, form.roles, by=caller.id, now_ns=now_ns
        )
        email = await change.emails.find(person)
    return _member(after, email)


@router.put(
    _MEMBERS + "/{person}/email",
    openapi_extra=asks(Action.MANAGE),
    summary="Set where notices to a member go",
    responses=openapi_examples.answer(MemberResponse),
)
async def put_email(
    organisation: Id,
    person: Id,
    form: EmailForm,
    registry: RegistryDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> MemberResponse:
    """For owners. Only the organisation's own people see it; null ends the mails."""
    caller.must(Action.MANAGE, organisation)
    async with registry.change(context, clock) as change:
        member = await _found(change, clock, organisation, person)
        await change.emails.set(person, form.email)
    return _member(member, form.email)


@router.delete(
    _MEMBERS + "/{person}",
    openapi_extra=asks(Action.MANAGE),
    status_code=204,
    summary="Remove a member: all of theirs ends at once",
    responses=openapi_examples.problems(409),
)
async def remove_member(
    organisation: Id,
    person: Id,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """For owners. Tokens, password and connections end; one owner stays."""
    caller.must(Action.MANAGE, organisation)
    async with registry.change(context, clock) as change:
        before = await _found(change, clock, organisation, person)
        await change.principals.end(before, by=caller.id, now_ns=clock.now_ns())
    await connections.disconnect(person)
    return Response(status_code=204)


async def _add_person(
    registry: Registry,
    clock: Clock,
    caller: Caller,
    person: str,
    organisation: str,
    roles: Collection[Role],
) -> NewMemberResponse:
    """A new member with a first token."""
    now_ns = clock.now_ns()
    principal = domain_organisations.person(person, organisation, roles, now_ns)
    credential, token = tokens.issued(principal.id, Span(now_ns), label=FIRST, by=caller.id)
    await registry.principals.add(principal, caller.id)
    await registry.tokens.add(token)
    return NewMemberResponse.extending(_member(principal), credential=credential.text)


async def _found(registry: Registry, clock: Clock, organisation: str, person: str) -> Principal:
    member = await registry.principals.find(person, clock.now_ns())
    expected = (organisation, PrincipalKind.PERSON)
    if member is None or (member.organisation, member.kind) != expected:
        raise Unknown(f"there is no member {person!r} of {organisation}")
    return member


def _organisation(organisation: Organisation) -> OrganisationResponse:
    return OrganisationResponse(id=organisation.id, name=organisation.name, kind=organisation.kind)


def _member(principal: Principal, email: str | None = None) -> MemberResponse:
    return MemberResponse(
        person=principal.id,
        roles=sorted(principal.roles),
        since=text_of(principal.span.from_ns),
        email=email,
    )
