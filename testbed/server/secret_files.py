"""Create the secrets that separate processes share, and the configuration of their broker.

Each secret is a file named as its setting, with `-` for `_`: TESTBED_X_Y_FILE names `x-y`.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker.backends.mosquitto import config_files
from broker.backends.nats import auth_callout, server
from broker.backends.nats.server import Keys, NatsDeployment, NatsSettings
from broker.credential import Credential
from broker.errors import Invalid, Refused, Unavailable
from broker.process import files
from broker.settings import Address
from broker.tls import Certificate
from testbed_api.security.system_secrets import ADMINISTRATOR, API, RECONCILER, RECORDER

BROKER_CONFIG = "nats.conf"
BROKER_FILES = (BROKER_CONFIG, config_files.CONFIG, config_files.SEED)
FILE_MODE = 0o444
"""Containers run as users of their own: the folder keeps others out, not the mode of its files."""


def _token() -> str:
    return secrets.token_urlsafe(32)


GENERATORS: Mapping[str, Callable[[], str]] = {
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
    "secrets-key": lambda: secrets.token_hex(32),
}


def init(folder: Path) -> Sequence[str]:
    """Create the secrets that a folder lacks; the names of the new ones.

    Raises Refused if the folder holds anything else, Unavailable if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = {file.name for file in folder.iterdir()}
        if other := sorted(names - {*GENERATORS, *BROKER_FILES}):
            raise Refused(
                f"{folder} holds more than secrets: {other[0]}", hint="name a folder of its own"
            )
        folder.chmod(0o700)
        lacking = [name for name in GENERATORS if not (folder / name).exists()]
        for name in lacking:
            _write(folder / name, GENERATORS[name]())
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc
    return lacking


def certificate_of(
    chain: Path | None, key: Path | None, mqtt: Address, *, insecure: bool
) -> Certificate | None:
    """The certificate of a broker's listeners, None for no TLS.

    Raises Invalid for half a certificate, and for no TLS without `insecure` on other addresses than
    loopback.
    """
    if chain is not None and key is not None and not insecure:
        return Certificate(chain, key)
    if chain is not None or key is not None:
        raise Invalid(
            "a certificate and its key belong together, and not with --insecure",
            hint="give --tls-cert and --tls-key, or --insecure alone",
        )
    if not insecure and not mqtt.is_loopback:
        raise Invalid(
            f"the broker would listen on {mqtt.host} without TLS",
            hint="give --tls-cert and --tls-key, see `testbed pki init`; --insecure only where"
            " something else protects them",
        )
    return None


def broker_config(
    folder: Path, place: NatsDeployment, mqtt: Address, certificate: Certificate | None
) -> Path:
    """Write `nats.conf` of a NATS server with the secrets of a folder into that folder."""
    keys = Keys(
        callout=_read(folder / "broker-callout-password"),
        system=_read(folder / "broker-system-password"),
        signing=_read(folder / "broker-signing-key"),
    )
    settings = NatsSettings(certificate=certificate)
    try:
        _write(folder / BROKER_CONFIG, server.config(place, mqtt, settings, keys))
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc
    return folder / BROKER_CONFIG


def mosquitto_config(folder: Path, place: config_files.MosquittoDeployment) -> tuple[Path, Path]:
    """Write the configuration and the first dynamic-security state of a Mosquitto into a folder."""
    controller, *clients = (
        Credential.parse(_read(folder / f"{name}-credential"))
        for name in ("reconciler", "api", "recorder")
    )
    files = {
        folder / config_files.CONFIG: config_files.config(place),
        folder / config_files.SEED: config_files.initial_state(clients, controller),
    }
    try:
        for file, text in files.items():
            _write(file, text)
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc
    return folder / config_files.CONFIG, folder / config_files.SEED


def _read(file: Path) -> str:
    """The secret in a file; raises Invalid if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError as exc:
        raise Invalid(
            f"the secret {file} cannot be read: {exc.strerror}",
            hint=f"testbed secrets init {file.parent}",
        ) from exc


def _write(file: Path, text: str) -> None:
    """Write a file atomically, readable for every user who may enter the folder."""
    files.replace(file, (text.strip() + "\n").encode(), mode=FILE_MODE)
