"""Route: who could read an equipment's streams, and who did."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from broker import access_history
from broker.access_history import Access
from broker.clock import NS_PER_S, text_of
from broker.errors import Invalid
from broker.rights import Action, Span
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import ClockDep, RegistryDep
from testbed_api.http.schemas import EARLIEST_NS, LATEST_NS, Form, Instant, OfEquipment, storable
from testbed_api.registry.access_log import DAY_NS, BrokerSession, ReadCount

router = APIRouter(tags=["sharing"])

_ONE = "/equipment/{organisation}/{equipment}"
DID_DAYS = 30
MEANT = (
    "minutes connected with the right to hear the stream, and batches that the recorder took in"
    " meanwhile: at most what was heard, whether it was subscribed is not known"
)
_AT = "2026-11-23T12:00:00.000000000Z"
_WHOSE = {
    "organisation": "company",
    "principal": "cora",
    "space": "live",
    "stream": "factory/pump-rig/rig",
}
_EXAMPLE = {
    "equipment": "factory/pump-rig",
    "could": [
        _WHOSE
        | {
            "kind": "person",
            "from": _AT,
            "until": None,
            "grant": 5,
            "purpose": "to find out why the pump stalls",
        }
    ],
    "did": {
        "from": "2026-10-24T12:00:00.000000000Z",
        "to": _AT,
        "http": [_WHOSE | {"day": "2026-11-23", "way": "history", "times": 3, "last": _AT}],
        "mqtt": [_WHOSE | {"from": _AT, "until": None, "minutes": 12.5, "batches": 750}],
        "mqtt_means": MEANT,
    },
}


class AccessWanted(Form):
    """Of which moment, or of which span; now if nothing is said."""

    at: Annotated[Instant, Field(description="who could read at this instant")] = None
    from_: Annotated[Instant, Field(alias="from", description="at any moment from here")] = None
    to: Annotated[Instant, Field(description="to here; now if left out")] = None

    def spans(self, now_ns: int) -> tuple[Span, Span]:
        """Of who could, and of who did: the same span, or the days before the instant."""
        if self.at is not None and (self.from_ is not None or self.to is not None):
            raise Invalid("at is given together with a span", hint="give one of them")
        if self.from_ is None and self.to is not None:
            raise Invalid("to is given without from", hint="give both, or neither")
        if self.from_ is not None:
            begin_ns, end_ns = (
                storable(self.from_),
                now_ns if self.to is None else storable(self.to),
            )
            if end_ns <= begin_ns:
                raise Invalid("the span ends before it begins")
            return Span(begin_ns, end_ns), Span(begin_ns, end_ns)
        at_ns = now_ns if self.at is None else storable(self.at)
        after_ns = min(at_ns + 1, LATEST_NS)
        before_ns = max(at_ns - DID_DAYS * DAY_NS, EARLIEST_NS)
        return Span(after_ns - 1, after_ns), Span(before_ns, after_ns)


@router.get(
    _ONE + "/access",
    openapi_extra=asks(Action.WATCH),
    summary="Who could read an equipment's streams, and who did",
    responses=openapi_examples.answer(_EXAMPLE),
)
async def equipment_access(
    address: OfEquipment,
    asked: Annotated[AccessWanted, Query()],
    registry: RegistryDep,
    clock: ClockDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For the people of its organisation: now, at a moment of the past, or over a span.

    `could` follows from what was agreed, each right with the whole time that it held. `did` over
    HTTP is counted, each read before it is answered; on the bus it is an upper bound. At an instant
    `did` tells of the thirty days before.
    """
    caller.must(Action.WATCH, address)
    await registry.equipment.get(address)
    now_ns = clock.now_ns()
    could_span, did_span = asked.spans(now_ns)
    rights = await registry.rights.of_equipment(address)
    could = await asyncio.to_thread(
        lambda: list(access_history.readers(rights, address, could_span))
    )
    purposes = {one.id: one.purpose for one in await registry.grants.by_owner(address.organisation)}
    begin_ns, end_ns = did_span.from_ns, did_span.until_ns or now_ns
    return {
        "equipment": str(address),
        "could": [_could(one, purposes) for one in could],
        "did": {
            "from": text_of(begin_ns),
            "to": text_of(end_ns),
            "http": [_read(one) for one in await registry.reads.between(address, begin_ns, end_ns)],
            "mqtt": [
                _session(one, begin_ns, min(end_ns, now_ns))
                for one in await registry.sessions.between(address, begin_ns, end_ns)
            ],
            "mqtt_means": MEANT,
        },
    }


def _could(one: Access, purposes: Mapping[int, str]) -> dict[str, Any]:
    until_ns = one.span.until_ns
    return {
        "organisation": one.organisation,
        "principal": one.principal,
        "kind": one.kind,
        "space": one.entry.space,
        "stream": str(one.entry.address),
        "from": text_of(one.span.from_ns),
        "until": None if until_ns is None else text_of(until_ns),
        "grant": one.grant,
        "purpose": None if one.grant is None else purposes.get(one.grant, ""),
    }


def _read(one: ReadCount) -> dict[str, Any]:
    return {
        "organisation": one.organisation,
        "principal": one.principal,
        "space": one.entry.space,
        "stream": str(one.entry.address),
        "day": text_of(one.day * DAY_NS)[:10],
        "way": one.way,
        "times": one.times,
        "last": text_of(one.last_ns),
    }


def _session(one: BrokerSession, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """Its minutes in the span; its batches are those of the whole connection."""
    stood_ns = min(one.until_ns or end_ns, end_ns) - max(one.from_ns, begin_ns)
    return {
        "organisation": one.organisation,
        "principal": one.principal,
        "space": one.entry.space,
        "stream": str(one.entry.address),
        "from": text_of(one.from_ns),
        "until": None if one.until_ns is None else text_of(one.until_ns),
        "minutes": round(max(stood_ns, 0) / (60 * NS_PER_S), 2),
        "batches": one.batches,
    }
