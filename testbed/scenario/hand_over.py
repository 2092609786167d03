"""Hands the runs of a scenario over to a testbed; one that it does not take stays as a file."""

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.clock import Clock
from broker.errors import BedError, Unavailable
from broker.responses.runs import MOST_REPORT, RunHandover, RunSummaryResponse
from testbed.client import runs
from testbed.scenario import report, run_document, whole_file
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.result import RunResult
from testbed.terminal.screen import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipient:
    """The testbed that runs are handed over to.

    server: URL of its API, None for that of the sign-in.  folder: for the files of runs that it
    does not take.
    """

    server: str | None
    folder: Path

    @property
    def name(self) -> str:
        """The testbed in a sentence."""
        return self.server or "the testbed of your sign-in"

    @property
    def option(self) -> str:
        """The option that names it to a later command, after a space; empty for the sign-in's."""
        return "" if self.server is None else f" --server {self.server}"


async def hand_over(
    recipient: RunRecipient,
    loaded: LoadedScenario,
    results: Sequence[RunResult],
    clock: Clock,
    screen: Screen,
) -> None:
    """Hand each run over, and print its number, or the command that hands it over later.

    Raises Unavailable once all were tried, if one was not taken.
    """
    failures: list[str] = []
    for result in results:
        run = await asyncio.to_thread(_handover, loaded, result, clock.now_ns())
        if run.report is None:
            screen.print(f"the report of {result.title} is too large: it is not handed over")
        try:
            taken: RunSummaryResponse = await runs.hand_over(run, recipient.server)
        except BedError as exc:
            path = recipient.folder / _file_name(result, run)
            whole_file.write(path, runs.to_json(run).decode(), option="--folder")
            failures.append(str(exc))
            command = f"testbed runs add {shlex.quote(str(path))}{recipient.option}"
            screen.print(f"{result.title} was not handed over; later: {command}")
            continue
        screen.print(f"{result.title} is run {taken.id} of {taken.organisation}")
    if failures:
        raise Unavailable(
            f"{len(failures)} of {len(results)} runs were not handed over to {recipient.name}:"
            f" {failures[0]}",
            hint="their records stay as files; `testbed runs add FILE` hands one over later",
        )


def _handover(loaded: LoadedScenario, result: RunResult, now_ns: int) -> RunHandover:
    """The run with its report, without one that is too long."""
    page = report.text(loaded, [result], now_ns)
    return runs.handover(run_document.of(result), page if len(page) <= MOST_REPORT else None)


def _file_name(result: RunResult, run: RunHandover) -> str:
    """The name of the file of a run: the same for the same record."""
    return f"testbed-run-{result.plan.scenario.name}-{result.plan.seed}-{run.sha256[:8]}.json"
