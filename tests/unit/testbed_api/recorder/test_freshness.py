"""How long a health counts, whatever the clocks of its publisher and of the server say."""

import pytest

from broker.clock import HOUR_S, NS_PER_S, SteppedClock
from broker.messages import Freshness, Health
from broker.namespace import StreamAddress
from testbed_api.recorder import freshness
from testbed_api.recorder.freshness import FreshnessTracker

STREAM = StreamAddress("o", "e", "s")
OTHER = StreamAddress("o", "e", "t")
NOON_NS = 1_700_000_000 * NS_PER_S
VALID_S = 5


class Publisher:
    """A gateway on the same monotonic time whose wall clock is ahead by so many seconds."""

    def __init__(self, server: SteppedClock, ahead_s: float) -> None:
        self._server = server
        self.ahead_s = ahead_s

    def health(self, valid_s: float = VALID_S, *, age_s: float = 0.0) -> Health:
        passed_s = self.ahead_s - age_s
        at_ns = NOON_NS + self._server.monotonic_ns() + round(passed_s * NS_PER_S)
        until_ns = at_ns + round(valid_s * NS_PER_S)
        return Health(state=Freshness.FRESH, at_ns=at_ns, valid_until_ns=until_ns)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock(NOON_NS)


@pytest.fixture
def tracker(clock: SteppedClock) -> FreshnessTracker:
    return FreshnessTracker(clock, alarm_s=5.0)


def state(tracker: FreshnessTracker, stream: StreamAddress = STREAM) -> Freshness:
    return tracker.of(stream)["live"][0]


def alarms(tracker: FreshnessTracker) -> tuple[str, ...]:
    return tracker.of(STREAM)["live"][1].alarms


CLOCKS = pytest.mark.parametrize("ahead_s", [0, HOUR_S, -HOUR_S, 100 * 366 * 24 * HOUR_S])


@CLOCKS
async def test_a_dead_gateway_is_stale_in_its_time(
    clock: SteppedClock, tracker: FreshnessTracker, ahead_s: float
) -> None:
    tracker.take("live", STREAM, Publisher(clock, ahead_s).health())
    await clock.advance(VALID_S)
    assert state(tracker) is Freshness.FRESH
    await clock.advance(0.001)
    assert state(tracker) is Freshness.STALE


@CLOCKS
@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_stream_is_fresh_while_healths_come_whoever_sets_a_clock(
    clock: SteppedClock, tracker: FreshnessTracker, ahead_s: float, step_s: float
) -> None:
    publisher = Publisher(clock, ahead_s)
    for second in range(0, 120, 3):
        if second == 60:
            clock.set_wall(step_s)
        if second == 90:
            publisher.ahead_s -= step_s
        tracker.take("live", STREAM, publisher.health())
        await clock.advance(2.999)
        assert state(tracker) is Freshness.FRESH
        await clock.advance(0.001)


async def test_a_health_that_was_long_on_its_way_counts_from_when_it_was_sent(
    clock: SteppedClock, tracker: FreshnessTracker
) -> None:
    publisher = Publisher(clock, HOUR_S)
    tracker.take("live", STREAM, publisher.health())
    await clock.advance(20)
    tracker.take("live", STREAM, publisher.health(age_s=VALID_S + 1))  # the broker stood still
    assert state(tracker) is Freshness.STALE
    tracker.take("live", STREAM, publisher.health(age_s=VALID_S - 1))
    assert state(tracker) is Freshness.FRESH
    await clock.advance(1.001)
    assert state(tracker) is Freshness.STALE


@pytest.mark.parametrize(
    ("ahead_s", "age_s", "fresh_s"),
    [(0, 1, VALID_S - 1), (0, 60, 0), (HOUR_S, 60, VALID_S), (-HOUR_S, 0, 0)],
)
async def test_a_retained_health_counts_no_longer_than_its_own_times_say(
    clock: SteppedClock, tracker: FreshnessTracker, ahead_s: float, age_s: float, fresh_s: float
) -> None:
    retained = Publisher(clock, ahead_s).health(age_s=age_s)
    tracker.take("live", STREAM, retained, retained=True)
    if fresh_s:
        await clock.advance(fresh_s)
        assert state(tracker) is Freshness.FRESH
    await clock.advance(0.001)
    assert state(tracker) is Freshness.STALE
    assert not list(tracker.clock_offsets())  # its age is unknown: it says nothing of the clock


async def test_a_health_that_comes_again_at_a_reconnect_is_no_news(
    clock: SteppedClock, tracker: FreshnessTracker
) -> None:
    health = Publisher(clock, 0).health(valid_s=30)
    tracker.take("live", STREAM, health)
    await clock.advance(20)
    clock.set_wall(-HOUR_S)
    tracker.take("live", STREAM, health, retained=True)
    await clock.advance(10.001)
    assert state(tracker) is Freshness.STALE


async def test_no_health_counts_for_longer_than_a_minute(
    clock: SteppedClock, tracker: FreshnessTracker
) -> None:
    tracker.take("live", STREAM, Publisher(clock, 0).health(valid_s=10**6))
    await clock.advance(freshness.MOST_VALID_NS / NS_PER_S + 0.001)
    assert state(tracker) is Freshness.STALE


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [
        (0, None),
        (4.9, None),
        (5.1, "5.1 s ahead of the server's"),
        (-3_600, "3,600.0 s behind the server's"),
    ],
)
def test_a_clock_that_differs_is_an_alarm_with_its_size(
    clock: SteppedClock, tracker: FreshnessTracker, ahead_s: float, words: str | None
) -> None:
    publisher = Publisher(clock, ahead_s)
    for late_s in (3.0, 0.0, 7.0):  # the quickest tells
        tracker.take("live", STREAM, publisher.health(age_s=late_s))
    tracker.take("live", OTHER, publisher.health())
    assert [words in each for each in alarms(tracker)] == ([True] if words else [])
    ((publisher_name, measured_s),) = tracker.clock_offsets()
    assert publisher_name == ("live", STREAM.owner)
    assert measured_s == pytest.approx(ahead_s)


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_step_of_either_clock_is_seen_within_a_minute(
    clock: SteppedClock, tracker: FreshnessTracker, step_s: float
) -> None:
    publisher = Publisher(clock, 0)
    for second in range(0, 63, 3):
        if second == 3:
            publisher.ahead_s = step_s
        tracker.take("live", STREAM, publisher.health())
        await clock.advance(3)
    assert alarms(tracker)
    clock.set_wall(step_s)  # now both
    assert not alarms(tracker)
