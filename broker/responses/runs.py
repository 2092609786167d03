"""Answers about runs that were handed over: their records, evidence and comparisons."""

from typing import Annotated

from pydantic import Field

from broker.responses.base import ApiResponse, Instant, PageResponse
from broker.responses.run_document import (
    CodeOfRun,
    GapOfRun,
    RunDocument,
    SamplesUsed,
    Scalar,
    TruthOfRun,
)

MOST_REPORT = 2 * 1024 * 1024
"""Characters of the report of a run that is handed over."""
_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class RunSummaryResponse(ApiResponse):
    """A run in a listing."""

    id: Annotated[int, Field(examples=[12])]
    organisation: Annotated[str, Field(examples=["company"])]
    scenario: Annotated[str, Field(examples=["valve-closes"])]
    label: Annotated[str, Field(description="null is none; of a matrix", examples=["seed 7"])]
    seed: Annotated[int, Field(examples=[7])]
    passed: Annotated[bool, Field(examples=[True])]
    began: Instant
    ended: Annotated[Instant, Field(examples=["2026-11-23T12:00:02.100000000Z"])]
    handed_over: Annotated[str, Field(examples=["2026-11-23T12:00:05.000000000Z"])]
    by: Annotated[str, Field(description="who handed it over", examples=["cora"])]
    scenario_sha256: Annotated[str, Field(examples=[_HASH])]
    samples_sha256: Annotated[
        str, Field(description="equal runs have an equal one", examples=[_HASH])
    ]
    sha256: Annotated[str, Field(description="of its record", examples=[_HASH])]
    report_sha256: Annotated[str | None, Field(description="null is no report", examples=[_HASH])]


class RunPage(PageResponse):
    """A page of runs, the newest first."""

    items: list[RunSummaryResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[11])]


class RunResponse(RunSummaryResponse):
    """A run with its record, as it was handed over."""

    record: RunDocument


class SamplesOfFigure(SamplesUsed):
    """The samples that a figure was computed from, with their source and the gaps among them."""

    source: Annotated[str, Field(description="simulated, recorded or live", examples=["simulated"])]
    gaps: Annotated[list[GapOfRun], Field(description="stated within the span")]


class FigureResponse(ApiResponse):
    """A figure of a run's report, and everything that it comes from."""

    id: Annotated[
        str, Field(description="`data-figure` in the report", examples=["expectation/1/f1"])
    ]
    name: Annotated[str, Field(examples=["the valve is noticed: f1"])]
    value: Annotated[Scalar, Field(examples=[0.9])]
    unit: Annotated[str, Field(examples=["1"])]
    of: Annotated[
        str, Field(description="expectation or score that computed it", examples=["detection"])
    ]
    definition: Annotated[
        str,
        Field(
            description="page of the documentation that defines it",
            examples=["docs/reference/verdicts.md#scores"],
        ),
    ]
    space: Annotated[str, Field(examples=["run-valve-closes-7"])]
    samples: Annotated[
        list[SamplesOfFigure],
        Field(description="empty for what was measured on the computer of the run"),
    ]
    truth: Annotated[TruthOfRun | None, Field(description="known faults; null is none used")]
    measurements: Annotated[
        int | None, Field(description="of resources; null is none", examples=[None])
    ]
    code: Annotated[list[CodeOfRun], Field(description="all programs under test")]
    scenario_sha256: Annotated[str, Field(examples=[_HASH])]
    seed: Annotated[int, Field(examples=[7])]
    sources: Annotated[
        list[str],
        Field(
            description="simulated, recorded or live: of all samples; empty for what was measured",
            examples=[["simulated"]],
        ),
    ]


class EvidenceResponse(ApiResponse):
    """Every figure of a run's report with its origin."""

    run: RunSummaryResponse
    items: list[FigureResponse]


class ComparedRow(ApiResponse):
    """An input or a figure of several runs, side by side; null is none of a run."""

    name: Annotated[str, Field(examples=["seed"])]
    unit: Annotated[str, Field(examples=["1"])]
    values: Annotated[
        list[Scalar], Field(description="in the order of the runs", examples=[[7.0, 8.0]])
    ]
    differs: Annotated[bool, Field(examples=[True])]


class ComparisonResponse(ApiResponse):
    """Runs side by side: inputs, those that differ first, then figures."""

    runs: list[RunSummaryResponse]
    inputs: list[ComparedRow]
    figures: list[ComparedRow]


class RunHandover(ApiResponse):
    """A run on its way to a testbed: its record and report, with the hash of each."""

    record: RunDocument
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=[_HASH])]
    report: Annotated[
        str | None,
        Field(max_length=MOST_REPORT, description="HTML; null is no report", examples=[None]),
    ] = None
    report_sha256: Annotated[
        str | None, Field(description="null is no report", examples=[None])
    ] = None
