"""Batches that wait between link and spool, and the freshness of streams."""

from pathlib import Path

import pytest

from broker.batch import GOOD, Gap
from broker.clock import NS_PER_S, SteppedClock
from broker.streams import StreamSpec, Trigger
from gateway.links.port import UNREADABLE, PossibleGap
from gateway.mapping import file as mapping_file
from gateway.monitoring import health
from gateway.pipeline.pipeline import GATEWAY_DOWN, SPOOL_LOST, Pipeline, StreamActivity
from gateway.samples import Samples, StreamSamples
from gateway.spool.dropped_gaps import FAILED
from gateway.spool.stamps import StreamStamps

EXAMPLE = mapping_file.read(
    (Path(__file__).parents[4] / "examples/pump-rig/mapping.yaml").read_text(), "m"
)
SPEC = EXAMPLE.streams[0].spec
S = NS_PER_S


def built(clock: SteppedClock) -> Pipeline:
    return Pipeline(EXAMPLE, [SPEC], clock=clock, space="live", most_waiting=1_000)


def samples(*times_ns: int) -> Samples:
    return Samples.from_rows(SPEC.dtypes, [(0, time_ns, 1.0, GOOD) for time_ns in times_ns])


async def test_the_newest_sample_of_an_earlier_process_counts_until_there_is_another() -> None:
    clock = SteppedClock(100 * S)
    pipeline = Pipeline(
        EXAMPLE,
        [SPEC],
        clock=clock,
        space="live",
        most_waiting=1_000,
        stamps=[StreamStamps(last_ns=7 * S, greatest_ns=7 * S)],
    )
    assert pipeline.activity[0].newest_ns == 7 * S
    assert not health.is_fresh(SPEC, pipeline.activity[0], clock.monotonic_ns())
    await pipeline.take([StreamSamples(0, samples(9 * S))])
    assert pipeline.activity[0].newest_ns == 9 * S


async def test_what_the_spool_refused_again_and_again_is_one_gap_until_it_takes_it() -> None:
    clock = SteppedClock(100 * S)
    pipeline = built(clock)
    signal = SPEC.names[0]
    pipeline.gap(0, Gap((signal,), 1, 2, "server-overflow"))
    for second in range(50):
        await pipeline.take([StreamSamples(0, samples(second * S, second * S + 5))])
        pipeline.state_unspooled(pipeline.remaining())
    ((_, batch),) = pipeline.remaining()
    assert len(batch) == 0
    assert batch.gaps == (
        Gap((signal,), 1, 2, "server-overflow"),
        Gap((signal,), 0, 49 * S + 5, FAILED),
    )
    assert pipeline.gap_counts == {"server-overflow": 1, FAILED: 50}
    assert pipeline.remaining() == []


@pytest.mark.parametrize(("lost", "cause"), [(set(), GATEWAY_DOWN), ({0}, SPOOL_LOST)])
async def test_the_gap_before_the_first_sample_says_where_the_spool_was_lost(
    lost: set[int], cause: str
) -> None:
    pipeline = built(SteppedClock(100 * S))
    pipeline.lost = lost
    signal, other = SPEC.names[0], "source-unreachable"
    for after_ns, of_break in ((0, GATEWAY_DOWN), (4, other)):
        possible = PossibleGap(stream=0, signal=0, after_ns=after_ns, until_ns=after_ns + 3)
        await pipeline.possible_gap(possible, of_break)
    ((_, batch),) = pipeline.remaining()
    assert batch.gaps == (Gap((signal,), 1, 2, cause), Gap((signal,), 5, 6, other))


async def test_a_stream_is_stale_while_one_of_its_signals_is_not_read() -> None:
    clock = SteppedClock(100 * S)
    pipeline = built(clock)
    await pipeline.take([StreamSamples(0, samples(100 * S))])

    def is_fresh() -> bool:
        return health.is_fresh(SPEC, pipeline.activity[0], clock.monotonic_ns())

    pipeline.alive([0])
    assert is_fresh()
    unread = PossibleGap(
        stream=0,
        signal=2,
        since_ns=90 * S,
        until_ns=99 * S,
        cause="node-unreadable",
        is_unread=True,
    )
    await pipeline.possible_gap(unread, UNREADABLE)
    assert not is_fresh()
    await pipeline.possible_gap(PossibleGap(stream=0, signal=1, until_ns=100 * S), GATEWAY_DOWN)
    assert not is_fresh()
    await pipeline.possible_gap(PossibleGap(stream=0, signal=2, until_ns=100 * S), GATEWAY_DOWN)
    assert is_fresh()


@pytest.mark.parametrize(("period_s", "patience_s"), [(0.1, 5.0), (1.0, 5.0), (10.0, 30.0)])
@pytest.mark.parametrize("trigger", list(Trigger))
async def test_a_silent_stream_is_stale_after_three_periods_or_five_seconds(
    period_s: float, patience_s: float, trigger: Trigger
) -> None:
    clock = SteppedClock(100 * S)
    spec = StreamSpec(SPEC.address, SPEC.signals, trigger=trigger, period_s=period_s)
    activity = StreamActivity(sample_ns=clock.monotonic_ns(), alive_ns=clock.monotonic_ns())
    clock.set_wall(-3_600)
    await clock.advance(patience_s)
    assert health.is_fresh(spec, activity, clock.monotonic_ns())
    clock.set_wall(-3_600)
    await clock.advance(0.001)
    assert not health.is_fresh(spec, activity, clock.monotonic_ns())
    assert health.LOOK_S + 0.5 < 2  # told within two seconds


def test_a_stream_by_value_is_fresh_while_its_server_lives() -> None:
    activity = StreamActivity(sample_ns=0, alive_ns=100 * S)
    by_value = StreamSpec(SPEC.address, SPEC.signals, trigger=Trigger.VALUE)
    by_time = StreamSpec(SPEC.address, SPEC.signals, trigger=Trigger.TIMESTAMP)
    assert health.is_fresh(by_value, activity, 101 * S)
    assert not health.is_fresh(by_time, activity, 101 * S)
