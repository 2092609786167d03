"""Routes: organisations and their members."""

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, Response

from broker.clock import Clock, text_of
from broker.errors import Unknown
from broker.rights import Action, Principal, PrincipalKind, Role, Span
from testbed_api.actions.caller import Caller
from testbed_api.domain import organisations as domain_organisations
from testbed_api.domain import tokens
from testbed_api.domain.organisations import Organisation
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, ConnectionsDep, RegistryDep, RightsChangesDep
from testbed_api.http.schemas import Id, MemberForm, OrganisationForm, RolesForm
from testbed_api.registry.registry import Registry

router = APIRouter(tags=["organisations"])

_MEMBERS = "/organisations/{organisation}/members"
FIRST = "first token"


@router.post(
    "/organisations",
    openapi_extra=asks(Action.FOUND),
    status_code=201,
    summary="Make an organisation with its first owner, whose token is shown this once",
    responses=openapi_examples.answer(openapi_examples.FOUNDED, status=201)
    | openapi_examples.problems(409),
)
async def add_organisation(
    form: OrganisationForm,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners of an intermediary. What the organisation has is its owner's to decide."""
    caller.must(Action.FOUND)
    made = Organisation(form.id, form.name, form.kind)
    async with registry.change(context, clock) as change:
        await change.organisations.add(made)
        told = await _joined(change, clock, caller, form.owner, form.id, {Role.OWNER})
    await connections.announce(form.owner)
    return _organisation(made) | told


@router.get(
    "/organisations",
    openapi_extra=asks(Action.ENTER),
    summary="The organisations you can see",
    responses=openapi_examples.answer({"items": [openapi_examples.ORGANISATION]}),
)
async def organisations(registry: RegistryDep, caller: CallerDep) -> dict[str, Any]:
    """Your own and those whose equipment you see; all of them for who makes them."""
    caller.must(Action.ENTER)
    found = await registry.organisations.all()
    return {"items": [_organisation(one) for one in found if caller.sees_organisation(one.id)]}


@router.get(
    _MEMBERS,
    openapi_extra=asks(Action.WATCH),
    summary="Who belongs to your organisation",
    responses=openapi_examples.answer({"items": [openapi_examples.MEMBER]}),
)
async def members(organisation: Id, registry: RegistryDep, caller: CallerDep) -> dict[str, Any]:
    """For its members."""
    caller.must(Action.WATCH, organisation)
    found = await registry.principals.in_organisation(organisation, caller.at_ns)
    return {"items": [_member(one) for one in found if one.kind is PrincipalKind.PERSON]}


@router.post(
    _MEMBERS,
    openapi_extra=asks(Action.MANAGE),
    status_code=201,
    summary="Make somebody a member: the first token is shown this once",
    responses=openapi_examples.answer(openapi_examples.JOINED, status=201)
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
) -> dict[str, Any]:
    """For owners. A person is a member of one organisation."""
    caller.must(Action.MANAGE, organisation)
    async with registry.change(context, clock) as change:
        told = await _joined(change, clock, caller, form.person, organisation, form.roles)
    await connections.announce(form.person)
    return told


@router.put(
    _MEMBERS + "/{person}",
    openapi_extra=asks(Action.MANAGE),
    summary="Change a member's roles",
    responses=openapi_examples.answer(openapi_examples.MEMBER) | openapi_examples.problems(409),
)
async def put_member(
    organisation: Id,
    person: Id,
    form: RolesForm,
    rights_changes: RightsChangesDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners. What the new roles do not allow ends at once; one owner stays."""
    caller.must(Action.MANAGE, organisation)
    async with rights_changes.of_principal(context, person) as change:
        before = await _found(change, clock, organisation, person)
        now_ns = clock.now_ns()
        made = await change.principals.change_roles(before, form.roles, by=caller.id, now_ns=now_ns)
    return _member(made)


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


async def _joined(
    registry: Registry,
    clock: Clock,
    caller: Caller,
    person: str,
    organisation: str,
    roles: Collection[Role],
) -> dict[str, Any]:
    """A new member with a first token."""
    now_ns = clock.now_ns()
    one = domain_organisations.person(person, organisation, roles, now_ns)
    credential, token = tokens.issued(one.id, Span(now_ns), label=FIRST, by=caller.id)
    await registry.principals.add(one, caller.id)
    await registry.tokens.add(token)
    return {"credential": credential.text} | _member(one)


async def _found(registry: Registry, clock: Clock, organisation: str, person: str) -> Principal:
    one = await registry.principals.find(person, clock.now_ns())
    if one is None or (one.organisation, one.kind) != (organisation, PrincipalKind.PERSON):
        raise Unknown(f"there is no member {person!r} of {organisation}")
    return one


def _organisation(one: Organisation) -> dict[str, Any]:
    return {"id": one.id, "name": one.name, "kind": one.kind}


def _member(one: Principal) -> dict[str, Any]:
    return {"person": one.id, "roles": sorted(one.roles), "since": text_of(one.span.from_ns)}
