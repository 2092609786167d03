"""`testbed runs`: runs of scenarios that a testbed keeps, with the origin of each figure."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from testbed.client import runs
from testbed.terminal import run as terminal_run
from testbed.terminal.options import Json, example, time
from testbed.terminal.screen import out, print_json

Run = Annotated[int, typer.Argument(min=1, help="number of the run, as `testbed runs list` has it")]

runs_app = typer.Typer(
    help="List, show and compare runs that were handed over, each figure with its origin.",
    no_args_is_help=True,
    epilog=example("testbed runs list", "testbed runs compare 12 13"),
)


class ListedVerdict(StrEnum):
    """Verdicts of runs that can be listed alone."""

    PASSED = "passed"
    FAILED = "failed"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(runs_app, name="runs")


@runs_app.command("list", epilog=example("testbed runs list --scenario valve --verdict failed"))
def list_(
    scenario: Annotated[
        str | None, typer.Option(help="name of a scenario (default: every scenario)")
    ] = None,
    verdict: Annotated[
        ListedVerdict | None, typer.Option(help="passed or failed (default: both)")
    ] = None,
    since: Annotated[
        str | None,
        time("--since", "runs that began then or later, such as -7d or yesterday (default: all)"),
    ] = None,
    organisation: Annotated[
        str | None,
        typer.Option(help="id of another organisation, for auditors (default: your own)"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="most runs")] = 50,
    json: Json = False,
) -> None:
    """List runs of your organisation, the newest first."""
    fetching = runs.fetch_page(
        organisation=organisation, scenario=scenario, verdict=verdict, since=since, limit=limit
    )
    page = terminal_run.run(fetching)
    print_json(page) if json else runs.print_page(page, out)


@runs_app.command(epilog=example("testbed runs show 12"))
def show(number: Run, json: Json = False) -> None:
    """Show a run: its verdict, its expectations, and the hashes of what it was made from."""
    run = terminal_run.run(runs.fetch(number))
    print_json(run) if json else runs.print_run(run, out)


@runs_app.command(epilog=example("testbed runs compare 12 13"))
def compare(
    numbers: Annotated[
        list[int], typer.Argument(min=1, help="numbers of two to ten runs", metavar="RUN...")
    ],
    json: Json = False,
) -> None:
    """Compare runs: inputs that differ first, then all figures side by side."""
    comparison = terminal_run.run(runs.fetch_comparison(numbers))
    print_json(comparison) if json else runs.print_comparison(comparison, out)


@runs_app.command(epilog=example("testbed runs evidence 12"))
def evidence(number: Run, json: Json = False) -> None:
    """Print every figure of a run's report with what it was computed from."""
    answer = terminal_run.run(runs.fetch_evidence(number))
    print_json(answer) if json else runs.print_evidence(answer, out)


@runs_app.command(epilog=example("testbed runs report 12 --output run.html"))
def report(
    number: Run,
    output: Annotated[
        Path | None, typer.Option(help="file to write (default: run-NUMBER.html)")
    ] = None,
    json: Json = False,
) -> None:
    """Write the report of a run to a file, as it was handed over."""
    path = output or Path(f"run-{number}.html")
    size = terminal_run.run(runs.save_report(number, path))
    if json:
        print_json({"file": str(path), "bytes": size})
    else:
        out.print(f"wrote {path}")


@runs_app.command(epilog=example("testbed runs add testbed-run-valve-7.json"))
def add(
    file: Annotated[Path, typer.Argument(help="file that `testbed run --server` wrote")],
    server: Annotated[
        str | None,
        typer.Option(help="URL of the API (default: TESTBED_API, or that of the last sign-in)"),
    ] = None,
    json: Json = False,
) -> None:
    """Hand over a run that could not be handed over when it ended."""
    handover = terminal_run.call(partial(runs.from_file, file))
    run = terminal_run.run(runs.hand_over(handover, server))
    print_json(run) if json else out.print(f"{file} is run {run.id}: testbed runs show {run.id}")


@runs_app.command(epilog=example("testbed runs delete 12 --yes"))
def delete(
    number: Run,
    yes: Annotated[bool, typer.Option("--yes", help="confirm that the run is deleted")] = False,
    json: Json = False,
) -> None:
    """Delete a run with its record and report; the audit keeps the record's SHA-256."""
    terminal_run.run(runs.delete(number, confirmed=yes))
    print_json({"deleted": number}) if json else out.print(f"run {number} is deleted")
