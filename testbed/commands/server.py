"""`testbed up`, `install-service`, `api`, `recorder`, `reconcile`: the processes of a server.

A command reads its settings before it loads the server, so that a wrong one is said at once.
"""

import functools
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.clock import WallClock
from broker.errors import BedError, Invalid
from testbed.terminal import run
from testbed.terminal.options import Insecure, Json, PrintUnit, example, settings
from testbed.terminal.screen import announce, notes, out, print_json

NoRunner = Annotated[
    bool,
    typer.Option(
        "--no-runner",
        help="start no runner for prototypes that are deployed (default: one, where Docker is here"
        " or the server listens to this machine alone)",
    ),
]
Host = Annotated[
    str | None, typer.Option(help="IP address or name to listen on (default: 127.0.0.1)")
]
Port = Annotated[
    int | None, typer.Option(help="TCP port of the API; 0 takes a free one (default: 8600)")
]
Data = Annotated[
    Path | None, typer.Option(help="data folder of the server (default: testbed-data)")
]
MqttPort = Annotated[
    int | None,
    typer.Option(help="TCP port of the broker; 0 takes a free one (default: 1883, with TLS 8883)"),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="sample store: duckdb, or influxdb://host:port/organisation/bucket (default: duckdb)"
    ),
]
Registry = Annotated[
    str | None,
    typer.Option(
        help="registry: sqlite, or postgresql://user@host:port/database (default: sqlite)"
    ),
]
SignIn = Annotated[
    bool,
    typer.Option(
        "--sign-in",
        help="store the administrator's new credential as a profile on this computer, and do not"
        " show it",
    ),
]
Tls = Annotated[
    bool,
    typer.Option("--tls", help="use TLS, with certificates that are made in the data folder"),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(
        epilog=example(
            "testbed up",
            "testbed up --sign-in",
            "testbed up --tls --host 0.0.0.0 --data /srv/testbed",
        )
    )(up)
    app.command(
        "install-service",
        epilog=example("testbed install-service --data /srv/testbed --run-as testbed --tls"),
    )(install_service)
    app.command(epilog=example("testbed api --host 0.0.0.0 --insecure"))(api)
    app.command(epilog=example("testbed recorder"))(recorder)
    app.command(epilog=example("testbed reconcile"))(reconcile)
    app.command(epilog=example("testbed openapi"))(openapi)


def up(
    data: Data = None,
    host: Host = None,
    port: Port = None,
    mqtt_port: MqttPort = None,
    store: Store = None,
    registry: Registry = None,
    tls: Tls = False,
    insecure: Insecure = False,
    sign_in: SignIn = False,
    no_runner: NoRunner = False,
    json: Json = False,
) -> None:
    """Run broker, recorder and API, until Ctrl-C."""
    from testbed_api.settings import ServerSettings

    own = settings(
        ServerSettings,
        folder=data,
        host=host,
        api_port=port,
        mqtt_port=mqtt_port,
        store=store,
        registry=registry,
        tls=_tls_setting(development=tls, insecure=insecure),
    )
    from testbed_api import start_check

    run.call(lambda: start_check.check(own))
    announce("starting broker, recorder and API")
    from testbed.server import up as server_up

    show = _ready_printer(as_json=json, sign_in=sign_in)

    def on_ready(server: Any) -> None:
        show(server)
        server_up.print_warnings(server, own, notes, has_runner=not no_runner)

    serving = server_up.up(own, WallClock(), on_ready, has_runner=not no_runner)
    until_stopped(server_up.until_stopped(serving, own.folder.absolute(), notes))


def until_stopped(serving: Coroutine[Any, Any, None]) -> None:
    """Run a part of the server, whose files are its owner's alone, until it is stopped."""
    run.run(serving, keeps_data=True, serves=True)


def install_service(
    data: Annotated[Path, typer.Option(help="data folder of the server")],
    host: Host = None,
    port: Port = None,
    mqtt_port: MqttPort = None,
    tls: Tls = False,
    name: Annotated[str, typer.Option(help="name of the service")] = "testbed-server",
    run_as: Annotated[
        str | None,
        typer.Option(
            help="user of this machine that runs the server (default: the owner of the data folder)"
        ),
    ] = None,
    print_only: PrintUnit = False,
) -> None:
    """Write a systemd unit that runs a server as `up` does, and print the next commands."""
    from testbed import systemd
    from testbed.server import systemd_unit
    from testbed_api.settings import ServerSettings

    chosen = {"folder": data, "host": host, "api_port": port, "mqtt_port": mqtt_port}
    own = settings(ServerSettings, **chosen, tls=_tls_setting(development=tls))
    try:
        service = systemd_unit.service(own, name=name, user=run_as)
        systemd.print_or_install(service, out, print_only=print_only)
    except BedError as exc:
        run.fail(exc)


def api(
    host: Host = None, port: Port = None, insecure: Insecure = False, json: Json = False
) -> None:
    """Run the API alone, with broker, registry, store and recorder as other services."""
    from broker.settings import BusSettings
    from testbed_api.settings import ServerSettings

    tls = _tls_setting(insecure=insecure)
    own, bus = settings(ServerSettings, host=host, api_port=port, tls=tls), settings(BusSettings)
    from testbed.server import up as server_up
    from testbed_api.security.system_secrets import SharedSecrets
    from testbed_api.service import BrokerServices

    secrets = settings(SharedSecrets)

    async def go() -> None:
        services = BrokerServices.from_settings(own, bus, secrets)
        await server_up.api(own, services, WallClock(), _ready_printer(as_json=json))

    until_stopped(go())


def recorder() -> None:
    """Run the recorder as a process of its own, with InfluxDB; `up` starts one by itself."""
    from broker.settings import BusSettings
    from testbed_api.settings import ServerSettings

    own, bus = settings(ServerSettings), settings(BusSettings, window=10_000)
    from testbed.server import unused_settings
    from testbed_api import recorder_process

    async def go() -> None:
        unused_settings.warn(own, os.environ)
        await recorder_process.record(own, bus, WallClock())

    until_stopped(go())


def reconcile() -> None:
    """Keep the rights in a Mosquitto broker equal to the registry's, until Ctrl-C."""
    from broker.settings import BusSettings
    from testbed_api.settings import ServerSettings

    own, bus = settings(ServerSettings), settings(BusSettings)
    from testbed.server import unused_settings
    from testbed_api.broker_auth import mosquitto_reconciler

    async def go() -> None:
        unused_settings.warn(own, os.environ)
        await mosquitto_reconciler.run(own, bus, WallClock())

    run.run(go(), serves=True)


def openapi() -> None:
    """Print the API's OpenAPI document as JSON."""
    from testbed_api.http.app import openapi_document

    print_json(openapi_document())


def _tls_setting(*, development: bool = False, insecure: bool = False) -> str | None:
    """The TESTBED_TLS of `--tls` and `--insecure`, None for neither; both end the command."""
    from testbed_api.settings import DEVELOPMENT, NO_TLS

    if development and insecure:
        run.fail(Invalid("--tls and --insecure contradict each other", hint="give one"))
    return DEVELOPMENT if development else NO_TLS if insecure else None


def _ready_printer(*, as_json: bool, sign_in: bool = False) -> Callable[[Any], None]:
    """A function that prints the addresses of a server once it accepts connections.

    sign_in: store the administrator's credential as a profile before.
    """
    from testbed.server import up as server_up

    show = functools.partial(server_up.print_ready, out)
    if as_json:
        show = functools.partial(server_up.print_ready_json, print_json)
    if sign_in:
        return functools.partial(server_up.sign_in_and_show, show, WallClock(), notes)
    return show
