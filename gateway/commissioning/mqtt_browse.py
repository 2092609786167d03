"""A look at a sensors' broker: which topics speak, what they say, and a mapping to start from."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import yaml

from broker.batch import BAD
from broker.bus.inbox import Inbox
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import WallClock
from broker.settings import BusSettings
from broker.streams import Dtype
from gateway.commissioning import signal_names
from gateway.links.mqtt import payloads
from gateway.links.mqtt.link import feeds_of
from gateway.links.mqtt.payloads import Pointer
from gateway.mapping.model import Broker
from gateway.mapping.model import Mapping as MachineMapping

LISTEN_S = 5.0
MOST_LISTEN_S = 30.0
MOST_TOPICS = 1_000
MOST_SHOWN = 100
_TYPES = {bool: Dtype.BOOL, int: Dtype.FLOAT64, float: Dtype.FLOAT64, str: Dtype.STRING}
"""A number without a point may have one in the next message."""

_HEAD = """\
# A first mapping, written from what was heard.  Leave out what nobody needs; look at kind (real or
# simulated), the streams' names and period_s; give `time` where a document has its own time stamp.
"""


async def overheard(
    broker: Broker, password: str, filters: Sequence[str], seconds: float
) -> dict[str, bytes]:
    """Topic -> the last payload heard of it; ends early once every one of `filters` has spoken.

    Raises Unavailable or Forbidden where the broker does not let us listen.
    """
    settings = BusSettings(
        broker=broker.url,
        ca=None,  # that is for the testbed's own doors
        timeout_s=broker.timeout_s,
        keepalive_s=broker.keepalive_s,
    )
    inbox = Inbox(filters, 1_000, "drop_oldest")
    login = Login(broker.user, password)
    connection = Connection("testbed-overhearing", login, settings, [inbox], durable=False)
    found: dict[str, bytes] = {}
    try:
        await connection.open()
        async with asyncio.timeout(seconds):
            async for message in inbox:
                if message.topic in found or len(found) < MOST_TOPICS:
                    found[message.topic] = message.payload
                if found.keys() >= set(filters):
                    break
    except TimeoutError:
        pass  # it is over when the time is
    finally:
        await connection.close()
    return found


# --- check ----------------------------------------------------------------------------------------


async def problems(
    mapping: MachineMapping, broker: Broker, password: str
) -> list[tuple[bool, str]]:
    """What is wrong with a mapping by what its topics say: (whether it is an error, sentence)."""
    feeds = feeds_of(mapping)
    periods_s = [one.spec.period_s for one in mapping.streams]
    seconds = min(max(LISTEN_S, 3 * max(periods_s)), MOST_LISTEN_S)
    heard = await overheard(broker, password, tuple(feeds), seconds)
    return list(_problems(mapping, heard, seconds))


def _problems(
    mapping: MachineMapping, heard: Mapping[str, bytes], seconds: float
) -> Iterator[tuple[bool, str]]:
    now_ns = WallClock().now_ns()
    for topic, feeds in feeds_of(mapping).items():
        if topic not in heard:
            yield False, f"{topic}: it said nothing in {seconds:g} s; is it the right topic?"
            continue
        for stream, signal, reading in feeds:
            spec = mapping.streams[stream].spec
            name = f"{spec.address.stream}.{spec.names[signal]}"
            found = payloads.read(heard[topic], reading, spec.dtypes[signal], now_ns)
            if found is None:
                yield False, f"{name}: nothing stands at {reading} in {_shown(heard[topic])}"
            elif found.quality == BAD:
                yield True, f"{name}: {found.reason}"


# --- browse ---------------------------------------------------------------------------------------


def lines(heard: Mapping[str, bytes]) -> list[str]:
    """Each topic with its last payload."""
    return [f"{topic}  {_shown(heard[topic])}" for topic in sorted(heard)]


def starting_mapping(
    url: str, user: str, heard: Mapping[str, bytes], organisation: str, equipment: str
) -> str:
    """A mapping file's text with every value that was heard, one stream a topic."""
    streams: dict[str, Any] = {}
    for topic in sorted(heard):
        signals = dict(_signals(topic, heard[topic]))
        if signals:
            streams[signal_names.free(signal_names.id_of(topic), streams)] = {"signals": signals}
    document = {
        "organisation": organisation,
        "equipment": equipment,
        "kind": "real",
        "mqtt": {"url": url} | ({"user": user} if user else {}),
        "streams": streams,
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _signals(topic: str, payload: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values of one payload, by name."""
    try:
        whole = orjson.loads(payload)
    except orjson.JSONDecodeError:
        whole = payload.decode(errors="replace")
    if type(whole) in _TYPES:
        yield signal_names.signal_of(topic.rpartition("/")[2]), _field(topic, whole)
        return
    taken: dict[str, Any] = {}
    for where, value in _leaves(whole, ()):
        name = signal_names.free(signal_names.signal_of(".".join(where)), taken)
        taken[name] = _field(topic, value) | {"value": payloads.written(where)}
    yield from taken.items()


def _leaves(whole: Any, where: Pointer) -> Iterator[tuple[Pointer, Any]]:
    if isinstance(whole, dict):
        for name, value in whole.items():
            yield from _leaves(value, (*where, name))
    elif type(whole) in _TYPES:
        yield where, whole


def _field(topic: str, value: Any) -> dict[str, Any]:
    return {"topic": topic, "dtype": str(_TYPES[type(value)])}


def _shown(payload: bytes) -> str:
    text = payload[:MOST_SHOWN].decode(errors="replace")
    return text + ("…" if len(payload) > MOST_SHOWN else "")
