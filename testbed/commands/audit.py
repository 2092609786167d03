"""`testbed audit`: what was done in the testbed, for those who answer for it or look into it."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.client import audit
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.run import Exit
from testbed.terminal.screen import out, say_json

audit_app = typer.Typer(
    help="What was done, and whether that record is whole.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(audit_app, name="audit")


@audit_app.command("list")
def audit_list(
    begin: Annotated[
        str | None, typer.Option("--from", help="instant, included; a day ago if left out")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="instant, not included; now")] = None,
    principal: Annotated[str | None, typer.Option(help="who did it")] = None,
    organisation: Annotated[str | None, typer.Option(help="whose people and machines")] = None,
    action: Annotated[str | None, typer.Option(help="such as share, sign-in or connect")] = None,
    json: Json = False,
) -> None:
    """What was done, in order; of your organisation, or of all for an auditor of all."""
    looked = {"from": begin, "to": end, "principal": principal}
    looked |= {"organisation": organisation, "action": action}
    found = run.run(audit.listed(looked, WallClock()))
    say_json(found) if json else audit.show(found, out)


@audit_app.command("verify")
def audit_verify(
    anchor: Annotated[
        Path | None, typer.Option(help="a gateway's anchors, or a head that you kept")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="a key that you wrote down; any number of times")
    ] = None,
    json: Json = False,
) -> None:
    """Check the whole chain on this machine; exit code 1 and the first broken place if it is not
    whole.
    """
    verdict = run.run(audit.verify(anchor, key or ()))
    say_json(verdict.plain) if json else audit.show_verdict(verdict, out)
    raise typer.Exit(Exit.DONE if verdict.broken is None else Exit.NEGATIVE)


@audit_app.command("head")
def audit_head() -> None:
    """The newest signed head, as a line of JSON to keep: `audit verify --anchor` takes it."""
    say_json(run.run(audit.newest()))
