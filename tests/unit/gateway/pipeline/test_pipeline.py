"""What waits between link and spool, and how fresh it is."""

from pathlib import Path

import pytest

from broker.batch import GOOD, Gap
from broker.clock import NS_PER_S, SteppedClock
from broker.streams import StreamSpec, Trigger
from gateway.mapping import model
from gateway.monitoring import health
from gateway.pipeline.pipeline import Feed, Heard
from gateway.samples import Arrivals, Part
from gateway.spool.dropped_gaps import FAILED

EXAMPLE = model.read(
    (Path(__file__).parents[4] / "examples/pump-rig/mapping.yaml").read_text(), "m"
)
SPEC = EXAMPLE.streams[0].spec
S = NS_PER_S


def fed(clock: SteppedClock) -> Feed:
    return Feed(EXAMPLE, [SPEC], clock=clock, space="live", most_waiting=1_000)


def arrivals(*times_ns: int) -> Arrivals:
    return Arrivals.of(SPEC.dtypes, [(0, time_ns, 1.0, GOOD) for time_ns in times_ns])


async def test_what_the_spool_refused_again_and_again_is_one_hole_until_it_takes_it() -> None:
    clock = SteppedClock(100 * S)
    feed = fed(clock)
    signal = SPEC.names[0]
    await feed.gap(0, Gap((signal,), 1, 2, "server-overflow"))
    for second in range(50):
        await feed.take([Part(0, arrivals(second * S, second * S + 5))])
        feed.not_kept(feed.rest())
    ((_, batch),) = feed.rest()
    assert len(batch) == 0
    assert batch.gaps == (
        Gap((signal,), 1, 2, "server-overflow"),
        Gap((signal,), 0, 49 * S + 5, FAILED),
    )
    assert feed.causes == {"server-overflow": 1, FAILED: 50}
    assert feed.rest() == []


@pytest.mark.parametrize(("period_s", "patience_s"), [(0.1, 5.0), (1.0, 5.0), (10.0, 30.0)])
@pytest.mark.parametrize("trigger", list(Trigger))
async def test_a_silent_stream_is_stale_after_three_periods_or_five_seconds(
    period_s: float, patience_s: float, trigger: Trigger
) -> None:
    clock = SteppedClock(100 * S)
    spec = StreamSpec(SPEC.address, SPEC.signals, trigger=trigger, period_s=period_s)
    heard = Heard(sample_ns=clock.now_ns(), alive_ns=clock.now_ns())
    await clock.advance(patience_s)
    assert health.is_fresh(spec, heard, clock.now_ns())
    await clock.advance(0.001)
    assert not health.is_fresh(spec, heard, clock.now_ns())
    assert health.LOOK_S + 0.5 < 2  # told within two seconds


def test_a_stream_by_value_is_fresh_while_its_server_lives() -> None:
    heard = Heard(sample_ns=0, alive_ns=100 * S)
    by_value = StreamSpec(SPEC.address, SPEC.signals, trigger=Trigger.VALUE)
    by_time = StreamSpec(SPEC.address, SPEC.signals, trigger=Trigger.TIMESTAMP)
    assert health.is_fresh(by_value, heard, 101 * S)
    assert not health.is_fresh(by_time, heard, 101 * S)
