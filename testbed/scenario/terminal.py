"""Runs of a scenario on a terminal: how far they are, and their verdicts in sentences."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from broker.clock import NS_PER_S, Clock
from testbed.processes.server import LoadingServer
from testbed.scenario import hand_over, junit, matrix_run, report
from testbed.scenario import result as run_result
from testbed.scenario.hand_over import RunRecipient
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.matrix_run import MatrixProgress, RunOptions
from testbed.scenario.result import RunResult
from testbed.scenario.run_end import RunProgress
from testbed.scenario.wanted import WantedRun
from testbed.terminal import durations
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen, out, print_json

REFRESH_S = 0.25
LINE_EVERY_S = 5.0
"""Pause between two lines of progress where there is no terminal."""
MOST_LINES = 8
"""Runs whose progress is displayed at once."""


async def run(
    loaded: LoadedScenario, wanted: WantedRun, clock: Clock, loading_server: LoadingServer
) -> Exit:
    """Run all variants of a scenario, print their verdicts and write the files that are wanted.

    loading_server: for the first of them.
    """
    screen = Screen(stderr=True)
    async with matrix_run.run_folder(wanted.folder, keeps=wanted.keeps) as folder:
        options = RunOptions(
            seed=wanted.seed, folder=folder, speed=wanted.pace, loading_server=loading_server
        )
        try:
            results = await _run_displayed(loaded, options, clock, screen)
        except asyncio.CancelledError:
            stay = wanted.keeps or wanted.folder is not None
            left = f"data and logs stay in {folder}" if stay else "nothing is kept"
            screen.print(f"interrupted; {left}")
            raise
        _print_results(results, as_json=wanted.as_json)
        if wanted.junit is not None:
            junit.write(wanted.junit, loaded, results)
        if wanted.report is not None:
            report.write(wanted.report, loaded, results, clock.now_ns())
            screen.print(f"report: {wanted.report}")
        if wanted.server is not None:
            recipient = RunRecipient(server=wanted.server, folder=wanted.folder or Path())
            await hand_over.hand_over(recipient, loaded, results, clock, screen)
        if wanted.keeps or wanted.folder is not None:
            screen.print(f"data and logs stay in {folder}")
    return Exit.DONE if _all_passed(results) else Exit.NEGATIVE


async def _run_displayed(
    loaded: LoadedScenario, options: RunOptions, clock: Clock, screen: Console
) -> list[RunResult]:
    progress = MatrixProgress()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(display(progress, screen, clock), name="progress")
        return await matrix_run.run_all(loaded, options, clock, progress)


async def display(progress: MatrixProgress, screen: Console, clock: Clock) -> None:
    """Display the progress until all is over: as lines where there is no terminal."""
    if not screen.is_terminal:
        await _print_lines(progress, screen, clock)
        return
    with Live(console=screen, transient=True, auto_refresh=False) as live:
        while not progress.is_over:
            live.update(Text("\n").join(_lines(progress, clock)), refresh=True)
            await clock.sleep(REFRESH_S)


async def _print_lines(progress: MatrixProgress, screen: Console, clock: Clock) -> None:
    waited_s = 0.0
    while not progress.is_over:
        if waited_s >= LINE_EVERY_S:
            waited_s = 0.0
            for line in _lines(progress, clock):
                screen.print(line)
        await clock.sleep(REFRESH_S)
        waited_s += REFRESH_S


def _lines(progress: MatrixProgress, clock: Clock) -> list[Text]:
    """A line for each run that is under way, and one about all of several."""
    running = {
        label: each
        for label, each in progress.runs.items()
        if each.phase != "waiting" and not each.is_over
    }
    lines = [_line(label, each, clock) for label, each in list(running.items())[:MOST_LINES]]
    if len(progress.runs) > 1:
        over = sum(each.is_over for each in progress.runs.values())
        lines.append(Text(f"{over} of {len(progress.runs)} runs are over", "dim"))
    return lines


def _line(label: str, progress: RunProgress, clock: Clock) -> Text:
    whole_s = progress.quanta * progress.quantum_ns / NS_PER_S
    numbers = ""
    if progress.began_ns:
        reached, whole = map(durations.text_of, (progress.virtual_s, whole_s))
        speed = progress.speed(clock.monotonic_ns())
        numbers = f"{reached} of {whole}, {speed:,.0f} times as fast as life"
    return Text.assemble((progress.phase, "bold"), "  ", label, "  " if label else "", numbers)


def _print_results(results: Sequence[RunResult], *, as_json: bool) -> None:
    if as_json:
        document = {
            "passed": _all_passed(results),
            "runs": [each.as_json() for each in results],
            "totals": [each.as_json() for each in run_result.totals(results)],
        }
        print_json(document)
        return
    for result in results:
        print_result(result, out)
    for total in run_result.totals(results):
        out.print(total.sentence)
    if len(results) > 1:
        count = sum(result.verdict.passed for result in results)
        out.print(f"{count} of {len(results)} runs passed.", style="bold")


def _all_passed(results: Sequence[RunResult]) -> bool:
    return all(result.verdict.passed for result in results)


def print_result(result: RunResult, console: Console) -> None:
    """Print the verdict on a run: a line for each expectation, then the figures of the run."""
    console.print(result.title, style="bold")
    *lines, summary = result.verdict.lines()
    for line in lines:
        console.print(line, style="" if line.startswith("passed") else "red")
    console.print(summary, style="green" if result.verdict.passed else "bold red")
    for note in result.end.notes:
        console.print(note, style="yellow")
    statistics = result.end.statistics
    started = f"started in {result.end.started_s:.1f} s"
    console.print(f"{statistics}; {started}; hash {result.verdict.hash[:16]}", style="dim")
