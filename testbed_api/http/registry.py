"""Routes: organisations, equipment, and the specs of streams."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query

from broker import messages
from broker.clock import text_of
from broker.errors import Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec
from testbed_api.domain.equipment import Equipment, Organisation
from testbed_api.http import examples
from testbed_api.http.access import Asking, Caller
from testbed_api.http.forms import (
    EquipmentForm,
    OfEquipment,
    OfStream,
    OrganisationForm,
    Paged,
    SpecForm,
)
from testbed_api.parts import Given, Parts

router = APIRouter(tags=["registry"])

_ONE_EQUIPMENT = "/equipment/{organisation}/{equipment}"
_ONE_STREAM = "/streams/{organisation}/{equipment}/{stream}"

_Row = TypeVar("_Row")

Version = Annotated[int, Path(ge=1, lt=2**31)]


@router.post(
    "/organisations",
    status_code=201,
    summary="Make an organisation known",
    responses=examples.answer(examples.ORGANISATION, status=201) | examples.problems(409),
)
async def add_organisation(form: OrganisationForm, parts: Given, caller: Asking) -> dict[str, str]:
    """For administrators."""
    caller.must_administrate()
    await parts.registry.add_organisation(Organisation(form.id, form.name))
    return {"id": form.id, "name": form.name}


@router.get(
    "/organisations",
    summary="The organisations you can see",
    responses=examples.answer({"items": [examples.ORGANISATION]}),
)
async def organisations(parts: Given, caller: Asking) -> dict[str, Any]:
    """Those that own a stream you may read or write; all of them for administrators."""
    listed = caller.listed
    seen = None if listed is None else {address.organisation for address in listed}
    items = [
        {"id": one.id, "name": one.name}
        for one in await parts.registry.organisations()
        if seen is None or one.id in seen
    ]
    return {"items": items}


@router.put(
    _ONE_EQUIPMENT,
    summary="Register or renew an equipment",
    responses=examples.answer(examples.EQUIPMENT) | examples.problems(409),
)
async def put_equipment(
    address: OfEquipment, form: EquipmentForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """For whoever publishes one of its streams, and administrators. Its kind never changes."""
    caller.must_own(address)
    site = {level: name for level, name in form.site.model_dump().items() if name}
    one = Equipment(address, form.name, form.kind, site, form.description)
    await parts.registry.put_equipment(one)
    return _equipment(one)


@router.get(_ONE_EQUIPMENT, summary="One equipment", responses=examples.answer(examples.EQUIPMENT))
async def equipment(address: OfEquipment, parts: Given, caller: Asking) -> dict[str, Any]:
    """Missing and foreign equipment answer alike."""
    if not caller.sees_equipment(address):
        raise Unknown(f"there is no equipment {address}")
    return _equipment(await parts.registry.equipment(address))


@router.get(
    "/equipment",
    summary="The equipment you can see",
    responses=examples.answer(examples.page(examples.EQUIPMENT, "factory/pump-rig")),
)
async def all_equipment(
    asked: Annotated[Paged, Query()], parts: Given, caller: Asking
) -> dict[str, Any]:
    """A page, by address; `next` goes on behind it and is null on the last."""
    after = None if asked.cursor is None else EquipmentAddress.parse(asked.cursor)
    listed = caller.listed
    among = None if listed is None else {address.owner for address in listed}
    found = await parts.registry.all_equipment(after, asked.limit + 1, among=among)
    return _page(found, asked.limit, _equipment, lambda one: one.address)


@router.get(
    "/streams",
    summary="The streams you can see",
    responses=examples.answer(examples.page(examples.STREAM, "factory/pump-rig/rig")),
)
async def streams(asked: Annotated[Paged, Query()], parts: Given, caller: Asking) -> dict[str, Any]:
    """A page, by address, each with its newest spec and how fresh it is in the spaces you see."""
    after = None if asked.cursor is None else StreamAddress.parse(asked.cursor)
    found = await parts.registry.streams(after, asked.limit + 1, among=caller.listed)
    return _page(
        found, asked.limit, lambda one: _stream(parts, caller, one), lambda one: one.address
    )


@router.get(_ONE_STREAM, summary="One stream", responses=examples.answer(examples.STREAM))
async def stream(address: OfStream, parts: Given, caller: Asking) -> dict[str, Any]:
    """Its newest spec, and how fresh it is in the spaces you see; older specs count from 1."""
    caller.must_see(address)
    return _stream(parts, caller, await parts.registry.spec(address))


@router.get(
    _ONE_STREAM + "/specs/{version}",
    summary="One version of a spec",
    responses=examples.answer(examples.SPEC),
)
async def spec(address: OfStream, version: Version, parts: Given, caller: Asking) -> dict[str, Any]:
    """A spec never changes once it has a version."""
    caller.must_see(address)
    return messages.spec_json(await parts.registry.spec(address, version))


@router.post(
    _ONE_STREAM + "/specs",
    summary="Register a spec",
    responses=examples.answer(examples.SPEC) | examples.problems(409),
)
async def add_spec(
    address: OfStream, form: SpecForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """For whoever publishes the stream, and administrators; its equipment is registered before.

    What is registered already keeps its version; a change becomes the next. A signal's dtype never
    changes.
    """
    caller.must_describe(address)
    proposal = await asyncio.to_thread(form.spec, address)  # the first unit loads UCUM's grammar
    return messages.spec_json(await parts.registry.add_spec(proposal))


def _page(
    found: Sequence[_Row],
    limit: int,
    shown: Callable[[_Row], dict[str, Any]],
    place: Callable[[_Row], object],
) -> dict[str, Any]:
    """One page of rows, of which one more than `limit` was asked for."""
    page = found[:limit]
    following = str(place(page[-1])) if len(found) > limit else None
    return {"items": [shown(one) for one in page], "next": following}


def _equipment(one: Equipment) -> dict[str, Any]:
    return {
        "organisation": one.address.organisation,
        "equipment": one.address.equipment,
        "name": one.name,
        "kind": one.kind,
        "site": one.site,
        "description": one.description,
    }


def _stream(parts: Parts, caller: Caller, newest: StreamSpec) -> dict[str, Any]:
    address = newest.address
    freshness = {
        space: {
            "state": state,
            "last": None if health.last_ns is None else text_of(health.last_ns),
            "valid_until": text_of(health.valid_until_ns),
            "alarms": health.alarms,
        }
        for space, (state, health) in parts.freshness.of(address).items()
        if caller.may_read(space, address) or caller.may_write(space, address)
    }
    return {"stream": str(address), "spec": messages.spec_json(newest), "freshness": freshness}
