"""`testbed administrator`: a new credential for the administrator, or for an owner who lost it."""

from pathlib import Path
from typing import Annotated

import typer

from testbed.terminal import run
from testbed.terminal.options import Json, example, settings
from testbed.terminal.screen import notes, out, print_json

EXAMPLE = example("testbed administrator renew --data testbed-data")
RENEW_EXAMPLES = example(
    "testbed administrator renew --data testbed-data",
    "testbed administrator renew --data testbed-data --owner fay",
)

administrator_app = typer.Typer(
    help="Renew lost credentials, with access to the server's disk.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(administrator_app, name="administrator")


@administrator_app.command("renew", epilog=RENEW_EXAMPLES)
def renew(
    data: Annotated[
        Path | None, typer.Option(help="data folder of the stopped server (default: testbed-data)")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            help="registry, as for `testbed up`; with PostgreSQL the server may run (default:"
            " sqlite)"
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            help="id of an owner of an organisation who lost every credential (default: the"
            " administrator)"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create a new credential for the administrator or an owner; all earlier ones end."""
    from broker.clock import WallClock
    from testbed.client import credentials
    from testbed_api import data_folder
    from testbed_api.settings import SQLITE, ServerSettings

    own = settings(ServerSettings, folder=data, registry=registry)
    if own.registry == SQLITE:
        run.call(lambda: data_folder.check_exists(own.folder))
    from testbed.server import administrator

    person = owner or administrator.ADMINISTRATOR
    addresses = run.call(lambda: administrator.addresses(own))
    created = run.run(administrator.renew(own, person, WallClock()), keeps_data=True)
    if json:
        print_json(created)
    else:
        credentials.print_first(created["credential"], person, out, notes, addresses)
