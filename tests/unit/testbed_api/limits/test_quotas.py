"""What an organisation may ask for, and when it must wait."""

import asyncio
from collections.abc import Mapping

import pytest
import structlog

from broker.clock import HOUR_S, SteppedClock
from testbed_api.domain.errors import TooMany
from testbed_api.limits.quotas import BURST_S, QUIET_S, QuotaKind, Quotas, QuotaSettings

MOST = QuotaSettings(
    requests_per_s=2, anonymous_per_s=1, streams=3, points_per_s=100, connections=2
)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def limits(clock: SteppedClock) -> Quotas:
    return Quotas(clock, MOST)


def drained(limits: Quotas, organisation: str = "factory") -> None:
    for _ in range(2 * BURST_S):
        limits.request(organisation)


async def test_a_burst_is_let_through_and_then_the_rate(
    limits: Quotas, clock: SteppedClock
) -> None:
    drained(limits)
    with pytest.raises(TooMany, match="more than 2 requests/s") as refused:
        limits.request("factory")
    assert refused.value.wait_s == 1
    await clock.advance(1)
    limits.request("factory")
    limits.request("factory")
    with pytest.raises(TooMany):
        limits.request("factory")
    limits.request("company")  # another's are its own


async def test_after_a_long_rest_no_more_than_a_burst_is_there(
    limits: Quotas, clock: SteppedClock
) -> None:
    limits.request("factory")
    await clock.advance(10**6)
    drained(limits)
    with pytest.raises(TooMany):
        limits.request("factory")


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S, 100 * 365 * 24 * HOUR_S])
async def test_a_clock_that_is_set_gives_nothing_and_takes_nothing(
    limits: Quotas, clock: SteppedClock, step_s: float
) -> None:
    drained(limits)
    clock.set_wall(step_s)
    with pytest.raises(TooMany):
        limits.request("factory")
    await clock.advance(1)
    limits.request("factory")


async def test_what_was_read_is_paid_off_before_the_next_look(
    limits: Quotas, clock: SteppedClock
) -> None:
    limits.reading("factory")
    limits.read("factory", 1_500)  # 500 more than a burst: an answer is not cut off
    with pytest.raises(TooMany, match="100 samples/s") as refused:
        limits.reading("factory")
    assert refused.value.wait_s == 6
    await clock.advance(6)
    limits.reading("factory")


def test_addresses_without_a_credential_are_counted_one_by_one(limits: Quotas) -> None:
    for _ in range(BURST_S):
        limits.anonymous("10.0.0.1")
    with pytest.raises(TooMany, match="of one address"):
        limits.anonymous("10.0.0.1")
    limits.anonymous("10.0.0.2")
    assert limits.refused == {("", QuotaKind.ANONYMOUS): 1}


def test_streams_are_refused_where_there_are_enough(limits: Quotas) -> None:
    limits.registering("factory", 3)
    with pytest.raises(TooMany, match="3 streams"):
        limits.registering("factory", 4)


async def test_connections_are_counted_anew_before_one_is_refused() -> None:
    calls = 0

    async def connection_counts() -> Mapping[str, int]:
        nonlocal calls
        calls += 1
        return {"gateway": 1, "of-others": 7}

    async def principals() -> list[str]:
        return ["gateway", "fay"]

    clock = SteppedClock()
    limits = Quotas(clock, MOST, connection_counts)
    for _ in range(2):
        await limits.make_room("factory", principals)
        limits.entered("factory")
    assert calls == 0
    await limits.make_room("factory", principals)  # one of the two is gone
    assert calls == 1
    with limits.following("factory"), pytest.raises(TooMany, match="2 live connections"):
        await limits.make_room("factory", principals)
    assert calls == 1  # not twice in a second
    await clock.advance(1)
    await limits.make_room("factory", principals)
    assert limits.refused == {("factory", QuotaKind.CONNECTIONS): 1}


async def test_who_comes_in_while_connections_are_counted_waits_for_the_count(
    clock: SteppedClock,
) -> None:
    counted = asyncio.Event()

    async def principals() -> list[str]:
        return ["gateway"]

    async def connection_counts() -> dict[str, int]:
        await counted.wait()
        return {}  # all are gone, as after a broker's restart

    limits = Quotas(clock, MOST, connection_counts)
    for _ in range(MOST.connections):
        limits.entered("factory")
    async with asyncio.TaskGroup() as tasks:
        for number in range(MOST.connections):
            coming = limits.make_room("factory", principals)
            tasks.create_task(coming, name=f"client {number}")
        await clock.sleep(0)
        counted.set()
    assert not limits.refused


async def test_a_burst_of_refusals_is_one_line_and_every_one_is_counted(
    limits: Quotas, clock: SteppedClock
) -> None:
    drained(limits)
    with structlog.testing.capture_logs() as lines:
        for passed_ms in (0, 0, 1, 1, QUIET_S, QUIET_S + 1):
            await clock.advance(passed_ms / 1000)
            with pytest.raises(TooMany):
                limits.request("factory")
        assert len(lines) == 1
    assert limits.refused == {("factory", QuotaKind.REQUESTS): 6}
    assert lines[0] == {
        "event": "limit was reached",
        "log_level": "warning",
        "organisation": "factory",
        "what": QuotaKind.REQUESTS,
        "limit": "2 requests/s",
    }
    for passed_s, count in ((QUIET_S // 2, 0), (2 * QUIET_S, 1)):
        await clock.advance(passed_s)
        with structlog.testing.capture_logs() as lines:
            for _ in range(3 * BURST_S):
                try:
                    limits.request("factory")
                except TooMany:
                    continue
        assert len(lines) == count
