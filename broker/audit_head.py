"""Signs, encodes and verifies heads of the audit chain: the number of events and the last hash.

A gateway keeps heads as anchors: a chain that was cut or rewritten later does not have the hash of
an anchor at its place.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import orjson

from broker.clock import ns_of, text_of
from broker.errors import Corrupt, Invalid
from broker.wire import WIRE_VERSION, json_object

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

GENESIS = "0" * 64
"""The hash of a chain without an event."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head of the audit chain.

    count: of events.  hash: of the last event, in hex.  key, signature: Ed25519, in hex.
    """

    count: int
    hash: str
    time_ns: int
    key: str = ""
    signature: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether the signature is valid for the key; the key itself may be anybody's."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - slow to load
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - likewise
            Ed25519PublicKey,
        )

        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            key.verify(bytes.fromhex(self.signature), _signed(self))
        except (ValueError, InvalidSignature):
            return False
        return True

    @property
    def as_json(self) -> dict[str, Any]:
        """The head as a JSON object."""
        return {
            "v": WIRE_VERSION,
            "count": self.count,
            "hash": self.hash,
            "time": text_of(self.time_ns),
            "key": self.key,
            "signature": self.signature,
        }

    @classmethod
    def from_json(cls, raw: Any) -> Self:
        """Build from a JSON object; raises Corrupt."""
        try:
            head = cls(raw["count"], raw["hash"], ns_of(raw["time"]), raw["key"], raw["signature"])
        except (KeyError, TypeError, Invalid) as exc:
            raise Corrupt(f"a malformed head: {exc}") from exc
        texts = (head.hash, head.key, head.signature)
        if type(head.count) is not int or not all(isinstance(text, str) for text in texts):
            raise Corrupt("a malformed head: its values are of other types")
        return head


class HeadSigner:
    """Signs heads with the testbed's audit key."""

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        """private: the audit key."""
        self._private = private
        self.key: str = private.public_key().public_bytes_raw().hex()

    @classmethod
    def from_seed(cls, seed: str) -> Self:
        """Make the signer of a seed, 32 bytes in hex; raises Invalid, without repeating it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - slow to load
            Ed25519PrivateKey,
        )

        try:
            return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed.strip())))
        except ValueError as exc:
            raise Invalid(
                "the audit's key is not one", hint="64 hexadecimal digits, kept from everybody"
            ) from exc

    def sign(self, count: int, hash_: str, time_ns: int) -> Head:
        """Return a signed head."""
        bare = Head(count, hash_, time_ns, self.key)
        return Head(count, hash_, time_ns, self.key, self._private.sign(_signed(bare)).hex())


def _signed(head: Head) -> bytes:
    """Return the bytes that are signed: the head in its canonical JSON."""
    document = {"count": head.count, "hash": head.hash, "time": text_of(head.time_ns)}
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def encode(head: Head) -> bytes:
    """Encode a head as JSON."""
    return orjson.dumps(head.as_json)


def decode(payload: bytes) -> Head:
    """Decode a head, without verifying its signature; raises Corrupt."""
    raw = json_object(payload, "a head")
    if raw.get("v") != WIRE_VERSION:
        raise Corrupt(f"a head of wire version {raw.get('v')!r}", hint=f"this reads {WIRE_VERSION}")
    return Head.from_json(raw)
