"""Answers about the samples of a stream: history, gaps and dead letters."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from broker.aggregation import Aggregate
from broker.clock import text_of
from broker.responses.base import LATER, STREAM, ApiResponse, Instant, OptionalInstant, PageResponse

if TYPE_CHECKING:
    from broker.batch import Gap


class GapResponse(ApiResponse):
    """A stated hole in a stream: samples between two instants, both included, are missing."""

    signals: Annotated[
        list[str], Field(description="none means all of the stream", examples=[["Pressure"]])
    ]
    from_: Annotated[Instant, Field(alias="from")]
    to: Annotated[str, Field(examples=[LATER])]
    cause: Annotated[str, Field(examples=["server-overflow"])]

    @classmethod
    def from_gap(cls, gap: "Gap") -> Self:
        """The gap as the API answers it."""
        return cls(
            signals=list(gap.signals),
            from_=text_of(gap.from_ns),
            to=text_of(gap.to_ns),
            cause=gap.cause,
        )

    def gap(self) -> "Gap":
        """The gap that the answer describes; raises Corrupt."""
        from broker import codec  # noqa: PLC0415 - numpy, loaded only where samples are

        return codec.gap_from_json(self.model_dump(by_alias=True))


class GapPage(PageResponse):
    """A page of gaps, by their beginning."""

    items: list[GapResponse]
    next: Annotated[
        str | None,
        Field(description="`cursor` of the next page", examples=["1795435200000000000.4"]),
    ]


class DeadLetterResponse(ApiResponse):
    """A sample that could not be stored, with the reason."""

    id: Annotated[int, Field(examples=[17])]
    epoch: Annotated[str | None, Field(examples=["01JD"])]
    seq: Annotated[int | None, Field(examples=[4711])]
    signal: Annotated[str | None, Field(examples=["Pressure"])]
    time: OptionalInstant
    value: Annotated[str, Field(description="as JSON text, cut short", examples=['"high"'])]
    reason: Annotated[str, Field(examples=["a JSON str is no float64"])]
    received: Annotated[str, Field(examples=[LATER])]


class DeadLetterPage(PageResponse):
    """A page of dead letters, in the order of their arrival."""

    items: list[DeadLetterResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[17])]


class FrameResponse(ApiResponse):
    """Samples in columns: the n-th of each column belong to one sample."""

    t0: Instant
    dt: Annotated[list[int], Field(description="ns after t0", examples=[[0, 1_000_000_000]])]
    signal: Annotated[
        list[int], Field(description="place of the signal in the spec", examples=[[3, 3]])
    ]
    value: Annotated[
        list[float | int | bool | str | list[float] | list[int | str] | list[bool] | None],
        Field(description="of an array all its elements", examples=[[0.054711, 0.382638]]),
    ]
    quality: Annotated[
        list[int] | None,
        Field(description="0 good, 1 uncertain, 2 bad; absent if all are good", examples=[None]),
    ] = None


class HistoryResponse(ApiResponse):
    """The samples of a span, or the values of its windows, with its gaps."""

    stream: Annotated[str, Field(examples=[STREAM])]
    space: Annotated[str, Field(examples=["live"])]
    spec: Annotated[int, Field(description="version of the spec", examples=[1])]
    every: Annotated[
        str | None,
        Field(description="width of a window; absent if none was asked for", examples=[None]),
    ] = None
    how: Annotated[
        Aggregate | None,
        Field(description="value of a window; absent if none was asked for", examples=[None]),
    ] = None
    frames: list[FrameResponse]
    gaps: list[GapResponse]
