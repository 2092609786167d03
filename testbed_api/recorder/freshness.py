"""Keeps the newest health of every stream, and tells which streams are fresh now."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import structlog

from broker import messages, namespace
from broker.bus import client
from broker.clock import Clock
from broker.errors import Corrupt, Invalid
from broker.messages import Freshness, Health
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic, Verb

FILTER = f"{namespace.ROOT}/+/{Verb.HEALTH}/+/+/+"

log = structlog.get_logger()


class FreshnessTracker:
    """The newest health of every stream in every space."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._healths: dict[StreamAddress, dict[str, Health]] = defaultdict(dict)

    async def follow(self, bus: client.Bus) -> None:
        """Receive the healths that publishers send, until cancelled."""
        async with bus.subscribe([FILTER], capacity=1_000, overflow="drop_oldest") as inbox:
            async for message in inbox:
                self._take(message)
                inbox.ack(message)

    def _take(self, message: client.Message) -> None:
        try:
            topic = namespace.parse(message.topic)
            if isinstance(topic, StreamTopic):
                health = messages.decode_health(message.payload)
                self._healths[topic.address][topic.space] = health
        except (Corrupt, Invalid) as exc:
            log.info("health was not understood", topic=message.topic[:200], reason=str(exc))

    def everything(self) -> Iterator[tuple[StreamAddress, Mapping[str, tuple[Freshness, Health]]]]:
        """Every stream that a publisher has sent a health of, as `of` gives it."""
        for address in list(self._healths):
            yield address, self.of(address)

    def of(self, address: StreamAddress) -> Mapping[str, tuple[Freshness, Health]]:
        """The state and health of a stream by space; after `valid_until` a stream is stale."""
        now_ns = self._clock.now_ns()
        return {
            space: (Freshness.STALE if health.valid_until_ns < now_ns else health.state, health)
            for space, health in self._healths.get(address, {}).items()
        }

    def silent_gateways(self) -> Mapping[tuple[str, EquipmentAddress], int]:
        """The gateways none of whose healths is valid any more, by space and equipment.

        The value is the instant until which the last of them was valid, ns since 1970.
        """
        ends: dict[tuple[str, EquipmentAddress], int] = {}
        for address, spaces in self._healths.items():
            for space, health in spaces.items():
                gateway = (space, address.owner)
                ends[gateway] = max(health.valid_until_ns, ends.get(gateway, health.valid_until_ns))
        now_ns = self._clock.now_ns()
        return {gateway: until_ns for gateway, until_ns in ends.items() if until_ns < now_ns}
