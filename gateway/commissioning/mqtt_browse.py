"""`testbed gateway browse` for MQTT: lists the topics of a broker, and writes a first mapping."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import yaml

from broker.bus.inbox import Inbox
from broker.bus.mqtt_connection import Connection, Login
from broker.settings import BusSettings
from broker.streams import Dtype
from gateway.commissioning import signal_names
from gateway.mapping.model import MqttBroker
from gateway.mapping.mqtt_source import Pointer, pointer_text

LISTEN_S = 5.0
MOST_TOPICS = 1_000
MOST_QUOTED = 100
_TYPES = {bool: Dtype.BOOL, int: Dtype.FLOAT64, float: Dtype.FLOAT64, str: Dtype.STRING}
"""A number without a point may have one in the next message."""

_HEAD = """\
# A first mapping, written from the messages on the broker.  Leave out what nobody needs; look at
# kind (real or simulated), the streams' names and period_s; give `time` where a document has its
# own time stamp.
"""


async def listen(
    broker: MqttBroker, password: str, filters: Sequence[str], seconds: float
) -> dict[str, bytes]:
    """Listen to topics, and return the last payload of each.

    Returns early when each of `filters` has a message.  Raises Unavailable, or Forbidden where the
    broker refuses the subscription.
    """
    settings = BusSettings(
        broker=broker.url,
        ca=None,  # the CA of the settings is for the testbed's own listeners
        timeout_s=broker.timeout_s,
        keepalive_s=broker.keepalive_s,
    )
    inbox = Inbox(filters, 1_000, "drop_oldest")
    login = Login(broker.user, password)
    connection = Connection("testbed-browse", login, settings, [inbox], durable=False)
    received: dict[str, bytes] = {}
    try:
        await connection.open()
        async with asyncio.timeout(seconds):
            async for message in inbox:
                if message.topic in received or len(received) < MOST_TOPICS:
                    received[message.topic] = message.payload
                if received.keys() >= set(filters):
                    break
    except TimeoutError:
        pass  # the time to listen is over
    finally:
        await connection.close()
    return received


def lines(received: Mapping[str, bytes]) -> list[str]:
    """One line for each topic, with its last payload."""
    return [f"{topic}  {quoted(received[topic])}" for topic in sorted(received)]


def starting_mapping(
    url: str, user: str, received: Mapping[str, bytes], organisation: str, equipment: str
) -> str:
    """The text of a mapping file with every value that was received, one stream a topic."""
    streams: dict[str, Any] = {}
    for topic in sorted(received):
        signals = dict(_signals(topic, received[topic]))
        if signals:
            streams[signal_names.unused(signal_names.stream_id(topic), streams)] = {
                "signals": signals
            }
    document = {
        "organisation": organisation,
        "equipment": equipment,
        "kind": "real",
        "mqtt": {"url": url} | ({"user": user} if user else {}),
        "streams": streams,
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _signals(topic: str, payload: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of each value in a payload, by the name of its signal."""
    try:
        whole = orjson.loads(payload)
    except orjson.JSONDecodeError:
        whole = payload.decode(errors="replace")
    if type(whole) in _TYPES:
        yield signal_names.signal_name(topic.rpartition("/")[2]), _field(topic, whole)
        return
    signals: dict[str, Any] = {}
    for pointer, value in _leaves(whole, ()):
        name = signal_names.unused(signal_names.signal_name(".".join(pointer)), signals)
        signals[name] = _field(topic, value) | {"value": pointer_text(pointer)}
    yield from signals.items()


def _leaves(whole: Any, pointer: Pointer) -> Iterator[tuple[Pointer, Any]]:
    """Every plain value of a document with the pointer to it."""
    if isinstance(whole, dict):
        for name, value in whole.items():
            yield from _leaves(value, (*pointer, name))
    elif type(whole) in _TYPES:
        yield pointer, whole


def _field(topic: str, value: Any) -> dict[str, Any]:
    return {"topic": topic, "dtype": str(_TYPES[type(value)])}


def quoted(payload: bytes) -> str:
    """The beginning of a payload as text."""
    text = payload[:MOST_QUOTED].decode(errors="replace")
    return text + ("…" if len(payload) > MOST_QUOTED else "")
