"""`testbed reconcile`: the rights, as Mosquitto holds them."""

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import settings


def add_to(app: typer.Typer) -> None:
    """Make it a part of the one command."""
    app.command("reconcile")(reconcile)


def reconcile() -> None:
    """Keep the rights in Mosquitto equal to the registry's, until Ctrl-C."""
    from broker.settings import BusSettings
    from testbed_api.broker_auth import mosquitto_reconciler
    from testbed_api.settings import ServerSettings

    chosen, bus = settings(ServerSettings), settings(BusSettings)
    run.run(mosquitto_reconciler.run(chosen, bus, WallClock()))
