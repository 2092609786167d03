"""`testbed simulate`: a simulated machine behind an OPC UA server.

A command checks its options before it loads the OPC UA server, so that a wrong one is said at once.
"""

import functools
from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import durations, run
from testbed.terminal.options import Json, example
from testbed.terminal.screen import announce, out, print_json

EXAMPLE = example("testbed simulate pump-rig --fault valve@60..120")
KEYS = Path("testbed-data/simulator-pki")

simulate_app = typer.Typer(
    help="Run a simulated machine behind an OPC UA server.", no_args_is_help=True, epilog=EXAMPLE
)

Port = Annotated[
    int,
    typer.Option(min=0, max=65535, help="TCP port of the OPC UA server; 0 takes a free one"),
]
Speed = Annotated[float, typer.Option(min=0.01, help="source seconds that are played in a second")]
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
    float,
    typer.Option(
        parser=durations.seconds,
        metavar="DURATION",
        show_default="1s",
        help="time of the rig between two rows, such as 1s or 250ms",
    ),
]
Rows = Annotated[int | None, typer.Option(min=2, help="number of rows to play (default: no end)")]
PumpRigFault = Annotated[
    list[str] | None,
    typer.Option(
        help="fault to simulate, as kind@start..end in rig seconds; kind: valve, cavitation or"
        " bearing; can be repeated (default: none)"
    ),
]
FaultEvery = Annotated[
    float | None,
    typer.Option(
        parser=durations.seconds,
        metavar="DURATION",
        help="time of the rig in which one fault of a random kind comes, again and again, such as"
        " 20m; at least 1m (default: none)",
    ),
]
File = Annotated[
    Path, typer.Argument(help="recording, a CSV file in the form of the Skoltech benchmark")
]
Times = Annotated[str, typer.Option(help="time stamps: original, or shifted to now")]
Repeat = Annotated[bool, typer.Option("--repeat", help="start again at the end, for shifted times")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(simulate_app, name="simulate")


@simulate_app.command("pump-rig", epilog=EXAMPLE)
def simulate_pump_rig(
    port: Port = 4840,
    seed: Annotated[int, typer.Option(help="seed of the random noise, a whole number")] = 0,
    period: Period = 1.0,
    rows: Rows = None,
    speed: Speed = 1.0,
    fault: PumpRigFault = None,
    fault_every: FaultEvery = None,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """Simulate a water pump rig, with faults if wanted."""
    from simulators.faults import Fault
    from simulators.models import pump_rig
    from simulators.world import Playback

    def checked() -> tuple[pump_rig.PumpRig, Playback]:
        faults = [Fault.parse(text, pump_rig.FAULTS) for text in fault or []]
        rig = pump_rig.PumpRig(
            seed=seed,
            period_s=period,
            count=rows or 10**9,
            faults=faults,
            fault_every_s=fault_every,
        )
        return rig, Playback(speed)

    rig, playback = run.call(checked)
    announce("starting the OPC UA server")
    from testbed import simulator

    options = simulator.SimulatorOptions(
        port=port, playback=playback, wait=wait, ledger=ledger, keys=KEYS if secure else None
    )
    on_event = print_json if json else functools.partial(simulator.print_event, out=out)
    run.run(simulator.simulate(rig, options, WallClock(), on_event))


@simulate_app.command("csv", epilog=example("testbed simulate csv rig.csv --times shifted"))
def csv(
    file: File,
    port: Port = 4840,
    speed: Speed = 1.0,
    times: Times = "original",
    repeat: Repeat = False,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """Play a recording as if it were the machine."""
    from simulators import replay
    from simulators.world import Playback, TimestampMode

    def checked() -> tuple[replay.Recording, Playback]:
        return replay.read(file), Playback(speed, TimestampMode.parse(times))

    recording, playback = run.call(checked)
    announce("starting the OPC UA server")
    from testbed import simulator

    source = simulator.RepeatedSource(recording) if repeat else recording
    options = simulator.SimulatorOptions(
        port=port, playback=playback, wait=wait, ledger=ledger, keys=KEYS if secure else None
    )
    on_event = print_json if json else functools.partial(simulator.print_event, out=out)
    run.run(simulator.simulate(source, options, WallClock(), on_event))
