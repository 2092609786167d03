"""Answers about equipment, its streams and their specs."""

from typing import Annotated, Self

from pydantic import Field

from broker import messages
from broker.clock import text_of
from broker.messages import Health
from broker.namespace import EquipmentKind
from broker.responses.base import (
    AT,
    LATER,
    STREAM,
    ApiResponse,
    Instant,
    OptionalInstant,
    PageResponse,
)
from broker.streams import FUTURE_LIMIT_S, PAST_LIMIT_S, Dtype, Signal, StreamSpec, Trigger
from broker.wire import WIRE_VERSION


class EquipmentResponse(ApiResponse):
    """A machine, or a deployment of a prototype."""

    organisation: Annotated[str, Field(examples=["factory"])]
    equipment: Annotated[str, Field(examples=["pump-rig"])]
    name: Annotated[str, Field(examples=["Pump rig 1"])]
    kind: Annotated[EquipmentKind, Field(examples=["simulated"])]
    site: Annotated[
        dict[str, str],
        Field(
            description="the levels of ISA-95 that are known: enterprise, site, area, line",
            examples=[{"enterprise": "The Factory Ltd", "site": "North"}],
        ),
    ]
    description: Annotated[str, Field(examples=[""])]


class EquipmentPage(PageResponse):
    """A page of equipment, by address."""

    items: list[EquipmentResponse]
    next: Annotated[
        str | None,
        Field(description="`cursor` of the next page", examples=["factory/pump-rig"]),
    ]


class SignalResponse(ApiResponse):
    """One typed series of a stream."""

    name: Annotated[str, Field(examples=["Pressure"])]
    dtype: Annotated[Dtype, Field(examples=["float64"])]
    shape: Annotated[
        list[int],
        Field(description="[] for one value a sample, [n] for an array of n", examples=[[]]),
    ]
    unit: Annotated[str, Field(description="UCUM code", examples=["bar"])]
    low: Annotated[float | None, Field(examples=[0.0])]
    high: Annotated[float | None, Field(examples=[6.0])]
    resolution: Annotated[float | None, Field(examples=[0.01])]
    description: Annotated[str, Field(examples=["behind the pump"])]
    node: Annotated[str, Field(examples=["nsu=urn:factory;s=Pressure"])]

    @classmethod
    def from_signal(cls, signal: Signal) -> Self:
        """The signal as the API answers it."""
        return cls(
            name=signal.name,
            dtype=signal.dtype,
            shape=list(signal.shape),
            unit=signal.unit,
            low=signal.low,
            high=signal.high,
            resolution=signal.resolution,
            description=signal.description,
            node=signal.node,
        )


class SpecResponse(ApiResponse):
    """One version of a stream's spec: the meaning of its columns.  It never changes."""

    v: Annotated[int, Field(description="version of the wire format", examples=[WIRE_VERSION])]
    stream: Annotated[str, Field(examples=[STREAM])]
    version: Annotated[int, Field(examples=[1])]
    trigger: Annotated[Trigger, Field(examples=["timestamp"])]
    period_s: Annotated[float, Field(examples=[1.0])]
    max_silence_s: Annotated[float, Field(examples=[10.0])]
    past_limit_s: Annotated[
        float,
        Field(
            description="most seconds that a sample lies before its arrival",
            examples=[PAST_LIMIT_S],
        ),
    ]
    future_limit_s: Annotated[
        float,
        Field(description="most seconds that it lies after its arrival", examples=[FUTURE_LIMIT_S]),
    ]
    description: Annotated[str, Field(examples=[""])]
    signals: list[SignalResponse]

    @classmethod
    def from_spec(cls, spec: StreamSpec) -> Self:
        """The spec as the API answers it; the same JSON as `messages.spec_json`."""
        return cls(
            v=WIRE_VERSION,
            stream=str(spec.address),
            version=spec.version,
            trigger=spec.trigger,
            period_s=spec.period_s,
            max_silence_s=spec.max_silence_s,
            past_limit_s=spec.past_limit_s,
            future_limit_s=spec.future_limit_s,
            description=spec.description,
            signals=[SignalResponse.from_signal(signal) for signal in spec.signals],
        )

    def spec(self) -> StreamSpec:
        """The spec that the answer describes; raises Corrupt."""
        return messages.spec_from_json(self.model_dump())


class SpecsResponse(ApiResponse):
    """Specs of several streams, in the order in which they were proposed."""

    items: list[SpecResponse]


class StreamFreshnessResponse(ApiResponse):
    """The freshness of a stream in one space."""

    state: Annotated[messages.Freshness, Field(examples=["fresh"])]
    last: OptionalInstant
    at: Annotated[Instant, Field(description="when the publisher said it, by its own clock")]
    valid_until: Annotated[str, Field(description="likewise", examples=[LATER])]
    alarms: Annotated[list[str], Field(examples=[[]])]

    @classmethod
    def from_health(cls, state: messages.Freshness, health: Health) -> Self:
        """A publisher's health with the state that the server sees now."""
        return cls(
            state=state,
            last=None if health.last_ns is None else text_of(health.last_ns),
            at=text_of(health.at_ns),
            valid_until=text_of(health.valid_until_ns),
            alarms=list(health.alarms),
        )

    def health(self) -> Health:
        """The health that the answer describes; raises Corrupt."""
        return messages.health_from_json(self.model_dump())


class StreamResponse(ApiResponse):
    """A stream with its newest spec, and its freshness in the spaces that the caller sees."""

    stream: Annotated[str, Field(examples=[STREAM])]
    spec: SpecResponse
    freshness: Annotated[
        dict[str, StreamFreshnessResponse],
        Field(
            description="by space",
            examples=[
                {
                    "live": {
                        "state": "fresh",
                        "last": AT,
                        "at": AT,
                        "valid_until": LATER,
                        "alarms": [],
                    }
                }
            ],
        ),
    ]


class StreamPage(PageResponse):
    """A page of streams, by address."""

    items: list[StreamResponse]
    next: Annotated[str | None, Field(description="`cursor` of the next page", examples=[STREAM])]


class HeldResponse(ApiResponse):
    """The newest life of a stream's publisher of which the ledger holds batches."""

    stream: Annotated[str, Field(examples=[STREAM])]
    epoch: Annotated[str, Field(description="of that life", examples=["01JD"])]
    seq: Annotated[int, Field(description="the greatest number it holds", examples=[4711])]
    until: Annotated[
        str | None,
        Field(
            description="time stamp up to which it lacks no batch, as far as it knows",
            examples=[AT],
        ),
    ]


class HeldPage(PageResponse):
    """A page of what the ledger holds of an equipment's streams, by stream."""

    items: list[HeldResponse]
    next: Annotated[str | None, Field(description="`cursor` of the next page", examples=[STREAM])]
