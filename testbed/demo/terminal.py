"""Run `testbed demo` on a terminal: progress, the result as a table, and commands to try."""

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
from testbed.demo.plan import RIG, SPACE, DemoPlan, Stage
from testbed.demo.processes import EXAMPLES
from testbed.demo.result import DemoResult
from testbed.demo.run import Progress
from testbed.terminal import invocation
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


async def run(plan: DemoPlan, clock: Clock, *, keep: bool, as_json: bool, temporary: bool) -> bool:
    """Run the demo and print its result; True if the four counters are zero.

    keep: go on until cancelled.  temporary: remove the folder at the end.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    screen, progress = Screen(stderr=True), Progress()
    try:
        async with asyncio.TaskGroup() as tasks:
            display = tasks.create_task(_display(progress, screen, clock), name="progress")
            async with demo_run.run_demo(plan, clock, progress) as (stage, result):
                await display
                _print_result(result, as_json=as_json)
                if keep:
                    async with demo_run.keep_running(stage):
                        _print_commands(stage, screen)
                        await asyncio.get_running_loop().create_future()
    finally:
        if temporary:
            shutil.rmtree(plan.folder)
    return result.counters.clean


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
    """Print a line for each phase as it begins, and one every LINE_EVERY_S within it."""
    phase, waited_s = "", 0.0
    while not progress.done:
        if progress.phase != phase or waited_s >= LINE_EVERY_S:
            phase, waited_s = progress.phase, 0.0
            screen.print(_line(progress))
        await clock.sleep(REFRESH_S)
        waited_s += REFRESH_S


def _line(progress: Progress) -> Text:
    numbers = (
        f"offered {progress.offered:,}  received {progress.received:,}  scored {progress.scored:,}"
    )
    return Text.assemble((progress.phase, "bold"), "  ", numbers if progress.offered else "")


def _print_result(result: DemoResult, *, as_json: bool) -> None:
    if as_json:
        print_json(result.as_json())
        return
    table = Table(show_header=False)
    for name, value in result.rows().items():
        table.add_row(name, value)
    out.print(table)
    out.print(f"report: {result.report}")


def _print_commands(stage: Stage, screen: Console) -> None:
    """Print commands to copy into another terminal."""
    history = f"{stage.api}/api/v1/streams/{RIG}/history?space={SPACE}&points=20&format=csv"
    addresses = {"TESTBED_API": stage.api, "TESTBED_BROKER": stage.broker}
    settings = addresses | {"TESTBED_SPACE": SPACE, "TESTBED_CA": ""}
    example = shlex.quote(str(EXAMPLES / "ten_lines.py"))
    screen.print(
        f"""
everything goes on running; in another terminal:

  {invocation.export(settings)}
  {invocation.export({"TESTBED_CREDENTIAL": stage.observer})}

  {invocation.testbed()} tap {RIG}
  {invocation.testbed()} status
  {invocation.testbed()} stream gaps {RIG} --space {SPACE}
  curl -H "Authorization: Bearer $TESTBED_CREDENTIAL" "{history}"
  TESTBED_INPUTS=rig={RIG} {invocation.python()} {example}

the API's documentation: {stage.api}/api/v1/docs
data, logs and the report stay in {stage.plan.folder}
Ctrl-C stops it all."""
    )
