"""Enrolment: a code that an engineer makes, and the gateway that shows it once."""

import hashlib
import secrets
from dataclasses import dataclass, field, replace

from broker import enrolment
from broker.clock import NS_PER_S
from broker.errors import Refused
from broker.namespace import EquipmentAddress
from broker.rights import Span

LASTS_S = 3_600
LETTERS, GROUP = 20, 5
"""98 random bits, written in groups."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A code for the gateway of one equipment; of the code only its hash is kept.

    public_key: of the gateway that showed it first, which may show it again while it lasts, as its
    answer may have been lost.  principal: what that gateway became.
    """

    equipment: EquipmentAddress
    code_hash: str = field(repr=False)
    span: Span
    by: str
    public_key: bytes | None = None
    principal: str | None = None
    used_ns: int | None = None
    id: int = 0

    @property
    def fingerprint(self) -> str | None:
        """Of the gateway's key, None before it is known."""
        return None if self.public_key is None else enrolment.fingerprint(self.public_key)

    def used(self, public_key: bytes, now_ns: int) -> "Enrolment":
        """Shown by a gateway with this key; raises Refused if it does not count, or no more."""
        if not self.span.covers(now_ns) or self.public_key not in {None, public_key}:
            raise Refused("the code was used, or its hour is over", hint="have a new one made")
        principal = self.principal or f"gateway-{secrets.token_hex(6)}"
        return replace(self, public_key=public_key, principal=principal, used_ns=now_ns)


def issued(equipment: EquipmentAddress, by: str, now_ns: int) -> tuple[str, Enrolment]:
    """A new code to be shown once, and what is kept of it."""
    letters = "".join(secrets.choice(enrolment.ALPHABET) for _ in range(LETTERS))
    code = "-".join(letters[at : at + GROUP] for at in range(0, LETTERS, GROUP))
    span = Span(now_ns, now_ns + LASTS_S * NS_PER_S)
    return code, Enrolment(equipment, hashed(code), span, by)


def hashed(code: str) -> str:
    """SHA-256: a code has too many random bits to be tried out within its hour."""
    return hashlib.sha256(enrolment.normalised(code).encode()).hexdigest()
