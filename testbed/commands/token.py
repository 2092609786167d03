"""`testbed token`, `testbed password` and `testbed sign-in`: how people show who they are."""

from typing import Annotated, Any

import typer
from rich.table import Table

from broker.rights import Role
from testbed.client import api, credentials
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.screen import out, say_json

token_app = typer.Typer(help="Your own tokens.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(token_app, name="token")
    app.command("sign-in")(sign_in)
    app.command("password")(password)


@token_app.command("create")
def token_create(
    label: Annotated[str, typer.Argument(help="what it is for")] = "",
    role: Annotated[
        list[Role] | None,
        typer.Option(help="which of your roles it holds, any number of times; all if left out"),
    ] = None,
    expires_in_s: Annotated[float | None, typer.Option(help="seconds until it ends")] = None,
    json: Json = False,
) -> None:
    """Make one more token; it is shown this once."""
    body = {"label": label, "expires_in_s": expires_in_s, "roles": role or None}
    made = run.run(api.ask("POST", "/tokens", json=body))
    say_json(made) if json else _told(made)


@token_app.command("list")
def token_list(json: Json = False) -> None:
    """Your tokens, with their last use."""
    found = run.run(api.ask("GET", "/tokens"))["items"]
    say_json(found) if json else _show(found)


@token_app.command("revoke")
def token_revoke(number: Annotated[int, typer.Argument(help="as `list` shows it")]) -> None:
    """End one of your tokens at once."""
    run.run(api.ask("DELETE", f"/tokens/{number}"))
    out.print(f"token {number} is revoked")


def sign_in(
    person: Annotated[str, typer.Argument(help="your name here")],
    given: Annotated[
        str, typer.Option("--password", prompt="password", hide_input=True, help="asked for")
    ],
    json: Json = False,
) -> None:
    """Get a token for twelve hours with your password."""
    body = {"person": person, "password": given}
    made = run.run(api.ask_openly("POST", "/sign-in", json=body))
    say_json(made) if json else credentials.show(made, out)


def password(
    given: Annotated[
        str,
        typer.Option(
            "--password",
            prompt="new password",
            confirmation_prompt=True,
            hide_input=True,
            help="12 to 200 characters; asked for",
        ),
    ],
) -> None:
    """Set the password that you sign in with."""
    run.run(api.ask("PUT", "/me/password", json={"password": given}))
    out.print("the password is set")


def _told(made: Any) -> None:
    credentials.show(made, out)
    if roles := made["roles"]:
        out.print(f"it may do what {' and '.join(roles)} may, and no more.", style="dim")


def _show(found: Any) -> None:
    rows = Table("id", "label", "roles", "made", "last used", "expires")
    for one in found:
        roles = ", ".join(one["roles"] or ["all yours"])
        used, ends = one["last_used"] or "never", one["expires"] or "never"
        rows.add_row(str(one["id"]), one["label"], roles, one["made"], used, ends)
    out.print(rows)
