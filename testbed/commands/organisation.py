"""`testbed organisation` and `testbed member`: who takes part, and who does what for them."""

from typing import Annotated, Any

import typer
from rich.table import Table

from broker.namespace import checked_id
from broker.rights import Party, Role
from testbed.client import api, credentials
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.screen import out, say_json

organisation_app = typer.Typer(
    help="Who takes part (for owners of who runs the testbed).", no_args_is_help=True
)
member_app = typer.Typer(help="The people of your organisation.", no_args_is_help=True)

Person = Annotated[str, typer.Argument(help="a person's name, an id such as fay")]
Roles = Annotated[list[Role], typer.Option("--role", help="what they do; any number of times")]


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(organisation_app, name="organisation")
    app.add_typer(member_app, name="member")


@organisation_app.command("create")
def organisation_create(
    organisation: Annotated[str, typer.Argument(help="its id, such as factory")],
    owner: Annotated[str, typer.Option(help="its first owner, a new person")],
    name: Annotated[str | None, typer.Option(help="as people know it; its id if left out")] = None,
    kind: Annotated[Party, typer.Option(help="what it is here for")] = Party.PARTNER,
    json: Json = False,
) -> None:
    """Make an organisation; its first owner's token is shown this once."""
    body = {"id": organisation, "name": name or organisation, "kind": kind, "owner": owner}
    made = run.run(api.ask("POST", "/organisations", json=body))
    say_json(made) if json else credentials.show(made, out)


@organisation_app.command("list")
def organisation_list(json: Json = False) -> None:
    """The organisations that you can see."""
    found = run.run(api.ask("GET", "/organisations"))["items"]
    say_json(found) if json else _show(found, "id", "name", "kind")


@member_app.command("add")
def member_add(person: Person, role: Roles, json: Json = False) -> None:
    """Make somebody a member; the first token is shown this once."""

    async def go() -> Any:
        body = {"person": checked_id(person, "person"), "roles": role}
        return await _of_mine("POST", "", json=body)

    made = run.run(go())
    say_json(made) if json else credentials.show(made, out)


@member_app.command("list")
def member_list(json: Json = False) -> None:
    """Who belongs to your organisation."""
    found = run.run(_of_mine("GET", ""))["items"]
    say_json(found) if json else _show(found, "person", "roles", "since")


@member_app.command("change")
def member_change(person: Person, role: Roles) -> None:
    """Give a member other roles; what they do not allow ends at once."""
    run.run(_of_mine("PUT", f"/{person}", json={"roles": role}))
    out.print(f"{person} is {' and '.join(role)} now")


@member_app.command("remove")
def member_remove(person: Person) -> None:
    """Remove a member: all of theirs ends at once."""
    run.run(_of_mine("DELETE", f"/{person}"))
    out.print(f"{person} is removed")


async def _of_mine(method: str, rest: str, **content: Any) -> Any:
    """A question about the members of the caller's organisation."""
    async with api.door() as door:
        mine = (await door.request("GET", "/me"))["organisation"]
        return await door.request(method, f"/organisations/{mine}/members{rest}", **content)


def _show(found: Any, *columns: str) -> None:
    rows = Table(*columns)
    for one in found:
        shown = (one[name] for name in columns)
        rows.add_row(*(", ".join(it) if isinstance(it, list) else str(it) for it in shown))
    out.print(rows)
