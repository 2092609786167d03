"""Hand runs over to a testbed, and list, show, compare and delete them."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from broker import pydantic_checks
from broker.errors import Invalid
from broker.process import files
from broker.responses.credentials import MeResponse
from broker.responses.run_document import RunDocument, Scalar, sha256_of
from broker.responses.runs import (
    ComparedRow,
    ComparisonResponse,
    EvidenceResponse,
    FigureResponse,
    RunHandover,
    RunPage,
    RunResponse,
    RunSummaryResponse,
)
from broker.runs import checks
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn

MOST_COMPARED = 10
"""Runs that stand side by side at most."""

TIMEOUT_S = 60.0
"""Time for a request with a record and its report."""
MOST_FILE = 8 * 1024 * 1024
"""Bytes of a file with a run."""
HASH_DIGITS = 16
"""Digits of a hash in a table; the JSON has all."""


def handover(document: RunDocument, report: str | None) -> RunHandover:
    """A run as it is handed over, with the hashes of its record and its report."""
    return RunHandover(
        record=document,
        sha256=checks.sha256(document),
        report=report,
        report_sha256=None if report is None else sha256_of(report),
    )


async def hand_over(run: RunHandover, server: str | None = None) -> RunSummaryResponse:
    """Hand a run over to the caller's organisation; server: URL of another API."""
    async with api.connect(TIMEOUT_S, server) as connection:
        me = await connection.get("/me", MeResponse)
        path = f"/organisations/{me.organisation}/runs"
        body = run.model_dump(mode="json")
        return await connection.send("POST", path, RunSummaryResponse, body)


def to_json(run: RunHandover) -> bytes:
    """The content of a file with a run, which `from_file` reads."""
    return orjson.dumps(run.model_dump(mode="json"))


def from_file(path: Path) -> RunHandover:
    """Read a run that could not be handed over; raises Invalid."""
    try:
        if path.stat().st_size > MOST_FILE:
            raise Invalid(f"{path} has more than {MOST_FILE:,} bytes", hint="is it a run?")
        return RunHandover.model_validate(orjson.loads(path.read_bytes()))
    except OSError as exc:
        raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"{path} is not JSON: {exc}", hint="is it a run?") from exc
    except ValidationError as exc:
        raise Invalid(
            f"{path} is no run: {pydantic_checks.first_sentence(exc)}",
            hint="`testbed run --server` writes such a file when a run cannot be handed over",
        ) from exc


async def fetch_page(
    *,
    organisation: str | None,
    scenario: str | None,
    verdict: str | None,
    since: str | None,
    limit: int,
) -> RunPage:
    """The newest runs of an organisation; None of it for the caller's, and for no condition."""
    wanted = {"organisation": organisation, "scenario": scenario}
    params = wanted | {"verdict": verdict, "since": since}
    return await api.whole("/runs", RunPage, params, most=limit)


async def fetch(number: int) -> RunResponse:
    """A run with its record."""
    return await api.get(f"/runs/{number}", RunResponse)


async def fetch_evidence(number: int) -> EvidenceResponse:
    """Every figure of a run with its origin."""
    return await api.get(f"/runs/{number}/evidence", EvidenceResponse)


async def fetch_comparison(numbers: Sequence[int]) -> ComparisonResponse:
    """Runs side by side; raises Invalid for fewer than two, or more than MOST_COMPARED."""
    if not 2 <= len(numbers) <= MOST_COMPARED:
        raise Invalid("name two to ten runs", hint="such as: testbed runs compare 12 13")
    ids = ",".join(map(str, numbers))
    return await api.get("/runs/compare", ComparisonResponse, {"ids": ids})


async def save_report(number: int, path: Path) -> int:
    """Write the report of a run to a file, whole or not at all; returns its bytes."""
    async with (
        api.connect() as connection,
        connection.stream(f"/runs/{number}/report") as answer,
    ):
        content = await answer.aread()
    try:
        files.replace(path, content, mode=0o644)
    except OSError as exc:
        raise Invalid(f"{path} cannot be written: {exc.strerror}") from exc
    return len(content)


async def delete(number: int, *, confirmed: bool) -> None:
    """Delete a run with its record and report; raises Invalid unless confirmed."""
    if not confirmed:
        raise Invalid(f"run {number} was not deleted", hint="say --yes if that is what you want")
    await api.request("DELETE", f"/runs/{number}")


# --- printing -----------------------------------------------------------------------------------

