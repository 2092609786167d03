"""Route: who could read an equipment's streams, and who did."""

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from broker import access_history
from broker.access_history import Access
from broker.clock import DAY_NS, NS_PER_S, text_of
from broker.errors import Invalid
from broker.namespace import EquipmentAddress
from broker.responses.access import (
    MQTT_MEANS,
    AccessResponse,
    HttpReadsResponse,
    MqttSessionResponse,
    PossibleReadResponse,
    ReadsResponse,
    TakenStreamResponse,
)
from broker.rights import Action, Span
from testbed_api.domain.recordings import HeldStream, ServerRecording
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import ClockDep, RegistryDep
from testbed_api.http.schemas import EARLIEST_NS, LATEST_NS, Form, Instant, OfEquipment, storable
from testbed_api.registry.access_log import BrokerSession, ReadCount
from testbed_api.registry.registry import Registry

router = APIRouter(tags=["sharing"])

_ONE = "/equipment/{organisation}/{equipment}"
DID_DAYS = 30


class AccessWanted(Form):
    """Query of an access report: an instant or a span, now by default."""

    at: Annotated[Instant, Field(description="who could read at this instant")] = None
    from_: Annotated[Instant, Field(alias="from", description="at any moment from here")] = None
    to: Annotated[Instant, Field(description="to here; now if left out")] = None

    def spans(self, now_ns: int) -> tuple[Span, Span]:
        """The span of possible access, and the span of actual reads: days before the instant."""
        if self.at is not None and (self.from_ is not None or self.to is not None):
            raise Invalid("at is given together with a span", hint="give one of them")
        if self.from_ is None and self.to is not None:
            raise Invalid("to is given without from", hint="give both, or neither")
        if self.from_ is not None:
            begin_ns, end_ns = (
                storable(self.from_, now_ns),
                now_ns if self.to is None else storable(self.to, now_ns),
            )
            if end_ns <= begin_ns:
                raise Invalid("the span ends before it begins")
            return Span(begin_ns, end_ns), Span(begin_ns, end_ns)
        at_ns = now_ns if self.at is None else storable(self.at, now_ns)
        after_ns = min(at_ns + 1, LATEST_NS)
        before_ns = max(at_ns - DID_DAYS * DAY_NS, EARLIEST_NS)
        return Span(after_ns - 1, after_ns), Span(before_ns, after_ns)


@router.get(
    _ONE + "/access",
    openapi_extra=asks(Action.WATCH),
    summary="Who could read an equipment's streams, and who did",
    responses=openapi_examples.answer(AccessResponse),
)
async def equipment_access(
    address: OfEquipment,
    query: Annotated[AccessWanted, Query()],
    registry: RegistryDep,
    clock: ClockDep,
    caller: CallerDep,
) -> AccessResponse:
    """Allowed to the people of its organisation: now, at a moment of the past, or over a span.

    `could` follows from what was agreed, each right with the whole time that it held: of two
    grants that overlap, each to its own end. `did` over HTTP is counted, each read before it is
    answered; on the bus it is an upper bound. At an instant `did` tells of the thirty days before.
    """
    caller.must(Action.WATCH, address)
    await registry.equipment.get(address)
    now_ns = clock.now_ns()
    could_span, did_span = query.spans(now_ns)
    rights = await registry.rights.of_equipment(address)
    could = await asyncio.to_thread(
        lambda: list(access_history.readers(rights, address, could_span))
    )
    purposes = {
        grant.id: grant.purpose for grant in await registry.grants.by_owner(address.organisation)
    }
    return AccessResponse(
        equipment=str(address),
        could=[_possible_read(access, purposes) for access in could],
        did=await _reads(registry, address, did_span, now_ns),
        recordings=await _recordings(registry, address, did_span, now_ns),
    )


async def _reads(
    registry: Registry, address: EquipmentAddress, span: Span, now_ns: int
) -> ReadsResponse:
    """The reads of an equipment's streams in a span, over HTTP and on the bus."""
    begin_ns, end_ns = span.from_ns, span.until_ns or now_ns
    counts = await registry.reads.between(address, begin_ns, end_ns)
    sessions = await registry.sessions.between(address, begin_ns, end_ns)
    last_ns = min(end_ns, now_ns)
    return ReadsResponse(
        from_=text_of(begin_ns),
        to=text_of(end_ns),
        http=[_http_reads(count) for count in counts],
        mqtt=[_mqtt_session(session, begin_ns, last_ns) for session in sessions],
        mqtt_means=MQTT_MEANS,
    )


async def _recordings(
    registry: Registry, address: EquipmentAddress, span: Span, now_ns: int
) -> list[TakenStreamResponse]:
    """The recordings of an equipment's streams that were there at any moment of a span."""
    held = await registry.recordings.of_equipment(address, span.from_ns, span.until_ns or now_ns)
    return [
        _taken_stream(recording, stream)
        for recording in held
        for stream in recording.streams
        if stream.stream.owner == address
    ]


def _taken_stream(recording: ServerRecording, stream: HeldStream) -> TakenStreamResponse:
    return TakenStreamResponse(
        organisation=recording.organisation,
        principal=recording.made_by,
        recording=recording.id,
        name=recording.name,
        space=recording.space,
        stream=str(stream.stream),
        from_=text_of(recording.from_ns),
        to=text_of(recording.to_ns),
        grants=list(stream.grants),
        samples=stream.samples,
        bytes=recording.size_bytes,
        state=recording.state,
        created=text_of(recording.created_ns),
        deleted=None if recording.deleted_ns is None else text_of(recording.deleted_ns),
    )


def _possible_read(access: Access, purposes: Mapping[int, str]) -> PossibleReadResponse:
    until_ns = access.span.until_ns
    return PossibleReadResponse(
        organisation=access.organisation,
        principal=access.principal,
        kind=access.kind,
        space=access.entry.space,
        stream=str(access.entry.address),
        from_=text_of(access.span.from_ns),
        until=None if until_ns is None else text_of(until_ns),
        grant=access.grant,
        purpose=None if access.grant is None else purposes.get(access.grant, ""),
    )


def _http_reads(count: ReadCount) -> HttpReadsResponse:
    return HttpReadsResponse(
        organisation=count.organisation,
        principal=count.principal,
        space=count.entry.space,
        stream=str(count.entry.address),
        day=text_of(count.day * DAY_NS)[:10],
        way=count.way,
        times=count.times,
        last=text_of(count.last_ns),
    )


def _mqtt_session(session: BrokerSession, begin_ns: int, end_ns: int) -> MqttSessionResponse:
    """A session with its minutes in the span, and the batches of its whole connection."""
    lasted_ns = min(session.until_ns or end_ns, end_ns) - max(session.from_ns, begin_ns)
    return MqttSessionResponse(
        organisation=session.organisation,
        principal=session.principal,
        space=session.entry.space,
        stream=str(session.entry.address),
        from_=text_of(session.from_ns),
        until=None if session.until_ns is None else text_of(session.until_ns),
        minutes=round(max(lasted_ns, 0) / (60 * NS_PER_S), 2),
        batches=session.batches,
    )
