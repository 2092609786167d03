"""What becomes of messages: taken, repeated, waiting, set aside or buried."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from broker import codec
from broker.batch import Batch, EquipmentKind, Gap, Source, Wide
from broker.bus.inbox import Message
from broker.errors import Partial
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.recorder import classify, lost_gaps
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import Lookups, WaitLimits
from testbed_api.recorder.flush import Flush, FlushTime, ReceivedMessage
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.recorder.placement_ledger import Placements
from testbed_api.stores import bisect_write
from testbed_api.stores.port import Block

STREAM = StreamAddress("o", "e", "s")
SPEC = StreamSpec(STREAM, (Signal("a"),))
LIFE = StreamEpoch("live", STREAM, "epoch")
EVERYTHING = Lookups({("live", STREAM, 1): SPEC}, {STREAM.owner: EquipmentKind.REAL}, {})
NOTHING = Lookups({}, {}, {})
PATIENCE = WaitLimits(wait_ns=100, most=2, most_bytes=10**6, most_set_aside=10**6)


def arrived(
    seq: int, *, source: Source = Source.LIVE, set_aside: int | None = None
) -> ReceivedMessage:
    frame = Wide(np.array([seq], np.int64), {"a": np.array([1.0])})
    payload = codec.encode(Batch(1, (frame,), source, epoch="epoch", seq=seq))
    message = Message(f"tb1/live/data/{STREAM}", payload)
    return recorder_flush.read(message, 0, set_aside=set_aside)


def sift(
    *candidates: ReceivedMessage,
    known: Lookups = EVERYTHING,
    passed_ns: int = 10,
    now_ns: int = 10,
    limits: WaitLimits = PATIENCE,
) -> Flush:
    time = FlushTime(now_ns, steady_ns=10, monotonic_ns=passed_ns)
    return classify.classify(candidates, known, placements=Placements(), time=time, limits=limits)


def test_what_is_known_is_taken_and_counted_under_its_life() -> None:
    flush = sift(arrived(1), arrived(2))
    assert (flush.samples(), flush.batches, len(flush.done)) == (2, 2, 2)
    assert flush.seqs == {LIFE: {1, 2}}
    ((life, messages),) = flush.origins
    assert life == LIFE
    assert [(each.document.seq, size) for each, size in messages] == [(1, 1), (2, 1)]
    assert [len(each) for each in (part.block for part in flush.split_by_document(0))] == [1, 1]


class Picky:
    """A store's `write` that never takes the sample of one moment."""

    def __init__(self, time_ns: int) -> None:
        self.stored: list[int] = []
        self._time_ns = time_ns

    async def write(self, blocks: Sequence[Block]) -> None:
        times = [
            [t for _, each in block.series() for t in each.time_ns.tolist()] for block in blocks
        ]
        refused = [(at, "no") for at, some in enumerate(times) if self._time_ns in some]
        self.stored += [t for some in times if self._time_ns not in some for t in some]
        if refused:
            raise Partial("not all", rejected=refused)


async def test_a_refused_sample_is_known_by_its_document_among_many() -> None:
    flush = sift(arrived(1), arrived(2), arrived(3))
    store = Picky(2)
    parts = flush.split_by_document(0)
    for at, block, reason in await bisect_write.write(store, [each.block for each in parts]):  # type: ignore[arg-type]
        flush.dead_letter_part(parts[at]._replace(block=block), reason)
    (letter,) = flush.entries.dead_letters
    assert (letter.seq, letter.signal, letter.time_ns) == (2, "a", 2)
    assert sorted(store.stored) == [1, 3]


def test_what_is_held_or_comes_twice_asks_for_a_mark_and_is_stored_once() -> None:
    held = Lookups(EVERYTHING.specs, EVERYTHING.kinds, {LIFE: Held(1)})
    flush = sift(arrived(1), arrived(2), arrived(2), known=held)
    assert (flush.samples(), flush.repeated, len(flush.done)) == (1, 2, 3)
    assert flush.mark_requests == {LIFE}


