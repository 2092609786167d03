"""Keeps the newest health of every stream, and tells which streams are fresh now.

A health says for how long it is valid.  That time counts from its arrival, on the monotonic clock
of this process: so neither the publisher's wall clock nor the server's decides whether a stream is
fresh.  The stamps of the healths show how far the two clocks are apart, which is an alarm.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import structlog

from broker import messages, namespace
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Invalid
from broker.messages import Freshness, Health
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic, Verb

FILTER = f"{namespace.ROOT}/+/{Verb.HEALTH}/+/+/+"
MOST_VALID_NS = 60 * NS_PER_S
"""The longest that a health counts, whatever it says."""
WINDOW_NS = 30 * NS_PER_S
"""Healths of so long are compared to find the one that was on its way for the shortest time."""
SET_BACK_NS = NS_PER_S
"""Stamps that go back further than this are of a clock that was set back."""

Publisher = tuple[str, EquipmentAddress]
"""A space and the equipment that publishes in it."""

log = structlog.get_logger()


class PublisherClock:
    """The wall clock of a publisher against our monotonic one, as the stamps of its healths show.

    The difference between a stamp and its arrival is the difference of the clocks and the time on
    the way; the smallest of the last 30 s has the least of the latter.
    """

    def __init__(self) -> None:
        self._stamp_ns = 0
        self._lags: deque[tuple[int, int]] = deque()
        """(arrival, arrival - stamp) of healths, each with a greater lag than all before it."""

    def take(self, stamp_ns: int, arrived_ns: int) -> int:
        """Take the stamp of a health; returns how much longer than the quickest it was on its way.

        arrived_ns: monotonic.
        """
        if stamp_ns < self._stamp_ns - SET_BACK_NS:
            self._lags.clear()
        self._stamp_ns = stamp_ns
        while self._lags and self._lags[0][0] < arrived_ns - WINDOW_NS:
            self._lags.popleft()
        lag_ns = arrived_ns - stamp_ns
        while self._lags and self._lags[-1][1] >= lag_ns:
            self._lags.pop()
        self._lags.append((arrived_ns, lag_ns))
        return lag_ns - self._lags[0][1]

    def behind_ns(self, clock: Clock) -> int:
        """By how much it is behind the wall time of a clock, negative if it is ahead."""
        least_ns = self._lags[0][1]
        return least_ns + clock.now_ns() - clock.monotonic_ns()


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A health, and until when it counts, in monotonic time."""

    health: Health
    until_ns: int


class FreshnessTracker:
    """The newest health of every stream in every space."""

    def __init__(self, clock: Clock, *, alarm_s: float = 5.0) -> None:
        """alarm_s: a publisher whose clock differs by more has an alarm on each of its streams."""
        self._clock = clock
        self._alarm_ns = round(alarm_s * NS_PER_S)
        self._arrivals: dict[StreamAddress, dict[str, _Arrival]] = defaultdict(dict)
        self._clocks: dict[Publisher, PublisherClock] = defaultdict(PublisherClock)

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
                self.take(topic.space, topic.address, health, retained=message.retained)
        except (Corrupt, Invalid) as exc:
            log.info("health was not understood", topic=message.topic[:200], reason=str(exc))

    def take(
        self, space: str, address: StreamAddress, health: Health, *, retained: bool = False
    ) -> None:
        """Take a health that has just arrived.

        retained: the broker kept it, nobody knows for how long; its own times say at least when it
        is over.
        """
        arrivals, now_ns = self._arrivals[address], self._clock.monotonic_ns()
        valid_ns = min(health.valid_until_ns - health.at_ns, MOST_VALID_NS)
        if not retained:
            valid_ns -= self._clocks[space, address.owner].take(health.at_ns, now_ns)
        elif space in arrivals and arrivals[space].health == health:
            return  # it arrived before: how long ago is known
        else:
            valid_ns = min(valid_ns, health.valid_until_ns - self._clock.now_ns())
        arrivals[space] = _Arrival(health, now_ns + valid_ns)

    def everything(self) -> Iterator[tuple[StreamAddress, Mapping[str, tuple[Freshness, Health]]]]:
        """Every stream that a publisher has sent a health of, as `of` gives it."""
        for address in list(self._arrivals):
            yield address, self.of(address)

    def of(self, address: StreamAddress) -> Mapping[str, tuple[Freshness, Health]]:
        """The state and health of a stream by space, with an alarm if its clock is wrong."""
        now_ns = self._clock.monotonic_ns()
        return {
            space: (
                Freshness.STALE if arrival.until_ns < now_ns else arrival.health.state,
                self._with_alarm((space, address.owner), arrival.health),
            )
            for space, arrival in self._arrivals.get(address, {}).items()
        }

    def silent_gateways(self) -> Mapping[tuple[str, EquipmentAddress], int]:
        """The gateways none of whose healths counts any more, by space and equipment.

        The value is the instant until which the last of them counted, ns since 1970 by the
        server's clock.
        """
        ends: dict[Publisher, int] = {}
        for address, spaces in self._arrivals.items():
            for space, arrival in spaces.items():
                gateway = (space, address.owner)
                ends[gateway] = max(arrival.until_ns, ends.get(gateway, arrival.until_ns))
        now_ns = self._clock.monotonic_ns()
        return {
            gateway: self._clock.now_ns() - (now_ns - until_ns)
            for gateway, until_ns in ends.items()
            if until_ns < now_ns
        }

    def clock_offsets(self) -> Iterator[tuple[Publisher, float]]:
        """By how many seconds each publisher's clock is ahead of the server's."""
        for publisher, publisher_clock in list(self._clocks.items()):
            yield publisher, -publisher_clock.behind_ns(self._clock) / NS_PER_S

    def _with_alarm(self, publisher: Publisher, health: Health) -> Health:
        if publisher not in self._clocks:
            return health
        behind_ns = self._clocks[publisher].behind_ns(self._clock)
        if abs(behind_ns) <= self._alarm_ns:
            return health
        direction = "behind" if behind_ns > 0 else "ahead of"
        sentence = (
            f"the clock of its gateway is {abs(behind_ns) / NS_PER_S:,.1f} s {direction} the"
            " server's"
        )
        return replace(health, alarms=(*health.alarms, sentence))
