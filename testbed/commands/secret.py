"""`testbed secret`: what prototypes are given as files, and nobody is told."""

from pathlib import Path
from typing import Annotated

import typer

from testbed.terminal import prompt, run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed secret set CLOUD_KEY --value-file key.txt")
Name = Annotated[
    str, typer.Argument(help="name of the secret, as `secrets` of a manifest has it, such as KEY")
]

secret_app = typer.Typer(
    help="Set, list and delete secrets that your prototypes are given as files.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(secret_app, name="secret")


@secret_app.command("set", epilog=EXAMPLE)
def set_(
    name: Name,
    value_file: Annotated[
        Path | None,
        typer.Option(help="file with the value (default: it is asked for, or standard input)"),
    ] = None,
    json: Json = False,
) -> None:
    """Set a secret; a deployment is given it at its next start, in memory alone."""
    from testbed.client import secrets

    value = run.call(
        lambda: (
            prompt.secret(f"value of {name}", option="--value-file", whole=True)
            if value_file is None
            else secrets.value_from(value_file)
        )
    )
    secret = run.run(secrets.set_value(name, value))
    print_json(secret) if json else out.print(f"{secret.name} is set")


@secret_app.command("list", epilog=example("testbed secret list"))
def list_(json: Json = False) -> None:
    """List the secrets of your organisation by name; values are shown to nobody."""
    from testbed.client import secrets

    fetched = run.run(secrets.fetch_all())
    print_json(fetched) if json else secrets.print_table(fetched, out)


@secret_app.command(epilog=example("testbed secret delete CLOUD_KEY"))
def delete(name: Name, json: Json = False) -> None:
    """Delete a secret; a deployment that needs it starts no more."""
    from testbed.client import secrets

    run.run(secrets.delete(name))
    print_json({"deleted": name}) if json else out.print(f"{name} is deleted")
