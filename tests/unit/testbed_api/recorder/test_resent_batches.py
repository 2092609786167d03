"""Lost gaps are cut back around what is stored again, and around nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from broker import codec
from broker.batch import Gap, Source, Wide
from broker.bus.inbox import Message
from broker.clock import NS_PER_S
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec, Trigger
from testbed_api.recorder import gap_search, resent_batches
from testbed_api.recorder.flush import BlockOrigin, Flush, FlushTime, ReceivedMessage
from testbed_api.recorder.ledger import StatedGap, StreamEpoch
from testbed_api.recorder.lost_gaps import LEDGER_LOST, STORE_LOST, LostGaps
from testbed_api.recorder.resent_batches import StoredBatch
from testbed_api.stores.port import Block

STREAM = StreamAddress("factory", "pump-rig", "rig")
SPEC = StreamSpec(STREAM, (Signal("a"),), 1, period_s=1e-9, max_silence_s=10e-9)
LIFE, KEY = StreamEpoch("live", STREAM, "e1"), ("live", STREAM)
LONGEST_NS = 10
TIME = FlushTime(0, 0, 0)
LOST = Gap((), 100, 200, STORE_LOST)


def times(*ns: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(ns, np.int64)


def left(*batches: StoredBatch) -> list[tuple[int, int]]:
    """What batches leave of a gap from 100 to 200."""
    return [(gap.from_ns, gap.to_ns) for gap in resent_batches.cut(LOST, batches, LONGEST_NS)]


@pytest.mark.parametrize(
    ("batch", "remains"),
    [
        (StoredBatch(times(140, 150)), [(100, 139), (151, 200)]),
        (StoredBatch(times(90, 99)), [(100, 200)]),
        (StoredBatch(times(195, 205)), [(100, 194)]),
        (StoredBatch(times(*range(95, 206, 5))), []),
        (StoredBatch(times(105), follows=True), [(106, 200)]),
        (StoredBatch(times(105)), [(100, 104), (106, 200)]),
        (StoredBatch(times(120), follows=True), [(100, 119), (121, 200)]),
        (StoredBatch(times(195), precedes=True), [(100, 194)]),
        (StoredBatch(times(210), follows=True, after_ns=150), [(100, 149)]),
        (StoredBatch(times(210), follows=True), [(100, 200)]),
        (StoredBatch(times(101, 190, 191, 192)), [(100, 100), (102, 189), (193, 200)]),
    ],
    ids=[
        "in the middle",
        "before it",
        "over its end",
        "all of it",
        "right after what is held",
        "after a batch that is missing",
        "a long silence after what is held",
        "right before what is held",
        "a silence between consecutive batches over its end",
        "nothing is known of the batch before",
        "a late sample far from the others",
    ],
)
def test_a_gap_is_cut_around_a_batch(batch: StoredBatch, remains: list[tuple[int, int]]) -> None:
    assert left(batch) == remains


def known() -> LostGaps:
    """The gap alone."""
    gaps = LostGaps()
    gaps.reset([StatedGap.of_stream(KEY, LOST)])
    return gaps


def numbered(seq: int) -> ReceivedMessage:
    """A message of the life with a number."""
    document = codec.Document(1, 0, LIFE.epoch, seq, Source.LIVE, None, (), ())
    return ReceivedMessage(Message("", b""), 0, document=document)


def flush_of(**batches: tuple[int, ...]) -> Flush:
    """A flush that stores batches by number, each with samples at these times."""
    flush = Flush(TIME)
    for name, ns in batches.items():
        frame = Wide(times(*ns), {"a": np.zeros(len(ns))})
        flush.blocks.append(Block("live", SPEC, (frame,)))
        flush.origins.append(BlockOrigin(LIFE, ((numbered(int(name[1:])), len(ns)),)))
    return flush


def stored(gaps: LostGaps, held: Held, **batches: tuple[int, ...]) -> None:
    gaps.apply(gaps.changes(flush_of(**batches), {LIFE: held}))


def spans(gaps: LostGaps) -> list[tuple[int, int]]:
    return sorted((gap.from_ns, gap.to_ns) for _, _, gap in gaps._gaps.get(KEY, []))


def test_what_is_sent_again_in_order_leaves_what_was_lost_before_it() -> None:
    gaps = known()
    stored(gaps, Held(0, ((5, 6),)), b5=(130, 140), b6=(150, 160))
    assert spans(gaps) == [(100, 129), (161, 200)]
    stored(gaps, Held(0, ((5, 8),)), b7=(175, 180), b8=(198, 205))  # 15 ns of silence between
    assert spans(gaps) == [(100, 129)]


def test_a_silence_that_became_too_short_to_tell_is_no_gap() -> None:
    gaps = LostGaps()
    gaps.reset([StatedGap.of_stream(KEY, replace(LOST, cause=LEDGER_LOST))])
    stored(gaps, Held(0, ((5, 5),)), b5=(110, 115))  # the batch before it is not listed
    assert spans(gaps) == [(116, 200)]


def test_what_comes_fresh_before_the_backlog_ends_no_gap_too_early() -> None:
    gaps = known()
    stored(gaps, Held(0, ((9, 9),)), b9=(205,))
    assert spans(gaps) == [(100, 200)]
    stored(gaps, Held(0, ((7, 9),)), b7=(110, 150), b8=(155, 199))
    assert spans(gaps) == [(100, 109)]


def test_several_documents_of_one_block_are_told_apart() -> None:
    gaps = known()
    frame = Wide(times(110, 115, 150, 155), {"a": np.zeros(4)})
    messages = ((numbered(3), 2), (numbered(7), 2))
    flush = Flush(TIME, blocks=[Block("live", SPEC, (frame,))])
    flush.origins.append(BlockOrigin(LIFE, messages))
    gaps.apply(gaps.changes(flush, {LIFE: Held(0, ((3, 3), (7, 7)))}))
    assert spans(gaps) == [(100, 109), (116, 149), (156, 200)]


def test_other_streams_and_what_is_long_past_a_gap_cost_nothing() -> None:
    gaps = known()
    for each, ns in ((gaps, 211), (LostGaps(), 150)):
        changes = each.changes(flush_of(b9=(ns,)), {LIFE: Held(9)})
        assert not changes.gaps
        assert not changes.ends


def test_silences_are_gaps_between_the_samples_beside_them() -> None:
    assert gap_search.silences(0, times(5, 30, 41), LONGEST_NS) == [
        Gap((), 6, 29, LEDGER_LOST),
        Gap((), 31, 40, LEDGER_LOST),
    ]


@pytest.mark.parametrize(
    ("trigger", "period_s", "longest_s"),
    [(Trigger.TIMESTAMP, 0.1, 1), (Trigger.TIMESTAMP, 0.0, 8), (Trigger.VALUE, 0.1, 8)],
)
def test_a_stream_with_a_sample_each_period_tells_by_its_silence(
    trigger: Trigger, period_s: float, longest_s: int
) -> None:
    spec = replace(SPEC, trigger=trigger, period_s=period_s, max_silence_s=8.0)
    assert resent_batches.telling_silence_ns(spec) == longest_s * NS_PER_S
