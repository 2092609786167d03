"""`testbed demo`, `try` and `score`: the whole testbed on this machine, and a program in it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import Json, Space, SpanEnd, Stream, example, span_begin
from testbed.terminal.run import Exit
from testbed.terminal.screen import announce, out, print_json

if TYPE_CHECKING:
    from testbed.demo.plan import DemoPlan

Recording = Annotated[
    Path | None,
    typer.Option(help="recording (CSV file) to play (default: the model of a pump rig)"),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="folder for data, logs and report (default: a temporary one, which stays with --keep"
        " alone, and the report in the present folder)"
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="source seconds that are played in a second (default: 80 for the model; a"
        " recording takes 25 s at most)",
    ),
]
Times = Annotated[str, typer.Option(help="time stamps of a recording: original, or shifted to now")]
Store = Annotated[
    str,
    typer.Option(
        help="sample store: duckdb, or influxdb://host:port/organisation/bucket",
        envvar="TESTBED_STORE",
    ),
]
Keep = Annotated[
    bool, typer.Option("--keep", help="leave everything running and print commands to try")
]
Prototype = Annotated[
    str | None,
    typer.Option(
        help="command that runs in the detector's place and is scored, such as 'python my.py'"
        " (default: the demo's detector)"
    ),
]
MinF1 = Annotated[
    float | None,
    typer.Option(
        "--min-f1",
        min=0.0,
        max=1.0,
        help="smallest F1 for exit code 0; below it the exit code is 1 (default: any)",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, help="seed of the model: another has other noise, and its fault at another time"
    ),
]
Fault = Annotated[
    str,
    typer.Option(metavar="KIND", help="the model's fault: valve, cavitation or bearing"),
]
Command = Annotated[
    list[str],
    typer.Argument(
        help="command of your program, with its arguments, behind --; its Python must have the SDK,"
        " as the one beside `testbed` has"
    ),
]
TrySpeed = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="source seconds that are played in a second (default: 160 for the model; a recording"
        " takes 25 s at most)",
    ),
]
TryFolder = Annotated[
    Path | None,
    typer.Option(
        help="folder for data, logs and report, which stays (default: a temporary one, and the"
        " report in the present folder)"
    ),
]

Ledger = Annotated[
    Path,
    typer.Option(
        help="ledger of the simulated machine, as `testbed simulate --ledger FILE` and"
        " `testbed demo --keep` write it"
    ),
]
Begin = Annotated[str | None, span_begin("an hour before --to")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(
        epilog=example("testbed demo --keep", "testbed demo --prototype 'python my_prototype.py'")
    )(demo)
    app.command(
        "try",
        epilog=example(
            "testbed try -- .venv/bin/python my_prototype.py",
            "testbed try --min-f1 0.8 -- .venv/bin/python my_prototype.py --threshold 3",
            "testbed try --seed 8 --fault bearing -- .venv/bin/python my_prototype.py",
        ),
        context_settings={"allow_interspersed_args": False},
    )(try_)
    app.command(
        epilog=example(
            "testbed score company/visitor/score --ledger offered.jsonl",
            "testbed score company/visitor/score --ledger offered.jsonl --from -10m --min-f1 0.8",
        )
    )(score)


def demo(
    recording: Recording = None,
    folder: Folder = None,
    speed: Speed = None,
    times: Times = "original",
    store: Store = "duckdb",
    prototype: Prototype = None,
    min_f1: MinF1 = None,
    seed: Seed = 7,
    fault: Fault = "valve",
    keep: Keep = False,
    json: Json = False,
) -> None:
    """Run machine, gateway, server and prototype on this machine, and check every sample."""
    from testbed.demo.plan import DemoPlan

    command = [] if prototype is None else [prototype]
    chosen = partial(DemoPlan, data=recording, speed=speed, store=store, min_f1=min_f1)
    plan = partial(chosen, seed=seed, fault_kind=fault)
    _run(plan, command, times, folder, keep=keep, as_json=json)


def try_(
    command: Command,
    min_f1: MinF1 = None,
    recording: Recording = None,
    speed: TrySpeed = None,
    times: Times = "original",
    seed: Seed = 7,
    fault: Fault = "valve",
    folder: TryFolder = None,
    json: Json = False,
) -> None:
    """Run your program against a simulated machine and a testbed of its own, and score it."""
    from testbed.demo.plan import TRY_SPEED, DemoPlan

    chosen = partial(DemoPlan, data=recording, speed=speed, model_speed=TRY_SPEED, min_f1=min_f1)
    plan = partial(chosen, seed=seed, fault_kind=fault)
    _run(plan, command, times, folder, keep=False, as_json=json)


def _run(
    plan: "partial[DemoPlan]",
    command: Sequence[str],
    times: str,
    folder: Path | None,
    *,
    keep: bool,
    as_json: bool,
) -> NoReturn:
    """Run a demo, and end with its exit code; command: empty for the demo's own detector."""
    from simulators.world import TimestampMode
    from testbed.processes.program import checked_command

    words = run.call(lambda: checked_command(command) if command else ())
    mode = run.call(lambda: TimestampMode.parse(times))
    announce("starting the demo")
    from testbed.demo import terminal

    async def go() -> Exit:
        places = terminal.choose_places(folder, keep=keep)
        return await terminal.run(
            plan(**places, times=mode, prototype=words),
            WallClock(),
            temporary=folder is None and not keep,
            keep=keep,
            as_json=as_json,
        )

    raise typer.Exit(run.run(go(), serves=keep))


def score(
    stream: Stream,
    ledger: Ledger,
    begin: Begin = None,
    end: SpanEnd = None,
    space: Space = "live",
    min_f1: MinF1 = None,
    json: Json = False,
) -> None:
    """Score the alarms that a program published against the ledger of a simulated machine."""
    from testbed.client import history
    from testbed.demo import score as demo_score
    from testbed.demo.plan import ANOMALY

    async def go() -> demo_score.Score:
        query = history.span(
            WallClock(), space=space, begin=begin, end=end, signals=(ANOMALY,), points=None
        )
        return await demo_score.score(stream, query, ledger)

    scored = run.run(go())
    print_json(scored.as_json()) if json else demo_score.print_score(scored, min_f1, out)
    raise typer.Exit(scored.exit_code(min_f1))
