"""The commands of `testbed gateway`; each parses, calls, prints."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from broker.errors import BedError, Refused
from testbed.terminal import run as terminal_run
from testbed.terminal.options import Json, settings
from testbed.terminal.run import Exit
from testbed.terminal.screen import out, say_json

app = typer.Typer(help="The edge process at a machine.", no_args_is_help=True)


@app.command("run")
def run(mapping: Annotated[Path, typer.Argument(help="mapping file (YAML)")]) -> None:
    """Read the machine and publish it, until Ctrl-C."""
    from broker.settings import BusSettings
    from gateway import identity, service
    from gateway.mapping import model as mappings
    from gateway.settings import GatewaySettings

    async def go() -> None:
        own = settings(GatewaySettings)
        bus = identity.told(settings(BusSettings), own.gateway_identity)
        await service.run(mappings.load(mapping), own, bus, WallClock())

    terminal_run.run(go(), keeps_data=True)


Equipment = Annotated[str, typer.Argument(help="organisation/equipment")]


@app.command("code")
def code(equipment: Equipment, json: Json = False) -> None:
    """Make a one-time code with which a machine becomes the gateway of an equipment; an hour."""
    from testbed.client import enrolment

    made = terminal_run.run(enrolment.code(equipment))
    say_json(made) if json else enrolment.show_code(made, equipment, out)


@app.command("enrol")
def enrol(
    code: Annotated[str, typer.Argument(help="as `testbed gateway code` showed it")],
    api: Annotated[str | None, typer.Option(help="URL of the testbed's API [TESTBED_API]")] = None,
    json: Json = False,
) -> None:
    """On the gateway's machine: make its own key, and get its credential for a code."""
    from gateway.settings import GatewaySettings
    from testbed.client import enrolment

    made = terminal_run.run(enrolment.enrol(code, api, settings(GatewaySettings)))
    say_json(made) if json else enrolment.show_enrolled(made, out)


@app.command("show")
def show(equipment: Equipment, json: Json = False) -> None:
    """Who is the gateway of an equipment, with the fingerprint of its key."""
    from testbed.client import enrolment

    found = terminal_run.run(enrolment.gateways(equipment))
    say_json(found) if json else enrolment.show_gateways(found, out)


@app.command("lock-out")
def lock_out(equipment: Equipment) -> None:
    """End the gateway of an equipment at once: credential, connection and open codes."""
    from testbed.client import enrolment

    terminal_run.run(enrolment.lock_out(equipment))
    out.print(f"the gateway of {equipment} is locked out")


@app.command("check")
def check(
    mapping: Annotated[Path, typer.Argument(help="mapping file (YAML)")], json: Json = False
) -> None:
    """Say everything that is wrong with a mapping, against the live server, before it runs."""
    from testbed.commissioning import check_browse

    good = terminal_run.run(
        check_browse.check(mapping, say_json if json else out.print, as_json=json)
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
    from testbed.commissioning import trust as commissioning_trust
    from testbed.commissioning.check_browse import Place

    seen = terminal_run.run(
        commissioning_trust.look(server, Place(server, "sign-and-encrypt", policy))
    )
    commissioning_trust.show(seen, out)
    try:
        commissioning_trust.pin(seen, commissioning_trust.accepted(seen, yes, typer.confirm), out)
    except BedError as exc:
        terminal_run.fail(exc)
    except typer.Abort:
        terminal_run.fail(
            Refused("nothing was pinned: nobody answered", hint="in scripts: --yes SHA256")
        )
    commissioning_trust.show_own(seen, out)


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
    from testbed.commissioning import check_browse

    place = check_browse.Place(url, security, policy, user)
    terminal_run.run(check_browse.browse(place, write, equipment, out))
