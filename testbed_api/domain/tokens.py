"""Tokens: what a principal shows to be believed; of each only a hash is kept."""

import hashlib
from dataclasses import dataclass, field

from broker import credential
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
    in the words of whoever made it.  span: until it expires or was revoked.  verifier: what a
    broker that asks nobody holds the secret against; empty for a token that is none for the bus.
    """

    principal: str
    secret_hash: str = field(repr=False)
    span: Span
    label: str = ""
    by: str | None = None
    last_used_ns: int | None = None
    id: int = 0
    verifier: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        checked_principal(self.principal)
        checked_text(self.label, "label", MOST_NAME)


def issued(
    principal: str, span: Span, *, label: str = "", by: str | None = None, bus: bool = True
) -> tuple[Credential, Token]:
    """A fresh credential to be shown once, and what is kept of it.

    bus: one for the bus too, also where the broker knows of one at a time.
    """
    made = Credential.make(principal)
    return made, kept(made, span, label=label, by=by, bus=bus)


def kept(
    made: Credential, span: Span, *, label: str = "", by: str | None = None, bus: bool = True
) -> Token:
    """What is kept of a credential."""
    held_against = credential.verifier(made.secret) if bus else ""
    return Token(made.principal, hashed(made.secret), span, label, by, verifier=held_against)


def hashed(secret: str) -> str:
    """SHA-256: a secret has 256 random bits, so there is nothing that a slow hash would protect."""
    return hashlib.sha256(secret.encode()).hexdigest()
