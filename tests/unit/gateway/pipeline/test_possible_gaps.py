"""Whether samples are missing at a break, whatever the source's clock did meanwhile."""

import pytest

from broker.batch import GOOD, Gap
from broker.clock import NS_PER_S
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec, Trigger
from gateway.links.port import PossibleGap
from gateway.pipeline.latest_samples import LatestSample
from gateway.pipeline.possible_gaps import PossibleGaps
from gateway.samples import Arrival, Samples, StreamSamples

S = NS_PER_S
SPEC = StreamSpec(
    StreamAddress("o", "e", "s"), (Signal("a"),), trigger=Trigger.TIMESTAMP, period_s=1.0
)
LAST = LatestSample(time_ns=100 * S, arrived_ns=0, newest_ns=100 * S, run_first_ns=100 * S + 1)
RESERVED_NS = 100 * S + 1
NOW = Arrival(now_ns=130 * S, monotonic_ns=30 * S)
CAUSE = "gateway-down"


def gaps() -> PossibleGaps:
    return PossibleGaps([SPEC], lambda _stream, _signal: RESERVED_NS)


def first(until_ns: int, **more: object) -> PossibleGap:
    return PossibleGap(stream=0, signal=0, until_ns=until_ns, **more)  # type: ignore[arg-type]


def samples(*times_ns: int) -> list[StreamSamples]:
    rows = [(0, time_ns, 1.0, GOOD) for time_ns in times_ns]
    return [StreamSamples(0, Samples.from_rows(SPEC.dtypes, rows))]


def between(first_ns: int, last_ns: int) -> Gap:
    return Gap(("a",), first_ns, last_ns, CAUSE)


@pytest.mark.parametrize(
    ("until_ns", "gap"),
    [
        (130 * S, between(100 * S + 1, 130 * S - 1)),
        (101 * S, None),  # none can be missing within a period
    ],
)
def test_a_gap_reaches_from_the_newest_stamp_to_the_first_after_it(
    until_ns: int, gap: Gap | None
) -> None:
    assert gaps().gap(first(until_ns), CAUSE, LAST, NOW) == gap


def test_a_stamp_far_ahead_before_the_break_hides_nothing() -> None:
    far = LAST._replace(time_ns=10_000 * S)
    gap = gaps().gap(first(130 * S), CAUSE, far, NOW)
    assert gap == between(100 * S + 1, 130 * S - 1)


def test_where_our_clock_is_behind_a_gap_begins_at_the_last_stamp() -> None:
    far = LAST._replace(time_ns=10_000 * S)
    gap = gaps().gap(first(10_020 * S), CAUSE, far, NOW)
    assert gap == between(10_000 * S + 1, 10_020 * S - 1)


def test_after_a_jump_ahead_the_samples_that_follow_decide_or_the_break_itself() -> None:
    for later_ns, at_ns, gap in (
        (131 * S, 31 * S, between(100 * S + 1, 131 * S - 1)),  # it was one stamp
        (10_001 * S, 41 * S, between(100 * S + 1, 130 * S)),  # the clock stays ahead
    ):
        possible = gaps()
        assert possible.gap(first(10_000 * S), CAUSE, LAST, NOW) is None
        assert possible.are_open
        assert list(possible.decide(samples(later_ns), at_ns)) == [(0, gap)]
        assert not possible.are_open


def test_after_a_step_back_a_gap_has_no_length() -> None:
    possible = gaps()
    assert possible.gap(first(50 * S), CAUSE, LAST, NOW) is None
    assert list(possible.decide(samples(51 * S), 31 * S)) == []
    assert list(possible.decide([], 41 * S)) == [(0, between(RESERVED_NS, RESERVED_NS))]


def test_what_a_subscription_repeats_is_no_gap_unless_the_clock_stands() -> None:
    possible = gaps()
    assert possible.gap(first(100 * S), CAUSE, LAST, NOW) is None
    assert list(possible.decide(samples(131 * S), 31 * S)) == []
    assert not possible.are_open
    standing = LAST._replace(run_first_ns=100 * S - 50, stands=True)
    gap = possible.gap(first(100 * S), CAUSE, standing, NOW)
    assert gap == between(RESERVED_NS, RESERVED_NS)


def test_a_loss_that_the_server_tells_of_is_a_gap_of_any_length() -> None:
    possible = gaps()
    reported = first(110 * S + 5, after_ns=110 * S, cause="server-overflow")
    assert possible.gap(reported, CAUSE, LAST, NOW) == between(110 * S + 1, 110 * S + 4)
    back = first(90 * S, after_ns=110 * S, cause="server-overflow")
    assert possible.gap(back, CAUSE, LAST, NOW) == between(RESERVED_NS, RESERVED_NS)


def test_a_signal_without_a_node_has_a_gap_until_now() -> None:
    gap = gaps().gap(first(10**18, is_unread=True), CAUSE, LAST, NOW)
    assert gap == between(100 * S + 1, 130 * S)


def test_what_is_open_at_the_end_is_stated() -> None:
    possible = gaps()
    possible.gap(first(50 * S), CAUSE, LAST, NOW)
    assert list(possible.close()) == [(0, between(RESERVED_NS, RESERVED_NS))]
    assert not possible.are_open
