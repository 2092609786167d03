"""`testbed image`: the images of prototypes that the testbed holds for an organisation."""

from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import durations, prompt, run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import out, print_json

image_app = typer.Typer(
    help="List, delete and prune the images of your organisation's prototypes.",
    no_args_is_help=True,
    epilog=example("testbed image list", "testbed image prune --unused-for 30d --yes"),
)
Yes = Annotated[bool, typer.Option("--yes", help="confirm it, where nobody can be asked")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(image_app, name="image")


@image_app.command("list", epilog=example("testbed image list"))
def list_(json: Json = False) -> None:
    """List the images that are held, with their size, age and deployments."""
    from testbed.client import images

    fetched = run.run(images.fetch_all())
    print_json(fetched) if json else images.print_table(fetched.items, out)


@image_app.command(epilog=example("testbed image delete 9f86d081884c"))
def delete(
    digest: Annotated[str, typer.Argument(help="digest of the image, or its first digits")],
    json: Json = False,
) -> None:
    """Delete an image that no deployment has."""
    from testbed.client import images

    image = run.run(images.delete(digest))
    print_json(image) if json else out.print(f"{image.name}, {image.digest}, is deleted")


@image_app.command(epilog=example("testbed image prune --unused-for 30d --yes"))
def prune(
    unused_for: Annotated[
        float,
        typer.Option(
            parser=durations.seconds,
            metavar="DURATION",
            help="only images that no deployment had for so long, such as 30d",
        ),
    ] = 86_400.0,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete all images that no deployment has."""
    from testbed.client import images

    question = "delete all images that no deployment has?"
    run.call(lambda: prompt.must_confirm(question, confirmed=yes, hint="say --yes"))
    pruned = run.run(images.prune(unused_for, WallClock()))
    if json:
        print_json({"items": [each.as_json() for each in pruned]})
    else:
        images.print_table(pruned, out)
