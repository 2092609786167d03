"""What NATS keeps for a client that is away, and how it is made to forget it.

A session that a client left open goes on collecting whatever its filters match, also while its
right to read is revoked or paused; with the right given back it would be sent all of that.  So only
the testbed's own parts find again what came meanwhile.  Source: nats-server, server/mqtt.go.
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from broker.errors import Unavailable

SESSIONS, MESSAGES = "$MQTT_sess", "$MQTT_msgs"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NOT_THERE = 404

Ask = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]


async def forget(ask: Ask, client_id: str) -> None:
    """Drop what came for a client id while it was away; what it subscribed goes on from now.

    ask: sends a request, as `AuthService.request` does.  Raises Unavailable if the server does not
    answer or obey.
    """
    kept = await _obeyed(ask, f"STREAM.MSG.GET.{SESSIONS}", last_by_subj=subject(client_id))
    if kept is None:
        return
    session = orjson.loads(base64.b64decode(kept["message"]["data"]))
    if session.get("clean"):
        return  # it ended with its connection
    for one in session.get("cons", {}).values():
        name = one["durable_name"]
        await _obeyed(ask, f"CONSUMER.DELETE.{MESSAGES}.{name}")
        made = f"CONSUMER.DURABLE.CREATE.{MESSAGES}.{name}"
        await _obeyed(ask, made, stream_name=MESSAGES, config=one)


def subject(client_id: str) -> str:
    """Where the server keeps the session of a client id: under a hash of it."""
    digest = hashlib.sha256(client_id.encode()).digest()
    return "$MQTT.sess." + "".join(_DIGITS[byte % len(_DIGITS)] for byte in digest[:8])


async def _obeyed(ask: Ask, order: str, **said: object) -> dict[str, Any] | None:
    """The answer, None where there is nothing of that name."""
    told = await ask(f"$JS.API.{order}", said)
    error = told.get("error")
    if error is None:
        return told
    if error.get("code") == _NOT_THERE:
        return None
    raise Unavailable(f"nats-server did not do {order}: {error.get('description')}")
