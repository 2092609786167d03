"""What a server of separate processes needs before its first start: secrets, certificates, and the
broker's configuration.
"""

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.screen import out, say_json

PLUGIN = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
"""Debian's, on x86-64."""
ANYWHERE = "0.0.0.0"  # noqa: S104 - in a container, whose ports are published one by one


class Backend(StrEnum):
    """The brokers that can run by themselves."""

    NATS = "nats"
    MOSQUITTO = "mosquitto"


secrets_app = typer.Typer(help="What separate processes of one server share.", no_args_is_help=True)
pki_app = typer.Typer(help="Certificates of an authority of our own.", no_args_is_help=True)


@pki_app.command("init")
def pki_init(
    folder: Annotated[Path, typer.Argument(help="a folder of its own")] = Path("testbed-data/pki"),
    host: Annotated[
        list[str] | None,
        typer.Option(help="name or address that clients use; any number of times"),
    ] = None,
    json: Json = False,
) -> None:
    """Make an authority and certificates for API and broker; what is there stays."""
    from testbed.server import pki

    async def go() -> Sequence[pki.Kept]:
        return pki.init(folder, host or (), WallClock().now_ns())

    kept = run.run(go())
    if json:
        say_json([asdict(one) | {"file": str(one.file)} for one in kept])
    else:
        pki.show(kept, out)


@secrets_app.command("init")
def secrets_init(
    folder: Annotated[Path, typer.Argument(help="a folder of its own")], json: Json = False
) -> None:
    """Make the secrets that separate processes share, a file each; what is there stays."""
    from testbed.server import secret_files

    async def go() -> Sequence[str]:
        return secret_files.init(folder)

    made = run.run(go())
    say_json({"folder": str(folder), "made": made}) if json else out.print(
        f"{folder}: {len(made)} new secrets"
    )


def broker_config(
    folder: Annotated[Path, typer.Argument(help="folder of `testbed secrets init`")],
    host: Annotated[str, typer.Option(help="address that its doors listen on")] = ANYWHERE,
    port: Annotated[int, typer.Option(help="its inner door, for the API alone")] = 4222,
    mqtt_port: Annotated[int, typer.Option(help="its MQTT door")] = 1883,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of its certificate, where the server sees it")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of that certificate's key")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="doors without TLS, on any address")
    ] = False,
    health_port: Annotated[int, typer.Option(help="its health, on loopback")] = 8222,
    store: Annotated[Path, typer.Option(help="folder of its data")] = Path("/data"),
    backend: Annotated[Backend, typer.Option(help="which broker")] = Backend.NATS,
    user: Annotated[
        str, typer.Option(help="whom a Mosquitto that is started as root becomes")
    ] = "mosquitto",
    plugin: Annotated[
        Path, typer.Option(help="Mosquitto's dynamic security, where the server sees it")
    ] = PLUGIN,
) -> None:
    """Write nats.conf for a NATS server of its own, with its secrets, into their folder; or what a
    Mosquitto is started with.
    """
    from broker.backends.mosquitto import config_files
    from broker.backends.nats.server import LOOPBACK, NatsDeployment
    from broker.settings import Address
    from testbed.server import secret_files

    async def go() -> Sequence[Path]:
        mqtt = Address(host, mqtt_port)
        certificate = secret_files.certificate_of(tls_cert, tls_key, mqtt, insecure=insecure)
        if backend is Backend.MOSQUITTO:
            found = config_files.MosquittoDeployment(mqtt, store, user, certificate, plugin)
            return secret_files.mosquitto_config(folder, found)
        place = NatsDeployment(Address(host, port), store, health=Address(LOOPBACK, health_port))
        return [secret_files.broker_config(folder, place, mqtt, certificate)]

    out.print(f"wrote {' and '.join(map(str, run.run(go())))}")
