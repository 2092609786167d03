"""`testbed gateway browse` for MQTT: lists the topics of a broker, and writes a first mapping."""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from broker.bus.inbox import Inbox, Message
from broker.errors import BedError, Unknown
from broker.namespace import EquipmentAddress, EquipmentKind
from gateway.commissioning import mapping_text, payload_kinds, periods, progress, signal_names
from gateway.commissioning.mapping_text import ProposedStream
from gateway.commissioning.progress import OnProgress
from gateway.links.mqtt import refusal
from gateway.links.mqtt.source_connection import SourceConnection
from gateway.mapping.model import LEAST_VERSION, MqttBroker

MOST_TOPICS = 1_000
MOST_QUOTED = 100
MOST_PAYLOADS = 20
"""Payloads of a topic that are kept to see what they have in common."""
MOST_KEPT_BYTES = 64 * 1024**2
MOST_ARRIVALS = 1_000

_HEAD = """\
# A first mapping, written from the messages on the broker.  Leave out what nobody needs; look at
# kind and the streams' names; give `time` where a document has its own time stamp.
"""


@dataclass(slots=True)
class TopicMessages:
    """The payloads that were received on a topic.

    payloads: the newest ones.  arrivals_s: when messages that were not retained came.  retained:
    number of the others.
    """

    payloads: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_PAYLOADS))
    arrivals_s: list[float] = field(default_factory=list)
    retained: int = 0


@dataclass(slots=True)
class ReceivedTopics:
    """The topics that were received on a broker.

    left_out: topics beyond the most that are kept.
    """

    topics: dict[str, TopicMessages] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    kept_bytes: int = 0

    def add(self, message: Message, now_s: float) -> None:
        """Note a message that arrived."""
        if message.topic not in self.topics and len(self.topics) >= MOST_TOPICS:
            if len(self.left_out) < MOST_TOPICS:
                self.left_out.add(message.topic)
            return
        seen = self.topics.setdefault(message.topic, TopicMessages())
        self.kept_bytes += len(message.payload)
        if self.kept_bytes > MOST_KEPT_BYTES:
            self.kept_bytes -= sum(map(len, seen.payloads))
            seen.payloads.clear()
        elif len(seen.payloads) == MOST_PAYLOADS:
            self.kept_bytes -= len(seen.payloads[0])
        seen.payloads.append(message.payload)
        if message.retained:
            seen.retained += 1
        elif len(seen.arrivals_s) < MOST_ARRIVALS:
            seen.arrivals_s.append(now_s)

    def are_live(self, topics: Sequence[str]) -> bool:
        """Whether each of these topics has a message that was not retained."""
        seen = (self.topics.get(topic) for topic in topics)
        return all(messages is not None and messages.arrivals_s for messages in seen)

    @property
    def last_payloads(self) -> dict[str, bytes]:
        """The newest payload of each topic."""
        return {topic: seen.payloads[-1] for topic, seen in self.topics.items()}


async def listen(
    broker: MqttBroker,
    password: str,
    filters: Sequence[str],
    seconds: float,
    received: ReceivedTopics | None = None,
) -> ReceivedTopics:
    """Listen to topics, and return what was received.

    Returns early when each of `filters` has a message that is not retained.  received: is filled
    as messages come, for callers that show progress.  Raises Unavailable, or Forbidden where the
    broker refuses the user or the subscription.
    """
    inbox = Inbox(filters, 1_000, "drop_oldest")
    name = f"testbed-browse-{secrets.token_hex(4)}"
    connection = SourceConnection(name, broker, password, inbox)
    received = ReceivedTopics() if received is None else received
    loop = asyncio.get_running_loop()
    try:
        await connection.open()
        async with asyncio.timeout(seconds):
            async for message in inbox:
                received.add(message, loop.time())
                if received.are_live(filters):
                    break
    except TimeoutError:
        pass  # the time to listen is over
    except BedError as exc:
        raise refusal.explained(exc, broker, password) from exc
    finally:
        await connection.close()
    return received


async def listen_all(
    broker: MqttBroker, password: str, seconds: float, on_progress: OnProgress = progress.ignore
) -> ReceivedTopics:
    """Listen to every topic of a broker; on_progress: counts the topics."""
    received = ReceivedTopics()
    async with progress.reported(on_progress, lambda: len(received.topics)):
        return await listen(broker, password, ("#",), seconds, received)


def lines(received: ReceivedTopics) -> list[str]:
    """One line for each topic, with its last payload."""
    payloads = received.last_payloads
    return [f"{topic}  {quoted(payloads[topic])}" for topic in sorted(payloads)]


def starting_mapping(
    broker: MqttBroker,
    received: ReceivedTopics,
    equipment: EquipmentAddress,
    listened_s: float,
    *,
    kind: EquipmentKind = EquipmentKind.REAL,
) -> str:
    """The text of a mapping file with every value that was received, one stream a topic.

    What is not in it stands at the end as comments.  kind: of the equipment.  Raises
    Unknown if there is nothing to read.
    """
    streams: dict[str, ProposedStream] = {}
    left_out: list[str] = []
    for topic in sorted(received.topics):
        seen = received.topics[topic]
        proposed = payload_kinds.of_topic(topic, list(seen.payloads))
        left_out += proposed.left_out
        if proposed.signals:
            name = signal_names.unused(signal_names.stream_id(topic), streams)
            streams[name] = _stream(proposed, seen, listened_s)
    left_out += [f"{topic}: more than {MOST_TOPICS} topics" for topic in sorted(received.left_out)]
    if not streams:
        raise Unknown(
            f"nothing at {broker.url} can be put into a mapping: {'; '.join(left_out[:5])}",
            hint="have the sensors publish plain values or JSON, or listen longer: --listen-s",
        )
    version = "" if broker.version == LEAST_VERSION else broker.version
    fields: dict[str, object] = {
        "user": broker.user,
        "version": version,
        "ca": broker.ca,
        "certificate": broker.certificate,
        "key": broker.key,
    }
    stated = {name: str(value) for name, value in fields.items() if value}
    source = {"mqtt": {"url": broker.url} | stated}
    return mapping_text.write(_HEAD, equipment, source, streams, left_out, kind=kind)


def _stream(
    topic: payload_kinds.TopicSignals, seen: TopicMessages, listened_s: float
) -> ProposedStream:
    """A stream of the signals of one topic, with the period that was measured."""
    intervals_s = [later - earlier for earlier, later in pairwise(seen.arrivals_s)]
    period = periods.measured(intervals_s, listened_s)
    stream = ProposedStream(signals=topic.signals, comments=[period.sentence, *topic.remarks])
    if seen.retained and not seen.arrivals_s:
        stream.comments.append(
            "only a retained message came: it is no sample unless `time` names its time stamp"
        )
    stream.fields["trigger"] = "timestamp"
    if period.period_s:
        stream.fields["period_s"] = period.period_s
    return stream


def quoted(payload: bytes) -> str:
    """The beginning of a payload as text, or in hexadecimal digits if it is none."""
    if payload_kinds.is_binary(payload):
        return f"{len(payload)} bytes that are no text: {payload[:16].hex(' ')}"
    text = payload[:MOST_QUOTED].decode(errors="replace")
    return text + ("…" if len(payload) > MOST_QUOTED else "")
