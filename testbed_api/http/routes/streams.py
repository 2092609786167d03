"""Routes: stored samples, gaps and dead letters of a stream, and its live batches."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from broker.batch import Long
from broker.clock import text_of
from broker.namespace import StreamTopic, Verb
from broker.responses.streams import DeadLetterPage, DeadLetterResponse, GapPage, GapResponse
from broker.rights import Action, Entry
from testbed_api.actions import reading
from testbed_api.http import live_events, openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import (
    ClockDep,
    LedgerDep,
    LiveFeedsDep,
    QuotasDep,
    ReadsDep,
    RegistryDep,
    RightsWatchDep,
    StoreDep,
)
from testbed_api.http.history_format import ReadMeter, as_csv, as_json, counted
from testbed_api.http.schemas import (
    EARLIEST_NS,
    LATEST_NS,
    DeadLettersWanted,
    Format,
    GapsWanted,
    HistoryParameters,
    InSpace,
    OfStream,
    split_page,
)
from testbed_api.http.streaming import Streamed, begun
from testbed_api.recorder.ledger import DeadLetter, StreamSpan
from testbed_api.stores.port import SeriesStore, Window

router = APIRouter(tags=["streams"], prefix="/streams/{organisation}/{equipment}/{stream}")

CSV_TYPE = "text/csv; charset=utf-8"
JSON_TYPE = "application/json"
GAPS_HEADER = "Testbed-Gaps"


@router.get(
    "/history",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What is stored",
    response_class=StreamingResponse,
    responses=openapi_examples.history(GAPS_HEADER, "how many known gaps touch the span"),
)
async def history(
    address: OfStream,
    query: Annotated[HistoryParameters, Query()],
    registry: RegistryDep,
    ledger: LedgerDep,
    store: StoreDep,
    clock: ClockDep,
    reads: ReadsDep,
    quotas: QuotasDep,
    rights_watch: RightsWatchDep,
    context: ContextDep,
    caller: CallerDep,
) -> StreamingResponse:
    """The samples of a span, streamed: as JSON in the frames of the wire, or as CSV.

    `from` is included, an hour before `to` if left out; `to` is not included, now if left out.
    Thinning keeps least and greatest values at their own times. With `every` each window has one
    value, at its begin; windows begin at multiples of `every` since 1970.

    CSV has a row for each time stamp and a column for each signal. A cell is empty where the signal
    has no sample at that time, or a bad one; an uncertain value stands there like a good one. Who
    needs quality and gaps reads JSON. If the store fails on the way, or your right to read ends,
    the connection is closed before the answer's end.
    """
    await reading.must_read(registry, caller, query.space, address)
    spec, facts = await registry.streams.get(address), context.entry.facts
    window = query.window(spec, clock.now_ns())
    stored = _stored(store, window, query)
    gaps = await ledger.gaps(query.space, address, window.from_ns, window.to_ns)
    quotas.reading(caller.organisation)
    await reads.note(caller.id, Entry(query.space, address), query.way)
    facts |= query.facts(window)
    meter = ReadMeter(organisation=caller.organisation, quotas=quotas, facts=facts)
    frames, csv = counted(stored, meter), query.format is Format.CSV
    as_text = as_csv(window, frames) if csv else as_json(window, frames, gaps, query.aggregation())
    headers = {GAPS_HEADER: str(len(gaps))}
    media_type = CSV_TYPE if csv else JSON_TYPE
    topic = StreamTopic(query.space, Verb.DATA, address)
    right = rights_watch.watching(caller, Action.SUBSCRIBE, topic)
    return Streamed(await begun(as_text), right=right, headers=headers, media_type=media_type)


def _stored(store: SeriesStore, window: Window, query: HistoryParameters) -> AsyncIterator[Long]:
    """The samples of a window as the query asks for them; raises Invalid.  Nothing is read yet."""
    aggregation = query.aggregation()
    if aggregation is not None:
        aggregation.check(window.spec, window.signals, window.from_ns)
        return store.aggregate(window, aggregation)
    return store.read(window) if query.points is None else store.thin(window, query.points)


@router.get(
    "/gaps",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What is known to be missing",
    responses=openapi_examples.answer(GapPage),
)
async def gaps(
    address: OfStream,
    query: Annotated[GapsWanted, Query()],
    registry: RegistryDep,
    ledger: LedgerDep,
    caller: CallerDep,
) -> GapPage:
    """The gaps that touch a span, by where they begin; the whole past if no span is named.

    A gap that names no signals is one of the whole stream.
    """
    await reading.must_read(registry, caller, query.space, address)
    await registry.streams.get(address)
    ends = query.between(EARLIEST_NS, LATEST_NS, now_ns=caller.at_ns)
    span = StreamSpan(query.space, address, *ends)
    rows = await ledger.gap_page(span, query.after, query.limit + 1)
    page, more = split_page(rows, query.limit)
    following = "{}.{}".format(*page[-1][0]) if more else None
    items = [GapResponse.from_gap(gap) for _, gap in page]
    return GapPage(items=items, next=following)


@router.get(
    "/dead-letters",
    openapi_extra=asks(Action.WATCH),
    summary="What could not be stored, and why",
    responses=openapi_examples.answer(DeadLetterPage),
)
async def dead_letters(
    address: OfStream,
    query: Annotated[DeadLettersWanted, Query()],
    registry: RegistryDep,
    ledger: LedgerDep,
    caller: CallerDep,
) -> DeadLetterPage:
    """Allowed to the people of its organisation, and its publisher in that space.

    `from` and `to` are of their arrival; all that ever arrived if neither is named.
    """
    caller.must(Action.WATCH, Entry(query.space, address))
    await registry.streams.get(address)
    ends = query.between(EARLIEST_NS, LATEST_NS, now_ns=caller.at_ns)
    arrival = StreamSpan(query.space, address, *ends)
    rows = await ledger.dead_letters(arrival, query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    items = list(map(_dead_letter, page))
    return DeadLetterPage(items=items, next=page[-1].id if more else None)


@router.get(
    "/live",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What comes in now",
    response_class=StreamingResponse,
    responses=openapi_examples.text(openapi_examples.EVENTS, "text/event-stream"),
)
async def live(
    address: OfStream,
    query: Annotated[InSpace, Query()],
    registry: RegistryDep,
    reads: ReadsDep,
    live_feeds: LiveFeedsDep,
    clock: ClockDep,
    quotas: QuotasDep,
    rights_watch: RightsWatchDep,
    context: ContextDep,
    caller: CallerDep,
) -> StreamingResponse:
    """Server-sent events: `batch` with the JSON of the wire, `missed` with a count if you are slow.

    A comment comes every ten seconds. The stream ends within a second of your right to read it,
    with an event `ended`.
    """
    await reading.must_read(registry, caller, query.space, address)
    context.entry.facts["space"] = query.space
    await registry.streams.get(address)
    await reads.note(caller.id, Entry(query.space, address), "live")
    topic = StreamTopic(query.space, Verb.DATA, address)
    events = await begun(
        live_events.LiveEvents(
            caller=caller,
            topic=topic,
            registry=registry,
            feeds=live_feeds,
            clock=clock,
            quotas=quotas,
            facts=context.entry.facts,
        ).events()
    )
    return Streamed(
        events,
        right=rights_watch.watching(caller, Action.SUBSCRIBE, topic),
        farewell=live_events.FAREWELL,
        headers={"Cache-Control": "no-store"},
        media_type="text/event-stream",
    )


def _dead_letter(letter: DeadLetter) -> DeadLetterResponse:
    return DeadLetterResponse(
        id=letter.id,
        epoch=letter.epoch,
        seq=letter.seq,
        signal=letter.signal,
        time=None if letter.time_ns is None else text_of(letter.time_ns),
        value=letter.value,
        reason=letter.reason,
        received=text_of(letter.received_ns),
    )
