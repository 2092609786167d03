"""Routes: equipment, and the specs of streams."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query

from broker import messages
from broker.clock import text_of
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Action, Entry
from broker.streams import StreamSpec
from testbed_api.actions.caller import Caller
from testbed_api.domain.equipment import Equipment
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, FreshnessDep, RegistryDep, StreamActionsDep
from testbed_api.http.documents import equipment_document
from testbed_api.http.schemas import EquipmentForm, OfEquipment, OfStream, Paged, SpecForm
from testbed_api.recorder.freshness import FreshnessTracker

router = APIRouter(tags=["registry"])

_ONE_EQUIPMENT = "/equipment/{organisation}/{equipment}"
_ONE_STREAM = "/streams/{organisation}/{equipment}/{stream}"

_Row = TypeVar("_Row")

Version = Annotated[int, Path(ge=1, lt=2**31)]


@router.put(
    _ONE_EQUIPMENT,
    openapi_extra=asks(Action.REGISTER),
    summary="Register or renew an equipment",
    responses=openapi_examples.answer(openapi_examples.EQUIPMENT) | openapi_examples.problems(409),
)
async def put_equipment(
    address: OfEquipment,
    form: EquipmentForm,
    registry: RegistryDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners and engineers of its organisation, and machines that publish it.

    Its kind never changes.
    """
    caller.must(Action.REGISTER, address)
    site = {level: name for level, name in form.site.model_dump().items() if name}
    one = Equipment(address, form.name, form.kind, site, form.description)
    async with registry.change(context, clock) as change:
        await change.equipment.put(one)
    return equipment_document(one)


@router.get(
    _ONE_EQUIPMENT,
    openapi_extra=asks(Action.SEE),
    summary="One equipment",
    responses=openapi_examples.answer(openapi_examples.EQUIPMENT),
)
async def equipment(
    address: OfEquipment, registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """Missing and foreign equipment answer alike."""
    caller.must(Action.SEE, address)
    return equipment_document(await registry.equipment.get(address))


@router.get(
    "/equipment",
    openapi_extra=asks(Action.SEE),
    summary="The equipment you can see",
    responses=openapi_examples.answer(
        openapi_examples.page(openapi_examples.EQUIPMENT, "factory/pump-rig")
    ),
)
async def all_equipment(
    asked: Annotated[Paged, Query()], registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """A page, by address; `next` goes on behind it and is null on the last."""
    after = None if asked.cursor is None else EquipmentAddress.parse(asked.cursor)
    found = await registry.equipment.page(after, asked.limit + 1, among=caller.visible)
    return _page(found, asked.limit, equipment_document, lambda one: one.address)


@router.get(
    "/streams",
    openapi_extra=asks(Action.SEE),
    summary="The streams you can see",
    responses=openapi_examples.answer(
        openapi_examples.page(openapi_examples.STREAM, "factory/pump-rig/rig")
    ),
)
async def streams(
    asked: Annotated[Paged, Query()],
    registry: RegistryDep,
    freshness: FreshnessDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """A page, by address, each with its newest spec and how fresh it is in the spaces you see."""
    after = None if asked.cursor is None else StreamAddress.parse(asked.cursor)
    found = await registry.streams.page(after, asked.limit + 1, among=caller.visible)
    return _page(
        found, asked.limit, lambda one: _stream(freshness, caller, one), lambda one: one.address
    )


@router.get(
    _ONE_STREAM,
    openapi_extra=asks(Action.SEE),
    summary="One stream",
    responses=openapi_examples.answer(openapi_examples.STREAM),
)
async def stream(
    address: OfStream, registry: RegistryDep, freshness: FreshnessDep, caller: CallerDep
) -> dict[str, Any]:
    """Its newest spec, and how fresh it is in the spaces you see; older specs count from 1."""
    caller.must(Action.SEE, address)
    return _stream(freshness, caller, await registry.streams.get(address))


@router.get(
    _ONE_STREAM + "/specs/{version}",
    openapi_extra=asks(Action.SEE),
    summary="One version of a spec",
    responses=openapi_examples.answer(openapi_examples.SPEC),
)
async def spec(
    address: OfStream, version: Version, registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """A spec never changes once it has a version."""
    caller.must(Action.SEE, address)
    return messages.spec_to_json(await registry.streams.get(address, version))


@router.post(
    _ONE_STREAM + "/specs",
    openapi_extra=asks(Action.DESCRIBE),
    summary="Register a spec",
    responses=openapi_examples.answer(openapi_examples.SPEC) | openapi_examples.problems(409),
)
async def add_spec(
    address: OfStream,
    form: SpecForm,
    streams: StreamActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners and engineers, and the machine that publishes it; its equipment is there before.

    What is registered already keeps its version; a change becomes the next. A signal's dtype never
    changes.
    """
    caller.must(Action.DESCRIBE, address)
    proposal = await asyncio.to_thread(form.spec, address)  # the first unit loads UCUM's grammar
    return messages.spec_to_json(await streams.register(context, caller, proposal))


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


def _stream(freshness: FreshnessTracker, caller: Caller, newest: StreamSpec) -> dict[str, Any]:
    address = newest.address
    by_space = {
        space: {
            "state": state,
            "last": None if health.last_ns is None else text_of(health.last_ns),
            "valid_until": text_of(health.valid_until_ns),
            "alarms": health.alarms,
        }
        for space, (state, health) in freshness.of(address).items()
        if caller.may_read(space, address) or caller.may(Action.WATCH, Entry(space, address))
    }
    return {"stream": str(address), "spec": messages.spec_to_json(newest), "freshness": by_space}
