"""`testbed secrets`, `pki` and `broker-config`: files that separate processes of a server need."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import Insecure, Json, example
from testbed.terminal.screen import out, print_json

PLUGIN = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
"""Path of the plugin on Debian, x86-64."""
LOOPBACK = "127.0.0.1"
PKI_EXAMPLE = example("testbed pki init --host testbed.example")
SECRETS_EXAMPLE = example("testbed secrets init secrets")


class Backend(StrEnum):
    """Brokers that can run as a service of their own."""

    NATS = "nats"
    MOSQUITTO = "mosquitto"


secrets_app = typer.Typer(
    help="Create the secrets that separate processes of a server share.",
    no_args_is_help=True,
    epilog=SECRETS_EXAMPLE,
)
pki_app = typer.Typer(
    help="Create a certificate authority, and certificates of API and broker.",
    no_args_is_help=True,
    epilog=PKI_EXAMPLE,
)

Host = Annotated[
    str, typer.Option(help="IP address that the broker listens on; 0.0.0.0 for every one")
]
Port = Annotated[int, typer.Option(help="TCP port of NATS's own protocol, for the API alone")]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of the broker's certificate, a path on the broker's machine (default:"
        " no TLS)"
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(help="PEM file of that certificate's key, likewise (default: no TLS)"),
]
HealthPort = Annotated[int, typer.Option(help="TCP port for health checks, on loopback")]
Data = Annotated[
    Path, typer.Option(help="data folder of the broker, a path on the broker's machine")
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log",
        help="file that NATS logs into, a path on the broker's machine; `testbed api` reads there,"
        " as TESTBED_BROKER_LOG, what the broker refused (default: standard error)",
    ),
]
RunAs = Annotated[
    str, typer.Option(help="user of its machine that runs a Mosquitto that is started as root")
]
Plugin = Annotated[
    Path, typer.Option(help="Mosquitto's dynamic security plugin, a path on its machine")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(secrets_app, name="secrets")
    app.add_typer(pki_app, name="pki")
    app.command("broker-config", epilog=example("testbed broker-config secrets --insecure"))(
        broker_config
    )


@pki_app.command("init", epilog=PKI_EXAMPLE)
def pki_init(
    folder: Annotated[Path, typer.Argument(help="folder for certificates and keys")] = Path(
        "testbed-data/pki"
    ),
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="name or IP address that clients connect to; can be repeated (default: this"
            " machine's own)"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create an authority, and certificates of API and broker; existing files stay."""
    from testbed.server import pki

    async def go() -> Sequence[pki.CertificateFile]:
        return pki.init(folder, host or (), WallClock().now_ns())

    files = run.run(go())
    print_json([file.as_json() for file in files]) if json else pki.print_certificates(files, out)


@secrets_app.command("init", epilog=SECRETS_EXAMPLE)
def secrets_init(
    folder: Annotated[Path, typer.Argument(help="folder for the secrets, and nothing else")],
    json: Json = False,
) -> None:
    """Create the secrets that separate processes share, a file each; existing files stay."""
    from testbed.server import secret_files

    async def go() -> Sequence[str]:
        return secret_files.init(folder)

    created = run.run(go())
    report = {"folder": str(folder), "made": created}
    print_json(report) if json else out.print(f"{folder}: {len(created)} new secrets")


def broker_config(
    folder: Annotated[Path, typer.Argument(help="folder of `testbed secrets init`")],
    host: Host = LOOPBACK,
    port: Port = 4222,
    mqtt_port: Annotated[int, typer.Option(help="TCP port for MQTT")] = 1883,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
    health_port: HealthPort = 8222,
    log: LogFile = None,
    data: Data = Path("/data"),
    backend: Annotated[Backend, typer.Option(help="broker to configure")] = Backend.NATS,
    run_as: RunAs = "mosquitto",
    plugin: Plugin = PLUGIN,
    json: Json = False,
) -> None:
    """Write the configuration of a NATS or Mosquitto broker into the folder of its secrets."""
    from broker.backends.mosquitto import config_files
    from broker.backends.nats.server import NatsDeployment
    from broker.settings import Address
    from testbed.server import secret_files

    async def go() -> Sequence[Path]:
        mqtt = Address(host, mqtt_port)
        certificate = secret_files.certificate_of(tls_cert, tls_key, mqtt, insecure=insecure)
        if backend is Backend.MOSQUITTO:
            mosquitto = config_files.MosquittoDeployment(
                mqtt=mqtt, state=data, user=run_as, certificate=certificate, plugin=plugin
            )
            return secret_files.mosquitto_config(folder, mosquitto)
        nats = NatsDeployment(
            inner=Address(host, port),
            store=data,
            log_file=log,
            health=Address(LOOPBACK, health_port),
        )
        return [secret_files.broker_config(folder, nats, mqtt, certificate)]

    files = [str(file) for file in run.run(go())]
    print_json(files) if json else out.print(f"wrote {' and '.join(files)}")
