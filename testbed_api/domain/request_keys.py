"""Idempotency keys: one request is carried out once, however often it is sent.

A key belongs to the token that it came with.  The stored answer is encrypted with the secret of
that token, because it may hold a new credential, of which the registry keeps nothing but a hash.
"""

import hashlib
import hmac
import os
import zlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.clock import DAY_NS
from broker.errors import Corrupt

KEPT_NS = DAY_NS
"""A key and its answer are kept so long; after that the same key is a new one."""
MOST_ANSWER = 256 * 1024
"""Bytes of a compressed answer; a larger one is not kept, and its request is not repeated."""
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """The idempotency key of a request, bound to the token and the content that it came with.

    id: hash of token and key.  content: hash of method, path, query and body.  secret: of the
    token; it encrypts the answer.
    """

    id: str
    content: str
    secret: str = field(repr=False)

    @classmethod
    def of(cls, key: str, *, secret: str, content: str) -> "RequestKey":
        """The key of a request; secret: of the token that came with it."""
        id_ = hmac.digest(secret.encode(), b"key " + key.encode(), "sha256").hex()
        return cls(id=id_, content=content, secret=secret)

    def sealed(self, status: int, body: bytes) -> bytes | None:
        """Encrypt an answer; None if it is too large to be kept."""
        plain = status.to_bytes(2) + zlib.compress(body)
        if len(plain) > MOST_ANSWER:
            return None
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, plain, self.content.encode())

    def opened(self, sealed: bytes) -> "StoredAnswer":
        """Decrypt the answer to this request; raises Corrupt."""
        nonce, encrypted = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            plain = self._cipher().decrypt(nonce, encrypted, self.content.encode())
            return StoredAnswer(int.from_bytes(plain[:2]), zlib.decompress(plain[2:]))
        except (InvalidTag, ValueError, zlib.error) as exc:
            raise Corrupt("the stored answer to this request cannot be read") from exc

    def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(self.secret.encode(), b"answer " + self.id.encode(), "sha256"))


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer that a request got: HTTP status and JSON body."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerRequest:
    """A request that was carried out with a key.

    request: its id, as in log and audit.  sealed: its answer, None where that was not stored.
    """

    content: str
    request: str
    at_ns: int
    sealed: bytes | None = field(repr=False)


def content_hash(method: str, path: str, query: bytes, body: bytes) -> str:
    """The hash of what a request asks for."""
    head = b"%s %s?%s\n" % (method.encode(), path.encode(), query)
    return hashlib.sha256(head + body).hexdigest()
