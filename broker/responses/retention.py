"""Answers about the time that streams are kept, and about deletions."""

from typing import Annotated

from pydantic import Field

from broker.responses.base import STREAM, ApiResponse, Instant, OptionalInstant, PageResponse


class RetentionResponse(ApiResponse):
    """The time that the samples of a stream are kept."""

    stream: Annotated[str, Field(examples=[STREAM])]
    keep_days: Annotated[float | None, Field(description="null is for ever", examples=[30.0])]


class RetentionsResponse(ApiResponse):
    """The streams that are not kept for ever."""

    items: list[RetentionResponse]


class DeletionResponse(ApiResponse):
    """A deletion with the proof of what is gone."""

    id: Annotated[int, Field(examples=[3])]
    stream: Annotated[str, Field(examples=[STREAM])]
    space: Annotated[str, Field(examples=["live"])]
    from_: Annotated[
        str | None, Field(alias="from", description="null is from the beginning", examples=[None])
    ]
    to: Annotated[str, Field(examples=["2026-11-23T00:00:00.000000000Z"])]
    reason: Annotated[str, Field(examples=["retention"])]
    by: Annotated[str | None, Field(examples=[None])]
    why: Annotated[str, Field(examples=["kept for 2592000 s"])]
    samples: Annotated[int, Field(examples=[86_400])]
    signals: Annotated[
        dict[str, int] | None,
        Field(description="samples by signal", examples=[{"Pressure": 86_400}]),
    ]
    first: OptionalInstant
    last: OptionalInstant
    sha256: Annotated[
        str | None,
        Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]),
    ]
    gaps: Annotated[int | None, Field(description="null while it is under way", examples=[1])]
    dead_letters: Annotated[
        int | None, Field(description="null while it is under way", examples=[0])
    ]
    requested: Annotated[Instant, Field(alias="asked")]
    done: Annotated[OptionalInstant, Field(description="null while it is under way")]
    left: Annotated[
        int | None,
        Field(description="samples still there; null while it is under way", examples=[0]),
    ]


class DeletionsResponse(ApiResponse):
    """The deletions that a request made."""

    items: list[DeletionResponse]


class DeletionPage(PageResponse):
    """A page of deletions, in their order."""

    items: list[DeletionResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[3])]
