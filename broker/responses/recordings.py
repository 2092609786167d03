"""Answers about recordings on the server."""

from typing import Annotated

from pydantic import Field

from broker.recordings.server_states import RecordingState
from broker.responses.base import AT, LATER, STREAM, ApiResponse, Instant, PageResponse

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_FROM = "2026-11-23T11:00:00.000000000Z"


class StreamOfRecordingResponse(ApiResponse):
    """A stream of a recording; its counts are 0 until it is complete."""

    stream: Annotated[str, Field(examples=[STREAM])]
    grants: Annotated[
        list[int], Field(description="under which it was read; none for an own", examples=[[5]])
    ]
    rows: Annotated[int, Field(description="instants with a sample", examples=[36_000])]
    samples: Annotated[int, Field(examples=[288_000])]


class RecordingResponse(ApiResponse):
    """A recording that the server makes, holds or held."""

    id: Annotated[int, Field(examples=[12])]
    name: Annotated[str, Field(examples=["valve-1"])]
    note: Annotated[str, Field(examples=["the valve sticks"])]
    organisation: Annotated[str, Field(examples=["company"])]
    made_by: Annotated[str, Field(examples=["cora"])]
    space: Annotated[str, Field(examples=["live"])]
    from_: Annotated[Instant, Field(alias="from", examples=[_FROM])]
    to: Instant
    state: Annotated[RecordingState, Field(examples=["complete"])]
    reason: Annotated[
        str, Field(description="why it failed, or was deleted; else empty", examples=[""])
    ]
    created: Instant
    done: Annotated[
        str | None, Field(description="when it was complete or failed", examples=[LATER])
    ]
    deleted: Annotated[str | None, Field(examples=[None])]
    sha256: Annotated[
        str | None, Field(description="hash over all; null until it is complete", examples=[SHA256])
    ]
    bytes: Annotated[int, Field(description="of all its files", examples=[1_048_576])]
    streams: list[StreamOfRecordingResponse]
    refusal: Annotated[
        str | None,
        Field(description="why you may not read it now; null if you may", examples=[None]),
    ]


class RecordingPage(PageResponse):
    """A page of the recordings that concern an organisation."""

    items: list[RecordingResponse]


class RecordingDetailResponse(RecordingResponse):
    """A recording with its manifest."""

    manifest: Annotated[
        str | None,
        Field(
            description="manifest.json of a complete one that you may read now, to the byte, so"
            " that its hash is that in SHA256SUMS; else null",
            examples=['{"format":"testbed-recording","version":1,"name":"valve-1",…}'],
        ),
    ]


class ChangedFileResponse(ApiResponse):
    """A file of a recording that is not as it was recorded."""

    path: Annotated[str, Field(examples=["streams/factory_pump-rig_rig.parquet"])]
    problem: Annotated[str, Field(examples=["it is missing"])]


class VerifiedRecordingResponse(ApiResponse):
    """The outcome of a comparison of every file of a recording with its hash."""

    id: Annotated[int, Field(examples=[12])]
    sha256: Annotated[str, Field(description="the recording's hash", examples=[SHA256])]
    at: Annotated[str, Field(description="when it was compared", examples=[AT])]
    differences: Annotated[
        list[ChangedFileResponse],
        Field(description="none if all is as it was recorded", examples=[[]]),
    ]
