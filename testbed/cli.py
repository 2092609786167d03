"""The command line: a subcommand a job; each parses, calls, prints."""

import functools
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.commands import (
    audit,
    credential,
    gateway,
    grant,
    install,
    listing,
    organisation,
    reconcile,
    token,
)
from testbed.terminal import run
from testbed.terminal.options import Json, settings
from testbed.terminal.run import Exit
from testbed.terminal.screen import out, say_json

app = typer.Typer(
    name="testbed",
    help="Factories expose their equipment, small companies try their prototypes on it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
simulate_app = typer.Typer(help="A machine for anybody to try.", no_args_is_help=True)
retention_app = typer.Typer(help="How long streams are kept.", no_args_is_help=True)
app.add_typer(retention_app, name="retention")
app.add_typer(gateway.app, name="gateway")
app.add_typer(simulate_app, name="simulate")
for commands in (
    *(organisation, credential, token, audit),
    *(listing, grant, reconcile),
):
    commands.add_to(app)
app.add_typer(install.secrets_app, name="secrets")
app.add_typer(install.pki_app, name="pki")
app.command("broker-config")(install.broker_config)

OwnTls = Annotated[bool, typer.Option("--tls", help="TLS, of an authority in the data folder")]
Insecure = Annotated[bool, typer.Option("--insecure", help="doors without TLS, on any address")]


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    """Every command reads TESTBED_… from the environment; options go before it."""
    run.log_to_stderr()
    if version:
        from importlib.metadata import version as installed

        out.print(installed("connected-testbed"))
        raise typer.Exit


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="a recording (CSV) to play instead of the model")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="where data, logs and report go; a new temporary one if left out"),
    ] = None,
    speed: Annotated[float | None, typer.Option(min=0.01, help="source seconds a second")] = None,
    times: Annotated[
        str, typer.Option(help="time stamps of a recording: original or shifted")
    ] = "original",
    store: Annotated[
        str,
        typer.Option(
            help="duckdb, or influxdb://host:port/organisation/bucket", envvar="TESTBED_STORE"
        ),
    ] = "duckdb",
    keep: Annotated[
        bool, typer.Option("--keep", help="leave everything running and say what to try")
    ] = False,
    json: Json = False,
) -> None:
    """The whole testbed on this machine: a rig, a gateway, a server, a prototype, and a verdict on
    every sample.
    """
    from testbed.demo import terminal
    from testbed.demo.run import Plan
    from testbed.simulator import checked_times

    where = folder or Path(tempfile.mkdtemp(prefix="testbed-demo-"))
    plan = Plan(where, data, speed, checked_times(times), store)
    clean = run.run(
        terminal.run(plan, WallClock(), keep=keep, as_json=json, temporary=folder is None)
    )
    raise typer.Exit(Exit.DONE if clean else Exit.NEGATIVE)


