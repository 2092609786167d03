"""Answers about grants, pauses and listings: access to streams of others."""

from typing import Annotated, Self

from pydantic import Field

from broker.clock import text_of
from broker.responses.base import (
    LATER,
    PURPOSE,
    STREAM,
    ApiResponse,
    Instant,
    OptionalInstant,
    PageResponse,
)
from broker.responses.equipment import EquipmentResponse
from broker.rights import GrantState, Pause, Sample

_SENTENCE = (
    "The owners and developers of company, and those of its machines that list the stream, may read"
    " factory/pump-rig/rig in live, as it comes and all that is stored of it, until somebody ends"
    f' it. Purpose: "{PURPOSE}". fay granted it on 2026-11-23 12:00:00 UTC.'
)


class GrantResponse(ApiResponse):
    """One stream in one space, granted to a company or asked for."""

    id: Annotated[int, Field(examples=[5])]
    company: Annotated[str, Field(examples=["company"])]
    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]
    purpose: Annotated[str, Field(examples=[PURPOSE])]
    state: Annotated[GrantState, Field(examples=["granted"])]
    from_: Annotated[OptionalInstant, Field(alias="from")]
    until: Annotated[str | None, Field(description="null is for ever", examples=[None])]
    asked_by: Annotated[
        str | None, Field(description="null if it was granted unasked", examples=["cora"])
    ]
    decided_by: Annotated[str | None, Field(examples=["fay"])]
    reason: Annotated[str, Field(description="of a refusal", examples=[""])]
    paused: Annotated[bool, Field(examples=[False])]
    paused_since: Annotated[
        str | None,
        Field(description="null unless its owner has paused it now", examples=[None]),
    ]
    sentence: Annotated[
        str,
        Field(
            description="what it means, for people",
            examples=[_SENTENCE],
        ),
    ]


class GrantsResponse(ApiResponse):
    """The grants that a request made or changed."""

    items: list[GrantResponse]


class RequestOutcomeResponse(ApiResponse):
    """The outcome of a request: a grant for each stream, new ones and those that stood before."""

    items: list[GrantResponse]
    standing: Annotated[
        list[int],
        Field(description="ids of those that were asked for or granted before", examples=[[]]),
    ]
    notes: Annotated[
        list[str],
        Field(description="a sentence about each of those, for people", examples=[[]]),
    ]


class GrantPage(PageResponse):
    """A page of grants, in the order of asking."""

    items: list[GrantResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[5])]


class PauseResponse(ApiResponse):
    """Grants that count for nothing until they are resumed."""

    company: Annotated[str | None, Field(description="null is any", examples=["company"])]
    equipment: Annotated[str | None, Field(description="null is any", examples=[None])]
    from_: Annotated[Instant, Field(alias="from")]

    @classmethod
    def from_pause(cls, pause: Pause) -> Self:
        """The pause as the API answers it."""
        return cls(
            company=pause.company,
            equipment=None if pause.equipment is None else f"{pause.owner}/{pause.equipment}",
            from_=text_of(pause.span.from_ns),
        )


class PausesResponse(ApiResponse):
    """The pauses of an organisation."""

    items: list[PauseResponse]


class ResumedResponse(ApiResponse):
    """The number of pauses that ended."""

    resumed: Annotated[int, Field(examples=[1])]


class SampleResponse(ApiResponse):
    """A part of a stream's past, shown as an example."""

    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]
    from_: Annotated[Instant, Field(alias="from")]
    to: Annotated[str, Field(examples=[LATER])]

    @classmethod
    def from_sample(cls, sample: Sample) -> Self:
        """The sample as the API answers it."""
        return cls(
            space=sample.entry.space,
            stream=str(sample.entry.address),
            from_=text_of(sample.from_ns),
            to=text_of(sample.to_ns),
        )


class ListedStreamResponse(ApiResponse):
    """A stream of a listed equipment, with the unit of each signal."""

    stream: Annotated[str, Field(examples=[STREAM])]
    signals: Annotated[
        dict[str, str], Field(description="unit by signal", examples=[{"Pressure": "bar"}])
    ]


class ListingResponse(EquipmentResponse):
    """An equipment as it is listed to other organisations."""

    everybody: Annotated[bool, Field(examples=[False])]
    terms: Annotated[str, Field(examples=["no publication without asking"])]
    sample: SampleResponse | None
    streams: list[ListedStreamResponse]
    listed_to: Annotated[
        list[str] | None,
        Field(description="for its own organisation; left out for others", examples=[["company"]]),
    ] = None


class ListingPage(PageResponse):
    """A page of what is listed to the caller, by address."""

    items: list[ListingResponse]
    next: Annotated[
        str | None,
        Field(description="`cursor` of the next page", examples=["factory/pump-rig"]),
    ]
