"""`testbed organisation`: the organisations that take part."""

from typing import Annotated

import typer

from broker.rights import Party
from testbed.client import credentials, organisations
from testbed.terminal import run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import notes, out, print_json

EXAMPLE = example("testbed organisation create factory --kind partner --owner fay")

organisation_app = typer.Typer(
    help="Create and list organisations; an owner of the intermediary may create them.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(organisation_app, name="organisation")


@organisation_app.command("create", epilog=EXAMPLE)
def create(
    organisation: Annotated[str, typer.Argument(help="id of the organisation, such as factory")],
    owner: Annotated[str, typer.Option(help="id of its first owner, a new person, such as fay")],
    kind: Annotated[
        Party,
        typer.Option(
            help="partner: owns equipment; company: tries prototypes on it; agency: funds and"
            " audits; intermediary: runs the testbed"
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="name that people read (default: the id)")
    ] = None,
    json: Json = False,
) -> None:
    """Create an organisation; its first owner's token is shown only this once."""
    created = run.run(organisations.create(organisation, name=name, kind=kind, owner=owner))
    if json:
        print_json(created)
    else:
        credentials.print_first(created.credential, created.person, out, notes)


@organisation_app.command("list", epilog=example("testbed organisation list"))
def list_(json: Json = False) -> None:
    """List the organisations that you can see."""
    fetched = run.run(organisations.fetch_all())
    print_json(fetched) if json else organisations.print_organisations(fetched, out)
