"""`testbed deploy`: a prototype beside the machines, in the stage that it has reached."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from broker.deployments.life import DeploymentStage
from testbed.terminal import run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import notes, out, print_json

if TYPE_CHECKING:
    from testbed.prototype.deploy import Deployed

EXAMPLES = example(
    "testbed deploy valve-watch --stage simulated",
    "testbed deploy valve-watch --stage recorded --recording 12",
    "testbed deploy valve-watch --stage live --site edge",
)
Sites = Annotated[
    list[str] | None,
    typer.Option(
        "--site", help="label that its site must have, such as edge; can be repeated (default: any)"
    ),
]
Simulators = Annotated[
    list[str] | None,
    typer.Option(
        "--simulator",
        metavar="INPUT=MODEL",
        help="simulated machine that plays an input, such as rig=pump-rig; can be repeated"
        " (default: those of scenario.yaml beside the manifest)",
    ),
]
Recording = Annotated[
    Path | None,
    typer.Option(
        help="recording on the server that plays the inputs in the recorded stage, by its number"
        " or as server:12 (default: none)"
    ),
]
PlayedStreams = Annotated[
    list[str] | None,
    typer.Option(
        "--stream",
        metavar="INPUT=STREAM",
        help="stream of the recording that plays an input; can be repeated (default: that of the"
        " manifest, or of its simulated trial)",
    ),
]
PlaySpeed = Annotated[
    float,
    typer.Option("--speed", min=0.01, max=100, help="seconds of the source in a second"),
]
Repeat = Annotated[
    bool,
    typer.Option("--repeat", help="begin again at the recording's end (default: silence)"),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="return at once (default: wait until it runs or ended)")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command("deploy", epilog=EXAMPLES)(deploy)


def deploy(
    path: Annotated[
        Path, typer.Argument(help="folder of the project, or the prototype.yaml in it")
    ] = Path(),
    stage: Annotated[
        DeploymentStage,
        typer.Option(help="where its data come from: simulated, recorded or live"),
    ] = DeploymentStage.SIMULATED,
    site: Sites = None,
    simulator: Simulators = None,
    recording: Recording = None,
    stream: PlayedStreams = None,
    speed: PlaySpeed = 1.0,
    repeat: Repeat = False,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Deploy a prototype beside the machines, simulated, recorded or live.

    Its image is pushed, the conditions of the stage are shown, and its start is followed.  Exit
    code 0: it runs; 1: a condition is not met, or it has ended.  Ctrl-C ends the waiting only.
    """
    from testbed.prototype import deploy as prototype_deploy
    from testbed.prototype import source_order

    source = source_order.chosen(simulator, recording, stream, speed=speed, repeat=repeat)
    choice = prototype_deploy.DeployChoice(
        stage=stage, labels=site or (), source=source, waits=not no_wait
    )
    project = run.call(lambda: prototype_deploy.load(path, WallClock()))
    deployed = run.run(prototype_deploy.deploy(project, choice, WallClock()))
    raise typer.Exit(_print(deployed, as_json=json))


def _print(deployed: "Deployed", *, as_json: bool) -> run.Exit:
    """Print what came of it; returns the exit code."""
    from testbed.client import deployments

    if deployed.deployment is None:
        if as_json:
            print_json(deployed.gates)
        else:
            deployments.print_gates(deployed.gates, out, notes)
        return run.Exit.NEGATIVE
    if as_json:
        print_json(deployed.deployment)
    else:
        deployments.print_outcome(deployed.deployment, out, notes)
    return deployments.exit_of(deployed.deployment)
