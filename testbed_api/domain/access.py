"""Credentials: a principal, what it holds, and how its secret is kept."""

import hashlib
import hmac
from dataclasses import dataclass

from broker.credential import Credential
from broker.errors import Invalid
from broker.namespace import checked_id
from testbed_api.domain.holding import Holding

SYSTEM_PREFIX = "testbed-"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who may do what, and the hash of the secret that proves it."""

    id: str
    secret_hash: str
    holding: Holding
    created_ns: int

    def __post_init__(self) -> None:
        checked_principal(self.id)

    def proves(self, secret: str) -> bool:
        """Whether this is the secret, in constant time."""
        return hmac.compare_digest(self.secret_hash, hashed(secret))


def checked_principal(text: str) -> str:
    """Give `text` back if a credential can be made for it; raises Invalid."""
    checked_id(text, "principal")
    if text.startswith(SYSTEM_PREFIX):
        raise Invalid(
            f"principal {text!r} is a part of the testbed itself",
            hint=f"choose one that does not begin with {SYSTEM_PREFIX!r}",
        )
    return text


def issued(principal: str, holding: Holding, now_ns: int) -> tuple[Credential, Principal]:
    """A fresh credential to be shown once, and what is kept of it."""
    credential = Credential.make(principal)
    return credential, kept(credential, holding, now_ns)


def kept(credential: Credential, holding: Holding, now_ns: int) -> Principal:
    """What is kept of a credential."""
    return Principal(credential.principal, hashed(credential.secret), holding, now_ns)


def hashed(secret: str) -> str:
    """SHA-256: a secret has 256 random bits, so there is nothing that a slow hash would protect."""
    return hashlib.sha256(secret.encode()).hexdigest()
