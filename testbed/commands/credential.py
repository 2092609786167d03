"""`testbed credential`: what the machines of one's organisation may read and write."""

from typing import Annotated

import typer

from testbed.client import credentials
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.screen import out, say_json

credential_app = typer.Typer(
    help="What the machines of your organisation may read and write.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(credential_app, name="credential")


@credential_app.command("create")
def credential_create(
    principal: Annotated[str, typer.Argument(help="its name, an id such as detector")],
    reads: Annotated[
        list[str] | None,
        typer.Option(help="[space:]organisation/equipment/stream, any number of times"),
    ] = None,
    writes: Annotated[
        list[str] | None, typer.Option(help="the same, for what it publishes")
    ] = None,
    expires_in_s: Annotated[float | None, typer.Option(help="seconds until it ends")] = None,
    json: Json = False,
) -> None:
    """Make a machine's credential with an explicit list of streams; it is shown this once."""
    wanted = credentials.Wanted(principal, tuple(reads or ()), tuple(writes or ()), expires_in_s)
    made = run.run(credentials.create(wanted))
    say_json(made) if json else credentials.show(made, out)


@credential_app.command("list")
def credential_list(json: Json = False) -> None:
    """The machines of your organisation, without their secrets."""
    found = run.run(credentials.listed())
    say_json(found) if json else credentials.table(found, out)


@credential_app.command("revoke")
def credential_revoke(principal: Annotated[str, typer.Argument(help="whose")]) -> None:
    """End a machine's credential at once, with its connections."""
    run.run(credentials.revoke(principal))
    out.print(f"{principal} is revoked")
