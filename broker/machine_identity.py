"""The identity of a gateway or a runner: its key pair, which never leaves its machine, and its
credential, with the addresses of the testbed that they are for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from broker import enrolment
from broker.credential import Credential
from broker.errors import Corrupt, Invalid, Unavailable
from broker.process import files
from broker.server_addresses import ServerAddresses

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY, CREDENTIAL = "key.pem", "credential"
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


def store_addresses(folder: Path, addresses: ServerAddresses) -> None:
    """Write the addresses of the testbed beside the credential, with a copy of its authority.

    Raises Unavailable if a file cannot be written, Invalid if the authority's cannot be read.
    """
    if addresses.ca is not None:
        try:
            write(folder / AUTHORITY, addresses.ca.read_bytes())
        except OSError as exc:
            raise Invalid(f"{addresses.ca} cannot be read: {exc.strerror}") from exc
    document = {
        "api": addresses.api,
        "broker": addresses.broker,
        "broker_name": addresses.broker_name,
        "ca": None if addresses.ca is None else AUTHORITY,
    }
    write(folder / ADDRESSES, orjson.dumps(document) + b"\n")


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


def credential(folder: Path, what: str) -> Credential:
    """Read the stored credential; raises Unavailable if there is none, Corrupt if it is invalid.

    what: whose it is, for the sentence of an error.
    """
    file = folder / CREDENTIAL
    try:
        return Credential.parse(file.read_text().strip())
    except OSError as exc:
        raise Unavailable(f"{file} cannot be read: {exc.strerror}") from exc
    except (Invalid, UnicodeDecodeError) as exc:
        raise Corrupt(
            f"{file} holds no credential", hint=f"move its folder away, and enrol {what} again"
        ) from exc


def write(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all; raises Unavailable."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
        files.replace(file, content)
    except OSError as exc:
        raise Unavailable(f"{file} cannot be written: {exc.strerror}") from exc


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
        write(file, pem)
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as exc:
        raise Unavailable(f"{file} cannot be read: {exc.strerror}") from exc
    except (ValueError, TypeError) as exc:
        raise Corrupt(f"{file} holds no key", hint="move it away; a new one is made") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt(f"{file} holds a key of another kind", hint="move it away")
    return key
