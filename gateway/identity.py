"""A gateway's own key pair, which never leaves its machine, and the credential that it enrolled
for.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from broker import enrolment
from broker.credential import Credential
from broker.errors import Corrupt, Taken, Unavailable
from broker.process import files
from broker.settings import BusSettings

KEY, CREDENTIAL = "key.pem", "credential"


@dataclass(frozen=True, slots=True)
class Claim:
    """What is shown with a code: the public key, and a signature over both."""

    public_key: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """Of the key, for people to compare."""
        return enrolment.fingerprint(self.public_key)


def claim(folder: Path, code: str) -> Claim:
    """Sign a code with the folder's key, which is made at the first time.

    Raises Taken if a credential is there already, Unavailable if the folder cannot be written.
    """
    if (folder / CREDENTIAL).exists():
        raise Taken(
            f"the gateway in {folder} is enrolled as {credential(folder).principal}",
            hint="to enrol anew, move that folder away",
        )
    key = _key(folder)
    public = key.public_key().public_bytes_raw()
    return Claim(public, key.sign(enrolment.statement(code, public)))


def keep(folder: Path, text: str) -> Path:
    """Write the credential where `run` finds it; the file."""
    parsed = Credential.parse(text)
    _write(folder / CREDENTIAL, f"{parsed.text}\n".encode())
    return folder / CREDENTIAL


def credential(folder: Path) -> Credential:
    """The one that was kept; raises Unavailable if there is none, Corrupt if it is not one."""
    file = folder / CREDENTIAL
    try:
        return Credential.parse(file.read_text().strip())
    except OSError as exc:
        raise Unavailable(f"{file} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise Corrupt(f"{file} holds no credential") from exc


def told(bus: BusSettings, folder: Path) -> BusSettings:
    """The same settings, with the folder's credential where the environment tells none."""
    if bus.credential.get_secret_value() or not (folder / CREDENTIAL).exists():
        return bus
    return bus.model_copy(update={"credential": SecretStr(credential(folder).text)})


def _key(folder: Path) -> Ed25519PrivateKey:
    file = folder / KEY
    if not file.exists():
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write(file, made)
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
