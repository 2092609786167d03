"""Routes: equipment, and the specs of streams."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query

from broker.clock import text_of
from broker.namespace import EquipmentAddress, StreamAddress
from broker.responses.equipment import (
    EquipmentPage,
    EquipmentResponse,
    HeldPage,
    HeldResponse,
    SpecResponse,
    SpecsResponse,
    StreamFreshnessResponse,
    StreamPage,
    StreamResponse,
)
from broker.rights import Action, Entry
from broker.streams import StreamSpec
from testbed_api.actions.caller import Caller
from testbed_api.domain.equipment import Equipment
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import (
    EquipmentActionsDep,
    FreshnessDep,
    LedgerDep,
    RegistryDep,
    StreamActionsDep,
)
from testbed_api.http.documents import equipment_response
from testbed_api.http.schemas import (
    EquipmentForm,
    HeldWanted,
    OfEquipment,
    OfStream,
    Paged,
    SpecForm,
    SpecsForm,
    split_page,
)
from testbed_api.recorder.freshness import FreshnessTracker

router = APIRouter(tags=["registry"])

_ONE_EQUIPMENT = "/equipment/{organisation}/{equipment}"
_ONE_STREAM = "/streams/{organisation}/{equipment}/{stream}"

Version = Annotated[int, Path(ge=1, lt=2**31)]


@router.put(
    _ONE_EQUIPMENT,
    openapi_extra=asks(Action.REGISTER),
    summary="Register or renew an equipment",
    responses=openapi_examples.answer(EquipmentResponse) | openapi_examples.problems(409),
)
async def put_equipment(
    address: OfEquipment,
    form: EquipmentForm,
    equipment: EquipmentActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> EquipmentResponse:
    """Allowed to owners and engineers of its organisation, and machines that publish it.

    Its kind never changes.
    """
    site = {level: name for level, name in form.site.model_dump().items() if name}
    registered = Equipment(address, form.name, form.kind, site, form.description)
    await equipment.put(context, caller, registered)
    return equipment_response(registered)


@router.get(
    _ONE_EQUIPMENT,
    openapi_extra=asks(Action.SEE),
    summary="One equipment",
    responses=openapi_examples.answer(EquipmentResponse),
)
async def equipment(
    address: OfEquipment, registry: RegistryDep, caller: CallerDep
) -> EquipmentResponse:
    """An equipment that you see; missing and foreign ones answer alike."""
    caller.must(Action.SEE, address)
    return equipment_response(await registry.equipment.get(address))


@router.get(
    _ONE_EQUIPMENT + "/held",
    openapi_extra=asks(Action.WATCH),
    summary="What the ledger holds of an equipment's streams",
    responses=openapi_examples.answer(HeldPage),
)
async def held(
    address: OfEquipment,
    query: Annotated[HeldWanted, Query()],
    ledger: LedgerDep,
    caller: CallerDep,
) -> HeldPage:
    """For a gateway that starts: which batch of each stream came last, and since when something may
    be missing. Streams without a batch are left out.

    Allowed to the people of its organisation, and to the machine that publishes the streams.
    """
    caller.must(Action.WATCH, address)
    rows = await ledger.newest_lives(query.space, address, query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    items = [
        HeldResponse(
            stream=life.stream,
            epoch=life.epoch,
            seq=life.seq,
            until=None if life.until_ns is None else text_of(life.until_ns),
        )
        for life in page
        if caller.may(Action.WATCH, Entry(query.space, StreamAddress.parse(life.stream)))
    ]
    return HeldPage(items=items, next=page[-1].stream if more else None)


@router.get(
    "/equipment",
    openapi_extra=asks(Action.SEE),
    summary="The equipment you can see",
    responses=openapi_examples.answer(EquipmentPage),
)
async def all_equipment(
    query: Annotated[Paged, Query()], registry: RegistryDep, caller: CallerDep
) -> EquipmentPage:
    """A page, by address; `next` goes on behind it and is null on the last."""
    after = None if query.cursor is None else EquipmentAddress.parse(query.cursor)
    rows = await registry.equipment.page(after, query.limit + 1, among=caller.visible)
    page, more = split_page(rows, query.limit)
    items = list(map(equipment_response, page))
    return EquipmentPage(items=items, next=str(page[-1].address) if more else None)


@router.get(
    "/streams",
    openapi_extra=asks(Action.SEE),
    summary="The streams you can see",
    responses=openapi_examples.answer(StreamPage),
)
async def streams(
    query: Annotated[Paged, Query()],
    registry: RegistryDep,
    freshness: FreshnessDep,
    caller: CallerDep,
) -> StreamPage:
    """A page, by address, each with its newest spec and how fresh it is in the spaces you see."""
    after = None if query.cursor is None else StreamAddress.parse(query.cursor)
    rows = await registry.streams.page(after, query.limit + 1, among=caller.visible)
    page, more = split_page(rows, query.limit)
    items = [_stream(freshness, caller, newest) for newest in page]
    return StreamPage(items=items, next=str(page[-1].address) if more else None)


@router.get(
    _ONE_STREAM,
    openapi_extra=asks(Action.SEE),
    summary="One stream",
    responses=openapi_examples.answer(StreamResponse),
)
async def stream(
    address: OfStream, registry: RegistryDep, freshness: FreshnessDep, caller: CallerDep
) -> StreamResponse:
    """A stream's newest spec, and its freshness in the spaces that you see."""
    caller.must(Action.SEE, address)
    return _stream(freshness, caller, await registry.streams.get(address))


