"""`testbed deployments` and `testbed deployment`: what runs beside the machines, and why not."""

from typing import Annotated

import typer

from broker.clock import WallClock
from broker.deployments.life import DeploymentStage
from testbed.commands.deploy import NoWait, PlayedStreams, PlaySpeed, Recording, Repeat, Sites
from testbed.terminal import run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import notes, out, print_json

Number = Annotated[
    int, typer.Argument(min=1, help="number of the deployment, as `testbed deployments` has it")
]

deployment_app = typer.Typer(
    help="Show, follow, stop, promote and roll back a deployment, and say why it failed.",
    no_args_is_help=True,
    epilog=example("testbed deployment logs 12 --follow", "testbed deployment why 12"),
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command("deployments", epilog=example("testbed deployments --all"))(deployments)
    app.add_typer(deployment_app, name="deployment")


def deployments(
    all_: Annotated[
        bool, typer.Option("--all", help="also those that have ended (default: not)")
    ] = False,
    prototype: Annotated[
        str | None, typer.Option(help="name of a prototype (default: every one)")
    ] = None,
    stage: Annotated[
        DeploymentStage | None,
        typer.Option(help="simulated, recorded or live (default: every stage)"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="most deployments")] = 50,
    json: Json = False,
) -> None:
    """List the deployments of your organisation, the newest first."""
    from testbed.client import deployments as client

    fetching = client.fetch_page(over=all_, prototype=prototype, stage=stage, limit=limit)
    page = run.run(fetching)
    print_json(page) if json else client.print_page(page, out)


@deployment_app.command(epilog=example("testbed deployment show 12"))
def show(number: Number, json: Json = False) -> None:
    """Show a deployment: its state, its streams, its image, and all changes of its state."""
    from testbed.client import deployments as client

    deployment, events = run.run(client.fetch_with_events(number))
    if json:
        print_json(deployment.as_json() | {"events": events.as_json()["items"]})
    else:
        client.print_deployment(deployment, events, out)


@deployment_app.command(epilog=example("testbed deployment logs 12 --follow"))
def logs(
    number: Number,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="print later lines too, until it has ended")
    ] = False,
    lines: Annotated[int, typer.Option(min=1, max=100_000, help="newest lines")] = 200,
    json: Json = False,
) -> None:
    """Print what the program of a deployment printed, the newest lines; --json: a line each."""
    from testbed.client import deployments as client

    run.run(client.print_lines(number, WallClock(), newest=lines, follows=follow, as_json=json))


@deployment_app.command(epilog=example("testbed deployment metrics 12"))
def metrics(number: Number, json: Json = False) -> None:
    """Print what a deployment uses, and its messages in and out, since its start."""
    from testbed.client import deployments as client

    answer = run.run(client.fetch_metrics(number))
    print_json(answer) if json else client.print_metrics(answer, out)


@deployment_app.command(epilog=example("testbed deployment why 12"))
def why(number: Number, json: Json = False) -> None:
    """Say why a deployment is in its state: what ended it, its last lines, and what to do."""
    from testbed.client import deployments as client

    answer = run.run(client.fetch_why(number))
    print_json(answer) if json else client.print_why(answer, out)


@deployment_app.command(epilog=example("testbed deployment stop 12"))
def stop(number: Number, json: Json = False) -> None:
    """Stop a deployment, and wait until its program has ended."""
    from testbed.client import deployments as client

    deployment = run.run(client.stopped(number, WallClock()))
    print_json(deployment) if json else client.print_state(deployment, out)


@deployment_app.command(epilog=example("testbed deployment promote 12 --recording 3"))
def promote(
    number: Number,
    site: Sites = None,
    recording: Recording = None,
    stream: PlayedStreams = None,
    speed: PlaySpeed = 1.0,
    repeat: Repeat = False,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Deploy the same image and manifest in the next stage: recorded, then live.

    Exit codes as of `testbed deploy`.
    """
    from testbed.client import deployments as client
    from testbed.prototype import promotion, source_order

    choice = source_order.chosen(None, recording, stream, speed=speed, repeat=repeat)
    promoting = promotion.promote(number, site, choice, WallClock(), waits=not no_wait)
    raise typer.Exit(client.print_new(run.run(promoting), out, notes, as_json=json))


@deployment_app.command(epilog=example("testbed deployment rollback 12"))
def rollback(number: Number, no_wait: NoWait = False, json: Json = False) -> None:
    """Deploy again what the prototype had in this stage before: image and manifest."""
    from testbed.client import deployments as client

    rolling = client.rolled_back(number, WallClock(), waits=not no_wait)
    raise typer.Exit(client.print_new(run.run(rolling), out, notes, as_json=json))
