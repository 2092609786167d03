"""The commands of `testbed gateway`; each parses, calls, prints."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed import running
from testbed.options import Json, settings
from testbed.running import Exit
from testbed.screen import out, say_json

app = typer.Typer(help="The edge process at a machine.", no_args_is_help=True)


@app.command("run")
def run(mapping: Annotated[Path, typer.Argument(help="mapping file (YAML)")]) -> None:
    """Read the machine and publish it, until Ctrl-C."""
    from broker.settings import BusSettings
    from gateway import mapping as mappings
    from gateway import service
    from gateway.settings import GatewaySettings

    async def go() -> None:
        await service.run(
            mappings.load(mapping), settings(GatewaySettings), settings(BusSettings), WallClock()
        )

    running.run(go())


@app.command("check")
def check(
    mapping: Annotated[Path, typer.Argument(help="mapping file (YAML)")], json: Json = False
) -> None:
    """Say everything that is wrong with a mapping, against the live server, before it runs."""
    from testbed import gateway_commands

    good = running.run(
        gateway_commands.check(mapping, say_json if json else out.print, as_json=json)
    )
    raise typer.Exit(Exit.DONE if good else Exit.INPUT)


@app.command("browse")
def browse(
    url: Annotated[
        str,
        typer.Argument(help="opc.tcp://host:port, or a sensors' broker mqtt://[user@]host:port"),
    ],
    write: Annotated[
        Path | None, typer.Option(help="write a starting mapping to this file")
    ] = None,
    equipment: Annotated[
        str, typer.Option(help="organisation/equipment for the mapping")
    ] = "factory/machine",
) -> None:
    """List a server's nodes or a broker's topics, and write a first mapping of them."""
    from testbed import gateway_commands

    running.run(gateway_commands.browse(url, write, equipment, out))
