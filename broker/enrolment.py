"""What a gateway signs when it enrols: that it holds the key whose public half it shows.  Pure."""

import hashlib

ALPHABET = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
"""Of a code: nothing that is read as something else."""
_PURPOSE = b"connected-testbed: enrol a gateway, 1"


def normalised(code: str) -> str:
    """A code as it is compared: whatever somebody typed between and around its letters."""
    return "".join(one for one in code.upper() if one in ALPHABET)


def statement(code: str, public_key: bytes) -> bytes:
    """The bytes to sign.  public_key: 32 bytes, Ed25519 (RFC 8032)."""
    return b"\n".join((_PURPOSE, hashlib.sha256(normalised(code).encode()).digest(), public_key))


def fingerprint(public_key: bytes) -> str:
    """A key as people compare it: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:16].hex(":", 2).upper()
