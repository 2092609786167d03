"""Routes: what is stored of a stream, and what comes in now."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from broker import codec
from broker.clock import text_of
from broker.namespace import StreamTopic, Verb
from broker.rights import Action, Entry
from testbed_api.http import live_events, openapi_examples
from testbed_api.http.auth import Asking, asks
from testbed_api.http.dependencies import Given
from testbed_api.http.history_format import as_csv, as_json, counted
from testbed_api.http.schemas import (
    EARLIEST_NS,
    LATEST_NS,
    Format,
    GapsWanted,
    InSpace,
    Letters,
    OfStream,
    Wanted,
)
from testbed_api.http.streaming import Streamed, begun
from testbed_api.recorder.ledger import DeadLetter, StreamSpan
from testbed_api.stores.port import Window

router = APIRouter(tags=["streams"], prefix="/streams/{organisation}/{equipment}/{stream}")

CSV_TYPE = "text/csv; charset=utf-8"
GAPS_HEADER = "Testbed-Gaps"


@router.get(
    "/history",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What is stored",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "the samples of the span",
            "headers": {
                GAPS_HEADER: {
                    "description": "how many known gaps touch the span",
                    "schema": {"type": "integer"},
                }
            },
            "content": {
                "application/json": {"example": openapi_examples.HISTORY},
                "text/csv": {"example": openapi_examples.CSV},
            },
        }
    },
)
async def history(
    address: OfStream, asked: Annotated[Wanted, Query()], parts: Given, caller: Asking
) -> StreamingResponse:
    """The samples of a span, streamed: as JSON in the frames of the wire, or as CSV.

    `from` is included, an hour before `to` if left out; `to` is not included, now if left out.
    Thinning keeps least and greatest values at their own times.

    CSV has a row for each time stamp and a column for each signal. A cell is empty where the signal
    has no sample at that time, or a bad one; an uncertain value stands there like a good one. Who
    needs quality and gaps reads JSON.

    If the store fails on the way, the connection is closed before the answer's end.
    """
    caller.must_read(asked.space, address)
    spec = await parts.registry.spec(address)
    from_ns, to_ns = asked.until(parts.clock.now_ns())
    names = tuple(dict.fromkeys(asked.signals)) or spec.names
    window = Window(asked.space, spec, names, from_ns, to_ns)
    gaps = await parts.ledger.gaps(asked.space, address, from_ns, to_ns)
    parts.limits.reading(caller.organisation, parts.clock.now_ns())
    store, points = parts.store, asked.points
    await parts.note_read(caller.id, Entry(asked.space, address), "history")
    parts.act.facts |= {"space": asked.space, "from": text_of(from_ns), "to": text_of(to_ns)}
    parts.act.facts |= {"signals": names, "points": points}
    frames = store.read(window) if points is None else store.thin(window, points)
    frames = counted(frames, parts, caller.organisation)
    csv = asked.format is Format.CSV
    chunks = await begun(as_csv(window, frames) if csv else as_json(window, frames, gaps))
    media_type = CSV_TYPE if csv else "application/json"
    return Streamed(chunks, headers={GAPS_HEADER: str(len(gaps))}, media_type=media_type)


@router.get(
    "/gaps",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What is known to be missing",
    responses=openapi_examples.answer(
        openapi_examples.page(openapi_examples.GAP, "1763899200000000000.17")
    ),
)
async def gaps(
    address: OfStream, asked: Annotated[GapsWanted, Query()], parts: Given, caller: Asking
) -> dict[str, Any]:
    """The gaps that touch a span, by where they begin; the whole past if no span is named.

    A gap that names no signals is one of the whole stream.
    """
    caller.must_read(asked.space, address)
    await parts.registry.spec(address)
    span = StreamSpan(asked.space, address, *asked.between(EARLIEST_NS, LATEST_NS))
    found = await parts.ledger.gap_page(span, asked.after, asked.limit + 1)
    page, more = found[: asked.limit], len(found) > asked.limit
    following = "{}.{}".format(*page[-1][0]) if more else None
    return {"items": [codec.gap_to_json(gap) for _, gap in page], "next": following}


@router.get(
    "/dead-letters",
    openapi_extra=asks(Action.WATCH),
    summary="What could not be stored, and why",
    responses=openapi_examples.answer(openapi_examples.page(openapi_examples.DEAD_LETTER, 17)),
)
async def dead_letters(
    address: OfStream, asked: Annotated[Letters, Query()], parts: Given, caller: Asking
) -> dict[str, Any]:
    """For the people of its organisation, and the machine that publishes it in that space."""
    caller.must(Action.WATCH, Entry(asked.space, address))
    await parts.registry.spec(address)
    found = await parts.ledger.dead_letters(asked.space, address, asked.cursor, asked.limit + 1)
    page, more = found[: asked.limit], len(found) > asked.limit
    return {"items": [_letter(one) for one in page], "next": page[-1].id if more else None}


@router.get(
    "/live",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What comes in now",
    response_class=StreamingResponse,
    responses=openapi_examples.answer(openapi_examples.EVENTS, "text/event-stream"),
)
async def live(
    address: OfStream, asked: Annotated[InSpace, Query()], parts: Given, caller: Asking
) -> StreamingResponse:
    """Server-sent events: `batch` with the JSON of the wire, `missed` with a count if you are slow.

    A comment comes every ten seconds. The stream ends within a second of your right to read it.
    """
    caller.must_read(asked.space, address)
    parts.act.facts["space"] = asked.space
    await parts.registry.spec(address)
    await parts.note_read(caller.id, Entry(asked.space, address), "live")
    events = await begun(
        live_events.events(parts, caller, StreamTopic(asked.space, Verb.DATA, address))
    )
    headers = {"Cache-Control": "no-store"}
    return Streamed(events, headers=headers, media_type="text/event-stream")


def _letter(one: DeadLetter) -> dict[str, Any]:
    return {
        "id": one.id,
        "epoch": one.epoch,
        "seq": one.seq,
        "signal": one.signal,
        "time": None if one.time_ns is None else text_of(one.time_ns),
        "value": one.value,
        "reason": one.reason,
        "received": text_of(one.received_ns),
    }
