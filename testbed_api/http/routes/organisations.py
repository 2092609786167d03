"""Routes: organisations and their members."""

from fastapi import APIRouter, Response

from broker.clock import text_of
from broker.credential import Credential
from broker.responses.organisations import (
    MemberResponse,
    MembersResponse,
    NewMemberResponse,
    NewOrganisationResponse,
    OrganisationResponse,
    OrganisationsResponse,
)
from broker.rights import Action
from testbed_api.domain.organisations import Member, NewMember, Organisation
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import OrganisationActionsDep
from testbed_api.http.schemas import EmailForm, Id, MemberForm, OrganisationForm, RolesForm

router = APIRouter(tags=["organisations"])

_MEMBERS = "/organisations/{organisation}/members"


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
    organisations: OrganisationActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewOrganisationResponse:
    """Allowed to owners of an intermediary. What the organisation has is its owner's to decide."""
    organisation = Organisation(form.id, form.name, form.kind)
    owner, credential = await organisations.add(context, caller, organisation, form.owner)
    member = _new_member(owner, credential)
    return NewOrganisationResponse.extending(_organisation(organisation), **dict(member))


@router.get(
    "/organisations",
    openapi_extra=asks(Action.ENTER),
    summary="The organisations you can see",
    responses=openapi_examples.answer(OrganisationsResponse),
)
async def organisations(
    organisations: OrganisationActionsDep, caller: CallerDep
) -> OrganisationsResponse:
    """Your organisation and those whose equipment you see; all of them for an intermediary."""
    visible = await organisations.visible(caller)
    return OrganisationsResponse(items=list(map(_organisation, visible)))


@router.get(
    _MEMBERS,
    openapi_extra=asks(Action.WATCH),
    summary="Who belongs to your organisation",
    responses=openapi_examples.answer(MembersResponse),
)
async def members(
    organisation: Id, organisations: OrganisationActionsDep, caller: CallerDep
) -> MembersResponse:
    """Allowed to its members."""
    people = await organisations.members(caller, organisation)
    return MembersResponse(items=list(map(_member, people)))


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
    organisations: OrganisationActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewMemberResponse:
    """Allowed to owners. A person is a member of one organisation."""
    wanted = NewMember(person=form.person, roles=form.roles, email=form.email)
    member, credential = await organisations.add_member(context, caller, organisation, wanted)
    return _new_member(member, credential)


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
    organisations: OrganisationActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> MemberResponse:
    """Allowed to owners. What the new roles do not allow ends at once; one owner stays."""
    return _member(
        await organisations.change_roles(context, caller, organisation, person, form.roles)
    )


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
    organisations: OrganisationActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> MemberResponse:
    """Allowed to owners. Only the organisation's own people see it; null ends the mails."""
    return _member(
        await organisations.change_email(context, caller, organisation, person, form.email)
    )


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
    organisations: OrganisationActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """Allowed to owners. Tokens, password and connections end; one owner stays."""
    await organisations.remove_member(context, caller, organisation, person)
    return Response(status_code=204)


def _organisation(organisation: Organisation) -> OrganisationResponse:
    return OrganisationResponse(id=organisation.id, name=organisation.name, kind=organisation.kind)


def _member(member: Member) -> MemberResponse:
    principal = member.principal
    return MemberResponse(
        person=principal.id,
        roles=sorted(principal.roles),
        since=text_of(principal.span.from_ns),
        email=member.email,
    )


def _new_member(member: Member, credential: Credential) -> NewMemberResponse:
    return NewMemberResponse.extending(_member(member), credential=credential.text)
