"""`testbed token` and `password`: tokens and the password of the person who calls."""

from typing import Annotated

import typer

from broker.rights import Role
from testbed.client import api, tokens
from testbed.terminal import prompt, run
from testbed.terminal.options import ExpiresIn, Json, example
from testbed.terminal.screen import notes, out, print_json

EXAMPLE = example("testbed token create notebook --expires-in 30d")

token_app = typer.Typer(
    help="Create, list and revoke your own tokens.", no_args_is_help=True, epilog=EXAMPLE
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(token_app, name="token")
    app.command("password", epilog=example("testbed password"))(password)


@token_app.command("create", epilog=EXAMPLE)
def create(
    label: Annotated[str, typer.Argument(help="what the token is for (default: empty)")] = "",
    role: Annotated[
        list[Role] | None,
        typer.Option(
            help="role of yours that the token holds; can be repeated (default: all your roles)"
        ),
    ] = None,
    expires_in: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Create another token for yourself; it is shown only this once."""
    created = run.run(tokens.create(label, role, expires_in))
    print_json(created) if json else tokens.print_secret(created, out, notes)


@token_app.command("list", epilog=example("testbed token list"))
def list_(json: Json = False) -> None:
    """List your tokens, with their last use."""
    fetched = run.run(tokens.fetch_all())
    print_json(fetched) if json else tokens.print_table(fetched, out)


@token_app.command("revoke", epilog=example("testbed token revoke 3"))
def revoke(
    number: Annotated[int, typer.Argument(help="id of the token, as `list` shows it")],
) -> None:
    """Revoke one of your tokens at once."""
    run.run(api.request("DELETE", f"/tokens/{number}"))
    out.print(f"token {number} is revoked")


def password(
    secret: Annotated[
        str | None,
        typer.Option(
            "--password",
            help="the new password, 12 to 200 characters (default: asked twice, or a line of"
            " standard input)",
        ),
    ] = None,
) -> None:
    """Set the password that you sign in with."""
    typed = secret or run.call(
        lambda: prompt.secret("new password, 12 to 200 characters", twice=True)
    )
    run.run(api.request("PUT", "/me/password", json={"password": typed}))
    out.print("the password is set")
