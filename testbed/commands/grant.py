"""`testbed grant`: grants of streams between organisations."""

from typing import Annotated

import typer

from testbed.client import api, grants
from testbed.client.grants import Term
from testbed.terminal import run
from testbed.terminal.options import ExpiresIn, Json, Streams, example
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed grant ask factory/pump-rig/rig --for 'find leaks' --days 30")

grant_app = typer.Typer(
    help="Ask for, give, approve and revoke rights to read streams of other organisations.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Number = Annotated[int, typer.Argument(help="id of the grant, as `list` shows it")]
Numbers = Annotated[
    list[int], typer.Argument(help="ids of one or more grants, as `list` shows them")
]
Begin = Annotated[
    str | None, typer.Option("--from", help="instant at which it begins (default: now)")
]
Until = Annotated[str | None, typer.Option(help="instant at which it ends (default: never)")]
Days = Annotated[
    float | None,
    typer.Option(min=0.001, help="days from now until it ends, instead of --until (default: none)"),
]
Reason = Annotated[
    str, typer.Option(help="reason, a sentence that the company reads (default: empty)")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(grant_app, name="grant")


@grant_app.command("ask", epilog=EXAMPLE)
def ask(
    streams: Streams,
    purpose: Annotated[str, typer.Option("--for", help="purpose, a sentence that the owner reads")],
    begin: Begin = None,
    until: Until = None,
    days: Days = None,
    json: Json = False,
) -> None:
    """Ask for streams of an equipment that is listed to you; each becomes a grant if approved."""
    term = Term(begin=begin, until=until, days=days)
    asked_for = run.run(grants.ask(streams, purpose, term))
    print_json(asked_for) if json else grants.print_sentences(asked_for, out)


@grant_app.command(
    "give", epilog=example("testbed grant give company factory/pump-rig/rig --purpose 'find leaks'")
)
def give(
    company: Annotated[str, typer.Argument(help="id of the organisation that may read")],
    streams: Streams,
    purpose: Annotated[
        str, typer.Option(help="purpose, a sentence that the company reads (default: empty)")
    ] = "",
    expires_in_s: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Let a company read streams of yours without being asked, from now on."""
    given = run.run(grants.give(company, streams, purpose, expires_in_s))
    print_json(given) if json else grants.print_sentences(given, out)


@grant_app.command("list", epilog=example("testbed grant list --open"))
def list_(
    open_: Annotated[
        bool, typer.Option("--open", help="list only requests that wait for an answer")
    ] = False,
    json: Json = False,
) -> None:
    """List the grants that your organisation gave, got or asked for."""
    fetched = run.run(grants.fetch_all(open_only=open_))
    print_json(fetched) if json else grants.print_table(fetched, out)


@grant_app.command("show", epilog=example("testbed grant show 7"))
def show(number: Number, json: Json = False) -> None:
    """Show a grant in a sentence: who reads which stream, in which space, until when and why."""
    grant = run.run(api.request("GET", f"/grants/{number}"))
    print_json(grant) if json else grants.print_sentences([grant], out)


@grant_app.command("approve", epilog=example("testbed grant approve 7 8 --days 30"))
def approve(
    numbers: Numbers,
    begin: Begin = None,
    until: Until = None,
    days: Days = None,
    json: Json = False,
) -> None:
    """Approve requests; --from, --until and --days shorten the time that was asked for."""
    term = Term(begin=begin, until=until, days=days)
    approved = run.run(grants.post_each(numbers, "approval", term.body))
    print_json(approved) if json else grants.print_sentences(approved, out)


@grant_app.command("refuse", epilog=example("testbed grant refuse 7 --reason 'ask for less'"))
def refuse(numbers: Numbers, reason: Reason = "", json: Json = False) -> None:
    """Refuse requests."""
    refused = run.run(grants.post_each(numbers, "refusal", {"reason": reason}))
    print_json(refused) if json else grants.print_sentences(refused, out)


@grant_app.command("withdraw", epilog=example("testbed grant withdraw 7"))
def withdraw(numbers: Numbers, json: Json = False) -> None:
    """Give grants back, or take back what you asked for."""
    withdrawn = run.run(grants.post_each(numbers, "withdrawal", None))
    print_json(withdrawn) if json else grants.print_sentences(withdrawn, out)


@grant_app.command("revoke", epilog=example("testbed grant revoke 7"))
def revoke(number: Number) -> None:
    """Revoke a grant at once, and close the connections of its readers."""
    run.run(api.request("DELETE", f"/grants/{number}"))
    out.print(f"grant {number} is revoked")
