"""`testbed demo`: the whole testbed on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import Json, example
from testbed.terminal.run import Exit

Recording = Annotated[
    Path | None,
    typer.Option(help="recording (CSV file) to play (default: the model of a pump rig)"),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="folder for data, logs and report (default: a temporary one, which stays with --keep"
        " alone, and the report in the present folder)"
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="source seconds that are played in a second (default: 40 for the model; a"
        " recording takes 25 s at most)",
    ),
]
Times = Annotated[str, typer.Option(help="time stamps of a recording: original, or shifted to now")]
Store = Annotated[
    str,
    typer.Option(
        help="sample store: duckdb, or influxdb://host:port/organisation/bucket",
        envvar="TESTBED_STORE",
    ),
]
Keep = Annotated[
    bool, typer.Option("--keep", help="leave everything running and print commands to try")
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("testbed demo --keep"))(demo)


def demo(
    recording: Recording = None,
    folder: Folder = None,
    speed: Speed = None,
    times: Times = "original",
    store: Store = "duckdb",
    keep: Keep = False,
    json: Json = False,
) -> None:
    """Run machine, gateway, server and prototype on this machine, and check every sample."""
    from testbed.demo import terminal
    from testbed.demo.plan import DemoPlan
    from testbed.simulator import checked_times

    async def go() -> bool:
        checked = checked_times(times)
        places = terminal.choose_places(folder, keep=keep)
        plan = DemoPlan(**places, data=recording, speed=speed, times=checked, store=store)
        is_temporary = folder is None and not keep
        return await terminal.run(
            plan, WallClock(), keep=keep, as_json=json, temporary=is_temporary
        )

    raise typer.Exit(Exit.DONE if run.run(go()) else Exit.NEGATIVE)
