"""Checks a mapping of MQTT sensors against the messages on its topics."""

from collections.abc import Iterator

from broker.batch import BAD
from broker.clock import WallClock
from broker.errors import Forbidden, Unavailable
from gateway.commissioning import findings, mqtt_browse, progress
from gateway.commissioning.findings import Finding
from gateway.commissioning.mqtt_browse import ReceivedTopics
from gateway.links.mqtt import payloads
from gateway.links.mqtt.link import signals_by_topic
from gateway.mapping.model import Mapping, MqttBroker

MOST_LISTEN_S = 30.0


async def check(mapping: Mapping, broker: MqttBroker, password: str) -> list[Finding]:
    """Listen to the topics of a mapping for three periods, and read each signal's value."""
    topics = tuple(signals_by_topic(mapping))
    period_s = max(stream.spec.period_s for stream in mapping.streams)
    seconds = min(max(progress.LISTEN_S, 3 * period_s), MOST_LISTEN_S)
    try:
        received = await mqtt_browse.listen(broker, password, topics, seconds)
    except (Unavailable, Forbidden) as exc:
        return [findings.error(str(exc))]
    return list(_findings(mapping, received, seconds))


def _findings(mapping: Mapping, received: ReceivedTopics, seconds: float) -> Iterator[Finding]:
    now_ns = WallClock().now_ns()
    for topic, signals in signals_by_topic(mapping).items():
        if topic not in received.topics:
            yield findings.warning(
                f"{topic}: it said nothing in {seconds:g} s; is it the right topic?"
            )
            continue
        payload, is_live = received.last_payloads[topic], received.are_live([topic])
        for stream, signal, source in signals:
            spec = mapping.streams[stream].spec
            name = f"{spec.address.stream}.{spec.names[signal]}"
            if not is_live and source.time is None:
                yield findings.warning(
                    f"{name}: only a retained message without a time came in {seconds:g} s: no"
                    " sample, until another one is published"
                )
            samples = payloads.read(payload, source, spec.dtypes[signal], now_ns)
            quoted = mqtt_browse.quoted(payload)
            if not samples:
                yield findings.warning(f"{name}: nothing stands at {source} in {quoted}")
            for sample in (each for each in samples[:1] if each.quality == BAD):
                yield findings.error(f"{name}: {sample.reason}: {quoted}")
