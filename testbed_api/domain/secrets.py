"""Secrets of organisations, which their prototypes get as files: encrypted wherever they lie.

The key is no part of the registry, and so of no backup: whoever reads the tables reads no secret.
A sealed value is bound to its organisation and its name, so that it opens at no other place.
"""

import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import Invalid, Unavailable

KEY_BYTES = 32
MOST_VALUE = 64 * 1024
"""Bytes of a secret in UTF-8."""


_NONCE_BYTES = 12
_FORM = b"secret 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A secret of an organisation as the registry has it."""

    organisation: str
    name: str
    sealed: bytes = field(repr=False)
    set_ns: int
    set_by: str


class SecretCipher:
    """Encrypts secrets with one key, AES-256-GCM."""

    def __init__(self, key: str) -> None:
        """key: 64 hexadecimal digits; raises Invalid if it is none."""
        try:
            raw = bytes.fromhex(key.strip())
        except ValueError:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise Invalid(
                "the key of the secrets is no 64 hexadecimal digits",
                hint="`testbed secrets init` writes one; a lost key is not to be made anew: the"
                " secrets that it opens are lost with it",
            )
        self._cipher = AESGCM(raw)

    def sealed(self, organisation: str, name: str, value: str) -> bytes:
        """Encrypt a value; raises Invalid for one that no secret has."""
        content = checked_value(value)
        nonce, place = os.urandom(_NONCE_BYTES), _place(organisation, name)
        return nonce + self._cipher.encrypt(nonce, content, place)

    def opened(self, secret: SealedSecret) -> str:
        """Decrypt a value; raises Unavailable where the key is another one."""
        nonce, encrypted = secret.sealed[:_NONCE_BYTES], secret.sealed[_NONCE_BYTES:]
        try:
            place = _place(secret.organisation, secret.name)
            return self._cipher.decrypt(nonce, encrypted, place).decode()
        except (InvalidTag, ValueError) as exc:
            raise Unavailable(
                f"the secret {secret.name} of {secret.organisation} cannot be read: it was written"
                " with another key",
                hint="its operator puts the server's former secrets.key back; or set it anew",
            ) from exc


def checked_value(value: str) -> bytes:
    """The bytes of a secret's value; raises Invalid, without the value, if it can be none."""
    try:
        content = value.encode()
    except UnicodeEncodeError as exc:
        raise Invalid("the value of the secret is no text") from exc
    if not content or len(content) > MOST_VALUE or b"\0" in content:
        raise Invalid(
            f"the value of the secret has {len(content):,} bytes, or a NUL in it",
            hint=f"1 to {MOST_VALUE:,} bytes of text; encode others, such as in base64",
        )
    return content


def _place(organisation: str, name: str) -> bytes:
    """The data that a sealed value is bound to; no two places have the same."""
    return b"\0".join((_FORM, organisation.encode(), name.encode()))
