"""`testbed listing`: the organisations that can see an equipment, and ask for its streams."""

from typing import Annotated

import typer

from testbed.client import listings
from testbed.terminal import run
from testbed.terminal.options import Equipment, Json, example, time
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed listing set factory/pump-rig --company company --terms 'Cite us.'")

listing_app = typer.Typer(
    help="Show your equipment to other organisations, so that they can ask for streams.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


Terms = Annotated[
    str | None,
    typer.Option(
        help='conditions of use, a text that others read; "" removes them (default: as they are)'
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(listing_app, name="listing")


@listing_app.command("set", epilog=EXAMPLE)
def set_(
    equipment: Equipment,
    company: Annotated[
        list[str] | None,
        typer.Option(
            help="id of an organisation that sees the equipment; can be repeated (default: none)"
        ),
    ] = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="list it to all organisations")
    ] = False,
    nobody: Annotated[bool, typer.Option("--nobody", help="end the listing")] = False,
    terms: Terms = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help="stream of which a span is shown as an example: organisation/equipment/stream, or"
            " space:organisation/equipment/stream (default: no example)"
        ),
    ] = None,
    sample_from: Annotated[
        str | None,
        time(
            "--sample-from", "beginning of the example, included, such as -1d (default: no example)"
        ),
    ] = None,
    sample_to: Annotated[
        str | None,
        time("--sample-to", "end of the example, not included, such as now (default: no example)"),
    ] = None,
    json: Json = False,
) -> None:
    """List an equipment to organisations, to everybody or to nobody; grants do not change."""
    audience = listings.Audience(organisations=company or (), everybody=everybody, nobody=nobody)
    span = listings.SampleSpan(stream=sample, begin=sample_from, end=sample_to)
    listing = run.run(listings.store(equipment, audience, terms, span))
    print_json(listing) if json else listings.print_listing(listing, out)


@listing_app.command("show", epilog=example("testbed listing show factory/pump-rig"))
def show(equipment: Equipment, json: Json = False) -> None:
    """Show an equipment's listing: its streams, terms and, for its owner, who sees it."""
    listing = run.run(listings.fetch(equipment))
    print_json(listing) if json else listings.print_listing(listing, out)


@listing_app.command("list", epilog=example("testbed listing list"))
def list_(json: Json = False) -> None:
    """List the equipment that your organisation can see."""
    fetched = run.run(listings.fetch_all())
    print_json(fetched) if json else listings.print_table(fetched, out)