_SUMMARY: list[TableColumn[Any]] = [
    *tables.fields(RunSummaryResponse, "id", "scenario", "label", "seed"),
    TableColumn(heading="verdict", cell=lambda run: _verdict(run.passed)),
    *tables.fields(RunSummaryResponse, "began", whole_seconds=True),
    TableColumn(heading="samples", cell=lambda run: run.samples_sha256[:HASH_DIGITS]),
    *tables.fields(RunSummaryResponse, "by"),
]
_ONE = tables.fields(
    RunSummaryResponse,
    *("id", "organisation", "scenario", "label", "seed", "began", "ended", "handed_over", "by"),
    *("scenario_sha256", "samples_sha256", "sha256", "report_sha256"),
)


def print_page(page: RunPage, out: Screen) -> None:
    """Print a row for each run, the newest first."""
    tables.print_rows(page.items, _SUMMARY, out)


def print_run(run: RunResponse, out: Screen) -> None:
    """Print a run: what it was made from, and a line for each expectation."""
    tables.print_record(run, _ONE, out)
    for each in run.record.expectations:
        style = "" if each.passed else "red"
        out.print(f"{_verdict(each.passed)}  {each.name}: {each.sentence}", style=style)
    for incident in run.record.incidents:
        out.print(f"failed  {incident}", style="red")
    out.print("Passed." if run.passed else "Failed.", style="green" if run.passed else "bold red")


def print_evidence(evidence: EvidenceResponse, out: Screen) -> None:
    """Print a block for figures of one origin: their values, definition, and what they are from."""
    for (of, definition, origins), figures in groupby(evidence.items, _origin):
        for figure in figures:
            out.print(f"{figure.name}: {_value(figure.value, figure.unit)}", style="bold")
        out.print(f"  by    {of}, {definition}")
        for line in origins:
            out.print(f"  from  {line}")
    run, first = evidence.run, evidence.items[0]
    out.print(f"scenario  {run.scenario}, SHA-256 {run.scenario_sha256}, seed {run.seed}")
    for code in first.code:
        out.print(f"code      {code.prototype}: {code.name}, SHA-256 {code.sha256}")


def _origin(figure: FigureResponse) -> tuple[str, str, tuple[str, ...]]:
    """The score that computed a figure, its definition, and a line for each of its sources."""
    lines = []
    for used in figure.samples:
        signals = f" ({', '.join(used.signals)})" if used.signals else ""
        gaps = f", {len(used.gaps)} gaps" if used.gaps else ", no gap"
        lines.append(
            f"{used.samples} samples of {used.stream}{signals}, {tables.instant(used.from_)} to"
            f" {tables.instant(used.to)}, {used.source}{gaps}, hash {used.sha256}"
        )
    if figure.truth is not None:
        count = figure.truth.faults
        faults = f"{count} known fault{'' if count == 1 else 's'}"
        lines.append(f"{faults} of {figure.truth.equipment}, hash {figure.truth.sha256}")
    if figure.measurements is not None:
        lines.append(f"{figure.measurements} measurements on the computer of the run")
    return figure.of, figure.definition, tuple(lines or ["the clock of the run"])


def print_comparison(comparison: ComparisonResponse, out: Screen) -> None:
    """Print the inputs that differ, then all figures, with a mark where they differ."""
    columns = _columns_of_runs(comparison)
    differing = [row for row in comparison.inputs if row.differs]
    equal = len(comparison.inputs) - len(differing)
    out.print("inputs that differ", style="bold")
    tables.print_rows(differing, columns, out)
    out.print(f"{equal} other inputs are equal.", style="dim")
    out.print("figures", style="bold")
    tables.print_rows(comparison.figures, columns, out)


def _columns_of_runs(comparison: ComparisonResponse) -> list[TableColumn[ComparedRow]]:
    def cell_of(index: int) -> Callable[[ComparedRow], str]:
        return lambda row: _value(row.values[index], row.unit)

    def style(row: ComparedRow) -> str:
        return "bold yellow" if row.differs else ""

    return [
        TableColumn(heading="", cell=lambda row: "*" if row.differs else " ", style=style),
        TableColumn(heading="name", cell=lambda row: row.name, style=style, is_prose=True),
        *(
            TableColumn(heading=f"run {run.id}", cell=cell_of(index), style=style)
            for index, run in enumerate(comparison.runs)
        ),
    ]


def _value(value: Scalar, unit: str) -> str:
    if value is None:
        return tables.NOTHING
    if isinstance(value, float):
        value += 0.0  # -0 becomes 0
        text = f"{value:.6g}" if value != int(value) or abs(value) >= 2**53 else f"{value:.0f}"
        return text if unit == "1" else f"{text} {unit}"
    if isinstance(value, str) and len(value) == 64:
        return value[:HASH_DIGITS]
    return tables.text(value)


def _verdict(passed: bool) -> str:  # noqa: FBT001 - a value, not a choice
    return "passed" if passed else "failed"
