"""`testbed member`: the people of the caller's organisation, and their roles."""

from typing import Annotated

import typer

from broker.rights import Role
from testbed.client import credentials, organisations
from testbed.terminal import run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import notes, out, print_json

EXAMPLE = example("testbed member add ben --role engineer")

member_app = typer.Typer(
    help="Add, list, change and remove people of your organisation.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Person = Annotated[str, typer.Argument(help="id of the person, such as fay")]
Roles = Annotated[list[Role], typer.Option("--role", help="role of the person; can be repeated")]


Email = Annotated[
    str | None,
    typer.Option(
        help="e-mail address to which notices about requests and grants go, seen by your"
        " organisation alone (default: none)"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(member_app, name="member")


@member_app.command("add", epilog=EXAMPLE)
def add(person: Person, role: Roles, email: Email = None, json: Json = False) -> None:
    """Add a person; the first token is shown only this once."""
    created = run.run(organisations.add_member(person, role, email))
    if json:
        print_json(created)
    else:
        credentials.print_first(created.credential, created.person, out, notes)


@member_app.command("list", epilog=example("testbed member list"))
def list_(json: Json = False) -> None:
    """List the people of your organisation."""
    members = run.run(organisations.fetch_members())
    print_json(members) if json else organisations.print_members(members, out)


@member_app.command("change", epilog=example("testbed member change ben --role auditor"))
def change(person: Person, role: Roles, json: Json = False) -> None:
    """Give a person other roles; rights that these do not include end at once."""
    member = run.run(organisations.change_member(person, role))
    print_json(member) if json else out.print(f"{person} is {' and '.join(member.roles)} now")


@member_app.command("email", epilog=example("testbed member email ben --email ben@factory.example"))
def email(person: Person, email: Email = None, json: Json = False) -> None:
    """Set the e-mail address to which notices to a person go; without --email it gets none."""
    member = run.run(organisations.set_email(person, email))
    text = f"notices to {person} go to {email}" if email else f"{person} gets no mails"
    print_json(member) if json else out.print(text)


@member_app.command("remove", epilog=example("testbed member remove ben"))
def remove(person: Person) -> None:
    """Remove a person; all of the person's tokens end at once."""
    run.run(organisations.remove_member(person))
    out.print(f"{person} is removed")
