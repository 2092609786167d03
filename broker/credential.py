"""Credentials: a principal and the secret that proves it, and the hash that a broker keeps."""

import base64
import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

from broker.errors import Invalid
from broker.namespace import checked_id

SECRET_BYTES = 32
SALT_BYTES, HASH_BYTES, ROUNDS = 12, 64, 101
"""Parameters of Mosquitto's hash; a secret has 256 random bits, so more rounds add nothing."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{16,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credential:
    """A principal and its secret; as text `principal.secret`."""

    principal: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        checked_id(self.principal, "principal")
        if "--" in self.principal:
            raise Invalid(
                f"principal {self.principal!r} has '--' in it",
                hint="that separates it from the rest of a client id",
            )
        if _SECRET.fullmatch(self.secret) is None:
            raise Invalid(
                f"the secret of {self.principal!r} is not one",
                hint="16 to 100 of A-Z, a-z, 0-9, '_', '-'",
            )

    @property
    def text(self) -> str:
        """The credential in the form that it is handed over in, once."""
        return f"{self.principal}.{self.secret}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `principal.secret`; raises Invalid, without repeating any part of the text.

        What stands before the dot may be a secret as well, where something else was pasted.
        """
        principal, _, secret = text.partition(".")
        try:
            return cls(principal, secret)
        except Invalid:
            lines = text.strip().count("\n") + 1
            reason = f": it has {lines} lines" if lines > 1 else ""
            raise Invalid(
                f"the credential is not one{reason}",
                hint="it is one line, principal.secret, as it was shown when made",
            ) from None

    @classmethod
    def make(cls, principal: str) -> Self:
        """Generate a credential with 256 random bits."""
        return cls(principal, secrets.token_urlsafe(SECRET_BYTES))


def verifier(secret: str) -> str:
    """Return the salted hash that Mosquitto verifies a secret with; it is of no use to log in.

    Source: mosquitto_passwd(1), `$7$rounds$salt$hash` with PBKDF2-SHA512.
    """
    salt = os.urandom(SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, ROUNDS, HASH_BYTES)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"
