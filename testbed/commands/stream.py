"""`testbed tap`, `history` and `stream`: samples of streams, live and stored, and their gaps."""

from pathlib import Path
from typing import Annotated

import typer

from broker.aggregation import Aggregate
from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import (
    AnySpace,
    Json,
    Space,
    SpanEnd,
    Stream,
    example,
    span_begin,
)
from testbed.terminal.screen import out, print_json

EXAMPLE = example("testbed stream gaps factory/pump-rig/rig --from yesterday --to today")

stream_app = typer.Typer(
    help="List streams, and show what is missing of them and what could not be stored.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Begin = Annotated[str | None, span_begin("an hour before --to")]
PastBegin = Annotated[str | None, span_begin("the whole past")]
Limit = Annotated[int, typer.Option(min=1, help="largest number of rows")]
Signal = Annotated[
    list[str] | None,
    typer.Option(help="name of a signal to print; can be repeated (default: all)"),
]
Points = Annotated[
    int | None,
    typer.Option(min=2, help="largest number of samples a signal (default: all samples)"),
]
Every = Annotated[
    str | None,
    typer.Option(
        metavar="WIDTH",
        help="width of a window, such as 1s, 15min or 1d: one value a signal and window, at its"
        " begin (default: the samples as they are)",
    ),
]
How = Annotated[
    Aggregate | None,
    typer.Option(
        help="value of a window of --every; only last is known of a bool or text (default: mean)"
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="new file, ending in .csv, .json or .parquet (default: CSV on standard output)"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(
        epilog=example(
            "testbed tap factory/pump-rig/rig",
            "testbed tap factory/pump-rig/rig --space run-demo",
        )
    )(tap)
    app.command(
        epilog=example(
            "testbed history factory/pump-rig/rig --from -10m",
            "testbed history factory/pump-rig/rig --from yesterday --to today --output rig.parquet",
            "testbed history factory/pump-rig/rig --every 1s --how last",
        )
    )(history)
    app.add_typer(stream_app, name="stream")


def tap(stream: Stream, space: Space = "live", json: Json = False) -> None:
    """Print a stream as it arrives, until Ctrl-C."""
    from testbed.client import tap as client_tap

    printer = client_tap.json_printer(print_json) if json else client_tap.text_printer(out)
    run.run(client_tap.tap(stream, space, printer), serves=True)


def history(
    stream: Stream,
    begin: Begin = None,
    end: SpanEnd = None,
    signal: Signal = None,
    points: Points = None,
    every: Every = None,
    how: How = None,
    space: Space = "live",
    output: Output = None,
    json: Json = False,
) -> None:
    """Print a stream's stored samples, or write them to a file with their gaps beside it."""
    from testbed.client import history as client_history

    async def go() -> tuple[Path, ...]:
        span = client_history.span(
            WallClock(), space=space, begin=begin, end=end, signals=signal or (), points=points
        )
        query = client_history.aggregated(span, every, how)
        if output is not None:
            return await client_history.export(stream, query, output)
        await client_history.print_history(stream, query, as_json=json)
        return ()

    if files := [str(path) for path in run.run(go())]:
        print_json(files) if json else out.print(f"wrote {' and '.join(files)}")


@stream_app.command("list", epilog=example("testbed stream list --space run-demo"))
def list_(space: AnySpace = None, limit: Limit = 1_000, json: Json = False) -> None:
    """List the streams that you can see, with their freshness in the spaces that you can see."""
    from testbed.client import streams

    page = run.run(streams.fetch_all(space, limit))
    print_json(page) if json else streams.print_streams(page, out)


@stream_app.command("show", epilog=example("testbed stream show factory/pump-rig/rig"))
def show(stream: Stream, space: AnySpace = None, json: Json = False) -> None:
    """Show a stream: its newest spec with every signal, and its freshness."""
    from testbed.client import streams

    answer = run.run(streams.fetch(stream, space))
    print_json(answer) if json else streams.print_stream(answer, out)


@stream_app.command("gaps", epilog=EXAMPLE)
def gaps(
    stream: Stream,
    begin: PastBegin = None,
    end: SpanEnd = None,
    space: Space = "live",
    limit: Limit = 1_000,
    json: Json = False,
) -> None:
    """List the gaps of a stream: the spans of which samples are missing, and why."""
    from testbed.client import streams

    page = run.run(streams.fetch_gaps(stream, space=space, begin=begin, end=end, most=limit))
    print_json(page) if json else streams.print_gaps(page, out)


@stream_app.command(
    "dead-letters", epilog=example("testbed stream dead-letters factory/pump-rig/rig --limit 20")
)
def dead_letters(
    stream: Stream,
    begin: PastBegin = None,
    end: SpanEnd = None,
    space: Space = "live",
    limit: Limit = 1_000,
    json: Json = False,
) -> None:
    """List samples of a stream that arrived in a span and could not be stored, and why."""
    from testbed.client import streams

    page = run.run(
        streams.fetch_dead_letters(stream, space=space, begin=begin, end=end, most=limit)
    )
    print_json(page) if json else streams.print_dead_letters(page, out)
