"""`testbed tap`, `history` and `status`: samples of streams, live and stored, and their state."""

from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import durations, run
from testbed.terminal.options import Json, Space, Stream, example
from testbed.terminal.screen import out, print_json

Begin = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="beginning of the span, included, such as 2026-03-01T08:00:00Z (default: an hour"
        " before --to)",
    ),
]
End = Annotated[
    str | None,
    typer.Option("--to", help="end of the span, not included, an instant (default: now)"),
]
Signal = Annotated[
    list[str] | None,
    typer.Option(help="name of a signal to print; can be repeated (default: all)"),
]
Points = Annotated[
    int | None,
    typer.Option(min=2, help="largest number of samples a signal (default: all samples)"),
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="new file, ending in .csv, .json or .parquet (default: CSV on standard output)"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=example("testbed tap factory/pump-rig/rig"))(tap)
    app.command(
        epilog=example(
            "testbed history factory/pump-rig/rig --output rig.parquet",
            "testbed history factory/pump-rig/rig --signal Pressure --points 100",
        )
    )(history)
    app.command(epilog=example("testbed status --within 1d"))(status)


def tap(stream: Stream, json: Json = False) -> None:
    """Print a stream as it arrives, until Ctrl-C."""
    from testbed.client import tap as client_tap

    printer = client_tap.json_printer(print_json) if json else client_tap.text_printer(out)
    run.run(client_tap.tap(stream, printer))


def history(
    stream: Stream,
    begin: Begin = None,
    end: End = None,
    signal: Signal = None,
    points: Points = None,
    space: Space = "live",
    output: Output = None,
    json: Json = False,
) -> None:
    """Print the stored samples of a stream, or write them to a file with their gaps beside it."""
    from testbed.client import history as client_history

    async def go() -> tuple[Path, ...]:
        span = client_history.span(
            WallClock(), space=space, begin=begin, end=end, signals=signal or (), points=points
        )
        if output is not None:
            return await client_history.export(stream, span, output)
        await client_history.print_history(stream, span, as_json=json)
        return ()

    if files := [str(path) for path in run.run(go())]:
        print_json(files) if json else out.print(f"wrote {' and '.join(files)}")


def status(
    within: Annotated[
        float,
        typer.Option(
            parser=durations.seconds,
            metavar="DURATION",
            show_default="1h",
            help="time over which gaps and dead letters count, such as 12h or 7d",
        ),
    ] = 3_600.0,
    json: Json = False,
) -> None:
    """Print the state of all streams: freshness, alarms, gaps and dead letters."""
    from testbed.client import status as client_status

    fetched = run.run(client_status.fetch(within))
    print_json(fetched) if json else client_status.print_status(fetched, out, WallClock())
