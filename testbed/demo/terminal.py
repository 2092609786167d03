"""`testbed demo`, as a person sees it: progress, a table, a report, and what to try next."""

import asyncio
import shutil

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.clock import Clock
from testbed.demo import run as demo_run
from testbed.demo.run import Outcome, Plan, Progress, Stage
from testbed.terminal.screen import Screen, out, say_json

REFRESH_S = 0.25


async def run(plan: Plan, clock: Clock, *, keep: bool, as_json: bool, temporary: bool) -> bool:
    """Run it and say what came out; True if the four counters are zero.

    temporary: the folder is ours; data and logs are removed at the end, the report stays.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    screen, progress = Screen(stderr=True), Progress()
    try:
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(_show(progress, screen, clock), name="progress")
            async with demo_run.staged(plan, clock, progress) as (stage, outcome):
                await showing
                _tell(outcome, as_json=as_json)
                if keep:
                    async with demo_run.kept(stage):
                        _tell_what_to_try(stage, screen)
                        await asyncio.get_running_loop().create_future()
    finally:
        if temporary:
            _tidy(plan)
    return outcome.counters.clean


async def _show(progress: Progress, screen: Console, clock: Clock) -> None:
    """Live progress until the run is done."""
    with Live(console=screen, transient=True, auto_refresh=False) as live:
        while not progress.done:
            live.update(_line(progress), refresh=True)
            await clock.sleep(REFRESH_S)


def _line(progress: Progress) -> Text:
    numbers = (
        f"offered {progress.offered:,}  received {progress.received:,}  scored {progress.scored:,}"
    )
    return Text.assemble((progress.phase, "bold"), "  ", numbers if progress.offered else "")


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        say_json(outcome.as_json())
        return
    table = Table(show_header=False)
    for name, value in demo_run.facts(outcome).items():
        table.add_row(name, value)
    out.print(table)
    out.print(f"report: {outcome.report}")


def _tell_what_to_try(stage: Stage, screen: Console) -> None:
    """Lines to copy into another terminal."""
    history = (
        f"{stage.api}/api/v1/streams/{demo_run.RIG}/history"
        f"?space={demo_run.SPACE}&points=20&format=csv"
    )
    screen.print(
        f"""
everything goes on running; in another terminal:

  export TESTBED_API={stage.api} TESTBED_BROKER={stage.broker} TESTBED_SPACE={demo_run.SPACE}
  export TESTBED_CREDENTIAL={stage.observer}

  testbed tap {demo_run.RIG}
  curl -H "Authorization: Bearer $TESTBED_CREDENTIAL" "{history}"
  TESTBED_INPUTS=rig={demo_run.RIG} python examples/ten_lines.py

the API's documentation: {stage.api}/api/v1/docs
Ctrl-C stops it all."""
    )


def _tidy(plan: Plan) -> None:
    """Of a folder of ours only the report stays, if there is one."""
    for one in plan.folder.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        elif one.name != "report.html":
            one.unlink()
    if not any(plan.folder.iterdir()):
        plan.folder.rmdir()