@app.command()
def up(
    data: Annotated[Path | None, typer.Option(help="data folder [testbed-data]")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(help="port of the API; 0 takes a free one [8600]")
    ] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(help="port of the broker; 0 takes a free one [1883]")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="duckdb, or influxdb://host:port/organisation/bucket")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="sqlite, or postgresql://user@host:port/database")
    ] = None,
    tls: OwnTls = False,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Run broker and server for real use, until Ctrl-C."""
    from testbed.server import up as room
    from testbed_api.settings import ServerSettings

    chosen = settings(
        ServerSettings,
        folder=data,
        host=host,
        api_port=port,
        mqtt_port=mqtt_port,
        store=store,
        registry=registry,
        tls=room.tls_of(development=tls, insecure=insecure),
    )
    tell = (
        functools.partial(room.told_as_json, say_json)
        if json
        else functools.partial(room.told, out)
    )
    run.run(room.up(chosen, WallClock(), tell), keeps_data=True)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="address to listen on [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(help="port of the API; 0 takes a free one [8600]")
    ] = None,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """The API alone, where broker, registry, store and recorder are services of their own."""
    from broker.settings import BusSettings
    from testbed.server import up as room
    from testbed_api.service import Services
    from testbed_api.settings import ServerSettings
    from testbed_api.system_secrets import SharedSecrets

    chosen = settings(ServerSettings, host=host, api_port=port, tls=room.tls_of(insecure=insecure))
    given = (chosen, settings(BusSettings), settings(SharedSecrets))
    tell = (
        functools.partial(room.told_as_json, say_json)
        if json
        else functools.partial(room.told, out)
    )

    async def go() -> None:
        await room.api(chosen, Services.told(*given), WallClock(), tell)

    run.run(go(), keeps_data=True)


@app.command()
def recorder() -> None:
    """The recorder in a process of its own, with InfluxDB; `up` starts one by itself."""
    from broker.settings import BusSettings
    from testbed_api import recorder_process
    from testbed_api.settings import ServerSettings

    run.run(
        recorder_process.record(
            settings(ServerSettings), settings(BusSettings, window=10_000), WallClock()
        ),
        keeps_data=True,
    )


@app.command()
def tap(
    stream: Annotated[str, typer.Argument(help="organisation/equipment/stream")],
    json: Json = False,
) -> None:
    """A stream live in the terminal, until Ctrl-C."""
    from testbed.client import tap as client_tap

    run.run(client_tap.tap(stream, client_tap.as_json(say_json) if json else client_tap.table(out)))


@app.command()
def history(
    stream: Annotated[str, typer.Argument(help="organisation/equipment/stream")],
    begin: Annotated[
        str | None, typer.Option("--from", help="instant, included; an hour before --to")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="instant, not included; now")] = None,
    signal: Annotated[
        list[str] | None, typer.Option(help="any number of times; all if left out")
    ] = None,
    points: Annotated[int | None, typer.Option(min=2, help="thin each signal to so many")] = None,
    space: Annotated[str, typer.Option(help="live, or run-<id>")] = "live",
    output: Annotated[Path | None, typer.Option(help="a new file: .csv, .json or .parquet")] = None,
    json: Json = False,
) -> None:
    """What is stored of a stream, as CSV; in a file with its gaps beside it."""
    from testbed.client import history as client_history

    async def go() -> tuple[Path, ...]:
        asked = client_history.span(
            WallClock(), space=space, begin=begin, end=end, signals=signal or (), points=points
        )
        if output is not None:
            return await client_history.written(stream, asked, output)
        await client_history.printed(stream, asked, as_json=json)
        return ()

    if made := [str(one) for one in run.run(go())]:
        say_json(made) if json else out.print(f"wrote {' and '.join(made)}")


@app.command()
def status(
    within_s: Annotated[
        float, typer.Option("--within-s", min=1, help="seconds in which gaps and letters count")
    ] = 3_600.0,
    json: Json = False,
) -> None:
    """How the streams are: freshness, alarms, and what went missing lately."""
    from testbed.client import status as room

    told = run.run(room.status(within_s))
    say_json(told) if json else room.show(told, out, WallClock())


@app.command()
def openapi() -> None:
    """The API's OpenAPI document."""
    from testbed_api.http.app import openapi_document

    say_json(openapi_document())


Stream = Annotated[str, typer.Argument(help="organisation/equipment/stream")]
Space = Annotated[str, typer.Option(help="live, or run-<id>")]


@app.command()
def delete(
    stream: Stream,
    begin: Annotated[
        str | None, typer.Option("--from", help="instant, included; all before --to if left out")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="instant, not included; now if left out")
    ] = None,
    space: Space = "live",
    why: Annotated[str, typer.Option(help="kept with the proof")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="sure")] = False,
    json: Json = False,
) -> None:
    """Delete a span of a stream for good, and print the proof of what is gone."""
    from testbed.client import retention

    gone = run.run(retention.delete(stream, begin, end, space=space, why=why, sure=yes))
    say_json(gone) if json else retention.show_proofs(gone, out)


@app.command()
def deletions(stream: Stream, space: Space = "live", json: Json = False) -> None:
    """What was deleted of a stream, with the proofs."""
    from testbed.client import retention

    found = run.run(retention.deleted(stream, space))
    say_json(found) if json else retention.show_proofs(found, out)


@app.command()
def backup(
    to: Annotated[Path, typer.Option(help="a new folder for it")],
    data: Annotated[
        Path | None, typer.Option(help="data folder of a stopped server; a running one is asked")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="with --data: the store, as for `testbed up`")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="with --data: the registry, as for `testbed up`")
    ] = None,
    json: Json = False,
) -> None:
    """Back up registry, ledger and store, with the hash of everything."""
    from testbed.server import backup as room
    from testbed_api.settings import ServerSettings

    stopped = None
    if data is not None:
        stopped = settings(ServerSettings, folder=data, store=store, registry=registry)
    made = run.run(room.backup(to, stopped, WallClock()))
    say_json(room.told(made, to)) if json else room.show(made, to, out)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="the backup")],
    data: Annotated[Path | None, typer.Option(help="a new data folder [testbed-data]")] = None,
    store: Annotated[str | None, typer.Option(help="the store, as for `testbed up`")] = None,
    registry: Annotated[str | None, typer.Option(help="the registry, as for `testbed up`")] = None,
    sha256: Annotated[
        str | None, typer.Option(help="of its manifest, as `testbed backup` printed it")
    ] = None,
    json: Json = False,
) -> None:
    """Check a backup and bring it back, into an empty data folder and an empty store."""
    from testbed.server import backup as room
    from testbed_api.settings import ServerSettings

    chosen = settings(ServerSettings, folder=data, store=store, registry=registry)
    made, losses = run.run(room.restore(folder, chosen, WallClock(), sha256), keeps_data=True)
    say_json(room.told(made, folder)) if json else room.show_restored(made, losses, out)


