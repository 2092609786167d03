"""Routes: listings, by which other organisations see an equipment, with a sample of its data."""

from collections.abc import AsyncIterator
from typing import Annotated, Self

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, model_validator

from broker.errors import Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.responses.grants import (
    ListedStreamResponse,
    ListingPage,
    ListingResponse,
    SampleResponse,
)
from broker.rights import Action, Sample
from testbed_api.actions.caller import Caller
from testbed_api.domain.grants import MOST_TERMS, Offer
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import (
    LedgerDep,
    ListingActionsDep,
    QuotasDep,
    ReadsDep,
    RegistryDep,
    RightsWatchDep,
    StoreDep,
)
from testbed_api.http.documents import equipment_response
from testbed_api.http.history_format import ReadMeter, as_csv, as_json, counted
from testbed_api.http.schemas import (
    EntryForm,
    Form,
    Format,
    Id,
    OfEquipment,
    Paged,
    RequiredInstant,
    split_page,
    storable,
)
from testbed_api.http.streaming import Streamed, begun
from testbed_api.registry.equipment import Visibility
from testbed_api.registry.registry import Registry
from testbed_api.stores.port import Window

router = APIRouter(tags=["sharing"])

_ONE = "/equipment/{organisation}/{equipment}"


class SampleForm(EntryForm):
    """The span of a sample: a part of a stream's past."""

    from_: Annotated[RequiredInstant, Field(alias="from", description="included")]
    to: Annotated[RequiredInstant, Field(description="not included")]

    def sample(self) -> Sample:
        """The sample as the policy holds it; raises Invalid."""
        return Sample(self.entry(), storable(self.from_), storable(self.to))


class ListingForm(Form):
    """The organisations that see an equipment, with terms and a sample."""

    everybody: Annotated[bool, Field(description="to all members of the testbed")] = False
    organisations: Annotated[
        tuple[Id, ...], Field(max_length=500, description="or to these", examples=[["company"]])
    ] = ()
    terms: Annotated[
        str | None,
        Field(
            max_length=MOST_TERMS,
            description="what you ask of whoever uses it; those of the former listing if left out",
        ),
    ] = None
    sample: SampleForm | None = None

    @model_validator(mode="after")
    def _is_to_somebody(self) -> Self:
        if self.everybody == bool(self.organisations):
            raise ValueError(
                "list it to everybody or to named organisations;"
                " `testbed listing set --nobody` (DELETE) ends the listing"
            )
        return self


class Formatted(Form):
    """Query with the format of a sample."""

    format: Format = Format.JSON


@router.put(
    _ONE + "/listing",
    openapi_extra=asks(Action.SHARE),
    summary="List an equipment to organisations, or to everybody",
    response_model_exclude_unset=True,
    responses=openapi_examples.answer(ListingResponse),
)
async def put_listing(
    address: OfEquipment,
    form: ListingForm,
    listings: ListingActionsDep,
    registry: RegistryDep,
    context: ContextDep,
    caller: CallerDep,
) -> ListingResponse:
    """Allowed to owners and engineers of its organisation. It replaces the former listing,
    whose terms stay unless others are given.

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
    return await _response(registry, caller, address, offer)


@router.delete(
    _ONE + "/listing",
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="List an equipment to nobody",
)
async def end_listing(
    address: OfEquipment, listings: ListingActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to owners and engineers of its organisation. Grants that were given stay."""
    await listings.end(context, caller, address)
    return Response(status_code=204)


@router.get(
    _ONE + "/listing",
    openapi_extra=asks(Action.SEE),
    summary="How an equipment is listed",
    response_model_exclude_unset=True,
    responses=openapi_examples.answer(ListingResponse),
)
async def listing(
    address: OfEquipment, listings: ListingActionsDep, registry: RegistryDep, caller: CallerDep
) -> ListingResponse:
    """The listing of an equipment that you see; only its own organisation sees the recipients."""
    offer = await listings.find(caller, address)
    return await _response(registry, caller, address, offer)


