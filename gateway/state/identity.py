"""A gateway's identity: its key pair, which never leaves its machine, and its credential."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from pydantic import SecretStr

from broker import enrolment
from broker.credential import Credential
from broker.errors import Corrupt, Invalid, Refused, Unavailable
from broker.namespace import EquipmentAddress
from broker.process import files
from broker.server_addresses import ServerAddresses

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from broker.settings import BusSettings

KEY, CREDENTIAL, EQUIPMENT = "key.pem", "credential", "equipment"
ADDRESSES, AUTHORITY = "testbed.json", "ca.pem"


@dataclass(frozen=True, slots=True)
class Claim:
    """Proof of an enrolment code: the public key, and a signature over the code and that key."""

    public_key: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key, for people to compare."""
        return enrolment.fingerprint(self.public_key)


def claim(folder: Path, code: str) -> Claim:
    """Sign an enrolment code with the key in a folder; the key is made when there is none.

    Raises Unavailable if the folder cannot be written.
    """
    key = _key(folder)
    public = key.public_key().public_bytes_raw()
    return Claim(public, key.sign(enrolment.statement(code, public)))


def is_enrolled(folder: Path) -> bool:
    """Whether a folder holds a credential."""
    return (folder / CREDENTIAL).exists()


def is_for(folder: Path, equipment: EquipmentAddress) -> bool:
    """Whether a folder holds a credential that was not enrolled for another equipment."""
    return is_enrolled(folder) and _equipment(folder) in {"", str(equipment)}


def take_place(new: Path, folder: Path) -> Path | None:
    """Move a new identity to the folder of its equipment.

    Returns where the former identity was moved to, None if there was none.  Raises Unavailable.
    """
    former = None
    try:
        if folder.exists():
            names = (folder.with_name(f"{folder.name}.former-{n}") for n in itertools.count(1))
            former = next(name for name in names if not name.exists())
            folder.rename(former)
        new.rename(folder)
    except OSError as exc:
        raise Unavailable(f"{new} cannot be moved to {folder}: {exc.strerror}") from exc
    return former


def store_credential(folder: Path, text: str, equipment: str) -> Path:
    """Write the credential that `testbed gateway run` reads; returns its file.

    equipment: address of the equipment that the credential is for.
    """
    parsed = Credential.parse(text)
    _write(folder / EQUIPMENT, f"{EquipmentAddress.parse(equipment)}\n".encode())
    _write(folder / CREDENTIAL, f"{parsed.text}\n".encode())
    return folder / CREDENTIAL


def store_addresses(folder: Path, addresses: ServerAddresses) -> None:
    """Write the addresses of the testbed beside the credential, with a copy of its authority.

    Raises Unavailable if a file cannot be written, Invalid if the authority's cannot be read.
    """
    if addresses.ca is not None:
        try:
            _write(folder / AUTHORITY, addresses.ca.read_bytes())
        except OSError as exc:
            raise Invalid(f"{addresses.ca} cannot be read: {exc.strerror}") from exc
    document = {
        "api": addresses.api,
        "broker": addresses.broker,
        "broker_name": addresses.broker_name,
        "ca": None if addresses.ca is None else AUTHORITY,
    }
    _write(folder / ADDRESSES, orjson.dumps(document) + b"\n")


def stored_addresses(folder: Path) -> ServerAddresses | None:
    """The addresses that an identity was enrolled with, None without any; raises Corrupt."""
    file = folder / ADDRESSES
    try:
        document = orjson.loads(file.read_bytes())
        texts = [str(document[name]) for name in ("api", "broker", "broker_name")]
        ca = document["ca"]
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unavailable(f"{file} cannot be read: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise Corrupt(
            f"{file} holds no addresses of a testbed",
            hint="remove it, and set TESTBED_API, TESTBED_BROKER and TESTBED_CA",
        ) from exc
    api, broker, broker_name = texts
    authority = None if ca is None else folder / AUTHORITY
    return ServerAddresses(api=api, broker=broker, broker_name=broker_name, ca=authority)


def credential(folder: Path) -> Credential:
    """Read the stored credential; raises Unavailable if there is none, Corrupt if it is invalid."""
    file = folder / CREDENTIAL
    try:
        return Credential.parse(file.read_text().strip())
    except OSError as exc:
        raise Unavailable(f"{file} cannot be read: {exc.strerror}") from exc
    except (Invalid, UnicodeDecodeError) as exc:
        raise Corrupt(
            f"{file} holds no credential", hint="move its folder away, and enrol the gateway again"
        ) from exc


def with_stored_credential(
    bus: "BusSettings", folder: Path, equipment: EquipmentAddress
) -> "BusSettings":
    """Bus settings that use the stored credential unless the environment sets one.

    equipment: that the credential must be for.  Raises Refused if there is no credential, or if it
    was enrolled for another equipment.
    """
    if bus.credential.get_secret_value():
        return bus
    code = f"have a code made: testbed gateway code {equipment}; then here"
    if not is_enrolled(folder):
        raise Refused(
            f"the gateway of {equipment} is not enrolled: there is no credential in {folder}, and"
            " TESTBED_CREDENTIAL is not set",
            hint=f"{code}: testbed gateway enrol CODE --mapping FILE",
        )
    enrolled_for = _equipment(folder)
    if enrolled_for not in {"", str(equipment)}:
        raise Refused(
            f"the gateway in {folder} is enrolled for {enrolled_for}, and the mapping is of"
            f" {equipment}",
            hint=f"run the mapping of {enrolled_for} with it; or {code}: testbed gateway enrol CODE"
            " --mapping FILE",
        )
    return bus.model_copy(update={"credential": SecretStr(credential(folder).text)})


def _equipment(folder: Path) -> str:
    """The equipment that the credential in a folder was enrolled for; empty if nothing says it."""
    try:
        return (folder / EQUIPMENT).read_text().strip()
    except OSError:
        return ""


def _key(folder: Path) -> "Ed25519PrivateKey":
    """The key in a folder, made if there is none; the library of keys is loaded to enrol alone."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - see above
        Ed25519PrivateKey,
    )

    file = folder / KEY
    if not file.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write(file, pem)
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as exc:
        raise Unavailable(f"{file} cannot be read: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise Corrupt(f"{file} holds no key", hint="move it away; a new one is made") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt(f"{file} holds a key of another kind", hint="move it away")
    return key


def _write(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all; raises Unavailable."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
        files.replace(file, content)
    except OSError as exc:
        raise Unavailable(f"{file} cannot be written: {exc.strerror}") from exc
