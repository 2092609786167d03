"""Run `testbed demo` on a terminal: progress, the result as a table, and commands to try."""

import asyncio
import shutil

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.clock import Clock
from testbed.demo import run as demo_run
from testbed.demo.plan import RIG, SPACE, DemoPlan, Stage
from testbed.demo.result import DemoResult
from testbed.demo.run import Progress
from testbed.terminal.screen import Screen, out, print_json

REFRESH_S = 0.25
REPORT = "report.html"


async def run(plan: DemoPlan, clock: Clock, *, keep: bool, as_json: bool, temporary: bool) -> bool:
    """Run the demo and print its result; True if the four counters are zero.

    keep: go on until cancelled.  temporary: remove data and logs at the end; the report stays.
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
            _remove_data(plan)
    return result.counters.clean


async def _display(progress: Progress, screen: Console, clock: Clock) -> None:
    """Display the progress until the demo is done."""
    with Live(console=screen, transient=True, auto_refresh=False) as live:
        while not progress.done:
            live.update(_line(progress), refresh=True)
            await clock.sleep(REFRESH_S)


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
    screen.print(
        f"""
everything goes on running; in another terminal:

  export TESTBED_API={stage.api} TESTBED_BROKER={stage.broker} TESTBED_SPACE={SPACE}
  export TESTBED_CREDENTIAL={stage.observer}

  testbed tap {RIG}
  testbed status
  testbed stream gaps {RIG} --space {SPACE}
  curl -H "Authorization: Bearer $TESTBED_CREDENTIAL" "{history}"
  TESTBED_INPUTS=rig={RIG} python examples/ten_lines.py

the API's documentation: {stage.api}/api/v1/docs
Ctrl-C stops it all."""
    )


def _remove_data(plan: DemoPlan) -> None:
    """Remove a temporary folder, but for the report if there is one."""
    for path in plan.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != REPORT:
            path.unlink()
    if not any(plan.folder.iterdir()):
        plan.folder.rmdir()
