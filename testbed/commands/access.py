"""`testbed access`, `pause` and `resume`: who reads an equipment's streams, and how to stop it."""

from typing import Annotated

import typer

from testbed.client import access as client_access
from testbed.terminal import run
from testbed.terminal.options import Equipment, Json, SpanEnd, example, span_begin, time
from testbed.terminal.screen import out, print_json

Company = Annotated[
    str | None,
    typer.Option(help="id of an organisation: all grants to it (default: every organisation)"),
]
OfEquipment = Annotated[
    str | None,
    typer.Option(
        "--equipment", help="organisation/equipment: all grants of it (default: all equipment)"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command("pause", epilog=example("testbed pause --company company"))(pause)
    app.command("resume", epilog=example("testbed resume --company company"))(resume)
    app.command(
        "access",
        epilog=example(
            "testbed access factory/pump-rig --at yesterday",
            "testbed access factory/pump-rig --from -30d --all",
        ),
    )(access)


def pause(company: Company = None, equipment: OfEquipment = None, json: Json = False) -> None:
    """Stop grants at once: all to a company, all of an equipment, or all that you gave."""
    grants = client_access.PausedGrants(company=company, equipment=equipment)
    answer = run.run(client_access.pause(grants))
    print_json(answer) if json else out.print(f"{grants} are paused: nobody reads under them")


def resume(company: Company = None, equipment: OfEquipment = None, json: Json = False) -> None:
    """Let grants count again that `pause` stopped with the same options."""
    grants = client_access.PausedGrants(company=company, equipment=equipment)
    answer = run.run(client_access.resume(grants))
    print_json(answer) if json else out.print(f"{grants} count again")


def access(
    equipment: Equipment,
    at: Annotated[
        str | None, time("--at", "time that the report is of, in place of a span (default: now)")
    ] = None,
    begin: Annotated[str | None, span_begin("no span, one instant")] = None,
    end: SpanEnd = None,
    whole: Annotated[
        bool, typer.Option("--all", help="print each reader of your own organisation as well")
    ] = False,
    json: Json = False,
) -> None:
    """Report who could read an equipment's streams, now or at a past moment, and who did.

    Readers of other organisations come first.
    """
    report = run.run(client_access.fetch(equipment, at=at, begin=begin, end=end))
    print_json(report) if json else client_access.print_report(report, out, whole=whole)
