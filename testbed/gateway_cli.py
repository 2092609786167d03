"""The commands of `testbed gateway`; each parses, calls, prints."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from broker.errors import BedError, Refused
from testbed import running
from testbed.options import Json, settings
from testbed.running import Exit
from testbed.screen import out, say_json

app = typer.Typer(help="The edge process at a machine.", no_args_is_help=True)


@app.command("run")
def run(mapping: Annotated[Path, typer.Argument(help="mapping file (YAML)")]) -> None:
    """Read the machine and publish it, until Ctrl-C."""
    from broker.settings import BusSettings
    from gateway import identity, service
    from gateway import mapping as mappings
    from gateway.settings import GatewaySettings

    async def go() -> None:
        own = settings(GatewaySettings)
        bus = identity.told(settings(BusSettings), own.gateway_identity)
        await service.run(mappings.load(mapping), own, bus, WallClock())

    running.run(go(), keeps_data=True)


Equipment = Annotated[str, typer.Argument(help="organisation/equipment")]


@app.command("code")
def code(equipment: Equipment, json: Json = False) -> None:
    """Make a one-time code with which a machine becomes the gateway of an equipment; an hour."""
    from testbed import enrolling

    made = running.run(enrolling.code(equipment))
    say_json(made) if json else enrolling.show_code(made, equipment, out)


@app.command("enrol")
def enrol(
    code: Annotated[str, typer.Argument(help="as `testbed gateway code` showed it")],
    api: Annotated[str | None, typer.Option(help="URL of the testbed's API [TESTBED_API]")] = None,
    json: Json = False,
) -> None:
    """On the gateway's machine: make its own key, and get its credential for a code."""
    from gateway.settings import GatewaySettings
    from testbed import enrolling

    made = running.run(enrolling.enrol(code, api, settings(GatewaySettings)))
    say_json(made) if json else enrolling.show_enrolled(made, out)


@app.command("show")
def show(equipment: Equipment, json: Json = False) -> None:
    """Who is the gateway of an equipment, with the fingerprint of its key."""
    from testbed import enrolling

    found = running.run(enrolling.gateways(equipment))
    say_json(found) if json else enrolling.show_gateways(found, out)


@app.command("lock-out")
def lock_out(equipment: Equipment) -> None:
    """End the gateway of an equipment at once: credential, connection and open codes."""
    from testbed import enrolling

    running.run(enrolling.lock_out(equipment))
    out.print(f"the gateway of {equipment} is locked out")


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


Security = Annotated[str | None, typer.Option(help="of an OPC UA server: sign-and-encrypt or none")]
Policy = Annotated[
    str, typer.Option(help="OPC UA security policy: Basic256Sha256 or Aes256Sha256RsaPss")
]


@app.command("trust")
def trust(
    server: Annotated[str, typer.Argument(help="mapping file, or opc.tcp://host:port")],
    yes: Annotated[
        str | None,
        typer.Option(help="for scripts: the SHA-256 that alone is accepted, without asking"),
    ] = None,
    policy: Policy = "Basic256Sha256",
) -> None:
    """Show a server's certificate, and trust it if you say so."""
    from testbed import trusting
    from testbed.gateway_commands import Place

    seen = running.run(trusting.look(server, Place(server, "sign-and-encrypt", policy)))
    trusting.show(seen, out)
    try:
        trusting.pin(seen, trusting.accepted(seen, yes, typer.confirm), out)
    except BedError as exc:
        running.fail(exc)
    except typer.Abort:
        running.fail(
            Refused("nothing was pinned: nobody answered", hint="in scripts: --yes SHA256")
        )
    trusting.show_own(seen, out)


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
    security: Security = None,
    policy: Policy = "Basic256Sha256",
    user: Annotated[
        str, typer.Option(help="who signs in, with the password in TESTBED_SOURCE_PASSWORD")
    ] = "",
) -> None:
    """List a server's nodes or a broker's topics, and write a first mapping of them."""
    from testbed import gateway_commands

    place = gateway_commands.Place(url, security, policy, user)
    running.run(gateway_commands.browse(place, write, equipment, out))
