"""`testbed retention`, `delete` and `deletions`: how long streams are kept, and deleting spans."""

from typing import Annotated

import typer

from testbed.client import retention
from testbed.terminal import durations, run
from testbed.terminal.options import Json, Space, SpanEnd, Stream, example, span_begin
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed retention set factory/pump-rig/rig --keep-for 90d")

retention_app = typer.Typer(
    help="Set and list how long streams are kept.", no_args_is_help=True, epilog=EXAMPLE
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(retention_app, name="retention")
    app.command(
        epilog=example(
            "testbed delete factory/pump-rig/rig --from yesterday --to today",
            "testbed delete factory/pump-rig/rig --to 2026-01-01 --reason 'wrong sensor' --yes",
        )
    )(delete)
    app.command(epilog=example("testbed deletions factory/pump-rig/rig"))(deletions)


@retention_app.command("set", epilog=EXAMPLE)
def set_(
    stream: Stream,
    keep_for: Annotated[
        float | None,
        typer.Option(
            "--keep-for",
            parser=durations.seconds,
            metavar="DURATION",
            help="time after which samples are deleted, such as 90d or 12h; at least 1h"
            " (default: never)",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Keep a stream for some time or for ever, in every space."""
    answer = run.run(retention.store(stream, keep_for))
    duration = "ever" if keep_for is None else durations.text_of(keep_for)
    print_json(answer) if json else out.print(f"{stream} is kept for {duration}")


@retention_app.command("list", epilog=example("testbed retention list"))
def list_(json: Json = False) -> None:
    """List the streams that are not kept for ever."""
    fetched = run.run(retention.fetch_all())
    print_json(fetched) if json else retention.print_table(fetched, out)


def delete(
    stream: Stream,
    begin: Annotated[str | None, span_begin("the first sample")] = None,
    end: SpanEnd = None,
    space: Space = "live",
    reason: Annotated[
        str, typer.Option(help="reason, a sentence that the proof holds (default: empty)")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="confirm that the span is deleted")] = False,
    json: Json = False,
) -> None:
    """Delete a span of a stream for good, and print the proof."""
    deletion = retention.delete(stream, begin, end, space=space, reason=reason, confirmed=yes)
    records = run.run(deletion)
    print_json(records) if json else retention.print_deletions(records.items, out)


def deletions(stream: Stream, space: Space = "live", json: Json = False) -> None:
    """Print the proofs of what was deleted of a stream."""
    records = run.run(retention.fetch_deletions(stream, space))
    print_json(records) if json else retention.print_deletions(records.items, out)