@router.get(
    _ONE_STREAM + "/specs/{version}",
    openapi_extra=asks(Action.SEE),
    summary="One version of a spec",
    responses=openapi_examples.answer(SpecResponse),
)
async def spec(
    address: OfStream, version: Version, registry: RegistryDep, caller: CallerDep
) -> SpecResponse:
    """A spec never changes once it has a version."""
    caller.must(Action.SEE, address)
    return SpecResponse.from_spec(await registry.streams.get(address, version))


@router.post(
    _ONE_STREAM + "/specs",
    openapi_extra=asks(Action.DESCRIBE),
    summary="Register a spec",
    responses=openapi_examples.answer(SpecResponse) | openapi_examples.problems(409),
)
async def add_spec(
    address: OfStream,
    form: SpecForm,
    streams: StreamActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> SpecResponse:
    """Allowed to owners and engineers, and to the machine that publishes the stream.

    Its equipment must be registered before.

    What is registered already keeps its version; a change becomes the next. A signal's dtype never
    changes.
    """
    caller.must(Action.DESCRIBE, address)
    proposal = await asyncio.to_thread(form.spec, address)  # the first unit loads UCUM's grammar
    [registered] = await streams.register(context, caller, [proposal])
    return SpecResponse.from_spec(registered)


@router.post(
    _ONE_EQUIPMENT + "/specs",
    openapi_extra=asks(Action.DESCRIBE),
    summary="Register specs of several streams",
    responses=openapi_examples.answer(SpecsResponse) | openapi_examples.problems(409),
)
async def add_specs(
    address: OfEquipment,
    form: SpecsForm,
    streams: StreamActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> SpecsResponse:
    """Streams of one equipment in one change: all are registered, or none.

    What many streams cost as single requests takes a gateway half a minute before its first sample.
    Each as with one spec: what is registered already keeps its version, a change becomes the next.
    """
    for stream in form.streams:
        caller.must(Action.DESCRIBE, stream.address(address))
    proposals = await asyncio.to_thread(form.specs, address)
    registered = await streams.register(context, caller, proposals)
    return SpecsResponse(items=list(map(SpecResponse.from_spec, registered)))


def _stream(freshness: FreshnessTracker, caller: Caller, newest: StreamSpec) -> StreamResponse:
    address = newest.address
    by_space = {
        space: StreamFreshnessResponse.from_health(state, health)
        for space, (state, health) in freshness.of(address).items()
        if caller.may_read(space, address) or caller.may(Action.WATCH, Entry(space, address))
    }
    spec = SpecResponse.from_spec(newest)
    return StreamResponse(stream=str(address), spec=spec, freshness=by_space)
