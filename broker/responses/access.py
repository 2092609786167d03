"""The answer to who could read an equipment's streams, and who did."""

from typing import Annotated

from pydantic import Field

from broker import rights
from broker.recordings.server_states import RecordingState
from broker.responses.base import AT, LATER, PURPOSE, STREAM, ApiResponse, Instant

MQTT_MEANS = (
    "minutes connected with the right to hear the stream, and batches that the recorder took in"
    " meanwhile: at most what was heard, whether it was subscribed is not known"
)


class ReaderResponse(ApiResponse):
    """A principal and a stream that it could read or did read."""

    organisation: Annotated[str, Field(examples=["company"])]
    principal: Annotated[str, Field(examples=["cora"])]


class PossibleReadResponse(ReaderResponse):
    """A right to read a stream, with the whole time that it held."""

    kind: Annotated[rights.PrincipalKind, Field(examples=["person"])]
    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]
    from_: Annotated[Instant, Field(alias="from")]
    until: Annotated[str | None, Field(description="null is not ended", examples=[None])]
    grant: Annotated[int | None, Field(description="null for an own stream", examples=[5])]
    purpose: Annotated[str | None, Field(examples=[PURPOSE])]


class HttpReadsResponse(ReaderResponse):
    """The reads of a stream over HTTP on one day."""

    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]
    day: Annotated[str, Field(description="in UTC", examples=["2026-11-23"])]
    way: Annotated[str, Field(examples=["history"])]
    times: Annotated[int, Field(examples=[3])]
    last: Instant


class MqttSessionResponse(ReaderResponse):
    """A connection to the broker with the right to hear a stream."""

    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]
    from_: Annotated[Instant, Field(alias="from")]
    until: Annotated[str | None, Field(description="null is connected", examples=[None])]
    minutes: Annotated[float, Field(examples=[12.5])]
    batches: Annotated[int, Field(examples=[750])]


class ReadsResponse(ApiResponse):
    """The reads of a span: counted over HTTP, an upper bound on the bus."""

    from_: Annotated[str, Field(alias="from", examples=["2026-10-24T12:00:00.000000000Z"])]
    to: Annotated[str, Field(examples=[AT])]
    http: list[HttpReadsResponse]
    mqtt: list[MqttSessionResponse]
    mqtt_means: Annotated[str, Field(examples=[MQTT_MEANS])]


class TakenStreamResponse(ReaderResponse):
    """A stream that stands in a recording on the server, and who had it recorded."""

    recording: Annotated[int, Field(examples=[12])]
    name: Annotated[str, Field(examples=["valve-1"])]
    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]
    from_: Annotated[Instant, Field(alias="from")]
    to: Annotated[str, Field(examples=[LATER])]
    grants: Annotated[list[int], Field(examples=[[5]])]
    samples: Annotated[int, Field(description="of this stream", examples=[288_000])]
    bytes: Annotated[int, Field(description="of the whole recording", examples=[1_048_576])]
    state: Annotated[RecordingState, Field(examples=["complete"])]
    created: Instant
    deleted: Annotated[str | None, Field(description="null while it is there", examples=[None])]


class AccessResponse(ApiResponse):
    """The readers of an equipment's streams: those that could read, and those that did."""

    equipment: Annotated[str, Field(examples=["factory/pump-rig"])]
    could: list[PossibleReadResponse]
    did: ReadsResponse
    recordings: Annotated[
        list[TakenStreamResponse],
        Field(
            default_factory=list,
            description="recordings on the server that held its streams at any time of `did`",
        ),
    ]
