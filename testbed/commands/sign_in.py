"""`testbed sign-in`, `whoami` and `sign-out`: the sign-ins that are stored on this computer."""

import os
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import prompt, run
from testbed.terminal.options import Api, Broker, Ca, Json, example
from testbed.terminal.screen import notes, out, print_json

EXAMPLES = example(
    "testbed sign-in fay --api https://testbed.example:8600 --ca ca.pem",
    "testbed sign-in --as fay",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command("sign-in", epilog=EXAMPLES)(sign_in)
    app.command("whoami", epilog=example("testbed whoami", "testbed whoami --all"))(whoami)
    app.command("sign-out", epilog=example("testbed sign-out", "testbed sign-out --as fay"))(
        sign_out
    )


def sign_in(
    person: Annotated[
        str | None,
        typer.Argument(
            help="your id at the testbed (default: that of the profile, or of the credential)"
        ),
    ] = None,
    api: Api = None,
    broker: Broker = None,
    ca: Ca = None,
    secret: Annotated[
        str | None,
        typer.Option(
            "--password",
            help="your password, or the credential that you were given (default: asked, or a line"
            " of standard input)",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign in with a password or a credential, and store it on this computer as a profile."""
    from testbed.client import sign_in as client_sign_in
    from testbed.client.addresses import AddressOptions

    options = AddressOptions(api=api, broker=broker, ca=ca)
    wanted = run.call(lambda: client_sign_in.prepare(person, options, os.environ))
    typed = secret or run.call(lambda: prompt.secret(f"password or credential of {wanted.label}"))
    signed_in = run.run(client_sign_in.sign_in(wanted, typed, WallClock()))
    if json:
        print_json(signed_in.profile.as_json())
    else:
        client_sign_in.print_signed_in(signed_in.profile, out, notes)
    if signed_in.note:
        notes.print(signed_in.note, style="yellow")


def whoami(
    context: typer.Context,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="list the profiles on this computer, with the one in use, and ask no server",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show as whom commands ask: person, roles, server, where that comes from, until when."""
    from testbed.client import whoami as client_whoami

    if all_:
        stored = run.call(lambda: client_whoami.stored(WallClock()))
        document = {"items": [profile.as_json for profile in stored]}
        print_json(document) if json else client_whoami.print_profiles(stored, out)
        return
    by_option = context.find_root().params.get("as_") is not None
    identity = run.run(client_whoami.fetch(by_option=by_option))
    print_json(identity.as_json) if json else client_whoami.print_identity(identity, out)


def sign_out() -> None:
    """Remove a profile, the one in use or that of --as, and end its token.

    When the one in use is removed, nobody is signed in until the next sign-in.
    """
    from testbed.client import sign_in as client_sign_in

    out.print(run.run(client_sign_in.sign_out(WallClock())))
