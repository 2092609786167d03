"""Stream health: publishes for each stream whether it is fresh or stale, and its alarms."""

from broker import messages
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.messages import Freshness, Health
from broker.namespace import StreamTopic, Verb
from broker.streams import StreamSpec, Trigger
from gateway.mapping.model import Mapping
from gateway.pipeline.pipeline import Pipeline, StreamActivity
from gateway.uplink.uplink import Uplink

LOOK_S = 0.5
PUBLISH_EVERY_NS = 3 * NS_PER_S
VALID_S = 5.0
"""A change is published at the next look; health without a change before it expires."""
LEAST_FRESH_S = 5.0


def patience_s(spec: StreamSpec) -> float:
    """Seconds that a stream may be silent and still be fresh: three periods, at least 5 s."""
    return max(3 * spec.period_s, LEAST_FRESH_S)


def is_fresh(spec: StreamSpec, activity: StreamActivity, monotonic_ns: int) -> bool:
    """Whether a stream had a sample in time, and each of its signals is read.

    With trigger `value` a keep-alive counts as a sample.
    """
    if activity.unread:
        return False
    by_time = spec.trigger is Trigger.TIMESTAMP
    last_ns = activity.sample_ns if by_time else activity.alive_ns
    patience_ns = round(patience_s(spec) * NS_PER_S)
    return last_ns is not None and monotonic_ns - last_ns <= patience_ns


async def publish(
    mapping: Mapping, pipeline: Pipeline, uplink: Uplink, bus: client.Bus, clock: Clock, space: str
) -> None:
    """Publish the health of each stream, retained, until cancelled."""
    published: dict[int, tuple[Health, int]] = {}
    while True:
        pipeline.check_source_clock()
        for index, stream in enumerate(mapping.streams):
            health = _health(mapping, pipeline, uplink, index, clock)
            monotonic_ns = clock.monotonic_ns()
            if index in published and not _is_due(health, monotonic_ns, *published[index]):
                continue
            topic = str(StreamTopic(space, Verb.HEALTH, stream.spec.address))
            try:
                await bus.submit(topic, messages.encode_health(health), retain=True)
            except Unavailable:
                break  # the bus logs it; readers see that valid_until has passed
            published[index] = (health, monotonic_ns)
        await clock.sleep(LOOK_S)


def _is_due(health: Health, monotonic_ns: int, published: Health, published_ns: int) -> bool:
    """Whether state or alarms changed since the last publication, or that one expires soon."""
    changed = (health.state, health.alarms) != (published.state, published.alarms)
    return changed or monotonic_ns - published_ns >= PUBLISH_EVERY_NS


def _health(
    mapping: Mapping, pipeline: Pipeline, uplink: Uplink, index: int, clock: Clock
) -> Health:
    activity, now_ns = pipeline.activity[index], clock.now_ns()
    alarms = pipeline.alarms.items()
    general = [sentence for subject, sentence in alarms if "/" not in subject]
    own = [sentence for subject, sentence in alarms if subject.startswith(f"{index}/")]
    if uplink.not_accepted:
        general.append(
            "batches were not accepted by the recorder for ten minutes: look at the dead letters"
        )
    fresh = is_fresh(mapping.streams[index].spec, activity, clock.monotonic_ns())
    return Health(
        state=Freshness.FRESH if fresh else Freshness.STALE,
        at_ns=now_ns,
        valid_until_ns=now_ns + round(VALID_S * NS_PER_S),
        last_ns=activity.newest_ns,
        alarms=(*general, *own),
    )
