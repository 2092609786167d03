"""`testbed recording`: spans of streams as immutable datasets, and their replay as a machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from testbed.commands.simulate import (
    KEYS,
    LedgerFile,
    Port,
    Repeat,
    Secure,
    Speed,
    Times,
    Wait,
    serve,
)
from testbed.terminal import durations, run
from testbed.terminal.options import Json, Space, SpanEnd, example, span_begin, time
from testbed.terminal.screen import out, print_json

if TYPE_CHECKING:
    from broker.recordings.bundle import OpenRecording
    from broker.responses.recordings import RecordingResponse
    from simulators.model import RowSource

EXAMPLE = example(
    "testbed recording create valve-1 --stream factory/pump-rig/rig --from -1h",
    "testbed recording create valve-2 --on-server --stream factory/pump-rig/rig",
    "testbed recording replay valve-1 --speed 10",
)

recording_app = typer.Typer(
    help="Record spans of streams as immutable datasets, and play them as machines.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

NewFolder = Annotated[Path, typer.Argument(help="new folder of the recording; its name is its own")]
OnServer = Annotated[
    bool,
    typer.Option("--on-server", help="the recordings on the server, and not on this computer"),
]
OfRun = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="folder that `testbed run --keep` left: record all streams of the run (default: none)",
    ),
]
AnyRecording = Annotated[
    Path, typer.Argument(help="folder of a recording, or one on the server, such as server:12")
]
RecordingFolders = Annotated[
    list[Path],
    typer.Argument(
        help="folders of one or more recordings, or server:NUMBER, which are played in step"
    ),
]
RecordedStreams = Annotated[
    list[str] | None,
    typer.Option(
        "--stream",
        help="address of a stream to record, organisation/equipment/stream; can be repeated"
        " (default: those of --label)",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="signal that a model shall learn, organisation/equipment/stream/signal, recorded with"
        " its stream; can be repeated (default: none)",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="TRAIN/VALIDATION/TEST",
        help="parts of the span in percent, by time, such as 70/15/15 (default: none)",
    ),
]
Begin = Annotated[str | None, span_begin("an hour before --to")]
Description = Annotated[str, typer.Option(help="sentence about it (default: none)")]
Licence = Annotated[
    str, typer.Option(help="its licence, a sentence or URL (default: as the grants allow)")
]
WebPage = Annotated[str, typer.Option(help="web page of the dataset (default: none)")]
Skip = Annotated[
    float | None,
    typer.Option(
        parser=durations.seconds,
        metavar="DURATION",
        help="time of the recording that is left out at its beginning, such as 90s (default: none)",
    ),
]
PartBegin = Annotated[str | None, span_begin("its beginning")]
PartEnd = Annotated[
    str | None, time("--to", "end of the span, not included, in the same forms (default: its end)")
]
Align = Annotated[
    str, typer.Option(help="several recordings in step by their time stamps, `time`, or `start`")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(recording_app, name="recording")


@recording_app.command(
    epilog=example(
        "testbed recording create valve-1 --stream factory/pump-rig/rig --from -1h",
        "testbed recording create set-1 --stream factory/pump-rig/rig"
        " --label factory/pump-rig/truth/anomaly --split 70/15/15",
        "testbed recording create valve-2 --on-server --stream factory/pump-rig/rig",
        "testbed recording create run-1 --run kept-run",
    )
)
def create(
    folder: NewFolder,
    stream: RecordedStreams = None,
    begin: Begin = None,
    end: SpanEnd = None,
    space: Space = "live",
    label: Labels = None,
    split: Split = None,
    description: Description = "",
    licence: Licence = "",
    url: WebPage = "",
    on_server: OnServer = False,
    of_run: OfRun = None,
    json: Json = False,
) -> None:
    """Record a span of streams, in a new folder or on the server, with one hash over all of it."""
    from testbed.client import recordings, server_recordings

    options = recordings.RecordingOptions(
        streams=stream or [],
        labels=label or [],
        space=space,
        begin=begin,
        end=end,
        split=split,
        description=description,
        licence=licence,
        url=url,
    )
    recording: OpenRecording | RecordingResponse
    if of_run is not None:
        from testbed.scenario import run_recording

        whole = run_recording.create(folder, of_run, options, WallClock(), on_server=on_server)
        recording = run.run(whole)
    elif on_server:
        recording = run.run(server_recordings.create(folder, options, WallClock()))
    else:
        recording = run.run(recordings.create(folder, options, WallClock()))
    server_recordings.print_one(recording, out, as_json=json)


@recording_app.command("list", epilog=example("testbed recording list recordings"))
def list_(
    folder: Annotated[Path, typer.Argument(help="folder that has recordings in it")] = Path(),
    on_server: OnServer = False,
    json: Json = False,
) -> None:
    """List the recordings in a folder, and those on the server if you are signed in."""
    from testbed.client import recording_files, server_recordings
    from testbed.client.server_recordings import RecordingRow

    here = [] if on_server else run.call(lambda: recording_files.listed(folder))
    there = run.run(server_recordings.listed(required=on_server))
    if json:
        on_the_server = [server_recordings.document(each) for each in there]
        print_json([*(each.as_json() for each in here), *on_the_server])
    else:
        rows = [*map(RecordingRow.local, here), *map(RecordingRow.server, there)]
        server_recordings.print_rows(rows, out)


@recording_app.command(
    epilog=example("testbed recording show valve-1", "testbed recording show server:12")
)
def show(recording: AnyRecording, json: Json = False) -> None:
    """Show a recording: span, streams, grants, labels, parts and hash."""
    from broker.recordings import bundle
    from testbed.client import recording_files, server_recordings

    number = run.call(lambda: server_recordings.number_of(recording))
    if number is not None:
        there = run.run(server_recordings.shown(number))
        server_recordings.print_one(there, out, as_json=json)
        return
    opened = run.call(lambda: bundle.peek(recording))
    if json:
        print_json(recording_files.summary(opened))
    else:
        recording_files.print_recording(opened, out)


@recording_app.command(epilog=example("testbed recording verify valve-1"))
def verify(
    recording: AnyRecording,
    sha256: Annotated[
        str | None, typer.Option(help="hash that it must have (default: its own)")
    ] = None,
    json: Json = False,
) -> None:
    """Compare every file with its hash: exit code 1 if one differs, with its name."""
    from testbed.client import server_recordings

    outcome = run.run(server_recordings.verify(recording, sha256))
    outcome.print(out, as_json=json)
    sys.exit(run.Exit.NEGATIVE if outcome.differences else run.Exit.DONE)


@recording_app.command(epilog=example("testbed recording delete server:12 --yes"))
def delete(
    recording: Annotated[
        str, typer.Argument(help="recording on the server, such as server:12", metavar="RECORDING")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="confirm that the recording is deleted")
    ] = False,
    json: Json = False,
) -> None:
    """Delete a recording on the server for good; a folder here you remove yourself."""
    from testbed.client import server_recordings

    number = run.call(lambda: server_recordings.on_the_server(recording))
    run.run(server_recordings.delete(number, confirmed=yes))
    print_json({"recording": recording}) if json else out.print(f"deleted {recording}")


@recording_app.command(
    epilog=example(
        "testbed recording export valve-1 valve-1.zip",
        "testbed recording export valve-1 valve.csv",
        "testbed recording export server:12 valve-2",
    )
)
def export(
    recording: AnyRecording,
    output: Annotated[
        Path,
        typer.Argument(
            help="new file: .zip for all of it, .csv or .parquet for one table; of one on the"
            " server also a new folder"
        ),
    ],
    stream: Annotated[
        list[str] | None,
        typer.Option(help="address of a stream of the table; can be repeated (default: all)"),
    ] = None,
    json: Json = False,
) -> None:
    """Write a recording as one file: a zip that `import` takes, or a table of its samples."""
    from testbed.client import server_recordings

    run.run(server_recordings.export(recording, output, stream or []))
    print_json({"path": str(output)}) if json else out.print(f"wrote {output}")


@recording_app.command("import", epilog=example("testbed recording import valve-1.zip valve-1"))
def import_(
    file: Annotated[Path, typer.Argument(help="zip file that `recording export` wrote")],
    folder: NewFolder,
    json: Json = False,
) -> None:
    """Unpack a recording, and verify it; nothing is left of one that is not whole."""
    from broker.recordings import archive
    from testbed.client import recording_files

    recording = run.call(lambda: archive.unpack(file, folder))
    if json:
        print_json(recording_files.summary(recording))
    else:
        recording_files.print_recording(recording, out)


@recording_app.command(
    epilog=example(
        "testbed recording replay valve-1 --times shifted --speed 10",
        "testbed recording replay pump press --skip 90s --align start",
    )
)
def replay(
    recording: RecordingFolders,
    port: Port = 4840,
    speed: Speed = 1.0,
    times: Times = "original",
    repeat: Repeat = False,
    skip: Skip = None,
    begin: PartBegin = None,
    end: PartEnd = None,
    align: Align = "time",
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """Play recordings as if they were the machines, behind one OPC UA server and on one clock."""
    from simulators.world import Playback, TimestampMode
    from testbed import recording_replay
    from testbed.client import server_recordings
    from testbed.simulator.machine import SimulatorOptions
    from testbed.simulator.repeated import RepeatedSource

    def checked() -> "tuple[RowSource, SimulatorOptions]":
        part = recording_replay.Part(skip_s=skip, begin=begin, end=end)
        recorded = recording_replay.source(folders, WallClock(), align=align, part=part)
        return RepeatedSource(recorded) if repeat else recorded, SimulatorOptions(
            port=port,
            playback=Playback(speed, TimestampMode.parse(times)),
            wait=wait,
            ledger=ledger,
            keys=KEYS if secure else None,
            objects=recorded.objects,
        )

    with server_recordings.temporary() as folder:
        folders = run.run(server_recordings.all_here(recording, folder))
        serve(checked, json=json)
