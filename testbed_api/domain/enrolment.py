"""Enrolment: a code that an engineer makes, and the gateway that shows it once."""

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker import enrolment
from broker.clock import NS_PER_S
from broker.errors import Invalid, Refused
from broker.namespace import EquipmentAddress
from broker.rights import Span

LASTS_S = 3_600
LETTERS, GROUP = 20, 5
"""98 random bits, written in groups."""
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


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
        """The fingerprint of the gateway's key, None before the code is used."""
        return None if self.public_key is None else enrolment.fingerprint(self.public_key)

    def used(self, public_key: bytes, now_ns: int) -> "Enrolment":
        """Return the enrolment after its use by a gateway with this key.

        Raises Refused if the code does not count, or no more.
        """
        if not self.span.covers(now_ns) or self.public_key not in {None, public_key}:
            raise Refused("the code was used, or its hour is over", hint="have a new one made")
        principal = self.principal or f"gateway-{secrets.token_hex(6)}"
        return replace(self, public_key=public_key, principal=principal, used_ns=now_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentClaim:
    """The claim of a gateway to a code: its Ed25519 key, and the key's signature over the code.

    public_key, signature: in base64, as they came; `checked_key` says whether they are right.
    """

    code: str = field(repr=False)
    public_key: str
    signature: str

    def checked_key(self) -> bytes:
        """The 32 bytes of the public key, once the signature is verified; raises Invalid."""
        key = _decoded(self.public_key, _KEY_BYTES, "public_key")
        signature = _decoded(self.signature, _SIGNATURE_BYTES, "signature")
        try:
            signed = enrolment.statement(self.code, key)
            Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        except (InvalidSignature, ValueError) as exc:
            raise Invalid("the signature is not one of this key over this code") from exc
        return key


def issued(equipment: EquipmentAddress, by: str, now_ns: int) -> tuple[str, Enrolment]:
    """Make a new code to be shown once, and the enrolment to store."""
    code = new_code()
    return code, Enrolment(equipment, hashed(code), lasting(now_ns), by)


def new_code() -> str:
    """Make the text of a one-time code."""
    letters = "".join(secrets.choice(enrolment.ALPHABET) for _ in range(LETTERS))
    return "-".join(letters[at : at + GROUP] for at in range(0, LETTERS, GROUP))


def lasting(now_ns: int) -> Span:
    """The span in which a code counts that is made now."""
    return Span(now_ns, now_ns + LASTS_S * NS_PER_S)


def hashed(code: str) -> str:
    """Return the SHA-256 of a code: it has too many random bits to be guessed in an hour."""
    return hashlib.sha256(enrolment.normalised(code).encode()).hexdigest()


def _decoded(text: str, length: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Invalid(f"{what} is no base64") from exc
    if len(raw) != length:
        raise Invalid(f"{what} has {len(raw)} bytes, not {length}")
    return raw
