"""`testbed simulate`: a simulated machine behind an OPC UA server, or on a broker of sensors.

A command checks its options before it loads the server, so that a wrong one is said at once.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import durations, run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import announce, notes, out, print_json

if TYPE_CHECKING:
    from simulators.model import RowSource
    from testbed.simulator.machine import SimulatorOptions

EXAMPLE = example("testbed simulate pump-rig --fault valve@60..120")
KEYS = Path("testbed-data/simulator-pki")
MODELS: Mapping[str, tuple[str, str]] = {
    "pump-rig": ("Simulate a water pump rig, with faults if wanted.", "--fault valve@60..120"),
    "press": ("Simulate a heated press whose tool wears.", "--set heater=3 --fault leak@60..300"),
    "robot-cell": ("Simulate a robot that shares a table.", "--fault friction@60..300"),
    "conveyor-line": ("Simulate three stations with buffers.", "--set buffer_1=2 --set speed=0.8"),
    "cnc-spindle": ("Simulate a milling spindle that vibrates.", "--mqtt 127.0.0.1:1883"),
}
"""Each model of `simulators.catalogue` with its help and options of an example: a help needs no
numpy."""

simulate_app = typer.Typer(
    help="Run a simulated machine behind an OPC UA server, or publishing over MQTT.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Port = Annotated[
    int,
    typer.Option(min=0, max=65535, help="TCP port of the OPC UA server; 0 takes a free one"),
]
Speed = Annotated[float, typer.Option(min=0.01, help="source seconds that are played in a second")]
ModelName = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="one model alone (default: every one)")
]
LedgerFile = Annotated[
    Path | None,
    typer.Option(help="new file for every row that is offered, to check against (default: none)"),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="start to play when every variable is monitored")
]
Secure = Annotated[
    bool, typer.Option("--secure", help="sign and encrypt sessions, with an own certificate")
]
Period = Annotated[
    float | None,
    typer.Option(
        parser=durations.seconds,
        metavar="DURATION",
        help="time of the machine between two rows, such as 1s or 250ms (default: the model's own)",
    ),
]
Rows = Annotated[int | None, typer.Option(min=2, help="number of rows to play (default: no end)")]
FaultTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        help="fault to simulate, as kind@start..end in seconds of the machine; `testbed simulate"
        " list` has the kinds; can be repeated (default: none)",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="value of a parameter or an input of the model; `testbed simulate list` has them; can"
        " be repeated (default: the model's own)",
    ),
]
Mqtt = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="publish to this broker over MQTT instead of serving OPC UA; USER@HOST:PORT with the"
        " password in TESTBED_SOURCE_PASSWORD (default: none)",
    ),
]
Topic = Annotated[
    str | None,
    typer.Option(help="topic of the MQTT messages (default: simulated/ and the machine's name)"),
]
WriteMapping = Annotated[
    Path | None,
    typer.Option(
        "--write",
        help="new file for the mapping of a gateway that reads this machine (default: none)",
    ),
]
Seed = Annotated[int, typer.Option(help="seed of the random noise, a whole number")]
FaultEvery = Annotated[
    float | None,
    typer.Option(
        parser=durations.seconds,
        metavar="DURATION",
        help="time of the machine in which one fault of a random kind comes, again and again, such"
        " as 20m; at least 1m (default: none)",
    ),
]
File = Annotated[
    Path, typer.Argument(help="recording, a CSV file in the form of the Skoltech benchmark")
]
FmuFile = Annotated[Path, typer.Argument(help="FMU for co-simulation, of FMI 2.0 or 3.0")]
Times = Annotated[str, typer.Option(help="time stamps: original, or shifted to now")]
Repeat = Annotated[bool, typer.Option("--repeat", help="start again at the end, for shifted times")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(simulate_app, name="simulate")


@simulate_app.command("list", epilog=example("testbed simulate list press"))
def list_models(model: ModelName = None, json: Json = False) -> None:
    """List the models with their signals, inputs, faults and parameters."""
    from testbed.simulator import listing

    models = run.call(functools.partial(listing.models, model))
    if json:
        print_json(listing.as_json(models))
    else:
        listing.print_models(models, out)


def simulate_model(
    context: typer.Context,
    port: Port = 4840,
    seed: Seed = 0,
    period: Period = None,
    rows: Rows = None,
    speed: Speed = 1.0,
    assignments: Assignments = None,
    fault: FaultTexts = None,
    fault_every: FaultEvery = None,
    mqtt: Mqtt = None,
    topic: Topic = None,
    write: WriteMapping = None,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """Simulate the machine of the command's name; `MODELS` has its help."""
    from simulators.world import Playback
    from testbed.simulator import machine

    def checked() -> "tuple[RowSource, SimulatorOptions]":
        name = str(context.info_name)
        chosen = machine.model(name, assignments or [], fault or [])
        return chosen.make(seed, period, rows, fault_every), machine.SimulatorOptions(
            object_name=chosen.info.object_name,
            stream=chosen.info.stream,
            port=port,
            playback=Playback(speed),
            broker=machine.broker_of(mqtt, topic or f"simulated/{name}"),
            wait=wait,
            ledger=ledger,
            keys=KEYS if secure else None,
            mapping=write,
        )

    serve(checked, json=json)


