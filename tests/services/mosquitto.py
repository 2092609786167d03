"""Mosquitto 2 from the system, with two users and nobody else let in."""

import contextlib
import getpass
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.backends.mosquitto import config_files
from broker.credential import Credential
from broker.settings import Address
from broker.tls import Certificate
from tests import services

PASSWORDS: Mapping[str, str] = {"ada": "ada-secret-1", "bert": "bert-secret-2"}


@dataclass(frozen=True)
class Mosquitto:
    """Where a running Mosquitto listens; `PASSWORDS` are its users."""

    host: str
    port: int
    product: services.Product


@contextlib.contextmanager
def serve(
    folder: Path, *, port: int = 0, certificate: Certificate | None = None
) -> Iterator[Mosquitto]:
    """Run Mosquitto on loopback with its data in `folder`, which a later start carries on.

    port: 0 takes a free one.  certificate: what it shows, None for no TLS.  Sessions and retained
    messages are written when it stops.
    """
    command = services.found("mosquitto", Path("/usr/sbin/mosquitto"))
    port = port or services.free_port()
    config = configure(folder, port, certificate)
    with services.running(
        [command, "-c", str(config)], folder=folder, ready=lambda: services.accepts(port)
    ) as product:
        yield Mosquitto(services.LOOPBACK, port, product)


def configure(folder: Path, port: int, certificate: Certificate | None) -> Path:
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    passwords.write_text("".join(f"{user}:{secret}\n" for user, secret in PASSWORDS.items()))
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True, capture_output=True)
    config = folder / "mosquitto.conf"
    lines = [
        f"listener {port} {services.LOOPBACK}",
        f"user {getpass.getuser()}",  # as root it would change to a user who may not read `folder`
        "allow_anonymous false",
        f"password_file {passwords}",
        "set_tcp_nodelay true",  # else an answer to a small message waits 40 ms for an ACK of TCP
        "persistence true",
        f"persistence_location {folder}/",
        "log_dest stderr",
        # a recorder acknowledges after its store: thousands are in flight, and none may be dropped
        "max_inflight_messages 20000",
        "max_queued_messages 1000000",
        "max_queued_bytes 0",
    ]
    if certificate is not None:
        lines += [f"certfile {certificate.chain}", f"keyfile {certificate.key}"]
    config.write_text("\n".join(lines) + "\n")
    return config


@contextlib.contextmanager
def admitting(
    folder: Path,
    port: int,
    system: Iterable[Credential],
    controller: Credential,
    certificate: Certificate | None = None,
) -> Iterator[services.Product]:
    """Run Mosquitto as `testbed broker-config` has it, its state laid anew in `folder`."""
    command = services.found("mosquitto", Path("/usr/sbin/mosquitto"))
    plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    deployment = config_files.MosquittoDeployment(
        mqtt=Address(services.LOOPBACK, port),
        state=folder,
        user=getpass.getuser(),
        certificate=certificate,
        plugin=plugin,
    )
    (folder / config_files.CONFIG).write_text(config_files.config(deployment))
    seed = folder / "seed"
    seed.write_text(config_files.initial_state(system, controller))
    config_files.write_initial_state(seed, folder)
    with services.running(
        [command, "-c", str(folder / config_files.CONFIG)],
        folder=folder,
        ready=lambda: services.accepts(port),
    ) as product:
        yield product
