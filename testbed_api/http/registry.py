"""Routes: organisations, equipment, and the specs of streams."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from broker import messages
from broker.clock import text_of
from broker.errors import Invalid, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from testbed_api.domain.equipment import Equipment, Organisation
from testbed_api.http.access import Asking
from testbed_api.http.forms import EquipmentForm, Id, OrganisationForm, SpecForm
from testbed_api.parts import Given

router = APIRouter(tags=["registry"])

Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=500, description="rows on a page")]


@router.post("/organisations", status_code=201, summary="Make an organisation known")
async def add_organisation(form: OrganisationForm, parts: Given, caller: Asking) -> dict[str, str]:
    """For administrators."""
    caller.must_administrate()
    await parts.registry.add_organisation(Organisation(form.id, form.name))
    return {"id": form.id, "name": form.name}


@router.get("/organisations", summary="The organisations you can see")
async def organisations(parts: Given, caller: Asking) -> dict[str, Any]:
    """Those that own a stream you may read or write; all of them for administrators."""
    listed = caller.holding.reads | caller.holding.writes
    seen = {entry.address.organisation for entry in listed}
    items = [
        {"id": one.id, "name": one.name}
        for one in await parts.registry.organisations()
        if caller.is_administrator or one.id in seen
    ]
    return {"items": items}


@router.put("/equipment/{organisation}/{equipment}", summary="Register or renew an equipment")
async def put_equipment(
    organisation: Id, equipment: Id, form: EquipmentForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """For whoever publishes one of its streams, and administrators."""
    address = EquipmentAddress(organisation, equipment)
    caller.must_own(address)
    site = {level: name for level, name in form.site.model_dump().items() if name}
    one = Equipment(address, form.name, form.kind, site, form.description)
    await parts.registry.put_equipment(one)
    return _equipment(one)


@router.get("/equipment/{organisation}/{equipment}", summary="One equipment")
async def equipment(organisation: Id, equipment: Id, parts: Given, caller: Asking) -> dict[str, Any]:
    """Missing and foreign equipment answer alike."""
    address = EquipmentAddress(organisation, equipment)
    if not caller.sees_equipment(address):
        raise Unknown(f"there is no equipment {address}")
    return _equipment(await parts.registry.equipment(address))


@router.get("/equipment", summary="The equipment you can see")
async def all_equipment(
    parts: Given, caller: Asking, cursor: Cursor = None, limit: Limit = 100
) -> dict[str, Any]:
    """A page, by address; `next` goes on behind it."""
    after = EquipmentAddress.parse(cursor) if cursor else None
    items: list[dict[str, Any]] = []
    while rows := await parts.registry.all_equipment(after, limit):
        for one in rows:
            after = one.address
            if caller.sees_equipment(one.address):
                items.append(_equipment(one))
            if len(items) == limit:
                return {"items": items, "next": str(after)}
    return {"items": items, "next": None}


@router.get("/streams", summary="The streams you can see")
async def streams(parts: Given, caller: Asking, cursor: Cursor = None, limit: Limit = 100) -> dict[str, Any]:
    """A page, by address, each with its newest spec and how fresh it is in every space."""
    after = StreamAddress.parse(cursor) if cursor else None
    items: list[dict[str, Any]] = []
    while rows := await parts.registry.streams(after, limit):
        for spec in rows:
            after = spec.address
            if caller.sees(spec.address):
                items.append(_stream(parts, caller, messages.spec_json(spec)))
            if len(items) == limit:
                return {"items": items, "next": str(after)}
    return {"items": items, "next": None}


@router.get("/streams/{organisation}/{equipment}/{stream}", summary="One stream")
async def stream(organisation: Id, equipment: Id, stream: Id, parts: Given, caller: Asking) -> dict[str, Any]:
    """Its newest spec, and how fresh it is in the spaces you may read."""
    address = _seen(caller, organisation, equipment, stream)
    return _stream(parts, caller, messages.spec_json(await parts.registry.spec(address)))


@router.get("/streams/{organisation}/{equipment}/{stream}/specs/{version}", summary="One version of a spec")
async def spec(
    organisation: Id, equipment: Id, stream: Id, version: int, parts: Given, caller: Asking
) -> dict[str, Any]:
    """A spec never changes once it has a version."""
    if not 1 <= version < 2**31:
        raise Invalid(f"spec version {version}", hint="count from 1")
    address = _seen(caller, organisation, equipment, stream)
    return messages.spec_json(await parts.registry.spec(address, version))


@router.post("/streams/{organisation}/{equipment}/{stream}/specs", summary="Register a spec")
async def add_spec(
    organisation: Id, equipment: Id, stream: Id, form: SpecForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """What is registered already keeps its version; a change becomes the next. A signal's dtype never changes."""
    address = StreamAddress(organisation, equipment, stream)
    if not caller.writes(address):
        caller.must_administrate()
    return messages.spec_json(await parts.registry.add_spec(form.spec(address)))


def _seen(caller: Asking, organisation: str, equipment: str, stream: str) -> StreamAddress:
    address = StreamAddress(organisation, equipment, stream)
    if not caller.sees(address):
        raise Unknown(f"there is no stream {address}")
    return address


def _equipment(one: Equipment) -> dict[str, Any]:
    return {
        "organisation": one.address.organisation,
        "equipment": one.address.equipment,
        "name": one.name,
        "kind": one.kind,
        "site": one.site,
        "description": one.description,
    }


def _stream(parts: Given, caller: Asking, spec: dict[str, Any]) -> dict[str, Any]:
    address = StreamAddress.parse(spec["stream"])
    freshness = {
        space: {
            "state": state,
            "last": None if health.last_ns is None else text_of(health.last_ns),
            "valid_until": text_of(health.valid_until_ns),
            "alarms": health.alarms,
        }
        for space, (state, health) in parts.freshness.of(address).items()
        if caller.may_read(space, address) or caller.writes(address)
    }
    return {"stream": spec["stream"], "spec": spec, "freshness": freshness}


