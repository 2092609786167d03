"""The command line `testbed`; a module of `testbed.commands` is imported once it is invoked."""

import importlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from testbed.terminal import panels

AS = "--as"
"""The option that names a profile."""
PANELS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Try it": {
        "demo": (
            "demo",
            "Run machine, gateway, server and prototype on this machine, and check every sample.",
        ),
        "simulate": (
            "simulate",
            "Run a simulated machine behind an OPC UA server, or publishing over MQTT.",
        ),
        "tap": ("stream", "Print a stream as it arrives, until Ctrl-C."),
        "history": (
            "stream",
            "Print a stream's stored samples, or write them to a file with their gaps beside it.",
        ),
        "status": (
            "status",
            "Print the state of all streams: freshness, alarms, gaps and dead letters.",
        ),
    },
    "Watch it run": {
        "stream": (
            "stream",
            "List streams, and show what is missing of them and what could not be stored.",
        ),
        "alarms": (
            "status",
            "Print the alarms of the testbed, and of all gateways and prototypes, each once.",
        ),
    },
    "Prototypes": {
        "prototype": (
            "prototype",
            "Write, check and test a prototype as a project, and ask for what it reads.",
        ),
        "deploy": (
            "deploy",
            "Deploy a prototype beside the machines, simulated, recorded or live.",
        ),
        "deployments": (
            "deployment",
            "List the deployments of your organisation, the newest first.",
        ),
        "deployment": (
            "deployment",
            "Show, follow, stop, promote and roll back a deployment, and say why it failed.",
        ),
        "image": (
            "image",
            "List, delete and prune the images of your organisation's prototypes.",
        ),
        "secret": (
            "secret",
            "Set, list and delete secrets that your prototypes are given as files.",
        ),
        "run": (
            "scenario",
            "Run a scenario: machines, faults and your prototypes, judged by what you expect.",
        ),
        "scenario": (
            "scenario",
            "Write a first scenario, serve one to other tools, and print the form of such files.",
        ),
        "runs": (
            "runs",
            "List, show and compare runs that were handed over, each figure with its origin.",
        ),
        "try": (
            "demo",
            "Run your program against a simulated machine and a testbed of its own, and score it.",
        ),
        "score": (
            "demo",
            "Score the alarms that a program published against the ledger of a simulated machine.",
        ),
        "recording": (
            "recording",
            "Record spans of streams as immutable datasets, and play them as machines.",
        ),
        "credential": (
            "credential",
            "Create, list and revoke credentials of your organisation's machines and programs.",
        ),
        "token": ("token", "Create, list and revoke your own tokens."),
        "sign-in": (
            "sign_in",
            "Sign in with a password or a credential, and store it on this computer as a profile.",
        ),
        "whoami": (
            "sign_in",
            "Show as whom commands ask: person, roles, server, where that comes from, until when.",
        ),
        "sign-out": (
            "sign_in",
            "Remove a profile, the one in use or that of --as, and end its token.",
        ),
        "password": ("token", "Set the password that you sign in with."),
        "runner": (
            "runner",
            "Run prototypes at a site of one's own: enrol it, run it, list sites, lock one out.",
        ),
        "openapi": ("server", "Print the API's OpenAPI document as JSON."),
    },
    "Machines": {
        "gateway": (
            "gateway",
            "Connect a machine: browse it, check a mapping, run the gateway beside it.",
        ),
        "retention": ("retention", "Set and list how long streams are kept."),
        "delete": ("retention", "Delete a span of a stream for good, and print the proof."),
        "deletions": ("retention", "Print the proofs of what was deleted of a stream."),
    },
    "Share": {
        "listing": (
            "listing",
            "Show your equipment to other organisations, so that they can ask for streams.",
        ),
        "grant": (
            "grant",
            "Ask for, give, approve and revoke rights to read streams of other organisations.",
        ),
        "pause": (
            "access",
            "Stop grants at once: all to a company, all of an equipment, or all that you gave.",
        ),
        "resume": (
            "access",
            "Let grants count again that `pause` stopped with the same options.",
        ),
        "access": (
            "access",
            "Report who could read an equipment's streams, now or at a past moment, and who did.",
        ),
        "member": ("member", "Add, list, change and remove people of your organisation."),
    },
    "Run the testbed": {
        "up": ("server", "Run broker, recorder and API, until Ctrl-C."),
        "install-service": (
            "server",
            "Write a systemd unit that runs a server as `up` does, and print the next commands.",
        ),
        "administrator": (
            "administrator",
            "Renew lost credentials, with access to the server's disk.",
        ),
        "organisation": (
            "organisation",
            "Create and list organisations; an owner of the intermediary may create them.",
        ),
        "audit": (
            "audit",
            "List what was done in the testbed, and verify that the record is whole.",
        ),
        "backup": (
            "backup",
            "Back up registry, ledger and store, with the SHA-256 of every file.",
        ),
        "restore": (
            "backup",
            "Check a backup, and restore it into an empty data folder and an empty store.",
        ),
        "api": (
            "server",
            "Run the API alone, with broker, registry, store and recorder as other services.",
        ),
        "recorder": (
            "server",
            "Run the recorder as a process of its own, with InfluxDB; `up` starts one by itself.",
        ),
        "reconcile": (
            "server",
            "Keep the rights in a Mosquitto broker equal to the registry's, until Ctrl-C.",
        ),
        "secrets": (
            "install",
            "Create the secrets that separate processes of a server share.",
        ),
        "pki": (
            "install",
            "Create a certificate authority, and certificates of API and broker.",
        ),
        "broker-config": (
            "install",
            "Write the configuration of a NATS or Mosquitto broker into the folder of its secrets.",
        ),
    },
}
"""Each command with its module of `testbed.commands` and its help, in the order of `testbed
--help`: for a newcomer first, then by who uses them."""


