"""No two samples of a signal get one time stamp, whatever the source's clock does."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from broker.batch import Batch, Long, MayRepeat, Source
from broker.streams import Dtype
from gateway.pipeline.unique_timestamps import (
    NEVER,
    PlacedTimes,
    SignalOrder,
    UniqueTimestamps,
)
from gateway.spool.stamps import JOINED_NS, StreamStamps

SIGNALS = 2
AHEAD_NS = 100
"""A stamp further ahead of its arrival is far."""

stamps = st.one_of(
    st.integers(0, 30),
    st.integers(0, 5).map(lambda times: times * 2 * JOINED_NS),
    st.integers(0, 200).map(lambda ns: 3 * 2 * JOINED_NS + ns),
)
publishes = st.lists(
    st.lists(st.tuples(st.integers(0, SIGNALS - 1), stamps), min_size=1, max_size=8),
    min_size=1,
    max_size=12,
)
steps = st.lists(st.sampled_from([1, 20, JOINED_NS]), min_size=12, max_size=12)


@dataclass
class Recorder:
    """The time stamps that are used, and the choice of free ones for samples in doubt."""

    used: list[set[int]] = field(default_factory=lambda: [set() for _ in range(SIGNALS)])

    def take(self, signal: list[int], placed: PlacedTimes) -> None:
        rows = zip(signal, placed.time_ns.tolist(), placed.in_doubt.tolist(), strict=True)
        for own, time_ns, in_doubt in sorted(rows, key=lambda row: row[2]):  # those come last
            free_ns = time_ns
            while in_doubt and free_ns in self.used[own]:
                free_ns += 1
            assert free_ns not in self.used[own]
            self.used[own].add(free_ns)


def placed(timestamps: UniqueTimestamps, rows: list[tuple[int, int]], now_ns: int) -> PlacedTimes:
    """The placed samples of one publish, on the quick way where that can be."""
    signal = np.array([own for own, _ in rows], np.int32)
    time_ns = np.array([ns for _, ns in rows], np.int64)
    is_ahead = time_ns > now_ns + AHEAD_NS
    if not is_ahead.any() and timestamps.keeps(SignalOrder(signal), time_ns):
        return PlacedTimes(time_ns, np.zeros(len(rows), np.bool_))
    return timestamps.place(signal, time_ns, is_ahead)


def batch_of(signal: list[int], result: PlacedTimes) -> Batch:
    names, count = tuple(f"s{at}" for at in range(SIGNALS)), len(signal)
    frame = Long(
        result.time_ns,
        np.array(signal, np.int32),
        np.zeros(count),
        np.zeros(count, np.uint8),
        names,
        (Dtype.FLOAT64,) * SIGNALS,
    )
    repeats = MayRepeat.TIMES if result.in_doubt.any() else None
    return Batch(1, (frame,), Source.LIVE, may_repeat=repeats)


@given(publishes, steps, st.sets(st.integers(1, 11)))
@example([[(0, 4)], [(0, 5)], [(0, 4)], [(0, 6)]], [1] * 12, set())
def test_no_two_samples_of_a_signal_get_one_time_stamp(
    sent: list[list[tuple[int, int]]], passing_ns: list[int], restarts: set[int]
) -> None:
    """Over restarts of the gateway too, where the file knows the stamps of the stream."""
    timestamps = UniqueTimestamps(np.full(SIGNALS, NEVER, np.int64), {})
    recorder, stream, now_ns = Recorder(), StreamStamps(), 0
    for at, rows in enumerate(sent):
        now_ns += passing_ns[at]
        if at in restarts:
            newest_ns = NEVER if stream.greatest_ns is None else stream.greatest_ns
            ahead = dict.fromkeys(range(SIGNALS), stream.ahead)
            timestamps = UniqueTimestamps(np.full(SIGNALS, newest_ns, np.int64), ahead)
        signal = [own for own, _ in rows]
        result = placed(timestamps, rows, now_ns)
        recorder.take(signal, result)
        stream = stream.including(batch_of(signal, result), now_ns, AHEAD_NS)


@given(publishes)
def test_each_sample_keeps_its_time_or_gets_one_that_is_near(
    sent: list[list[tuple[int, int]]],
) -> None:
    timestamps = UniqueTimestamps(np.full(SIGNALS, NEVER, np.int64), {})
    count = 0
    for rows in sent:
        count += len(rows)
        result = placed(timestamps, rows, 2**62)
        moved_ns = result.time_ns - np.array([ns for _, ns in rows])
        assert not moved_ns[result.in_doubt].any()
        assert ((moved_ns >= 0) & (moved_ns <= count)).all()


def test_while_a_clock_stands_no_sample_is_in_doubt() -> None:
    timestamps = UniqueTimestamps(np.full(1, NEVER, np.int64), {})
    times = [placed(timestamps, [(0, 50)], 50) for _ in range(2_000)]
    assert not any(result.in_doubt.any() for result in times)
    assert [int(result.time_ns[0]) for result in times] == list(range(50, 2_050))


def test_one_stamp_of_the_next_century_leaves_what_follows_without_doubt() -> None:
    timestamps = UniqueTimestamps(np.full(1, NEVER, np.int64), {})
    results = [placed(timestamps, [(0, ns)], 1_000) for ns in (1_000, 2**61, 1_001, 1_002)]
    assert not any(result.in_doubt.any() for result in results)
    assert placed(timestamps, [(0, 2**61)], 1_003).in_doubt.all()
    assert placed(timestamps, [(0, 1_001)], 1_003).in_doubt.all()
