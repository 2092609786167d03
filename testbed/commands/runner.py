"""`testbed runner`: sites that run deployments of prototypes, on this computer and elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run as terminal_run
from testbed.terminal.options import Api, Broker, Ca, Json, example, settings
from testbed.terminal.screen import announce, notes, out, print_json

if TYPE_CHECKING:
    from testbed_runner.settings import RunnerSettings

EXAMPLE = example("testbed runner code site-1 --label edge", "testbed runner run --code CODE")

runner_app = typer.Typer(
    help="Run prototypes at a site of one's own: enrol it, run it, list sites, lock one out.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Name = Annotated[str, typer.Argument(help="name of the runner, such as site-1")]


Code = Annotated[
    str | None,
    typer.Option(
        help="one-time code that `testbed runner code` showed, to enrol first (default: the"
        " runner is enrolled)"
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(help="folder of the runner's key and state (default: testbed-runner)"),
]
Product = Annotated[
    str | None,
    typer.Option(
        help="what runs the programs: docker, process for plain processes, or auto for the best"
        " one that is here (default: auto)"
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        help="organisation whose programs run as plain processes besides its own's, * for all;"
        " can be repeated (default: none)"
    ),
]
EndPrograms = Annotated[
    bool,
    typer.Option(
        "--end-programs",
        help="end the programs with the runner (default: they go on, and the next one goes on"
        " with them)",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(runner_app, name="runner")


@runner_app.command(
    "run",
    epilog=example(
        "testbed runner run --code AAAAA-BBBBB-CCCCC-DDDDD --api https://testbed.example:8600",
        "testbed runner run",
        "testbed runner run --trust company",
    ),
)
def run(
    code: Code = None,
    folder: Folder = None,
    product: Product = None,
    trust: Trust = None,
    end_programs: EndPrograms = False,
    api: Api = None,
    broker: Broker = None,
    ca: Ca = None,
) -> None:
    """Run the deployments that the testbed gives to this site, until Ctrl-C."""
    from testbed import runner_process
    from testbed_runner.settings import RunnerSettings

    trusted = ",".join(trust) if trust else None
    chosen = {"runner_folder": folder, "runner_product": product, "runner_trust": trusted}
    own = settings(RunnerSettings, **chosen)
    if code is not None:
        _enrol(code, own, api, broker, ca)
    announce(f"running deployments, with the state in {own.runner_folder}")
    running = runner_process.run(own, WallClock(), ends_programs=end_programs)
    terminal_run.run(running, keeps_data=True, serves=True)


def _enrol(
    code: str, own: "RunnerSettings", api: str | None, broker: str | None, ca: Path | None
) -> None:
    """Enrol the runner of a folder, and print who it is."""
    from testbed import runner_process
    from testbed.client import enrolment
    from testbed.client.addresses import AddressOptions

    options = AddressOptions(api=api, broker=broker, ca=ca)
    chosen = terminal_run.call(lambda: enrolment.addresses_of(options))
    enrolling = runner_process.enrol(code, chosen, own.runner_folder)
    enrolled = terminal_run.run(enrolling, keeps_data=True)
    notes.print(f"enrolled as {enrolled.runner}, with the key {enrolled.fingerprint}")


@runner_app.command(
    "code",
    epilog=example(
        "testbed runner code site-1", "testbed runner code site-1 --label edge --open-to company"
    ),
)
def code(
    name: Name,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="label by which deployments choose the site; can be repeated (default: none)"
        ),
    ] = None,
    open_to: Annotated[
        list[str] | None,
        typer.Option(
            help="organisation that may deploy there; can be repeated (default: your own alone;"
            " all, for the intermediary's)"
        ),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="every organisation may deploy there")
    ] = False,
    json: Json = False,
) -> None:
    """Create a one-time code, valid for an hour, to enrol a runner of your organisation."""
    from testbed.client import runners

    creating = runners.create_code(name, labels=label or (), opens_to=open_to, to_all=open_to_all)
    created = terminal_run.run(creating)
    print_json(created) if json else runners.print_code(created, out, notes)


@runner_app.command("list", epilog=example("testbed runner list"))
def list_(json: Json = False) -> None:
    """List the sites of your organisation, and those that are open to it."""
    from testbed.client import runners

    fetched = terminal_run.run(runners.fetch_all())
    print_json(fetched) if json else runners.print_runners(fetched, out)


@runner_app.command("lock-out", epilog=example("testbed runner lock-out site-1"))
def lock_out(name: Name) -> None:
    """End the credential of a runner at once, and the deployments there."""
    from testbed.client import runners

    terminal_run.run(runners.lock_out(name))
    out.print(f"{name} is locked out")
