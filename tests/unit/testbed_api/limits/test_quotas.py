"""What an organisation may ask for, and when it must wait."""

from collections.abc import Mapping

import pytest
import structlog

from broker.clock import NS_PER_S
from testbed_api.domain.errors import TooMany
from testbed_api.limits.quotas import BURST_S, QUIET_S, QuotaKind, Quotas, QuotaSettings

MOST = QuotaSettings(
    requests_per_s=2, anonymous_per_s=1, streams=3, points_per_s=100, connections=2
)
NOW = 1_700_000_000 * NS_PER_S


@pytest.fixture
def limits() -> Quotas:
    return Quotas(MOST)


def drained(limits: Quotas, organisation: str = "factory") -> None:
    for _ in range(2 * BURST_S):
        limits.request(organisation, NOW)


def test_a_burst_is_let_through_and_then_the_rate(limits: Quotas) -> None:
    drained(limits)
    with pytest.raises(TooMany, match="more than 2 requests/s") as refused:
        limits.request("factory", NOW)
    assert refused.value.wait_s == 1
    limits.request("factory", NOW + NS_PER_S)
    limits.request("factory", NOW + NS_PER_S)
    with pytest.raises(TooMany):
        limits.request("factory", NOW + NS_PER_S)
    limits.request("company", NOW)  # another's are its own


def test_after_a_long_rest_no_more_than_a_burst_is_there(limits: Quotas) -> None:
    limits.request("factory", NOW - 10**6 * NS_PER_S)
    drained(limits)
    with pytest.raises(TooMany):
        limits.request("factory", NOW)


def test_a_clock_that_goes_back_gives_nothing(limits: Quotas) -> None:
    drained(limits)
    with pytest.raises(TooMany):
        limits.request("factory", NOW - 100 * NS_PER_S)
    limits.request("factory", NOW + NS_PER_S)


def test_what_was_read_is_paid_off_before_the_next_look(limits: Quotas) -> None:
    limits.reading("factory", NOW)
    limits.read("factory", 1_500, NOW)  # 500 more than a burst: an answer is not cut off
    with pytest.raises(TooMany, match="100 samples/s") as refused:
        limits.reading("factory", NOW)
    assert refused.value.wait_s == 6
    limits.reading("factory", NOW + 6 * NS_PER_S)


def test_addresses_without_a_credential_are_counted_one_by_one(limits: Quotas) -> None:
    for _ in range(BURST_S):
        limits.anonymous("10.0.0.1", NOW)
    with pytest.raises(TooMany, match="of one address"):
        limits.anonymous("10.0.0.1", NOW)
    limits.anonymous("10.0.0.2", NOW)
    assert limits.refused == {("", QuotaKind.ANONYMOUS): 1}


def test_streams_are_refused_where_there_are_enough(limits: Quotas) -> None:
    limits.registering("factory", 3, NOW)
    with pytest.raises(TooMany, match="3 streams"):
        limits.registering("factory", 4, NOW)


async def test_connections_are_counted_anew_before_one_is_refused() -> None:
    calls = 0

    async def connection_counts() -> Mapping[str, int]:
        nonlocal calls
        calls += 1
        return {"gateway": 1, "of-others": 7}

    async def principals() -> list[str]:
        return ["gateway", "fay"]

    limits = Quotas(MOST, connection_counts)
    for _ in range(2):
        await limits.make_room("factory", principals, NOW)
        limits.entered("factory")
    assert calls == 0
    await limits.make_room("factory", principals, NOW)  # one of the two is gone
    assert calls == 1
    with limits.following("factory"), pytest.raises(TooMany, match="2 live connections"):
        await limits.make_room("factory", principals, NOW)
    assert calls == 1  # not twice in a second
    await limits.make_room("factory", principals, NOW + NS_PER_S)
    assert limits.refused == {("factory", QuotaKind.CONNECTIONS): 1}


def test_a_burst_of_refusals_is_one_line_and_every_one_is_counted(limits: Quotas) -> None:
    drained(limits)
    with structlog.testing.capture_logs() as lines:
        for at in (0, 0, 1, 2, 2 + QUIET_S, 3 + 2 * QUIET_S):
            now_ns = NOW + at * NS_PER_S // 1000
            with pytest.raises(TooMany):
                limits.request("factory", now_ns)
        assert len(lines) == 1
    assert limits.refused == {("factory", QuotaKind.REQUESTS): 6}
    assert lines[0] == {
        "event": "limit was reached",
        "log_level": "warning",
        "organisation": "factory",
        "what": QuotaKind.REQUESTS,
        "limit": "2 requests/s",
    }
    for later_s, count in ((QUIET_S // 2, 0), (2 * QUIET_S, 1)):
        with structlog.testing.capture_logs() as lines:
            for _ in range(3 * BURST_S):
                try:
                    limits.request("factory", NOW + later_s * NS_PER_S)
                except TooMany:
                    continue
        assert len(lines) == count
