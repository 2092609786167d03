"""`testbed prototype`: a prototype as a project on its developer's computer."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import ExpiresIn, Json, example
from testbed.terminal.screen import announce, notes, out, print_json

EXAMPLE = example("testbed prototype init valve-watch")
Language = Annotated[
    str, typer.Option(help="language of the program: python (with the SDK) or javascript")
]
Parent = Annotated[
    Path, typer.Option(help="folder in which the project's folder is made (default: this one)")
]
Folder = Annotated[Path, typer.Argument(help="folder of the project, which holds prototype.yaml")]
Seed = Annotated[
    int | None, typer.Option(min=0, help="seed of everything random (default: the scenario's)")
]
Junit = Annotated[
    Path | None, typer.Option(help="file for the scenario's results as JUnit XML (default: none)")
]
Report = Annotated[
    Path | None, typer.Option(help="file for a report with plots, HTML (default: none)")
]
HandOver = Annotated[
    bool,
    typer.Option(
        "--hand-over",
        help="hand the scenario's run over to the testbed of your sign-in, which opens the next"
        " stages to this image",
    ),
]
WithTestbed = Annotated[
    bool,
    typer.Option(
        "--with-testbed",
        help="ask the testbed of your sign-in which inputs exist and which may be read",
    ),
]
Purpose = Annotated[
    str | None,
    typer.Option(
        help="purpose, a sentence that the owners read (default: `purpose` of the manifest)"
    ),
]

prototype = typer.Typer(
    no_args_is_help=True,
    help="Write, check and test a prototype as a project, and ask for what it reads.",
    epilog=EXAMPLE,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(prototype, name="prototype")


@prototype.command(epilog=EXAMPLE)
def init(
    name: Annotated[str, typer.Argument(help="name of the prototype, lower case with hyphens")],
    language: Language = "python",
    folder: Parent = Path(),
    json: Json = False,
) -> None:
    """Write a working project: program, manifest, image, scenario, tests, CI files, notebook."""
    from testbed.prototype import init as first

    project = run.call(partial(first.write, folder, name, language))
    if json:
        print_json({"folder": str(project.folder), "files": list(project.files)})
        return
    out.print(f"wrote {project.folder}: {', '.join(project.files)}")
    for step in project.next_steps:
        notes.print(step)


@prototype.command("test", epilog=example("testbed prototype test valve-watch --report out.html"))
def run_tests(
    folder: Folder = Path(),
    seed: Seed = None,
    junit: Junit = None,
    report: Report = None,
    hand_over: HandOver = False,
    json: Json = False,
) -> None:
    """Run the tests of a project and its scenario here, without a server and without Docker."""
    announce("checking")
    from testbed.prototype import tested

    chosen = tested.ChosenTest(
        seed=seed, junit=junit, report=report, hands_over=hand_over, as_json=json
    )
    raise typer.Exit(run.run(tested.checked_run(folder, chosen, WallClock())))


@prototype.command(epilog=example("testbed prototype check valve-watch --with-testbed"))
def check(folder: Folder = Path(), with_testbed: WithTestbed = False, json: Json = False) -> None:
    """Say all that is wrong with manifest and scenario, and run nothing of the prototype."""
    from testbed.prototype import project_check

    checked = project_check.checked(folder, WallClock(), with_testbed=with_testbed)
    answer = run.run(checked)
    print_json(answer.as_json) if json else project_check.print_check(answer, out)
    raise typer.Exit(run.Exit.DONE if answer.passed else run.Exit.NEGATIVE)


@prototype.command(epilog=example("testbed prototype request valve-watch --expires-in 90d"))
def request(
    folder: Folder = Path(),
    purpose: Purpose = None,
    expires_in: ExpiresIn = None,
    json: Json = False,
) -> None:
    """Ask the owners of all inputs that may not be read yet for grants, in one request."""
    from testbed.prototype import grant_request

    asking = grant_request.ask(folder, purpose, expires_in, WallClock())
    answer = run.run(asking)
    print_json(answer.as_json) if json else grant_request.print_request(answer, out)
    raise typer.Exit(run.Exit.DONE if answer.passed else run.Exit.NEGATIVE)


@prototype.command(epilog=example("testbed prototype push valve-watch.tar"))
def push(
    archive: Annotated[
        Path, typer.Argument(help="archive of an image, as `docker save` writes it")
    ],
    name: Annotated[
        str | None, typer.Option(help="name by which people know it (default: that of the file)")
    ] = None,
    json: Json = False,
) -> None:
    """Push the image of a prototype, which the testbed verifies and keeps by its digest."""
    announce(f"pushing {archive}")
    from testbed.client import images

    image = run.run(images.push_file(archive, name))
    print_json(image) if json else images.print_pushed(image, out)


@prototype.command(epilog=example("testbed prototype schema"))
def schema() -> None:
    """Print the JSON Schema of a manifest, by which an editor completes it."""
    from testbed.prototype import init as first

    out.print(first.manifest_schema_text(), end="")
