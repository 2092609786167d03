"""Run a demo on a terminal: progress, the result in sentences and numbers, and commands to try."""

import asyncio
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.clock import Clock
from testbed.demo import run as demo_run
from testbed.demo.plan import RIG, SPACE, VISITOR, DemoPlan, Stage
from testbed.demo.processes import EXAMPLES, KEPT_LEDGER_FILE
from testbed.demo.result import DemoResult
from testbed.demo.run import Progress
from testbed.terminal import invocation
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen, out, print_json

REFRESH_S = 0.25
REPORT = "testbed-demo.html"
LINE_EVERY_S = 5.0
"""Pause between two lines of progress where there is no terminal."""


class Places(TypedDict):
    """Folder and report of a `DemoPlan`."""

    folder: Path
    report: Path | None


def choose_places(folder: Path | None, *, keep: bool) -> Places:
    """Choose where a demo writes: a folder that stays, or a temporary one and a report beside.

    The report of a temporary folder goes into the present one, or where that cannot be written,
    into a temporary one of its own.
    """
    if folder is not None:
        return Places(folder=folder, report=None)
    created = Path(tempfile.mkdtemp(prefix="testbed-demo-"))
    if keep:
        return Places(folder=created, report=None)
    is_writable = os.access(Path.cwd(), os.W_OK)
    beside = Path.cwd() if is_writable else Path(tempfile.mkdtemp(prefix="testbed-report-"))
    return Places(folder=created, report=beside / REPORT)


async def run(
    plan: DemoPlan, clock: Clock, *, temporary: bool, keep: bool = False, as_json: bool = False
) -> Exit:
    """Run the demo and print its result; the exit code of the command.

    temporary: remove the folder at the end.  keep: go on until cancelled.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    screen = Screen(stderr=True)
    progress = Progress(say=screen.print)
    earlier_ns = _written_ns(plan.report_file)
    try:
        async with asyncio.TaskGroup() as tasks:
            display = tasks.create_task(_display(progress, screen, clock), name="progress")
            async with demo_run.run_demo(plan, clock, progress) as (stage, result):
                await display
                _print_result(result, plan, as_json=as_json)
                if keep:
                    async with demo_run.keep_running(stage, clock, progress):
                        _print_commands(stage, screen)
                        await asyncio.get_running_loop().create_future()
    finally:
        if earlier_ns is not None and _written_ns(plan.report_file) == earlier_ns:
            screen.print(f"no report; {plan.report_file} is of an earlier run")
        if temporary:
            shutil.rmtree(plan.folder)
    return result.exit_code(min_f1=plan.min_f1, is_visitors=bool(plan.prototype))


def _written_ns(path: Path) -> int | None:
    """The instant at which a file was last written, None if there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


async def _display(progress: Progress, screen: Console, clock: Clock) -> None:
    """Display the progress until the demo is done: as lines where there is no terminal."""
    if not screen.is_terminal:
        await _print_lines(progress, screen, clock)
        return
    with Live(console=screen, transient=True, auto_refresh=False) as live:
        while not progress.done:
            live.update(_line(progress), refresh=True)
            await clock.sleep(REFRESH_S)


async def _print_lines(progress: Progress, screen: Console, clock: Clock) -> None:
    """Print a line for each phase as it begins, and one every LINE_EVERY_S within it.

    While answers are waited for, which may never come, there is one line.
    """
    phase, waited_s = "", 0.0
    while not progress.done:
        is_due = waited_s >= LINE_EVERY_S and not progress.is_waiting
        if progress.phase != phase or is_due:
            phase, waited_s = progress.phase, 0.0
            screen.print(_line(progress))
        await clock.sleep(REFRESH_S)
        waited_s += REFRESH_S


def _line(progress: Progress) -> Text:
    numbers = (
        f"samples offered {progress.offered:,}, received {progress.received:,}; rows scored"
        f" {progress.scored:,}"
    )
    return Text.assemble((progress.phase, "bold"), "  ", numbers if progress.offered else "")


def _print_result(result: DemoResult, plan: DemoPlan, *, as_json: bool) -> None:
    if as_json:
        print_json(result.as_json())
        return
    out.print("Was anything lost?", style="bold")
    out.print(result.loss)
    out.print("\nHow good was the prototype?", style="bold")
    rating = result.rating
    answer = filter(None, (rating.quality, rating.coverage))
    for sentence in (*answer, *result.problems, *result.notes, *rating.meaning):
        out.print(sentence)
    if plan.min_f1 is not None:
        out.print(rating.sentence_about(plan.min_f1))
    table = Table(show_header=False)
    for name, value in result.rows().items():
        table.add_row(name, value)
    out.print(table)
    out.print(f"report: {result.report}")
    if not plan.prototype:
        command = f"{invocation.testbed()} try -- {invocation.python()} my.py"
        out.print(f"a program of yours in its place: {command}")


def _print_commands(stage: Stage, screen: Console) -> None:
    """Print commands to copy into another terminal."""
    history = f"{stage.api}/api/v1/streams/{RIG}/history?space={SPACE}&points=20&format=csv"
    reader, writer = (shlex.quote(str(EXAMPLES / name)) for name in ("ten_lines.py", "low_flow.py"))
    bindings = {"TESTBED_INPUTS": f"rig={RIG}", "TESTBED_OUTPUTS": f"score={VISITOR}"}
    testbed, python = invocation.testbed(), invocation.python()
    ledger = shlex.quote(str(stage.plan.folder.absolute() / KEPT_LEDGER_FILE))
    faults = _faults(stage.plan)
    screen.print(
        f"""
everything goes on; the rig was started again, so its stream has a gap{_speed(stage.plan)}.
In another terminal:

  {invocation.export(_settings(stage))}
  {invocation.export({"TESTBED_CREDENTIAL": stage.observer})}

  {testbed} tap {RIG}
  {testbed} status
  {testbed} stream gaps {RIG} --space {SPACE}
  curl -H "Authorization: Bearer $TESTBED_CREDENTIAL" "{history}"
  TESTBED_INPUTS=rig={RIG} {python} {reader}

to answer, with a credential that may publish {VISITOR}, and to see the answers:

  {invocation.export({"TESTBED_CREDENTIAL": stage.visitor} | bindings)}
  {python} {writer}
  {testbed} history {VISITOR} --space {SPACE}

to score these answers{faults}:

  {testbed} score {VISITOR} --ledger {ledger}

to score a program from a beginning to an end, in the place of the demo's detector:

  {testbed} try -- {python} {writer}

the API's documentation: {stage.api}/api/v1/docs
data, logs and the report stay in {stage.plan.folder}
Ctrl-C stops it all."""
    )


def _settings(stage: Stage) -> dict[str, str]:
    """The variables of every program that reads here."""
    addresses = {"TESTBED_API": stage.api, "TESTBED_BROKER": stage.broker}
    return addresses | {"TESTBED_SPACE": SPACE, "TESTBED_CA": ""}


def _speed(plan: DemoPlan) -> str:
    """The words that say how fast the rig plays, empty where that is as in life."""
    if plan.speed is None or plan.speed == 1.0:
        return ""
    return f"; it plays {plan.speed:g} times as fast as life"


def _faults(plan: DemoPlan) -> str:
    """The words that say how often the model has a fault, empty for a recording."""
    if plan.data is not None:
        return ""
    return f", as the rig has a fault about every {plan.fault_every_s / (plan.speed or 1.0):.0f} s"
