"""`testbed grant`: grants of streams between organisations."""

from typing import Annotated

import typer

from testbed.client import grants
from testbed.client.grants import Selection, Term
from testbed.terminal import run
from testbed.terminal.options import ExpiresIn, Json, Streams, example, time
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed grant ask factory/pump-rig --purpose 'find leaks' --expires-in 30d")

grant_app = typer.Typer(
    help="Ask for, give, approve and revoke rights to read streams of other organisations.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Targets = Annotated[
    list[str],
    typer.Argument(
        help="addresses of equipment, for all streams that each has now: organisation/equipment;"
        " or of single streams: organisation/equipment/stream; with space: in front for another"
        " space than live"
    ),
]
Number = Annotated[int, typer.Argument(help="id of the grant, as `list` shows it")]
Numbers = Annotated[
    list[int] | None,
    typer.Argument(
        help="ids of one or more grants, as `list` shows them (default: those of the options)"
    ),
]
OfEquipment = Annotated[
    str | None,
    typer.Option(
        "--equipment",
        help="organisation/equipment: all grants of it that this can change (default: none)",
    ),
]
OfCompany = Annotated[
    str | None,
    typer.Option(
        "--company",
        help="id of an organisation: all that it asked for or got of you (default: any)",
    ),
]
Begin = Annotated[
    str | None,
    time("--from", "time at which it begins, such as tomorrow or +2h (default: now)"),
]
Until = Annotated[
    str | None,
    time(
        "--until",
        "time at which it ends, such as 2026-12-31 or +30d, instead of --expires-in (default:"
        " never)",
    ),
]
Reason = Annotated[
    str, typer.Option(help="reason, a sentence that the company reads (default: empty)")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(grant_app, name="grant")


@grant_app.command("ask", epilog=EXAMPLE)
def ask(
    targets: Targets,
    purpose: Annotated[str, typer.Option(help="purpose, a sentence that the owner reads")],
    begin: Begin = None,
    until: Until = None,
    expires_in: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Ask for equipment that is listed to you, or for streams of it; what waits stays as it is."""
    term = Term(begin=begin, until=until, expires_in_s=expires_in)
    outcome = run.run(grants.ask(targets, purpose, term))
    print_json(outcome) if json else grants.print_outcome(outcome, out)


@grant_app.command(
    "give", epilog=example("testbed grant give company factory/pump-rig/rig --purpose 'find leaks'")
)
def give(
    company: Annotated[str, typer.Argument(help="id of the organisation that may read")],
    streams: Streams,
    purpose: Annotated[
        str, typer.Option(help="purpose, a sentence that the company reads (default: empty)")
    ] = "",
    expires_in: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Let a company read streams of yours without being asked, from now on."""
    given = run.run(grants.give(company, streams, purpose, expires_in))
    print_json(given) if json else grants.print_sentences(given.items, out)


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
    """Show one grant whole: state, stream, both sides, purpose, span, decision, and its pause."""
    grant = run.run(grants.fetch(number))
    print_json(grant) if json else grants.print_whole(grant, out)


@grant_app.command(
    "approve",
    epilog=example(
        "testbed grant approve 7 8 --expires-in 30d",
        "testbed grant approve --equipment factory/pump-rig --company company",
    ),
)
def approve(
    numbers: Numbers = None,
    equipment: OfEquipment = None,
    company: OfCompany = None,
    begin: Begin = None,
    until: Until = None,
    expires_in: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Approve requests, all or none; --from, --until, --expires-in shorten what was asked for."""
    selection = Selection(numbers=numbers or (), equipment=equipment, company=company)
    term = Term(begin=begin, until=until, expires_in_s=expires_in)
    approved = run.run(grants.act("approval", selection, **term.body))
    if json:
        print_json(approved)
        return
    grants.print_sentences(approved.items, out)
    grants.print_lengthened(approved.items, run.run(grants.fetch_all(open_only=False)), out)


@grant_app.command(
    "refuse",
    epilog=example(
        "testbed grant refuse 7 --reason 'ask for less'", "testbed grant refuse --company company"
    ),
)
def refuse(
    numbers: Numbers = None,
    equipment: OfEquipment = None,
    company: OfCompany = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Refuse requests, all or none."""
    selection = Selection(numbers=numbers or (), equipment=equipment, company=company)
    refused = run.run(grants.act("refusal", selection, reason=reason))
    print_json(refused) if json else grants.print_sentences(refused.items, out)


@grant_app.command(
    "withdraw",
    epilog=example(
        "testbed grant withdraw 7", "testbed grant withdraw --equipment factory/pump-rig"
    ),
)
def withdraw(numbers: Numbers = None, equipment: OfEquipment = None, json: Json = False) -> None:
    """Give grants back, or take back what you asked for, all or none."""
    selection = Selection(numbers=numbers or (), equipment=equipment)
    withdrawn = run.run(grants.act("withdrawal", selection))
    print_json(withdrawn) if json else grants.print_sentences(withdrawn.items, out)


@grant_app.command(
    "revoke",
    epilog=example(
        "testbed grant revoke 7",
        "testbed grant revoke --company company --reason 'the trial is over'",
    ),
)
def revoke(
    numbers: Numbers = None,
    equipment: OfEquipment = None,
    company: OfCompany = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Revoke grants at once, all or none, and close the connections of their readers."""
    selection = Selection(numbers=numbers or (), equipment=equipment, company=company)
    revoked = run.run(grants.act("revocation", selection, reason=reason))
    print_json(revoked) if json else grants.print_sentences(revoked.items, out)
