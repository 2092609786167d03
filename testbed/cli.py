"""The command line `testbed`, assembled from the modules of `testbed.commands`."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from testbed.commands import (
    access,
    administrator,
    audit,
    backup,
    credential,
    demo,
    gateway,
    grant,
    install,
    listing,
    member,
    organisation,
    retention,
    server,
    simulate,
    status,
    stream,
    token,
)
from testbed.terminal.options import example
from testbed.terminal.screen import out

PANELS: Mapping[str, Sequence[str]] = {
    "Try it": ("demo", "simulate", "tap", "history", "status"),
    "Watch it run": ("stream", "alarms"),
    "Prototypes": ("credential", "token", "sign-in", "password", "openapi"),
    "Machines": ("gateway", "retention", "delete", "deletions"),
    "Share": ("listing", "grant", "pause", "resume", "access", "member"),
    "Run the testbed": (
        *("up", "administrator", "organisation", "audit", "backup", "restore"),
        *("api", "recorder", "reconcile", "secrets", "pki", "broker-config"),
    ),
}
"""The commands in the order of `testbed --help`: for a newcomer first, then by who uses them."""


class PanelGroup(TyperGroup):
    """The root command, which lists its subcommands by PANELS."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for panel, names in PANELS.items():
            for name in names:
                self.commands[name].rich_help_panel = panel  # type: ignore[attr-defined]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the interface has it
        """The names of the subcommands, in the order of PANELS."""
        return list(chain.from_iterable(PANELS.values()))


app = typer.Typer(
    name="testbed",
    cls=PanelGroup,
    help="Read machines, share their streams, and try prototypes on them.",
    epilog=example("testbed demo --keep"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    *(demo, simulate, stream, status, credential, token, gateway, retention),
    *(listing, grant, access, member, organisation, administrator, audit, backup),
    *(server, install),
):
    module.add_to(app)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    """Read machines, share their streams, and try prototypes on them.

    Settings come from options, or from environment variables named TESTBED_….
    """
    if version:
        from importlib.metadata import version as installed

        out.print(installed("connected-testbed"))
        raise typer.Exit
