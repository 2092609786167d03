"""Routes: runs of scenarios that organisations hand over, with evidence and comparisons."""

import re
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, ConfigDict, Field

from broker.clock import text_of
from broker.responses.run_document import RunDocument
from broker.responses.runs import (
    ComparisonResponse,
    EvidenceResponse,
    RunHandover,
    RunPage,
    RunResponse,
    RunSummaryResponse,
)
from broker.rights import Action
from broker.runs import checks, comparison, evidence
from testbed_api.domain.runs import HandedRun, RunFilter
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, RunActionsDep
from testbed_api.http.middleware.content_policy import SANDBOX
from testbed_api.http.schemas import Form, Id, Number, Text, split_page, storable

router = APIRouter(tags=["runs"])

_ONE = "/runs/{number}"
REPORT = "<!doctype html>\n<title>valve-closes</title>\n"


class RunVerdict(StrEnum):
    """Verdict of the runs that are listed."""

    PASSED = "passed"
    FAILED = "failed"


def example_of_handover() -> dict[str, Any]:
    """A run that is handed over, with the hash of its record, as an example for the document."""
    document = RunDocument.model_validate(RunDocument.example())
    return {"record": document.model_dump(mode="json"), "sha256": checks.sha256(document)}


class RunForm(RunHandover):
    """A run that is handed over: its record and report, each with the SHA-256 of its text."""

    model_config = ConfigDict(
        extra="forbid",
        defer_build=False,  # FastAPI takes no body whose validator is still to be built
        json_schema_extra=lambda schema: schema.update(examples=[example_of_handover()]),
    )