OURS = frozenset(
    {
        "broker",
        "gateway",
        "simulators",
        "testbed",
        "testbed_api",
        "testbed_runner",
        "testbed_scenarios",
        "testbed_sdk",
    }
)
"""The packages of this project: one of them that is missing is a fault, not a choice."""


class PanelGroup(TyperGroup):
    """The root command: it lists its subcommands by PANELS, and loads one once it is invoked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._module_of: dict[str, str] = {}
        for panel, entries in PANELS.items():
            for name, (module, help_text) in entries.items():
                self._module_of[name] = module
                self.commands[name] = TyperCommand(
                    name, help=help_text, rich_help_panel=panel, rich_markup_mode="rich"
                )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after `testbed`; `--as NAME` may stand after the command too."""
        return super().parse_args(ctx, with_profile_first(args))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the interface has it
        """The names of the subcommands, in the order of PANELS."""
        return [name for entries in PANELS.values() for name in entries]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, as typer does with rich; `formatter` stays empty, as there."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        columns, frame = shutil.get_terminal_size().columns, panels.frame_for(sys.stdout.encoding)
        draw = partial(panels.panel, columns=columns, frame=frame)
        options = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        formatter.write(f"\n{draw('Options', [each for each in options if each is not None])}\n")
        longest = max(len(name) for entries in PANELS.values() for name in entries)
        for title, entries in PANELS.items():
            rows = [(name, text) for name, (_, text) in entries.items()]
            formatter.write(f"{draw(title, rows, name_columns=longest)}\n")
        self.format_epilog(ctx, formatter)
        text = formatter.getvalue()
        formatter.buffer.clear()
        typer.echo(text, color=False if "NO_COLOR" in os.environ else ctx.color)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first word names, loaded, and the words after it."""
        if args[0] in self._module_of:
            self.load(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; it ends with a sentence where its packages are not installed."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            package = (exc.name or "").partition(".")[0]
            if package in OURS | {""}:
                raise
            from broker.errors import Refused
            from testbed.terminal import run

            run.fail(
                Refused(
                    f"this command needs the package {package}, which is not installed",
                    hint="install the project with the extra that has it: [gateway] beside a"
                    " machine, [server] for a server, [demo] for both; see"
                    " docs/how-to/write-a-prototype.md",
                )
            )

    def load(self, name: str) -> None:
        """Import the module of a command, and put the command in the place of its entry."""
        module = importlib.import_module(f"testbed.commands.{self._module_of.pop(name)}")
        loaded = typer.Typer()
        module.add_to(loaded)
        command = typer.main.get_group(loaded).commands[name]
        command.rich_help_panel = self.commands[name].rich_help_panel  # type: ignore[attr-defined]
        self.commands[name] = command


def with_profile_first(words: Sequence[str]) -> list[str]:
    """The words of a command line with `--as NAME` before the command, wherever it stands.

    What follows `--` stays as it is.
    """
    end = words.index("--") if "--" in words else len(words)
    profile: list[str] = []
    rest: list[str] = []
    left = list(words[:end])
    while left:
        word = left.pop(0)
        if word == AS:
            profile = [word, *left[:1]]
            del left[:1]
        elif word.startswith(f"{AS}="):
            profile = [word]
        else:
            rest.append(word)
    if profile == [AS]:
        return profile  # the name is missing, which click says
    return [*profile, *rest, *words[end:]]


app = typer.Typer(
    name="testbed",
    cls=PanelGroup,
    help="Read machines, share their streams, and try prototypes on them.",
    epilog="Example: testbed demo --keep",  # as `options.example` writes it, which loads more
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    as_: Annotated[
        str | None,
        typer.Option(
            AS,
            metavar="NAME",
            help="profile to use, as `sign-in` stored it; may stand after the command (default:"
            " TESTBED_CREDENTIAL, TESTBED_PROFILE, or the last sign-in)",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    """Read machines, share their streams, and try prototypes on them.

    Settings come from options, or from environment variables named TESTBED_….
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("connected-testbed"))
        raise typer.Exit
    if as_ is not None:
        use_profile(as_, context)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def use_profile(name: str, context: Any) -> None:
    """Let a command ask by a profile alone: an option goes before the environment.

    The environment is as it was once the context of the command is closed.
    """
    from broker import profiles
    from broker.namespace import checked_id
    from testbed.terminal import run

    run.call(lambda: checked_id(name, "profile"))
    names = (profiles.VARIABLE, *profiles.CREDENTIAL_VARIABLES)
    before = {each: os.environ[each] for each in names if each in os.environ}

    def restore() -> None:
        for each in names:
            os.environ.pop(each, None)
        os.environ.update(before)

    context.call_on_close(restore)
    for each in profiles.CREDENTIAL_VARIABLES:
        os.environ.pop(each, None)
    os.environ[profiles.VARIABLE] = name


def loaded_root() -> PanelGroup:
    """The root command with every subcommand loaded, for tests and documents."""
    root = typer.main.get_command(app)
    if not isinstance(root, PanelGroup):
        raise TypeError(root)
    for name in root.list_commands(None):
        root.load(name)
    return root
