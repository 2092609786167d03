"""Filter and batching: time stamps, dead bands, gaps and sizes of batches."""

import pytest

from broker import codec
from broker.batch import BAD, GOOD, MOST_BYTES, UNCERTAIN, Gap, Source
from broker.streams import Dtype
from gateway.mapping import file as mapping_file
from gateway.mapping.model import StreamMapping
from gateway.pipeline.batching import Batcher
from gateway.pipeline.sample_filter import SampleFilter
from gateway.pipeline.source_clock import StampLimits
from gateway.pipeline.stream_group import EarlierStamps
from gateway.samples import Arrival, Samples, StreamSamples
from gateway.spool.stamps import StreamStamps

HEAD = """
organisation: o
equipment: e
kind: real
opcua: {url: "opc.tcp://localhost:4840", security: none}
streams:
  s:
    signals:
"""

NOW = Arrival(1_000, 1_000)


def filtering(*streams: StreamMapping, past: StreamStamps | None = None) -> SampleFilter:
    """A filter without limits.  past: time stamps of each stream before."""
    earlier = EarlierStamps(stamps=[past or StreamStamps()] * len(streams), began=NOW)
    return SampleFilter(streams, StampLimits(2**62, 2**62, 10), earlier)


def stream(*signals: str) -> StreamMapping:
    """signals: `name: {fields}` lines, without their node."""
    lines = "".join(f"      {line.replace('{', '{node: i=1, ')}\n" for line in signals)
    return mapping_file.read(HEAD + lines, "m.yaml").streams[0]


def batcher(*signals: str) -> Batcher:
    return Batcher(stream(*signals), Source.LIVE)


def taken(filter_: SampleFilter, *rows: tuple[int, object, int], fresh: bool = False) -> list[int]:
    """The time stamps of the samples that are kept."""
    samples = Samples.from_rows([Dtype.FLOAT64], [(0, *row) for row in rows])
    return [
        time
        for part in filter_.take([StreamSamples(0, samples, fresh)], NOW)
        for time in part.samples.time_ns.tolist()
    ]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ([10, 10, 10, 10], [10, 11, 12, 13]),
        ([10] * 1000, list(range(10, 1010))),
    ],
)
def test_of_samples_at_one_time_the_later_ones_move_to_a_free_one(
    sent: list[int], stored: list[int]
) -> None:
    filter_ = filtering(stream("a: {}"))
    assert taken(filter_, *((time, 1.0, GOOD) for time in sent)) == stored
    assert filter_.counts[0].moved == len(
        [1 for was, now in zip(sent, stored, strict=True) if was != now]
    )


def test_late_data_do_not_turn_back_where_the_next_gap_begins() -> None:
    filter_ = filtering(stream("a: {}"))
    taken(filter_, (100, 1.0, GOOD), (50, 2.0, GOOD))
    last = filter_.last(0, 0)
    assert last is not None
    assert (last.time_ns, last.newest_ns) == (50, 101)  # one was in doubt


def test_what_the_server_repeats_at_a_new_subscription_is_no_sample() -> None:
    filter_ = filtering(stream("a: {}"))
    assert taken(filter_, (10, 1.0, GOOD), (10, 2.0, GOOD)) == [10, 11]
    assert taken(filter_, (10, 2.0, GOOD), fresh=True) == []
    assert taken(filter_, (10, 2.0, GOOD), (20, 2.0, GOOD), fresh=True) == [20]
    assert filter_.counts[0].repeated == 2


def test_a_change_of_quality_leaves_the_dead_band() -> None:
    filter_ = filtering(stream("a: {deadband: 1}"))
    counted = taken(
        filter_,
        (1, 5.0, GOOD),
        (2, 5.5, GOOD),
        (3, 5.5, UNCERTAIN),
        (4, float("nan"), BAD),
        (5, 5.5, GOOD),
    )
    assert counted == [1, 3, 4, 5]
    assert filter_.counts[0].dead_banded == 1


def test_streams_that_come_together_do_not_mix() -> None:
    """Two of floats, one of both kinds, and one that has nothing this time."""
    kinds = (["a: {deadband: 1}"], ["a: {}", "b: {dtype: string}"], ["a: {}"], ["a: {}"])
    streams = [stream(*signals) for signals in kinds]
    filter_ = filtering(*streams)
    rows = [[(0, 5, 1.0, GOOD), (0, 6, 1.5, GOOD)], [(1, 5, "x", GOOD), (0, 5, 2.0, GOOD)]]
    parts = [
        StreamSamples(at, Samples.from_rows(streams[at].spec.dtypes, row))
        for at, row in ((0, rows[0]), (1, rows[1]), (2, [(0, 5, 3.0, GOOD), (0, 5, 4.0, GOOD)]))
    ]
    counted = {part.stream: part.samples for part in filter_.take(parts, NOW)}
    assert {at: samples.time_ns.tolist() for at, samples in counted.items()} == {
        0: [5],
        1: [5, 5],
        2: [5, 6],
    }
    assert counted[1].signal.tolist() == [1, 0]
    assert counted[1].values.tolist() == ["x", 2.0]
    assert counted[2].values.tolist() == [3.0, 4.0]
    assert [(counts.offered, counts.dead_banded, counts.moved) for counts in filter_.counts] == [
        (2, 1, 0),
        (2, 0, 0),
        (2, 0, 1),
        (0, 0, 0),
    ]
    lasts = [filter_.last(at, 0) for at in range(4)]
    assert [None if last is None else last.newest_ns for last in lasts] == [6, 5, 6, None]


def test_signals_with_the_same_gap_share_one() -> None:
    stream_batcher = batcher("a: {}", "b: {}", "c: {}")
    for name in ("a", "b"):
        stream_batcher.gap(Gap((name,), 1, 9, "server-overflow"))
    stream_batcher.gap(Gap(("c",), 1, 8, "server-overflow"))
    (batch,) = stream_batcher.cut()
    assert batch.gaps == (
        Gap(("a", "b"), 1, 9, "server-overflow"),
        Gap(("c",), 1, 8, "server-overflow"),
    )


def test_no_batch_is_larger_than_the_wire_allows() -> None:
    stream_batcher = batcher("a: {dtype: string}", "b: {dtype: string}")
    batches = []
    for time in range(60):
        texts = ("\x01" * 16_000, "x" * 16_000)
        rows = [(at, time * 100, text, GOOD) for at, text in enumerate(texts)]
        batches += stream_batcher.add(
            Samples.from_rows(stream_batcher.mapping.spec.dtypes, rows), 0
        )
    batches += stream_batcher.cut()
    assert sum(len(batch) for batch in batches) == 120
    assert all(len(codec.encode(batch)) <= MOST_BYTES for batch in batches)


def test_many_gaps_become_several_batches() -> None:
    stream_batcher = batcher("a: {}", "b: {}")
    for at in range(5_000):
        stream_batcher.gap(Gap(("a",), at, at + 1, "server-overflow"))
    batches = list(stream_batcher.cut())
    assert sum(len(batch.gaps) for batch in batches) == 5_000
    assert all(len(codec.encode(batch)) <= MOST_BYTES for batch in batches)
    assert not stream_batcher.waits
