"""Tokens: what a principal shows to be believed; of each only a hash is kept."""

import hashlib
from dataclasses import dataclass, field

from broker.credential import Credential
from broker.rights import Span
from testbed_api.domain.equipment import MOST_NAME, checked_text
from testbed_api.domain.parties import checked_principal

USE_EVERY_S = 60.0
"""A use within this time of the last one noted is not noted again."""


@dataclass(frozen=True, slots=True)
class Token:
    """One of the tokens of a principal.

    It holds what its principal holds: a person's roles, a machine's scope.  label: what it is for,
    in the words of whoever made it.  span: until it expires or was revoked.
    """

    principal: str
    secret_hash: str = field(repr=False)
    span: Span
    label: str = ""
    by: str | None = None
    last_used_ns: int | None = None
    id: int = 0

    def __post_init__(self) -> None:
        checked_principal(self.principal)
        checked_text(self.label, "label", MOST_NAME)


def issued(
    principal: str, span: Span, *, label: str = "", by: str | None = None
) -> tuple[Credential, Token]:
    """A fresh credential to be shown once, and what is kept of it."""
    credential = Credential.make(principal)
    return credential, Token(principal, hashed(credential.secret), span, label, by)


def hashed(secret: str) -> str:
    """SHA-256: a secret has 256 random bits, so there is nothing that a slow hash would protect."""
    return hashlib.sha256(secret.encode()).hexdigest()
