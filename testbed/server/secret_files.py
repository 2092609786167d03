"""`testbed secrets init` and `testbed broker-config`: what separate processes share, as files.

One file a secret, named as its setting with `-` for `_`, so that TESTBED_X_Y_FILE names `x-y`.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker.backends.mosquitto import config_files
from broker.backends.nats import auth_callout, server
from broker.backends.nats.server import Keys, NatsDeployment, NatsSettings
from broker.credential import Credential
from broker.errors import Invalid, Refused, Unavailable
from broker.settings import Address
from broker.tls import Certificate
from testbed_api.system_secrets import ADMINISTRATOR, API, RECONCILER, RECORDER

BROKER_CONFIG = "nats.conf"
BROKER_FILES = (BROKER_CONFIG, config_files.CONFIG, config_files.SEED)
READABLE = 0o444
"""Containers run as users of their own: the folder keeps others out, its files do not."""


def _token() -> str:
    return secrets.token_urlsafe(32)


MAKERS: Mapping[str, Callable[[], str]] = {
    "broker-callout-password": _token,
    "broker-system-password": _token,
    "broker-signing-key": auth_callout.new_seed,
    "api-credential": lambda: Credential.make(API).text,
    "recorder-credential": lambda: Credential.make(RECORDER).text,
    "reconciler-credential": lambda: Credential.make(RECONCILER).text,
    "administrator-credential": lambda: Credential.make(ADMINISTRATOR).text,
    "registry-password": _token,
    "store-password": _token,
    "store-token": _token,
    "audit-key": lambda: secrets.token_hex(32),
}


def init(folder: Path) -> Sequence[str]:
    """Make the secrets that the folder lacks; one that is there stays.  The names of the new ones.

    Raises Refused if the folder holds anything else, Unavailable if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        strange = sorted({one.name for one in folder.iterdir()} - {*MAKERS, *BROKER_FILES})
        if strange:
            raise Refused(
                f"{folder} holds more than secrets: {strange[0]}", hint="name a folder of its own"
            )
        folder.chmod(0o700)
        lacking = [name for name in MAKERS if not (folder / name).exists()]
        for name in lacking:
            _write(folder / name, MAKERS[name]())
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc
    return lacking


def certificate_of(
    chain: Path | None, key: Path | None, mqtt: Address, *, insecure: bool
) -> Certificate | None:
    """What a broker's doors show, None for no TLS; raises Invalid where that is not asked for."""
    if chain is not None and key is not None and not insecure:
        return Certificate(chain, key)
    if chain is not None or key is not None:
        raise Invalid(
            "a certificate and its key belong together, and not with --insecure",
            hint="give --tls-cert and --tls-key, or --insecure alone",
        )
    if not insecure and not mqtt.is_loopback:
        raise Invalid(
            f"the broker's doors would be open on {mqtt.host} without TLS",
            hint="give --tls-cert and --tls-key, see `testbed pki init`; --insecure only where"
            " something else protects them",
        )
    return None


def broker_config(
    folder: Path, place: NatsDeployment, mqtt: Address, certificate: Certificate | None
) -> Path:
    """Write the configuration of a NATS server that has these secrets, beside them."""
    keys = Keys(*(_read(folder / name) for name in MAKERS if name.startswith("broker-")))
    told = NatsSettings(certificate=certificate)
    try:
        _write(folder / BROKER_CONFIG, server.config(place, mqtt, told, keys))
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc
    return folder / BROKER_CONFIG


def mosquitto_config(folder: Path, place: config_files.MosquittoDeployment) -> tuple[Path, Path]:
    """Write the configuration of a Mosquitto and what its state begins with, beside the secrets."""
    controller, *parts = (
        Credential.parse(_read(folder / f"{name}-credential"))
        for name in ("reconciler", "api", "recorder")
    )
    made = {
        folder / config_files.CONFIG: config_files.config(place),
        folder / config_files.SEED: config_files.initial_state(parts, controller),
    }
    try:
        for file, text in made.items():
            _write(file, text)
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc
    return folder / config_files.CONFIG, folder / config_files.SEED


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as exc:
        raise Invalid(
            f"the secret {file} cannot be read: {exc.strerror}",
            hint=f"testbed secrets init {file.parent}",
        ) from exc


def _write(file: Path, text: str) -> None:
    """All of it or nothing, for whoever may enter the folder."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READABLE), "w") as opened:
        opened.write(text.strip() + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    new.chmod(READABLE)
    new.rename(file)
