"""Routes: listings, by which an equipment exists for others, with an example to look at."""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, model_validator

from broker.clock import text_of
from broker.errors import Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Action, Sample
from testbed_api.actions.caller import Caller
from testbed_api.domain.grants import MOST_TERMS, Offer
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import (
    ClockDep,
    LedgerDep,
    ListingActionsDep,
    QuotasDep,
    ReadsDep,
    RegistryDep,
    StoreDep,
)
from testbed_api.http.documents import equipment_document
from testbed_api.http.history_format import ReadMeter, as_csv, as_json, counted
from testbed_api.http.schemas import (
    EntryForm,
    Form,
    Format,
    Id,
    OfEquipment,
    Paged,
    RequiredInstant,
    storable,
)
from testbed_api.http.streaming import Streamed, begun
from testbed_api.registry.equipment import Visibility
from testbed_api.registry.registry import Registry
from testbed_api.stores.port import Window

router = APIRouter(tags=["sharing"])

_ONE = "/equipment/{organisation}/{equipment}"
_SAMPLE = {
    "space": "live",
    "stream": "factory/pump-rig/rig",
    "from": "2026-11-23T12:00:00.000000000Z",
    "to": "2026-11-23T12:10:00.000000000Z",
}
_LISTING = openapi_examples.EQUIPMENT | {
    "listed_to": ["company"],
    "everybody": False,
    "terms": "no publication without asking",
    "streams": [{"stream": "factory/pump-rig/rig", "signals": {"Pressure": "bar"}}],
    "sample": _SAMPLE,
}


class SampleForm(EntryForm):
    """A part of a stream's past."""

    from_: Annotated[RequiredInstant, Field(alias="from", description="included")]
    to: Annotated[RequiredInstant, Field(description="not included")]

    def sample(self) -> Sample:
        """As the policy has it; raises Invalid."""
        return Sample(self.entry(), storable(self.from_), storable(self.to))


class ListingForm(Form):
    """To whom an equipment exists, and what they are told."""

    everybody: Annotated[bool, Field(description="to all members of the testbed")] = False
    organisations: Annotated[
        tuple[Id, ...], Field(max_length=500, description="or to these", examples=[["company"]])
    ] = ()
    terms: Annotated[
        str, Field(max_length=MOST_TERMS, description="what you ask of whoever uses it")
    ] = ""
    sample: SampleForm | None = None

    @model_validator(mode="after")
    def _is_to_somebody(self) -> Self:
        if self.everybody == bool(self.organisations):
            raise ValueError(
                "list it to everybody or to named organisations; DELETE lists it to nobody"
            )
        return self


class Formatted(Form):
    """How it is written."""

    format: Format = Format.JSON