@router.get(
    "/listings",
    openapi_extra=asks(Action.SEE),
    summary="What is listed to you",
    response_model_exclude_unset=True,
    responses=openapi_examples.answer(ListingPage),
)
async def listings(
    query: Annotated[Paged, Query()], registry: RegistryDep, caller: CallerDep
) -> ListingPage:
    """A page of other organisations' equipment, by address; `next` goes on behind it."""
    mine = caller.organisation
    listed = sorted(each for each in caller.visible.equipment if each.organisation != mine)
    after = None if query.cursor is None else EquipmentAddress.parse(query.cursor)
    rest = [address for address in listed if after is None or address > after]
    page, more = split_page(rest, query.limit)
    items = [
        await _response(registry, caller, each, await registry.listings.find(each, caller.at_ns))
        for each in page
    ]
    return ListingPage(items=items, next=str(page[-1]) if more else None)


@router.get(
    _ONE + "/sample",
    openapi_extra=asks(Action.SAMPLE),
    summary="The example that an equipment is listed with",
    response_class=StreamingResponse,
    responses=openapi_examples.history(),
)
async def sample(
    address: OfEquipment,
    query: Annotated[Formatted, Query()],
    registry: RegistryDep,
    ledger: LedgerDep,
    store: StoreDep,
    reads: ReadsDep,
    quotas: QuotasDep,
    rights_watch: RightsWatchDep,
    context: ContextDep,
    caller: CallerDep,
) -> StreamingResponse:
    """Allowed to people of its organisation and of those that see it; in the form of `history`."""
    caller.must(Action.SEE, address)
    offer = await registry.listings.find(address, caller.at_ns)
    if offer is None or offer.listing.sample is None:
        raise Unknown(f"there is no sample of {address}")
    caller.must(Action.SAMPLE, address)
    sample = offer.listing.sample
    entry, from_ns, to_ns = sample.entry, sample.from_ns, sample.to_ns
    spec = await registry.streams.get(entry.address)
    window = Window(entry.space, spec, spec.names, from_ns, to_ns)
    gaps = await ledger.gaps(entry.space, entry.address, from_ns, to_ns)
    quotas.reading(caller.organisation)
    context.entry.facts |= SampleResponse.from_sample(sample).model_dump(by_alias=True)
    await reads.note(caller.id, entry, "sample")
    meter = ReadMeter(organisation=caller.organisation, quotas=quotas, facts=context.entry.facts)
    frames = counted(store.read(window), meter)
    csv = query.format is Format.CSV
    chunks = await begun(as_csv(window, frames) if csv else as_json(window, frames, gaps))
    return Streamed(
        chunks,
        right=rights_watch.watching(caller, Action.SAMPLE, address),
        media_type="text/csv; charset=utf-8" if csv else "application/json",
    )


async def _response(
    registry: Registry, caller: Caller, address: EquipmentAddress, offer: Offer | None
) -> ListingResponse:
    """An equipment with its streams, as it is listed; to whom, for its own organisation alone."""
    listing = None if offer is None else offer.listing
    sample = None if listing is None else listing.sample
    own: dict[str, list[str]] = {}
    if address.organisation == caller.organisation:
        own["listed_to"] = [] if listing is None else sorted(listing.organisations or ())
    return ListingResponse.extending(
        equipment_response(await registry.equipment.get(address)),
        everybody=listing is not None and listing.organisations is None,
        terms="" if offer is None else offer.terms,
        sample=None if sample is None else SampleResponse.from_sample(sample),
        streams=[stream async for stream in _streams(registry, address)],
        **own,
    )


async def _streams(
    registry: Registry, address: EquipmentAddress
) -> AsyncIterator[ListedStreamResponse]:
    """Each stream of an equipment, with the unit of each signal."""
    after: StreamAddress | None = None
    among = Visibility(equipment=frozenset({address}))
    while page := await registry.streams.page(after, 500, among=among):
        for spec in page:
            units = {signal.name: signal.unit for signal in spec.signals}
            yield ListedStreamResponse(stream=str(spec.address), signals=units)
        after = page[-1].address
