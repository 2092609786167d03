"""`testbed status` and `alarms`: the state of all streams, and the alarms of their publishers."""

from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import durations, run
from testbed.terminal.options import AnySpace, Json, example
from testbed.terminal.screen import out, print_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(epilog=example("testbed status --within 1d", "testbed status --space live"))(status)
    app.command(epilog=example("testbed alarms", "testbed alarms --space live"))(alarms)


def status(
    within: Annotated[
        float,
        typer.Option(
            parser=durations.seconds,
            metavar="DURATION",
            show_default="1h",
            help="time over which gaps and dead letters count, such as 12h or 7d",
        ),
    ] = 3_600.0,
    space: AnySpace = None,
    json: Json = False,
) -> None:
    """Print the state of all streams: freshness, alarms, gaps and dead letters."""
    from testbed.client import status as client_status

    fetched = run.run(client_status.fetch(within, space))
    print_json(fetched) if json else client_status.print_status(fetched, out, WallClock())


def alarms(space: AnySpace = None, json: Json = False) -> None:
    """Print the alarms of the testbed, and of all gateways and prototypes, each once."""
    from testbed.client import alarms as client_alarms

    fetched = run.run(client_alarms.fetch(space))
    stated = [*client_alarms.of_testbed(fetched), *client_alarms.of_status(fetched)]
    print_json(fetched) if json else client_alarms.print_alarms(stated, out)
