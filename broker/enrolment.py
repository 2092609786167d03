"""The statement that a gateway signs to enrol, proving that it holds its private key.  Pure."""

import hashlib

ALPHABET = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
"""Characters of an enrolment code: none that can be mistaken for another."""
_PURPOSE = b"connected-testbed: enrol a gateway, 1"


def normalised(code: str) -> str:
    """Return a code without everything typed between and around its characters."""
    return "".join(character for character in code.upper() if character in ALPHABET)


def statement(code: str, public_key: bytes) -> bytes:
    """Return the bytes to sign.  public_key: 32 bytes, Ed25519 (RFC 8032)."""
    return b"\n".join((_PURPOSE, hashlib.sha256(normalised(code).encode()).digest(), public_key))


def fingerprint(public_key: bytes) -> str:
    """Return a key's fingerprint for people to compare: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:16].hex(":", 2).upper()
