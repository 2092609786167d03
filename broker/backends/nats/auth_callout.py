"""Requests and signed responses of the NATS auth callout: decode a request, sign a response.

Source: NATS ADR-26 (auth callout) and ADR-14 (JWT claims): ed25519 over base64url, no padding.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import nkeys
import orjson

from broker.errors import Corrupt, Invalid

ACCOUNT = "TESTBED"
_LEVEL = re.compile(r"[A-Za-z0-9_-]+|\+", re.ASCII)
_LAST_LEVEL = re.compile(r"[A-Za-z0-9_-]+|\+|#", re.ASCII)
_SEED = "it is the seed of an account's key, SA…, as `testbed secrets init` makes it"
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """A client that wants to connect, with the user name and password of its CONNECT packet.

    connection: name of the connection from now until it ends, the same for every auth service.
    host: address that the client connects from.
    """

    principal: str
    secret: str = field(repr=False)
    client_id: str
    connection: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Permissions:
    """MQTT filters that a connection may publish and subscribe.

    expires_ns: end of the permissions, ns since 1970, None for no end.  durable: whether the client
    is sent what arrived while it was away.
    """

    publish: frozenset[str]
    subscribe: frozenset[str]
    expires_ns: int | None = None
    durable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutRequest:
    """A connect request as the server passes it on, with the ids that the response must name."""

    connect: ConnectRequest
    server_id: str
    user_key: str


def new_seed() -> str:
    """Generate the seed of a signing key, in the spelling of NATS: `SA…`."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT)
    return seed.decode()


class CalloutSigner:
    """Signs auth callout responses with the key that the server trusts."""

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
        """Return the signed response that admits a connection with exactly these permissions."""
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
        """Return the signed response that refuses a connection."""
        return self._respond(callout, {"error": "not let in"}, now_ns)

    def _respond(self, callout: CalloutRequest, content: dict[str, Any], now_ns: int) -> bytes:
        kind = {"type": "authorization_response", "version": 2}
        claims = {"sub": callout.user_key, "aud": callout.server_id, "nats": content | kind}
        return self._sign(claims, now_ns)

    def _sign(self, claims: dict[str, Any], now_ns: int) -> bytes:
        full = {"iat": now_ns // 1_000_000_000, "iss": self.public} | claims
        digest = hashlib.sha256(orjson.dumps(full)).digest()
        full["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = _encoded(orjson.dumps(_HEADER)) + b"." + _encoded(orjson.dumps(full))
        return signed + b"." + _encoded(self._pair.sign(signed))


def read(token: bytes) -> CalloutRequest:
    """Decode the server's request; raises Corrupt.

    Its signature is not checked: only the server may publish on this subject.
    """
    try:
        middle = token.split(b".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(middle + b"=" * (-len(middle) % 4)))["nats"]
        options, client = claims["connect_opts"], claims["client_info"]
        server_id = claims["server_id"]["id"]
        return CalloutRequest(
            connect=ConnectRequest(
                principal=options.get("user", ""),
                secret=options.get("pass", ""),
                client_id=client.get("mqtt_id", ""),
                connection=connection_of(server_id, int(client["id"])),
                host=str(client.get("host", "")),
            ),
            server_id=server_id,
            user_key=claims["user_nkey"],
        )
    except (IndexError, KeyError, TypeError, ValueError) as exc:
        raise Corrupt(f"an auth callout request is malformed: {exc}") from exc


def connection_of(server_id: str, number: int) -> str:
    """Name a connection by its server, whose id is new at each start, and its number there."""
    return f"{server_id}/{number}"


def is_bound(request: ConnectRequest) -> bool:
    """Return whether the client id belongs to the principal, so that no session has two owners.

    A principal with `--` in its name is refused: `a--b` is a client id of `a` too.
    """
    own = request.client_id == request.principal or request.client_id.startswith(
        f"{request.principal}--"
    )
    return own and request.principal != "" and "--" not in request.principal


def principal_of(client_id: str) -> str:
    """The principal of an admitted client, which `is_bound` demands of its client id."""
    return client_id.partition("--")[0]


def subjects(topic_filter: str) -> list[str]:
    """Translate an MQTT filter into NATS subjects; `a/#` covers `a` too, which takes two subjects.

    Raises Invalid for filters that NATS would read differently: with dots, stars, empty levels, or
    `#` and `+` as part of a level.
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


@lru_cache(maxsize=256)
def _allowed(filters: frozenset[str], *more: str) -> Mapping[str, list[str]]:
    """The claim of filters in the words of NATS, cached: clients of one kind have the same."""
    listed = sorted(subject for topic_filter in filters for subject in subjects(topic_filter))
    return {"allow": [*listed, *more]} if listed or more else {"deny": [">"]}


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
