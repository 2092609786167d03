"""How fresh each stream is, told on the bus: a silent one is stale for everybody."""

from broker import messages
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.messages import Freshness, Health
from broker.namespace import StreamTopic, Verb
from broker.streams import StreamSpec, Trigger
from gateway.mapping.model import Mapping
from gateway.pipeline.pipeline import Feed, Heard
from gateway.uplink import Uplink

LOOK_S = 0.5
TOLD_EVERY_NS = 3 * NS_PER_S
VALID_S = 5.0
"""What changes is told when it is seen; the rest so often, well before it runs out."""
LEAST_FRESH_S = 5.0


def patience_s(spec: StreamSpec) -> float:
    """For how long a stream may be silent and still be fresh."""
    return max(3 * spec.period_s, LEAST_FRESH_S)


def is_fresh(spec: StreamSpec, heard: Heard, now_ns: int) -> bool:
    """Whether a stream has been heard of lately: by a sample, or by value any sign of life."""
    heard_ns = heard.sample_ns if spec.trigger is Trigger.TIMESTAMP else heard.alive_ns
    return now_ns - heard_ns <= round(patience_s(spec) * NS_PER_S)


async def tell(
    mapping: Mapping, feed: Feed, uplink: Uplink, bus: client.Bus, clock: Clock, space: str
) -> None:
    """Say it, retained, until cancelled: what changed at once, all before it runs out."""
    told: dict[int, Health] = {}
    while True:
        for index, stream in enumerate(mapping.streams):
            health = _health(mapping, feed, uplink, index, clock)
            if index in told and not _is_news(health, told[index]):
                continue
            topic = str(StreamTopic(space, Verb.HEALTH, stream.spec.address))
            try:
                await bus.submit(topic, messages.encode_health(health), retain=True)
            except Unavailable:
                break  # said by the bus itself; valid_until tells the readers
            told[index] = health
        await clock.sleep(LOOK_S)


def _is_news(health: Health, told: Health) -> bool:
    """Whether it differs from what was told, or that will run out before long."""
    return (health.state, health.alarms) != (
        told.state,
        told.alarms,
    ) or health.valid_until_ns - told.valid_until_ns >= TOLD_EVERY_NS


def _health(mapping: Mapping, feed: Feed, uplink: Uplink, index: int, clock: Clock) -> Health:
    known, now_ns = feed.heard_of[index], clock.now_ns()
    general = [sentence for subject, sentence in feed.alarms.items() if "/" not in subject]
    own = [sentence for subject, sentence in feed.alarms.items() if subject.startswith(f"{index}/")]
    if uplink.not_accepted:
        general.append(
            "batches were not accepted by the recorder for ten minutes: look at the dead letters"
        )
    fresh = is_fresh(mapping.streams[index].spec, known, now_ns)
    return Health(
        Freshness.FRESH if fresh else Freshness.STALE,
        valid_until_ns=now_ns + round(VALID_S * NS_PER_S),
        last_ns=known.newest_ns,
        alarms=(*general, *own),
    )
