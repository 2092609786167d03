"""The signed head of the audit chain, a state on the bus: so many events, the last with this hash.

Whoever keeps one, an anchor, can hold a chain against it later: one that was cut or rewritten does
not have that hash at that place.
"""

from dataclasses import dataclass
from typing import Any, Self

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.clock import ns_of, text_of
from broker.codec import WIRE_VERSION, json_object
from broker.errors import Corrupt, Invalid

GENESIS = "0" * 64
"""The hash of a chain without an event."""


@dataclass(frozen=True, slots=True)
class Head:
    """count: of events.  hash: of the last, in hex.  key, signature: Ed25519, in hex."""

    count: int
    hash: str
    time_ns: int
    key: str = ""
    signature: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether the signature is that of the key, whosever key that is."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            key.verify(bytes.fromhex(self.signature), _signed(self))
        except (ValueError, InvalidSignature):
            return False
        return True

    @property
    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
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
        """From a JSON object; raises Corrupt."""
        try:
            head = cls(raw["count"], raw["hash"], ns_of(raw["time"]), raw["key"], raw["signature"])
        except (KeyError, TypeError, Invalid) as exc:
            raise Corrupt(f"a head that lacks sense: {exc}") from exc
        texts = (head.hash, head.key, head.signature)
        if type(head.count) is not int or not all(isinstance(one, str) for one in texts):
            raise Corrupt("a head that lacks sense: its values are of other types")
        return head


class HeadSigner:
    """Who signs heads."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """private: the key, which nobody else has."""
        self._private = private
        self.key: str = private.public_key().public_bytes_raw().hex()

    @classmethod
    def from_seed(cls, seed: str) -> Self:
        """The key with this seed, 32 bytes in hex; raises Invalid, without repeating it."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed.strip())))
        except ValueError as exc:
            raise Invalid(
                "the audit's key is not one", hint="64 hexadecimal digits, kept from everybody"
            ) from exc

    def sign(self, count: int, hash_: str, time_ns: int) -> Head:
        """A head with our signature."""
        bare = Head(count, hash_, time_ns, self.key)
        return Head(count, hash_, time_ns, self.key, self._private.sign(_signed(bare)).hex())


def _signed(head: Head) -> bytes:
    """What is signed: the head in one spelling."""
    told = {"count": head.count, "hash": head.hash, "time": text_of(head.time_ns)}
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS)


def encode(head: Head) -> bytes:
    """A head as JSON."""
    return orjson.dumps(head.as_json)


def decode(payload: bytes) -> Head:
    """Read a head; raises Corrupt.  Its signature is another question."""
    raw = json_object(payload, "a head")
    if raw.get("v") != WIRE_VERSION:
        raise Corrupt(f"a head of wire version {raw.get('v')!r}", hint=f"this reads {WIRE_VERSION}")
    return Head.from_json(raw)
