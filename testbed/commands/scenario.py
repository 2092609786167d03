"""`testbed run` and `testbed scenario`: tests of prototypes on machines, with a verdict."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run as terminal_run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import announce, out, print_json

if TYPE_CHECKING:
    from testbed.scenario.loading import LoadedScenario
    from testbed.scenario.wanted import WantedRun

ScenarioPath = Annotated[Path, typer.Argument(help="scenario file (YAML)")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="seed of everything random (default: that of the file)"),
]
Fast = Annotated[
    bool,
    typer.Option("--fast", help="virtual time: an hour in seconds, and the same every time"),
]
Speed = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1_000,
        help="at wall time: seconds of the scenario in a second (default: 1)",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="say all that is wrong with the file, and run nothing")
]
Junit = Annotated[
    Path | None,
    typer.Option(
        help="file for the results as JUnit XML, which GitLab and GitHub show (default: none)"
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(help="file for a report with plots, self-contained HTML (default: none)"),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="new or empty folder for data and logs, which stays (default: a temporary one)"
    ),
]
Keep = Annotated[
    bool, typer.Option("--keep", help="leave data and logs, and print the folder they are in")
]


Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="URL of a testbed's API that gets the runs with their evidence, with your sign-in"
        " there (default: none)",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--from-model", help="a model, such as pump-rig (default: none)", metavar="MODEL"),
]
Recorded = Annotated[
    Path | None,
    typer.Option(
        "--from-recording", help="a recording, a CSV file (default: none)", metavar="FILE"
    ),
]
MappingFile = Annotated[
    Path | None,
    typer.Option("--from-mapping", help="mapping of a gateway (default: none)", metavar="FILE"),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="TCP port on 127.0.0.1; 0 takes a free one")
]
Place = Annotated[Path, typer.Option(help="folder for the files (default: the present one)")]

scenario = typer.Typer(
    no_args_is_help=True,
    help="Write a first scenario, serve one to other tools, and print the form of such files.",
    epilog=example("testbed scenario init valve --from-model pump-rig"),
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(
        epilog=example(
            "testbed run valve.yaml --fast",
            "testbed run valve.yaml --fast --seed 7 --junit out.xml --report out.html",
            "testbed run valve.yaml --fast --server https://testbed.example:8600",
            "testbed run valve.yaml --check",
        )
    )(run)
    scenario.command(epilog=example("testbed scenario init valve --from-model pump-rig"))(init)
    scenario.command(epilog=example("testbed scenario schema"))(schema)
    scenario.command(
        epilog=example("testbed scenario serve examples/scenarios/heater-control.yaml --port 5000")
    )(serve)
    app.add_typer(scenario, name="scenario")


def run(
    file: ScenarioPath,
    fast: Fast = False,
    speed: Speed = None,
    seed: Seed = None,
    check: Check = False,
    junit: Junit = None,
    report: Report = None,
    folder: Folder = None,
    keep: Keep = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """Run a scenario: machines, faults and your prototypes, judged by what you expect."""
    if check:
        _check(file, junit)
        return

    def wanted() -> "WantedRun":
        from testbed.scenario.wanted import WantedRun

        announce("starting")
        return WantedRun(
            is_virtual=fast,
            speed=speed,
            seed=seed,
            junit=junit,
            report=report,
            folder=folder,
            keeps=keep,
            server=server,
            as_json=json,
        )

    from testbed.scenario import launch

    raise typer.Exit(terminal_run.run(launch.run(file, wanted, WallClock())))


def _check(file: Path, junit: Path | None) -> None:
    """Say all that is wrong with a scenario, also in a JUnit file, and run nothing."""
    from testbed.scenario import junit as junit_file
    from testbed.scenario import loading

    def load() -> "LoadedScenario":
        with junit_file.errors_in(junit, file):
            return loading.load(file, WallClock())

    loaded = terminal_run.call(load)
    out.print(f"{file} is right: {loading.summary(loaded.scenario)}")
    for note in loading.only_virtual(loaded):
        out.print(f"at wall time it cannot run: {note}")
    notes = terminal_run.call(partial(loading.notes, loaded.scenario))
    for note in loading.vacuous(loaded.scenario) + notes:
        out.print(note, style="yellow")


def init(
    name: Annotated[str, typer.Argument(help="name of the scenario, in lower case with hyphens")],
    from_model: Model = None,
    from_recording: Recorded = None,
    from_mapping: MappingFile = None,
    folder: Place = Path(),
    json: Json = False,
) -> None:
    """Write a first scenario with a small prototype, from a model, a recording or a mapping."""
    from testbed.scenario import init as first

    writing = partial(first.write, folder, name, WallClock())
    written = terminal_run.call(
        partial(writing, model=from_model, recording=from_recording, mapping=from_mapping)
    )
    if json:
        files = [str(file) for file in written.files]
        print_json({"files": files, "notes": list(written.notes)})
        return
    for note in written.notes:
        out.print(note)
    files_text = " and ".join(map(str, written.files))
    out.print(f"wrote {files_text}; run it: testbed run {written.files[0]} --fast")


def schema() -> None:
    """Print the JSON Schema of scenario files, by which an editor completes them."""
    from testbed.scenario import init as first

    out.print(first.schema_text(), end="")


def serve(file: ScenarioPath, port: Port = 0, seed: Seed = None, json: Json = False) -> None:
    """Serve a scenario's machines to a controller, over HTTP as BOPTEST has it, until Ctrl-C."""
    from testbed.scenario import boptest_server
    from testbed.scenario.stepped_scenario import SteppableScenario

    clock = WallClock()
    stepped = terminal_run.call(partial(SteppableScenario, file, clock))

    def on_ready(url: str) -> None:
        event = {"event": "ready", "url": url}
        print_json(event) if json else out.print(f"{file} is at {url}, until Ctrl-C")

    serving = boptest_server.serve(stepped, clock, seed=seed, port=port, on_ready=on_ready)
    terminal_run.run(serving, serves=True)
