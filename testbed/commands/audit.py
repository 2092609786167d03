"""`testbed audit`: the audit events, and whether their chain is whole."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.client import audit
from testbed.terminal import run
from testbed.terminal.options import Json, SpanEnd, example, span_begin
from testbed.terminal.run import Exit
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed audit list --action connect --from -2h")

audit_app = typer.Typer(
    help="List what was done in the testbed, and verify that the record is whole.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(audit_app, name="audit")


@audit_app.command("list", epilog=EXAMPLE)
def list_(
    begin: Annotated[str | None, span_begin("a day ago")] = None,
    end: SpanEnd = None,
    principal: Annotated[
        str | None, typer.Option(help="id of the person or machine that acted (default: all)")
    ] = None,
    organisation: Annotated[
        str | None, typer.Option(help="id of the organisation that acted (default: all)")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="action, such as share, sign-in or connect (default: all)")
    ] = None,
    json: Json = False,
) -> None:
    """List audit events in order: your organisation's, or everybody's for an auditor of all."""
    filters = {"from": begin, "to": end, "principal": principal}
    filters |= {"organisation": organisation, "action": action}
    events = run.run(audit.fetch_events(filters, WallClock()))
    print_json(events) if json else audit.print_events(events, out)


@audit_app.command(
    "verify",
    epilog=example("testbed audit verify", "testbed audit verify --anchor rig.anchors.jsonl"),
)
def verify(
    anchor: Annotated[
        Path | None,
        typer.Option(
            help="file with signed heads: a gateway's NAME.anchors.jsonl, or the output of `head`"
            " (default: none)"
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="public key whose signatures count; can be repeated (default: the keys of the"
            " anchors, or the server's, and before a restore the one of then)"
        ),
    ] = None,
    restore: Annotated[
        list[str] | None,
        typer.Option(
            help="SHA-256 of the manifest of a backup whose restore was right: signed heads of the"
            " events after that backup are no fault; can be repeated (default: none)"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Verify the whole chain on this machine; exit code 1 if it is broken.

    A key that changed at a restore is named. Exit code 0 if nothing else is wrong; 1 if --key or
    --anchor says which keys count, and the new one is not among them. Restores are named, and of an
    anchor that one explains it is asked whether that was right.
    """
    verdict = run.run(audit.verify(anchor, key or (), restore or ()))
    print_json(verdict.as_json) if json else audit.print_verdict(verdict, out)
    raise typer.Exit(Exit.DONE if verdict.broken is None else Exit.NEGATIVE)


@audit_app.command("head", epilog=example("testbed audit head"))
def head() -> None:
    """Print the newest signed head as a line of JSON, for `verify --anchor` later."""
    print_json(run.run(audit.fetch_newest_head()))
