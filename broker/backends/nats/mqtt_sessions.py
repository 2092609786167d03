"""Deletes what NATS keeps of an MQTT session while its client is away.

A session that a client left open goes on collecting whatever its filters match, also while its
right to read is revoked or paused; with the right given back it would be sent all of that.  So only
the testbed's own parts keep their sessions.  Source: nats-server, server/mqtt.go.
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

Request = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]


async def forget(request: Request, client_id: str) -> None:
    """Delete the messages that wait for a client id; its subscriptions go on from now.

    request: sends a request, as `AuthService.request` does.  Raises Unavailable if the server
    does not answer or obey.
    """
    stored = await _jetstream(
        request, f"STREAM.MSG.GET.{SESSIONS}", last_by_subj=subject(client_id)
    )
    if stored is None:
        return
    session = orjson.loads(base64.b64decode(stored["message"]["data"]))
    if session.get("clean"):
        return  # it ended with its connection
    for consumer in session.get("cons", {}).values():
        name = consumer["durable_name"]
        await _jetstream(request, f"CONSUMER.DELETE.{MESSAGES}.{name}")
        create = f"CONSUMER.DURABLE.CREATE.{MESSAGES}.{name}"
        await _jetstream(request, create, stream_name=MESSAGES, config=consumer)


def subject(client_id: str) -> str:
    """Return the subject under which the server stores the session of a client id: a hash of it."""
    digest = hashlib.sha256(client_id.encode()).digest()
    return "$MQTT.sess." + "".join(_DIGITS[byte % len(_DIGITS)] for byte in digest[:8])


async def _jetstream(request: Request, call: str, **arguments: object) -> dict[str, Any] | None:
    """Call the JetStream API; returns None where there is nothing of that name."""
    response = await request(f"$JS.API.{call}", arguments)
    error = response.get("error")
    if error is None:
        return response
    if error.get("code") == _NOT_THERE:
        return None
    raise Unavailable(f"nats-server did not do {call}: {error.get('description')}")
