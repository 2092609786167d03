"""The signed words of NATS's auth callout: who knocks, and what whoever knocks may do.

Source: NATS ADR-26 (auth callout) and ADR-14 (JWT claims): ed25519 over base64url, no padding.
"""

import base64
import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any

import nkeys
import orjson

from broker.errors import Corrupt, Invalid

ACCOUNT = "TESTBED"
_LEVEL = re.compile(r"[A-Za-z0-9_-]+|\+", re.ASCII)
_LAST_LEVEL = re.compile(r"[A-Za-z0-9_-]+|\+|#", re.ASCII)
_SEED = "it is the seed of an account's key, SA…, as `testbed secrets init` makes it"
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Somebody connects: who they say they are, and what they show for it.

    connection: its name from now until it ends, the same for everybody who answers.
    """

    principal: str
    secret: str = field(repr=False)
    client_id: str
    connection: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a connection may do, as MQTT filters, and until when: ns since 1970, None for ever.

    durable: whether it is sent what came while it was away.
    """

    publish: frozenset[str]
    subscribe: frozenset[str]
    expires_ns: int | None = None
    durable: bool = True


@dataclass(frozen=True, slots=True)
class CalloutRequest:
    """A knock as the server passes it on, with what the answer must name."""

    connect: ConnectRequest
    server_id: str
    user_key: str


def new_seed() -> str:
    """A new key to sign with, as NATS writes them: `SA…`."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT)
    return seed.decode()


class CalloutSigner:
    """The key that the server trusts to answer for it."""

    def __init__(self, seed: str) -> None:
        """seed: from `new_seed`; raises Invalid, without repeating it."""
        try:
            prefix, _ = nkeys.decode_seed(seed.encode())
            self._pair = nkeys.from_seed(seed.encode())
        except (nkeys.NkeysError, ValueError) as exc:
            raise Invalid("the broker's signing key is not one", hint=_SEED) from exc
        if prefix != nkeys.PREFIX_BYTE_ACCOUNT:
            raise Invalid("the broker's signing key is one for something else", hint=_SEED)
        self.public: str = self._pair.public_key.decode()

    def admit(self, callout: CalloutRequest, entry: Permissions, now_ns: int) -> bytes:
        """The signed answer that lets a connection in with exactly these rights."""
        user: dict[str, Any] = {
            "aud": ACCOUNT,
            "sub": callout.user_key,
            "name": callout.connect.principal,
            "nats": {
                "pub": _allowed(entry.publish),
                "sub": _allowed(entry.subscribe, "$MQTT.sub.>"),
                "subs": -1,
                "data": -1,
                "payload": -1,
                "allowed_connection_types": ["MQTT"],
                "type": "user",
                "version": 2,
            },
        }
        if entry.expires_ns is not None:
            user["exp"] = entry.expires_ns // 1_000_000_000
        return self._respond(callout, {"jwt": self._sign(user, now_ns).decode()}, now_ns)

    def refuse(self, callout: CalloutRequest, now_ns: int) -> bytes:
        """The signed answer that keeps a connection out."""
        return self._respond(callout, {"error": "not let in"}, now_ns)

    def _respond(self, callout: CalloutRequest, answer: dict[str, Any], now_ns: int) -> bytes:
        kind = {"type": "authorization_response", "version": 2}
        claims = {"sub": callout.user_key, "aud": callout.server_id, "nats": answer | kind}
        return self._sign(claims, now_ns)

    def _sign(self, claims: dict[str, Any], now_ns: int) -> bytes:
        full = {"iat": now_ns // 1_000_000_000, "iss": self.public} | claims
        digest = hashlib.sha256(orjson.dumps(full)).digest()
        full["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = _encoded(orjson.dumps(_HEADER)) + b"." + _encoded(orjson.dumps(full))
        return signed + b"." + _encoded(self._pair.sign(signed))


def read(token: bytes) -> CalloutRequest:
    """Read the server's request; raises Corrupt.

    It is believed without a look at its signature: nobody else may publish on its subject.
    """
    try:
        middle = token.split(b".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(middle + b"=" * (-len(middle) % 4)))["nats"]
        shown, who = claims["connect_opts"], claims["client_info"]
        server_id = claims["server_id"]["id"]
        return CalloutRequest(
            ConnectRequest(
                shown.get("user", ""),
                shown.get("pass", ""),
                who.get("mqtt_id", ""),
                connection_of(server_id, int(who["id"])),
                str(who.get("host", "")),
            ),
            server_id=server_id,
            user_key=claims["user_nkey"],
        )
    except (IndexError, KeyError, TypeError, ValueError) as exc:
        raise Corrupt(f"an auth callout that lacks sense: {exc}") from exc


def connection_of(server_id: str, number: int) -> str:
    """The name of a connection: its server, another one after each start, and a number."""
    return f"{server_id}/{number}"


def is_bound(request: ConnectRequest) -> bool:
    """Whether it comes to the MQTT door under a client id of its own: no session has two owners.

    A principal with `--` in it could: `a--b` is a client id of `a` too.
    """
    own = request.client_id == request.principal or request.client_id.startswith(
        f"{request.principal}--"
    )
    return own and request.principal != "" and "--" not in request.principal


def subjects(topic_filter: str) -> list[str]:
    """The NATS subjects of an MQTT filter: `a/#` covers `a` too, which takes two.

    Raises Invalid for what MQTT means otherwise than NATS would: dots, stars, empty levels, `#` and
    `+` as a part.
    """
    levels = topic_filter.split("/")
    last = levels.pop()
    if not _LAST_LEVEL.fullmatch(last) or not all(map(_LEVEL.fullmatch, levels)):
        raise Invalid(
            f"{topic_filter[:200]!r} is not a filter that can be granted",
            hint="as in a/b, a/+/c or a/#",
        )
    subject = topic_filter.replace("/", ".").replace("+", "*")
    return [subject[:-2], subject[:-1] + ">"] if subject.endswith(".#") else [subject]


def _allowed(filters: frozenset[str], *more: str) -> dict[str, list[str]]:
    listed = sorted(one for topic_filter in filters for one in subjects(topic_filter))
    return {"allow": [*listed, *more]} if listed or more else {"deny": [">"]}


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
