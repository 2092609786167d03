"""`testbed credential`: credentials of machines, with the streams that they read and write."""

from typing import Annotated

import typer

from testbed.client import credentials
from testbed.terminal import run
from testbed.terminal.options import ExpiresIn, Json, example
from testbed.terminal.screen import notes, out, print_json

EXAMPLE = example(
    "testbed credential create detector --reads factory/pump-rig/rig"
    " --writes company/detector/score --expires-in 90d"
)

credential_app = typer.Typer(
    help="Create, list and revoke credentials of your organisation's machines and programs.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(credential_app, name="credential")


@credential_app.command("create", epilog=EXAMPLE)
def create(
    principal: Annotated[str, typer.Argument(help="name of the machine, an id such as detector")],
    reads: Annotated[
        list[str] | None,
        typer.Option(
            help="stream that it may read: organisation/equipment/stream, or"
            " space:organisation/equipment/stream; can be repeated (default: none)"
        ),
    ] = None,
    writes: Annotated[
        list[str] | None,
        typer.Option(
            help="stream that it may publish, in the same form; can be repeated (default: none)"
        ),
    ] = None,
    expires_in: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Create a machine's credential for a list of streams; it is shown only this once.

    A note on standard error names each stream under --reads that no grant covers now.
    """
    wanted = credentials.NewCredential(
        principal=principal, reads=reads or (), writes=writes or (), expires_in_s=expires_in
    )
    created = run.run(credentials.create(wanted))
    print_json(created) if json else credentials.print_created(created, out, notes)


@credential_app.command("list", epilog=example("testbed credential list"))
def list_(json: Json = False) -> None:
    """List the credentials of your organisation's machines, without their secrets."""
    fetched = run.run(credentials.fetch_all())
    print_json(fetched) if json else credentials.print_table(fetched, out)


@credential_app.command("revoke", epilog=example("testbed credential revoke detector"))
def revoke(
    principal: Annotated[str, typer.Argument(help="name of the machine, as `list` shows it")],
) -> None:
    """Revoke a machine's credential at once, and close its connections."""
    run.run(credentials.revoke(principal))
    out.print(f"{principal} is revoked")
