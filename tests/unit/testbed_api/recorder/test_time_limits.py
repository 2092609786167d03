"""How far from its arrival a sample may lie to be stored."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from broker import codec
from broker.batch import Batch, EquipmentKind, Wide, source_of
from broker.bus.inbox import Message
from broker.clock import DAY_NS, NS_PER_S
from broker.namespace import StreamAddress
from broker.streams import MOST_LIMIT_S, Signal, StreamSpec
from testbed_api.recorder import classify, time_limits
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import Lookups, WaitLimits
from testbed_api.recorder.flush import Flush, FlushTime, ReceivedMessage
from testbed_api.recorder.placement_ledger import Placements
from testbed_api.recorder.time_limits import MOST_WEEKS, WEEK_NS, KnownWeeks, RunWeeks

STREAM = StreamAddress("o", "e", "s")
RUN = "run-a"
SPEC = StreamSpec(STREAM, (Signal("a"), Signal("b")))
NOW_NS = 1_700_000_000 * NS_PER_S
CENTURY_NS = 100 * 366 * DAY_NS


def message(seq: int, times_ns: Sequence[int], space: str = "live") -> ReceivedMessage:
    values = np.arange(len(times_ns), dtype=np.float64) + 0.5
    frame = Wide(np.array(times_ns, np.int64), {"a": values, "b": -values})
    source = source_of(EquipmentKind.REAL, space)
    batch = Batch(1, (frame,), source, epoch="epoch", seq=seq)
    return recorder_flush.read(Message(f"tb1/{space}/data/{STREAM}", codec.encode(batch)), 0)


def flushed(
    *messages: ReceivedMessage,
    spec: StreamSpec = SPEC,
    now_ns: int = NOW_NS,
    steady_ns: int = NOW_NS,
    run_weeks: RunWeeks | None = None,
) -> Flush:
    specs = {(space, STREAM, 1): spec for space in ("live", RUN)}
    lookups = Lookups(specs, {STREAM.owner: EquipmentKind.REAL}, {})
    time = FlushTime(now_ns, steady_ns, monotonic_ns=0)
    flush = classify.classify(
        messages,
        lookups,
        placements=Placements(),
        time=time,
        limits=WaitLimits(100, 2, 10**6, 10**6),
    )
    time_limits.enforce(flush, defaultdict(set) if run_weeks is None else run_weeks)
    return flush


def stored(flush: Flush) -> list[int]:
    times: set[int] = set()
    for block in flush.blocks:
        for _, series in block.series():
            times |= set(series.time_ns.tolist())
    return sorted(times)


def test_samples_beyond_the_limits_are_dead_letters_and_the_others_are_stored() -> None:
    first_ns, last_ns = NOW_NS - 30 * DAY_NS, NOW_NS + DAY_NS
    flush = flushed(
        message(1, [first_ns - 1, first_ns, NOW_NS]),
        message(2, [NOW_NS + 1, last_ns, last_ns + 1]),
        message(3, [NOW_NS + 2]),
    )
    assert stored(flush) == [first_ns, NOW_NS, NOW_NS + 1, NOW_NS + 2, last_ns]
    letters = [(letter.seq, letter.signal, letter.time_ns) for letter in flush.entries.dead_letters]
    assert letters == [
        (seq, name, time_ns)
        for seq, time_ns in ((1, first_ns - 1), (2, last_ns + 1))
        for name in "ab"
    ]
    assert "takes 30 days before and 1 days after" in flush.entries.dead_letters[0].reason
    assert flush.entries.dead_letters[0].value == "0.5"
    ((_, seqs),) = flush.seqs.items()
    assert seqs == {1, 2, 3}  # all are settled
    sizes = [size for _, messages in flush.origins for _, size in messages]
    assert sum(sizes) == sum(len(frame.time_ns) for block in flush.blocks for frame in block.frames)


def test_a_message_of_many_such_samples_is_one_letter_as_a_whole() -> None:
    far = [NOW_NS - CENTURY_NS + at for at in range(time_limits.MOST_LETTERS)]
    sent = message(1, [*far, NOW_NS])
    flush = flushed(sent)
    assert stored(flush) == [NOW_NS]
    (letter,) = flush.entries.dead_letters
    assert letter.payload == sent.message.payload
    assert "40 of its 42 samples are not stored" in letter.reason


def test_the_limits_are_those_of_the_stream() -> None:
    wide = StreamSpec(STREAM, SPEC.signals, past_limit_s=MOST_LIMIT_S, future_limit_s=1.0)
    flush = flushed(message(1, [NOW_NS - 3_650 * DAY_NS, NOW_NS + 2 * NS_PER_S]), spec=wide)
    assert stored(flush) == [NOW_NS - 3_650 * DAY_NS]


@pytest.mark.parametrize("step_ns", [-CENTURY_NS, -40 * DAY_NS, 40 * DAY_NS, CENTURY_NS])
def test_a_clock_of_the_server_that_is_set_makes_no_good_sample_a_dead_letter(step_ns: int) -> None:
    for clocks in ({"now_ns": NOW_NS + step_ns}, {"steady_ns": NOW_NS + step_ns}):
        flush = flushed(message(1, [NOW_NS - DAY_NS, NOW_NS]), **clocks)
        assert stored(flush) == [NOW_NS - DAY_NS, NOW_NS]
        assert not flush.entries.dead_letters


def test_what_lies_between_a_clock_and_what_it_was_set_from_is_not_wanted() -> None:
    """A computer without a battery starts in 1970, and its clock is set a little later."""
    times = [20 * DAY_NS, NOW_NS - CENTURY_NS // 4, NOW_NS]
    flush = flushed(message(1, times), steady_ns=60 * NS_PER_S)
    assert stored(flush) == [NOW_NS]
    assert {letter.time_ns for letter in flush.entries.dead_letters} == set(times[:-1])
    both = [0, NOW_NS]  # in one message, each near one of the two
    assert stored(flushed(message(1, both), steady_ns=60 * NS_PER_S)) == both


def test_a_run_has_a_time_of_its_own_and_a_number_of_weeks() -> None:
    run_weeks: RunWeeks = defaultdict(set)
    old = [at * 1_000 for at in range(5)]  # of 1970
    assert stored(flushed(message(1, old, RUN), run_weeks=run_weeks)) == old
    every_week = [at * WEEK_NS for at in range(-300, 300)]
    flush = flushed(message(2, every_week, RUN), run_weeks=run_weeks)
    assert len(stored(flush)) == len(run_weeks["o"]) == MOST_WEEKS
    (letter,) = flush.entries.dead_letters
    assert "140 of its 1200 samples are not stored" in letter.reason
    assert "runs in 530 weeks already" in letter.reason
    again = flushed(message(3, old, RUN), run_weeks=run_weeks)
    assert stored(again) == old


def test_an_organisation_with_too_many_weeks_of_runs_gets_no_more() -> None:
    # two flushes at one moment may note a week too many between them
    run_weeks: RunWeeks = defaultdict(set, {"o": set(range(MOST_WEEKS + 2))})
    flush = flushed(message(1, [-at * WEEK_NS for at in range(1, 9)], RUN), run_weeks=run_weeks)
    assert stored(flush) == []
    assert len(run_weeks["o"]) == MOST_WEEKS + 2


def test_weeks_are_new_until_samples_of_them_are_stored() -> None:
    known = KnownWeeks()
    most = time_limits.MOST_NEW_WEEKS
    many = flushed(message(1, [at * WEEK_NS for at in range(-1, most)], RUN))
    weeks = known.new(many)
    assert weeks == {"o": set(range(-1, most))}
    assert f"its samples lie in {most + 1} weeks" in time_limits.scattered(weeks)["o"]
    known.add(known.new(flushed(message(2, [0, WEEK_NS], RUN))))
    assert known.new(many) == {"o": {-1, *range(2, most)}}
    assert not time_limits.scattered(known.new(many))


def test_samples_that_are_dead_letters_have_no_weeks() -> None:
    every_week = [NOW_NS - at * WEEK_NS for at in range(40)]
    flush = flushed(*(message(at, [time_ns]) for at, time_ns in enumerate(every_week)))
    assert not time_limits.scattered(KnownWeeks().new(flush))