class RunsWanted(Form):
    """A page of the runs of an organisation."""

    organisation: Annotated[Id | None, Field(description="your own if left out")] = None
    scenario: Annotated[Text | None, Field(description="runs of this scenario alone")] = None
    verdict: RunVerdict | None = None
    since: Annotated[
        str | None,
        Field(max_length=40, description="runs that began then or later; RFC 3339, or as -7d"),
    ] = None
    cursor: Annotated[
        int | None, Field(ge=1, lt=2**53, description="`next` of the page before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=500, description="rows on a page")] = 100

    def filter(self, own: str, now_ns: int) -> RunFilter:
        """The runs that are wanted; own: organisation of the caller.  Raises Invalid."""
        verdict = self.verdict
        return RunFilter(
            organisation=self.organisation or own,
            scenario=self.scenario,
            passed=None if verdict is None else verdict is RunVerdict.PASSED,
            since_ns=None if self.since is None else storable(self.since, now_ns),
        )


IDS_PATTERN = r"^[1-9]\d{0,15}(,[1-9]\d{0,15}){1,9}$"


def _checked_ids(text: str) -> str:
    if re.fullmatch(IDS_PATTERN, text, re.ASCII) is None:
        raise ValueError("name two to ten runs by their numbers, such as 12,13")
    return text


class ComparisonWanted(Form):
    """The runs to compare."""

    ids: Annotated[
        str,
        Field(
            max_length=200,
            json_schema_extra={"pattern": IDS_PATTERN},
            description="two to ten numbers, such as 12,13",
            examples=["12,13"],
        ),
        AfterValidator(_checked_ids),
    ]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the runs."""
        return [int(text) for text in self.ids.split(",")]


@router.post(
    "/organisations/{organisation}/runs",
    openapi_extra=asks(Action.SUBMIT),
    status_code=201,
    summary="Hand over a run of a scenario",
    responses=openapi_examples.answer(RunSummaryResponse, status=201),
)
async def add_run(
    organisation: Id, form: RunForm, runs: RunActionsDep, context: ContextDep, caller: CallerDep
) -> RunSummaryResponse:
    """Allowed to owners, engineers and developers of the organisation.

    The record never changes. Hashes, verdict, spans and counts are checked; what contradicts
    itself is refused with its field. The same record again is the run that is there.
    """
    return _summary(await runs.add(context, caller, organisation, form))


@router.get(
    "/runs",
    openapi_extra=asks(Action.REVIEW),
    summary="Runs of your organisation, the newest first",
    responses=openapi_examples.answer(RunPage),
)
async def runs(
    query: Annotated[RunsWanted, Query()], runs: RunActionsDep, clock: ClockDep, caller: CallerDep
) -> RunPage:
    """Allowed to its members, and to those who audit everything."""
    wanted = query.filter(caller.organisation, clock.now_ns())
    rows = await runs.page(caller, wanted, query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    return RunPage(items=list(map(_summary, page)), next=page[-1].id if more else None)


@router.get(
    "/runs/compare",
    openapi_extra=asks(Action.REVIEW),
    summary="Runs side by side: inputs that differ first, then figures",
    responses=openapi_examples.answer(ComparisonResponse),
)
async def compare_runs(
    query: Annotated[ComparisonWanted, Query()], runs: RunActionsDep, caller: CallerDep
) -> ComparisonResponse:
    """Allowed to whoever may read each of them."""
    several = await runs.several(caller, query.numbers)
    documents = [await runs.document(each) for each in several]
    return ComparisonResponse(
        runs=list(map(_summary, several)),
        inputs=comparison.inputs(documents),
        figures=comparison.figures(documents),
    )


@router.get(
    _ONE,
    openapi_extra=asks(Action.REVIEW),
    summary="A run with its record",
    responses=openapi_examples.answer(RunResponse),
)
async def run(number: Number, runs: RunActionsDep, caller: CallerDep) -> RunResponse:
    """Allowed to members of its organisation, and to those who audit everything."""
    run = await runs.find(caller, number, Action.REVIEW)
    return RunResponse.extending(_summary(run), record=await runs.document(run))


@router.get(
    _ONE + "/evidence",
    openapi_extra=asks(Action.REVIEW),
    summary="Every figure of a run's report, and what it comes from",
    responses=openapi_examples.answer(EvidenceResponse),
)
async def run_evidence(number: Number, runs: RunActionsDep, caller: CallerDep) -> EvidenceResponse:
    """Allowed to members of its organisation, and to those who audit everything.

    Each figure has its definition, the samples that it was computed from with their span, number,
    hash, source and gaps, and the code, scenario and seed of the run.
    """
    run = await runs.find(caller, number, Action.REVIEW)
    items = evidence.figures(await runs.document(run))
    return EvidenceResponse(run=_summary(run), items=items)


@router.get(
    _ONE + "/report",
    openapi_extra=asks(Action.WATCH),
    summary="The report of a run",
    response_class=Response,
    responses=openapi_examples.text(REPORT, "text/html"),
)
async def run_report(number: Number, runs: RunActionsDep, caller: CallerDep) -> Response:
    """Allowed to members of its organisation: its plots show samples, which audits do not read.

    It is HTML that somebody wrote: a browser that shows it runs no script of it and lets it load
    nothing.
    """
    run = await runs.find(caller, number, Action.WATCH)
    report = await runs.report(run)
    headers = {
        "Content-Security-Policy": SANDBOX,
        "Content-Disposition": f'inline; filename="run-{run.id}.html"',
    }
    return Response(report, media_type="text/html", headers=headers)


@router.delete(
    _ONE,
    openapi_extra=asks(Action.MANAGE),
    status_code=204,
    summary="Delete a run with its record and report",
)
async def delete_run(
    number: Number, runs: RunActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to owners of its organisation. The audit keeps the SHA-256 of its record."""
    await runs.delete(context, caller, number)
    return Response(status_code=204)


def _summary(run: HandedRun) -> RunSummaryResponse:
    return RunSummaryResponse(
        id=run.id,
        organisation=run.organisation,
        scenario=run.scenario,
        label=run.label,
        seed=run.seed,
        passed=run.passed,
        began=text_of(run.began_ns),
        ended=text_of(run.ended_ns),
        handed_over=text_of(run.handed_ns),
        by=run.handed_by,
        scenario_sha256=run.scenario_sha256,
        samples_sha256=run.samples_sha256,
        sha256=run.sha256,
        report_sha256=run.report_sha256,
    )