def test_without_a_spec_a_message_waits_and_then_is_set_aside() -> None:
    flush = sift(arrived(1), arrived(2), arrived(3), known=NOTHING)
    assert [each.document.seq for each in flush.waiting if each.document] == [1, 2]
    assert len(flush.entries.set_aside) == len(flush.done) == 1  # the third is one too many
    late = sift(*flush.waiting, known=NOTHING, passed_ns=100)
    assert not late.waiting
    assert len(late.entries.set_aside) == 2
    assert late.seqs == {LIFE: {1, 2}}  # the recorder answers for it


def test_no_more_bytes_wait_for_a_spec_than_may() -> None:
    size = len(arrived(1).message.payload)
    limits = replace(PATIENCE, most=100, most_bytes=2 * size)
    flush = sift(*(arrived(seq) for seq in range(1, 6)), known=NOTHING, limits=limits)
    assert len(flush.waiting) == 2
    assert len(flush.entries.set_aside) == 3


def test_of_an_organisation_no_more_bytes_are_set_aside_than_may() -> None:
    size = len(arrived(1).message.payload)
    limits = replace(PATIENCE, wait_ns=0, most_set_aside=3 * size)
    known = Lookups({}, {}, {}, {"o": size, "other": 3 * size})
    flush = sift(*(arrived(seq) for seq in range(1, 6)), known=known, limits=limits)
    assert len(flush.entries.set_aside) == 2
    assert flush.seqs == {LIFE: {1, 2}}  # the publisher keeps the others
    assert (flush.withheld, len(flush.done), flush.entries.dead_letters) == (3, 5, [])


def test_what_was_set_aside_is_taken_up_once_its_spec_is_known() -> None:
    held = Lookups(EVERYTHING.specs, EVERYTHING.kinds, {LIFE: Held(3)})
    flush = sift(arrived(3, set_aside=7), known=held)
    assert flush.samples() == 1
    assert flush.entries.taken_up == [7]
    assert not flush.done
    waits = sift(arrived(3, set_aside=7), known=NOTHING)
    assert (waits.waiting, waits.entries.taken_up, waits.entries.set_aside) == ([], [], [])


def test_data_that_deny_their_equipment_are_buried_whole() -> None:
    flush = sift(arrived(1, source=Source.SIMULATED))
    (letter,) = flush.entries.dead_letters
    assert "source simulated from a real equipment" in letter.reason
    assert (flush.samples(), flush.seqs) == (0, {LIFE: {1}})


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("tb1/live/data/o/e/s", b"{", "not JSON"),
        ("tb1/live/data/o/e/S", b"{}", "not an id"),
        ("tb1/live/mark/o/e", b"{}", "takes nothing"),
        ("elsewhere", b"\xff", "not a topic"),
    ],
)
def test_what_cannot_be_read_is_buried_with_its_reason(
    topic: str, payload: bytes, reason: str
) -> None:
    flush = sift(recorder_flush.read(Message(topic, payload), 0))
    (letter,) = flush.entries.dead_letters
    assert reason in letter.reason
    assert letter.payload == payload
    assert len(flush.done) == 1


def test_a_gap_of_a_lost_spool_is_cut_before_it_is_written() -> None:
    frame = Wide(np.array([9], np.int64), {"a": np.array([1.0])})
    gap = Gap(("a",), 1, 8, lost_gaps.SPOOL_LOST)
    batch = Batch(1, (frame,), Source.LIVE, epoch="epoch", seq=1, gaps=(gap,))
    message = Message(f"tb1/live/late/{STREAM}", codec.encode(batch))
    flush = sift(recorder_flush.read(message, 0))
    assert flush.lost == [(SPEC, (LIFE, 1, gap))]
    assert (flush.samples(), flush.entries.gaps) == (1, [])


def test_the_end_of_each_batch_is_its_last_time_stamp_but_no_later_than_it_came() -> None:
    flush = sift(arrived(1), arrived(3), now_ns=2)
    assert flush.ends_ns() == {LIFE: {1: 1, 3: 2}}