for _name, (_help, _options) in MODELS.items():
    _epilog = example(f"testbed simulate {_name} {_options}")
    simulate_app.command(_name, help=_help, epilog=_epilog)(simulate_model)


@simulate_app.command("csv", epilog=example("testbed simulate csv rig.csv --times shifted"))
def csv(
    file: File,
    port: Port = 4840,
    speed: Speed = 1.0,
    times: Times = "original",
    repeat: Repeat = False,
    mqtt: Mqtt = None,
    topic: Topic = None,
    write: WriteMapping = None,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """Play a recording as if it were the machine."""
    from simulators.world import Playback, TimestampMode
    from testbed.simulator import machine

    def checked() -> "tuple[RowSource, SimulatorOptions]":
        return machine.recording(file, repeat=repeat), machine.SimulatorOptions(
            port=port,
            playback=Playback(speed, TimestampMode.parse(times)),
            broker=machine.broker_of(mqtt, topic or "simulated/rig"),
            wait=wait,
            ledger=ledger,
            keys=KEYS if secure else None,
            mapping=write,
        )

    serve(checked, json=json)


@simulate_app.command("fmu", epilog=example("testbed simulate fmu tank.fmu --set gain=1.5"))
def fmu(
    file: FmuFile,
    port: Port = 4840,
    period: Period = None,
    speed: Speed = 1.0,
    assignments: Assignments = None,
    mqtt: Mqtt = None,
    topic: Topic = None,
    write: WriteMapping = None,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """Run an FMU for co-simulation, in a child process with limits."""
    from simulators.fmu import process
    from simulators.world import Playback
    from testbed.simulator import machine

    def checked() -> "tuple[RowSource, SimulatorOptions]":
        source = machine.fmu(file, assignments or [], period)
        for note in process.limit_notes():
            notes.print(note, style="yellow")
        object_name, stream = machine.names_of(source.fmu)
        return source, machine.SimulatorOptions(
            object_name=object_name,
            stream=stream,
            port=port,
            playback=Playback(speed),
            broker=machine.broker_of(mqtt, topic or f"simulated/{stream}"),
            wait=wait,
            ledger=ledger,
            keys=KEYS if secure else None,
            mapping=write,
        )

    serve(checked, json=json)


def serve(checked: "Callable[[], tuple[RowSource, SimulatorOptions]]", *, json: bool) -> None:
    """Serve what the options describe, once they are checked, until Ctrl-C."""
    source, options = run.call(checked)
    announce("starting the OPC UA server" if options.broker is None else "connecting to the broker")
    from testbed.simulator import serving

    on_event = print_json if json else functools.partial(serving.print_event, out=out)
    run.run(serving.simulate(source, options, WallClock(), on_event), serves=True)
