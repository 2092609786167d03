"""Routes: what is stored of a stream, and what comes in now."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from broker import codec
from broker.batch import BAD, Gap, Long
from broker.clock import NS_PER_S, ns_of, text_of
from broker.errors import BedError, Forbidden, Invalid
from broker.namespace import StreamAddress, StreamTopic, Verb
from testbed_api.http import following
from testbed_api.http.access import Asking
from testbed_api.http.forms import Id, Space
from testbed_api.parts import Given
from testbed_api.stores.port import Window

router = APIRouter(tags=["streams"], prefix="/streams/{organisation}/{equipment}/{stream}")

DEFAULT_SPAN_S = 3600
EARLIEST_NS, LATEST_NS = -(2**63) + 1, 2**63 - 1

log = structlog.get_logger()


class Form(StrEnum):
    """How history is written."""

    JSON = "json"
    CSV = "csv"


Instant = Annotated[
    str | None,
    Query(max_length=40, description="RFC 3339 with an offset or Z", examples=["2026-11-23T12:00:00Z"]),
]


@router.get("/history", summary="What is stored", response_class=StreamingResponse)
async def history(  # noqa: PLR0913 - a query has as many parameters as it has
    organisation: Id,
    equipment: Id,
    stream: Id,
    parts: Given,
    caller: Asking,
    space: Annotated[Space, Query(description="live, or run-<id>")] = "live",
    from_: Annotated[Instant, Query(alias="from", description="included; an hour before `to` if left out")] = None,
    to: Annotated[Instant, Query(description="not included; now if left out")] = None,
    signals: Annotated[list[str] | None, Query(max_length=1_000, description="all if left out")] = None,
    points: Annotated[int | None, Query(ge=2, le=100_000, description="thin each signal to about so many")] = None,
    format: Form = Form.JSON,  # noqa: A002 - the name that everybody types
) -> StreamingResponse:
    """The samples of a span, streamed: as JSON in the frames of the wire, or as CSV with a row a time stamp.

    Thinning keeps least and greatest values at their own times. If the store fails on the way the JSON stays
    unfinished, and the CSV ends in a line that begins with `#`. CSV shows usable values only; a bad sample is empty.
    """
    address = StreamAddress(organisation, equipment, stream)
    caller.must_read(space, address)
    spec = await parts.registry.spec(address)
    from_ns, to_ns = _span(from_, to, parts.clock.now_ns())
    names = tuple(dict.fromkeys(signals)) if signals else spec.names
    window = Window(space, spec, names, from_ns, to_ns)
    frames = parts.store.read(window) if points is None else parts.store.thin(window, points)
    first = await anext(aiter(frames), None)  # so that a store that is away is a status, not a broken body
    gaps = await parts.ledger.gaps(space, address, from_ns, to_ns)
    if format is Form.CSV:
        return StreamingResponse(_csv(window, first, frames), media_type="text/csv; charset=utf-8")
    return StreamingResponse(_json(window, first, frames, gaps), media_type="application/json")


@router.get("/gaps", summary="What is known to be missing")
async def gaps(  # noqa: PLR0913
    organisation: Id,
    equipment: Id,
    stream: Id,
    parts: Given,
    caller: Asking,
    space: Annotated[Space, Query()] = "live",
    from_: Annotated[Instant, Query(alias="from")] = None,
    to: Annotated[Instant, Query()] = None,
) -> dict[str, Any]:
    """The gaps that touch a span; the whole past if none is named. No signals named means all of the stream."""
    address = StreamAddress(organisation, equipment, stream)
    caller.must_read(space, address)
    await parts.registry.spec(address)
    found = await parts.ledger.gaps(space, address, _at(from_, EARLIEST_NS), _at(to, LATEST_NS))
    return {"items": [codec.gap_out(gap) for gap in found]}


@router.get("/dead-letters", summary="What could not be stored, and why")
async def dead_letters(  # noqa: PLR0913
    organisation: Id,
    equipment: Id,
    stream: Id,
    parts: Given,
    caller: Asking,
    space: Annotated[Space, Query()] = "live",
    cursor: Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:
    """For whoever publishes the stream, and administrators."""
    address = StreamAddress(organisation, equipment, stream)
    if not caller.writes(address) and not caller.is_administrator:
        caller.must_read(space, address)
        raise Forbidden(f"{caller.principal} does not publish {address}")
    found = await parts.ledger.dead_letters(space, address, cursor, limit)
    items = [
        {
            "id": one.id,
            "epoch": one.epoch,
            "seq": one.seq,
            "signal": one.signal,
            "time": None if one.time_ns is None else text_of(one.time_ns),
            "value": one.value,
            "reason": one.reason,
            "received": text_of(one.received_ns),
        }
        for one in found
    ]
    return {"items": items, "next": found[-1].id if len(found) == limit else None}


@router.get("/live", summary="What comes in now", response_class=StreamingResponse)
async def live(  # noqa: PLR0913
    organisation: Id,
    equipment: Id,
    stream: Id,
    parts: Given,
    caller: Asking,
    space: Annotated[Space, Query()] = "live",
) -> StreamingResponse:
    """Server-sent events: `batch` with the JSON of the wire, `missed` with a count when you are too slow."""
    address = StreamAddress(organisation, equipment, stream)
    caller.must_read(space, address)
    topic = str(StreamTopic(space, Verb.DATA, address))
    return StreamingResponse(
        following.events(parts, caller, topic),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


def _span(from_: str | None, to: str | None, now_ns: int) -> tuple[int, int]:
    to_ns = _at(to, now_ns)
    from_ns = _at(from_, to_ns - DEFAULT_SPAN_S * NS_PER_S)
    if from_ns >= to_ns:
        raise Invalid(f"the span from {from_ or text_of(from_ns)} to {to or text_of(to_ns)} is empty or inverted", hint="'from' must be earlier than 'to'")
    return from_ns, to_ns


def _at(text: str | None, otherwise_ns: int) -> int:
    if text is None:
        return otherwise_ns
    time_ns = ns_of(text)
    if not EARLIEST_NS <= time_ns <= LATEST_NS:
        raise Invalid(f"{text} cannot be stored", hint="between the years 1678 and 2262")
    return time_ns


async def _json(
    window: Window, first: Long | None, rest: AsyncIterator[Long], gaps: Sequence[Gap]
) -> AsyncIterator[bytes]:
    head = {"stream": str(window.spec.address), "space": window.space, "spec": window.spec.version}
    yield codec.dumps(head)[:-1] + b',"frames":['
    try:
        if first is not None:
            yield codec.dumps(codec.frame_out(first))
        async for frame in rest:
            yield b"," + codec.dumps(codec.frame_out(frame))
    except BedError as exc:
        log.error("history broke off", stream=head["stream"], reason=str(exc))
        return
    yield b'],"gaps":' + codec.dumps([codec.gap_out(gap) for gap in gaps]) + b"}"


async def _csv(window: Window, first: Long | None, rest: AsyncIterator[Long]) -> AsyncIterator[str]:
    columns = [name for name in window.spec.names if name in window.signals]
    table = _Table([window.spec.names.index(name) for name in columns])
    table.write(["time", *columns])
    try:
        if first is not None:
            table.add(first)
        async for frame in rest:
            table.add(frame)
            yield table.taken()
    except BedError as exc:
        log.error("history broke off", stream=str(window.spec.address), reason=str(exc))
        table.close()
        yield table.taken() + "# broke off: ask again\n"
        return
    table.close()
    yield table.taken()


class _Table:
    """Long frames as CSV rows: samples of equal time become one row."""

    def __init__(self, signals: Sequence[int]) -> None:
        self._text = io.StringIO()
        self._rows = csv.writer(self._text)
        self._place = {signal: at for at, signal in enumerate(signals)}
        self._time_ns: int | None = None
        self._cells: list[Any] = []

    def write(self, cells: Sequence[object]) -> None:
        self._rows.writerow(cells)

    def add(self, frame: Long) -> None:
        columns = (frame.time_ns, frame.signal, frame.values, frame.quality)
        for time_ns, signal, value, quality in zip(*(one.tolist() for one in columns), strict=True):
            if time_ns != self._time_ns:
                self.close()
                self._time_ns, self._cells = time_ns, [""] * len(self._place)
            if quality != BAD:
                self._cells[self._place[signal]] = value

    def close(self) -> None:
        """Write the row that is open."""
        if self._time_ns is not None:
            self.write([text_of(self._time_ns), *self._cells])
        self._time_ns = None

    def taken(self) -> str:
        """The text so far, which is forgotten here."""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text