@router.put(
    _ONE + "/listing",
    openapi_extra=asks(Action.SHARE),
    summary="List an equipment to organisations, or to everybody",
    responses=openapi_examples.answer(_LISTING),
)
async def put_listing(
    address: OfEquipment,
    form: ListingForm,
    listings: ListingActionsDep,
    registry: RegistryDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners and engineers of its organisation. It takes the place of the former listing.

    They see name, description, site, terms and the specs of its streams; of its samples they read
    the one that is named here, and nothing else without a grant.
    """
    offer = await listings.put(
        context,
        caller,
        address,
        None if form.everybody else form.organisations,
        terms=form.terms,
        sample=None if form.sample is None else form.sample.sample(),
    )
    return await _document(registry, caller, address, offer)


@router.delete(
    _ONE + "/listing",
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="List an equipment to nobody",
)
async def end_listing(
    address: OfEquipment, listings: ListingActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """For owners and engineers of its organisation. Grants that were given stay."""
    await listings.end(context, caller, address)
    return Response(status_code=204)


@router.get(
    _ONE + "/listing",
    openapi_extra=asks(Action.SEE),
    summary="How an equipment is listed",
    responses=openapi_examples.answer(_LISTING),
)
async def listing(
    address: OfEquipment, listings: ListingActionsDep, registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """For whoever sees it; to whom it is listed, for its own organisation alone."""
    offer = await listings.find(caller, address)
    return await _document(registry, caller, address, offer)


@router.get(
    "/listings",
    openapi_extra=asks(Action.SEE),
    summary="What is listed to you",
    responses=openapi_examples.answer(openapi_examples.page(_LISTING, "factory/pump-rig")),
)
async def listings(
    asked: Annotated[Paged, Query()], registry: RegistryDep, caller: CallerDep
) -> dict[str, Any]:
    """A page of other organisations' equipment, by address; `next` goes on behind it."""
    mine = caller.organisation
    listed = sorted(one for one in caller.visible.equipment if one.organisation != mine)
    after = None if asked.cursor is None else EquipmentAddress.parse(asked.cursor)
    behind = [one for one in listed if after is None or one > after]
    page = behind[: asked.limit]
    items = [
        await _document(registry, caller, one, await registry.listings.find(one, caller.at_ns))
        for one in page
    ]
    return {"items": items, "next": str(page[-1]) if len(behind) > asked.limit else None}


@router.get(
    _ONE + "/sample",
    openapi_extra=asks(Action.SAMPLE),
    summary="The example that an equipment is listed with",
    response_class=StreamingResponse,
    responses=openapi_examples.answer(openapi_examples.HISTORY),
)
async def sample(
    address: OfEquipment,
    asked: Annotated[Formatted, Query()],
    registry: RegistryDep,
    ledger: LedgerDep,
    store: StoreDep,
    reads: ReadsDep,
    quotas: QuotasDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> StreamingResponse:
    """For people of its organisation, and of those that it is listed to; as `history` answers."""
    caller.must(Action.SEE, address)
    offer = await registry.listings.find(address, caller.at_ns)
    if offer is None or offer.listing.sample is None:
        raise Unknown(f"there is no sample of {address}")
    caller.must(Action.SAMPLE, address)
    one = offer.listing.sample
    spec = await registry.streams.get(one.entry.address)
    window = Window(one.entry.space, spec, spec.names, one.from_ns, one.to_ns)
    gaps = await ledger.gaps(one.entry.space, one.entry.address, one.from_ns, one.to_ns)
    quotas.reading(caller.organisation, clock.now_ns())
    context.entry.facts |= _sample(one)
    await reads.note(caller.id, one.entry, "sample")
    meter = ReadMeter(
        organisation=caller.organisation, quotas=quotas, clock=clock, facts=context.entry.facts
    )
    frames = counted(store.read(window), meter)
    csv = asked.format is Format.CSV
    chunks = await begun(as_csv(window, frames) if csv else as_json(window, frames, gaps))
    return Streamed(chunks, media_type="text/csv; charset=utf-8" if csv else "application/json")


async def _document(
    registry: Registry, caller: Caller, address: EquipmentAddress, offer: Offer | None
) -> dict[str, Any]:
    """An equipment with its streams, as it is listed."""
    told = equipment_document(await registry.equipment.get(address))
    streams = [one async for one in _streams(registry, address)]
    told |= {"everybody": False, "terms": "", "sample": None, "streams": streams}
    if offer is not None:
        shown = offer.listing.sample
        told |= {"terms": offer.terms, "sample": None if shown is None else _sample(shown)}
        told["everybody"] = offer.listing.organisations is None
    if address.organisation == caller.organisation:
        told["listed_to"] = sorted(offer.listing.organisations or ()) if offer else []
    return told


async def _streams(registry: Registry, address: EquipmentAddress) -> Any:
    """Each stream with its signals and their units."""
    after: StreamAddress | None = None
    among = Visibility(equipment=frozenset({address}))
    while page := await registry.streams.page(after, 500, among=among):
        for spec in page:
            signals = {one.name: one.unit for one in spec.signals}
            yield {"stream": str(spec.address), "signals": signals}
        after = page[-1].address


def _sample(one: Sample) -> dict[str, Any]:
    return {
        "space": one.entry.space,
        "stream": str(one.entry.address),
        "from": text_of(one.from_ns),
        "to": text_of(one.to_ns),
    }
