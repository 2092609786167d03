"""Passwords of people: checked for length, and kept as argon2id hashes alone."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from broker.errors import Invalid

LEAST, MOST = 12, 200

_HASHER = PasswordHasher()
"""RFC 9106's second choice: 64 MiB, three passes; about 50 ms, so off the loop."""
NOBODYS = f"$argon2id$v=19$m=65536,t=3,p=4$bm9ib2R5IGhhcyBzYWx0IQ${'A' * 43}"
"""The hash that a guess for an unknown person is checked against, so that it takes as long."""


def hashed(password: str) -> str:
    """Return the hash to store; raises Invalid for a password that is too short or too long."""
    if not LEAST <= len(password) <= MOST:
        raise Invalid(
            f"the password has {len(password)} characters", hint=f"use {LEAST} to {MOST} of them"
        )
    return _HASHER.hash(password)


def is_right(password: str, stored: str | None) -> bool:
    """Whether a password matches the stored hash; a check against None fails, and takes as long."""
    try:
        return _HASHER.verify(stored or NOBODYS, password[:MOST])
    except (VerificationError, InvalidHashError):
        return False