@retention_app.command("set")
def retention_set(
    stream: Stream,
    days: Annotated[
        float | None, typer.Option(min=1 / 24, help="older samples go; for ever if left out")
    ] = None,
    json: Json = False,
) -> None:
    """Keep a stream for some days, or for ever; in every space."""
    from testbed.client import retention

    said = run.run(retention.keep(stream, days))
    if json:
        say_json(said)
    else:
        out.print(f"{stream} is kept for {'ever' if days is None else f'{days:g} days'}")


@retention_app.command("list")
def retention_list(json: Json = False) -> None:
    """The streams that are not kept for ever."""
    from testbed.client import retention

    found = run.run(retention.kept())
    say_json(found) if json else retention.show_kept(found, out)


Port = Annotated[
    int, typer.Option(min=0, max=65535, help="port of the OPC UA server; 0 takes a free one")
]
Speed = Annotated[float, typer.Option(min=0.01, help="source seconds a second")]
LedgerFile = Annotated[Path | None, typer.Option(help="write what is offered to this new file")]
Wait = Annotated[bool, typer.Option("--wait", help="begin only when every variable is monitored")]
Secure = Annotated[
    bool, typer.Option("--secure", help="sign and encrypt, with a certificate of its own")
]
SIMULATOR_KEYS = Path("testbed-data/simulator-pki")


@simulate_app.command("pump-rig")
def simulate_pump_rig(
    port: Port = 4840,
    seed: Annotated[int, typer.Option(help="of all noise")] = 0,
    period: Annotated[float, typer.Option(min=0.001, help="seconds of the rig between rows")] = 1.0,
    rows: Annotated[
        int | None, typer.Option(min=2, help="rows to play; without end if left out")
    ] = None,
    speed: Speed = 1.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="kind@start..end in rig seconds, kind valve, cavitation or bearing"),
    ] = None,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """A water pump rig behind an OPC UA server, with faults to switch in."""
    from simulators.faults import Fault
    from simulators.models.pump_rig import PumpRig
    from simulators.world import Playback
    from testbed import simulator

    async def go() -> None:
        faults = [Fault.parse(one) for one in fault or []]
        rig = PumpRig(seed=seed, period_s=period, count=rows or 10**9, faults=faults)
        keys = SIMULATOR_KEYS if secure else None
        showing = simulator.Showing(port, Playback(speed), wait, ledger, keys)
        await simulator.simulate(
            rig, showing, WallClock(), simulator.teller(say_json if json else None, out)
        )

    run.run(go())


@simulate_app.command("csv")
def simulate_csv(
    file: Annotated[Path, typer.Argument(help="recording in the form of the Skoltech benchmark")],
    port: Port = 4840,
    speed: Speed = 1.0,
    times: Annotated[str, typer.Option(help="time stamps: original or shifted")] = "original",
    repeat: Annotated[
        bool, typer.Option("--repeat", help="begin again at the end; with shifted times")
    ] = False,
    ledger: LedgerFile = None,
    wait: Wait = False,
    secure: Secure = False,
    json: Json = False,
) -> None:
    """A recording played through an OPC UA server as if it were the machine."""
    from simulators import replay
    from simulators.world import Playback, TimestampMode
    from testbed import simulator
    from testbed.simulator import checked_times

    async def go() -> None:
        source = replay.read(file)
        pace = Playback(speed, TimestampMode(checked_times(times)))
        keys = SIMULATOR_KEYS if secure else None
        showing = simulator.Showing(port, pace, wait, ledger, keys)
        played = simulator.Repeated(source) if repeat else source
        await simulator.simulate(
            played, showing, WallClock(), simulator.teller(say_json if json else None, out)
        )

    run.run(go())
